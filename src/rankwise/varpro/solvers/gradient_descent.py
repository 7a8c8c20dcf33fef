"""Gradient descent on the functional (paper, section 8.2), with a step length that adapts.

The step starts from Barzilai and Borwein's ``sᵀs/sᵀy`` and is halved until Armijo's condition
``f(θ − t·g) ≤ f(θ) − c·t·‖g‖²`` holds, so no learning rate needs choosing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class GradientDescent:
    """Steepest descent with Barzilai–Borwein steps and Armijo's condition.

    Parameters
    ----------
    max_iterations : int
    ftol : float
        Relative decrease under which it stops.
    armijo : float
        ``c`` in the condition above.
    max_halvings : int
        Halvings tried before the status is ``stalled``.
    """

    max_iterations: int = 200
    ftol: float = 1e-6
    armijo: float = 1e-4
    max_halvings: int = 30

    def __post_init__(self) -> None:
        check_budget("max_iterations", self.max_iterations)
        check_tolerance("ftol", self.ftol)

    def minimise(self, problem: Problem, start: np.ndarray) -> Outcome:
        """Minimise from `start`, of shape ``(P,)``."""
        refuse_bounds(problem, "gradient-descent")
        params = np.array(start, dtype=np.float64)
        objective = float(problem.objective(params))
        history: list[dict] = []
        if not np.isfinite(objective):
            return Outcome(params, objective, NON_FINITE, 0, history)
        g = np.asarray(problem.gradient(params), dtype=np.float64)
        # First step: as long as would halve the objective if it were linear.
        length = 0.5 * objective / max(float(g @ g), np.finfo(float).tiny)
        status = MAX_ITERATIONS
        for _ in range(self.max_iterations):
            squared = float(g @ g)
            if squared == 0.0:
                status = CONVERGED
                break
            for _ in range(self.max_halvings):
                trial = params - length * g
                trial_objective = float(problem.objective(trial))
                if trial_objective <= objective - self.armijo * length * squared:
                    break
                length *= 0.5
            else:
                status = STALLED
                break
            new_g = np.asarray(problem.gradient(trial), dtype=np.float64)
            s, y = trial - params, new_g - g
            decrease = objective - trial_objective
            params, g, objective = trial, new_g, trial_objective
            history.append(
                {
                    "objective": objective,
                    "accepted": True,
                    "step_length": length,
                    "gradient_norm": float(np.sqrt(squared)),
                }
            )
            if decrease <= self.ftol * objective:
                status = CONVERGED
                break
            curvature = float(s @ y)
            length = float(s @ s) / curvature if curvature > 0 else 2.0 * length
        return Outcome(params, objective, status, len(history), history)
