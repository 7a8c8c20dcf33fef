"""One small image at a time, as pipelines hand them over: the least number of array operations.

The same choices as `rankwise.lowrank._matrices`, for one image and one energy or rank. Calls into
numpy, not sums, are what an image of 28×28 costs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from rankwise.lowrank._eigen import SMALL, products
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.options import LowRankOptions
from rankwise.lowrank.ranks import singular_value_bounds

_UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2


def fits(shape: tuple[int, ...], wanted: Wanted) -> bool:
    """Whether `rebuild_small` serves: one image of at most four matrices, (m, H, W), one target."""
    return shape[0] <= 4 and min(shape[1:]) <= SMALL and wanted.values.shape == (1, 1)


def rebuild_small(
    matrices: NDArray, wanted: Wanted, options: LowRankOptions, integer_limit: int | None
) -> tuple[NDArray, NDArray[np.intp]] | None:
    """``A_k`` and k of each matrix of one image; None where a threshold is within the error.

    With the tails ``t_j = w_n + … + w_{n−j+1}`` of the weights ``w = σ`` or ``σ²``, the first rank
    that reaches the energy drops as many as have ``t_j ≤ (1 − energy) t_n``; the nearest, as many
    as have ``(t_{j−1} + t_j)/2`` there. No tail moves by more than the sum of the weights' errors.

    Returns
    -------
    copies : ndarray, (1, m, H, W)
    ranks : ndarray of int, (1, 1, m)
    """
    count, height, width = matrices.shape
    left = height <= width
    order, other_side = (height, width) if left else (width, height)
    target = wanted.values[0, 0]
    drops: list[int] | None = None  # to be found from the spectra
    if wanted.are_ranks:
        drops = [max(order - int(target), 0)] * count
    elif target == 1:
        drops = [0] * count
    if drops == [0] * count:
        return matrices[None].copy(), np.full((1, 1, count), order, np.intp)
    grams = products(matrices, left, integer_limit)
    spectra, vectors = [], []
    for m in range(count):
        # Symmetric, so its transpose is itself in Fortran's order, for LAPACK to overwrite.
        values, columns, info = lapack.dsyevd(grams[m].T, lower=1, overwrite_a=1)
        if info:
            return None
        spectra.append(values)
        vectors.append(columns)
    if drops is None:
        drops = _drops(spectra, float(target), options, other_side)
        if drops is None:
            return None
    copies = np.empty((1, count, height, width), matrices.dtype)
    for matrix, columns, dropped, out in zip(matrices, vectors, drops, copies[0], strict=True):
        kept = columns[:, dropped:].astype(matrices.dtype)
        if dropped == 0:
            out[...] = matrix
        elif left:
            np.matmul(kept, kept.T @ matrix, out=out)
        else:
            np.matmul(matrix @ kept, kept.T, out=out)
    return copies, np.array([[[order - dropped for dropped in drops]]], np.intp)


def _drops(
    spectra: list[NDArray[np.float64]], energy: float, options: LowRankOptions, other_side: int
) -> list[int] | None:
    """How many singular values each matrix loses, from its λ, ascending; None if in doubt."""
    squared, nearest = options.energy_of == "sigma_squared", options.rank_rule == "nearest"
    weights = []
    for values in spectra:
        positive = np.maximum(values, 0)
        weights.append(positive if squared else np.sqrt(positive))
    bounds = [_coarse_bound(w, squared, other_side) for w in weights]
    for closely in (False, True):
        if closely:
            if squared:  # the coarse bound is as sharp as any
                return None
            bounds = [_fine_bound(sigma, other_side) for sigma in weights]
        if options.channels == "shared" and len(weights) > 1:
            totals = [float(w.sum()) for w in weights]
            if min(totals) <= 2 * max(bounds):
                return None
            shares = [w / total for w, total in zip(weights, totals, strict=True)]
            mean = np.mean(shares, axis=0)
            error = sum(b / (t - b) for b, t in zip(bounds, totals, strict=True)) / len(weights)
            found = [_dropped(mean, energy, error, nearest)] * len(weights)
        else:
            found = [_dropped(w, energy, b, nearest) for w, b in zip(weights, bounds, strict=True)]
        drops = [dropped for dropped in found if dropped is not None]
        if len(drops) == len(weights):
            return drops
    return None


def _dropped(
    weights: NDArray[np.float64], energy: float, error: float, nearest: bool
) -> int | None:
    """How many thresholds are below the limit; None if the next is within the error of it."""
    thresholds = weights.cumsum()
    total = float(thresholds[-1])
    limit = (1 - energy) * total
    if nearest:
        thresholds[:-1] -= 0.5 * weights[:-1]
    dropped = int(thresholds.searchsorted(limit - error))
    return dropped if dropped < len(weights) and thresholds[dropped] > limit + error else None


def _coarse_bound(weights: NDArray[np.float64], squared: bool, other_side: int) -> float:
    """Of `_fine_bound`, from σ_1 alone: no bound of one σ exceeds ``√δ + n·u·σ_1``.

    For squares, ``δ + (2 + n·u)·n·u·σ_1²`` is what λ and the square of an SVD's σ can differ by.
    """
    order, largest = len(weights), float(weights[-1])
    if squared:
        return order * order * _UNIT_ROUNDOFF * (11 + other_side) * largest
    root = math.sqrt(_UNIT_ROUNDOFF * order * (4 + other_side))
    return order * (root + 5 * order * _UNIT_ROUNDOFF) * largest


def _fine_bound(sigma: NDArray[np.float64], other_side: int) -> float:
    """By how much any tail can be wrong: the sum of `singular_value_bounds`, and its rounding."""
    error = float(singular_value_bounds(sigma[::-1], other_side).sum())
    return error + 4 * len(sigma) * _UNIT_ROUNDOFF * float(sigma.sum())
