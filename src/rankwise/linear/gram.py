"""Sufficient statistics of linear least squares: Gram matrix and cross products, in one pass.

Blocks are cut at fixed places and each tile of ``G`` is summed in one order, so the result does
not depend, to the last bit, on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rankwise._arrays import BLOCK, Targets, blocks, part_rows
from rankwise._threads import blas_threads, in_threads, one_blas_thread, thread_pool
from rankwise.cluster import Fold, elsewhere
from rankwise.cluster.tree import sum_of

EPS = float(np.finfo(np.float64).eps)
"""Relative rounding of float64."""

_TILE = 512

_CHEAP = 2e10
"""Products under ``n·m²`` of this run in float64 whatever the features: about a second."""

_FEW = 4
"""So do those of at most so many samples a feature: no more work than the eigendecomposition that
follows, and near interpolation every digit counts."""

Features = Callable[[slice], np.ndarray]
"""Gives the features ``(n_block, m)`` of a slice of the samples; where it has an attribute
``row_bytes``, that is what it needs for a row of them."""


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
    max_rank : int
        Directions that ``Φ`` can have at most: samples, less one where their mean was taken off.
    feature_eps : float, optional
        Relative rounding of ``Φ`` itself. Default: float64's.
    """

    gram: Float[np.ndarray, "m m"]
    cross: Float[np.ndarray, "m K"]
    targets_squared: float
    n: int | float
    eps: float
    max_rank: int
    feature_eps: float = EPS

    def __add__(self, other: GramStatistics) -> GramStatistics:
        return GramStatistics(
            self.gram + other.gram,
            self.cross + other.cross,
            self.targets_squared + other.targets_squared,
            self.n + other.n,
            max(self.eps, other.eps),
            self.max_rank + other.max_rank,
            max(self.feature_eps, other.feature_eps),
        )

    @property
    def rounding(self) -> float:
        """Eigenvalue of ``G`` that rounding could have made, as a share of the largest.

        Of float64 sums ``m·ε``; of the products, whose errors are independent, ``ε/√m``; and of
        the features ``max(n, m)·ε²``: rounding of ``n·m`` numbers has singular values of about
        ``ε·√max(n, m)`` times their size.
        """
        m = len(self.gram)
        features = max(self.max_rank, m) * self.feature_eps**2
        return max(m * EPS, self.eps / np.sqrt(m), features)

    def of_columns(self, columns: Int[np.ndarray, " c"]) -> GramStatistics:
        """The statistics of some of the features."""
        gram = self.gram[np.ix_(columns, columns)]
        return replace(self, gram=gram, cross=self.cross[columns])


