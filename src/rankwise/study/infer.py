"""Inference on fold scores: the paper's rule, and rules that know what folds share.

Notation: ``d_1 … d_J`` are the differences (alternative minus baseline) of two arms on the same
fold and seed, ``J = folds × seeds``; ``m`` their mean, ``s²`` their sample variance (divisor
``J − 1``); ``r = n_test / n_train`` of a fold, which is ``1/(k − 1)`` with ``k`` folds.

Any two folds train on mostly the same images, so the differences are correlated, ``s²/J``
underestimates the variance of ``m``, and no number of repetitions brings that variance to zero:
the corrected variance is ``(1/J + r)·s²``, never below ``r·s²``, *the correlation floor*.

What is scored are images, and other images would have given another mean. Where all folds are
scored on the *same* images (the test part), ``s²`` knows nothing of that, and the variance ``V`` of
``m`` over draws of the images (`ImageNoise`) is added; where each fold has images of its own (its
validation part), ``s²`` holds it already, and ``V`` is the least that the variance can be: few
folds that agree by chance don't make it smaller.

References
----------
Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
Bouckaert and Frank, "Evaluating the replicability of significance tests for comparing learning
algorithms", PAKDD 2004: the same correction for repeated cross-validation.
Corani and Benavoli, "A Bayesian approach for comparing cross-validated algorithms on multiple
data sets", Machine Learning 100 (2015); Benavoli, Corani, Demšar and Zaffalon, "Time for a
change", JMLR 18 (2017), for the region of practical equivalence.
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
Satterthwaite, Biometrics Bulletin 2 (1946), for degrees of freedom of a sum of variances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class PaperRule:
    """The paper's hypothesis test (section 3.6).

    Parameters
    ----------
    interval, baseline_interval : tuple of float
        `paper_interval` of the two arms.
    rejects : bool
        Whether the first lies wholly above the second. One-sided: no harm can be found.
    """

    interval: tuple[float, float]
    baseline_interval: tuple[float, float]
    rejects: bool


@dataclass(frozen=True)
class ImageNoise:
    """How much the mean difference varies with the images that it is scored on.

    Parameters
    ----------
    variance : float
        ``V``: of the mean difference over draws of the images, or of their sources where several
        images share one (`image_noise`).
    clusters : int
        Sources that it is estimated from.
    shared : bool
        Whether every fold is scored on the same images.
    """

    variance: float
    clusters: int
    shared: bool


@dataclass(frozen=True)
class PairedTest:
    """A t-test of paired differences.

    Parameters
    ----------
    mean, deviation : float
        ``m`` and ``s`` (nan with fewer than two differences).
    standard_error, statistic, degrees_of_freedom, p_value : float
        Two-sided. The statistic and p are nan where nothing varies: neither folds nor images.
    low, high : float
        Confidence interval of the mean difference; nan where nothing varies.
    """

    mean: float
    deviation: float
    standard_error: float
    statistic: float
    degrees_of_freedom: float
    p_value: float
    low: float
    high: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """The confidence interval of another level, nan where there is none.

        At ``1 − α/M`` it covers together with those of ``M − 1`` other comparisons (Bonferroni).
        """
        from scipy import stats

        if math.isnan(self.statistic):
            return math.nan, math.nan
        half = self.standard_error * float(
            stats.t.ppf((1 + confidence) / 2, self.degrees_of_freedom)
        )
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Posterior:
    """Where the true mean difference lies: below, within, above ``[−rope, rope]``; sums to 1."""

    harm: float
    equal: float
    help: float


def paper_interval(scores: ArrayLike) -> tuple[float, float]:
    """``[m − s, m + s]`` of an arm's fold scores (section 3.6), s with divisor J − 1.

    The paper computes "the mean and standard deviation of the converged K-fold validation
    accuracies" and prints intervals, without a level or a multiplier. One deviation is used here.
    With five folds that lies between the 95% intervals of the mean by the normal distribution
    (``1.96/√5 = 0.88`` deviations) and by Student's (``2.78/√5 = 1.24``), both of which would take
    folds as independent.

    Raises
    ------
    ValueError
        With fewer than two scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.size < 2:
        raise ValueError(f"an interval needs at least 2 fold scores, not {values.size}")
    middle, half = float(values.mean()), float(values.std(ddof=1))
    return middle - half, middle + half


