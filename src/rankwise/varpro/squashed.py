"""The functional with its outputs squashed: ``½‖τ − σ(ΦΦ⁺τ)‖²`` (second paper, 8.1).

The linear parameters are those of the plain functional, ``A = Φ⁺τ``; what they give passes a
sigmoid before it is compared with the targets. They aren't the best for the squashed residual,
which is linear in no parameter, so the functional isn't smaller for being projected; it is the one
that the paper describes. A ridge shapes ``A`` and isn't part of the objective.

With ``Z = ΦA`` and ``a``, ``M = RᵀD``, ``C = (ΦᵀΦ + μI)⁺`` as in `functional`,

``∂z_k = (P⊥D)·diag(a_{owner,k}) + ΦC[:, owner]·diag(m_k)``,

of which Kaufman drops the second term. The slope ``σ′(Z)`` differs from class to class, so the
Gauss–Newton matrix is a sum over classes and costs ``K`` times the plain one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from rankwise.varpro.functional import Projection, pairs_to_parameters
from rankwise.varpro.problem import SeparableProblem


@dataclass(frozen=True)
class _Squashed:
    """Behind the sigmoid, of shape ``(…, n, K)``: what is left of the targets, and the slope."""

    residual: Any
    slope: Any


class SquashedProblem(SeparableProblem):
    """``min_θ ½‖τ − σ(Φ(θ)Φ(θ)⁺τ)‖²`` with the logistic function ``σ``; as `SeparableProblem`."""

    def objective(self, params: Any) -> Any:
        """``½‖τ − σ(ΦA)‖²``, shape ``(…)``; infinite where the features are not finite."""
        return self.objective_of(self.project(params))

    def objective_of(self, projection: Projection) -> Any:
        """The same of a projection."""
        xp = array_namespace(projection.residual)
        rest = self._squashed(projection).residual
        half = 0.5 * xp.sum(rest * rest, axis=(-2, -1))
        return xp.where(xp.isfinite(projection.objective), half, projection.objective)

    def gradient(self, params: Any) -> Any:
        """Gradient ``(…, P)``, exact; no Jacobian is formed."""
        pairs = self._gradient(params)[0]
        return pairs if self._parameter is None else pairs @ self._table()

    def linearise(self, params: Any, jacobian: str | None = None) -> tuple[Any, Any]:
        """Gradient ``(…, P)`` and Gauss–Newton matrix ``(…, P, P)``, a sum over classes."""
        kind = self.jacobian if jacobian is None else jacobian
        projection = self.project(params)
        slope = self._squashed(projection).slope
        gradient, inside, cross = self._gradient(params)
        spread = self._spread(params, projection) if kind == "golub-pereyra" else None
        matrix: Any = 0.0
        for rows, d in self._blocks(params):
            for k in range(self.targets.shape[-1]):
                block = self._moves(projection, inside, cross, spread, rows, d, k)
                block = block * _like(slope[..., rows, k, None], d)
                matrix = matrix + block.mT @ block
        if self._parameter is None:
            return gradient, matrix
        return pairs_to_parameters(gradient, matrix, self._parameter, self.n_params)

    def residual(self, params: np.ndarray) -> np.ndarray:
        """``vec(τ − σ(ΦA))``, class by class."""
        rest = self._squashed(self.project(params)).residual
        return np.ascontiguousarray(rest.T).ravel()

    def dense_jacobian(self, params: np.ndarray, jacobian: str | None = None) -> np.ndarray:
        """Its Jacobian, formed whole; of another kind where asked."""
        kind = self.jacobian if jacobian is None else jacobian
        projection = self.project(params)
        slope = self._squashed(projection).slope
        _, inside, cross = self._gradient(params)
        d = np.concatenate([_double(block) for _, block in self._blocks(params)])
        spread = self._spread(params, projection) if kind == "golub-pereyra" else None
        every = slice(None)
        pairs = np.concatenate([
            -slope[:, k, None] * self._moves(projection, inside, cross, spread, every, d, k)
            for k in range(self.targets.shape[-1])
        ])  # fmt: skip
        return pairs if self._parameter is None else pairs @ self._table()

    def _gradient(self, params: Any) -> tuple[Any, Any, Any]:
        """Of pairs of a function and a parameter: the gradient, ``UᵀD`` and ``M = RᵀD``."""
        projection = self.project(params)
        found = self._squashed(projection)
        through = found.residual * found.slope  # −Σ_k throughᵀ_k ∂z_k
        left, filters = projection.left, projection.filters
        outside = through - left @ (filters[..., None] * (left.mT @ through))
        within = projection.inverse_gram @ (_double(self.basis.features(params)).mT @ through)
        inside: Any = 0.0
        direct: Any = 0.0
        cross: Any = 0.0
        for rows, d in self._blocks(params):
            d = _double(d)
            inside = inside + left[..., rows, :].mT @ d
            direct = direct + outside[..., rows, :].mT @ d
            cross = cross + projection.residual[..., rows, :].mT @ d
        owner = self.basis.owner
        xp = array_namespace(cross)
        coef = projection.coef[..., owner, :].mT
        return -xp.sum(coef * direct + within[..., owner, :].mT * cross, axis=-2), inside, cross

    def _spread(self, params: Any, projection: Projection) -> Any:
        """``ΦC``."""
        return _double(self.basis.features(params)) @ projection.inverse_gram

    def _moves(
        self, projection: Projection, inside: Any, cross: Any, spread: Any, rows: slice, d: Any,
        k: int,
    ) -> Any:  # fmt: skip
        """``∂z_k`` of some rows, ``(…, n_block, P)``, in the dtype of ``D``."""
        owner, left = self.basis.owner, _like(projection.left[..., rows, :], d)
        moves = d - left @ _like(projection.filters[..., None] * inside, d)
        moves = moves * _like(projection.coef[..., owner, k][..., None, :], d)
        if spread is not None:
            moves = moves + _like(spread[..., rows, :], d)[..., owner] * _like(
                cross[..., k, None, :], d
            )
        return moves

    def _squashed(self, projection: Projection) -> _Squashed:
        xp = array_namespace(projection.residual)
        targets = xp.astype(self.targets, xp.float64, copy=False)
        outputs = 1.0 / (1.0 + xp.exp(projection.residual - targets))
        return _Squashed(targets - outputs, outputs * (1.0 - outputs))


def _like(array: Any, other: Any) -> Any:
    """In the dtype of another one."""
    return array_namespace(array).astype(array, other.dtype, copy=False)


def _double(array: Any) -> Any:
    xp = array_namespace(array)
    return xp.astype(array, xp.float64, copy=False)
