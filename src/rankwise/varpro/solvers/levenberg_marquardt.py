"""Levenberg–Marquardt on a gradient and a Gauss–Newton matrix (paper, section 3).

Each step solves ``(JᵀJ + λ·diag(JᵀJ))·δ = −g``. Three parts can be replaced, each by any object
with the same call: the *damping* rule (how ``λ`` follows success and failure), the *linear
solve*, and the *stopping* rule. One loop serves one problem (scalars of shape ``()``) and a batch
solved in step (shape ``(G,)``), where members that are done stand still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from scipy.linalg import lapack

from rankwise.varpro.solvers.damping import (
    Damping,
    LinearSolve,
    NielsenDamping,
    cholesky_solve,
    cholesky_with_pivot,
)
from rankwise.varpro.solvers.result import (
    CONVERGED,
    MAX_ITERATIONS,
    NON_FINITE,
    STALLED,
    Outcome,
    Problem,
    check_budget,
    check_tolerance,
)

_RUNNING = ""
_EPSILON = float(np.finfo(np.float64).eps)
_BARELY = 1e-6
"""Damping of the step that tells a minimum from a wrong Jacobian."""
_AT_A_MINIMUM = 1e-7
"""Fraction of the objective that this step may still promise at a minimum: rounding in residuals
that nearly cancel spoils the last digits."""
_UNDAMPED = 1e-5
"""Damping up to which one small step is enough: it isn't small because it was damped."""
_MOST_DOUBTS = 4
"""Times that small steps are taken for damped ones."""
_STALLED_AFTER = 5
"""Rejected steps in a row at the end of the budget that count as stalled."""


@dataclass(frozen=True)
class StoppingRule:
    """When enough is enough; no rule depends on the units of parameters or targets.

    Parameters
    ----------
    max_iterations : int
        Steps tried, accepted or not.
    ftol : float
        Converged when `patience` accepted steps in a row lower the objective by less than this
        fraction of it. One alone may be small because the damping was large.
    gtol : float
        Converged when the cosine between the residual and each column of the Jacobian,
        ``|g_l| / (‖J_l‖·‖r‖)``, is at most this (MINPACK's test).
    patience : int
    atol : float
        Fraction of the objective of a model that is zero, ``½‖τ‖²``, that counts as nothing: below
        it, or decreasing by less, the fit is exact. The default is that of residuals of sixteen
        units in the last place.

    Raises
    ------
    ValueError
        If a tolerance is negative or no number, or a count isn't a whole number of at least 0.
    """

    max_iterations: int = 200
    ftol: float = 1e-15
    gtol: float = 1e-12
    patience: int = 2
    atol: float = (16 * _EPSILON) ** 2

    def __post_init__(self) -> None:
        check_budget("max_iterations", self.max_iterations)
        check_budget("patience", self.patience)
        for name in ("ftol", "gtol", "atol"):
            check_tolerance(name, getattr(self, name))

    def small(self, before: Any, after: Any, scale: Any = 0.0) -> Any:
        """Whether a step from `before` to `after` counts as small."""
        return before - after <= self.ftol * before + self.atol * scale

    def exact(self, objective: Any, scale: Any) -> Any:
        """Whether an objective is as good as zero."""
        return objective <= self.atol * scale

    def flat(self, cosine: Any) -> Any:
        """Whether the gradient is as good as zero, from the largest of its cosines."""
        return cosine <= self.gtol


