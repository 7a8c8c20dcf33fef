"""Inference on fold scores: the paper's rule, and rules that know what folds share.

Notation: ``d_1 … d_J`` are the differences (alternative minus baseline) of two arms on the same
fold and seed, ``J = folds × seeds``; ``m`` their mean, ``s²`` their sample variance (divisor
``J − 1``); ``r = n_test / n_train`` of a fold, which is ``1/(k − 1)`` with ``k`` folds.

Any two folds train on mostly the same images, so the differences are correlated, ``s²/J``
underestimates the variance of ``m``, and no number of repetitions brings that variance to zero:
the corrected variance is ``(1/J + r)·s²``, never below ``r·s²``, *the correlation floor*.

References
----------
Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
Bouckaert and Frank, "Evaluating the replicability of significance tests for comparing learning
algorithms", PAKDD 2004: the same correction for repeated cross-validation.
Corani and Benavoli, "A Bayesian approach for comparing cross-validated algorithms on multiple
data sets", Machine Learning 100 (2015); Benavoli, Corani, Demšar and Zaffalon, "Time for a
change", JMLR 18 (2017), for the region of practical equivalence.
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
McNemar, Psychometrika 12 (1947); Edwards, Psychometrika 13 (1948), for the continuity correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Below this many discordant pairs the exact binomial test; the usual bound for the approximation.
_EXACT_BELOW = 25


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
class PairedTest:
    """A t-test of paired differences.

    Parameters
    ----------
    mean, deviation : float
        ``m`` and ``s`` (nan with fewer than two differences).
    standard_error, statistic, degrees_of_freedom, p_value : float
        Two-sided. The statistic and p are nan where the differences don't vary, zero or not.
    low, high : float
        Confidence interval of the mean difference; nan where they don't vary.
    """

    mean: float
    deviation: float
    standard_error: float
    statistic: float
    degrees_of_freedom: int
    p_value: float
    low: float
    high: float


@dataclass(frozen=True)
class Posterior:
    """Where the true mean difference lies: below, within, above ``[−rope, rope]``; sums to 1."""

    harm: float
    equal: float
    help: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's test on paired predictions.

    Parameters
    ----------
    gained, lost : int
        Samples that only the alternative, only the baseline gets right.
    statistic : float
        The smaller count (exact), or chi-square.
    p_value : float
        Two-sided.
    method : {"exact", "chi-square"}
        Binomial below 25 discordant pairs; else chi-square with Edwards's continuity correction.
    """

    gained: int
    lost: int
    statistic: float
    p_value: float
    method: str


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
    differences: ArrayLike, ratio: float, *, confidence: float = 0.95
) -> PairedTest:
    """Corrected resampled t-test (Nadeau and Bengio 2003; repeated: Bouckaert and Frank 2004).

    ``t = m / √((1/J + r)·s²)`` with ``J − 1`` degrees of freedom. With ``ratio=0`` it is the plain
    paired t-test, which takes the folds for independent.

    Parameters
    ----------
    differences : array_like, (J,)
        Alternative minus baseline, on the same fold and seed.
    ratio : float
        ``r = n_test / n_train``: samples that a fold validates on over samples that it trains on.
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
    if count < 2:
        nan = math.nan
        return PairedTest(middle, nan, nan, nan, 0, nan, nan, nan)
    deviation = sample_deviation(values)
    error = deviation * math.sqrt(1 / count + ratio)
    if error == 0:
        # Equal differences, zeros among them, are no measure of spread: nothing can be tested.
        nan = math.nan
        return PairedTest(middle, deviation, error, nan, count - 1, nan, nan, nan)
    statistic = middle / error
    p_value = 2 * float(stats.t.sf(abs(statistic), count - 1))
    half = error * float(stats.t.ppf((1 + confidence) / 2, count - 1))
    return PairedTest(
        middle, deviation, error, statistic, count - 1, p_value, middle - half, middle + half
    )


def correlated_posterior(differences: ArrayLike, ratio: float, rope: float) -> Posterior:
    """Bayesian correlated t-test (Corani and Benavoli 2015) with a region of equivalence.

    The posterior of the mean difference is Student's, with ``J − 1`` degrees of freedom, location
    ``m`` and squared scale ``(1/J + ρ/(1 − ρ))·s²``; the correlation of two folds is taken as
    ``ρ = n_test / (n_train + n_test)``, so that ``ρ/(1 − ρ) = r``.

    Parameters
    ----------
    differences, ratio
        As in `corrected_t_test`.
    rope : float
        Half width of the region in which arms are practically equal, such as 0.005 of accuracy.

    Returns
    -------
    Posterior
        nan with fewer than two differences, or where they are all equal, zero or not.

    Raises
    ------
    ValueError
        For a negative ratio or region.
    """
    from scipy import stats

    if rope < 0:
        raise ValueError(f"rope must be at least 0, not {rope}")
    test = corrected_t_test(differences, ratio)
    if math.isnan(test.p_value):
        return Posterior(math.nan, math.nan, math.nan)
    place = stats.t(test.degrees_of_freedom, loc=test.mean, scale=test.standard_error)
    harm, better = float(place.cdf(-rope)), float(place.sf(rope))
    return Posterior(harm, max(0.0, 1 - harm - better), better)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: at most α of them by chance, over the whole family.

    The i-th smallest of m is multiplied by ``m − i + 1``, then made monotone and cut at 1. A nan
    stands for a comparison that couldn't be tested; it stays nan and doesn't count in m.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    tested = np.flatnonzero(~np.isnan(values))
    ordered = tested[np.argsort(values[tested], kind="stable")]
    weights = np.arange(len(ordered), 0, -1)
    adjusted[ordered] = np.minimum(np.maximum.accumulate(values[ordered] * weights), 1)
    return [float(p) for p in adjusted]


def mcnemar(correct: ArrayLike, baseline_correct: ArrayLike) -> McNemar:
    """McNemar's test of two arms on the same test samples.

    Only samples that exactly one of the arms gets right carry information: of ``n = gained + lost``
    the gained ones are Binomial(n, ½) if the arms have the same accuracy. It takes the trained
    models as given: a difference says nothing about other seeds.

    Parameters
    ----------
    correct, baseline_correct : array_like of bool, (n,)
        Whether each arm is right.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    from scipy import stats

    first, second = np.asarray(correct, dtype=bool), np.asarray(baseline_correct, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"predictions aren't paired: shapes {first.shape} and {second.shape}")
    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    discordant = gained + lost
    if discordant < _EXACT_BELOW:
        few = min(gained, lost)
        p_value = min(1.0, 2 * float(stats.binom.cdf(few, discordant, 0.5))) if discordant else 1.0
        return McNemar(gained, lost, float(few), p_value, "exact")
    statistic = max(0, abs(gained - lost) - 1) ** 2 / discordant
    return McNemar(gained, lost, statistic, float(stats.chi2.sf(statistic, 1)), "chi-square")


def sample_deviation(values: NDArray[np.float64]) -> float:
    """Sample deviation; what rounding leaves of equal values counts as 0."""
    deviation = float(values.std(ddof=1))
    return deviation if deviation > 1e-12 * max(1.0, float(np.abs(values).max())) else 0.0


def _check(ratio: float, confidence: float) -> None:
    if not ratio >= 0:
        raise ValueError(f"ratio (n_test / n_train) must be at least 0, not {ratio}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
