"""The output layer as one least-squares problem over all units and all samples: the glue.

``min_A ‖τ − ΦA‖² + μ‖A‖²`` in one pass over blocks of samples, so ``Φ`` is never held:

- *Gram*: ``G = ΦᵀΦ``, ``B = Φᵀτ`` summed in float64 from products of blocks (float32 products
  where the problem is large, float64 where that costs nothing), one Cholesky or one
  eigendecomposition at the end. Half the work of a QR, the square of its condition.
- *TSQR*: the triangular factor of ``[Φ τ]``, updated block by block in float64, for when the
  conditioning asks for it.

The sums are in `gram`, the choice of the ridge in `ridge_choice`. Up to 2048 columns of ``Φ`` the
bits are the same whatever threads BLAS has; above, sums agree bit by bit, solutions to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import linalg

from rankwise._arrays import BLOCK, Targets, blocks, own
from rankwise.cluster import elsewhere
from rankwise.linear.gram import (
    EPS,
    Features,
    GramStatistics,
    accumulate_gram,
    in_rows,
    parts_of,
    sum_in_threads,
)
from rankwise.linear.ridge_choice import (
    eigen_directions,
    gcv_error,
    leave_one_out_errors,
    ridge_path,
    threads_for,
)

METHODS = ("auto", "gram", "tsqr")
"""How an output layer is accumulated; see `solve_output_layer`."""

_CLEAR = 1e3
"""A Cholesky counts where the reciprocal condition is so many times above float64's rounding."""


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

    def __post_init__(self) -> None:
        own(self, "coef")


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
        A number is used as it is: by one Cholesky or, where rounding would show in that, by the
        eigendecomposition. ``"gcv"`` picks from `path` the one with the least generalised
        cross-validation error ``(‖R‖²/n) / (1 − tr(H)/n)²``, from one eigendecomposition,
        ``H = Φ(ΦᵀΦ + μI)⁻¹Φᵀ``.
    rcond : float, optional
        Singular values of ``Φ`` below ``rcond`` times the largest are dropped. Default: those
        that rounding of the features or of their products could have made, unless the ridge
        outweighs them (`ridge_choice.eigen_directions`).
    path : sequence of float, optional
        Default: `ridge_path`.
    """
    with threads_for(len(statistics.gram)):
        return _solve(statistics, ridge, rcond, path)


def _solve(
    statistics: GramStatistics,
    ridge: float | str,
    rcond: float | None,
    path: Sequence[float] | None,
) -> OutputLayer:
    if not isinstance(ridge, str) and ridge > 0 and rcond is None:
        layer = _solve_cholesky(statistics, float(ridge))
        if layer is not None:
            return layer
    given = np.inf if isinstance(ridge, str) else float(ridge)
    values, vectors = eigen_directions(statistics, rcond, ridge=given)
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
    """One Cholesky, or None where rounding of the damped matrix would show in the solution."""
    m = len(statistics.gram)
    damped = statistics.gram.copy()
    damped.flat[:: m + 1] += ridge
    norm = float(np.abs(damped).sum(axis=0).max())
    factor, info = linalg.lapack.dpotrf(damped.T, lower=1, overwrite_a=1, clean=0)
    if info != 0:
        return None
    reciprocal, _ = linalg.lapack.dpocon(factor, norm, uplo="L")
    if reciprocal < max(_CLEAR * m * EPS, statistics.rounding):
        return None
    coef, _ = linalg.lapack.dpotrs(factor, statistics.cross, lower=1)
    condition = float(1.0 / np.sqrt(max(reciprocal, np.finfo(float).tiny)))
    return OutputLayer(coef, ridge, m, condition, "gram", [])


def solve_tsqr(
    features: Features,
    targets: Targets,
    ridge: float = 0.0,
    *,
    rcond: float | None = None,
    weights: Float[np.ndarray, "n"] | None = None,
    block_size: int = BLOCK,
    advance: Callable[[int], object] = lambda n: None,
) -> OutputLayer:
    """Solve by a QR of ``[Φ τ]`` in float64, by blocks: the condition of ``Φ``, not its square.

    Factors of blocks are joined in the tree of `rankwise.cluster.tree` (TSQR).

    Parameters
    ----------
    features, targets, weights, block_size, advance
        As in `gram.accumulate_gram`.
    ridge : float
        ``μ``.
    rcond : float, optional
        Singular values below ``rcond·s₁`` are dropped. Default: ``max(n, m)·ε`` of float64, or
        what rounding of float32 features could have made, ``√max(n, m)·ε``, if that is more.
    """
    n, n_targets = targets.shape
    if n == 0:
        raise ValueError("the output layer needs at least one sample, got none")
    leaves, common = list(blocks(n, block_size)), (features, targets, weights)
    away, told = elsewhere(), in_rows(advance, leaves)
    if away is not None:
        factor, eps = away.tree(_factor_of_block, leaves, _factor_of_both, common, told)
    else:
        leaf = partial(_factor_of_block, common)
        factor, eps = sum_in_threads(leaf, leaves, _factor_of_both, told)
    m = factor.shape[1] - n_targets
    with threads_for(m):
        u, s, vt = linalg.svd(factor[:m, :m], full_matrices=False, check_finite=False)
        if rcond is None:
            rcond = max(max(n, m) * EPS, np.sqrt(max(n, m)) * eps)
        kept = s > rcond * max(s[0], np.finfo(float).tiny)
        kept[n:] = False
        u, s, vt = u[:, kept], s[kept], vt[kept]
        coef = vt.T @ ((s / (s**2 + ridge))[:, None] * (u.T @ factor[: len(u), m:]))
    condition = float(s[0] / s[-1]) if len(s) else 1.0
    return OutputLayer(coef, float(ridge), len(s), condition, "tsqr", [])


def _factor_of_block(common: tuple[Any, ...], block: slice) -> tuple[np.ndarray, float]:
    """The triangular factor of a block's ``[Φ τ]``, and the relative rounding of its features."""
    features, targets, weights = common
    phi = np.concatenate([features(part) for part in parts_of(features, block)])
    rows = np.concatenate([phi.astype(np.float64), targets[block].astype(np.float64)], axis=1)
    if weights is not None:
        rows *= np.sqrt(weights[block])[:, None]
    return _triangle(rows), float(np.finfo(phi.dtype).eps)


