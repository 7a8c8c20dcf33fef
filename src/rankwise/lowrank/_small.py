"""One small image at a time, as pipelines hand them over: the least number of array operations.

The same choices as `rankwise.lowrank._matrices`, for the common case: one energy, each matrix with
the first rank that reaches it. Calls into numpy, not sums, are what an image of 28×28 costs.
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


def fits(shape: tuple[int, ...], wanted: Wanted, options: LowRankOptions) -> bool:
    """Whether `rebuild_small` serves: at most four matrices, (m, H, W), and a plain request."""
    return (
        shape[0] <= 4
        and min(shape[1:]) <= SMALL
        and wanted.values.shape == (1, 1)
        and not wanted.are_ranks
        and options.energy_of == "sigma"
        and options.rank_rule == "reach"
        and options.channels != "shared"
    )


def rebuild_small(
    matrices: NDArray, energy: float, integer_limit: int | None
) -> tuple[NDArray, NDArray[np.intp]] | None:
    """``A_k`` and k of each matrix of one image; None where a threshold is within the error.

    With the tails ``t_j = σ_n + … + σ_{n−j+1}``, the first rank that reaches the energy drops as
    many as have ``t_j ≤ (1 − energy) t_n``. No tail moves by more than the sum of the bounds of
    `rankwise.lowrank.ranks.singular_value_bounds`, of which none exceeds ``√δ + n·u·σ_1``.

    Returns
    -------
    copies : ndarray, (1, m, H, W)
    ranks : ndarray of int, (1, 1, m)
    """
    if energy == 1:
        return None
    count, height, width = matrices.shape
    left = height <= width
    order, other_side = (height, width) if left else (width, height)
    coarse = math.sqrt(_UNIT_ROUNDOFF * order * (4 + other_side)) + 5 * order * _UNIT_ROUNDOFF
    copies = np.empty((1, count, height, width), matrices.dtype)
    ranks = np.empty((1, 1, count), np.intp)
    grams = products(matrices, left, integer_limit)
    for m in range(count):
        matrix = matrices[m]
        # Symmetric, so its transpose is itself in Fortran's order, for LAPACK to overwrite.
        values, vectors, info = lapack.dsyevd(grams[m].T, lower=1, overwrite_a=1)
        if info:
            return None
        sigma = np.sqrt(np.maximum(values, 0))  # ascending
        tails = sigma.cumsum()
        limit = (1 - energy) * float(tails[-1])
        dropped = _dropped(tails, limit, order * coarse * float(sigma[-1]))
        if dropped is None:
            error = singular_value_bounds(sigma[::-1], other_side).sum()
            error += 4 * order * _UNIT_ROUNDOFF * tails[-1]
            dropped = _dropped(tails, limit, float(error))
        if dropped is None:
            return None
        ranks[0, 0, m] = order - dropped
        kept = vectors[:, dropped:].astype(matrices.dtype)
        if dropped == 0:
            copies[0, m] = matrix
        elif left:
            np.matmul(kept, kept.T @ matrix, out=copies[0, m])
        else:
            np.matmul(matrix @ kept, kept.T, out=copies[0, m])
    return copies, ranks


def _dropped(tails: NDArray[np.float64], limit: float, error: float) -> int | None:
    """How many tails are below the limit; None if the next is within the error of it."""
    dropped = int(tails.searchsorted(limit - error))
    return dropped if tails[dropped] > limit + error else None
