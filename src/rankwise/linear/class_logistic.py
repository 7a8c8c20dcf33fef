"""A softmax layer on the statistics of the squared one: further passes, the same factorisation.

Minimised is ``Σ w·ℓ(o, y) + ½μ‖U‖²``, ``ℓ = −log softmax(o)_y``, with outputs ``o = U z + b`` of
features ``z = Qᵀx`` in the directions of a `RidgeFamily`. Its Hessian is near
``c·Λ + μ``, ``c`` the mean curvature of the softmax, so in ``V = U·(cΛ + μ)^½`` it is near the
identity and L-BFGS needs few steps. A step costs one pass of the samples, ``n·d·K`` operations for
a ridge, nothing of ``d²``; all ridges take theirs in the same pass. Memory is that of a block.

Leaving a sample out is one Newton step from the solution (Rad & Maleki, 2020), with that Hessian:
``o₋ = o + h(I − hJ)⁻¹(p − e_y)``, ``h = Σ_j z_j²/(cλ_j + μ)``, ``J = diag(p) − ppᵀ``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax, softmax

from rankwise.linear.class_ridge import RidgeFamily
from rankwise.linear.statistics import like, to_numpy

TOLERANCE = 1e-7
"""Mean loss that one more step would gain, under which a ridge has converged."""

_COLUMNS = 512
_MEMORY = 10
_ARMIJO = 1e-4
_SHORTEST = 1e-8

Samples = tuple[object, np.ndarray, np.ndarray]
"""Features (n, d), positions of the labels among the classes, sample weights."""


@dataclass(frozen=True)
class LogisticLayer:
    """The solution for one ridge, in the directions of a family.

    Attributes
    ----------
    ridge : float
        ``μ``; scikit-learn's ``1/C``.
    directions : float64 array of shape (r, K)
        ``Uᵀ``.
    intercept : float64 array of shape (K,)
        Outputs at the features' centre.
    curvature : float
        ``c``: mean of ``tr J/(K − 1)`` over the samples.
    converged : bool
    """

    ridge: float
    directions: Float[np.ndarray, "r K"]
    intercept: Float[np.ndarray, "K"]
    curvature: float
    converged: bool

    def outputs(self, rotated: Float[np.ndarray, "n r"]) -> np.ndarray:
        """Logits (n, K) of features in the family's directions."""
        return rotated @ self.directions + self.intercept

    def in_raw_features(self, family: RidgeFamily) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (K, d) and intercept (K,) for the features as they are."""
        coef = family.rotation @ self.directions
        return coef.T, self.intercept - family.design.centre @ coef


def logistic_path(family: RidgeFamily) -> list[float]:
    """Ridges to choose from: ``10⁻⁸`` to ``10⁻³`` times the Gram matrix's trace, 11 of them."""
    scale = max(float(np.trace(family.design.gram.gram)), float(np.finfo(float).tiny))
    return (np.geomspace(1e-8, 1e-3, 11) * scale).tolist()


