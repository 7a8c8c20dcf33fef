"""How often each rule finds a difference where there is none: fold scores with a known null.

`simulated_scores` draws scores with the correlation that the corrected tests assume; there the
corrected t-test is exact and everything else can be held against it. `learner_scores`
cross-validates a real, cheap learner many times, on images drawn anew each time, where the two arms
differ in a random start alone: no assumption about correlation enters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.study.design import ROPE
from rankwise.study.infer import (
    ImageNoise,
    PairedTest,
    corrected_t_test,
    correlated_posterior,
    holm,
    paper_rule,
)
from rankwise.study.verdict import CERTAINTY, FEWEST_FOLDS, Evidence, verdict

RULES = ("paper's rule", "paired t", "corrected t", "posterior", "verdict")
"""Rules that can find a difference: one-sided (the first), two-sided (the others)."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """How often something happened: count of n, with the exact 95% interval of its chance."""

    count: int
    n: int

    @property
    def rate(self) -> float:
        """``count / n``."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson (1934)."""
        from scipy.stats import beta

        low = float(beta.ppf(0.025, self.count, self.n - self.count + 1)) if self.count else 0.0
        whole = self.count == self.n
        high = 1.0 if whole else float(beta.ppf(0.975, self.count + 1, self.n - self.count))
        return low, high


def simulated_scores(
    n_studies: int,
    *,
    folds: int = 5,
    seeds: int = 1,
    correlation: float | None = None,
    deviation: float = 0.002,
    shared: float = 0.002,
    epochs: tuple[int, int] = (1, 1),
    wobble: float = 0.0,
    effect: float = 0.0,
    seed: int = 42,
) -> tuple[Scores, Scores]:
    """Fold scores of two arms, equal in truth unless `effect` says otherwise.

    The score of an arm on fold j is ``μ + f_j + e_j + max_t w_jt``: ``f`` common to both arms (the
    fold's images), ``e`` the arm's own, each normal and equally correlated between folds
    (``ρ`` between any two), ``w`` the epochs' wobble, of which the best epoch is taken (paper,
    section 3.4).

    Parameters
    ----------
    n_studies : int
        Independent studies.
    folds, seeds : int
        Folds of one repetition, and repetitions.
    correlation : float, optional
        ``ρ``; default ``1/folds``, that of Nadeau and Bengio's correction.
    deviation, shared, wobble : float
        Standard deviations of ``e``, ``f`` and ``w``.
    epochs : tuple of int
        Of the alternative and of the baseline; the paper's SVD arms have twice as many.
    effect : float
        True advantage of the alternative.
    seed : int

    Returns
    -------
    alternative, baseline : ndarray, (n_studies, folds · seeds)
    """
    rho = 1 / folds if correlation is None else correlation
    shape = (n_studies, folds * seeds)
    first, second = _draw(shape, rho, deviation, shared, epochs, wobble, seed)
    return first + effect, second


def simulated_family(
    n_studies: int,
    *,
    n_arms: int = 4,
    folds: int = 5,
    seeds: int = 1,
    correlation: float | None = None,
    deviation: float = 0.002,
    shared: float = 0.002,
    seed: int = 42,
) -> tuple[list[Scores], Scores]:
    """Fold scores of several arms and their one baseline, all equal in truth.

    Parameters
    ----------
    n_arms : int
        Comparisons of a study's family: each arm with the baseline.
    n_studies, folds, seeds, correlation, deviation, shared, seed
        As in `simulated_scores`.

    Returns
    -------
    alternatives : list of ndarray, (n_studies, folds · seeds) each
    baseline : ndarray, (n_studies, folds · seeds)
    """
    rho = 1 / folds if correlation is None else correlation
    shape = (n_studies, folds * seeds)
    *arms, baseline = _draw(shape, rho, deviation, shared, (1,) * (n_arms + 1), 0.0, seed)
    return arms, baseline


def _draw(
    shape: tuple[int, int],
    rho: float,
    deviation: float,
    shared: float,
    epochs: Sequence[int],
    wobble: float,
    seed: int,
) -> list[Scores]:
    """Scores of arms, one for each number of epochs."""
    rng = np.random.default_rng(seed)

    def correlated(scale: float) -> Scores:
        common, own = rng.standard_normal((shape[0], 1)), rng.standard_normal(shape)
        return scale * (math.sqrt(rho) * common + math.sqrt(1 - rho) * own)

    of_fold = correlated(shared)
    arms = []
    for number in epochs:
        best = wobble * rng.standard_normal((*shape, number)).max(axis=-1) if wobble else 0.0
        arms.append(0.95 + of_fold + correlated(deviation) + best)
    return arms