def paper_rule(alternative: ArrayLike, baseline: ArrayLike) -> PaperRule:
    """Reject "no regularising effect" if the alternative's interval lies above the baseline's."""
    first, second = paper_interval(alternative), paper_interval(baseline)
    return PaperRule(first, second, first[0] > second[1])


def corrected_t_test(
    differences: ArrayLike,
    ratio: float,
    *,
    noise: ImageNoise | None = None,
    confidence: float = 0.95,
) -> PairedTest:
    """Corrected resampled t-test (Nadeau and Bengio 2003; repeated: Bouckaert and Frank 2004).

    ``t = m / √((1/J + r)·s²)`` with ``J − 1`` degrees of freedom. With ``ratio=0`` it is the plain
    paired t-test, which takes the folds for independent. With `noise` the variance has ``V`` added
    to it (shared images), or is at least ``V`` (images of each fold's own); degrees of freedom are
    Satterthwaite's.

    Parameters
    ----------
    differences : array_like, (J,)
        Alternative minus baseline, on the same fold and seed.
    ratio : float
        ``r = n_test / n_train``: samples that a fold validates on over samples that it trains on.
    noise : ImageNoise, optional
        Of the images that the folds are scored on.
    confidence : float
        Level of the interval.

    Raises
    ------
    ValueError
        For a negative ratio, or a level outside (0, 1).
    """
    from scipy import stats

    _check(ratio, confidence)
    values = np.asarray(differences, dtype=np.float64).ravel()
    count = values.size
    middle = float(values.mean()) if count else math.nan
    nan = math.nan
    if count < 2:
        return PairedTest(middle, nan, nan, nan, 0, nan, nan, nan)
    deviation = sample_deviation(values)
    error, freedom = combined_error(deviation, count, ratio, noise)
    if error == 0:
        # Equal differences, zeros among them, are no measure of spread: nothing can be tested.
        return PairedTest(middle, deviation, error, nan, freedom, nan, nan, nan)
    statistic = middle / error
    p_value = 2 * float(stats.t.sf(abs(statistic), freedom))
    half = error * float(stats.t.ppf((1 + confidence) / 2, freedom))
    return PairedTest(
        middle, deviation, error, statistic, freedom, p_value, middle - half, middle + half
    )


def combined_error(
    deviation: float, count: int, ratio: float, noise: ImageNoise | None
) -> tuple[float, float]:
    """Standard error of the mean of `count` differences, and its degrees of freedom."""
    of_folds, freedom = (1 / count + ratio) * deviation**2, float(count - 1)
    if noise is None or noise.variance == 0:
        return math.sqrt(of_folds), freedom
    of_images = float(max(1, noise.clusters - 1))
    if noise.shared:
        total = of_folds + noise.variance
        freedom = total**2 / (of_folds**2 / freedom + noise.variance**2 / of_images)
        return math.sqrt(total), freedom
    if noise.variance > of_folds:
        return math.sqrt(noise.variance), of_images
    return math.sqrt(of_folds), freedom