@dataclass(frozen=True)
class LevenbergMarquardt:
    """The package's own solver.

    Bounds are kept by every step: parameters at a bound that the gradient pushes against are held,
    the damped step of the others is solved for, those that would leave are set on their bounds, and
    the rest is solved again with them (a trust region cut by the box; Kanzow, Yamashita and
    Fukushima 2004 show that it converges).

    Parameters
    ----------
    stopping : StoppingRule
    damping : Damping
    linear_solve : LinearSolve
        With the default, and where a problem can give its Jacobian, ill-conditioned steps come from
        a QR factorisation of ``[J; √λD]`` instead.
    qr_below : float
        That is: where a column of ``J`` keeps less than this fraction of its squared norm beside
        the others. 0 never.
    """

    stopping: StoppingRule = field(default_factory=StoppingRule)
    damping: Damping = field(default_factory=NielsenDamping)
    linear_solve: LinearSolve = cholesky_solve
    qr_below: float = 1e-9
    running_scale: bool = True

    def minimise(self, problem: Problem, start: Any) -> Outcome:
        """Minimise from `start`, of shape ``(P,)`` or, for a batch in step, ``(G, P)``."""
        xp = array_namespace(start)
        bounds = getattr(problem, "bounds", None)
        stopping = self.stopping
        params = start
        objective = problem.objective(params)
        scale = getattr(problem, "scale", objective)
        shape = tuple(objective.shape)
        status = np.full(shape, _RUNNING, dtype=object)
        status[~_to_numpy(xp.isfinite(objective))] = NON_FINITE
        damping = xp.full_like(objective, self.damping.initial)
        history: list[dict[str, Any]] = []
        n_small, n_rejected = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
        fresh, n_doubts = True, 0
        at: _Here | None = None
        for _ in range(stopping.max_iterations):
            exact = _to_numpy(stopping.exact(objective, scale))
            status[(status == _RUNNING) & exact] = CONVERGED
            running = np.asarray(status == _RUNNING)
            if not running.any():
                break
            if fresh or at is None:
                at = _Here(problem, params, objective, bounds, at, self.running_scale)
                flat = running & _to_numpy(stopping.flat(at.cosine()))
                status[flat] = CONVERGED
                running = np.asarray(status == _RUNNING)
                if not running.any():
                    break
            step, solved = self._step(at, damping)
            trial = params + step
            if bounds is not None:
                trial = xp.minimum(xp.maximum(trial, bounds[0]), bounds[1])
                step = trial - params
            trial_objective = problem.objective(trial)
            predicted = at.predicted(step, damping)
            predicted = xp.where(predicted > 0, predicted, xp.ones_like(predicted))
            gain = (objective - trial_objective) / predicted
            # Of a step that can gain no more than rounding the objective can't judge; the gradient
            # is better known, so the step is trusted, and counts as small.
            noise = _rounding(objective, scale)
            rounding = (predicted <= noise) & (damping <= 1.0) & solved
            level = xp.where(rounding, objective + noise, objective)
            lower = solved & (trial_objective < level)
            accepted = lower & _like_mask(running, objective)
            small = _to_numpy(stopping.small(objective, trial_objective, scale))
            spent = _to_numpy(rounding) & running
            undamped = _to_numpy(damping <= _UNDAMPED)
            history.append(
                {
                    "objective": _plain(xp.where(accepted, trial_objective, objective)),
                    "damping": _plain(damping),
                    "gradient_norm": _plain(_norm(at.gradient)),
                    "accepted": _plain(accepted),
                }
            )
            params = xp.where(accepted[..., None], trial, params)
            objective = xp.where(accepted, trial_objective, objective)
            damping = self.damping.update(damping, accepted, gain)
            taken = _to_numpy(accepted)
            one = np.where(undamped, stopping.patience, 1)
            n_small = np.where(taken & ~small, 0, n_small + (taken | spent) * one)
            n_rejected = np.where(taken, 0, n_rejected + 1)
            enough = (taken | spent) & running & (n_small >= stopping.patience)
            if (
                not shape
                and enough
                and n_doubts < _MOST_DOUBTS
                and self._promises(at, scale, damping)
            ):
                # Small because damped: what a nearly undamped step promises isn't small.
                damping, n_small, n_doubts = damping * 1e-3, n_small * 0, n_doubts + 1
                enough = np.zeros(shape, dtype=bool)
            status[enough] = CONVERGED
            stuck = (status == _RUNNING) & _to_numpy(damping > self.damping.maximum)
            status[stuck] = STALLED
            fresh = bool(xp.any(accepted))
        status[(status == _RUNNING) & (n_rejected >= _STALLED_AFTER)] = STALLED
        status[status == _RUNNING] = MAX_ITERATIONS
        status[(status == MAX_ITERATIONS) & _to_numpy(stopping.exact(objective, scale))] = CONVERGED
        if (status == STALLED).any() and at is not None:
            # Nothing lowers the objective: at a minimum to rounding, or where J is wrong?
            step, solved = self._step(at, xp.full_like(objective, _BARELY))
            left = at.predicted(step, xp.full_like(objective, _BARELY))
            noise = _AT_A_MINIMUM * objective + 16 * _rounding(objective, scale)
            done = solved & (left <= noise + stopping.atol * scale)
            status[(status == STALLED) & _to_numpy(done)] = CONVERGED
        return Outcome(
            params=params,
            objective=objective if shape else float(objective),
            status=tuple(status.tolist()) if shape else str(status.item()),
            n_iterations=len(history),
            history=history,
        )

    def _promises(self, at: _Here, scale: Any, damping: Any) -> bool:
        """Whether with a millionth of the damping much more than `ftol` would seem to be gained."""
        less = 1e-6 * damping
        step, solved = self._step(at, less)
        least = 1e3 * self.stopping.ftol * at.objective + _rounding(at.objective, scale)
        return bool(solved and at.predicted(step, less) > least)

    def _step(self, at: _Here, damping: Any) -> tuple[Any, Any]:
        """The damped step from a point, within the bounds; and whether it could be solved for."""
        xp = array_namespace(at.gradient)
        diagonal = damping[..., None] * at.scale
        if at.bounds is None:
            return self._solve(at, at.matrix, diagonal, -at.gradient, damping)
        held = at.held
        step = xp.zeros_like(at.gradient)
        worked: Any = True
        for _ in range(at.gradient.shape[-1] + 1):
            free = xp.astype(~held, xp.float64)
            shift = (at.full @ (step * (1 - free))[..., None])[..., 0]
            rhs = free * (-at.gradient - shift) + (1 - free) * step
            matrix = at.full * free[..., :, None] * free[..., None, :]
            holding = xp.where(held, xp.ones_like(diagonal), diagonal)
            found, worked = self.linear_solve(matrix, holding, rhs)
            found = xp.where(held, step, found)
            trial = at.params + found
            leaving = ~held & ((trial < at.bounds[0]) | (trial > at.bounds[1]))
            if not bool(xp.any(leaving)):
                return found, worked
            nearest = xp.minimum(xp.maximum(trial, at.bounds[0]), at.bounds[1]) - at.params
            step = xp.where(leaving, nearest, xp.where(held, step, xp.zeros_like(step)))
            held = held | leaving
        return step, worked

    def _solve(
        self, at: _Here, matrix: Any, diagonal: Any, rhs: Any, damping: Any
    ) -> tuple[Any, Any]:
        """By the linear solve or, where the condition asks for it, by QR."""
        single = is_numpy_array(matrix) and matrix.ndim == 2
        if not (single and self.qr_below > 0 and self.linear_solve is cholesky_solve):
            return self.linear_solve(matrix, diagonal, rhs)
        step, worked, pivot = cholesky_with_pivot(matrix, diagonal, rhs)
        if pivot < self.qr_below:
            triangle = at.triangle()
            if triangle is not None:
                return _qr_solve(*triangle, np.sqrt(diagonal)), np.asarray(True)
        return step, worked