def _factor_of_both(
    a: tuple[np.ndarray, float], b: tuple[np.ndarray, float]
) -> tuple[np.ndarray, float]:
    return _triangle(np.concatenate([a[0], b[0]])), max(a[1], b[1])


def _triangle(rows: np.ndarray) -> np.ndarray:
    (factor,) = linalg.qr(rows, mode="r", overwrite_a=True, check_finite=False)
    return factor[: rows.shape[1]]


def check_method(method: Any, ridge: Any) -> None:
    """Refuse a method that is none, or that the choice of a ridge can't be made by.

    Raises
    ------
    ValueError
    """
    if method not in METHODS:
        raise ValueError(
            f"unknown method {method!r} of the output layer; accepted: {', '.join(METHODS)}"
        )
    if method == "tsqr" and isinstance(ridge, str):
        raise ValueError("method 'tsqr' needs a number as ridge; 'gcv' and 'loo' need 'gram'")


def solve_output_layer(
    features: Features,
    targets: Targets,
    *,
    ridge: float | str = "gcv",
    method: str = "auto",
    rcond: float | None = None,
    weights: Float[np.ndarray, "n"] | None = None,
    workers: int = 1,
    block_size: int = BLOCK,
    advance: Callable[[int], object] = lambda n: None,
) -> OutputLayer:
    """The glue: accumulate in one pass, choose the ridge, solve.

    Parameters
    ----------
    features, targets, weights, workers, block_size, advance
        As in `gram.accumulate_gram`.
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
    check_method(method, ridge)
    if method == "tsqr" and not isinstance(ridge, str):
        return solve_tsqr(
            features,
            targets,
            ridge,
            rcond=rcond,
            weights=weights,
            block_size=block_size,
            advance=advance,
        )
    statistics = accumulate_gram(
        features,
        targets,
        weights=weights,
        workers=workers,
        block_size=block_size,
        advance=advance,
    )
    if ridge == "loo":
        errors = leave_one_out_errors(
            statistics, features, targets, ridge_path(statistics), rcond=rcond, weights=weights
        )
        best = min(errors, key=lambda pair: pair[1])[0]
        layer = solve_gram(statistics, best, rcond=rcond)
        return OutputLayer(layer.coef, best, layer.rank, layer.condition, "gram", errors)
    layer = solve_gram(statistics, ridge, rcond=rcond)
    lost = layer.rank < min(len(layer.coef), statistics.n)
    if method == "auto" and ridge == 0 and lost:
        return solve_tsqr(
            features, targets, 0.0, rcond=rcond, weights=weights, block_size=block_size
        )
    return layer
