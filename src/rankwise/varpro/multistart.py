"""Many starts, and the minima that they lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import qmc

from rankwise.varpro.curves import CurveFit, curve_fit_of
from rankwise.varpro.parameters import ParameterSpace
from rankwise.varpro.specification import Specification


@dataclass(frozen=True)
class Minimum:
    """A minimum that was found.

    Attributes
    ----------
    objective : float
    params : array of shape (P,)
    starts : int array
        Which starts led there.
    """

    objective: float
    params: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True)
class Multistart:
    """The best of many fits, and a report of all.

    Attributes
    ----------
    best : CurveFit
    minima : list of Minimum
        By objective, the lowest first. Fits whose objectives agree to `rtol` count as one, as
        those of terms in another order do.
    starts : array of shape (n, P)
    n_failed : int
        Fits that didn't converge.
    """

    best: CurveFit
    minima: list[Minimum]
    starts: np.ndarray
    n_failed: int

    def report(self) -> str:
        """A table of the minima, in at most 80 columns."""
        lines = [
            f"{len(self.starts)} starts, {len(self.minima)} minima, {self.n_failed} not converged",
            "",
            f"{'objective':>13} {'starts':>7}  {', '.join(self.best.names)}",
            "-" * 78,
        ]
        for m in self.minima:
            values = ", ".join(f"{v:.5g}" for v in m.params)
            lines.append(f"{m.objective:>13.6g} {len(m.starts):>7}  {values}"[:80])
        return "\n".join(lines)


def draw_starts(spec: Specification, n: int, seed: int, scale: str) -> np.ndarray:
    """Starts spread over the bounds by a Latin hypercube, uniformly or in their logarithms."""
    space = spec.space
    if scale not in ("linear", "log"):
        raise ValueError(f"unknown scale {scale!r}; accepted: linear, log")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n_starts must be a whole number of at least 1, got {n!r}")
    free = space.free
    lower, upper = space.lower[free], space.upper[free]
    for name, low, high in zip(np.array(space.names)[free], lower, upper, strict=True):
        if not np.isfinite([low, high]).all():
            raise ValueError(f"starts are drawn within bounds, and {name} has none on both sides")
        if scale == "log" and low <= 0:
            raise ValueError(f"scale='log' needs bounds above 0, and {name} begins at {low:g}")
    if scale == "log":
        lower, upper = np.log(lower), np.log(upper)
    drawn = qmc.LatinHypercube(len(free), rng=np.random.default_rng(seed)).random(n)
    drawn = lower + drawn * (upper - lower)
    if scale == "log":
        drawn = np.clip(np.exp(drawn), space.lower[free], space.upper[free])
    return np.stack([space.expand(row) for row in drawn])


def given_starts(space: ParameterSpace, starts: Any) -> np.ndarray:
    """Starts as a caller gives them, of shape (n, P), checked."""
    given = np.atleast_2d(np.asarray(starts, dtype=np.float64))
    if given.shape[1] != len(space.names) or not np.isfinite(given).all():
        raise ValueError(
            f"starts must be finite, of shape (n, {len(space.names)}), got {given.shape}"
        )
    if (given < space.lower).any() or (given > space.upper).any():
        raise ValueError("a start is outside the bounds")
    for name, value, column in zip(space.names, space.start, given.T, strict=True):
        if name in space.fixed and (column != value).any():
            raise ValueError(
                f"starts must keep {name}, which is fixed at {value:g}, got "
                f"{column[column != value][0]:g}"
            )
    return given


def multistart(spec: Specification, starts: np.ndarray, rtol: float, advance: Any) -> Multistart:
    """Fit from each start."""
    fits: list[CurveFit] = []
    for start in starts:
        space = replace(spec.space, start=start)
        fits.append(curve_fit_of(replace(spec, space=space)))
        advance(1)
    good = [i for i, f in enumerate(fits) if f.converged]
    failed = len(fits) - len(good)
    order = sorted(good, key=lambda i: (fits[i].objective, i))
    minima: list[Minimum] = []
    nothing = 1e-20 * float(spec.full_problem().scale)
    for i in order:
        value = fits[i].objective
        if minima and value - minima[-1].objective <= rtol * minima[-1].objective + nothing:
            last = minima[-1]
            minima[-1] = replace(last, starts=np.append(last.starts, i))
        else:
            minima.append(Minimum(value, fits[i].params, np.array([i])))
    finite = [i for i, f in enumerate(fits) if np.isfinite(f.objective)]
    best = order[0] if order else min(finite or [0], key=lambda i: fits[i].objective)
    return Multistart(fits[best], minima, starts, failed)
