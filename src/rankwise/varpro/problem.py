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
from array_api_compat import array_namespace, device, is_numpy_array

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
from rankwise.varpro.units import Units

BLOCK = 4096
"""Samples whose derivatives are held at a time."""


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


class UnitBasis:
    """The units of a (sub-)network on fixed images, and a constant column last.

    Parameters
    ----------
    units : Units
    images : array of shape (..., n, *shape)
        In the dtype to compute in: float32 for speed, float64 for tests.
    start : array of shape (..., p, I)
        Parameters; those that are not active keep these values.
    active : bool array of shape (..., p, I), optional
        Parameters to fit (a windowed unit's, say); default all. With batch axes, whose members
        may differ in what is active, derivatives of inactive ones are zero instead of absent.
    """

    def __init__(self, units: Units, images: Any, start: Any, active: Any = None) -> None:
        self.units = units
        xp = array_namespace(images, start)
        self._start = xp.astype(start, images.dtype)
        self._views = units.views(images)
        self._flat = units.flatten(images)
        self.n_units = int(start.shape[-1])
        self.dtype = np.dtype(str(images.dtype).removeprefix("torch."))
        owner = np.tile(np.arange(self.n_units), units.n_params)
        self._index: np.ndarray | None = None
        self._mask: Any = None
        if active is not None and start.ndim == 2:
            self._index = np.flatnonzero(np.asarray(active).ravel())
            owner = owner[self._index]
        elif active is not None:
            flat_mask = xp.reshape(active, (*active.shape[:-2], 1, -1))
            self._mask = xp.astype(flat_mask, images.dtype)
        # On a GPU the index travels once, not with every product.
        self.owner = owner if is_numpy_array(images) else xp.asarray(owner, device=device(images))

    def pack(self, params: Any) -> Any:
        """The active ones of parameters ``(…, p, I)`` as a float64 vector ``(…, P)``."""
        xp = array_namespace(params)
        flat = xp.reshape(params, (*params.shape[:-2], -1))
        return xp.astype(flat if self._index is None else flat[self._index], xp.float64)

    def unpack(self, vector: Any) -> Any:
        """Parameters ``(…, p, I)`` from the vector of active ones."""
        xp = array_namespace(vector)
        vector = xp.astype(vector, self._start.dtype)
        if self._index is None:
            return xp.reshape(vector, self._start.shape)
        full = np.array(self._start).ravel()
        full[self._index] = vector
        return full.reshape(self._start.shape)

    def features(self, params: Any) -> Any:
        """``Φ``, shape ``(…, n, I + 1)``."""
        return self._with_constant(self.units.features(self._flat, self.unpack(params)))

    def derivative_blocks(self, params: Any) -> Blocks:
        """``D``, `BLOCK` samples at a time."""
        full = self.unpack(params)
        n = self._views[0].shape[-3]
        for first in range(0, n, BLOCK):
            rows = slice(first, first + BLOCK)
            views = [view[..., rows, :, :] for view in self._views]
            _, d = self.units.derivatives(views, full, self._index)
            if self._mask is not None:
                d *= self._mask
            yield rows, d

    @staticmethod
    def _with_constant(phi: Any) -> Any:
        xp = array_namespace(phi)
        return xp.concat([phi, xp.ones_like(phi[..., :1])], axis=-1)


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
