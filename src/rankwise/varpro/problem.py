"""A separable problem: a basis and targets, as the solvers see it.

A *basis* has parameters ``θ`` and gives features ``Φ(θ)`` and the derivative of each parameter's
own column. A *problem* puts the functional on top of it. Solvers ask for the objective, the
gradient and a Gauss–Newton matrix (or the residual vector and its Jacobian) and never hear of
variable projection.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    pairs_to_parameters,
    project,
    residual_vector,
)

LARGEST = 1e150
"""Features beyond it count as not finite: their squares aren't."""


@runtime_checkable
class Basis(Protocol):
    """Features and their derivatives as functions of the nonlinear parameters.

    Where functions share parameters, two more attributes say so: ``parameter``, an int array (Q,),
    and ``n_params``, the number ``P``. Column ``q`` of the derivatives is then that of column
    ``owner[q]`` of ``Φ`` in parameter ``parameter[q]``; pairs that aren't listed are zero. Without
    them each parameter touches one column, ``Q = P``.
    """

    owner: np.ndarray
    """int array (Q,): the column of ``Φ`` that each column of derivatives belongs to."""

    def features(self, params: Any) -> Any:
        """``Φ(θ)``, shape ``(n, m)``."""
        ...

    def derivative_blocks(self, params: Any) -> Blocks:
        """``D``, shape ``(n, Q)``, by blocks of rows: column ``q`` is ``∂Φ[:, owner[q]]/∂θ``."""
        ...


def n_params_of(basis: Basis) -> int:
    """How many nonlinear parameters a basis has."""
    shared = getattr(basis, "parameter", None)
    return len(basis.owner) if shared is None else int(basis.n_params)  # type: ignore[attr-defined]
    # (a basis with `parameter` has `n_params`, which the protocol leaves optional)


@dataclass(frozen=True)
class FunctionBasis:
    """A basis from two functions, for separable fits of any kind.

    Parameters
    ----------
    phi : callable
        ``phi(theta) -> (n, m)``.
    dphi : callable
        ``dphi(theta) -> (n, Q)``: derivatives, each of one column in one parameter.
    owner : int array of shape (Q,)
        The column of ``Φ`` that each column of ``dphi`` belongs to.
    parameter : int array of shape (Q,), optional
        The parameter that it is the derivative in. By default column ``l`` is that in parameter
        ``l``, so that each touches one column of ``Φ``.

    Raises
    ------
    ValueError
        If `owner` or `parameter` isn't a list of whole numbers of at least 0, or their lengths
        differ.
    TypeError
        If `phi` or `dphi` can't be called.

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

    Sine and cosine of one frequency:

    >>> waves = FunctionBasis(
    ...     lambda t: np.column_stack([np.cos(t[0] * x), np.sin(t[0] * x)]),
    ...     lambda t: np.column_stack([-x * np.sin(t[0] * x), x * np.cos(t[0] * x)]),
    ...     owner=np.array([0, 1]),
    ...     parameter=np.array([0, 0]),
    ... )
    """

    # What callers give is checked below, not by its annotation.
    phi: Any
    dphi: Any
    owner: Any
    parameter: Any = None

    def __post_init__(self) -> None:
        for name in ("phi", "dphi"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"{name} must be a function of the parameters, got {getattr(self, name)!r}"
                )
        object.__setattr__(self, "owner", checked_indices("owner", self.owner))
        if self.parameter is not None:
            shared = checked_indices("parameter", self.parameter)
            object.__setattr__(self, "parameter", shared)
            if len(shared) != len(self.owner):
                raise ValueError(
                    f"owner has {len(self.owner)} entries and parameter {len(shared)}; both need "
                    "one for each column of derivatives"
                )

    @property
    def n_params(self) -> int:
        """``P``."""
        return (
            len(self.owner) if self.parameter is None else int(self.parameter.max(initial=-1)) + 1
        )

    def features(self, params: np.ndarray) -> np.ndarray:
        """``Φ(θ)``."""
        with np.errstate(all="ignore"):  # steps that are tried and refused overflow
            return real_matrix(self.phi(params), "phi")

    def derivative_blocks(self, params: np.ndarray) -> Blocks:
        """``D`` in one block."""
        with np.errstate(all="ignore"):
            d = real_matrix(self.dphi(params), "dphi")
        yield slice(None), d


def checked_indices(name: str, value: Any) -> np.ndarray:
    """Whole numbers of at least 0 as an index."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.ndim == 1 and array.size == 0:
        return array.astype(int)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0:
        raise ValueError(
            f"{name} must be a list of whole numbers of at least 0, one for each column of "
            f"derivatives, got {value!r}"
        )
    return array.astype(int)


def real_matrix(value: Any, what: str) -> np.ndarray:
    """What a function gave, as float64 of shape (n, m); or one sentence that says what is wrong."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise ValueError(
                f"{what} gave complex numbers, and fits are real; stack real and imaginary parts "
                "as rows of one real problem"
            )
        array = array.astype(np.float64)
    except TypeError as error:
        raise ValueError(f"{what} must give numbers of shape (n, m), got {value!r}") from error
    if array.ndim != 2:
        raise ValueError(f"{what} must give an array of shape (n, m), got shape {array.shape}")
    return array


