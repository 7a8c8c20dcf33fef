"""Levenberg–Marquardt on a gradient and a Gauss–Newton matrix (paper, section 3).

Each step solves ``(JᵀJ + λ·diag(JᵀJ))·δ = −g``. Three parts can be replaced, each by any object
with the same call: the *damping* rule (how ``λ`` follows success and failure), the *linear
solve*, and the *stopping* rule. One loop serves one problem (scalars of shape ``()``) and a batch
solved in step (shape ``(G,)``), where members that are done stand still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from scipy.linalg import lapack

from rankwise.varpro.solvers.result import (
    CONVERGED,
    MAX_ITERATIONS,
    NON_FINITE,
    STALLED,
    Outcome,
    Problem,
)

_RUNNING = ""
_STALLED_AFTER = 5
"""Rejected steps in a row at the end of the budget that count as stalled."""


@runtime_checkable
class Damping(Protocol):
    """How the damping ``λ`` starts and follows each step."""

    @property
    def initial(self) -> float:
        """``λ`` of the first step."""
        ...

    @property
    def maximum(self) -> float:
        """``λ`` beyond which the solver gives up: no step improves."""
        ...

    def update(self, damping: Any, accepted: Any, gain: Any) -> Any:
        """The next ``λ``, from whether the step was taken and actual/predicted decrease."""
        ...


@dataclass(frozen=True)
class MarquardtDamping:
    """Divide ``λ`` by `decrease` after a success, multiply by `increase` after a failure.

    Defaults are those of the prototypes (design, section 8).
    """

    initial: float = 1e-2
    decrease: float = 6.0
    increase: float = 4.0
    minimum: float = 1e-12
    maximum: float = 1e10

    def update(self, damping: Any, accepted: Any, gain: Any) -> Any:
        """``λ/decrease`` where accepted, ``λ·increase`` elsewhere."""
        xp = array_namespace(damping)
        changed = xp.where(accepted, damping / self.decrease, damping * self.increase)
        return xp.where(changed < self.minimum, xp.full_like(changed, self.minimum), changed)


@dataclass(frozen=True)
class NielsenDamping:
    """Nielsen's rule: ``λ·max(⅓, 1 − (2ρ − 1)³)`` after a success with gain ratio ``ρ``.

    After a failure ``λ·increase``. The default: it rejects far fewer steps on the sub-networks of
    the paper than Marquardt's rule (``benchmarks/solver_race.py --damping``).
    """

    initial: float = 1e-1
    increase: float = 4.0
    minimum: float = 1e-12
    maximum: float = 1e10

    def update(self, damping: Any, accepted: Any, gain: Any) -> Any:
        """The next ``λ``."""
        xp = array_namespace(damping)
        factor = 1.0 - (2.0 * gain - 1.0) ** 3
        third = xp.full_like(factor, 1.0 / 3.0)
        factor = xp.where(factor > third, factor, third)
        factor = xp.where(accepted, factor, xp.full_like(factor, self.increase))
        changed = damping * factor
        return xp.where(changed < self.minimum, xp.full_like(changed, self.minimum), changed)


@runtime_checkable
class LinearSolve(Protocol):
    """Solves the damped normal equations."""

    def __call__(self, matrix: Any, diagonal: Any, rhs: Any) -> tuple[Any, Any]:
        """Solve ``(matrix + diag(diagonal))·x = rhs``; give ``x`` and whether it worked."""
        ...


def cholesky_solve(matrix: Any, diagonal: Any, rhs: Any) -> tuple[Any, Any]:
    """Solve by Cholesky in float64, reading the upper triangle of `matrix` only.

    Returns
    -------
    solution : array of shape (..., P)
    worked : bool array of shape (...)
        False where the damped matrix isn't positive definite; the solution is zero there.
    """
    if is_numpy_array(matrix) and matrix.ndim == 2:
        return _cholesky_numpy(matrix, diagonal, rhs)
    return _cholesky_torch(matrix, diagonal, rhs)


def _cholesky_numpy(
    matrix: np.ndarray, diagonal: np.ndarray, rhs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    damped = matrix.astype(np.float64)
    damped.flat[:: len(rhs) + 1] += diagonal
    # Row-major upper is column-major lower: potrf works in place on the transpose.
    factor, info = lapack.dpotrf(damped.T, lower=1, overwrite_a=1, clean=0)
    if info != 0:
        return np.zeros_like(rhs), np.asarray(False)
    solution, _ = lapack.dpotrs(factor, rhs, lower=1)
    return solution, np.asarray(True)


def _cholesky_torch(matrix: Any, diagonal: Any, rhs: Any) -> tuple[Any, Any]:
    import torch

    damped = matrix.to(torch.float64) + torch.diag_embed(diagonal)
    factor, info = torch.linalg.cholesky_ex(damped, upper=True)
    good = info == 0
    identity = torch.eye(damped.shape[-1], dtype=damped.dtype, device=damped.device)
    factor = torch.where(good[..., None, None], factor, identity)
    solution = torch.cholesky_solve(rhs[..., None], factor, upper=True)[..., 0]
    solution = torch.where(good[..., None], solution, torch.zeros_like(solution))
    return solution, good


@dataclass(frozen=True)
class StoppingRule:
    """When enough is enough.

    Parameters
    ----------
    max_iterations : int
        Steps tried, accepted or not; the paper reports convergence in about fifteen (6.1).
    ftol : float
        Converged when `patience` accepted steps in a row lower the objective by less than this
        fraction of it. One alone may be small because the damping was large.
    gtol : float
        Converged when ``max|g|`` falls below this fraction of the objective.
    patience : int
    """

    max_iterations: int = 15
    ftol: float = 1e-4
    gtol: float = 1e-8
    patience: int = 2

    def small(self, before: Any, after: Any) -> Any:
        """Whether a step from `before` to `after` counts as small."""
        return before - after <= self.ftol * before

    def flat(self, gradient_max: Any, objective: Any) -> Any:
        """Whether the gradient is as good as zero."""
        return gradient_max <= self.gtol * objective


@dataclass(frozen=True)
class LevenbergMarquardt:
    """The package's own solver.

    Parameters
    ----------
    stopping : StoppingRule
    damping : Damping
    linear_solve : LinearSolve
    """

    stopping: StoppingRule = field(default_factory=StoppingRule)
    damping: Damping = field(default_factory=NielsenDamping)
    linear_solve: LinearSolve = cholesky_solve

    def minimise(self, problem: Problem, start: Any) -> Outcome:
        """Minimise from `start`, of shape ``(P,)`` or, for a batch in step, ``(G, P)``."""
        xp = array_namespace(start)
        params = start
        objective = problem.objective(params)
        shape = tuple(objective.shape)
        status = np.full(shape, _RUNNING, dtype=object)
        status[~_to_numpy(xp.isfinite(objective))] = NON_FINITE
        damping = xp.full_like(objective, self.damping.initial)
        history: list[dict[str, Any]] = []
        n_small, n_rejected = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
        fresh = True
        for _ in range(self.stopping.max_iterations):
            running = np.asarray(status == _RUNNING)
            if not running.any():
                break
            if fresh:
                gradient, matrix = problem.linearise(params)
                gradient_max = xp.max(xp.abs(gradient), axis=-1)
                flat = running & _to_numpy(self.stopping.flat(gradient_max, objective))
                status[flat] = CONVERGED
                running = np.asarray(status == _RUNNING)
                if not running.any():
                    break
                scale = _positive_diagonal(matrix)
            step, solved = self.linear_solve(matrix, damping[..., None] * scale, -gradient)
            trial = params + step
            trial_objective = problem.objective(trial)
            # −gᵀδ − ½δᵀHδ with Hδ = −g − λ·diag·δ
            predicted = 0.5 * xp.sum(step * (damping[..., None] * scale * step - gradient), axis=-1)
            predicted = xp.where(predicted > 0, predicted, xp.ones_like(predicted))
            gain = (objective - trial_objective) / predicted
            lower = solved & (trial_objective < objective)
            accepted = lower & _like_mask(running, objective)
            small = _to_numpy(self.stopping.small(objective, trial_objective))
            history.append(
                {
                    "objective": _plain(xp.where(accepted, trial_objective, objective)),
                    "damping": _plain(damping),
                    "gradient_norm": _plain(xp.sqrt(xp.sum(gradient * gradient, axis=-1))),
                    "accepted": _plain(accepted),
                }
            )
            params = xp.where(accepted[..., None], trial, params)
            objective = xp.where(accepted, trial_objective, objective)
            damping = self.damping.update(damping, accepted, gain)
            taken = _to_numpy(accepted)
            n_small = np.where(taken, np.where(small, n_small + 1, 0), n_small)
            n_rejected = np.where(taken, 0, n_rejected + 1)
            status[taken & (n_small >= self.stopping.patience)] = CONVERGED
            stuck = (status == _RUNNING) & _to_numpy(damping > self.damping.maximum)
            status[stuck] = STALLED
            fresh = bool(xp.any(accepted))
        status[(status == _RUNNING) & (n_rejected >= _STALLED_AFTER)] = STALLED
        status[status == _RUNNING] = MAX_ITERATIONS
        return Outcome(
            params=params,
            objective=objective if shape else float(objective),
            status=tuple(status.tolist()) if shape else str(status.item()),
            n_iterations=len(history),
            history=history,
        )


def _positive_diagonal(matrix: Any) -> Any:
    """Diagonal in float64, floored so that parameters without effect get no step, not NaN."""
    xp = array_namespace(matrix)
    diagonal = xp.astype(xp.linalg.diagonal(matrix), xp.float64)
    largest = xp.max(diagonal, axis=-1, keepdims=True)
    floor = xp.where(largest > 0, 1e-10 * largest, xp.ones_like(largest))
    return xp.where(diagonal > floor, diagonal, floor)


def _to_numpy(x: Any) -> np.ndarray:
    return np.asarray(x.cpu() if hasattr(x, "cpu") else x)


def _like_mask(mask: np.ndarray, reference: Any) -> Any:
    from array_api_compat import device

    xp = array_namespace(reference)
    return xp.asarray(mask.astype(bool), device=device(reference))


def _plain(x: Any) -> Any:
    return _to_numpy(x).tolist()
