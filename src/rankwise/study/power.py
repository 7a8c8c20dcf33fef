"""How much more would tell: the chance of a verdict, and the seeds or folds for it.

Notation as in `rankwise.study.infer`; ``K`` are the folds there are, ``k`` those there could be.

Advice that takes a pilot's mean and spread for the truth is too hopeful: both are estimates, and a
mean that looks promising is more often too large than too small. So the chance to tell is averaged
over what mean and spread may be, given the pilot (its *assurance*; O'Hagan, Stevens and Campbell,
Pharmaceutical Statistics 4, 2005).

References
----------
Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
Bengio and Grandvalet, "No unbiased estimator of the variance of k-fold cross-validation", JMLR 5
(2004): why what follows rests on an assumed correlation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise.study.infer import ImageNoise, combined_error, sample_deviation
from rankwise.study.verdict import CERTAINTY

# Repetitions looked at before `repeats_to_tell` calls a study hopeless.
_MOST_REPEATS = 1000
MOST_FOLDS = 50
"""Folds looked at by `folds_to_tell`."""
WANTED_POWER = 0.8
_NO_END = 1e6
# Quantiles of the spread and of the mean that a chance is averaged over.
_GRID = 15
# Quantiles of the spread that one chance is averaged over.
_SPREADS = 60

Floats = NDArray[np.float64]


def chance_to_help(
    effect: float,
    deviation: float,
    pairs: int,
    ratio: float,
    rope: float,
    *,
    alpha: float = 0.05,
    noise: ImageNoise | None = None,
) -> float:
    """Chance that a study of a true gain ends in ``helps``, as `rankwise.study.verdict` reaches it.

    With ``t_q`` the quantiles of Student's t at the degrees of freedom that the study finds, the
    mean ``m`` has to pass both ``t_{1−α/2} · e`` (the corrected t-test) and ``rope + t_{0.95} · e``
    (the posterior beyond the region), where ``e`` is the standard error that the study finds. Its
    ``s²`` is ``deviation² · χ²/(J − 1)``, independent of ``m``, which is normal around the effect:

    ``P = E_s Φ((effect − max(t_{1−α/2} · e(s), rope + t_{0.95} · e(s))) / e(deviation))``.

    Parameters
    ----------
    effect, deviation : float
        True mean difference, above 0, and true deviation between folds.
    pairs, ratio, rope, noise
        As in `rankwise.study.infer`.
    alpha : float
        Level of this comparison, two-sided: its share of the family's.
    """
    from scipy import stats

    if pairs < 2:
        return 0.0
    levels = (np.arange(_SPREADS) + 0.5) / _SPREADS
    spreads = deviation * np.sqrt(stats.chi2.ppf(levels, pairs - 1) / (pairs - 1))
    both = [combined_error(float(s), pairs, ratio, noise) for s in spreads]
    errors, freedoms = (np.array(column) for column in zip(*both, strict=True))
    true = combined_error(deviation, pairs, ratio, noise)[0]
    needed = np.maximum(
        stats.t.ppf(1 - alpha / 2, freedoms) * errors,
        rope + stats.t.ppf(CERTAINTY, freedoms) * errors,
    )
    if true == 0:
        return 0.0  # Nothing varies: such a study can't be tested.
    return float(np.mean(stats.norm.cdf((effect - needed) / true)))


def chance_to_tell(
    effect: ArrayLike,
    deviation: ArrayLike,
    pairs: int,
    ratio: float,
    rope: float,
    *,
    alpha: float = 0.05,
    certainty: float = CERTAINTY,
    noise: ImageNoise | None = None,
) -> Floats:
    """Chance that a study ends in a verdict, for each true mean and spread.

    Either the corrected t-test at `alpha` finds the difference and 95% of the posterior's mass lie
    beyond the region of equivalence, or as much as `certainty` lies within it.

    Parameters
    ----------
    effect, deviation : array_like, (g,)
        True mean difference, and deviation between folds.
    pairs, ratio, rope, alpha, noise
        As in `rankwise.study.infer`.
    """
    from scipy import stats

    means, spreads = np.broadcast_arrays(
        np.asarray(effect, dtype=np.float64).ravel(),
        np.asarray(deviation, dtype=np.float64).ravel(),
    )
    if pairs < 2:
        return np.zeros(means.shape)
    distinct, place = np.unique(spreads, return_inverse=True)
    both = [combined_error(float(s), pairs, ratio, noise) for s in distinct]
    errors, freedoms = (np.array(column)[place] for column in zip(*both, strict=True))
    found = np.ones(means.shape)
    varies = errors > 0
    mean, error, freedom = means[varies], errors[varies], freedoms[varies]
    certain = stats.t.ppf(CERTAINTY, freedom)
    significant = stats.t.ppf(1 - alpha / 2, freedom)
    # Help and harm: the test's threshold, and the posterior's beyond the region.
    decided = sum(
        np.minimum(
            _beyond(significant, freedom, side * mean / error),
            _beyond(certain, freedom, (side * mean - rope) / error),
        )
        for side in (1, -1)
    )
    room = rope - stats.t.ppf(certainty, freedom) * error
    within = stats.norm.cdf((room - mean) / error) - stats.norm.cdf((-room - mean) / error)
    found[varies] = np.minimum(1.0, decided + np.where(room > 0, within, 0.0))
    return found


def _beyond(bound: Floats | float, freedom: Floats | float, shift: Floats) -> Floats:
    """``P(t > bound)`` of noncentral t; scipy's gives nan far out in its tails."""
    from scipy import stats

    with np.errstate(all="ignore"):
        chance = stats.nct.sf(bound, freedom, shift)
    return np.where(np.isnan(chance), stats.norm.sf(bound - shift), np.clip(chance, 0, 1))


