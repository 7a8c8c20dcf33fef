"""Ridge-regularised least squares on one-hot targets, from `ClassStatistics`.

One eigendecomposition ``S = QΛQᵀ`` of the centred, scaled Gram matrix serves every ridge ``μ``:
coefficients ``Q(Λ + μI)⁻¹QᵀC``, generalised cross-validation from ``Λ`` alone, and, with a second
look at the samples, the output for each sample of the fit without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from rankwise._arrays import own
from rankwise.linear.design import Design
from rankwise.linear.output_layer import solve_gram
from rankwise.linear.ridge_choice import (
    eigen_directions,
    gcv_error,
    left_out_residuals,
    left_out_squares,
    ridge_path,
)
from rankwise.linear.statistics import ClassStatistics, like, to_numpy

MODEL_DRAWS = 5000
"""Outputs drawn to fit a temperature where the samples can't be seen again."""

_COLUMNS = 512

_SHARPEST, _FLATTEST = 0.01, 100.0


@dataclass(frozen=True)
class HeadSolution:
    """A solved output layer, in terms of the raw features.

    Attributes
    ----------
    coef : float64 array of shape (K, d)
    intercept : float64 array of shape (K,)
    ridge : float
    rank : int or None
        Directions used; None where no eigenvalues were needed and nobody has asked.
    condition : float or None
        As in `rankwise.linear.output_layer.OutputLayer`.
    chosen_by : {"given", "loo", "gcv", "cross-validation"}
    criterion : list of (float, float)
        Ridge and mean squared error, or mean loss, where it was chosen.
    temperature : float
        ``softmax(outputs/temperature)`` are the calibrated probabilities.
    loss : {"squared", "logistic"}
    curvature : float
        As in `rankwise.linear.class_logistic.LogisticLayer`; 1 for the squared loss.
    n_passes : int
        Looks at the samples in all, of a logistic loss; 0 for the squared one: one or two.
    """

    coef: Float[np.ndarray, "K d"]
    intercept: Float[np.ndarray, "K"]
    ridge: float
    rank: int | None
    condition: float | None
    chosen_by: str
    criterion: list[tuple[float, float]]
    temperature: float
    loss: str = "squared"
    curvature: float = 1.0
    n_passes: int = 0

    def __post_init__(self) -> None:
        own(self, "coef", "intercept")