def fit_logistic(
    family: RidgeFamily,
    samples: Callable[[], Iterable[Samples]],
    ridges: Sequence[float],
    *,
    start_ridge: float,
    temperature: float,
    max_passes: int,
    advance: Callable[[int], object] = lambda n: None,
) -> tuple[list[LogisticLayer], int]:
    """A softmax layer for each ridge, all in the same passes.

    Parameters
    ----------
    family : RidgeFamily
        From the statistics of the same samples.
    samples : callable
        Gives the blocks, the same ones each time.
    ridges : sequence of float
    start_ridge, temperature : float
        Start: the squared solution for that ridge, divided by the temperature.
    max_passes : int
    advance : callable
        Told the number of samples done, for a progress bar.

    Returns
    -------
    layers : list of LogisticLayer
        The best points seen.
    n_passes : int
        Looks at the samples taken.
    """
    design, k = family.design, len(family.design.priors)
    total = design.total
    start = family.projected / (family.values + start_ridge)[:, None] / temperature
    first = np.vstack([start, design.priors / temperature])
    curvature = _curvature(samples, family, first, advance)
    free = np.sqrt(curvature * total) if design.fit_intercept else np.inf
    scales = [
        np.append(np.sqrt(curvature * family.values + ridge), free)[:, None] for ridge in ridges
    ]
    starts = [first * np.where(np.isinf(s), 0.0, s) for s in scales]
    descents = [_Descent(point, TOLERANCE * total) for point in starts]
    passes = 1
    while passes < max_passes and any(not d.done for d in descents):
        at = [i for i, d in enumerate(descents) if not d.done]
        points = [descents[i].trial / scales[i] for i in at]
        values, gradients, _ = _pass(samples, family, points, advance)
        passes += 1
        for i, point, value, gradient in zip(at, points, values, gradients, strict=True):
            penalty = ridges[i] * point
            penalty[-1] = 0.0
            full = value + 0.5 * float(np.sum(penalty * point))
            descents[i].tell(full, (gradient + penalty) / scales[i])
    best = [d.point / s for d, s in zip(descents, scales, strict=True)]
    _, _, curvatures = _pass(samples, family, best, advance)
    layers = [
        LogisticLayer(float(mu), b[:-1], b[-1], float(c) / total / max(k - 1, 1), d.converged)
        for mu, b, c, d in zip(ridges, best, curvatures, descents, strict=True)
    ]
    return layers, passes + 1


def left_out_outputs(
    family: RidgeFamily,
    layer: LogisticLayer,
    rotated: Float[np.ndarray, "n r"],
    codes: np.ndarray,
    sample_weight: np.ndarray,
) -> np.ndarray:
    """Output (n, K) for each sample of the layer fitted without it, to first order.

    What is left out is one unit of the sample's weight, as in the squared case.
    """
    outputs = layer.outputs(rotated)
    p = softmax(outputs, axis=1)
    c = layer.curvature
    h = rotated**2 @ (1.0 / np.maximum(c * family.values + layer.ridge, np.finfo(float).tiny))
    if family.design.fit_intercept:
        h += 1.0 / max(c * family.design.total, float(np.finfo(float).tiny))
    share = np.minimum(sample_weight, 1.0) * family.design.class_factors[codes]
    # I − hJ must stay positive; J's eigenvalues are at most twice its largest p(1 − p).
    bound = 2.0 * np.max(p * (1.0 - p), axis=1)
    h = np.minimum(share * h, 0.99 / np.maximum(bound, 1e-12))[:, None]
    residual = p.copy()
    residual[np.arange(len(codes)), codes] -= 1.0
    return outputs + h * _one_step(p, h, residual)


