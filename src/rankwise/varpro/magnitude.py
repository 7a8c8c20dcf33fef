"""Targets of extreme size: what their squares allow, and fits in another unit.

Solvers multiply squares of residuals with each other, and compare them with numbers of their own.
Of targets of 1e±100 such products are no numbers any more, so solvers see the objective of those
counted in a power of two near its size, which changes no digit. Beyond 1e±135 the squares
themselves leave no room for derivatives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rankwise.varpro.composed import whiten
from rankwise.varpro.solvers import Outcome, Solver

_ORDINARY = 100
"""Sums of squares within ``2^±100`` stay as they are."""
_LEAST, _MOST = 1e-270, 1e270
"""Of sums of squares; float64 ends at 1e±308."""
_MOST_ROOT = 1e145
"""Of a weight, and one over the least where all are small: columns are multiplied by it."""
_BLOCK = 4096
"""Right-hand sides at a time."""


def checked_squares(
    targets: np.ndarray, roots: np.ndarray | None, whitened: bool, each: bool = False
) -> np.ndarray:
    """Weighted sums of squares of each right-hand side, shape (K,).

    Raises
    ------
    ValueError
        If their sum or, where asked for, one of them is out of range, or the weights are. Targets
        of zero aren't.
    """
    largest = 1.0 if roots is None else float(np.max(np.abs(roots)))
    if not 1 / _MOST_ROOT <= largest <= _MOST_ROOT:
        raise ValueError(
            f"the largest root of a weight is {largest ** (-1 if whitened else 1):.3g}, and fits "
            f"need {1 / _MOST_ROOT:g} to {_MOST_ROOT:g}; count the targets in another unit"
        )
    k = targets.shape[1]
    sums, some = np.zeros(k), np.zeros(k, dtype=bool)
    with np.errstate(all="ignore"):
        for first in range(0, k, _BLOCK):
            columns = slice(first, first + _BLOCK)
            tau = np.asarray(targets[:, columns], np.float64)
            if roots is not None and roots.ndim == 2 and not whitened:
                tau = roots[:, columns] * tau
            else:
                tau = whiten(roots, tau)
            sums[columns], some[columns] = np.sum(tau * tau, axis=0), tau.any(axis=0)
        counted = sums[some] if each or not some.any() else np.atleast_1d(sums.sum())
    bad = counted[~((counted >= _LEAST) & (counted <= _MOST))]
    if len(bad):
        raise ValueError(
            f"the squares of the targets, weighted, add up to {bad[0]:.3g}, and fits need "
            f"{_LEAST:g} to {_MOST:g}; count the targets in another unit"
        )
    return sums


def unit_of(sums: Any) -> Any:
    """A power of two near the root of each sum of squares that is extreme; 1 of all others."""
    exponent = np.frexp(sums)[1] // 2
    return np.ldexp(1.0, np.where(2 * np.abs(exponent) > _ORDINARY, exponent, 0))


class _InUnit:
    """A problem whose residuals are counted in a unit."""

    def __init__(self, problem: Any, unit: float) -> None:
        self._problem, self._unit, self._square = problem, unit, unit * unit
        self.bounds, self.n_residuals = problem.bounds, problem.n_residuals
        self.scale = problem.scale / self._square

    @property
    def n_evaluations(self) -> int:
        return self._problem.n_evaluations

    def objective(self, params: np.ndarray) -> Any:
        return self._problem.objective(params) / self._square

    def gradient(self, params: np.ndarray) -> np.ndarray:
        return self._problem.gradient(params) / self._square

    def linearise(self, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient, matrix = self._problem.linearise(params)
        return gradient / self._square, matrix / self._square

    def residual(self, params: np.ndarray) -> np.ndarray:
        return self._problem.residual(params) / self._unit

    def dense_jacobian(self, params: np.ndarray) -> np.ndarray:
        return self._problem.dense_jacobian(params) / self._unit


def minimise(solver: Solver, problem: Any, start: np.ndarray) -> Outcome:
    """What a solver finds, of a problem with a ``scale``; in another unit where that's extreme."""
    unit = float(unit_of(problem.scale))
    if unit == 1.0:
        return solver.minimise(problem, start)
    counted: Any = _InUnit(problem, unit)
    outcome = solver.minimise(counted, start)
    square = unit * unit
    back = {"objective": square, "gradient_norm": square, "step_length": 1 / square}
    history = [{key: e[key] * back.get(key, 1) for key in e} for e in outcome.history]
    return replace(outcome, objective=outcome.objective * square, history=history)
