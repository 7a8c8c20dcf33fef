"""Columns as functions give them, and their derivatives by complex steps or differences."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

_STEP = 1e-20
_CENTRAL = float(np.finfo(float).eps ** (1 / 3))


def arguments_after_x(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's positional arguments after the first."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ValueError("the function's arguments can't be read; pass parameters=[…]") from error
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if any(a.kind not in kinds for a in arguments) or not arguments:
        raise ValueError(
            "the function must have the arguments (x, *parameters) with a name for each parameter, "
            "or pass their names as parameters=[…]"
        )
    return tuple(a.name for a in arguments[1:])


def checked_names(names: Any) -> tuple[str, ...]:
    """Names of parameters: text, each once."""
    if isinstance(names, str):
        raise ValueError(f"parameters must be a list of names, got the text {names!r}")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"parameters must be names such as 'rate', got {name!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"parameters must have different names, twice: {', '.join(twice)}")
    return names


def stack_columns(given: Any, n: int, batch: bool = False, dtype: type = float) -> np.ndarray:
    """Columns as a function gave them, as one array of shape (…, n, m).

    Parameters
    ----------
    given : tuple or list of arrays, or array of shape (n, m) or (n,)
    n : int
        Rows.
    batch : bool
        Whether each column may have a leading axis.
    dtype : {float, complex}
    """
    if isinstance(given, (tuple, list)):
        columns = [np.asarray(c) for c in given]
        if batch:
            size = max((c.shape[0] for c in columns if c.ndim == 2), default=1)
            shape: tuple[int, ...] = (size, n)
        else:
            shape = (n,)
        # One column after another in memory: numpy's loops run along rows then.
        found: np.ndarray = np.empty((*shape[:-1], len(columns), n), dtype=dtype)
        for j, c in enumerate(columns):
            put_column(found, j, c, n)
        return found.swapaxes(-1, -2)
    array = np.asarray(given)
    _refuse(array, dtype)
    if batch:
        raise ValueError(
            "many fits at once need a model whose function gives a tuple of columns, one function "
            "of x and the parameters each, not an array (n, m)"
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != n:
        raise ValueError(
            f"the model must give columns of shape ({n}, m), one row for each x, got shape "
            f"{array.shape}"
        )
    return array.astype(dtype)


def side_by_side(parts: list[np.ndarray]) -> np.ndarray:
    """Columns (…, n, m) joined, one after another in memory."""
    return np.concatenate([p.swapaxes(-1, -2) for p in parts], axis=-2).swapaxes(-1, -2)


def put_column(found: np.ndarray, j: int, column: Any, n: int) -> None:
    """Write a column into row ``j`` of an array (…, m, n)."""
    column = np.asarray(column)
    _refuse(column, complex if found.dtype.kind == "c" else float)
    try:
        found[..., j, :] = column
    except ValueError:
        raise ValueError(
            f"the model's columns must each have {n} rows, as x has, got shape {column.shape}"
        ) from None


def _refuse(column: np.ndarray, dtype: type) -> None:
    if column.dtype.kind == "c" and dtype is float:
        raise ValueError(
            "the model gave complex numbers, and fits are real; stack real and imaginary parts "
            "as rows of one real problem"
        )
    if column.dtype.kind not in "biufc":
        raise ValueError(f"the model must give numbers, got {column.dtype}")


def one_each(params: Any) -> list[Any]:
    """One value a parameter; of a batch, one column (G, 1) each, which broadcasts against x."""
    params = np.asarray(params)
    if params.ndim == 2:
        return [params[:, i : i + 1] for i in range(params.shape[1])]
    return list(params)


def complex_step(function: Callable[..., np.ndarray], values: list[Any], i: int) -> np.ndarray:
    """``Im f(θ + i·h·e_i)/h``, with a step relative to the parameter."""
    size = np.abs(values[i])
    h = _STEP * np.where(size > 0, size, 1.0)
    shifted = list(values)
    shifted[i] = values[i] + 1j * h
    try:
        d = function(*shifted)
    except TypeError as error:
        raise ValueError(
            f"the model can't be evaluated at complex parameters ({error}); pass "
            "derivatives='finite-differences', 'torch' or your own"
        ) from error
    return d.imag / (h[..., None] if np.ndim(h) else h)


def central_differences(
    function: Callable[[np.ndarray], np.ndarray], params: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """Central differences, shape ``(…, n, m, P)``."""
    parts = []
    for i in range(params.shape[-1]):
        size = np.abs(params[..., i])
        h = factor * _CENTRAL * np.where(size > 0, size, 1.0)
        up, down = params.copy(), params.copy()
        up[..., i] += h
        down[..., i] -= h
        width = (up[..., i] - down[..., i])[..., None, None]
        parts.append((function(up) - function(down)) / width)
    return np.stack(parts, axis=-1)
