"""The least-squares problem that statistics of features pose, and how classes weigh in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rankwise.linear.gram import EPS, GramStatistics
from rankwise.linear.statistics import CLEAR, ClassStatistics, positive


@dataclass(frozen=True, eq=False)
class Design:
    """The least-squares problem that statistics pose: centred, scaled, weighted.

    Attributes
    ----------
    centre, scale : float64 arrays of shape (d,)
        Features are used as ``(x − centre)/scale``.
    priors : float64 array of shape (K,)
        Weighted mean of the one-hot targets, the outputs at `centre`; zero without intercept.
    total : float
        Sum of all weights, class weights included.
    class_factors : float64 array of shape (K,)
        Weight of a sample of each class.
    gram : GramStatistics
        Of those features and the one-hot targets less `priors`. Its `n` is the sum of the
        samples' own weights.
    fit_intercept : bool
    rows : float64 array of shape (n, d), optional
        The weighted, centred, scaled samples, where they are fewer than the features. Then the
        Gram matrix in `gram` is theirs, ``n × n``, and ``cross`` their weighted targets, (n, K).
    """

    centre: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]
    priors: Float[np.ndarray, "K"]
    total: float
    class_factors: Float[np.ndarray, "K"]
    gram: GramStatistics
    fit_intercept: bool
    rows: Float[np.ndarray, "n d"] | None = None

    @property
    def free_leverage(self) -> float:
        """Leverage of the intercept, the same for a unit of every sample's weight."""
        return 1.0 / self.total if self.fit_intercept else 0.0


def design(
    statistics: ClassStatistics,
    *,
    class_weight: Mapping[Any, Any] | str | None = None,
    fit_intercept: bool = True,
    standardise: bool = True,
) -> Design:
    """Centre, scale and weigh, from the statistics alone.

    Parameters
    ----------
    statistics : ClassStatistics
    class_weight : mapping, "balanced" or None
        Weight of each class, 1 where it isn't named; ``"balanced"``: all classes weigh the same
        in all. Needs statistics by class.
    fit_intercept : bool
    standardise : bool
        Divide features by their weighted standard deviation. Features that don't vary are left
        out.

    Raises
    ------
    ValueError
        If there are no samples, or class weights meet statistics that aren't by class.
    """
    if statistics.n_samples == 0:
        raise ValueError("there are no samples left to fit; add some")
    factors = class_factors(statistics, class_weight)
    weights = factors * statistics.weights
    total = float(weights.sum())
    mean = weights @ statistics.means / total
    from_mean = statistics.means - mean
    within = statistics.scatter[0]
    if statistics.by_class:
        within = np.tensordot(factors, statistics.scatter, axes=1)
    with np.errstate(over="ignore", invalid="ignore"):
        scatter = within + from_mean.T @ (weights[:, None] * from_mean)
    variance = scatter.diagonal() / total
    n = statistics.n_samples
    constant = constant_features(mean, variance, n)
    removal = statistics.left_by_removal / total
    constant |= variance <= CLEAR * removal
    scale = np.sqrt(np.where(constant, 1.0, variance)) if standardise else np.ones(len(mean))
    priors = weights / total
    if fit_intercept:
        centre, cross = mean, from_mean.T * weights
        cross[constant] = 0.0
        scatter[constant] = 0.0
        scatter[:, constant] = 0.0
        squared = squares_of_targets(weights)
    else:
        centre, cross = np.zeros(len(mean)), statistics.means.T * weights
        scatter += total * np.outer(mean, mean)
        priors = np.zeros_like(priors)
        squared = total
    gram = GramStatistics(
        gram=scatter / scale / scale[:, None],
        cross=cross / scale[:, None],
        targets_squared=squared,
        n=float(statistics.weights.sum()),
        eps=max(EPS, _mean(removal[~constant] / variance[~constant])),
        max_rank=n - int(fit_intercept),
        feature_eps=statistics.feature_eps * size_by_deviation(mean, variance, constant),
    )
    return Design(centre, scale, priors, total, factors, gram, fit_intercept)


def constant_features(
    mean: Float[np.ndarray, "d"], variance: Float[np.ndarray, "d"], n_samples: int
) -> Bool[np.ndarray, "d"]:
    """Features that don't vary: under this bound, scikit-learn's, a variance is rounding.

    Raises
    ------
    ValueError
        If a variance is no number.
    """
    if not np.isfinite(variance).all():
        worst = int(np.argmax(~np.isfinite(variance)))
        raise ValueError(f"feature {worst} is too large: its variance exceeds what a float64 holds")
    return variance <= n_samples * EPS * variance + (n_samples * mean * EPS) ** 2


def squares_of_targets(weights: Float[np.ndarray, "K"]) -> float:
    """``Σ w(1 − w/W)``, of one-hot targets less their means.

    The bracket is without a difference: one class may hold nearly all.
    """
    others = np.where(np.eye(len(weights), dtype=bool), 0.0, weights).sum(axis=1)
    return float(np.sum(weights * others) / weights.sum())


def size_by_deviation(
    mean: Float[np.ndarray, "d"], variance: Float[np.ndarray, "d"], constant: Bool[np.ndarray, "d"]
) -> float:
    """Root mean square size of features, in deviations: they were rounded at their size."""
    return sqrt(_mean(1.0 + mean[~constant] ** 2 / variance[~constant]))


def _names_of(label: Any) -> tuple[str, ...]:
    """A class in words; whole numbers are the same whatever their type."""
    whole = isinstance(label, (float, np.floating)) and float(label).is_integer()
    return (str(label), str(int(label))) if whole else (str(label),)


def class_factors(
    statistics: ClassStatistics, class_weight: Mapping[Any, Any] | str | None
) -> np.ndarray:
    """Weight of a sample of each class, of shape (K,)."""
    k = len(statistics.classes)
    if class_weight is None:
        return np.ones(k)
    if isinstance(class_weight, Mapping):
        places = {name: i for i, c in enumerate(statistics.classes) for name in _names_of(c)}
        factors = np.ones(k)
        for label, value in class_weight.items():
            place = next((places[name] for name in _names_of(label) if name in places), None)
            if place is None:
                raise ValueError(
                    f"class_weight names class {label!r}, which the labels don't hold; classes: "
                    f"{', '.join(sorted(str(c) for c in statistics.classes)[:10])}"
                )
            factors[place] = float(value)
        if not (np.isfinite(factors).all() and (factors >= 0).all() and (factors > 0).any()):
            raise ValueError("class weights must be finite numbers, none below 0, one above")
    elif class_weight == "balanced":
        present = statistics.weights > 0
        mean_weight = statistics.weights.sum() / max(1, int(present.sum()))
        factors = np.where(present, mean_weight / positive(statistics.weights), 1.0)
    else:
        raise ValueError(
            f"class_weight must be None, 'balanced' or a dict of label and weight, got "
            f"{class_weight!r}"
        )
    if not statistics.by_class and not np.allclose(factors, factors[0]):
        raise ValueError("class weights need statistics by class, and these are of all classes")
    return factors


def _mean(values: np.ndarray) -> float:
    """Of no values: zero."""
    return float(values.mean()) if len(values) else 0.0
