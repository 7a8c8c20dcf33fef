"""Solvers that SciPy brings: MINPACK's, a trust region, L-BFGS, and Powell's search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize

from rankwise.varpro.solvers.result import (
    CONVERGED,
    MAX_ITERATIONS,
    NON_FINITE,
    STALLED,
    Outcome,
    Problem,
    check_budget,
    check_tolerance,
    refuse_bounds,
)

_EPSILON = float(np.finfo(np.float64).eps)


class _BestSeen:
    """Counts on the objective as a solver sees it; remembers the best point and its history."""

    def __init__(self, problem: Problem, start: np.ndarray) -> None:
        self.params = np.array(start, dtype=np.float64)
        self.objective = float(problem.objective(self.params))
        self.history: list[dict[str, Any]] = []

    def note(self, params: np.ndarray, objective: float, **known: Any) -> None:
        accepted = objective < self.objective
        if accepted:
            self.params, self.objective = np.array(params), objective
        self.history.append({"objective": self.objective, "accepted": bool(accepted), **known})

    def outcome(self, status: str) -> Outcome:
        return Outcome(self.params, self.objective, status, len(self.history), self.history)


@dataclass(frozen=True)
class Minpack:
    """``scipy.optimize.leastsq`` with the analytic Jacobian: MINPACK's lmder, the paper's choice.

    The Jacobian is formed whole (``nK × P``), which is what this solver costs.

    Parameters
    ----------
    max_iterations : int
        Evaluations of the residual allowed.
    ftol : float
        Relative decrease, actual and predicted, under which it stops.
    """

    max_iterations: int = 200
    ftol: float = 1e-15

    def __post_init__(self) -> None:
        check_budget("max_iterations", self.max_iterations)
        check_tolerance("ftol", self.ftol)

    def minimise(self, problem: Problem, start: np.ndarray) -> Outcome:
        """Minimise from `start`, of shape ``(P,)``."""
        refuse_bounds(problem, "minpack")
        best = _BestSeen(problem, start)
        if not np.isfinite(best.objective):
            return best.outcome(NON_FINITE)
        if self.max_iterations == 0:  # which SciPy takes for its own default
            return best.outcome(MAX_ITERATIONS)
        if problem.residual(start).size < np.size(start):
            raise ValueError(
                f"solver 'minpack' needs at least as many residuals as parameters, got "
                f"{problem.residual(start).size} for {np.size(start)}; use more samples, "
                "fewer units or solver 'levenberg-marquardt'"
            )

        def residual(params: np.ndarray) -> np.ndarray:
            r = problem.residual(params)
            best.note(params, 0.5 * float(r @ r))
            return r

        *_, flag = optimize.leastsq(
            residual,
            np.array(start, dtype=np.float64),
            Dfun=problem.dense_jacobian,
            maxfev=self.max_iterations,
            ftol=self.ftol,
            xtol=1e-15,
            gtol=0.0,
            full_output=True,
        )
        return best.outcome(
            {5: MAX_ITERATIONS, 6: STALLED, 7: STALLED, 8: STALLED}.get(flag, CONVERGED)
        )


@dataclass(frozen=True)
class TrustRegion:
    """``scipy.optimize.least_squares(method="trf")``: a trust region inside bounds.

    Branch, Coleman and Li's interior method, on the analytic Jacobian, formed whole; parameters
    are scaled by its columns.

    Parameters
    ----------
    max_iterations : int
        Evaluations of the residual allowed.
    ftol : float
        Relative decrease under which it stops.
    """

    max_iterations: int = 200
    ftol: float = 1e-15

    def __post_init__(self) -> None:
        check_budget("max_iterations", self.max_iterations)
        check_tolerance("ftol", self.ftol)

    def minimise(self, problem: Problem, start: np.ndarray) -> Outcome:
        """Minimise from `start`, of shape ``(P,)``."""
        best = _BestSeen(problem, start)
        if not np.isfinite(best.objective):
            return best.outcome(NON_FINITE)
        if self.max_iterations == 0:
            return best.outcome(MAX_ITERATIONS)
        size = problem.residual(start).size

        def residual(params: np.ndarray) -> np.ndarray:
            objective = float(problem.objective(params))
            best.note(params, objective)
            if not np.isfinite(objective):
                return np.full(size, np.inf)
            return problem.residual(params)

        bounds = getattr(problem, "bounds", None)
        result = optimize.least_squares(
            residual,
            np.array(start, dtype=np.float64),
            jac=problem.dense_jacobian,
            bounds=(-np.inf, np.inf) if bounds is None else bounds,
            method="trf",
            x_scale="jac",
            ftol=max(self.ftol, _EPSILON),  # SciPy's least
            xtol=max(1e-15, _EPSILON),
            gtol=None,
            max_nfev=self.max_iterations,
        )
        return best.outcome(MAX_ITERATIONS if result.status == 0 else CONVERGED)


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B on the exact gradient (paper, sections 3 and 8.2).

    Parameters
    ----------
    max_iterations : int
    ftol : float
        Relative decrease under which it stops.
    memory : int
        Number of correction pairs kept.
    """

    max_iterations: int = 100
    ftol: float = 1e-6
    memory: int = 20

    def __post_init__(self) -> None:
        check_budget("max_iterations", self.max_iterations)
        check_tolerance("ftol", self.ftol)

    def minimise(self, problem: Problem, start: np.ndarray) -> Outcome:
        """Minimise from `start`, of shape ``(P,)``."""
        best = _BestSeen(problem, start)
        if not np.isfinite(best.objective):
            return best.outcome(NON_FINITE)

        def value_and_gradient(params: np.ndarray) -> tuple[float, np.ndarray]:
            value = float(problem.objective(params))
            g = np.asarray(problem.gradient(params), dtype=np.float64)
            best.note(params, value, gradient_norm=float(np.linalg.norm(g)))
            return value, g

        result = optimize.minimize(
            value_and_gradient,
            best.params,
            jac=True,
            method="L-BFGS-B",
            bounds=_scipy_bounds(problem),
            options={
                "maxiter": self.max_iterations,
                "maxfun": 2 * self.max_iterations,
                "ftol": self.ftol,
                "gtol": 0.0,
                "maxcor": self.memory,
            },
        )
        return best.outcome({0: CONVERGED, 1: MAX_ITERATIONS}.get(result.status, STALLED))


