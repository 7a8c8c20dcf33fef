"""The variable projection functional, its gradient and its two Gauss–Newton matrices.

Symbols of the paper (sections 2 and 3): ``Φ`` features, ``τ`` targets, ``A = Φ⁺τ``,
``R = τ − ΦA = P⊥τ``. ``D`` holds derivatives column by column, ``D_q = ∂Φ[:, owner[q]]/∂θ``. Where
each parameter touches one column, ``q`` is the parameter. Where functions share parameters, ``q``
counts the pairs of a function and a parameter that it depends on; with the 0/1 matrix ``S`` of
pairs by parameters the gradient is ``Sᵀg`` and the matrix ``SᵀHS``, as free of ``K`` as before,
since the Jacobian is linear in ``∂Φ``.

With ridge ``μ`` every formula is that of the augmented problem ``[Φ; √μ·I]``, ``[τ; 0]``, so the
residual, the gradient and the Jacobian stay exact. Truncation drops singular values of ``Φ``
below ``rcond·s₁``; the residual and the projector use the same truncated ones.

Pure functions; leading batch axes allowed; numpy arrays or torch tensors alike. The ``nK × P``
Jacobian appears only in `dense_jacobian`, which MINPACK asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from scipy.linalg import blas

JACOBIANS = ("kaufman", "golub-pereyra")


@dataclass(frozen=True)
class Projection:
    """One factorisation of ``Φ`` and all that follows from it at one point.

    Attributes
    ----------
    left : array of shape (..., n, m), float64
        An orthonormal basis ``U`` of the range of ``Φ``: its left singular vectors, where some are
        filtered.
    filters : array of shape (..., m)
        ``f = s²/(s² + μ)``, zero where truncated: ``ΦΦ⁺ = U diag(f) Uᵀ``.
    coef : array of shape (..., m, K)
        ``A``.
    residual : array of shape (..., n, K)
        ``R = τ − ΦA``.
    inverse_gram : array of shape (..., m, m)
        ``(ΦᵀΦ + μI)⁺``.
    objective : array of shape (...)
        ``½(‖R‖² + μ‖A‖²)``.
    rank, condition : arrays of shape (...)
        Numerical rank of ``Φ`` and ``s₁/s_rank``.
    """

    left: Any
    filters: Any
    coef: Any
    residual: Any
    inverse_gram: Any
    objective: Any
    rank: Any
    condition: Any

    @property
    def filtered(self) -> bool:
        """Whether any filter may differ from 1; on a device nobody looks."""
        return not is_numpy_array(self.filters) or bool((self.filters != 1.0).any())


def project(
    features: Any, targets: Any, *, ridge: float = 0.0, rcond: float, equilibrate: bool = False
) -> Projection:
    """Eliminate the linear parameters (paper, eq. 2.1 and 2.2).

    Parameters
    ----------
    features : array of shape (..., n, m)
        ``Φ``; computed on in float64.
    targets : array of shape (..., n, K)
        ``τ``.
    ridge : float
        ``μ``, added to the squared singular values.
    rcond : float
        Singular values below ``rcond`` times the largest are dropped.
    equilibrate : bool
        Scale the columns to one norm first, so that the rank doesn't depend on their units. Only
        without ridge, which has a unit of its own.

    Raises
    ------
    ValueError
        If both a ridge and `equilibrate` are given.
    """
    xp = array_namespace(features)
    phi = xp.astype(features, xp.float64, copy=False)
    tau = xp.astype(targets, xp.float64, copy=False)
    norms: Any = None
    if equilibrate:
        if ridge > 0:
            raise ValueError("columns can't be equilibrated with a ridge")
        norms = xp.linalg.vector_norm(phi, axis=-2)
        norms = xp.where(norms > 0, norms, xp.ones_like(norms))
        phi = phi / norms[..., None, :]
    q, r = xp.linalg.qr(phi, mode="reduced")
    u, s, vt = xp.linalg.svd(r, full_matrices=False)
    largest = s[..., :1]
    kept = s > rcond * largest
    whole = ridge == 0 and bool(xp.all(kept))
    left = q if whole else q @ u  # any orthonormal basis of the range does, if all of it counts
    squares = xp.where(kept, s * s, xp.zeros_like(s))
    safe = xp.where(kept, s * s + ridge, xp.ones_like(s))
    filters = squares / safe
    projected = left.mT @ tau
    scaled = xp.where(kept, s / safe, xp.zeros_like(s))
    inverse = vt.mT * scaled[..., None, :]
    inverse = inverse @ u.mT if whole else inverse
    coef = inverse @ projected
    residual = tau - left @ (filters[..., None] * projected)
    if ridge == 0:
        # Once more: what rounding left of the residual within the range of Φ would outweigh a
        # small P⊥D in the gradient.
        again = xp.where(kept, xp.ones_like(s), xp.zeros_like(s))[..., None] * (left.mT @ residual)
        residual = residual - left @ again
        coef = coef + inverse @ again
    inverse_weights = xp.where(kept, 1.0 / safe, xp.zeros_like(s))
    inverse_gram = (vt.mT * inverse_weights[..., None, :]) @ vt
    if norms is not None:
        coef = coef / norms[..., :, None]
        inverse_gram = inverse_gram / (norms[..., :, None] * norms[..., None, :])
    objective = 0.5 * (
        xp.sum(residual * residual, axis=(-2, -1)) + ridge * xp.sum(coef * coef, axis=(-2, -1))
    )
    smallest = xp.min(xp.where(kept, s, largest), axis=-1)
    tiny = xp.finfo(xp.float64).tiny
    condition = largest[..., 0] / xp.where(smallest > tiny, smallest, xp.ones_like(smallest) * tiny)
    rank = xp.sum(xp.astype(kept, xp.int64), axis=-1)
    return Projection(left, filters, coef, residual, inverse_gram, objective, rank, condition)


Blocks = Iterable[tuple[slice, Any]]
"""Rows of the samples, and the derivatives ``D`` of shape ``(…, n_block, P)`` of those rows."""


def cross_products(projection: Projection, blocks: Blocks) -> Any:
    """``M = RᵀD``, of shape ``(…, K, P)`` in float64, summed over blocks of samples."""
    total: Any = 0.0
    for rows, d in blocks:
        xp = array_namespace(d)
        residual = xp.astype(projection.residual[..., rows, :], d.dtype, copy=False)
        total = total + xp.astype(residual.mT @ d, xp.float64, copy=False)
    return total


def gradient(projection: Projection, cross: Any, owner: Any) -> Any:
    """Exact gradient of the functional, of shape ``(…, P)``, from ``M = RᵀD``.

    ``g_l = −Σ_k a_{owner(l),k} (D_lᵀ r_k)``
    """
    xp = array_namespace(cross)
    return -xp.sum(projection.coef[..., owner, :].mT * cross, axis=-2)


def linearise(projection: Projection, blocks: Blocks, owner: Any, jacobian: str) -> tuple[Any, Any]:
    """Gradient and Gauss–Newton matrix in one pass over blocks of samples.

    Memory is one block of ``D`` and two ``P×P`` matrices, whatever ``n``.

    Returns
    -------
    gradient : array of shape (..., P), float64
    matrix : array of shape (..., P, P)
        As from `gauss_newton`.
    """
    cross: Any = 0.0
    inside: Any = 0.0
    gram: Any = None
    for rows, d in blocks:
        xp = array_namespace(d)
        residual = xp.astype(projection.residual[..., rows, :], d.dtype, copy=False)
        weighted = projection.left[..., rows, :]
        if projection.filtered:
            weighted = weighted * xp.sqrt(projection.filters)[..., None, :]
        cross = cross + xp.astype(residual.mT @ d, xp.float64, copy=False)
        inside = inside + xp.astype(weighted, d.dtype, copy=False).mT @ d
        gram = _gram(d) if gram is None else gram + _gram(d)
    matrix = gauss_newton(projection, gram, inside, cross, owner, jacobian)
    return gradient(projection, cross, owner), matrix


def gauss_newton(
    projection: Projection, gram: Any, inside: Any, cross: Any, owner: Any, jacobian: str
) -> Any:
    """``JᵀJ`` of the residual vector, never forming ``J``.

    Kaufman: ``(DᵀP⊥D) ∘ (AAᵀ)[owner, owner]``. Golub–Pereyra adds
    ``(MᵀM) ∘ ((ΦᵀΦ + μI)⁺)[owner, owner]``; the cross terms vanish.

    Parameters
    ----------
    projection : Projection
    gram : array of shape (..., P, P)
        ``DᵀD``, in the dtype of ``D``; overwritten.
    inside : array of shape (..., m, P)
        ``diag(√f)UᵀD``, so that ``DᵀP⊥D = DᵀD − insideᵀ·inside``.
    cross : array of shape (..., K, P)
        ``M = RᵀD``.
    owner : int array of shape (P,)
    jacobian : {"kaufman", "golub-pereyra"}

    Returns
    -------
    array of shape (..., P, P)
        Of a single numpy problem only the upper triangle is meaningful; solvers read no other.
    """
    xp = array_namespace(gram)
    dtype = gram.dtype
    outer = xp.astype(projection.coef @ projection.coef.mT, dtype, copy=False)
    # Of a derivative within the range of Φ only rounding is left, of either sign: floored at it.
    floor = 16 * xp.finfo(dtype).eps * _diagonal(gram) * _diagonal(outer)[..., owner]
    result = _minus_gram(gram, inside)
    result *= _spread(outer, owner)
    diagonal = _diagonal(result)
    diagonal[...] = xp.where(diagonal > floor, diagonal, floor)
    if jacobian == "golub-pereyra":
        m = xp.astype(cross, dtype, copy=False)
        second = _gram(m)
        second *= _spread(xp.astype(projection.inverse_gram, dtype, copy=False), owner)
        result += second
    elif jacobian != "kaufman":
        raise ValueError(f"unknown jacobian {jacobian!r}; accepted: {', '.join(JACOBIANS)}")
    return result


def residual_vector(projection: Projection, ridge: float = 0.0) -> np.ndarray:
    """The residual whose half squared norm is the objective: ``vec([R; −√μ A])``, class by class.

    Returns
    -------
    array of shape (K·n,) or, with ridge, (K·(n + m),)
    """
    rows = projection.residual
    if ridge > 0:
        rows = np.concatenate([rows, -np.sqrt(ridge) * projection.coef], axis=0)
    return np.ascontiguousarray(rows.T).ravel()


def dense_jacobian(
    projection: Projection,
    features: np.ndarray,
    derivatives: np.ndarray,
    owner: np.ndarray,
    jacobian: str,
    ridge: float = 0.0,
) -> np.ndarray:
    """Jacobian of `residual_vector`, formed whole: for MINPACK and for tests.

    ``J_k = −(P⊥D)·diag(a_{owner,k}) − ΦC[:, owner]·diag(m_k)`` with ``C = (ΦᵀΦ + μI)⁺``; the
    second term is the one that Kaufman drops (paper, section 3). With ridge all of it is that
    of the augmented ``[Φ; √μ I]``.

    Returns
    -------
    array of shape (K·n, P) or, with ridge, (K·(n + m), P)
    """
    phi = np.asarray(features, dtype=np.float64)
    d = np.asarray(derivatives, dtype=np.float64)
    m = phi.shape[1]
    if ridge > 0:
        phi = np.concatenate([phi, np.sqrt(ridge) * np.eye(m)], axis=0)
        d = np.concatenate([d, np.zeros((m, d.shape[1]))], axis=0)
    phi_c = phi @ projection.inverse_gram
    complement = d - phi_c @ (phi.T @ d)
    blocks = []
    cross = projection.residual.T @ np.asarray(derivatives, dtype=np.float64)
    for k in range(projection.coef.shape[1]):
        block = -complement * projection.coef[owner, k]
        if jacobian == "golub-pereyra":
            block -= phi_c[:, owner] * cross[k]
        blocks.append(block)
    return np.concatenate(blocks, axis=0)


def pairs_to_parameters(
    gradient: Any, matrix: Any, parameter: np.ndarray, n_params: int
) -> tuple[Any, Any]:
    """``Sᵀg`` and ``SᵀHS``: from pairs of a function and a parameter to parameters.

    Parameters
    ----------
    gradient : array of shape (..., Q)
    matrix : array of shape (..., Q, Q)
        Its upper triangle is read.
    parameter : int array of shape (Q,)
    n_params : int
    """
    xp = array_namespace(gradient)
    table = np.zeros((len(parameter), n_params))
    table[np.arange(len(parameter)), parameter] = 1.0
    spread = table if is_numpy_array(gradient) else xp.asarray(table, device=gradient.device)
    full = xp.astype(symmetric(matrix), xp.float64, copy=False)
    return gradient @ spread, spread.T @ full @ spread


def symmetric(matrix: Any) -> Any:
    """The whole symmetric matrix, from its upper triangle."""
    xp = array_namespace(matrix)
    return xp.triu(matrix) + xp.triu(matrix, k=1).mT


def _diagonal(matrix: Any) -> Any:
    """The diagonal as a view that can be written to."""
    if is_numpy_array(matrix):
        return np.einsum("...ii->...i", matrix)
    return matrix.diagonal(dim1=-2, dim2=-1)


def _spread(matrix: Any, owner: Any) -> Any:
    """``matrix[owner, owner]``, the entry of its features for each pair of parameters."""
    return matrix[..., owner, :][..., owner]


def _gram(x: Any) -> Any:
    """``xᵀx``; for one float32 or float64 numpy matrix, its upper triangle by half the work."""
    if is_numpy_array(x) and x.ndim == 2:
        return _syrk(x, None)
    if is_numpy_array(x) and x.ndim == 3 and x.shape[-1] <= FEW_COLUMNS:
        return small_grams(x.swapaxes(-1, -2))
    return x.mT @ x


FEW_COLUMNS = 6
"""Up to which dot products beat BLAS, which takes the matrices of a stack one by one."""


def small_grams(rows: np.ndarray) -> np.ndarray:
    """``qqᵀ`` of a stack of matrices of few long rows, ``(G, m, n)``: ``(G, m, m)``."""
    g, m, _ = rows.shape
    found = np.empty((g, m, m), dtype=rows.dtype)
    for i in range(m):
        for j in range(i + 1):
            found[:, i, j] = found[:, j, i] = np.vecdot(rows[:, i], rows[:, j])
    return found


def _minus_gram(gram: Any, y: Any) -> Any:
    """``gram − yᵀy``, likewise."""
    if is_numpy_array(y) and y.ndim == 2:
        return _syrk(y, gram)
    return gram - y.mT @ y


def _syrk(x: np.ndarray, minus_from: np.ndarray | None) -> np.ndarray:
    """Upper triangle of ``xᵀx``, or of ``minus_from − xᵀx`` in place. Row-major throughout.

    BLAS is column-major: a row-major ``x`` is its ``xᵀ``, and the lower triangle it writes is
    the upper one here.
    """
    routine = blas.ssyrk if x.dtype == np.float32 else blas.dsyrk
    x = np.ascontiguousarray(x)
    if minus_from is None:
        return routine(1.0, x.T, lower=1).T
    return routine(-1.0, x.T, beta=1.0, c=minus_from.T, lower=1, overwrite_c=1).T
