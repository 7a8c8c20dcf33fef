"""Low-rank copies of stacks of matrices on the CPU, several ranks from one decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._eigen import (
    Tridiagonal,
    dense,
    few_and_small,
    grams,
    wanted_vectors,
)
from rankwise.lowrank.options import LowRankOptions
from rankwise.lowrank.ranks import (
    doubtful,
    energy_fractions,
    fraction_bounds,
    ranks_from_fractions,
    singular_value_bounds,
)


@dataclass(frozen=True)
class Wanted:
    """What is asked of each image: energies or ranks, (number of targets, images)."""

    values: NDArray
    are_ranks: bool = False

    def of(self, images: slice) -> Wanted:
        """The part for some of the images."""
        return Wanted(self.values[:, images], self.are_ranks)


def rebuild_matrices(
    matrices: NDArray,
    group: int,
    wanted: Wanted,
    options: LowRankOptions,
    integer_limit: int | None,
) -> tuple[NDArray, NDArray[np.intp]]:
    """``A_k`` for every matrix and target.

    Parameters
    ----------
    matrices : ndarray of float32 or float64, (images·group, height, width)
        Contiguous; `group` matrices in a row belong to one image.
    wanted : Wanted, (targets, images)
    integer_limit : int or None
        Largest absolute value where the entries are integers.

    Returns
    -------
    rebuilt : ndarray, (targets, images·group, height, width)
    ranks : ndarray of int, (targets, images, group)
        Equal to those of a float64 SVD.
    """
    count, height, width = matrices.shape
    left = height <= width
    order = min(height, width)

    def exact(image: int) -> NDArray[np.float64]:
        chosen = matrices[image * group : (image + 1) * group].astype(np.float64)
        return np.asarray(np.linalg.svd(chosen, compute_uv=False), np.float64)

    def ranks_of(values: NDArray[np.float64]) -> NDArray[np.intp]:
        sigma = np.sqrt(np.maximum(values, 0)).reshape(-1, group, order)
        return choose_ranks(sigma, max(height, width), wanted, options, exact)

    if few_and_small(count, order):
        values, vectors = dense(matrices, left, integer_limit)
        ranks = ranks_of(values)
        flat = ranks.reshape(-1, count)
        starts, kept = np.zeros(count, np.intp), np.ones(count, bool)
        stops = starts + order
    else:
        reductions = [Tridiagonal(gram) for gram in grams(matrices, left, integer_limit)]
        values = np.stack([r.eigenvalues for r in reductions])[:, ::-1]
        ranks = ranks_of(values)
        flat = ranks.reshape(-1, count)
        # σ below a rounding error of σ_1 add nothing, on either side of the rank.
        negligible = values[:, :1] * (1e-14 if matrices.dtype == np.float32 else 1e-30)
        starts, stops, kept = _spans(flat, (values > negligible).sum(axis=1), order)
        vectors = wanted_vectors(reductions, starts, stops, matrices.dtype)
    return _project(matrices, vectors, left, starts, stops, kept, flat), ranks


def choose_ranks(
    sigma: NDArray[np.float64],
    other_side: int,
    wanted: Wanted,
    options: LowRankOptions,
    exact: Callable[[int], NDArray[np.float64]],
) -> NDArray[np.intp]:
    """Ranks (targets, images, group) from σ (images, group, n) and, where in doubt, `exact` ones.

    `exact(image)` gives the singular values (group, n) of a float64 SVD. It is called only for
    images where a threshold lies within the error bound of σ.
    """
    order = sigma.shape[-1]
    if wanted.are_ranks:
        return np.repeat(np.minimum(wanted.values, order)[..., None], sigma.shape[1], axis=-1)
    shared = options.channels == "shared"

    def averaged(values: NDArray) -> NDArray:
        return values.mean(axis=1, keepdims=True) if shared else values

    bounds = fraction_bounds(sigma, singular_value_bounds(sigma, other_side), options.energy_of)
    fractions = energy_fractions(sigma, options.energy_of)
    energies = wanted.values[..., None]  # (targets, images, 1)
    unsure = doubtful(averaged(fractions), averaged(bounds), energies, options.rank_rule)
    if unsure.any():
        for image in np.flatnonzero(unsure.any(axis=(0, 2))):
            fractions[image] = energy_fractions(exact(int(image)), options.energy_of)
    ranks = ranks_from_fractions(averaged(fractions), energies, options.rank_rule)
    return np.repeat(ranks, sigma.shape[1], axis=2) if shared else ranks


def _spans(
    ranks: NDArray[np.intp], needed: NDArray[np.intp], order: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """For each matrix the smaller of the kept and the dropped subspace that serves all targets.

    `ranks` is (targets, matrices); a rank of n needs no subspace. `needed` counts the singular
    values that aren't negligible.
    """
    partial = ranks < order
    most = np.where(partial, ranks, 0).max(axis=0)
    least = np.where(partial, ranks, order).min(axis=0)
    dropped = np.maximum(needed - least, 0)
    kept = most <= dropped
    return np.where(kept, 0, least), np.where(kept, most, least + dropped), kept


def _project(
    matrices: NDArray,
    vectors: NDArray,
    left: bool,
    starts: NDArray[np.intp],
    stops: NDArray[np.intp],
    kept: NDArray[np.bool_],
    ranks: NDArray[np.intp],
) -> NDArray:
    # kept:    A_k = U_k U_kᵀ A          (left)    A V_k V_kᵀ        (right)
    # dropped: A_k = A − U_d U_dᵀ A                A − A V_d V_dᵀ     with d = k+1, k+2, …
    rebuilt = np.empty((len(ranks), *matrices.shape), matrices.dtype)
    order = min(matrices.shape[1:])
    turned = vectors.transpose(0, 2, 1)
    weights = turned @ matrices if left else matrices @ vectors
    places = starts[:, None] + np.arange(vectors.shape[2])
    real = places < stops[:, None]
    for out, rank in zip(rebuilt, ranks, strict=True):
        used = ((places < rank[:, None]) == kept[:, None]) & real
        some = used.any(axis=0)
        first, last = (int(some.argmax()), int(some.nonzero()[0][-1]) + 1) if some.any() else (0, 0)
        part, used = slice(first, last), used[:, first:last]
        if left:
            np.matmul(vectors[:, :, part], weights[:, part] * used[:, :, None], out=out)
        else:
            np.matmul(weights[:, :, part] * used[:, None], turned[:, part], out=out)
        for m in np.flatnonzero(~kept):
            np.subtract(matrices[m], out[m], out=out[m])
        whole = rank >= order
        if whole.any():
            out[whole] = matrices[whole]
    return rebuilt
