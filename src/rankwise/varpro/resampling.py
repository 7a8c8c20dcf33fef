"""Intervals by fitting again: profile likelihood, bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import optimize

from rankwise.varpro.specification import DataSet, Specification
from rankwise.varpro.statistics import Statistics, check_level

KINDS = ("residuals", "wild", "pairs")
_MOST_DOUBLINGS = 12


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    estimate, lower, upper : float
    level : float
    """

    estimate: float
    lower: float
    upper: float
    level: float


@dataclass(frozen=True)
class Bootstrap:
    """Parameters of the refits.

    Attributes
    ----------
    params : array of shape (n, P)
    coef : array of shape (n, m, K), or a list of them with several data sets
    n_failed : int
        Refits that didn't converge; they are left out.
    names : tuple of str
    """

    params: np.ndarray
    coef: Any
    n_failed: int
    names: tuple[str, ...]

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Percentiles of the nonlinear parameters, each of shape (P,)."""
        check_level(level)
        tail = 50 * (1 - level)
        lower, upper = np.percentile(self.params, [tail, 100 - tail], axis=0)
        return lower, upper

    def coef_interval(self, level: float = 0.95, dataset: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Percentiles of the linear parameters, each of shape (m, K)."""
        check_level(level)
        coef = self.coef[dataset] if isinstance(self.coef, list) else self.coef
        tail = 50 * (1 - level)
        lower, upper = np.percentile(coef, [tail, 100 - tail], axis=0)
        return lower, upper

    @property
    def stderr(self) -> np.ndarray:
        """Standard deviations of the nonlinear parameters."""
        return np.std(self.params, axis=0, ddof=1)


def profile(
    spec: Specification,
    statistics: Statistics,
    parameter: str | int,
    level: float,
    dataset: int,
    column: int,
) -> Interval:
    """See `CurveFit.profile`."""
    check_level(level)
    if spec.loss != "linear" or spec.ridge > 0:
        raise ValueError("a profile needs the likelihood of plain least squares: no ridge, no loss")
    if isinstance(parameter, str):
        estimate, error, low, high, fixed = _nonlinear(spec, statistics, parameter)
    else:
        estimate, error, low, high, fixed = _linear(spec, statistics, parameter, dataset, column)
    unit = 1.0 if spec.absolute_sigma else statistics.variance
    best, want = statistics.rss, statistics.quantile(level)
    if not (np.isfinite(want) and unit > 0 and np.isfinite(error) and error > 0):
        return Interval(estimate, -np.inf, np.inf, level)
    warm = [statistics.params.copy()]

    def distance(value: float) -> float:
        """How far the likelihood has fallen, in the unit of `want`."""
        again = fixed(value)
        outcome, _, _ = again.run(warm[0])
        if np.isfinite(outcome.objective):
            warm[0] = again.space.expand(outcome.params)
        return float(np.sqrt(max(2 * float(outcome.objective) - best, 0.0) / unit)) - want

    ends = []
    for sign, end in ((-1.0, low), (1.0, high)):
        warm[0] = statistics.params.copy()
        step, inner, found = want * error, estimate, sign * np.inf
        for _ in range(_MOST_DOUBLINGS):
            outer = float(np.clip(estimate + sign * step, low, high))
            if distance(outer) >= 0:
                found = optimize.brentq(distance, inner, outer, xtol=1e-6 * error, rtol=1e-8)
                break
            if outer == end:
                found = end
                break
            inner, step = outer, 2 * step
        ends.append(float(found))
    return Interval(estimate, ends[0], ends[1], level)


Fixed = Callable[[float], Specification]


def _nonlinear(
    spec: Specification, statistics: Statistics, name: str
) -> tuple[float, float, float, float, Fixed]:
    space = spec.space
    if name not in space.names:
        raise ValueError(
            f"no parameter {name!r}; the model's parameters are {', '.join(space.names)}"
        )
    if name in space.fixed or name in space.tied:
        raise ValueError(f"{name} is fixed or tied; only free parameters have a profile")
    i = space.names.index(name)

    def fixed(value: float) -> Specification:
        start = statistics.params.copy()
        start[i] = value
        held = replace(space, start=start, fixed=space.fixed | {name})
        return replace(spec, space=held)

    error = statistics.params_stderr[i]
    return float(statistics.params[i]), float(error), space.lower[i], space.upper[i], fixed


