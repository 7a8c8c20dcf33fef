"""Criteria for a ridge: generalised cross-validation, and the exact leave-one-out error.

One eigendecomposition of the Gram matrix serves all ridges of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import linalg

from rankwise._arrays import blocks
from rankwise.linear.gram import Features, GramStatistics


def ridge_path(
    statistics: GramStatistics, n_values: int = 25, *, largest: float = 1e-2
) -> list[float]:
    """Ridges from ``10⁻⁹`` to `largest` times the trace of ``G``, log-spaced."""
    scale = max(float(np.trace(statistics.gram)), float(np.finfo(float).tiny))
    return (np.geomspace(1e-9, largest, n_values) * scale).tolist()


def eigen_directions(
    statistics: GramStatistics, rcond: float | None = None, *, without_ridge: bool
) -> tuple[Float[np.ndarray, "r"], Float[np.ndarray, "m r"]]:
    """Eigenvalues of ``G`` that count, increasing, and their vectors."""
    values, vectors = linalg.eigh(statistics.gram, check_finite=False, driver="evd")
    if rcond is not None:
        floor = rcond**2
    else:
        eps = statistics.eps if without_ridge else float(np.finfo(np.float64).eps)
        floor = len(values) * eps
    kept = values > floor * max(values[-1], np.finfo(float).tiny)
    return values[kept], vectors[:, kept]


def gcv_error(
    statistics: GramStatistics,
    values: Float[np.ndarray, "r"],
    projected: Float[np.ndarray, "r K"],
    ridge: float,
    *,
    n_free: int = 0,
) -> float:
    """Generalised cross-validation error.

    ``‖R‖² = ‖τ‖² − Σ_j (2w_j − λ_j·w_j²)·‖q_jᵀΦᵀτ‖²`` with ``w_j = 1/(λ_j + μ)``, not below
    its own rounding, so that an interpolating fit isn't mistaken for a perfect one. `n_free`
    counts directions without ridge that were projected out before, such as an intercept.
    """
    n, weights = statistics.n, 1.0 / (values + ridge)
    energy = np.sum(projected**2, axis=1)
    rss = statistics.targets_squared - float(np.sum((2 - values * weights) * weights * energy))
    rounding = max(1e4 * float(np.finfo(np.float64).eps), 100 * statistics.eps)
    rss = max(rss, rounding * statistics.targets_squared)
    freedom_left = max(n - n_free - len(values), 0) + float(np.sum(ridge * weights))
    return rss / n / max(freedom_left / n, np.finfo(float).tiny) ** 2


def left_out_residuals(
    rotated: Any,
    targets: Any,
    values: Any,
    projected: Any,
    ridges: Any,
    *,
    share: Any = 1.0,
    free_leverage: float = 0.0,
) -> Any:
    """Residual of each sample in the fit without it, by the matrix inversion lemma.

    ``r_j/(1 − u_j·h_j)``, ``h_j = h₀ + Σ_l (φ_jᵀq_l)²/(λ_l + μ)``, of shape (n, ridges, K).

    Parameters
    ----------
    rotated : array of shape (n, r)
        ``Φq``, of NumPy or, with all other arrays, of PyTorch.
    targets : array of shape (n, K)
    values, projected : arrays of shape (r,) and (r, K)
        ``λ`` and ``qᵀΦᵀτ``.
    ridges : array of shape (ridges,)
    share : float or array of shape (n, 1)
        ``u``: weight that is taken away.
    free_leverage : float
        ``h₀``: of directions without ridge that were projected out before.
    """
    weights = 1.0 / (values[:, None] + ridges)
    # No -1 in the shape: there may be no direction at all, of constant features.
    n_columns = len(ridges) * targets.shape[1]
    coef = (weights[:, :, None] * projected[:, None, :]).reshape(len(values), n_columns)
    fitted = (rotated @ coef).reshape(len(rotated), len(ridges), targets.shape[1])
    leverage = free_leverage + rotated**2 @ weights
    left = (1.0 - share * leverage).clip(min=float(np.finfo(float).eps))
    return (targets[:, None, :] - fitted) / left[:, :, None]


def leave_one_out_errors(
    statistics: GramStatistics,
    features: Features,
    targets: Float[np.ndarray, "n K"],
    ridges: Sequence[float],
    *,
    rcond: float | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> list[tuple[float, float]]:
    """Exact mean squared leave-one-out error of each ridge, in a second pass of blocks.

    With ``h_j(μ) = Σ_l (φ_jᵀq_l)²/(λ_l + μ)``, sample ``j``'s left-out residual is
    ``r_j(μ)/(1 − h_j(μ))``; one eigendecomposition serves all ridges.
    """
    values, vectors = eigen_directions(statistics, rcond, without_ridge=False)
    projected = vectors.T @ statistics.cross
    totals = np.zeros(len(ridges))
    for block in blocks(len(targets)):
        rotated = features(block).astype(np.float64) @ vectors
        for i, mu in enumerate(ridges):
            left_out = left_out_residuals(
                rotated, targets[block], values, projected, np.array([mu])
            )
            totals[i] += float(np.sum(left_out**2))
        advance(block.stop - block.start)
    return [(float(mu), float(t / len(targets))) for mu, t in zip(ridges, totals, strict=True)]