def learner_scores(
    n_studies: int,
    *,
    folds: int = 5,
    seeds: int = 1,
    n_images: int = 400,
    n_features: int = 80,
    fixed_start: bool = False,
    seed: int = 42,
) -> tuple[Scores, Scores]:
    """Cross-validation of random tanh features with a ridge solve on embedded digits.

    Every study draws its images from the 1797 anew. Both arms are the same learner; they differ in
    their random features alone, so neither is better in the mean over studies.

    Parameters
    ----------
    n_studies, folds, seeds
        As in `simulated_scores`; a seed cuts its own folds.
    n_images, n_features : int
        Of each study, of each model.
    fixed_start : bool
        Each arm has one start for all folds and seeds, as with the paper's seed 42 throughout,
        instead of a new one for each. The arms' luck is then the same in all folds.
    seed : int

    Returns
    -------
    alternative, baseline : ndarray, (n_studies, folds · seeds)
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images / 8 - 1
    rng = np.random.default_rng(seed)
    scores = np.empty((2, n_studies, seeds * folds))
    for study in range(n_studies):
        rows = rng.choice(len(images), n_images, replace=False)
        fixed = [_start(rng, images.shape[1], n_features) for _ in range(2)]
        for repeat in range(seeds):
            part = rng.permutation(n_images) % folds
            for fold in range(folds):
                train, test = rows[part != fold], rows[part == fold]
                for arm in range(2):
                    start = fixed[arm] if fixed_start else _start(rng, images.shape[1], n_features)
                    scores[arm, study, repeat * folds + fold] = _accuracy(
                        images, labels, train, test, start
                    )
    return scores[0], scores[1]


def detection_rates(
    alternative: Scores,
    baseline: Scores,
    *,
    folds: int,
    rope: float = ROPE,
    alpha: float = 0.05,
    noises: Sequence[ImageNoise] | None = None,
) -> Mapping[str, Rate]:
    """How often each of `RULES` finds a difference, and how often the verdict says there is none.

    With no true difference these are false-positive rates, else powers. ``"posterior"`` is 95% of
    the Bayesian posterior beyond the region of equivalence, without the t-test that the verdict
    asks for as well.

    Parameters
    ----------
    alternative, baseline : ndarray, (n_studies, J)
    folds : int
        Of one repetition: ``n_test / n_train = 1 / (folds − 1)``.
    rope, alpha : float
        As in `compare_conditions`, with one comparison in the family.
    noises : sequence of ImageNoise, optional
        Of the images of each study; default: that of the folds alone.

    Returns
    -------
    dict
        `Rate` by rule, and under ``"no practical difference"``.
    """
    ratio = 1 / (folds - 1)
    counts = dict.fromkeys((*RULES, "no practical difference"), 0)
    of_images = [None] * len(alternative) if noises is None else noises
    for ours, theirs, noise in zip(alternative, baseline, of_images, strict=True):
        differences = ours - theirs
        corrected = corrected_t_test(differences, ratio, noise=noise)
        evidence = _evidence(differences, corrected, corrected.p_value, folds, rope, alpha, noise)
        found = verdict(evidence)
        mass = evidence.posterior
        counts["paper's rule"] += paper_rule(ours, theirs).rejects
        counts["paired t"] += corrected_t_test(differences, 0.0).p_value < alpha
        counts["corrected t"] += corrected.p_value < alpha
        counts["posterior"] += max(mass.harm, mass.help) >= CERTAINTY
        counts["verdict"] += found in ("helps", "harms")
        counts["no practical difference"] += found == "no practical difference"
    return {rule: Rate(int(count), len(alternative)) for rule, count in counts.items()}


def family_error_rates(
    alternatives: Sequence[Scores],
    baseline: Scores,
    *,
    folds: int,
    rope: float = ROPE,
    alpha: float = 0.05,
) -> Mapping[str, Rate]:
    """How often at least one comparison of a family finds a difference.

    With no true difference these are family-wise error rates: Holm's procedure promises at most
    `alpha`, a test of each comparison by itself doesn't.

    Parameters
    ----------
    alternatives : sequence of ndarray, (n_studies, J)
        Arms, each compared with the baseline.
    baseline : ndarray, (n_studies, J)
    folds, rope, alpha
        As in `detection_rates`.

    Returns
    -------
    dict
        `Rate` of ``"corrected t"`` (each by itself), ``"Holm"`` (its p after Holm) and
        ``"verdict"`` (helps or harms, which rests on Holm's p).
    """
    ratio = 1 / (folds - 1)
    counts = dict.fromkeys(("corrected t", "Holm", "verdict"), 0)
    for study in range(len(baseline)):
        differences = [arm[study] - baseline[study] for arm in alternatives]
        tests = [corrected_t_test(values, ratio) for values in differences]
        adjusted = holm([test.p_value for test in tests])
        counts["corrected t"] += any(test.p_value < alpha for test in tests)
        counts["Holm"] += any(p < alpha for p in adjusted)
        counts["verdict"] += any(
            verdict(_evidence(values, test, p, folds, rope, alpha)) in ("helps", "harms")
            for values, test, p in zip(differences, tests, adjusted, strict=True)
        )
    return {rule: Rate(int(count), len(baseline)) for rule, count in counts.items()}


def _evidence(
    differences: Scores,
    test: PairedTest,
    p_adjusted: float,
    folds: int,
    rope: float,
    alpha: float,
    noise: ImageNoise | None = None,
) -> Evidence:
    return Evidence(
        test=test,
        p_adjusted=p_adjusted,
        posterior=correlated_posterior(differences, 1 / (folds - 1), rope, noise=noise),
        rope=rope,
        seeds=len(differences) // folds,
        seeds_to_tell=None,
        folds=folds,
        folds_to_tell=None,
        pairs=len(differences),
        finished_seeds=len(differences) // folds if folds >= FEWEST_FOLDS else 0,
        alpha=alpha,
    )


def _start(rng: np.random.Generator, n_inputs: int, n_features: int) -> tuple[Any, Any]:
    weights = rng.standard_normal((n_inputs, n_features)) / math.sqrt(n_inputs)
    return weights, rng.standard_normal(n_features)


def _accuracy(
    images: NDArray, labels: NDArray, train: NDArray, test: NDArray, start: tuple[Any, Any]
) -> float:
    weights, bias = start
    features = np.tanh(images[train] @ weights + bias)
    gram = features.T @ features + 0.1 * np.eye(features.shape[1])
    output = np.linalg.solve(gram, features.T @ (2.0 * np.eye(10)[labels[train]] - 1))
    predicted = (np.tanh(images[test] @ weights + bias) @ output).argmax(axis=1)
    return float((predicted == labels[test]).mean())
