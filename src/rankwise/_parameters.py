"""Parameters of an estimator as JSON that brings back the same values, types included."""

from __future__ import annotations

import math
from pathlib import Path, PurePath
from typing import Any

import numpy as np


def to_json(value: Any, name: str = "a parameter") -> Any:
    """A value as JSON holds it. Scalars of NumPy become Python's, which are equal to them.

    Parameters
    ----------
    value : None, bool, int, float, str, Path, tuple, list, dict or array of these
        Whatever JSON doesn't know, such as a tuple or a dict whose keys are numbers, is an object
        of one key that says what it is.
    name : str
        Begins the error.

    Raises
    ------
    ValueError
        If it is, or holds, anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [to_json(v, name) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [to_json(v, name) for v in value]}
    if isinstance(value, np.ndarray):
        return {"array": [value.dtype.str, to_json(value.tolist(), name)]}
    if isinstance(value, dict):
        return {"dict": [[to_json(k, name), to_json(v, name)] for k, v in value.items()]}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    raise ValueError(
        f"{name} is of type {type(value).__name__}, which no model file holds; None, numbers, "
        "text, paths, and lists, tuples, dicts and arrays of these, and the package's own objects, "
        "are accepted"
    )


def from_json(value: Any) -> Any:
    """What `to_json` was given.

    Raises
    ------
    ValueError
        If it can't have made this.
    """
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "float":
            return float(content)
        if kind == "tuple":
            return tuple(from_json(v) for v in content)
        if kind == "array":
            return np.array(from_json(content[1]), dtype=content[0])
        if kind == "dict":
            return {from_json(k): from_json(v) for k, v in content}
        if kind == "path":
            return Path(content)
    raise ValueError(f"a parameter can't be an object of keys {', '.join(sorted(value))}")
