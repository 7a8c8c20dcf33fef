"""Low-rank copies of stacks of matrices on the CPU, several ranks from one decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._eigen import Tridiagonal, grams, wanted_vectors
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
    reductions = [Tridiagonal(gram) for gram in grams(matrices, left, integer_limit)]
    sigma = np.sqrt(np.maximum(np.stack([r.eigenvalues for r in reductions])[:, ::-1], 0))
    order = sigma.shape[-1]

    def exact(image: int) -> NDArray[np.float64]:
        chosen = matrices[image * group : (image + 1) * group].astype(np.float64)
        return np.asarray(np.linalg.svd(chosen, compute_uv=False), np.float64)

    grouped = sigma.reshape(-1, group, order)
    ranks = choose_ranks(grouped, max(height, width), wanted, options, exact)
    flat = ranks.reshape(len(ranks), count)
    negligible = sigma[:, :1] * (1e-7 if matrices.dtype == np.float32 else 1e-15)
    starts, stops, kept = _spans(flat, (sigma > negligible).sum(axis=1), order)
    vectors = wanted_vectors(reductions, starts, stops, matrices.dtype)
    return _project(matrices, vectors, left, starts, kept, flat), ranks


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
    bounds = fraction_bounds(sigma, singular_value_bounds(sigma, other_side), options.energy_of)
    fractions = energy_fractions(sigma, options.energy_of)
    targets = len(wanted.values)

    def spread(values: NDArray) -> NDArray:
        if options.channels == "shared":
            mean = values.mean(axis=1, keepdims=True)
            values = np.broadcast_to(mean, values.shape)
        return np.broadcast_to(values, (targets, *values.shape))

    energies = wanted.values[..., None]
    unsure = doubtful(spread(fractions), spread(bounds), energies, options.rank_rule)
    images = np.flatnonzero(unsure.any(axis=(0, 2)))
    for image in images:
        fractions[image] = energy_fractions(exact(int(image)), options.energy_of)
    return ranks_from_fractions(spread(fractions), energies, options.rank_rule)


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
    kept: NDArray[np.bool_],
    ranks: NDArray[np.intp],
) -> NDArray:
    # kept:    A_k = U_k U_kᵀ A          (left)    A V_k V_kᵀ        (right)
    # dropped: A_k = A − U_d U_dᵀ A                A − A V_d V_dᵀ     with d = k+1, k+2, …
    rebuilt = np.empty((len(ranks), *matrices.shape), matrices.dtype)
    order = min(matrices.shape[1:])
    turned = vectors.transpose(0, 2, 1)
    weights = vectors @ matrices if left else matrices @ turned
    places = starts[:, None] + np.arange(vectors.shape[1])
    for out, rank in zip(rebuilt, ranks, strict=True):
        used = ((places < rank[:, None]) == kept[:, None])[..., None]
        if left:
            np.matmul(turned, weights * used, out=out)
        else:
            np.matmul(weights, vectors * used, out=out)
        for m in np.flatnonzero(~kept):
            np.subtract(matrices[m], out[m], out=out[m])
        whole = rank >= order
        out[whole] = matrices[whole]
    return rebuilt
