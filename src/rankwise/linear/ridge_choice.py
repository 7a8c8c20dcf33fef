"""Criteria for a ridge: generalised cross-validation, and the exact leave-one-out error.

One eigendecomposition of the Gram matrix serves all ridges of a path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import linalg

from rankwise._arrays import Targets, blocks
from rankwise._threads import one_blas_thread
from rankwise.cluster import elsewhere
from rankwise.linear.gram import EPS, Features, GramStatistics, in_rows, parts_of, sum_in_threads


def ridge_path(
    statistics: GramStatistics, n_values: int = 25, *, largest: float = 1e-2
) -> list[float]:
    """Ridges from ``10⁻⁹`` to `largest` times the trace of ``G``, log-spaced."""
    scale = max(float(np.trace(statistics.gram)), float(np.finfo(float).tiny))
    return (np.geomspace(1e-9, largest, n_values) * scale).tolist()


def eigen_directions(
    statistics: GramStatistics, rcond: float | None = None, *, ridge: float = np.inf
) -> tuple[Float[np.ndarray, "r"], Float[np.ndarray, "m r"]]:
    """Eigenvalues of ``G`` that count, increasing, and their vectors; never more than samples.

    Parameters
    ----------
    statistics : GramStatistics
    rcond : float, optional
        Singular values of ``Φ`` below ``rcond`` times the largest don't count. Default: those
        that are zero to float64 and, unless the ridge outweighs them, those that rounding of the
        features or of their products could have made.
    ridge : float
        What will be added; by default as much as outweighs all rounding.
    """
    values, vectors = _eigen(statistics.gram)
    m, largest = len(values), max(float(values[-1]), float(np.finfo(float).tiny))
    if rcond is not None:
        floor = rcond**2
    elif ridge >= statistics.rounding * largest:
        floor = m * EPS
    else:
        floor = max(m * statistics.eps, statistics.rounding)
    kept = values > floor * largest
    kept[: max(m - statistics.max_rank, 0)] = False
    # In one order in memory, here and where they are sent: products of another have other bits.
    return values[kept], np.ascontiguousarray(vectors[:, kept])


_ONE_THREAD = 2048
"""Sides up to this are decomposed by one thread: more spend their time waiting for each other."""


@contextmanager
def threads_for(side: int) -> Iterator[None]:
    """One thread of BLAS for matrices up to `_ONE_THREAD` wide: the bits follow from them alone.

    Wider ones get all threads there are, and with another number of them agree to rounding only.
    """
    with nullcontext() if side > _ONE_THREAD else one_blas_thread():
        yield


def _eigen(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with threads_for(len(gram)):
        return linalg.eigh(gram, check_finite=False, driver="evd")


def left_over(
    statistics: GramStatistics,
    values: Float[np.ndarray, "r"],
    projected: Float[np.ndarray, "r K"],
    ridge: float,
    *,
    penalised: bool = False,
) -> float:
    """``‖R‖²`` of the ridge solution or, penalised, the objective ``‖R‖² + μ‖A‖²``.

    With ``e_j = ‖q_jᵀΦᵀτ‖²`` the targets' part along direction ``j`` is ``e_j/λ_j``, so

    - ``‖R‖² = (‖τ‖² − Σ_j e_j/λ_j) + Σ_j (μ/(λ_j + μ))²·e_j/λ_j``,
    - ``‖R‖² + μ‖A‖² = (‖τ‖² − Σ_j e_j/λ_j) + Σ_j μ/(λ_j + μ)·e_j/λ_j``:

    terms that aren't negative, of which the first alone, the same for all ridges, is a difference.
    It is zero where the directions are as many as the samples allow, and elsewhere taken to be no
    less than its rounding. The usual ``‖τ‖² − Σ_j (2 − λ_j·w_j)·w_j·e_j``, ``w_j = 1/(λ_j + μ)``,
    has no right digit left near interpolation.

    Parameters
    ----------
    statistics : GramStatistics
    values, projected
        ``λ`` and ``qᵀΦᵀτ``, from `eigen_directions`.
    ridge : float
        ``μ``.
    penalised : bool, default=False
    """
    energy = np.sum(projected**2, axis=1)
    weights = 1.0 / (values + ridge)
    kept = ridge * weights
    # Where λ may be rounding of the products, what it explains is stable, e/λ isn't.
    sure = values > statistics.eps * np.max(values, initial=0.0)
    parts = energy[sure] / values[sure]
    unsure = energy * weights * (1.0 if penalised else 1.0 + kept)
    first = 0.0
    if len(values) < statistics.max_rank:
        first = statistics.targets_squared - float(np.sum(parts) + np.sum(unsure[~sure]))
        first = max(first, statistics.eps * statistics.targets_squared)
    return first + float(np.sum(kept[sure] ** (1 if penalised else 2) * parts))


def gcv_error(
    statistics: GramStatistics,
    values: Float[np.ndarray, "r"],
    projected: Float[np.ndarray, "r K"],
    ridge: float,
    *,
    n_free: int = 0,
) -> float:
    """Generalised cross-validation error ``(‖R‖²/n) / (tr(I − H)/n)²``, as exact as `left_over`.

    It takes every sample's leverage for their mean. With about as many directions as samples,
    both factors go to zero with the ridge, and a ridge that is far too small can win: there the
    leave-one-out error is the better guide. `n_free` counts directions without ridge that were
    projected out before, such as an intercept.
    """
    n = statistics.n
    rss = left_over(statistics, values, projected, ridge)
    freedom_left = max(n - n_free - len(values), 0) + float(np.sum(ridge / (values + ridge)))
    return rss / n / max(freedom_left / n, np.finfo(float).tiny) ** 2


def penalised_objective(
    statistics: GramStatistics, ridge: float, columns: np.ndarray | None = None
) -> float:
    """``min_A ‖τ − ΦA‖² + μ‖A‖²``, over some columns of ``Φ`` or all; see `left_over`."""
    some = statistics if columns is None else statistics.of_columns(columns)
    values, vectors = eigen_directions(some, ridge=ridge)
    with threads_for(len(some.gram)):
        projected = vectors.T @ some.cross
    return left_over(some, values, projected, ridge, penalised=True)


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
    fitted, left = _outputs_and_left(
        rotated, targets.shape[1], values, projected, ridges, share, free_leverage
    )
    return (targets[:, None, :] - fitted) / left[:, :, None]


def left_out_squares(
    rotated: Any,
    targets: Any,
    values: Any,
    projected: Any,
    ridges: Any,
    *,
    share: Any = 1.0,
    free_leverage: float = 0.0,
) -> Any:
    """`left_out_residuals` squared and summed over the columns, of shape (n, ridges).

    The parameters are the same. Residuals are made in place of the outputs, and only their sums
    are divided: a third of the time where the directions are few.
    """
    residuals, left = _outputs_and_left(
        rotated, targets.shape[1], values, projected, ridges, share, free_leverage
    )
    residuals -= targets[:, None, :]
    if isinstance(residuals, np.ndarray):
        return np.einsum("nmk,nmk->nm", residuals, residuals) / left**2
    residuals *= residuals
    return residuals.sum(2) / left**2


def _outputs_and_left(
    rotated: Any,
    n_columns: int,
    values: Any,
    projected: Any,
    ridges: Any,
    share: Any,
    free_leverage: float,
) -> tuple[Any, Any]:
    """Outputs ``(n, ridges, K)`` of the whole fit, and ``1 − u·h``, ``(n, ridges)``."""
    weights = 1.0 / (values[:, None] + ridges)
    # No -1 in the shape: there may be no direction at all, of constant features.
    coef = (weights[:, :, None] * projected[:, None, :]).reshape(
        len(values), len(ridges) * n_columns
    )
    fitted = (rotated @ coef).reshape(len(rotated), len(ridges), n_columns)
    leverage = free_leverage + rotated**2 @ weights
    return fitted, (1.0 - share * leverage).clip(min=float(np.finfo(float).eps))


def leave_one_out_errors(
    statistics: GramStatistics,
    features: Features,
    targets: Targets,
    ridges: Sequence[float],
    *,
    rcond: float | None = None,
    weights: Float[np.ndarray, "n"] | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> list[tuple[float, float]]:
    """Exact mean squared leave-one-out error of each ridge, in a second pass of blocks.

    With ``h_j(μ) = Σ_l (φ_jᵀq_l)²/(λ_l + μ)``, sample ``j``'s left-out residual is
    ``r_j(μ)/(1 − h_j(μ))``; one eigendecomposition serves all ridges. Of a sample of weight 2 one
    of two is left out, of a weight below 1 all of it. The pass is made as `gram.accumulate_gram`'s.
    """
    values, vectors = eigen_directions(statistics, rcond)
    with threads_for(len(statistics.gram)):
        projected = vectors.T @ statistics.cross
    common = (features, targets, weights, values, vectors, projected, list(ridges))
    leaves = list(blocks(len(targets)))
    away, told = elsewhere(), in_rows(advance, leaves)
    if away is not None:
        totals = away.tree(_left_out_squares, leaves, add, common, told)
    else:
        totals = sum_in_threads(partial(_left_out_squares, common), leaves, add, told)
    return [(float(mu), float(t / statistics.n)) for mu, t in zip(ridges, totals, strict=True)]


def _left_out_squares(common: tuple[Any, ...], block: slice) -> np.ndarray:
    """Weighted squared left-out residuals of a block, summed for each ridge."""
    features, targets, weights, values, vectors, projected, ridges = common
    rotated = rotated_rows(features, block, vectors)
    own = np.ones(len(rotated)) if weights is None else weights[block]
    share = np.minimum(own, 1.0)[:, None]
    total = np.zeros(len(ridges))
    for i, mu in enumerate(ridges):  # one at a time: of many columns, blocks are large
        squares = left_out_squares(
            rotated, targets[block], values, projected, np.array([mu]), share=share
        )
        total[i] = float(own @ squares[:, 0])
    return total


def rotated_rows(features: Features, block: slice, vectors: np.ndarray) -> np.ndarray:
    """Features of a block in some directions, float64."""
    rows = [features(part).astype(np.float64) @ vectors for part in parts_of(features, block)]
    return np.concatenate(rows)
