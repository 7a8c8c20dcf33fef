"""Six solvers behind one call; none of them knows variable projection."""

from __future__ import annotations

from typing import Any

from rankwise.varpro.solvers.damping import MarquardtDamping, NielsenDamping, cholesky_solve
from rankwise.varpro.solvers.gradient_descent import GradientDescent
from rankwise.varpro.solvers.levenberg_marquardt import LevenbergMarquardt, StoppingRule
from rankwise.varpro.solvers.result import (
    CONVERGED,
    MAX_ITERATIONS,
    NON_FINITE,
    STALLED,
    STATUSES,
    Outcome,
    Problem,
    Solver,
)
from rankwise.varpro.solvers.scipy_solvers import LBFGS, Minpack, Search, TrustRegion

SOLVERS = (
    "levenberg-marquardt",
    "minpack",
    "trust-region",
    "lbfgs",
    "gradient-descent",
    "search",
)


def make_solver(
    name: str,
    *,
    max_iterations: int | None = None,
    ftol: float | None = None,
    atol: float | None = None,
) -> Solver:
    """A solver by its name, with its own defaults where nothing is asked for.

    Parameters
    ----------
    name : {"levenberg-marquardt", "minpack", "trust-region", "lbfgs", "gradient-descent", "search"}
    max_iterations : int, optional
        Budget in the solver's own unit: steps, or evaluations for ``minpack``, ``trust-region``
        and ``search``.
    ftol : float, optional
        Relative decrease of the objective under which it stops.
    atol : float, optional
        Fraction of ``½‖τ‖²`` that counts as nothing; Levenberg–Marquardt only.

    Raises
    ------
    ValueError
        If the name isn't known, the budget isn't a whole number of at least 0, or the tolerance
        isn't a finite number of at least 0.
    """
    asked: dict[str, Any] = {
        key: value
        for key, value in {"max_iterations": max_iterations, "ftol": ftol}.items()
        if value is not None
    }
    if atol is not None and name != "levenberg-marquardt":
        raise ValueError(f"atol is for 'levenberg-marquardt'; solver {name!r} has ftol only")
    if name == "levenberg-marquardt":
        if atol is not None:
            asked["atol"] = atol
        return LevenbergMarquardt(stopping=StoppingRule(**asked))
    if name == "minpack":
        return Minpack(**asked)
    if name == "trust-region":
        return TrustRegion(**asked)
    if name == "lbfgs":
        return LBFGS(**asked)
    if name == "gradient-descent":
        return GradientDescent(**asked)
    if name == "search":
        if "max_iterations" in asked:
            asked["max_evaluations"] = asked.pop("max_iterations")
        return Search(**asked)
    raise ValueError(f"unknown solver {name!r}; accepted: {', '.join(SOLVERS)}")


__all__ = [
    "CONVERGED",
    "LBFGS",
    "MAX_ITERATIONS",
    "NON_FINITE",
    "SOLVERS",
    "STALLED",
    "STATUSES",
    "GradientDescent",
    "LevenbergMarquardt",
    "MarquardtDamping",
    "Minpack",
    "NielsenDamping",
    "Outcome",
    "Problem",
    "Search",
    "Solver",
    "StoppingRule",
    "TrustRegion",
    "cholesky_solve",
    "make_solver",
]