@dataclass(frozen=True)
class Search:
    """Powell's method: no derivatives at all (paper, section 8.1, "intelligent search").

    Parameters
    ----------
    max_evaluations : int
        Evaluations of the functional allowed, each one factorisation of ``Φ``.
    ftol : float
        Relative decrease of one sweep over all directions under which it stops.
    """

    max_evaluations: int = 2000
    ftol: float = 1e-4

    def __post_init__(self) -> None:
        check_budget("max_evaluations", self.max_evaluations)
        check_tolerance("ftol", self.ftol)

    def minimise(self, problem: Problem, start: np.ndarray) -> Outcome:
        """Minimise from `start`, of shape ``(P,)``."""
        best = _BestSeen(problem, start)
        if not np.isfinite(best.objective):
            return best.outcome(NON_FINITE)

        class _SpentError(Exception):
            pass

        def value(params: np.ndarray) -> float:
            if len(best.history) >= self.max_evaluations:
                raise _SpentError  # Powell looks at its own budget only between sweeps
            result = float(problem.objective(params))
            best.note(params, result)
            return result

        try:
            optimize.minimize(
                value,
                best.params,
                method="Powell",
                bounds=_scipy_bounds(problem),
                options={"ftol": self.ftol, "xtol": 1e-3},
            )
        except _SpentError:
            return best.outcome(MAX_ITERATIONS)
        return best.outcome(CONVERGED)


def _scipy_bounds(problem: Problem) -> optimize.Bounds | None:
    bounds = getattr(problem, "bounds", None)
    return None if bounds is None else optimize.Bounds(*bounds)