def _rounding(objective: Any, scale: Any) -> Any:
    """What rounding makes of an objective whose residuals are differences of larger numbers.

    ``½‖r + ε·τ‖² − ½‖r‖²`` is about ``ε·‖r‖·‖τ‖``.
    """
    return _EPSILON * (objective + objective**0.5 * scale**0.5)


def _norm(vector: Any) -> Any:
    """Euclidean norm along the last axis; of extreme numbers, whose squares are none, in a unit."""
    xp = array_namespace(vector)
    largest = xp.max(xp.abs(vector), axis=-1)
    extreme = (largest > 1e150) | ((largest < 1e-150) & (largest > 0))
    unit = xp.where(extreme, largest, xp.ones_like(largest))
    part = vector / unit[..., None]
    return unit * xp.sqrt(xp.sum(part * part, axis=-1))


_MOST_ENTRIES = 2_000_000
"""Of a Jacobian that is formed for a QR factorisation: 16 MB."""


class _Here:
    """A point and all that steps from it need."""

    def __init__(
        self,
        problem: Problem,
        params: Any,
        objective: Any,
        bounds: Any,
        before: _Here | None,
        running: bool,
    ) -> None:
        self._problem = problem
        self.params, self.objective, self.bounds = params, objective, bounds
        self.gradient, self.matrix = problem.linearise(params)
        self.diagonal = _positive_diagonal(self.matrix)
        self.scale = self.diagonal
        if running and before is not None:
            xp = array_namespace(self.scale)
            self.scale = xp.maximum(self.scale, before.scale)
        self._triangle: tuple[np.ndarray, np.ndarray] | None = None
        if bounds is not None:
            xp = array_namespace(self.matrix)
            upper = xp.triu(xp.astype(self.matrix, xp.float64))
            self.full = upper + xp.triu(upper, k=1).mT
            pushed_down = (params <= bounds[0]) & (self.gradient > 0)
            self.held = pushed_down | ((params >= bounds[1]) & (self.gradient < 0))

    def cosine(self) -> Any:
        """The largest cosine between the residual and a column of the Jacobian."""
        xp = array_namespace(self.gradient)
        # A root of each: their product may be no number where they are.
        norms = xp.sqrt(self.diagonal) * xp.sqrt(2 * self.objective)[..., None]
        size = xp.abs(self.gradient) / xp.where(norms > 0, norms, xp.ones_like(norms))
        if self.bounds is not None:
            size = xp.where(self.held, xp.zeros_like(size), size)
        return xp.max(size, axis=-1)

    def predicted(self, step: Any, damping: Any) -> Any:
        """The decrease of the quadratic model, ``−gᵀδ − ½δᵀHδ``."""
        xp = array_namespace(step)
        if self.bounds is None:  # Hδ = −g − λ·diag·δ, where δ is the damped step
            damped = damping[..., None] * self.scale * step
            return 0.5 * xp.sum(step * (damped - self.gradient), axis=-1)
        curved = (self.full @ step[..., None])[..., 0]
        return -xp.sum(step * (self.gradient + 0.5 * curved), axis=-1)

    def triangle(self) -> tuple[np.ndarray, np.ndarray] | None:
        """``R`` and ``Qᵀr`` of the Jacobian, or None where it's too large or can't be had."""
        if self._triangle is None:
            jacobian = getattr(self._problem, "dense_jacobian", None)
            size = getattr(self._problem, "n_residuals", _MOST_ENTRIES)
            if jacobian is None or size * len(self.params) > _MOST_ENTRIES:
                return None
            q, r = np.linalg.qr(jacobian(self.params))
            self._triangle = r, q.T @ self._problem.residual(self.params)
        return self._triangle


