"""Eigenvectors of many tridiagonal matrices at once, by twisted factorisations (Fernando 1997)."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

_SMALLEST_SQUARE = 1e-290  # keeps 0/0 out of the pivots of a matrix that splits


class _Scratch(threading.local):
    """Arrays that keep their memory from call to call: fresh pages cost more than the sums."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.float64]] = {}

    def array(self, name: str, *shape: int) -> NDArray[np.float64]:
        size = int(np.prod(shape))
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size)
        return kept[:size].reshape(shape)


_scratch = _Scratch()


def twisted_vectors(
    diagonals: NDArray[np.float64], off_diagonals: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors ``z`` with ``(T − λI) z ≈ 0`` for given eigenvalues λ of each matrix.

    With ``T − λI = L D⁺ Lᵀ = U D⁻ Uᵀ`` and ``γ_i = D⁺_i + D⁻_i − (T_ii − λ)``, the vector with
    ``z_r = 1`` at ``r = argmin |γ_i|`` that these factors give solves ``(T − λI) z = γ_r e_r``,
    so ``|γ_r| / ‖z‖`` is the norm of its residual. All vectors of all matrices advance together,
    one row of `T` at a time.

    Parameters
    ----------
    diagonals, off_diagonals : ndarray, (matrices, n) and (matrices, n - 1)
    values : ndarray, (matrices, d)
        Eigenvalues, accurate to rounding.

    Returns
    -------
    vectors : ndarray, (matrices, n, d)
        A view of memory that the next call overwrites; not finite where a pivot vanished.
    residuals : ndarray, (matrices, d)
        ``‖(T − λI) z‖``.
    """
    order = diagonals.shape[1]
    lanes = values.shape
    flat = values.size
    gamma = _scratch.array("gamma", order, *lanes)
    np.subtract(diagonals.T[..., None], values, out=gamma)  # T_ii − λ, until it is γ
    gamma = gamma.reshape(order, flat)
    off = off_diagonals.T[..., None]
    # Pivots from the top [:, 0] and from the bottom [:, 1], each a recurrence over rows.
    pivots = _scratch.array("pivots", order, 2, flat)
    pivots[:, 0] = gamma
    pivots[:, 1] = gamma[::-1]
    squares = _scratch.array("factors", order - 1, 2, *lanes)
    squares[:, 0] = np.maximum(off * off, _SMALLEST_SQUARE)
    squares[:, 1] = squares[::-1, 0]
    quotient = np.empty(2 * flat)
    with np.errstate(all="ignore"):
        rows = pivots.reshape(order, 2 * flat)
        previous = rows[0]
        for square, row in zip(squares.reshape(order - 1, 2 * flat), rows[1:], strict=True):
            np.divide(square, previous, quotient)
            np.subtract(row, quotient, row)
            previous = row
        top, bottom = pivots[:, 0], pivots[::-1, 1]
        np.subtract(top, gamma, gamma)
        gamma += bottom
        np.abs(gamma, gamma)
        twist = gamma.argmin(axis=0)
        least = gamma[twist, np.arange(flat)]
        # z_{i+1} = −(e_i / D⁻_{i+1}) z_i from the twist down, z_i = −(e_i / D⁺_i) z_{i+1} up to it.
        past = np.arange(1, order)[:, None] > twist
        factors = squares.reshape(order - 1, 2, flat)
        downward, upward = factors[:, 0], factors[::-1, 1]
        np.negative(off, out=gamma.reshape(order, *lanes)[1:])
        np.divide(gamma[1:], bottom[1:], downward)
        np.copyto(downward, 1.0, where=~past)
        np.divide(gamma[1:], top[:-1], upward)
        np.copyto(upward, 1.0, where=past)
        rows = factors.reshape(order - 1, 2 * flat)
        previous = rows[0]
        for row in rows[1:]:
            np.multiply(row, previous, row)
            previous = row
        vectors = gamma
        vectors[0] = 1
        vectors[1:] = downward
        vectors[:-1] *= upward
        norms = np.sqrt(np.einsum("il,il->l", vectors, vectors))
        vectors /= norms
        residuals = least / norms
    return vectors.reshape(order, *lanes).transpose(1, 0, 2), residuals.reshape(lanes)
