"""Symmetric eigenproblems cut to what a low-rank approximation needs: all values, few vectors.

    G = A Aᵀ = Q T Qᵀ,    T = Z Λ Zᵀ,    u_i = Q z_i

`T` is tridiagonal. Values and `T` are in float64, so that the rank is right; the wanted `z_i` come
from twisted factorisations (`_twisted`); `Q` is applied to those alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from rankwise.lowrank._twisted import twisted_vectors

# Columns of a block of Householder vectors. In DSYTRD 8 beats LAPACK's 32 at the orders of images
# (100: 137 against 167 µs; 224: 854 against 960 µs, OpenBLAS 0.3.31); applying them, about 56.
_REDUCTION_BLOCK = 8
_REFLECTOR_BLOCK = 56
SMALL = 64  # up to this order, batched Gram products and one call of xORMQR beat blocks
_ORMQR_WORK = 64 * SMALL + 65 * 64

_FLOAT32_INTEGERS = 2**24  # integers below are exact in float32

# A vector of T is accepted if its error, weighted by its share σ_i/σ_1 in the image, is below this.
_VECTOR_TOLERANCE = 1e-7


def few_and_small(count: int, order: int) -> bool:
    """Whether one batched eigenproblem is cheaper than the steps of `Tridiagonal`."""
    return order <= SMALL and not _twisted_pays(count, order)


def _twisted_pays(count: int, order: int) -> bool:
    # Costs in µs: the recurrences over n rows, against one divide and conquer for each matrix.
    return 0.02 * order**2 * count > 60 + 1.2 * order


def dense(
    matrices: NDArray, left: bool, integer_limit: int | None
) -> tuple[NDArray[np.float64], NDArray]:
    """Eigenvalues (matrices, n) and all eigenvectors, as columns (matrices, n, n), descending."""
    values, vectors = np.linalg.eigh(products(matrices, left, integer_limit))
    return values[:, ::-1], vectors[:, :, ::-1].astype(matrices.dtype)


def grams(matrices: NDArray, left: bool, integer_limit: int | None) -> list[NDArray[np.float64]]:
    """``A Aᵀ`` (`left`) or ``Aᵀ A`` of each matrix, in Fortran order, the lower triangle at least.

    `integer_limit` is the largest absolute value where the entries are integers: their products
    are then summed exactly by float32, at half the price, as long as the sums stay below 2²⁴.
    Above the diagonal there are zeros for orders beyond `SMALL`.
    """
    if min(matrices.shape[1:]) <= SMALL:
        return [product.T for product in products(matrices, left, integer_limit)]
    exact = _exactly_summed(matrices, integer_limit)
    multiply = blas.ssyrk if exact.dtype == np.float32 else blas.dsyrk
    return [
        multiply(1.0, matrix.T, trans=left, lower=1).astype(np.float64, order="F", copy=False)
        for matrix in exact
    ]


def products(matrices: NDArray, left: bool, integer_limit: int | None) -> NDArray[np.float64]:
    """The Gram matrices of `grams`, whole, in one array (matrices, n, n)."""
    exact = _exactly_summed(matrices, integer_limit)
    other = exact.transpose(0, 2, 1)
    return (exact @ other if left else other @ exact).astype(np.float64, copy=False)


def _exactly_summed(matrices: NDArray, integer_limit: int | None) -> NDArray:
    if integer_limit is not None:
        inner = max(matrices.shape[1:])
        if inner * integer_limit**2 < _FLOAT32_INTEGERS:
            return matrices
    return matrices.astype(np.float64, copy=False)


class Tridiagonal:
    """``G = Q T Qᵀ``: the diagonals of `T`, its eigenvalues, and `Q` as Householder vectors.

    Parameters
    ----------
    gram : ndarray of float64, (n, n), Fortran order
        As `grams` makes it; overwritten.

    Attributes
    ----------
    diagonal, off_diagonal : ndarray of float64, (n,) and (n - 1,)
    eigenvalues : ndarray of float64, (n,)
        Ascending.
    """

    def __init__(self, gram: NDArray[np.float64]) -> None:
        order = gram.shape[0]
        self._reflectors, self.diagonal, self.off_diagonal, self._tau, _ = lapack.dsytrd(
            gram, lower=1, lwork=_REDUCTION_BLOCK * order, overwrite_a=1
        )
        if order == 1:
            self.off_diagonal = self.off_diagonal[:0]
            self.eigenvalues = self.diagonal.copy()
            return
        self.eigenvalues, info = lapack.dsterf(self.diagonal, self.off_diagonal)
        if info:
            self.eigenvalues = np.linalg.eigvalsh(self._dense())

    def _dense(self) -> NDArray[np.float64]:
        off = self.off_diagonal
        return np.diag(self.diagonal) + np.diag(off, 1) + np.diag(off, -1)

    def dense_vectors(self) -> NDArray[np.float64]:
        """All eigenvectors of `T` by divide and conquer, as columns, in descending order."""
        if self.diagonal.size == 1:
            return np.ones((1, 1))
        _, vectors, info = lapack.dstevd(self.diagonal, self.off_diagonal)
        if info:
            vectors = np.linalg.eigh(self._dense())[1]
        return vectors[:, ::-1]

    def rotate(self, vectors: NDArray) -> None:
        """Replace each column `z` of `vectors` (n, d) by ``Q z``, in their dtype."""
        order, count = vectors.shape
        if order == 1 or count == 0:
            return
        if order > SMALL:
            self._rotate_in_blocks(vectors)
            return
        multiply = lapack.sormqr if vectors.dtype == np.float32 else lapack.dormqr
        vectors[1:] = multiply(
            "L", "N", self._reflectors[1:, :-1], self._tau, vectors[1:], lwork=_ORMQR_WORK
        )[0]

    def _rotate_in_blocks(self, vectors: NDArray) -> None:
        # A block of reflectors with vectors V (columns) is I − V S Vᵀ, where
        # S⁻¹ = strict upper triangle of VᵀV + diag(1/τ)   (Puglisi 1992).
        order = vectors.shape[0]
        reflectors = self._reflectors.T.astype(vectors.dtype)  # row j: reflector j, past column j
        flat = reflectors.reshape(-1)
        flat[:: order + 1] = 0
        flat[1 :: order + 1] = 1
        scales = self._tau
        if not scales.all():  # some reflectors do nothing
            reflectors[:-1][scales == 0] = 0
            scales = np.where(scales == 0, 1.0, scales)
        inverse_scales = 1 / scales
        solve = lapack.strtrs if vectors.dtype == np.float32 else lapack.dtrtrs
        width = -(-(order - 1) // max(1, round((order - 1) / _REFLECTOR_BLOCK)))
        for start in reversed(range(0, order - 1, width)):
            stop = min(start + width, order - 1)
            block = reflectors[start:stop, start + 1 :]
            inverse = block @ block.T
            inverse.reshape(-1)[:: stop - start + 1] = inverse_scales[start:stop]
            target = vectors[start + 1 :]
            target -= block.T @ solve(inverse.T, block @ target)[0]


def wanted_vectors(
    reductions: list[Tridiagonal],
    starts: NDArray[np.intp],
    stops: NDArray[np.intp],
    dtype: np.dtype,
) -> NDArray:
    """Orthonormal eigenvectors ``Q z_i`` as columns, (matrices, n, d), largest value first.

    Matrix m has those at the places from ``starts[m]`` up to ``stops[m]``; columns after them hold
    finite numbers without meaning. Twisted factorisations where they pay and are accurate, divide
    and conquer elsewhere: repeated singular values, vanishing pivots, float64 images.
    """
    order = reductions[0].diagonal.size
    counts = stops - starts
    widest = int(counts.max())
    columns = np.zeros((len(reductions), order, widest), dtype)
    if widest == 0:
        return columns
    accepted = np.zeros(len(reductions), bool)
    if dtype == np.float32 and _twisted_pays(len(reductions), order):
        places = starts[:, None] + np.arange(widest)
        found, good = _twisted(reductions, np.minimum(places, order - 1))
        columns[...] = found
        if good.all():
            accepted[:] = True
        else:
            columns.transpose(0, 2, 1)[~good] = 0
            accepted[:] = (good | (places >= stops[:, None])).all(axis=1)
    for m, reduction in enumerate(reductions):
        mine = columns[m, :, : counts[m]]
        if not accepted[m]:
            mine[...] = reduction.dense_vectors()[:, starts[m] : stops[m]]
        reduction.rotate(mine)
    return columns


def _twisted(
    reductions: list[Tridiagonal], places: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Vectors (matrices, n, d) and whether each is accurate enough, (matrices, d)."""
    values = np.stack([r.eigenvalues for r in reductions])[:, ::-1]
    gaps = np.full((len(values), values.shape[1] + 1), np.inf)
    gaps[:, 1:-1] = values[:, :-1] - values[:, 1:]
    gaps = np.minimum(gaps[:, 1:], gaps[:, :-1])
    chosen = np.take_along_axis(values, places, axis=1)
    vectors, residuals = twisted_vectors(
        np.stack([r.diagonal for r in reductions]),
        np.stack([r.off_diagonal for r in reductions]),
        chosen,
    )
    scale = np.maximum(values[:, :1], np.finfo(float).tiny)
    with np.errstate(all="ignore"):
        # sin of the angle to the true vector ≤ residual / gap (Davis and Kahan)
        share = np.sqrt(np.maximum(chosen, 0) / scale)
        angle = (residuals + np.finfo(float).eps * scale) / np.take_along_axis(gaps, places, axis=1)
        return vectors, share * angle < _VECTOR_TOLERANCE
