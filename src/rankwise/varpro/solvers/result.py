"""What every solver is given and what it returns: data, never an exception or ``None``."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

CONVERGED = "converged"
"""The objective, its relative decrease, or the gradient fell below its tolerance."""
MAX_ITERATIONS = "max-iterations"
"""The budget was spent; the point returned is the best seen."""
STALLED = "stalled"
"""No step along any direction the solver tried lowers the objective any more."""
NON_FINITE = "non-finite"
"""The objective at the start isn't finite; the start is returned."""

STATUSES = (CONVERGED, MAX_ITERATIONS, STALLED, NON_FINITE)


def check_budget(name: str, value: Any) -> None:
    """Refuse a count that isn't a whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")


def check_tolerance(name: str, value: Any) -> None:
    """Refuse a tolerance that isn't a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < inf:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")


def refuse_bounds(problem: Any, solver: str) -> None:
    """Refuse bounds, of a solver that can't keep them."""
    if getattr(problem, "bounds", None) is not None:
        raise ValueError(
            f"solver {solver!r} can't keep bounds; accepted with bounds: levenberg-marquardt, "
            "trust-region, lbfgs, search"
        )


@runtime_checkable
class Problem(Protocol):
    """What a solver may ask of a problem. Batch axes ``…`` are used by Levenberg–Marquardt only.

    A problem may also have ``bounds``, a pair of arrays ``(P,)`` or None, which a solver must keep
    or refuse; ``scale``, an objective beside which others are nothing; and ``n_residuals``.
    """

    n_evaluations: int

    def objective(self, params: Any) -> Any:
        """Objective, shape ``(…)``."""
        ...

    def gradient(self, params: Any) -> Any:
        """Gradient, shape ``(…, P)``."""
        ...

    def linearise(self, params: Any) -> tuple[Any, Any]:
        """Gradient, and Gauss–Newton matrix ``(…, P, P)`` (its upper triangle)."""
        ...

    def residual(self, params: Any) -> Any:
        """Residual vector whose half squared norm is the objective."""
        ...

    def dense_jacobian(self, params: Any) -> Any:
        """Jacobian of the residual vector."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Where a solver ended and how.

    Attributes
    ----------
    params : array of shape (..., P)
        The best point seen.
    objective : array of shape (...) or float
    status : str or tuple of str
        One of `STATUSES`; a tuple with a batch.
    n_iterations : int
    history : list of dict
        One entry an iteration: ``objective`` and whatever else the solver knows, such as
        ``damping``, ``gradient_norm``, ``accepted``.
    """

    params: Any
    objective: Any
    status: Any
    n_iterations: int
    history: list[dict[str, Any]] = field(default_factory=list)


@runtime_checkable
class Solver(Protocol):
    """Anything that minimises a `Problem` from a start."""

    def minimise(self, problem: Problem, start: Any) -> Outcome:
        """Minimise from `start`, of shape ``(…, P)``."""
        ...
