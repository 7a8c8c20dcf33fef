"""L-BFGS on many problems in step, so that all of them take their values from one look at the data.

Nocedal & Wright (2006), algorithm 7.4, with a backtracking search: a trial that doesn't go down
enough (Armijo) is tried again nearer. The problems share nothing but the look.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

Precondition = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Positions of problems (a,) and vectors (a, D) to an inverse Hessian's estimate times them."""

MEMORY = 10
"""Pairs that a problem keeps at most; SciPy's default."""

_ARMIJO = 1e-4
_SHORTEST = 1e-8
_NOISE = 16.0
_CURVED = 1e-8


class Descents:
    """The state of all problems; it is told values and gradients at `trials`, and sets new ones.

    Parameters
    ----------
    start : array of shape (P, D)
    gain, share : float
        A problem has converged where ``½ gᵀH g``, what the next step would gain, is below `gain`,
        and below this share of the value.
    eps : float
        Relative rounding of the values that it will be told.
    precondition : callable, optional
        Where L-BFGS begins in each step. Default: the scale of the last step.
    memory : int
        Pairs to keep, two arrays of the size of `start` each.

    Attributes
    ----------
    active : int array
        Problems that go on, in the order of `trials`.
    trials : array of shape (a, D)
    points : array of shape (P, D)
        The best points so far of those that are done, and all after `finish`.
    converged : bool array of shape (P,)
    """

    def __init__(
        self,
        start: Float[np.ndarray, "P D"],
        gain: float,
        *,
        share: float = np.inf,
        eps: float,
        precondition: Precondition | None = None,
        memory: int = MEMORY,
    ) -> None:
        n, size = start.shape
        self.active: Int[np.ndarray, "a"] = np.arange(n)
        self.points, self.trials = start.copy(), start.copy()
        self.converged = np.zeros(n, dtype=bool)
        self._gain, self._share = gain, share
        self._eps, self._precondition = eps, precondition
        self._at = start.copy()
        self._values, self._gradients = np.full(n, np.inf), np.zeros((n, size))
        self._directions, self._steps = np.zeros((n, size)), np.ones(n)
        self._longest, self._scales = np.ones(n), np.ones(n)
        self._through = self._gradients if precondition is None else np.zeros((n, size))
        self._pairs: list[tuple[np.ndarray, ...]] = []
        self._memory = memory

    def tell(
        self, values: Float[np.ndarray, "a"], gradients: Float[np.ndarray, "a D"]
    ) -> Bool[np.ndarray, "a"]:
        """Values and gradients at the trials; which of them are better than the points before."""
        slopes = _dot(self._directions, self._gradients)
        slack = _NOISE * self._eps * np.abs(values)
        bound = self._values + _ARMIJO * self._steps * slopes
        good = values <= bound + np.where(np.isinf(bound), 0.0, slack)
        first = np.isinf(self._values)
        through = gradients
        if self._precondition is not None:
            through = self._precondition(self.active, gradients)
        self._remember(good & ~first, gradients, through)
        self._steps = np.where(good, 1.0, self._shorter(values, slopes))
        rows = np.flatnonzero(good)
        self._at[rows], self._gradients[rows] = self.trials[rows], gradients[rows]
        if self._precondition is not None:
            self._through[rows] = through[rows]
        self._values = np.where(good, values, self._values)
        self._directions[rows] = -self._newton(rows)
        gain = -0.5 * _dot(self._directions, self._gradients)
        # Before the first pair nothing is known of the scale, unless there is a preconditioner.
        known = ~first | (self._precondition is not None)
        flat = ~np.any(self._gradients, axis=1)
        enough = np.minimum(self._gain, self._share * np.abs(self._values))
        converged = good & ((known & (gain <= enough)) | flat)
        if self._precondition is None and first.any():
            # Nothing is known of the scale yet: a step of length one at most.
            length = np.sqrt(_dot(self._directions, self._directions))
            self._steps = np.where(first, 1.0 / np.maximum(length, 1.0), self._steps)
            self._longest = np.where(first, self._steps, self._longest)
        self.trials = self._at + self._steps[:, None] * self._directions
        self.converged[self.active[converged]] = True
        self.finish(converged | (self._steps < _SHORTEST * np.minimum(1.0, self._longest)))
        return good

    def finish(self, done: Bool[np.ndarray, "a"] | None = None) -> None:
        """Leave some of the active problems where they are; default all."""
        done = np.ones(len(self.active), dtype=bool) if done is None else done
        if not done.any():
            return
        self.points[self.active[done]] = self._at[done]
        go = ~done
        self.active, self.trials, self._at = self.active[go], self.trials[go], self._at[go]
        self._values, self._gradients = self._values[go], self._gradients[go]
        self._directions, self._steps = self._directions[go], self._steps[go]
        self._longest, self._scales = self._longest[go], self._scales[go]
        self._through = self._gradients if self._precondition is None else self._through[go]
        self._pairs = [tuple(v[go] for v in pair) for pair in self._pairs]

    def _remember(self, good: np.ndarray, gradients: np.ndarray, through: np.ndarray) -> None:
        """The pair of the step just taken; of no weight for a problem that took none."""
        if not good.any():
            return
        moved, turned = self.trials - self._at, gradients - self._gradients
        along = _dot(moved, turned)
        use = good & (along > _CURVED * np.sqrt(_dot(moved, moved) * _dot(turned, turned)))
        inverse = np.where(use, 1.0 / np.where(use, along, 1.0), 0.0)
        turned_through = turned if self._precondition is None else through - self._through
        self._pairs.append((moved, turned, turned_through, inverse))
        del self._pairs[: -self._memory]

    def _shorter(self, values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """The minimum of the parabola through what is known, between a tenth and a half."""
        rise = values - self._values - self._steps * slopes
        with np.errstate(divide="ignore", invalid="ignore"):
            best = -0.5 * slopes * self._steps / rise
        best = np.where(np.isfinite(best), best, 0.1)
        return self._steps * np.clip(best, 0.1, 0.5)

    def _newton(self, rows: np.ndarray) -> np.ndarray:
        """The inverse Hessian's estimate times the gradients of some problems."""
        every = len(rows) == len(self.active)
        some = (lambda v: v) if every else (lambda v: v[rows])
        pairs = [tuple(map(some, pair)) for pair in self._pairs]
        # The preconditioner is linear, so what it makes of the pairs is known from before.
        found, through = self._gradients[rows].copy(), self._through[rows].copy()
        factors = []
        for moved, turned, turned_through, inverse in reversed(pairs):
            factor = inverse * _dot(moved, found)
            found -= factor[:, None] * turned
            if turned_through is not turned:
                through -= factor[:, None] * turned_through
            factors.append(factor)
        if self._precondition is not None:
            found = through
        if pairs:
            # The scale that the last step had, in the directions of the preconditioner.
            _, turned, turned_through, inverse = pairs[-1]
            squares = inverse * _dot(turned, turned_through)
            use = squares > 0
            scale = np.where(use, 1.0 / np.where(use, squares, 1.0), self._scales[rows])
            self._scales[rows] = scale
            found *= scale[:, None]
        for (moved, turned, _, inverse), factor in zip(pairs, reversed(factors), strict=True):
            found += (factor - inverse * _dot(turned, found))[:, None] * moved
        return found


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products, row by row."""
    return np.einsum("pj,pj->p", a, b)