def _qr_solve(triangle: np.ndarray, rotated: np.ndarray, damped: np.ndarray) -> np.ndarray:
    """The least-squares solution of ``[R; √λD]·δ = [−Qᵀr; 0]``, columns scaled to one norm."""
    stacked = np.vstack([triangle, np.diag(damped)])
    norms = np.sqrt(np.sum(stacked * stacked, axis=0))
    norms[norms == 0] = 1.0
    q, r = np.linalg.qr(stacked / norms)
    rhs = -q[: len(rotated)].T @ rotated
    step, *_ = lapack.dtrtrs(r, rhs)
    return np.where(np.isfinite(step), step, 0.0) / norms


def _positive_diagonal(matrix: Any) -> Any:
    """Diagonal in float64; 1 where it's zero, so that parameters without effect get no NaN.

    No floor relative to the largest: parameters may have any units.
    """
    xp = array_namespace(matrix)
    diagonal = xp.astype(xp.linalg.diagonal(matrix), xp.float64)
    return xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal))


def _to_numpy(x: Any) -> np.ndarray:
    return np.asarray(x.cpu() if hasattr(x, "cpu") else x)


def _like_mask(mask: np.ndarray, reference: Any) -> Any:
    from array_api_compat import device

    xp = array_namespace(reference)
    return xp.asarray(mask.astype(bool), device=device(reference))


def _plain(x: Any) -> Any:
    return _to_numpy(x).tolist()
