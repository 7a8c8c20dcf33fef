"""One small image at a time, as pipelines hand them over: the least number of array operations.

The same choices as `rankwise.lowrank._matrices`, for the common case: one energy, each matrix with
the first rank that reaches it. Calls into numpy, not sums, are what an image of 28×28 costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._eigen import SMALL, products
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.options import LowRankOptions

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
    `rankwise.lowrank.ranks.singular_value_bounds`.

    Returns
    -------
    copies : ndarray, (1, m, H, W)
    ranks : ndarray of int, (1, 1, m)
    """
    _, height, width = matrices.shape
    left = height <= width
    order, other_side = (height, width) if left else (width, height)
    values, vectors = np.linalg.eigh(products(matrices, left, integer_limit))
    sigma = np.sqrt(np.maximum(values, 0))  # ascending
    largest = sigma[:, -1:]
    delta = _UNIT_ROUNDOFF * (4 * order + other_side * order) * largest * largest
    error = (delta / np.maximum(sigma, np.sqrt(delta) + 1e-300)).sum(axis=1, keepdims=True)
    error += order * order * _UNIT_ROUNDOFF * largest
    tails = sigma.cumsum(axis=1)
    off = tails - (1 - energy) * tails[:, -1:]
    if energy == 1 or (np.abs(off) <= error).any():
        return None
    dropped = (off < 0).sum(axis=1)
    vectors = vectors.astype(matrices.dtype)
    kept = np.arange(order) >= dropped[:, None]
    if left:
        weights = vectors.transpose(0, 2, 1) @ matrices
        weights *= kept[:, :, None]
        copies = vectors @ weights
    else:
        weights = matrices @ vectors
        weights *= kept[:, None, :]
        copies = weights @ vectors.transpose(0, 2, 1)
    return copies[None], (order - dropped)[None, None]
