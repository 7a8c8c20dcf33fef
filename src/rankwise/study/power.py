"""How much more would tell: the power of the corrected t-test, and the seeds or folds for it.

Notation as in `rankwise.study.infer`; ``K`` are the folds there are, ``k`` those there could be.

References
----------
Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003).
Bengio and Grandvalet, "No unbiased estimator of the variance of k-fold cross-validation", JMLR 5
(2004): why what follows rests on an assumed correlation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise.study.infer import Posterior, sample_deviation

# Repetitions looked at before `repeats_to_tell` calls a study hopeless.
_MOST_REPEATS = 1000
MOST_FOLDS = 50
"""Folds looked at by `folds_to_tell`."""


def power(effect: float, deviation: float, pairs: int, ratio: float, alpha: float = 0.05) -> float:
    """Chance that the corrected t-test finds a true mean difference, two-sided.

    Noncentral t with ``J − 1`` degrees of freedom and noncentrality ``effect / √((1/J + r)·s²)``.
    """
    from scipy import stats

    if pairs < 2:
        return 0.0
    if deviation == 0:
        return float(effect != 0)
    shift = abs(effect) / (deviation * math.sqrt(1 / pairs + ratio))
    bound = stats.t.ppf(1 - alpha / 2, pairs - 1)
    either: NDArray = stats.nct.sf(bound, pairs - 1, shift) + stats.nct.cdf(
        -bound, pairs - 1, shift
    )
    # scipy's noncentral t gives nan far out in its tails, where the power is 1.
    return 1.0 if math.isnan(float(either)) else min(1.0, float(either))


def repeats_to_tell(
    differences: ArrayLike,
    ratio: float,
    rope: float,
    *,
    folds: int,
    alpha: float = 0.05,
    wanted_power: float = 0.8,
    certainty: float = 0.95,
) -> int | None:
    """Seeds (repetitions of all folds) in all that would tell, were mean and spread as seen so far.

    Either the corrected t-test at `alpha` finds the mean difference with `wanted_power` and the
    mass beyond the region of equivalence reaches `certainty`, or the mass within it does. Since the
    corrected variance never falls below ``r·s²`` (the correlation floor), there may be no such
    number: then more images would tell, or `folds_to_tell`.

    Parameters
    ----------
    differences, ratio, rope
        As in `rankwise.study.infer.correlated_posterior`.
    folds : int
        Folds of one repetition.
    alpha : float
        Level of the test; divided by the number of comparisons by a caller who adjusts.
    wanted_power, certainty : float
        Of the two rules.

    Returns
    -------
    int or None
        At least 1; None if no number would do, or the spread can't be told yet.
    """
    values = np.asarray(differences, dtype=np.float64).ravel()
    if values.size < 2 or folds < 1 or sample_deviation(values) == 0:
        return None
    middle, deviation = float(values.mean()), sample_deviation(values)

    def tells(repeats: int) -> bool:
        pairs = folds * repeats
        return _tells(middle, deviation, pairs, ratio, rope, alpha, wanted_power, certainty)

    if not tells(_MOST_REPEATS):
        return None
    low, high = 0, _MOST_REPEATS
    while high - low > 1:
        half = (low + high) // 2
        low, high = (low, half) if tells(half) else (half, high)
    return high


def folds_to_tell(
    differences: ArrayLike,
    rope: float,
    *,
    folds: int,
    noise: float,
    seeds: int = 1,
    most: int = MOST_FOLDS,
    alpha: float = 0.05,
    wanted_power: float = 0.8,
    certainty: float = 0.95,
) -> int | None:
    """Folds in place of those there are that would tell, were the mean as seen so far.

    Of ``s²``, `noise` comes of the validation part's few images and grows as parts shrink; the
    rest, the training's own, is taken to stay. Folds correlated by ``1/k`` show ``1 − 1/k`` of
    their variance, so with ``k`` folds

    ``s_k² = ((s² − noise) + noise · k/K) · (1 − 1/k)/(1 − 1/K)``,  ``r_k = 1/(k − 1)``,

    and the two rules of `repeats_to_tell` are asked. With ``S`` seeds the part of `noise` in the
    corrected variance ``(1/(kS) + r_k)·s_k²`` is ``((k − 1)/(kS) + 1) · noise/(K − 1)``, which
    doesn't shrink: all folds together validate on the same images however they are cut. What
    shrinks is the rest. Where noise is all, no number of folds does what seeds can't.

    That folds are correlated by ``1/k`` is the rules' own assumption. Cells of one seed start from
    the same weights, which makes them more alike than that.

    Parameters
    ----------
    differences, rope
        As in `rankwise.study.infer.correlated_posterior`.
    folds, seeds : int
        ``K`` and ``S``.
    noise : float
        Mean variance of a fold's difference over draws of its validation images: of each image's
        difference (1, 0 or −1), over the number of images. What exceeds ``s²`` is cut off.
    most : int
        Largest number looked at: no more than the data can be cut into.
    alpha, wanted_power, certainty : float
        As in `repeats_to_tell`.

    Returns
    -------
    int or None
        More than `folds`; None if no number up to `most` would do, or the spread can't be told yet.

    Raises
    ------
    ValueError
        For negative noise.
    """
    if not noise >= 0:
        raise ValueError(f"noise must be at least 0, not {noise}")
    values = np.asarray(differences, dtype=np.float64).ravel()
    if values.size < 2 or folds < 2 or sample_deviation(values) == 0:
        return None
    middle, variance = float(values.mean()), sample_deviation(values) ** 2
    noise = min(noise, variance)
    for k in range(folds + 1, most + 1):
        spread = variance - noise + noise * k / folds
        deviation = math.sqrt(spread * (1 - 1 / k) / (1 - 1 / folds))
        pairs, ratio = k * seeds, 1 / (k - 1)
        if _tells(middle, deviation, pairs, ratio, rope, alpha, wanted_power, certainty):
            return k
    return None


def _tells(
    middle: float,
    deviation: float,
    pairs: int,
    ratio: float,
    rope: float,
    alpha: float,
    wanted_power: float,
    certainty: float,
) -> bool:
    mass = _mass(middle, deviation, pairs, ratio, rope)
    if mass.equal >= certainty:
        return True
    beyond = max(mass.harm, mass.help) >= certainty
    return beyond and power(middle, deviation, pairs, ratio, alpha) >= wanted_power


def _mass(middle: float, deviation: float, pairs: int, ratio: float, rope: float) -> Posterior:
    from scipy import stats

    if pairs < 2:
        return Posterior(0.0, 0.0, 0.0)
    place = stats.t(pairs - 1, loc=middle, scale=deviation * math.sqrt(1 / pairs + ratio))
    harm, better = float(place.cdf(-rope)), float(place.sf(rope))
    return Posterior(harm, 1 - harm - better, better)
