"""One comparer: a model that was saved, pickled, cloned or fitted again is the same, to the bit.

It takes any estimator of images or rows. What it finds different is named by its path.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

ANSWERS = ("outputs", "decision_function", "predict", "predict_proba", "predict_log_proba")
TIMES = ("seconds", "seconds_", "seconds_per_iteration", "time")
"""What another fit can't repeat."""


def differences(a: Any, b: Any, path: str = "", *, times: bool = True) -> list[str]:
    """Where two values differ, in type, dtype or any bit.

    Parameters
    ----------
    times : bool
        False leaves out what a clock said.
    """
    if type(a) is not type(b):
        # Scalars of NumPy are equal to Python's, and so are their hashes.
        if isinstance(a, np.generic) and not isinstance(b, np.generic):
            return differences(a.item(), b, path, times=times)
        return [f"{path}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, torch.nn.Module):
        a, b = a.state_dict(), b.state_dict()
        return differences(dict(a), dict(b), path, times=times)
    if isinstance(a, (torch.Tensor, np.ndarray)):
        a, b = np.asarray(a), np.asarray(b)
        same = a.dtype == b.dtype and a.shape == b.shape
        same = same and a.flags.c_contiguous == b.flags.c_contiguous
        return [] if same and _equal(a, b) else [path]
    if is_dataclass(a):
        a = {f.name: getattr(a, f.name) for f in fields(a)}
        b = {f.name: getattr(b, f.name) for f in fields(b)}
    if isinstance(a, dict):
        kinds = [[type(k.item() if isinstance(k, np.generic) else k) for k in d] for d in (a, b)]
        if list(a) != list(b) or kinds[0] != kinds[1]:
            return [f"{path}: keys {list(a)} and {list(b)}"]
        keys = [k for k in a if times or k not in TIMES]
        return [d for k in keys for d in differences(a[k], b[k], f"{path}.{k}", times=times)]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} items"]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}[{i}]", times=times)]
    if isinstance(a, np.random.RandomState):
        return differences(a.get_state(), b.get_state(), path)
    return [] if a == b or (a != a and b != b) else [f"{path}: {a!r} and {b!r}"]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def learned(model: Any) -> dict[str, Any]:
    """All that a fit left that has a public name, properties included."""
    names = {n for n in (*vars(model), *dir(type(model))) if n.endswith("_") and n[0] != "_"}
    return {n: getattr(model, n) for n in sorted(names) if hasattr(model, n)}


def state(model: Any, X: Any, *, times: bool = True) -> dict[str, Any]:
    """Everything that must be the same."""
    answers = {n: getattr(model, n)(X) for n in ANSWERS if hasattr(model, n)}
    return {
        "class": type(model).__qualname__,
        "parameters": dict(sorted(model.get_params(deep=False).items())),
        "learned": learned(model),
        "answers": answers,
        "refusal": refusal(model, X),
    }


def refusal(model: Any, X: Any) -> str | None:
    """What a model says to columns in another order, if it knows their names."""
    if not hasattr(X, "columns"):
        return None
    try:
        model.predict(X[X.columns[::-1]])
    except ValueError as error:
        return str(error)
    return "none"


def check_the_same(make: Any, X: Any, y: Any, folder: Any, *, saves: bool = True) -> None:
    """Fit, then: save and load, pickle, copy, clone and fit; and fit the last of each again.

    The copy is pickled, and what was loaded is saved and loaded once more: what one step loses, the
    next one's fit hasn't got either.

    Parameters
    ----------
    make : callable
        Gives the estimator, unfitted.
    X, y : array-like
    folder : Path
        An empty one.
    saves : bool
        Whether it has ``save`` and ``load``.
    """
    model = make().fit(X, y)
    before = state(model, X)
    others = {"copied": copy.deepcopy(model)}
    last = {"copied and pickled": pickle.loads(pickle.dumps(others["copied"]))}
    if saves:
        model.save(folder / "a")
        others["loaded"] = type(model).load(folder / "a")
        others["loaded"].save(folder / "b")
        last["loaded twice"] = type(model).load(folder / "b")
    found = []
    for how, other in (others | last).items():
        found += differences(before, state(other, X), how)
    again = {f"{how}, fitted again": other.fit(X, y) for how, other in last.items()}
    again["cloned"] = clone(model).fit(X, y)
    again["fitted again"] = model.fit(X, y)
    for how, other in again.items():
        found += differences(before, state(other, X), how, times=False)
    assert not found, "\n".join(found)