def mean_loss(outputs: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """``Σ w·ℓ(o, y)``."""
    return -float(weights @ log_softmax(outputs, axis=1)[np.arange(len(codes)), codes])


def _one_step(p: np.ndarray, h: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """``(I − h(diag(p) − ppᵀ))⁻¹ r``, sample by sample, by Sherman and Morrison.

    ``h·p`` may reach one while the matrix is still positive, so small steps keep off the pole.
    """
    diagonal = 1.0 - h * p
    diagonal = np.where(np.abs(diagonal) < 1e-9, 1e-9, diagonal)
    left, along = residual / diagonal, p / diagonal
    shrink = 1.0 + h * np.sum(p * along, axis=1, keepdims=True)
    return left - along * h * np.sum(p * left, axis=1, keepdims=True) / shrink


def _curvature(
    samples: Callable[[], Iterable[Samples]],
    family: RidgeFamily,
    point: np.ndarray,
    advance: Callable[[int], object],
) -> float:
    """``c`` at the start, kept away from zero."""
    k = len(family.design.priors)
    _, _, found = _pass(samples, family, [point], advance)
    return max(float(found[0]) / family.design.total / max(k - 1, 1), 1e-3)


def _pass(
    samples: Callable[[], Iterable[Samples]],
    family: RidgeFamily,
    points: Sequence[np.ndarray],
    advance: Callable[[int], object],
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Losses (R,), gradients of shape (r + 1, K) and sums of ``tr J`` (R,), in one pass.

    A point is ``[Uᵀ; b]``. The penalty isn't included.
    """
    design, n_points = family.design, len(points)
    k = points[0].shape[1]
    coef = np.concatenate([family.rotation @ p[:-1] for p in points], axis=1)
    offsets = np.concatenate([p[-1] for p in points])
    values, curvatures = np.zeros(n_points), np.zeros(n_points)
    slopes, sums = np.zeros_like(coef), np.zeros_like(offsets)
    # So many points at a time that the outputs of a block stay small.
    step = max(1, _COLUMNS // k)
    for x, codes, sample_weight in samples():
        centred = x - like(design.centre, x)
        weight = (sample_weight * design.class_factors[codes])[:, None, None]
        rows = np.arange(len(codes))
        for first in range(0, n_points, step):
            last = min(first + step, n_points)
            columns = slice(first * k, last * k)
            outputs = to_numpy(centred @ like(coef[:, columns], centred)) + offsets[columns]
            logp = log_softmax(outputs.reshape(len(codes), last - first, k), axis=2)
            p = np.exp(logp)
            values[first:last] -= weight[:, 0, 0] @ logp[rows, :, codes]
            curvatures[first:last] += weight[:, 0, 0] @ (1.0 - np.sum(p**2, axis=2))
            p[rows, :, codes] -= 1.0
            residual = (weight * p).reshape(len(codes), -1)
            slopes[:, columns] += to_numpy(centred.T @ like(residual, centred))
            sums[columns] += residual.sum(axis=0)
        advance(len(codes))
    along = family.rotation.T @ slopes
    gradients = [
        np.vstack([along[:, i * k : (i + 1) * k], sums[i * k : (i + 1) * k]])
        for i in range(n_points)
    ]
    return values, gradients, curvatures


class _Descent:
    """L-BFGS that is told values instead of asking for them, so that many share a pass.

    Parameters
    ----------
    start : array
    gain : float
        Converged where ``½‖g‖²``, the gain of a Newton step in these coordinates, is below.
    """

    def __init__(self, start: np.ndarray, gain: float) -> None:
        self.point = self.trial = start
        self.done = self.converged = False
        self._gain, self._value, self._gradient = gain, np.inf, np.zeros_like(start)
        self._direction, self._step = np.zeros_like(start), 1.0
        self._pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=_MEMORY)

    def tell(self, value: float, gradient: np.ndarray) -> None:
        """Value and gradient at `trial`; sets the next trial."""
        slope = float(np.sum(self._direction * self._gradient))
        if value <= self._value + _ARMIJO * self._step * slope:
            moved, turned = self.trial - self.point, gradient - self._gradient
            if np.sum(moved * turned) > 0:
                self._pairs.append((moved, turned))
            self.point, self._value, self._gradient = self.trial, value, gradient
            self.done = self.converged = 0.5 * float(np.sum(gradient**2)) <= self._gain
            self._direction, self._step = -self._newton(gradient), 1.0
        else:
            self._step *= 0.25
            self.done = self._step < _SHORTEST
        self.trial = self.point + self._step * self._direction

    def _newton(self, gradient: np.ndarray) -> np.ndarray:
        """The inverse Hessian's estimate times the gradient, from the identity."""
        found, factors = gradient.copy(), []
        for moved, turned in reversed(self._pairs):
            factor = np.sum(moved * found) / np.sum(moved * turned)
            found -= factor * turned
            factors.append(factor)
        if self._pairs:
            moved, turned = self._pairs[-1]
            found *= np.sum(moved * turned) / np.sum(turned**2)
        for (moved, turned), factor in zip(self._pairs, reversed(factors), strict=True):
            found += (factor - np.sum(turned * found) / np.sum(moved * turned)) * moved
        return found
