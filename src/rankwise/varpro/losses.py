"""Robust losses, by reweighting.

``min Σ s²ρ(r²/s²)/2`` is approached by least squares with the weights ``ρ'(r²/s²)`` of the
residuals before. Each ``ρ`` is concave in ``r²``, so its tangent lies above it and the loss never
rises (majorise, minimise). Names and formulas as in ``scipy.optimize.least_squares``.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

# For each loss ρ(z), ρ'(z), ρ''(z), of z = (r/s)².
Loss = tuple[
    Callable[[np.ndarray], np.ndarray],
    Callable[[np.ndarray], np.ndarray],
    Callable[[np.ndarray], np.ndarray],
]

LOSSES: dict[str, Loss] = {
    "linear": (lambda z: z, np.ones_like, np.zeros_like),
    "huber": (
        lambda z: np.where(z <= 1, z, 2 * np.sqrt(np.maximum(z, 1)) - 1),
        lambda z: np.maximum(z, 1) ** -0.5,
        lambda z: np.where(z <= 1, 0.0, -0.5 * np.maximum(z, 1) ** -1.5),
    ),
    "soft_l1": (
        lambda z: 2 * (np.sqrt(1 + z) - 1),
        lambda z: (1 + z) ** -0.5,
        lambda z: -0.5 * (1 + z) ** -1.5,
    ),
    "cauchy": (np.log1p, lambda z: 1 / (1 + z), lambda z: -1 / (1 + z) ** 2),
    "arctan": (
        np.arctan,
        lambda z: 1 / (1 + z**2),
        lambda z: -2 * z / (1 + z**2) ** 2,
    ),
}


def check_loss(loss: Any, f_scale: Any) -> None:
    """Refuse an unknown loss, and a scale that isn't positive."""
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; accepted: {', '.join(LOSSES)}")
    number = isinstance(f_scale, Real) and not isinstance(f_scale, bool)
    if not (number and 0 < f_scale < np.inf):
        raise ValueError(f"f_scale must be a number above 0, got {f_scale!r}")


def robust_objective(loss: str, residual: np.ndarray, f_scale: float) -> float:
    """``½ s² Σ ρ(r²/s²)``."""
    return 0.5 * f_scale**2 * float(np.sum(LOSSES[loss][0]((residual / f_scale) ** 2)))


def robust_weights(loss: str, residual: np.ndarray, f_scale: float) -> np.ndarray:
    """``ρ'(r²/s²)``, floored so that no row vanishes."""
    return np.maximum(LOSSES[loss][1]((residual / f_scale) ** 2), 1e-12)


def robust_factor(loss: str, residual: np.ndarray, f_scale: float, dof: int) -> float:
    """What ``(JᵀJ)⁻¹`` is multiplied by to be an M-estimator's covariance (Huber 1981, 6.5).

    ``Σψ²/dof / (mean ψ')²`` with ``ψ = ρ'(z)·r``, ``ψ' = ρ'(z) + 2zρ''(z)``; with the linear loss
    the residual variance.
    """
    z = (residual / f_scale) ** 2
    _, first, second = LOSSES[loss]
    psi, slope = first(z) * residual, np.mean(first(z) + 2 * z * second(z))
    if dof <= 0 or slope <= 0:
        return float("nan")
    return float(np.sum(psi**2) / dof / slope**2)