@dataclass(frozen=True)
class Pilot:
    """What a study has seen so far of one comparison.

    Parameters
    ----------
    differences : ndarray, (J,)
    ratio : float
        ``r``.
    folds : int
        ``K``.
    noise : ImageNoise, optional
    """

    differences: Floats
    ratio: float
    folds: int
    noise: ImageNoise | None = None

    @property
    def deviation(self) -> float:
        """``s``; 0 where it can't be told."""
        return sample_deviation(self.differences) if self.differences.size > 1 else 0.0

    def possible(self) -> tuple[Floats, Floats]:
        """Means and deviations that may be true, equally likely given the differences seen.

        The spread's square is ``(J − 1)s²/χ²``; the mean is normal around the one seen, with the
        corrected variance.
        """
        from scipy import stats

        count = self.differences.size
        levels = (np.arange(_GRID) + 0.5) / _GRID
        spreads = self.deviation * np.sqrt((count - 1) / stats.chi2.ppf(levels, count - 1))
        errors = [combined_error(s, count, self.ratio, self.noise)[0] for s in spreads]
        offsets = stats.norm.ppf(levels)
        means = float(self.differences.mean()) + np.outer(errors, offsets)
        return means.ravel(), np.repeat(spreads, _GRID)


def assurance(pilot: Pilot, chance: Callable[[Floats, Floats], Floats]) -> float:
    """A chance that depends on the true mean and deviation, averaged over what they may be."""
    return float(np.mean(chance(*pilot.possible())))


def repeats_to_tell(
    pilot: Pilot, rope: float, *, alpha: float = 0.05, certainty: float = CERTAINTY
) -> int | None:
    """Seeds (repetitions of all folds) in all that would tell, in four of five such studies.

    Since the corrected variance never falls below ``r·s²`` (the correlation floor), nor below what
    the images alone give, there may be no such number: then `folds_to_tell` may, or more images
    (`images_would_tell`).

    Parameters
    ----------
    pilot : Pilot
    rope : float
        As in `rankwise.study.infer.correlated_posterior`.
    alpha : float
        Level of the test; divided by the number of comparisons by a caller who adjusts.

    Returns
    -------
    int or None
        At least 1; None if no number would do, or the spread can't be told yet.
    """
    if pilot.differences.size < 2 or pilot.folds < 1 or pilot.deviation == 0:
        return None

    def tells(repeats: int) -> bool:
        def chance(means: Floats, spreads: Floats) -> Floats:
            return chance_to_tell(
                means,
                spreads,
                pilot.folds * repeats,
                pilot.ratio,
                rope,
                alpha=alpha,
                certainty=certainty,
                noise=pilot.noise,
            )

        return assurance(pilot, chance) >= WANTED_POWER

    if not tells(_MOST_REPEATS):
        return None
    low, high = 0, _MOST_REPEATS
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if tells(half) else (half, high)
    return high


