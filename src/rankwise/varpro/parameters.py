"""Nonlinear parameters by name: starts, bounds, which are fixed, and which are tied to others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise._process import ignoring_warnings

_STEP = 1e-20
_CENTRAL = float(np.finfo(float).eps ** (1 / 3))
_WRONG = 1e-4
"""Relative difference from central differences by which a complex step counts as wrong."""
_UNSURE = 1e-2
"""Relative difference between two central differences by which they prove nothing."""


_AT_BOUND = 1e-9
"""Relative distance."""


@dataclass(frozen=True)
class ParameterSpace:
    """All parameters ``θ`` as a function of the free ones ``φ``.

    Attributes
    ----------
    names : tuple of str
    start : array of shape (P,)
        Those of tied parameters follow from the others.
    lower, upper : arrays of shape (P,)
    fixed : frozenset of str
    tied : dict of callables
        For each tied parameter the function, and the names of its arguments.
    """

    names: tuple[str, ...]
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    fixed: frozenset[str]
    tied: dict[str, tuple[Callable[..., Any], tuple[str, ...]]]

    @property
    def free(self) -> np.ndarray:
        """Positions of the free parameters."""
        held = self.fixed | set(self.tied)
        return np.array([i for i, n in enumerate(self.names) if n not in held], dtype=int)

    @property
    def is_plain(self) -> bool:
        """Whether all parameters are free."""
        return not self.fixed and not self.tied

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of the free parameters; None where there are none."""
        lower, upper = self.lower[self.free], self.upper[self.free]
        return (lower, upper) if np.isfinite(lower).any() or np.isfinite(upper).any() else None

    def expand(self, free: np.ndarray) -> np.ndarray:
        """``θ`` from the free ones."""
        params = self.start.copy()
        params[self.free] = free
        with np.errstate(all="ignore"):  # steps that are tried and refused overflow
            for name, (function, arguments) in self.tied.items():
                value = function(*(params[self.names.index(a)] for a in arguments))
                params[self.names.index(name)] = value
        return params

    def slope(self, free: np.ndarray) -> np.ndarray:
        """``∂θ/∂φ``, shape ``(P, F)``; of ties as `slope_of_tie` has them."""
        params, at = self.expand(free), self.free
        table = np.zeros((len(self.names), len(at)))
        table[at, np.arange(len(at))] = 1.0
        for name, (function, arguments) in self.tied.items():
            values = [params[self.names.index(a)] for a in arguments]
            for i, argument in enumerate(arguments):
                if argument in self.fixed:
                    continue
                d, _ = slope_of_tie(function, values, i)
                table[self.names.index(name)] += d * table[self.names.index(argument)]
        return table

    def at_bound(self, params: np.ndarray) -> np.ndarray:
        """Which parameters are at a bound, or as near as a method that stays inside comes."""
        with np.errstate(invalid="ignore"):
            near = _AT_BOUND * np.maximum(1.0, np.abs(params))
            return (params - self.lower <= near) | (self.upper - params <= near)


def slope_of_tie(
    function: Callable[..., Any], values: Sequence[float], i: int
) -> tuple[float, bool]:
    """A tie's slope in one of its arguments, and whether it could be told.

    By a complex step, exact where the function is analytic, and held against central differences.
    It's theirs where the function gives no complex numbers, as ``abs`` and those of ``math``, or
    where they agree with themselves and not with the step.
    """
    size = abs(values[i]) or 1.0
    step, h = _STEP * size, _CENTRAL * size
    with np.errstate(all="ignore"), ignoring_warnings():
        exact = _moved(function, values, i, 1j * step).imag / step
        ends = [_moved(function, values, i, s * h).real for s in (1.0, -1.0, 0.25, -0.25)]
        coarse, fine = (ends[0] - ends[1]) / (2 * h), 2 * (ends[2] - ends[3]) / h
        noise = 8 * np.finfo(float).eps * max(map(abs, ends)) / h
    if not np.isfinite(exact):
        return fine, bool(abs(coarse - fine) <= _UNSURE * abs(fine) + noise)
    largest, own = max(abs(exact), abs(fine)), abs(coarse - fine)
    wrong = own <= _UNSURE * largest and abs(exact - fine) > _WRONG * largest + 2 * own + noise
    return (fine if wrong else exact), True


def _moved(function: Callable[..., Any], values: Sequence[float], i: int, by: Any) -> complex:
    """A function's value with one argument moved; NaN where it takes or gives no such number."""
    moved = list(values)
    moved[i] = values[i] + by
    try:
        value = np.asarray(function(*moved))
        lost = np.iscomplexobj(by) and not np.iscomplexobj(value)
        return complex(np.nan, np.nan) if lost else complex(value.item())
    except (TypeError, ValueError, ArithmeticError):
        return complex(np.nan, np.nan)


