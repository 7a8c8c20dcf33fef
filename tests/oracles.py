"""Slow, obvious references that the fast paths are held against, in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np


def unit_forms(units, params: np.ndarray, images: np.ndarray) -> np.ndarray:
    """``q`` of every image and unit by summing over every pixel, one at a time."""
    n_units = params.shape[1]
    lengths = units.lengths
    offsets = np.cumsum([0, *lengths])
    q = np.zeros((len(images), n_units))
    for i in range(n_units):
        for rho in range(units.rank):
            first = rho * sum(lengths)
            vectors = [params[first + a : first + b, i] for a, b in pairwise(offsets)]
            for position in product(*(range(s) for s in units.shape)):
                weight = 1.0
                for axis, index in enumerate(position):
                    weight *= vectors[units.vector_of_axis[axis]][index]
                q[:, i] += weight * images[(slice(None), *position)]
        q[:, i] += params[-1, i]
    return q


def finite_differences(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Jacobian of a vector function by central differences."""
    columns = []
    for i in range(len(x)):
        step = 1e-6 * max(1.0, abs(x[i]))
        forward, backward = x.copy(), x.copy()
        forward[i] += step
        backward[i] -= step
        columns.append((function(forward) - function(backward)) / (2 * step))
    return np.stack(columns, axis=-1)


def augmented(phi: np.ndarray, tau: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """``[Φ; √μ I]`` and ``[τ; 0]``."""
    m = phi.shape[1]
    if ridge == 0:
        return phi, tau
    return (
        np.vstack([phi, np.sqrt(ridge) * np.eye(m)]),
        np.vstack([tau, np.zeros((m, tau.shape[1]))]),
    )


def dense_jacobian(
    phi: np.ndarray,
    d: np.ndarray,
    owner: np.ndarray,
    tau: np.ndarray,
    *,
    golub_pereyra: bool,
    ridge: float = 0.0,
) -> np.ndarray:
    """``∂(P⊥τ)`` from the textbook formula with explicit pseudo-inverse and projector.

    ``−[P⊥ ∂Φ Φ⁺ + (P⊥ ∂Φ Φ⁺)ᵀ] τ``, the second term for Golub–Pereyra only (paper, section 3).
    """
    a, t = augmented(phi, tau, ridge)
    pinv = np.linalg.pinv(a)
    complement = np.eye(len(a)) - a @ pinv
    columns = []
    for column, j in enumerate(owner):
        d_phi = np.zeros_like(a)
        d_phi[: len(d), j] = d[:, column]
        inner = complement @ d_phi @ pinv
        total = inner + inner.T if golub_pereyra else inner
        columns.append(-(total @ t).T.ravel())
    return np.stack(columns, axis=1)


def ridge_solution(phi: np.ndarray, tau: np.ndarray, ridge: float) -> np.ndarray:
    """One dense least-squares solve."""
    a, t = augmented(phi, tau, ridge)
    return np.linalg.lstsq(a, t, rcond=None)[0]


def leave_one_out(phi: np.ndarray, tau: np.ndarray, ridge: float) -> float:
    """Mean squared left-out residual by fitting ``n`` times."""
    total = 0.0
    for j in range(len(phi)):
        keep = np.arange(len(phi)) != j
        coef = ridge_solution(phi[keep], tau[keep], ridge)
        total += float(np.sum((tau[j] - phi[j] @ coef) ** 2))
    return total / len(phi)


def gcv(phi: np.ndarray, tau: np.ndarray, ridges, n_free: int = 0) -> list[float]:
    """Generalised cross-validation from the components of ``τ`` in the singular vectors of ``Φ``.

    Sums of squares alone, so every digit holds however close to interpolation. `n_free` counts
    directions projected out of both before.
    """
    n = len(phi)
    u, s, _ = np.linalg.svd(phi, full_matrices=False)
    kept = s > max(phi.shape) * np.finfo(float).eps * s[0]
    u, s = u[:, kept], s[kept]
    along = u.T @ tau
    beyond = np.sum((tau - u @ along) ** 2) if len(s) + n_free < n else 0.0
    errors = []
    for mu in ridges:
        shrink = mu / (s**2 + mu)
        rss = beyond + np.sum((shrink[:, None] * along) ** 2)
        freedom = n - n_free - len(s) + shrink.sum()
        errors.append(rss / n / (freedom / n) ** 2)
    return errors


def penalised_objective(phi: np.ndarray, tau: np.ndarray, ridge: float) -> float:
    """``min_A ‖τ − ΦA‖² + μ‖A‖²``: the squared residual of one dense augmented least squares."""
    a, t = augmented(phi, tau, ridge)
    q, _ = np.linalg.qr(a)
    return float(np.sum((t - q @ (q.T @ t)) ** 2))