@dataclass(frozen=True)
class Solution:
    """One factorisation at a solution, and the right-hand sides that share it.

    Attributes
    ----------
    columns : int array of shape (k,)
        Which right-hand sides.
    features : array of shape (n, m)
        ``Φ``, weighted.
    derivatives : array of shape (n, Q)
        ``D``, weighted.
    projection : Projection
        Of these right-hand sides only.
    free : bool array of shape (m,) or None
        Linear parameters that aren't held at a bound; None for all.
    """

    columns: np.ndarray
    features: np.ndarray
    derivatives: np.ndarray
    projection: Projection
    free: np.ndarray | None


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
    equilibrate : bool
        Whether columns of ``Φ`` are scaled to one norm before; only without ridge.
    bounds : pair of arrays of shape (P,), optional
        Of the parameters, for solvers that keep them.
    """

    def __init__(
        self,
        basis: Basis,
        targets: Any,
        *,
        jacobian: str,
        ridge: float,
        rcond: float,
        equilibrate: bool = False,
        bounds: tuple[Any, Any] | None = None,
    ) -> None:
        self.basis = basis
        self.targets = targets
        self.jacobian = jacobian
        self.ridge = ridge
        self.rcond = rcond
        self.equilibrate = equilibrate
        self.bounds = bounds
        self.n_evaluations = 0
        self._last: tuple[Any, Projection] | None = None
        shared = getattr(basis, "parameter", None)
        self._parameter = None if shared is None else np.asarray(shared)
        self.n_params = n_params_of(basis)
        squares = array_namespace(targets).astype(targets, array_namespace(targets).float64) ** 2
        self.scale = 0.5 * squares.sum((-2, -1))

    @property
    def n_residuals(self) -> int:
        """Entries of the residual vector."""
        n, k = self.targets.shape[-2:]
        return n * k

    def project(self, params: Any) -> Projection:
        """The functional at `params`; the last point asked for is not computed twice."""
        xp = array_namespace(params)
        if self._last is not None and bool(xp.all(self._last[0] == params)):
            return self._last[1]
        return self._remember(params, self.basis.features(params))

    def objective(self, params: Any) -> Any:
        """``½(‖R‖² + μ‖A‖²)``, shape ``(…)``; infinite where the features are not finite."""
        return self.project(params).objective

    def linearise(self, params: Any, jacobian: str | None = None) -> tuple[Any, Any]:
        """Gradient ``(…, P)`` and Gauss–Newton matrix ``(…, P, P)``; of another kind if asked."""
        kind = self.jacobian if jacobian is None else jacobian
        projection = self.project(params)  # of an accepted trial, Φ is factorised already
        blocks = self._blocks(params)
        found = linearise(projection, blocks, self.basis.owner, kind)
        if self._parameter is None:
            return found
        return pairs_to_parameters(*found, self._parameter, self.n_params)

    def gradient(self, params: Any) -> Any:
        """Gradient ``(…, P)`` at `params`."""
        projection = self.project(params)
        pairs = gradient(
            projection, cross_products(projection, self._blocks(params)), self.basis.owner
        )
        return pairs if self._parameter is None else pairs @ self._table()

    def residual(self, params: np.ndarray) -> np.ndarray:
        """Residual vector, for solvers that want it."""
        return residual_vector(self.project(params), self.ridge)

    def dense_jacobian(self, params: np.ndarray, jacobian: str | None = None) -> np.ndarray:
        """Its Jacobian, formed whole; of another kind where asked."""
        kind = self.jacobian if jacobian is None else jacobian
        projection, phi = self.project(params), self.basis.features(params)
        d = np.concatenate([block for _, block in self._blocks(params)])
        pairs = dense_jacobian(projection, phi, d, self.basis.owner, kind, self.ridge)
        return pairs if self._parameter is None else pairs @ self._table()

    def solutions(self, params: np.ndarray) -> Iterator[Solution]:
        """What statistics need of a single problem."""
        d = np.concatenate([block for _, block in self._blocks(params)])
        projection, phi = self.project(params), self.basis.features(params)
        columns = np.arange(self.targets.shape[-1])
        yield Solution(columns, np.asarray(phi, dtype=np.float64), d, projection, None)

    def coefficients(self, params: Any) -> Any:
        """``A``, shape ``(…, m, K)``."""
        return self.project(params).coef

    def rank_and_condition(self, params: Any) -> tuple[Any, Any]:
        """Of ``Φ``."""
        projection = self.project(params)
        return projection.rank, projection.condition

    def _table(self) -> np.ndarray:
        """``S``: pairs of a function and a parameter by parameters."""
        assert self._parameter is not None
        return np.eye(self.n_params)[self._parameter]

    def _blocks(self, params: Any) -> Blocks:
        """Blocks of derivatives, their width checked."""
        for rows, d in self.basis.derivative_blocks(params):
            if d.shape[-1] != len(self.basis.owner):
                raise ValueError(
                    f"the basis gives {d.shape[-1]} columns of derivatives, its owner has "
                    f"{len(self.basis.owner)} entries"
                )
            yield rows, d

    def _projected(self, phi: Any) -> Projection:
        return project(
            phi, self.targets, ridge=self.ridge, rcond=self.rcond, equilibrate=self.equilibrate
        )

    def _remember(self, params: Any, phi: Any) -> Projection:
        xp = array_namespace(phi)
        self.n_evaluations += 1
        most = min(LARGEST, float(xp.finfo(phi.dtype).max))
        every = bool(xp.max(xp.abs(phi)) <= most)
        if not every:
            finite = xp.all(xp.all(xp.abs(phi) <= most, axis=-1), axis=-1)
            phi = xp.where(finite[..., None, None], phi, xp.zeros_like(phi))
        projection = self._projected(phi)
        if not every:
            infinite = xp.full_like(projection.objective, float("inf"))
            objective = xp.where(finite, projection.objective, infinite)
            projection = Projection(**{**projection.__dict__, "objective": objective})
        self._last = (xp.asarray(params, copy=True), projection)  # MINPACK reuses its buffer
        return projection
