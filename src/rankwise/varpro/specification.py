"""What a fit of curves is asked to do, as data: data sets, parameters, options; and doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import linalg

from rankwise.varpro.composed import (
    ColumnwiseProblem,
    ReparametrisedProblem,
    SumOfProblems,
    WeightedBasis,
    whiten,
)
from rankwise.varpro.functional import project
from rankwise.varpro.losses import robust_objective, robust_weights
from rankwise.varpro.magnitude import minimise
from rankwise.varpro.parameters import ParameterSpace
from rankwise.varpro.problem import Basis, SeparableProblem
from rankwise.varpro.solvers import CONVERGED, MAX_ITERATIONS, Outcome, Solver

_MOST_REWEIGHTINGS = 100
_REWEIGHTED_ENOUGH = 1e-10
_STREAMED_FROM = 64
"""Right-hand sides from which on more of them than rows are replaced by as many as rows."""
_BLOCK = 4096
"""Right-hand sides at a time, where they are streamed."""


@dataclass(frozen=True)
class DataSet:
    """Targets, the basis that explains them, their weights, bounds on their linear parameters.

    Attributes
    ----------
    basis : Basis
    targets : array of shape (n, K)
    roots : array of shape (n,), (n, K) or (n, n), or None
        Roots of weights; or the Cholesky factor of the targets' covariance.
    linear_bounds : pair of arrays of shape (m, K), or None
    place : int array
        Where the basis' parameters stand among all.
    names : tuple of str
        Of the basis' parameters.
    n_columns : int
        ``m``.
    """

    basis: Basis
    targets: np.ndarray
    roots: np.ndarray | None
    linear_bounds: tuple[np.ndarray, np.ndarray] | None
    place: np.ndarray
    names: tuple[str, ...]
    n_columns: int

    @property
    def columnwise(self) -> bool:
        """Whether right-hand sides differ in more than their targets."""
        return self.linear_bounds is not None or self.weighted_by_column

    @property
    def weighted_by_column(self) -> bool:
        """Whether right-hand sides have weights of their own."""
        return (
            self.roots is not None
            and self.roots.ndim == 2
            and not self.whitened
            and self.targets.shape[1] > 1
        )

    whitened: bool = False
    """Whether `roots` is a covariance's factor."""

    @property
    def streamed(self) -> bool:
        """Whether there are so many right-hand sides that fewer of the same products stand in."""
        n, k = self.targets.shape
        return not self.columnwise and k >= _STREAMED_FROM and k > 2 * n

    def row_roots(self) -> np.ndarray | None:
        """Roots that all right-hand sides share."""
        if self.roots is None or self.weighted_by_column:
            return None
        return self.roots if self.whitened or self.roots.ndim == 1 else self.roots[:, 0]

    def reweighted(self, extra: np.ndarray) -> DataSet:
        """With roots of further weights, of shape (n, K)."""
        if self.roots is None:
            return replace(self, roots=extra)
        if self.whitened:
            # Rows of L⁻¹y are weighted, not those of y: (L diag(1/w))⁻¹ = diag(w) L⁻¹.
            if extra.shape[1] > 1:
                raise ValueError(
                    "a robust loss with a covariance takes one right-hand side; fit each by itself"
                )
            return replace(self, roots=self.roots / extra[:, 0])
        own = self.roots if self.roots.ndim == 2 else self.roots[:, None]
        return replace(self, roots=own * extra)