def parameter_space(
    names: Sequence[str],
    start: Any,
    bounds: Any = None,
    fixed: Any = (),
    tied: Mapping[str, Any] | None = None,
) -> ParameterSpace:
    """Read what a caller says of the nonlinear parameters; refuse what can't be.

    Parameters
    ----------
    names : sequence of str
    start : array of shape (P,) or dict
        With a dict, tied parameters may be left out.
    bounds : pair of scalars or arrays of shape (P,), or dict of pairs, optional
        ``(lower, upper)``, as in SciPy; or for some names.
    fixed : sequence of str
        Parameters that keep their start.
    tied : dict, optional
        For a parameter the name of another that it equals, or a function of others, found by its
        arguments' names.

    Raises
    ------
    ValueError
        If a name isn't known, a start is missing, not finite or outside its bounds, a lower bound
        isn't below its upper one, or a tie or its slope can't be followed.
    """
    names, fixed = tuple(names), checked_fixed(fixed)
    if tied is not None and not isinstance(tied, Mapping):
        raise ValueError(f"tied must be a dict of names or functions, got {tied!r}")
    tied = dict(tied or {})
    known = f"the model's parameters are {', '.join(names) or 'none'}"
    for what, given in (("fixed", fixed), ("tied", tied)):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"{what} names {', '.join(map(repr, unknown))}; {known}")
    both = sorted(set(fixed) & set(tied))
    if both:
        raise ValueError(f"{', '.join(both)} can't be both fixed and tied")
    values = _starts(names, start, set(tied), known)
    lower, upper = _bounds(names, bounds, known)
    for i, name in enumerate(names):
        if name in tied:
            if np.isfinite(lower[i]) or np.isfinite(upper[i]):
                raise ValueError(f"{name} is tied and can't have bounds; bound what it is tied to")
            continue
        if not lower[i] <= values[i] <= upper[i]:
            raise ValueError(
                f"the start of {name}, {values[i]:g}, is outside its bounds "
                f"[{lower[i]:g}, {upper[i]:g}]"
            )
        if name not in fixed and lower[i] == upper[i]:
            raise ValueError(f"{name} has equal bounds; name it in fixed instead")
    ties = {name: _tie(name, given, names, tied, known) for name, given in tied.items()}
    space = ParameterSpace(names, values, lower, upper, frozenset(fixed), ties)
    values[:] = space.expand(values[space.free])
    if not np.isfinite(values).all():
        bad = [n for n, v in zip(names, values, strict=True) if not np.isfinite(v)]
        raise ValueError(f"the start of {', '.join(bad)} isn't finite")
    for name, (function, arguments) in ties.items():
        at = [values[names.index(a)] for a in arguments]
        for i, argument in enumerate(arguments):
            if argument not in fixed and not slope_of_tie(function, at, i)[1]:
                raise ValueError(
                    f"{name} is tied by a function that gives no complex numbers, and whose "
                    f"differences don't tell its slope at {argument} = {at[i]:g}; write it with "
                    "numpy's functions, or start elsewhere"
                )
    return space


def checked_fixed(fixed: Any) -> list[str]:
    """Names of fixed parameters as a list."""
    if isinstance(fixed, str):
        return [fixed]
    if not isinstance(fixed, (list, tuple, set, frozenset)) or not all(
        isinstance(name, str) for name in fixed
    ):
        raise ValueError(f"fixed must be a list of names of parameters, got {fixed!r}")
    return list(fixed)


def _starts(names: tuple[str, ...], start: Any, tied: set[str], known: str) -> np.ndarray:
    if isinstance(start, Mapping):
        unknown = [name for name in start if name not in names]
        if unknown:
            raise ValueError(f"start names {', '.join(map(repr, unknown))}; {known}")
        missing = [name for name in names if name not in start and name not in tied]
        if missing:
            raise ValueError(f"start has no value for {', '.join(missing)}")
        start = [start.get(name, 0.0) for name in names]
    values = real_vector("start", start)
    if len(values) != len(names):
        raise ValueError(f"start has {len(values)} parameters, the basis has {len(names)}")
    return values


def real_vector(name: str, value: Any) -> np.ndarray:
    """Finite real numbers as a new float64 vector, or one sentence that says what is wrong."""
    return np.atleast_1d(real_array(name, value, most=1))


def real_array(name: str, value: Any, most: int) -> np.ndarray:
    """The same of at most so many dimensions."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must be real, got complex numbers")
    if array.dtype.kind not in "biuf" or array.ndim > most:
        raise ValueError(f"{name} must be a list of real numbers, got {value!r}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, found NaN or infinity")
    return array


def _bounds(names: tuple[str, ...], bounds: Any, known: str) -> tuple[np.ndarray, np.ndarray]:
    n = len(names)
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    if bounds is None:
        return lower, upper
    accepted = (
        "bounds must be (lower, upper), each one number or one a parameter, or a dict of them"
    )
    try:
        if isinstance(bounds, Mapping):
            unknown = [name for name in bounds if name not in names]
            if unknown:
                raise ValueError(f"bounds names {', '.join(map(repr, unknown))}; {known}")
            for name, (low, high) in bounds.items():
                i = names.index(name)
                lower[i] = -np.inf if low is None else low
                upper[i] = np.inf if high is None else high
        else:
            low, high = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else bounds
            lower[:], upper[:] = np.asarray(low, float), np.asarray(high, float)
    except (TypeError, ValueError) as error:
        if "bounds names" in str(error):
            raise
        raise ValueError(f"{accepted}; got {bounds!r} for {n} parameters") from None
    for name, low, high in zip(names, lower, upper, strict=True):
        if not low <= high:
            raise ValueError(f"the bounds of {name}, [{low:g}, {high:g}], are in the wrong order")
    return lower, upper


def _tie(
    name: str, given: Any, names: tuple[str, ...], tied: Mapping[str, Any], known: str
) -> tuple[Callable[..., Any], tuple[str, ...]]:
    if isinstance(given, str):
        arguments: tuple[str, ...] = (given,)

        def function(value: Any) -> Any:
            return value
    elif callable(given):
        function = given
        arguments = tuple(inspect.signature(given).parameters)
    else:
        raise ValueError(
            f"{name} must be tied to a name or a function of other parameters, got {given!r}"
        )
    for argument in arguments:
        if argument not in names:
            raise ValueError(f"{name} is tied to {argument!r}; {known}")
        if argument in tied:
            raise ValueError(
                f"{name} is tied to {argument}, which is tied itself; tie it to a free one"
            )
    return function, arguments