def _linear(
    spec: Specification, statistics: Statistics, j: int, dataset: int, column: int
) -> tuple[float, float, float, float, Fixed]:
    d = spec.data[dataset]
    m, k = d.n_columns, d.targets.shape[1]
    if not 0 <= j < m:
        raise ValueError(f"no linear parameter {j}; there are {m}, from 0 on")
    lower, upper = d.linear_bounds or (np.full((m, k), -np.inf), np.full((m, k), np.inf))
    estimate = float(statistics.coef[dataset][j, column])
    error = float(statistics.coef_stderr(dataset)[j, column])

    def fixed(value: float) -> Specification:
        low, high = lower.copy(), upper.copy()
        low[j, column] = high[j, column] = value
        data = list(spec.data)
        data[dataset] = replace(d, linear_bounds=(low, high))
        return replace(spec, data=tuple(data))

    return estimate, error, lower[j, column], upper[j, column], fixed


def bootstrap(
    spec: Specification,
    statistics: Statistics,
    n: int,
    kind: str,
    seed: int,
    advance: Callable[[int], object],
) -> Bootstrap:
    """See `CurveFit.bootstrap`."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; accepted: {', '.join(KINDS)}")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
        raise ValueError(f"n must be a whole number of at least 2, got {n!r}")
    whitened = [d for d in spec.data if d.whitened]
    if whitened and kind != "residuals":
        raise ValueError("with a covariance of the data only kind='residuals' resamples rightly")
    fitted = [
        d.basis.features(statistics.params[d.place]) @ coef
        for d, coef in zip(spec.data, statistics.coef, strict=True)
    ]
    params, coefs, failed = [], [], 0
    for b in range(n):
        rng = np.random.default_rng(np.random.SeedSequence([seed, b]))
        data = tuple(
            _resampled(d, fit, kind, rng, statistics)
            for d, fit in zip(spec.data, fitted, strict=True)
        )
        again = replace(spec, data=data)
        outcome, problem, _ = again.run(statistics.params)
        advance(1)
        if outcome.status != "converged":
            failed += 1
            continue
        found = spec.space.expand(outcome.params)
        params.append(found)
        coefs.append(again.coefficients(found, problem))
    if len(params) < 2:
        raise ValueError(f"{failed} of {n} refits didn't converge; too few are left to tell")
    stacked = [np.stack(parts) for parts in zip(*coefs, strict=True)]
    return Bootstrap(
        np.stack(params), stacked if spec.several else stacked[0], failed, spec.space.names
    )


def _resampled(
    d: DataSet, fit: np.ndarray, kind: str, rng: np.random.Generator, statistics: Statistics
) -> DataSet:
    """A data set drawn anew."""
    n = len(d.targets)
    if kind == "pairs":  # a row drawn c times has c times its weight
        counts = np.sqrt(np.bincount(rng.integers(n, size=n), minlength=n).astype(float))
        if d.roots is None:
            return replace(d, roots=counts)
        return replace(d, roots=d.roots * (counts if d.roots.ndim == 1 else counts[:, None]))
    residual = d.targets - fit
    inflate = np.sqrt(statistics.n_observations / max(statistics.dof, 1.0))
    if kind == "wild":
        signs = rng.choice([-1.0, 1.0], size=(n, 1))  # one a row: right-hand sides stay together
        return replace(d, targets=fit + inflate * signs * residual)
    if d.whitened:
        assert d.roots is not None
        white = np.linalg.solve(d.roots, residual)
        return replace(d, targets=fit + inflate * d.roots @ white[rng.integers(n, size=n)])
    roots = np.ones((n, 1)) if d.roots is None else d.roots.reshape(n, -1)
    used = np.flatnonzero((roots > 0).all(axis=1))
    if len(used) == 0:
        raise ValueError(
            "kind='residuals' draws rows whose weights are all above 0, and there are none; "
            "kind='wild' and kind='pairs' need no such row"
        )
    white = (roots * residual)[used]
    white -= white.mean(axis=0)
    drawn = white[rng.integers(len(used), size=n)]
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.where(roots > 0, inflate * drawn / roots, 0.0)
    return replace(d, targets=fit + noise)