@dataclass(frozen=True)
class Specification:
    """All that a fit follows from.

    Attributes
    ----------
    data : tuple of DataSet
    space : ParameterSpace
    solver : Solver
    jacobian, ridge, rcond, loss, f_scale
        As in `VariableProjection`.
    absolute_sigma : bool
        Whether weights are inverse variances in the targets' own unit.
    """

    data: tuple[DataSet, ...]
    space: ParameterSpace
    solver: Solver
    jacobian: str
    ridge: float
    rcond: float | None
    loss: str = "linear"
    f_scale: float = 1.0
    absolute_sigma: bool = False
    several: bool = field(default=False)

    def problem(self, data: Sequence[DataSet] | None = None) -> Any:
        """The problem in the free parameters that a solver sees."""
        inner = self.full_problem(data)
        space = self.space
        if space.is_plain:
            inner.bounds = space.bounds
            return inner
        return ReparametrisedProblem(inner, space.expand, space.slope, space.bounds)

    def full_problem(self, data: Sequence[DataSet] | None = None) -> Any:
        """The problem in all nonlinear parameters."""
        problems = [self._one(d) for d in (self.data if data is None else data)]
        if len(problems) == 1 and not self.several:
            return problems[0]
        places = [d.place for d in self.data]
        return SumOfProblems(problems, places, len(self.space.names))

    def run(self, start: np.ndarray | None = None) -> tuple[Outcome, Any, int]:
        """Minimise; the outcome is in the free parameters.

        Returns
        -------
        outcome : Outcome
        problem : problem
            In all parameters, with robust weights where there are any.
        n_evaluations : int
            Of the functional; under a robust loss of all that were minimised one after another.
        """
        free = (self.space.start if start is None else start)[self.space.free]
        if self.loss != "linear":
            return self._reweight(free)
        problem = self.problem()
        outcome = self._minimise(problem, free)
        return outcome, inner_of(problem), problem.n_evaluations

    def _minimise(self, problem: Any, free: np.ndarray) -> Outcome:
        if len(free) == 0:  # nothing nonlinear is free: the linear solution is all there is
            return Outcome(free, float(problem.objective(free)), CONVERGED, 0, [])
        return minimise(self.solver, problem, free)

    def _reweight(self, free: np.ndarray) -> tuple[Outcome, Any, int]:
        """Least squares with the weights of the residuals before, until the loss stays."""
        data: list[DataSet] = list(self.data)
        history: list[dict[str, Any]] = []
        steps, evaluations, best = 0, 0, np.inf
        status = MAX_ITERATIONS
        outcome, problem = None, None
        for _ in range(_MOST_REWEIGHTINGS):
            problem = self.problem(data)
            outcome = self._minimise(problem, free)
            free = outcome.params
            steps += outcome.n_iterations
            evaluations += problem.n_evaluations
            residuals = self.residuals(self.space.expand(free), inner_of(problem), data)
            objective = sum(robust_objective(self.loss, r, self.f_scale) for r in residuals)
            history += [e | {"objective": objective} for e in outcome.history[-1:]]
            if not np.isfinite(objective):
                status = outcome.status
                break
            if best - objective <= _REWEIGHTED_ENOUGH * objective:
                status = outcome.status
                break
            best = objective
            data = [
                d.reweighted(np.sqrt(robust_weights(self.loss, r, self.f_scale)))
                for d, r in zip(self.data, residuals, strict=True)
            ]
        assert outcome is not None
        found = Outcome(free, float(objective), status, steps, history)
        return found, inner_of(problem), evaluations

    def residuals(self, params: np.ndarray, problem: Any, data: Sequence[DataSet]) -> list[Any]:
        """Residuals of each data set in units of its own sigmas, without robust weights."""
        found: list[np.ndarray] = []
        for d, coef in zip(data, self.coefficients(params, problem), strict=True):
            raw = d.targets - d.basis.features(params[d.place]) @ coef
            own = self.data[len(found)].roots
            found.append(
                own * raw
                if own is not None and own.ndim == 2 and not d.whitened
                else whiten(own, raw)
            )
        return found

    def coefficients(self, params: np.ndarray, problem: Any) -> list[np.ndarray]:
        """``A`` of each data set; streamed where the problem saw fewer right-hand sides."""
        parts = problem.problems if isinstance(problem, SumOfProblems) else [problem]
        found = []
        for d, part in zip(self.data, parts, strict=True):
            own = params[d.place]
            if not d.streamed:
                found.append(np.asarray(part.coefficients(own)))
                continue
            phi = whiten(d.row_roots(), d.basis.features(own))
            coef = np.empty((d.n_columns, d.targets.shape[1]))
            for columns in _blocks(d.targets.shape[1]):
                tau = whiten(d.row_roots(), np.asarray(d.targets[:, columns], np.float64))
                coef[:, columns] = project(phi, tau, **self._linear(d)).coef
            found.append(coef)
        return found

    def _linear(self, d: DataSet) -> dict[str, Any]:
        n = len(d.targets)
        dtype = getattr(d.basis, "dtype", None)
        # float32 features carry rounding of ε₃₂; singular values below it are noise.
        eps = np.finfo(np.float64 if dtype is None else dtype).eps
        return {
            "ridge": self.ridge,
            "rcond": float(n * eps) if self.rcond is None else self.rcond,
            "equilibrate": self.ridge == 0 and dtype is None,
        }

    def _one(self, d: DataSet) -> Any:
        options = self._linear(d) | {"jacobian": self.jacobian}
        if d.columnwise:
            basis, targets, roots = d.basis, np.asarray(d.targets, np.float64), d.roots
            if roots is not None and not d.weighted_by_column:
                shared = d.row_roots()
                assert shared is not None
                basis, targets, roots = WeightedBasis(basis, shared), whiten(shared, targets), None
            return ColumnwiseProblem(
                basis, targets, roots=roots, linear_bounds=d.linear_bounds, **options
            )
        shared = d.row_roots()
        targets = compressed(d.targets, shared) if d.streamed else whiten(shared, d.targets)
        return SeparableProblem(
            d.basis if shared is None else WeightedBasis(d.basis, shared), targets, **options
        )


def inner_of(problem: Any) -> Any:
    """The problem in all parameters."""
    return problem.problem if isinstance(problem, ReparametrisedProblem) else problem


def compressed(targets: np.ndarray, roots: np.ndarray | None) -> np.ndarray:
    """As few right-hand sides as rows, with the same ``ττᵀ``: the same objective and derivatives.

    Everything the functional makes of the targets it makes of ``ττᵀ``. Of ``τᵀ = QR`` that is
    ``RᵀR``, so ``Rᵀ``, of shape (n, n), stands in for ``τ``. Streamed by blocks of columns.
    """
    triangle = np.empty((0, len(targets)))
    for columns in _blocks(targets.shape[1]):
        block = whiten(roots, np.asarray(targets[:, columns], np.float64))
        triangle = linalg.qr(np.vstack([triangle, block.T]), mode="r", check_finite=False)[0]
        triangle = triangle[: min(triangle.shape)]
    return np.ascontiguousarray(triangle.T)


def _blocks(k: int) -> list[slice]:
    return [slice(first, min(first + _BLOCK, k)) for first in range(0, k, _BLOCK)]
