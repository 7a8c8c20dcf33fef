"""The objects of `choices`, and solvers, as JSON: by name and fields, never as code."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from rankwise._parameters import from_json as plain_value
from rankwise._parameters import to_json as plain_json
from rankwise.estimators.choices import (
    FixedRidge,
    GaussNewton,
    GeneralizedCrossValidation,
    Grow,
    LeaveOneOut,
    Prune,
    Refine,
    Subnetworks,
    TrainingOptions,
    UnitForm,
)
from rankwise.varpro import solvers

_KNOWN = {
    kind.__name__: kind
    for kind in (
        UnitForm,
        Subnetworks,
        TrainingOptions,
        LeaveOneOut,
        GeneralizedCrossValidation,
        FixedRidge,
        Grow,
        Prune,
        Refine,
        GaussNewton,
        solvers.LevenbergMarquardt,
        solvers.MarquardtDamping,
        solvers.NielsenDamping,
        solvers.StoppingRule,
        solvers.Minpack,
        solvers.LBFGS,
        solvers.GradientDescent,
        solvers.Search,
    )
}
_FUNCTIONS = {"cholesky_solve": solvers.cholesky_solve}


def to_json(value: Any) -> Any:
    """A parameter as JSON holds it; objects of `choices` and solvers by name and fields.

    Plain values are those of `rankwise._parameters`, but for tuples and lists: files that there
    are have a tuple as JSON's list.

    Raises
    ------
    ValueError
        If it holds an object of someone else's.
    """
    if is_dataclass(value) and type(value).__name__ in _KNOWN:
        own = {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"object": type(value).__name__, **own}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, list):
        return {"list": [to_json(item) for item in value]}
    for name, function in _FUNCTIONS.items():
        if value is function:
            return {"function": name}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    return plain_json(value)


def from_json(value: Any) -> Any:
    """What `to_json` was given: a tuple is a list there, and a list says that it is one."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if isinstance(value, dict) and "list" in value:
        return [from_json(item) for item in value["list"]]
    if isinstance(value, dict) and "object" in value:
        known = {k: from_json(v) for k, v in value.items() if k != "object"}
        return _KNOWN[value["object"]](**known)
    if isinstance(value, dict) and "function" in value:
        return _FUNCTIONS[value["function"]]
    return plain_value(value)
