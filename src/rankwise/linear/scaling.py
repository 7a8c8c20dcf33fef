"""How features and samples count in a layer: centre, scale, weights; from samples or statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rankwise.linear.design import Design, class_factors, constant_features
from rankwise.linear.statistics import ClassStatistics

_FAR = 100.0
"""Features whose mean is so many deviations away are multiplied in float64."""


@dataclass(frozen=True)
class Scaling:
    """How features and samples count.

    Attributes
    ----------
    centre, scale : float64 arrays of shape (d,)
        Features are used as ``(x − centre)/scale``.
    class_factors : float64 array of shape (K,)
        Weight of a sample of each class.
    class_weights : float64 array of shape (K,)
        Sum of all weights of each class, factors included.
    constant : bool array of shape (d,)
        Features that don't vary.
    fit_intercept : bool
    mean, variance : float64 arrays of shape (d,)
        Of the features as they are.
    n_samples : int
        With a weight above zero.
    """

    centre: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]
    class_factors: Float[np.ndarray, "K"]
    class_weights: Float[np.ndarray, "K"]
    constant: Bool[np.ndarray, "d"]
    fit_intercept: bool
    mean: Float[np.ndarray, "d"]
    variance: Float[np.ndarray, "d"]
    n_samples: int

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self.class_weights.sum())

    @property
    def trace(self) -> float:
        """Of the Gram matrix of the scaled features."""
        squares = self.variance + (self.mean - self.centre) ** 2
        return self.total * float(np.sum(squares / self.scale**2))

    def plain(self, d: int) -> Scaling:
        """Of the same samples with other features, that are centred and scaled already."""
        zeros, ones = np.zeros(d), np.ones(d)
        return replace(
            self,
            centre=zeros,
            scale=ones,
            constant=np.zeros(d, dtype=bool),
            mean=zeros,
            variance=ones,
        )

    def gram(self, x: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "d d"]:
        """Gram matrix of the scaled features, in the type that the products run in."""
        rows: np.ndarray = self.rows(x, weights).astype(self.dtype_of(x), copy=False)
        return (rows.T @ rows).astype(np.float64)

    def rows(self, x: np.ndarray, weights: np.ndarray | None = None) -> Float[np.ndarray, "n d"]:
        """Scaled features, each sample times the root of its weight."""
        factors = np.ones((1, 1)) if weights is None else np.sqrt(weights)[:, None]
        rows = (x - self.centre) * (factors / self.scale)
        if self.fit_intercept:
            rows[:, self.constant] = 0.0
        return rows

    @property
    def n_rows(self) -> int:
        """Rows of ``U``: one for two classes."""
        k = len(self.class_factors)
        return 1 if k == 2 else k

    @property
    def n_free(self) -> int:
        """Parameters of a layer: ``n_rows·(d + 1)``, the intercepts last in each row."""
        return self.n_rows * (len(self.centre) + 1)

    def dtype_of(self, features: Any) -> type:
        """Type that the products run in."""
        single = str(features.dtype).endswith("float32") and not self._far
        return np.float32 if single else np.float64

    @cached_property
    def _far(self) -> bool:
        return bool(np.max(np.abs(self.centre) / self.scale, initial=0.0) > _FAR)

    def start(self) -> np.ndarray:
        """No features, and intercepts that give each class its share; flat."""
        layer = np.zeros((self.n_rows, len(self.centre) + 1))
        if self.fit_intercept:
            shares = np.maximum(self.class_weights, 1e-3) / self.total
            logs = np.log(shares)
            layer[:, -1] = logs[1] - logs[0] if self.n_rows == 1 else logs - logs.mean()
        return layer.ravel()

    def raw(self, layers: Float[np.ndarray, "a free"]) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (a·rows, d) for features as they are, and offsets (a·rows,)."""
        rows = layers.reshape(-1, len(self.centre) + 1)
        coef = rows[:, :-1] / self.scale
        return coef, rows[:, -1] - coef @ self.centre

    def all_classes(self, layer: Float[np.ndarray, "free"]) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (K, d) and intercepts (K,) of one layer, for features as they are."""
        coef, offsets = self.raw(layer[None])
        if self.n_rows == 1 and len(self.class_factors) == 2:
            return np.concatenate([-coef, coef]) / 2, np.concatenate([-offsets, offsets]) / 2
        return coef, offsets

    def all_outputs(self, outputs: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "n K"]:
        """Outputs of all classes from those of the rows."""
        if self.n_rows == 1 and len(self.class_factors) == 2:
            return np.stack([-outputs[0], outputs[0]], axis=1) / 2
        return np.ascontiguousarray(outputs.T)


def scaling_of_samples(
    features: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray,
    classes: np.ndarray,
    *,
    class_weight: Mapping[Any, Any] | str | None = None,
    fit_intercept: bool = True,
    standardise: bool = True,
) -> Scaling:
    """From the samples themselves.

    Parameters
    ----------
    features : array of shape (n, d)
    codes : int array of shape (n,)
        Positions of the labels in `classes`.
    sample_weight : array of shape (n,)
    classes : array of shape (K,)
    class_weight, fit_intercept, standardise
        As in `rankwise.linear.design.design`.
    """
    k = len(classes)
    counts = np.bincount(codes[sample_weight > 0], minlength=k)
    own = np.bincount(codes, sample_weight, minlength=k)
    known = ClassStatistics(classes, counts, own, np.zeros((k, 0)), np.zeros((k, 0, 0)), True)
    factors = class_factors(known, class_weight)
    weight = sample_weight * factors[codes]
    weights = factors * own
    total = float(weights.sum())
    n = int(counts.sum())
    x = np.asarray(features, dtype=np.float64)
    mean = weight @ x / total
    with np.errstate(over="ignore", invalid="ignore"):
        squares = x - mean
        squares *= squares
        variance = weight @ squares / total
    constant = constant_features(mean, variance, n)
    scale = np.sqrt(np.where(constant, 1.0, variance)) if standardise else np.ones(len(mean))
    centre = mean if fit_intercept else np.zeros(len(mean))
    return Scaling(centre, scale, factors, weights, constant, fit_intercept, mean, variance, n)


def scaling_of_design(design: Design, statistics: ClassStatistics) -> Scaling:
    """From a design, and the statistics that it was made of."""
    weights = design.class_factors * statistics.weights
    mean = weights @ statistics.means / weights.sum()
    squares = design.gram.gram.diagonal() * design.scale**2 / design.total
    variance = squares if design.fit_intercept else np.maximum(squares - mean**2, 0.0)
    constant = variance <= 0
    return Scaling(
        design.centre,
        design.scale,
        design.class_factors,
        weights,
        constant,
        design.fit_intercept,
        mean,
        variance,
        statistics.n_samples,
    )