class RidgeFamily:
    """The solutions of one design for all ridges.

    Parameters
    ----------
    design : Design
    rank : int, optional
        Leading directions to keep; default all that aren't rounding.
    ridge : float, optional
        The one to solve for, if it is known; a small one leaves more directions to rounding.
    """

    def __init__(self, design: Design, rank: int | None = None, *, ridge: float = np.inf) -> None:
        self.design = design
        self._rank = rank
        self._ridge = ridge

    @cached_property
    def _decomposed(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and vectors of the Gram matrix that the design has, features' or samples'."""
        values, vectors = eigen_directions(self.design.gram, ridge=self._ridge)
        if self._rank is None:
            return values, vectors
        return values[-self._rank :], vectors[:, -self._rank :]

    @property
    def values(self) -> np.ndarray:
        """``Λ``, of shape (r,), increasing."""
        return self._decomposed[0]

    @cached_property
    def _vectors(self) -> np.ndarray:
        """``Q``, of shape (d, r)."""
        values, vectors = self._decomposed
        if self.design.rows is None:
            return vectors
        return self.design.rows.T @ (vectors / np.sqrt(values))

    @cached_property
    def projected(self) -> np.ndarray:
        """``QᵀC``, of shape (r, K)."""
        values, vectors = self._decomposed
        if self.design.rows is None:
            return vectors.T @ self.design.gram.cross
        return np.sqrt(values)[:, None] * (vectors.T @ self.design.gram.cross)

    @cached_property
    def rotation(self) -> np.ndarray:
        """``Q`` with the scale of the features divided out, of shape (d, r)."""
        return self._vectors / self.design.scale[:, None]

    def rotated_rows(self, weights: np.ndarray) -> np.ndarray | None:
        """`rotate` of the design's own rows, whose weights in all are given; None without rows."""
        if self.design.rows is None or not (weights > 0).all():
            return None
        values, vectors = self._decomposed
        return vectors * np.sqrt(values) / np.sqrt(weights)[:, None]

    def path(self) -> list[float]:
        """Ridges to choose from: ``10⁻⁹`` to 1 times the trace of the Gram matrix, 28 of them."""
        return ridge_path(self.design.gram, 28, largest=1.0)

    def solve(self, ridge: float) -> tuple[np.ndarray, np.ndarray, int, float]:
        """Coefficients (K, d) and intercept (K,) for raw features; rank and condition."""
        d = self.design
        asked = "_decomposed" in self.__dict__ or d.rows is not None
        if self._rank is None and ridge > 0 and not asked:
            # One Cholesky, where nobody asked for the eigenvalues.
            layer = solve_gram(d.gram, ridge)
            coef = layer.coef / d.scale[:, None]
            rank, condition = layer.rank, layer.condition
        else:
            along = self.projected / (self.values + ridge)[:, None]
            if d.rows is None:
                coef = self.rotation @ along
            else:
                values, vectors = self._decomposed
                coef = d.rows.T @ (vectors @ (along / np.sqrt(values)[:, None]))
                coef /= d.scale[:, None]
            rank, condition = self.rank_and_condition()
        # In one order whether it was solved or read from a file: products then round alike.
        return coef.T, d.priors - d.centre @ coef, rank, condition

    def rank_and_condition(self) -> tuple[int, float]:
        """Directions kept, and the condition number of the features in them."""
        rank = len(self.values)
        return rank, float(np.sqrt(self.values[-1] / self.values[0])) if rank else 1.0

    def gcv_errors(self, ridges: Sequence[float]) -> list[tuple[float, float]]:
        """Generalised cross-validation error of each ridge, no further look at the samples."""
        n_free = int(self.design.fit_intercept)
        return [
            (
                float(mu),
                gcv_error(self.design.gram, self.values, self.projected, mu, n_free=n_free),
            )
            for mu in ridges
        ]

    def rotate(self, x: Any) -> Any:
        """Centred features (n, d), float64, in the directions kept: (n, r)."""
        return (x - like(self.design.centre, x)) @ like(self.rotation, x)

    def unrotate(self, coef: Float[np.ndarray, "d K"]) -> np.ndarray:
        """Coefficients for raw features, in the directions kept: (r, K)."""
        return self._vectors.T @ (coef * self.design.scale[:, None])

    def left_out_outputs(
        self, rotated: Any, codes: np.ndarray, sample_weight: np.ndarray, ridge: float
    ) -> np.ndarray:
        """Output (n, K) for each sample of the fit without it, exact by matrix inversion lemma.

        What is left out is one unit of the sample's weight, or all of it where it weighs less: a
        weight of 2 stands for two equal samples, of which one stays. Centre, scale and directions
        are held.
        """
        targets = np.eye(len(self.design.priors))[codes]
        residuals = self._left_out(
            left_out_residuals, rotated, targets, codes, sample_weight, [ridge]
        )
        return targets - to_numpy(residuals[:, 0])

    def left_out_squares(
        self, rotated: Any, codes: np.ndarray, sample_weight: np.ndarray, ridges: Sequence[float]
    ) -> np.ndarray:
        """Weighted sum of squared left-out residuals of a block, for each ridge."""
        targets = np.eye(len(self.design.priors))[codes]
        weight = like(sample_weight * self.design.class_factors[codes], rotated)
        # So many ridges at a time that the residuals of a block stay small.
        step = max(1, _COLUMNS // targets.shape[1])
        totals = []
        for first in range(0, len(ridges), step):
            some = ridges[first : first + step]
            squares = self._left_out(left_out_squares, rotated, targets, codes, sample_weight, some)
            totals.append(to_numpy(weight @ squares))
        return np.concatenate(totals)

    def _left_out(
        self,
        found: Callable[..., Any],
        rotated: Any,
        targets: np.ndarray,
        codes: np.ndarray,
        sample_weight: np.ndarray,
        ridges: Sequence[float],
    ) -> Any:
        share = np.minimum(sample_weight, 1.0) * self.design.class_factors[codes]
        return found(
            rotated,
            like(targets - self.design.priors, rotated),
            like(self.values, rotated),
            like(self.projected, rotated),
            like(np.asarray(ridges, dtype=np.float64), rotated),
            share=like(share, rotated)[:, None],
            free_leverage=self.design.free_leverage,
        )

    def shrinkage(self, ridge: float) -> float:
        """Mean of ``1 − h`` over the samples, ``h`` their leverage."""
        n = self.design.gram.n
        freedom = int(self.design.fit_intercept) + np.sum(self.values / (self.values + ridge))
        return max(1.0 - float(freedom) / n, 1.0 / (n + 1.0))


def fit_temperature(
    outputs: Float[np.ndarray, "n K"], codes: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Temperature ``T`` with the least ``−Σ w log softmax(outputs/T)_y`` (Guo et al., 2017).

    That sum is convex in ``1/T``, whose derivative is ``Σ w (E_p[outputs] − outputs_y)``; its
    root is bracketed between 0.01 and 100, which are given where there is none.
    """
    weights = np.ones(len(codes)) if weights is None else weights
    right = outputs[np.arange(len(codes)), codes]

    def slope(inverse: float) -> float:
        expected = np.sum(softmax(outputs * inverse, axis=1) * outputs, axis=1)
        return float(weights @ (expected - right))

    low, high = 1.0 / _FLATTEST, 1.0 / _SHARPEST
    if slope(low) >= 0:
        return _FLATTEST
    if slope(high) <= 0:
        return _SHARPEST
    return 1.0 / float(brentq(slope, low, high, xtol=1e-14, rtol=1e-14))


def modelled_temperature(
    statistics: ClassStatistics, family: RidgeFamily, ridge: float, *, seed: int = 0
) -> float:
    """Temperature where the samples can't be seen again.

    Each class's outputs are taken as normal with the mean and covariance that the statistics
    imply; drawn residuals are divided by the mean of ``1 − h``, as in generalised
    cross-validation.
    """
    coef, intercept, *_ = family.solve(ridge)
    k = len(statistics.classes)
    weights = statistics.weights
    present = np.flatnonzero(weights > 0).tolist()
    draws = np.random.default_rng(seed).standard_normal((max(8, MODEL_DRAWS // k), k))
    pooled = statistics.scatter.sum(axis=0) / weights.sum()
    roots: dict[int, np.ndarray] = {}
    for j in present:
        covariance = statistics.scatter[j] / weights[j] if statistics.by_class else pooled
        if statistics.by_class or not roots:
            values, vectors = np.linalg.eigh(coef @ covariance @ coef.T)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
        roots[j] = root
    outputs = []
    for j in present:
        mean = coef @ statistics.means[j] + intercept
        target = np.eye(k)[j]
        fitted = mean + draws @ roots[j].T
        outputs.append(target - (target - fitted) / family.shrinkage(ridge))
    mass = weights[present] * family.design.class_factors[present]
    return fit_temperature(
        np.concatenate(outputs),
        np.repeat(present, len(draws)),
        np.repeat(mass / len(draws), len(draws)),
    )


def log_probabilities(outputs: Float[np.ndarray, "n K"], temperature: float) -> np.ndarray:
    """``log softmax(outputs/T)``, of shape (n, K).

    Raises
    ------
    ValueError
        If outputs aren't finite.
    """
    scaled = outputs / temperature
    if not np.isfinite(scaled).all():
        raise ValueError(
            "the outputs for these samples are no finite numbers: the weights of the head are "
            "damaged, or the features are far from those that it was fitted on"
        )
    return scaled - logsumexp(scaled, axis=1, keepdims=True)
