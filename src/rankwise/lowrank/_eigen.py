"""Symmetric eigenproblems cut to what a low-rank approximation needs: all values, few vectors.

    G = A Aᵀ = Q T Qᵀ,    T = Z Λ Zᵀ,    u_i = Q z_i

`T` is tridiagonal. Values and `T` are in float64, so that the rank is right; the wanted `z_i` come
from twisted factorisations of `T − λ_i I`, all of them side by side; `Q` is applied to those alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

# Columns of a block of Householder vectors. In DSYTRD 8 beats LAPACK's 32 at the orders of images
# (100: 137 against 167 µs; 224: 854 against 960 µs, OpenBLAS 0.3.31); applying them, 48 is best.
_REDUCTION_BLOCK = 8
_REFLECTOR_BLOCK = 48
_UNBLOCKED_ORDER = 64  # up to this order one call of xORMQR beats products of blocks

_FLOAT32_INTEGERS = 2**24  # integers below are exact in float32
_SMALLEST_SQUARE = 1e-290  # keeps 0/0 out of the pivots of a matrix that splits

# A vector of T is accepted if its error, weighted by its share σ_i/σ_1 in the image, is below this.
_VECTOR_TOLERANCE = 1e-7


def gram(matrix: NDArray, left: bool, integer_limit: int | None) -> NDArray[np.float64]:
    """Lower triangle of ``A Aᵀ`` (`left`) or ``Aᵀ A``, in Fortran order; the rest is zero.

    `integer_limit` is the largest absolute value where the entries are integers: their products
    are then summed exactly by float32, at half the price, as long as the sums stay below 2²⁴.
    """
    inner = matrix.shape[1] if left else matrix.shape[0]
    if integer_limit is not None and inner * integer_limit**2 < _FLOAT32_INTEGERS:
        product = blas.ssyrk(1.0, matrix.T, trans=left, lower=1)
        return product.astype(np.float64, order="F")
    return blas.dsyrk(1.0, matrix.T.astype(np.float64, copy=False), trans=left, lower=1)


class Tridiagonal:
    """``G = Q T Qᵀ``: the diagonals of `T`, its eigenvalues, and `Q` as Householder vectors.

    Parameters
    ----------
    gram_matrix : ndarray of float64, (n, n), Fortran order
        Symmetric; the lower triangle is read, the strict upper one must be zero. Overwritten.

    Attributes
    ----------
    diagonal, off_diagonal : ndarray of float64, (n,) and (n - 1,)
    eigenvalues : ndarray of float64, (n,)
        Descending.
    """

    def __init__(self, gram_matrix: NDArray[np.float64]) -> None:
        order = gram_matrix.shape[0]
        self._reflectors, self.diagonal, self.off_diagonal, self._tau, _ = lapack.dsytrd(
            gram_matrix, lower=1, lwork=_REDUCTION_BLOCK * order, overwrite_a=1
        )
        if order == 1:
            self.eigenvalues = self.diagonal.copy()
            return
        values, info = lapack.dsterf(self.diagonal, self.off_diagonal)
        if info:
            values = np.linalg.eigvalsh(self._dense())
        self.eigenvalues = values[::-1]

    def _dense(self) -> NDArray[np.float64]:
        off = self.off_diagonal
        return np.diag(self.diagonal) + np.diag(off, 1) + np.diag(off, -1)

    def dense_vectors(self, wanted: slice) -> NDArray[np.float64]:
        """Eigenvectors of `T` by divide and conquer, descending, the columns `wanted`."""
        if self.diagonal.size == 1:
            return np.ones((1, 1))[:, wanted]
        _, vectors, info = lapack.dstevd(self.diagonal, self.off_diagonal)
        if info:
            vectors = np.linalg.eigh(self._dense())[1]
        return np.ascontiguousarray(vectors[:, ::-1][:, wanted])

    def rotate(self, vectors: NDArray) -> NDArray:
        """``Q z`` for the columns of `vectors` (n, d), in their dtype."""
        order, count = vectors.shape
        if order == 1 or count == 0:
            return vectors
        if order <= _UNBLOCKED_ORDER:
            multiply = lapack.sormqr if vectors.dtype == np.float32 else lapack.dormqr
            rotated = np.empty_like(vectors, order="F")
            rotated[0] = vectors[0]
            rotated[1:] = multiply(
                "L", "N", self._reflectors[1:, :-1], self._tau, vectors[1:], lwork=_LWORK
            )[0]
            return rotated
        return self._rotate_in_blocks(vectors.copy())

    def _rotate_in_blocks(self, vectors: NDArray) -> NDArray:
        # A block of reflectors with vectors V (columns) is I − V S Vᵀ, where
        # S⁻¹ = strict upper triangle of VᵀV + diag(1/τ)   (Puglisi 1992).
        order = vectors.shape[0]
        rows = self._reflectors.T.astype(vectors.dtype)  # row j holds reflector j, past column j
        flat = rows.reshape(-1)
        flat[:: order + 1] = 0
        flat[1 :: order + 1] = 1
        solve = lapack.strtrs if vectors.dtype == np.float32 else lapack.dtrtrs
        used = np.where(self._tau == 0, 1.0, self._tau)
        for start in range((order - 2) // _REFLECTOR_BLOCK * _REFLECTOR_BLOCK, -1, -_REFLECTOR_BLOCK):
            stop = min(start + _REFLECTOR_BLOCK, order - 1)
            block = rows[start:stop, start + 1 :]
            block[self._tau[start:stop] == 0] = 0  # a reflector that does nothing
            inverse = block @ block.T
            inverse.reshape(-1)[:: stop - start + 1] = 1 / used[start:stop]
            target = vectors[start + 1 :]
            target -= block.T @ solve(inverse.T, block @ target, lower=1, trans=1)[0]
        return vectors


_LWORK = 64 * _UNBLOCKED_ORDER + 65 * 64  # what xORMQR asks for at the orders it is used for


def twisted_vectors(
    diagonals: NDArray[np.float64],
    off_diagonals: NDArray[np.float64],
    values: NDArray[np.float64],
    owners: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvectors of many tridiagonal matrices at once, one column for each given eigenvalue.

    With ``T − λI = L D⁺ Lᵀ = U D⁻ Uᵀ`` and ``γ_i = D⁺_i + D⁻_i − (T_ii − λ)``, the vector ``z`` with
    ``z_r = 1`` at ``r = argmin |γ_i|`` that these factors give solves ``(T − λI) z = γ_r e_r``
    (Fernando 1997), so ``|γ_r| / ‖z‖`` is the norm of its residual.

    Parameters
    ----------
    diagonals, off_diagonals : ndarray, (m, n) and (m, n - 1)
        The matrices.
    values : ndarray, (lanes,)
        Eigenvalues, accurate to rounding.
    owners : ndarray of int, (lanes,)
        The matrix that each value belongs to.

    Returns
    -------
    vectors : ndarray, (n, lanes)
        Of unit norm; not finite where a pivot vanished.
    residuals : ndarray, (lanes,)
        ``‖(T − λI) z‖``.
    """
    order = diagonals.shape[1]
    shifted = diagonals.T[:, owners] - values
    off = off_diagonals.T[:, owners]
    # Pivots from the top [:, 0] and from the bottom [:, 1], each a recurrence over rows.
    pivots = np.empty((order, 2, values.size))
    pivots[:, 0] = shifted
    pivots[:, 1] = shifted[::-1]
    squares = np.empty((order - 1, 2, values.size))
    np.maximum(off * off, _SMALLEST_SQUARE, out=squares[:, 0])
    squares[:, 1] = squares[::-1, 0]
    with np.errstate(all="ignore"):
        quotient = np.empty((2, values.size))
        previous = pivots[0]
        for square, row in zip(squares, pivots[1:], strict=True):
            np.divide(square, previous, quotient)
            np.subtract(row, quotient, row)
            previous = row
        top, bottom = pivots[:, 0], pivots[::-1, 1]
        gamma = shifted
        np.subtract(top, gamma, gamma)
        gamma += bottom
        np.abs(gamma, gamma)
        twist = gamma.argmin(axis=0)
        least = gamma[twist, np.arange(values.size)]
        # z_{i+1} = −(e_i / D⁻_{i+1}) z_i below the twist, z_i = −(e_i / D⁺_i) z_{i+1} above it.
        rows = np.arange(1, order)[:, None]
        np.negative(off, off)
        factors = squares
        np.divide(off, bottom[1:], factors[:, 0])
        np.copyto(factors[:, 0], 1.0, where=rows <= twist)
        np.divide(off, top[:-1], factors[::-1, 1])
        np.copyto(factors[::-1, 1], 1.0, where=rows > twist)
        np.multiply.accumulate(factors, axis=0, out=factors)
        vectors = gamma
        vectors[0] = 1
        vectors[1:] = factors[:, 0]
        vectors[:-1] *= factors[::-1, 1]
        norms = np.sqrt(np.einsum("ij,ij->j", vectors, vectors))
        vectors /= norms
        return vectors, least / norms


