"""The output layer as one least-squares problem over all units and all samples: the glue.

``min_A ‖τ − ΦA‖² + μ‖A‖²`` in one pass over blocks of samples, so ``Φ`` is never held:

- *Gram*: ``G = ΦᵀΦ``, ``B = Φᵀτ`` summed in float64 from products of blocks (float32 products
  where the problem is large, float64 where that costs nothing), one Cholesky or one
  eigendecomposition at the end. Half the work of a QR, the square of its condition.
- *TSQR*: the triangular factor of ``[Φ τ]``, updated block by block in float64, for when the
  conditioning asks for it.

Blocks are cut at fixed places and each tile of ``G`` is summed in one order, so the result does
not depend, to the last bit, on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import linalg
from threadpoolctl import threadpool_limits

BLOCK = 4096
"""Samples a block: large enough that adding the tiles up is cheap beside the products."""

_TILE = 512

_CHEAP = 2e10
"""Products under ``n·m²`` of this run in float64 whatever the features: about a second."""

Features = Callable[[slice], np.ndarray]
"""Gives the features ``(n_block, m)`` of a slice of the samples."""


@dataclass
class GramStatistics:
    """Sufficient statistics of a linear least-squares problem; they add up.

    Attributes
    ----------
    gram : float64 array of shape (m, m)
        ``ΦᵀΦ``, whole (both triangles).
    cross : float64 array of shape (m, K)
        ``Φᵀτ``.
    targets_squared : float
        ``‖τ‖²``.
    n : int or float
        Samples seen, or the sum of their weights.
    eps : float
        Relative rounding of the products.
    """

    gram: Float[np.ndarray, "m m"]
    cross: Float[np.ndarray, "m K"]
    targets_squared: float
    n: int | float
    eps: float

    def __add__(self, other: GramStatistics) -> GramStatistics:
        return GramStatistics(
            self.gram + other.gram,
            self.cross + other.cross,
            self.targets_squared + other.targets_squared,
            self.n + other.n,
            max(self.eps, other.eps),
        )


@dataclass(frozen=True)
class OutputLayer:
    """The solved output layer.

    Attributes
    ----------
    coef : float64 array of shape (m, K)
        ``A``.
    ridge : float
        ``μ`` used, given or chosen.
    rank : int
        Directions of ``Φ`` kept, of ``m``.
    condition : float
        ``s₁/s_rank`` of ``Φ``; where one Cholesky with a given ridge sufficed, an estimate for
        ``[Φ; √μ I]`` instead.
    method : {"gram", "tsqr"}
        How it was accumulated.
    criterion : list of (float, float)
        Ridge and its criterion (mean squared GCV or leave-one-out error), where it was chosen.
    """

    coef: Float[np.ndarray, "m K"]
    ridge: float
    rank: int
    condition: float
    method: str
    criterion: list[tuple[float, float]]


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Cut ``range(n)`` at multiples of `size`."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def accumulate_gram(
    features: Features,
    targets: Float[np.ndarray, "n K"],
    *,
    workers: int = 1,
    block_size: int = BLOCK,
    advance: Callable[[int], object] = lambda n: None,
) -> GramStatistics:
    """One pass over the samples.

    Parameters
    ----------
    features : callable
        ``features(slice) -> (n_block, m)``, float32 or float64. It's called for a part of a
        block in each of `workers` threads.
    targets : array of shape (n, K)
    workers : int
        Threads; each runs single-threaded BLAS on its own tiles. Any number gives the same bits.
    block_size : int
        Samples a block; bounds the memory at ``block_size·m`` numbers beside ``G``. Another size
        changes the result by rounding only.
    advance : callable
        Told the number of samples done, for a progress bar.
    """
    n = len(targets)
    gram: np.ndarray | None = None
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for block in blocks(n, block_size):
            parts = [
                slice(block.start + p.start, block.start + p.stop)
                for p in blocks(block.stop - block.start, 1024)
            ]
            phi = np.concatenate(list(pool.map(features, parts)))
            tau = targets[block].astype(np.float64)
            m = phi.shape[1]
            if n * m**2 < _CHEAP:
                phi = phi.astype(np.float64)
            if gram is None:
                gram, cross = np.zeros((m, m)), np.zeros((m, targets.shape[1]))
            _add_tiles(gram, phi, pool)
            cross += phi.T @ tau if phi.dtype == np.float64 else phi.T.astype(np.float64) @ tau
            advance(len(phi))
    if gram is None:
        raise ValueError("the output layer needs at least one sample, got none")
    lower = np.tril_indices(len(gram), -1)
    gram[lower] = gram.T[lower]
    squared = float(sum(np.sum(np.square(targets[b], dtype=np.float64)) for b in blocks(n)))
    return GramStatistics(gram, cross, squared, n, float(np.finfo(phi.dtype).eps))


def _add_tiles(
    gram: Float[np.ndarray, "m m"], phi: Float[np.ndarray, "n m"], pool: ThreadPoolExecutor
) -> None:
    """Add the upper triangle of ``φᵀφ``, one column panel a task, the tallest first."""
    m = phi.shape[1]

    def panel(columns: slice) -> None:
        rows = slice(0, columns.stop)
        gram[rows, columns] += phi[:, rows].T @ phi[:, columns]

    list(pool.map(panel, reversed(list(blocks(m, _TILE)))))


def ridge_path(
    statistics: GramStatistics, n_values: int = 25, *, largest: float = 1e-2
) -> list[float]:
    """Ridges from ``10⁻⁹`` to `largest` times the trace of ``G``, log-spaced."""
    scale = max(float(np.trace(statistics.gram)), float(np.finfo(float).tiny))
    return (np.geomspace(1e-9, largest, n_values) * scale).tolist()


def solve_gram(
    statistics: GramStatistics,
    ridge: float | str = "gcv",
    *,
    rcond: float | None = None,
    path: Sequence[float] | None = None,
) -> OutputLayer:
    """Solve from the statistics.

    Parameters
    ----------
    statistics : GramStatistics
    ridge : float or "gcv"
        A number is used as it is (one Cholesky). ``"gcv"`` picks from `path` the one with the
        least generalised cross-validation error ``(‖R‖²/n) / (1 − tr(H)/n)²``, from one
        eigendecomposition, ``H = Φ(ΦᵀΦ + μI)⁻¹Φᵀ``.
    rcond : float, optional
        Singular values of ``Φ`` below ``rcond`` times the largest are dropped. Default: without
        ridge ``√(m·ε)``, under which eigenvalues of ``G`` are rounding; with ridge none but
        those that are zero to float64, since the ridge outweighs the rest.
    path : sequence of float, optional
        Default: `ridge_path`.
    """
    if not isinstance(ridge, str) and ridge > 0 and rcond is None:
        layer = _solve_cholesky(statistics, float(ridge))
        if layer is not None:
            return layer
    values, vectors = eigen_directions(statistics, rcond, without_ridge=ridge == 0)
    projected = vectors.T @ statistics.cross
    criterion: list[tuple[float, float]] = []
    if isinstance(ridge, str):
        ridges = ridge_path(statistics) if path is None else path
        criterion = [(mu, gcv_error(statistics, values, projected, mu)) for mu in ridges]
        ridge = min(criterion, key=lambda pair: pair[1])[0]
    coef = vectors @ (projected / (values + ridge)[:, None])
    condition = float(np.sqrt(values[-1] / values[0])) if len(values) else 1.0
    return OutputLayer(coef, float(ridge), len(values), condition, "gram", criterion)


def _solve_cholesky(statistics: GramStatistics, ridge: float) -> OutputLayer | None:
    """One Cholesky, or None where rounding leaves the damped matrix indefinite."""
    m = len(statistics.gram)
    damped = statistics.gram.copy()
    damped.flat[:: m + 1] += ridge
    norm = float(np.abs(damped).sum(axis=0).max())
    factor, info = linalg.lapack.dpotrf(damped.T, lower=1, overwrite_a=1, clean=0)
    if info != 0:
        return None
    reciprocal, _ = linalg.lapack.dpocon(factor, norm, uplo="L")
    coef, _ = linalg.lapack.dpotrs(factor, statistics.cross, lower=1)
    condition = float(1.0 / np.sqrt(max(reciprocal, np.finfo(float).tiny)))
    return OutputLayer(coef, ridge, m, condition, "gram", [])


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


def solve_tsqr(
    features: Features,
    targets: Float[np.ndarray, "n K"],
    ridge: float = 0.0,
    *,
    rcond: float | None = None,
    block_size: int = BLOCK,
    advance: Callable[[int], object] = lambda n: None,
) -> OutputLayer:
    """Solve by a streamed QR of ``[Φ τ]`` in float64: the condition of ``Φ``, not its square.

    Parameters
    ----------
    features, targets, block_size, advance
        As in `accumulate_gram`.
    ridge : float
        ``μ``.
    rcond : float, optional
        Singular values below ``rcond·s₁`` are dropped; default ``max(n, m)·ε``.
    """
    n, n_targets = targets.shape
    factor: np.ndarray | None = None
    for block in blocks(n, block_size):
        rows = np.concatenate(
            [features(block).astype(np.float64), targets[block].astype(np.float64)], axis=1
        )
        stacked = rows if factor is None else np.concatenate([factor, rows])
        (factor,) = linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)
        factor = factor[: stacked.shape[1]]
        advance(len(rows))
    if factor is None:
        raise ValueError("the output layer needs at least one sample, got none")
    m = factor.shape[1] - n_targets
    u, s, vt = linalg.svd(factor[:m, :m], full_matrices=False, check_finite=False)
    eps = float(np.finfo(np.float64).eps)
    kept = s > (max(n, m) * eps if rcond is None else rcond) * max(s[0], np.finfo(float).tiny)
    u, s, vt = u[:, kept], s[kept], vt[kept]
    coef = vt.T @ ((s / (s**2 + ridge))[:, None] * (u.T @ factor[: len(u), m:]))
    condition = float(s[0] / s[-1]) if len(s) else 1.0
    return OutputLayer(coef, float(ridge), len(s), condition, "tsqr", [])


def solve_output_layer(
    features: Features,
    targets: Float[np.ndarray, "n K"],
    *,
    ridge: float | str = "gcv",
    method: str = "auto",
    rcond: float | None = None,
    workers: int = 1,
    block_size: int = BLOCK,
    advance: Callable[[int], object] = lambda n: None,
) -> OutputLayer:
    """The glue: accumulate in one pass, choose the ridge, solve.

    Parameters
    ----------
    features, targets, workers, block_size, advance
        As in `accumulate_gram`.
    ridge : float, "gcv" or "loo"
        A number; chosen by generalised cross-validation (no further pass); or by the exact
        leave-one-out error (a second pass of ``2nm²`` operations).
    method : {"auto", "gram", "tsqr"}
        ``"auto"`` turns from Gram to TSQR (a second pass) where no ridge was asked for and the
        Gram matrix has lost directions to rounding that a QR would still resolve.
    rcond : float, optional
        Relative size of a singular value under which it counts as zero.
    """
    if not (ridge in ("gcv", "loo") or (not isinstance(ridge, str) and 0 <= ridge < np.inf)):
        raise ValueError(f"ridge must be a number at least 0, 'gcv' or 'loo', got {ridge!r}")
    if method not in ("auto", "gram", "tsqr"):
        raise ValueError(f"unknown method {method!r}; accepted: auto, gram, tsqr")
    if method == "tsqr":
        if isinstance(ridge, str):
            raise ValueError("method 'tsqr' needs a number as ridge; 'gcv' and 'loo' need 'gram'")
        return solve_tsqr(
            features, targets, ridge, rcond=rcond, block_size=block_size, advance=advance
        )
    statistics = accumulate_gram(
        features, targets, workers=workers, block_size=block_size, advance=advance
    )
    if ridge == "loo":
        errors = leave_one_out_errors(
            statistics, features, targets, ridge_path(statistics), rcond=rcond
        )
        best = min(errors, key=lambda pair: pair[1])[0]
        layer = solve_gram(statistics, best, rcond=rcond)
        return OutputLayer(layer.coef, best, layer.rank, layer.condition, "gram", errors)
    layer = solve_gram(statistics, ridge, rcond=rcond)
    lost = layer.rank < min(len(layer.coef), statistics.n)
    if method == "auto" and ridge == 0 and lost:
        return solve_tsqr(features, targets, 0.0, rcond=rcond, block_size=block_size)
    return layer