def accumulate_gram(
    features: Features,
    targets: Targets,
    *,
    weights: Float[np.ndarray, "n"] | None = None,
    workers: int = 1,
    block_size: int = BLOCK,
    n_whole: int | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> GramStatistics:
    """One pass over the samples, here or on the surrounding ``rankwise.cluster``.

    Blocks are leaves of the tree of `rankwise.cluster.tree`, so both give the same bits.

    Parameters
    ----------
    features : callable
        ``features(slice) -> (n_block, m)``, float32 or float64. It's called for a part of a
        block in each of `workers` threads.
    targets : array of shape (n, K), or OneHot
    weights : array of shape (n,), optional
        How often each sample counts; default once.
    workers : int
        Threads; each runs single-threaded BLAS on its own tiles. Any number gives the same bits.
    block_size : int
        Samples a block; bounds the memory at ``block_size·m`` numbers beside a few ``G``. Another
        size changes the result by rounding only.
    n_whole : int, optional
        Samples of all shards, where these are one: all then compute in the same precision.
        Default: these samples.
    advance : callable
        Told the number of samples done, for a progress bar.
    """
    n = len(targets)
    if n == 0:
        raise ValueError("the output layer needs at least one sample, got none")
    leaves = list(blocks(n, block_size))
    whole = n if n_whole is None else n_whole
    common: tuple[Any, ...] = (features, targets, weights, whole)
    away = elsewhere()
    if away is not None:
        total = away.tree(_leaf, leaves, add, common, in_rows(advance, leaves))
    else:
        fold = Fold(add)
        with thread_pool(workers) as pool:
            for block in leaves:
                fold.push(_block_gram(features, targets, weights, whole, block, pool))
                advance(block.stop - block.start)
        total = fold.total()
    # What comes from elsewhere may be read-only.
    gram = total.gram if total.gram.flags.writeable else total.gram.copy()
    lower = np.tril_indices(len(gram), -1)
    gram[lower] = gram.T[lower]
    return replace(total, gram=gram, n=n if weights is None else float(np.sum(weights)))


def sum_in_threads(
    leaf: Callable[[slice], Any],
    leaves: Sequence[slice],
    add: Callable[[Any, Any], Any],
    told: Callable[[int], object],
) -> Any:
    """The sum of a function of each block, as a cluster's tasks have it: all on one core each.

    Parameters
    ----------
    leaf : callable
        Of a block of rows.
    leaves : sequence of slice
    add : callable
    told : callable
        Told the number of blocks done.
    """
    threads = blas_threads()

    def one_by_one() -> Iterator[Any]:
        for found in in_threads(leaf, leaves, threads):
            told(1)
            yield found

    with one_blas_thread():
        return sum_of(one_by_one(), add)


def in_rows(advance: Callable[[int], object], leaves: Sequence[slice]) -> Callable[[int], object]:
    """Tell samples where leaves are told, from the first on."""
    sizes = iter([leaf.stop - leaf.start for leaf in leaves])

    def told(done: int) -> None:
        advance(sum(size for _, size in zip(range(done), sizes, strict=False)))

    return told


def _leaf(common: tuple[Any, ...], block: slice) -> GramStatistics:
    with thread_pool(1) as pool:
        features, targets, weights, n_whole = common
        return _block_gram(features, targets, weights, n_whole, block, pool)


def _block_gram(
    features: Features,
    targets: Targets,
    weights: np.ndarray | None,
    n_whole: int,
    block: slice,
    pool: ThreadPoolExecutor,
) -> GramStatistics:
    """The statistics of one block, of ``ΦᵀΦ`` the upper triangle alone."""
    phi = np.concatenate(list(pool.map(features, parts_of(features, block))))
    tau = targets[block].astype(np.float64)
    n, m = phi.shape
    feature_eps = float(np.finfo(phi.dtype).eps)
    if n_whole * m**2 < _CHEAP or n_whole <= _FEW * m:
        phi = phi.astype(np.float64)
    if weights is not None:
        roots = np.sqrt(weights[block])[:, None]
        phi, tau = phi * roots.astype(phi.dtype), tau * roots
    gram = np.zeros((m, m))
    _add_tiles(gram, phi, pool)
    cross = phi.T @ tau if phi.dtype == np.float64 else phi.T.astype(np.float64) @ tau
    squared, eps = float(np.sum(tau**2)), float(np.finfo(phi.dtype).eps)
    return GramStatistics(gram, cross, squared, n, eps, n, feature_eps)


def parts_of(features: Features, block: slice) -> list[slice]:
    """What of a block features are asked for at a time: bounded by bytes, whatever an image is."""
    size = part_rows(getattr(features, "row_bytes", 0))
    return [
        slice(block.start + part.start, block.start + part.stop)
        for part in blocks(block.stop - block.start, size)
    ]


def _add_tiles(
    gram: Float[np.ndarray, "m m"], phi: Float[np.ndarray, "n m"], pool: ThreadPoolExecutor
) -> None:
    """Write the upper triangle of ``φᵀφ``, one column panel a task, the tallest first."""
    m = phi.shape[1]

    def panel(columns: slice) -> None:
        rows = slice(0, columns.stop)
        gram[rows, columns] = phi[:, rows].T @ phi[:, columns]

    list(pool.map(panel, reversed(list(blocks(m, _TILE)))))
