"""A separable problem: a basis and targets, as the solvers see it.

A *basis* has parameters ``θ`` and gives features ``Φ(θ)`` and the derivative of each parameter's
own column. A *problem* puts the functional on top of it. Solvers ask for the objective, the
gradient and a Gauss–Newton matrix (or the residual vector and its Jacobian) and never hear of
variable projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace

from rankwise.varpro.functional import (
    Blocks,
    Projection,
    cross_products,
    dense_jacobian,
    gradient,
    linearise,
    project,
    residual_vector,
)


@runtime_checkable
class Basis(Protocol):
    """Features and their derivatives as functions of the nonlinear parameters."""

    owner: np.ndarray
    """int array (P,): the column of ``Φ`` that each parameter touches."""

    def features(self, params: Any) -> Any:
        """``Φ(θ)``, shape ``(n, m)``."""
        ...

    def derivative_blocks(self, params: Any) -> Blocks:
        """``D``, shape ``(n, P)``, by blocks of rows: column ``l`` is ``∂Φ[:, owner[l]]/∂θ_l``."""
        ...


@dataclass(frozen=True)
class FunctionBasis:
    """A basis from two functions, for separable fits of any kind.

    Parameters
    ----------
    phi : callable
        ``phi(theta) -> (n, m)``.
    dphi : callable
        ``dphi(theta) -> (n, P)``: each parameter's derivative of the column it touches.
    owner : int array of shape (P,)
        Which column each parameter touches.

    Examples
    --------
    A sum of two exponentials and a constant:

    >>> import numpy as np
    >>> x = np.linspace(0, 4, 50)
    >>> basis = FunctionBasis(
    ...     lambda t: np.column_stack([np.exp(-t[0] * x), np.exp(-t[1] * x), np.ones_like(x)]),
    ...     lambda t: np.column_stack([-x * np.exp(-t[0] * x), -x * np.exp(-t[1] * x)]),
    ...     owner=np.array([0, 1]),
    ... )
    """

    phi: Callable[[np.ndarray], np.ndarray]
    dphi: Callable[[np.ndarray], np.ndarray]
    owner: np.ndarray

    def features(self, params: np.ndarray) -> np.ndarray:
        """``Φ(θ)``."""
        return np.asarray(self.phi(params), dtype=np.float64)

    def derivative_blocks(self, params: np.ndarray) -> Blocks:
        """``D`` in one block."""
        yield slice(None), np.asarray(self.dphi(params), dtype=np.float64)


class SeparableProblem:
    """``min_θ ½‖τ − Φ(θ)Φ(θ)⁺τ‖²``, with ridge where asked; remembers its last evaluation.

    Parameters
    ----------
    basis : Basis
    targets : array of shape (..., n, K)
        ``τ``; with batch axes, one problem each, solved in step.
    jacobian : {"golub-pereyra", "kaufman"}
    ridge : float
        ``μ`` of the output layer.
    rcond : float
        Relative threshold under which singular values of ``Φ`` are dropped.
    """

    def __init__(
        self, basis: Basis, targets: Any, *, jacobian: str, ridge: float, rcond: float
    ) -> None:
        self.basis = basis
        self.targets = targets
        self.jacobian = jacobian
        self.ridge = ridge
        self.rcond = rcond
        self.n_evaluations = 0
        self._last: tuple[Any, Projection] | None = None

    def project(self, params: Any) -> Projection:
        """The functional at `params`; the last point asked for is not computed twice."""
        xp = array_namespace(params)
        if self._last is not None and bool(xp.all(self._last[0] == params)):
            return self._last[1]
        return self._remember(params, self.basis.features(params))

    def objective(self, params: Any) -> Any:
        """``½(‖R‖² + μ‖A‖²)``, shape ``(…)``; infinite where the features are not finite."""
        return self.project(params).objective

    def linearise(self, params: Any) -> tuple[Any, Any]:
        """Gradient ``(…, P)`` and Gauss–Newton matrix ``(…, P, P)`` at `params`."""
        projection = self.project(params)  # of an accepted trial, Φ is factorised already
        blocks = self.basis.derivative_blocks(params)
        return linearise(projection, blocks, self.basis.owner, self.jacobian)

    def gradient(self, params: Any) -> Any:
        """Gradient ``(…, P)`` at `params`."""
        projection = self.project(params)
        cross = cross_products(projection, self.basis.derivative_blocks(params))
        return gradient(projection, cross, self.basis.owner)

    def residual(self, params: np.ndarray) -> np.ndarray:
        """Residual vector, for solvers that want it."""
        return residual_vector(self.project(params), self.ridge)

    def dense_jacobian(self, params: np.ndarray) -> np.ndarray:
        """Its Jacobian, formed whole."""
        projection, phi = self.project(params), self.basis.features(params)
        d = np.concatenate([block for _, block in self.basis.derivative_blocks(params)])
        return dense_jacobian(projection, phi, d, self.basis.owner, self.jacobian, self.ridge)

    def _remember(self, params: Any, phi: Any) -> Projection:
        xp = array_namespace(phi)
        self.n_evaluations += 1
        finite = xp.all(xp.all(xp.isfinite(phi), axis=-1), axis=-1)
        if not bool(xp.all(finite)):
            phi = xp.where(finite[..., None, None], phi, xp.zeros_like(phi))
        projection = project(phi, self.targets, ridge=self.ridge, rcond=self.rcond)
        if not bool(xp.all(finite)):
            infinite = xp.full_like(projection.objective, float("inf"))
            objective = xp.where(finite, projection.objective, infinite)
            projection = Projection(**{**projection.__dict__, "objective": objective})
        self._last = (xp.asarray(params, copy=True), projection)  # MINPACK reuses its buffer
        return projection