def image_noise(
    differences: ArrayLike, sources: ArrayLike | None = None, *, shared: bool
) -> ImageNoise:
    """`ImageNoise` from each image's mean difference.

    With ``δ_i`` of image ``i`` and ``S_c = Σ_{i∈c} (δ_i − δ̄)`` of source ``c``, ``n`` images and
    ``C`` sources, ``V = C/(C − 1) · Σ_c S_c² / n²``, which is the sample variance over ``n`` where
    every image is a source of its own.

    Parameters
    ----------
    differences : array_like, (n,)
        Of each image: how much more often the alternative is right, over the models compared.
    sources : array_like of int, (n,), optional
        Default: every image is a source of its own.
    shared : bool
        As in `ImageNoise`.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    values = np.asarray(differences, dtype=np.float64).ravel()
    codes = np.arange(len(values)) if sources is None else np.asarray(sources).ravel()
    if codes.shape != values.shape:
        raise ValueError(f"sources aren't those of the images: {codes.shape} and {values.shape}")
    codes = np.unique(codes, return_inverse=True)[1]
    clusters = int(codes.max()) + 1 if len(codes) else 0
    if clusters < 2:
        return ImageNoise(0.0, clusters, shared)
    sums = np.bincount(codes, values - values.mean(), clusters)
    variance = clusters / (clusters - 1) * float(np.sum(sums**2)) / len(values) ** 2
    return ImageNoise(variance, clusters, shared)


def correlated_posterior(
    differences: ArrayLike, ratio: float, rope: float, *, noise: ImageNoise | None = None
) -> Posterior:
    """Bayesian correlated t-test (Corani and Benavoli 2015) with a region of equivalence.

    The posterior of the mean difference is Student's, with ``J − 1`` degrees of freedom, location
    ``m`` and squared scale ``(1/J + ρ/(1 − ρ))·s²``; the correlation of two folds is taken as
    ``ρ = n_test / (n_train + n_test)``, so that ``ρ/(1 − ρ) = r``. With `noise`, scale and degrees
    of freedom are those of `corrected_t_test`.

    Parameters
    ----------
    differences, ratio, noise
        As in `corrected_t_test`.
    rope : float
        Half width of the region in which arms are practically equal, such as 0.005 of accuracy.

    Returns
    -------
    Posterior
        nan with fewer than two differences, or where nothing varies.

    Raises
    ------
    ValueError
        For a negative ratio or region.
    """
    from scipy import stats

    if rope < 0:
        raise ValueError(f"rope must be at least 0, not {rope}")
    test = corrected_t_test(differences, ratio, noise=noise)
    if math.isnan(test.p_value):
        return Posterior(math.nan, math.nan, math.nan)
    place = stats.t(test.degrees_of_freedom, loc=test.mean, scale=test.standard_error)
    harm, better = float(place.cdf(-rope)), float(place.sf(rope))
    return Posterior(harm, max(0.0, 1 - harm - better), better)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: at most α of them by chance, over the whole planned family.

    The i-th smallest of m is multiplied by ``m − i + 1``, then made monotone and cut at 1. A nan
    stands for a comparison that is planned and can't be tested yet; it stays nan and counts in m,
    so that a report of an unfinished study has no smaller family than that of the finished one.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    tested = np.flatnonzero(~np.isnan(values))
    ordered = tested[np.argsort(values[tested], kind="stable")]
    weights = len(values) - np.arange(len(ordered))
    adjusted[ordered] = np.minimum(np.maximum.accumulate(values[ordered] * weights), 1)
    return [float(p) for p in adjusted]


SPENT_FIRST = 0.8
"""Share of the level that the first look at a study may spend."""


def spent_level(alpha: float, look: int) -> float:
    """The level of one look at a study that may be extended: ``α · 0.8 · 0.2^(look − 1)``.

    Looks have one, together at most α, however many there are and whatever made one go on: by the
    union bound, whatever the dependence between looks.

    Parameters
    ----------
    alpha : float
        Of all looks together.
    look : int
        From 1; each extension by seeds is another one.

    Raises
    ------
    ValueError
        For a look below 1.
    """
    if look < 1:
        raise ValueError(f"look must be at least 1, not {look}")
    return alpha * SPENT_FIRST * (1 - SPENT_FIRST) ** (look - 1)


def sample_deviation(values: NDArray[np.float64]) -> float:
    """Sample deviation; what rounding leaves of equal values counts as 0."""
    deviation = float(values.std(ddof=1))
    return deviation if deviation > 1e-12 * max(1.0, float(np.abs(values).max())) else 0.0


def _check(ratio: float, confidence: float) -> None:
    if not ratio >= 0:
        raise ValueError(f"ratio (n_test / n_train) must be at least 0, not {ratio}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