def folds_to_tell(
    pilot: Pilot,
    rope: float,
    *,
    seeds: int = 1,
    most: int = MOST_FOLDS,
    alpha: float = 0.05,
    certainty: float = CERTAINTY,
) -> int | None:
    """Folds in place of those there are that would tell, in four of five such studies.

    Folds correlated by ``1/k`` show ``1 − 1/k`` of their variance. With images that all folds share

    ``s_k² = s² · (1 − 1/k)/(1 − 1/K)``,  ``r_k = 1/(k − 1)``.

    Where each fold has images of its own, the part ``K·V`` of ``s²`` comes of their number and
    grows as parts shrink, to ``k·V``; the rest, the training's own, is taken to stay:

    ``s_k² = ((s² − K·V) + k·V) · (1 − 1/k)/(1 − 1/K)``.

    That folds are correlated by ``1/k`` is the rules' own assumption. Cells of one seed start from
    the same weights, which makes them more alike than that.

    Parameters
    ----------
    pilot : Pilot
        Its noise has to be known.
    rope, alpha
        As in `repeats_to_tell`.
    seeds : int
        ``S``.
    most : int
        Largest number looked at: no more than the data can be cut into.

    Returns
    -------
    int or None
        More than `folds`; None if no number up to `most` would do, or the spread or the noise can't
        be told yet.
    """
    noise, folds = pilot.noise, pilot.folds
    if noise is None or pilot.differences.size < 2 or folds < 2 or pilot.deviation == 0:
        return None
    own = 0.0 if noise.shared else noise.variance

    def tells(k: int) -> bool:
        def chance(means: Floats, spreads: Floats) -> Floats:
            of_images = np.minimum(folds * own, spreads**2)
            scaled = (spreads**2 - of_images + of_images * k / folds) * (1 - 1 / k)
            deviations = np.sqrt(scaled / (1 - 1 / folds))
            return chance_to_tell(
                means,
                deviations,
                k * seeds,
                1 / (k - 1),
                rope,
                alpha=alpha,
                certainty=certainty,
                noise=noise,
            )

        return assurance(pilot, chance) >= WANTED_POWER

    # More folds never hurt here: the first that tells is found by halving.
    if most <= folds or not tells(most):
        return None
    low, high = folds, most
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if tells(half) else (half, high)
    return high


def images_would_tell(
    pilot: Pilot, rope: float, *, alpha: float = 0.05, certainty: float = CERTAINTY
) -> bool | None:
    """Whether some number of seeds would tell, were there images without end.

    What the images alone give is then gone from the spread, as in `folds_to_tell`; what trainings
    differ by is taken to stay, and their correlation with it.

    Parameters
    ----------
    pilot, rope, alpha
        As in `repeats_to_tell`.

    Returns
    -------
    bool or None
        None where the spread or the noise can't be told yet.
    """
    noise = pilot.noise
    if noise is None or pilot.differences.size < 2 or pilot.deviation == 0:
        return None
    square = pilot.deviation**2
    own = 0.0 if noise.shared else min(pilot.folds * noise.variance, square)
    mean = pilot.differences.mean()
    scaled = mean + (pilot.differences - mean) * np.sqrt((square - own) / square)
    if own == square:
        return True  # Nothing is left that varies.
    without = replace(pilot, differences=scaled, noise=with_images(noise, _NO_END))
    return repeats_to_tell(without, rope, alpha=alpha, certainty=certainty) is not None


def with_images(noise: ImageNoise | None, factor: float) -> ImageNoise | None:
    """The noise of so many times as many images, or sources where several images share one."""
    if noise is None:
        return None
    clusters = max(1, round(noise.clusters * factor))
    return replace(noise, variance=noise.variance / factor, clusters=clusters)
