"""Low-rank copies of stacks of matrices on the CPU, several ranks from one decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._eigen import Tridiagonal, gram, wanted_vectors
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
    matrices: NDArray, group: int, wanted: Wanted, options: LowRankOptions, integer_limit: int | None
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
    reductions = [Tridiagonal(gram(matrix, left, integer_limit)) for matrix in matrices]
    sigma = np.sqrt(np.maximum(np.stack([r.eigenvalues for r in reductions]), 0))
    order = sigma.shape[-1]

    def exact(image: int) -> NDArray[np.float64]:
        chosen = matrices[image * group : (image + 1) * group].astype(np.float64)
        return np.linalg.svd(chosen, compute_uv=False)

    grouped = sigma.reshape(-1, group, order)
    ranks = choose_ranks(grouped, max(height, width), wanted, options, exact)
    flat = ranks.reshape(len(ranks), count)
    negligible = sigma[:, :1] * (1e-7 if matrices.dtype == np.float32 else 1e-15)
    needed = (sigma > negligible).sum(axis=1)
    spans = [_span(flat[:, i], int(needed[i]), order) for i in range(count)]
    vectors = wanted_vectors(reductions, [s for s, _ in spans], matrices.dtype)
    rebuilt = np.empty((len(ranks), *matrices.shape), matrices.dtype)
    for i, (span, kept) in enumerate(spans):
        _project(matrices[i], vectors[i], left, span, kept, flat[:, i], rebuilt[:, i])
    return rebuilt, ranks


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
    shape = (len(wanted.values), *sigma.shape)

    def spread(values: NDArray) -> NDArray:
        mean = values.mean(axis=1, keepdims=True) if options.channels == "shared" else values
        return np.broadcast_to(mean, shape)

    energies = wanted.values[..., None]
    unsure = doubtful(spread(fractions), spread(bounds), energies, options.rank_rule)
    images = np.flatnonzero(unsure.any(axis=(0, 2)))
    for image in images:
        fractions[image] = energy_fractions(exact(int(image)), options.energy_of)
    return ranks_from_fractions(spread(fractions), energies, options.rank_rule)


def _span(ranks: NDArray[np.intp], needed: int, order: int) -> tuple[slice, bool]:
    """The smaller of the kept and the dropped subspace that serves all ranks below n."""
    partial = ranks[ranks < order]
    if partial.size == 0:
        return slice(0, 0), False
    most, least = int(partial.max()), int(partial.min())
    if most <= needed - least:
        return slice(0, most), True
    return slice(least, max(needed, least)), False


def _project(
    matrix: NDArray,
    vectors: NDArray,
    left: bool,
    span: slice,
    kept: bool,
    ranks: NDArray[np.intp],
    out: NDArray,
) -> None:
    # kept:     A_k = U_k U_kᵀ A                dropped: A_k = A − U_d U_dᵀ A, d = k+1…
    # (right:   A_k = A V_k V_kᵀ), each target adding to, or taking from, the one before it.
    weights = vectors.T @ matrix if left else matrix @ vectors

    def part(start: int, stop: int) -> NDArray:
        low, high = max(start - span.start, 0), max(min(stop, span.stop) - span.start, 0)
        if left:
            return vectors[:, low:high] @ weights[low:high]
        return weights[:, low:high] @ vectors[:, low:high].T

    order = min(matrix.shape)
    targets = np.argsort(ranks, kind="stable")
    previous: NDArray | None = None
    at = 0 if kept else order
    for target in targets if kept else targets[::-1]:
        rank = int(ranks[target])
        if rank >= order:
            out[target] = matrix
            continue
        base = previous if previous is not None else (None if kept else matrix)
        if rank == at and previous is not None:
            out[target] = previous
        elif base is None:
            out[target] = part(0, rank)
        elif kept:
            np.add(base, part(at, rank), out=out[target])
        else:
            np.subtract(base, part(rank, at), out=out[target])
        previous, at = out[target], rank