def wanted_vectors(
    reductions: list[Tridiagonal], wanted: list[slice], dtype: np.dtype
) -> list[NDArray]:
    """Orthonormal eigenvectors ``Q z_i``, (n, d) each, of `reductions` at the places `wanted`.

    Twisted factorisations where they pay and are accurate, divide and conquer elsewhere: repeated
    singular values, vanishing pivots, float64 images.
    """
    order = reductions[0].diagonal.size
    counts = [w.stop - w.start for w in wanted]
    found: list[NDArray | None] = [None] * len(reductions)
    # Costs in µs: the recurrences over n rows, against one divide and conquer for each matrix.
    pays = 0.02 * order**2 * sum(c > 0 for c in counts) > 60 + 1.2 * order
    if dtype == np.float32 and pays:
        found = _accepted_twisted(reductions, wanted, counts)
    return [
        r.rotate((r.dense_vectors(w) if z is None else z).astype(dtype))
        for r, w, z in zip(reductions, wanted, found, strict=True)
    ]


def _accepted_twisted(
    reductions: list[Tridiagonal], wanted: list[slice], counts: list[int]
) -> list[NDArray | None]:
    values = np.stack([r.eigenvalues for r in reductions])
    scale = np.maximum(values[:, :1], np.finfo(float).tiny)
    gaps = np.full((values.shape[0], values.shape[1] + 1), np.inf)
    gaps[:, 1:-1] = values[:, :-1] - values[:, 1:]
    gaps = np.minimum(gaps[:, 1:], gaps[:, :-1])
    pick = [values[i, w] for i, w in enumerate(wanted)]
    owners = np.repeat(np.arange(len(reductions)), counts)
    vectors, residuals = twisted_vectors(
        np.stack([r.diagonal for r in reductions]),
        np.stack([r.off_diagonal for r in reductions]),
        np.concatenate(pick),
        owners,
    )
    starts = np.concatenate([[0], np.cumsum(counts)])
    accepted: list[NDArray | None] = []
    for i, place in enumerate(wanted):
        lanes = slice(starts[i], starts[i + 1])
        share = np.sqrt(np.maximum(values[i, place], 0) / scale[i])
        rounding = np.finfo(float).eps * scale[i]
        with np.errstate(all="ignore"):
            # sin of the angle to the true vector ≤ residual / gap (Davis and Kahan)
            error = share * (residuals[lanes] + rounding) / gaps[i, place]
        accepted.append(vectors[:, lanes] if (error < _VECTOR_TOLERANCE).all() else None)
    return accepted
