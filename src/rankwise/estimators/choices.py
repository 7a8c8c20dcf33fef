"""Choices that belong together, as small frozen objects to pass beside plain strings.

Every field left at None comes from the preset. An object equals another of the same fields, so it
can stand in a grid of `GridSearchCV`: ``{"unit": [UnitForm(rank=1), UnitForm(rank=2)]}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class UnitForm:
    """What a unit is, and how it starts.

    Units slid over the image have an activation and a rank; the rest is of sub-networks.

    Parameters
    ----------
    kind : {"symmetric", "bilinear", "colour", "colour-bilinear", "multilinear"}, optional
        See `rankwise.units.multilinear`. The second paper has symmetric and colour units.
    activation : {"tanh", "logistic", "relu", "softplus", "silu", "gelu"}, optional
    rank : int, optional
        Rank-one forms summed in a unit.
    window : tuple of two floats, or False, optional
        Smallest and largest side of a unit's window as fractions of the axis; False for the
        whole image, as in the paper.
    start : {"gaussian", "images"}, optional
        Random vectors (default), or the leading singular vectors of what one training image, less
        the mean image, shows in the unit's window.
    bias : bool, default=True
        False for units without one, as in the paper's section 1; its 6.1 counts one.
    """

    kind: str | None = None
    activation: str | None = None
    rank: int | None = None
    window: tuple[float, float] | Literal[False] | None = None
    start: str | None = None
    bias: bool = True

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them, those that are given."""
        found = {"unit": self.kind, **{n: getattr(self, n) for n in _FORM}}
        return _without_none(found) | _others({"bias": self.bias}, usual=True)


_FORM = ("activation", "rank", "window", "start")


@dataclass(frozen=True)
class Subnetworks:
    """What each sub-network is trained on, and how exactly.

    Parameters
    ----------
    samples : int, optional
        Mini-batch of each; 2000 in the paper's Table 3.
    partition : bool, default=False
        Deal the images out, none to two sub-networks (paper, 6.1); otherwise each draws its
        mini-batch by itself (paper, section 4).
    jacobian : {"golub-pereyra", "kaufman"}, optional
        See `rankwise.VariableProjection`.
    tol : float, optional
        Relative decrease of the objective under which a sub-network has converged.
    rcond : float, optional
        Singular values of the features under this share of the largest are dropped (paper, 8.1);
        default those that are rounding.
    squash : bool, default=False
        Pass a sub-network's outputs through a logistic function before they are compared with the
        targets (paper, 8.1, which doesn't say whether inside the functional or after it; after it
        is ``probabilities="sigmoid"``). About as many times slower as there are classes; takes no
        sample weights.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Of images, features and the large products, of the output layer and predictions too; solves
        are float64. ``"auto"`` follows `X`: float32 for uint8 and float32 images, float64 (half the
        speed) for all others.
    """

    samples: int | None = None
    partition: bool = False
    jacobian: str | None = None
    tol: float | None = None
    rcond: float | None = None
    squash: bool = False
    dtype: str = "auto"

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them, those that are given; `dtype` isn't one."""
        found = {
            "samples_per_subnet": self.samples,
            "jacobian": self.jacobian,
            "tol": self.tol,
            "subnet_rcond": self.rcond,
        }
        asked = {"partition": self.partition, "squash_inside": self.squash}
        return _without_none(found) | _others(asked, usual=False)


@dataclass(frozen=True)
class TrainingOptions:
    """How units slid over the image are trained together, where it isn't the usual way.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "auto"}, optional
        Of maps and filters while training: bfloat16 trains faster on an Intel processor with AMX,
        and hardly faster on one with AVX-512 BF16 alone; ``"auto"`` takes it on
        both. Default: float32, the same on every processor. Predictions are always computed in
        float32.
    patience : int, optional
        Stop when the accuracy on the validation part hasn't risen for so many epochs. Default: not
        before the schedule ends, whose last epochs are usually the best.
    teacher : str, optional
        A larger preset that is trained first, on the same images, for as many epochs or two fifths
        of the time budget; its outputs on the moved images are then learned beside the labels (G.
        Hinton's distillation). More accurate where there is more time than a small network can
        use. Only the small one is kept. Default: none.
    """

    precision: str | None = None
    patience: int | None = None
    teacher: str | None = None

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them, those that are given."""
        return _without_none({name: getattr(self, name) for name in _TRAINING})


_TRAINING = ("precision", "patience", "teacher")


@dataclass(frozen=True)
class LeaveOneOut:
    """The ridge of the output layer with the least exact leave-one-out error; as ``"loo"``.

    Parameters
    ----------
    rcond : float, optional
        Singular values of the features under this share of the largest are dropped.
    """

    rcond: float | None = None

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        return _without_none({"ridge": "loo", "glue_rcond": self.rcond})


@dataclass(frozen=True)
class GeneralizedCrossValidation:
    """The ridge with the least generalised cross-validation error; as ``"gcv"``.

    Parameters
    ----------
    rcond : float, optional
        Singular values of the features under this share of the largest are dropped.
    """

    rcond: float | None = None

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        return _without_none({"ridge": "gcv", "glue_rcond": self.rcond})


@dataclass(frozen=True)
class FixedRidge:
    """A ridge that is a number, and how the output layer is then solved.

    Parameters
    ----------
    value : float, default=0.0
        Per sample: ``μ = value·n``. 0 leaves truncation alone, as in the paper.
    rcond : float, optional
        Singular values of the features under this share of the largest are dropped.
    method : {"auto", "gram", "tsqr"}, default="auto"
        How it is accumulated; see `rankwise.linear.output_layer`.
    """

    value: float = 0.0
    rcond: float | None = None
    method: str = "auto"

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        found = {"ridge": self.value} | _without_none({"glue_rcond": self.rcond})
        return found | ({} if self.method == "auto" else {"glue_method": self.method})


@dataclass(frozen=True)
class Grow:
    """Units join behind the glue: of ten times as many random ones those that lower its objective
    most. Then a glue.
    """

    units: int

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        return {"grow": self.units}


@dataclass(frozen=True)
class Prune:
    """Units are left out behind the glue, a number or a share of all, one after the other the one
    whose loss raises its objective least. Then a glue.
    """

    units: int | float

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        return {"prune": self.units}


@dataclass(frozen=True)
class Refine:
    """All units are trained together on mini-batches, the output layer by variable projection.

    Then a last glue. A validation part, cut off before anything is trained, chooses between the
    last epoch and a surely better one, and whether the start is kept.

    Parameters
    ----------
    epochs : int
    augmentation : {"moves", "low-rank", "moves+low-rank", "none"}, optional
        What happens to the images of a batch: random affine maps (default), and `RandomLowRank`
        copies in the place of a fifth of them (first paper, section 3.3).
    """

    epochs: int
    augmentation: str | None = None

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        return _without_none({"refine": self.epochs, "augmentation": self.augmentation})


@dataclass(frozen=True)
class GaussNewton:
    """All units are trained together by steps of conjugate gradients, each on all images as they
    are; for few units and images (`rankwise.varpro.newton`). Then a last glue.
    """

    steps: int

    def given(self) -> dict[str, Any]:
        """As `rankwise.training.presets` names them."""
        return {"refine": self.steps, "refine_solver": "gauss-newton"}


_ORDER = (Grow, Prune, (Refine, GaussNewton))


def given_by(name: str, value: Any) -> dict[str, Any]:
    """What a parameter of a classifier comes to, plain or an object.

    Parameters
    ----------
    name : str
    value : object
        None gives nothing.

    Raises
    ------
    ValueError
        If it is an object of another kind.
    """
    if value is None:
        return {}
    accepted, plain = _OBJECTS.get(name, ((), name))
    if name == "refine" and isinstance(value, (Grow, Prune, Refine, GaussNewton, tuple, list)):
        return _steps(value if isinstance(value, (tuple, list)) else (value,))
    if isinstance(value, accepted):
        return dict(value.given())  # type: ignore[attr-defined]  # all of them have it
    if isinstance(value, tuple(kind for kinds, _ in _OBJECTS.values() for kind in kinds)):
        names = ", ".join(kind.__name__ for kind in accepted)
        kinds = [names] if name in _OBJECTS_ALONE else ["a plain value", names]
        raise ValueError(
            f"{name} takes {' or '.join(filter(None, kinds))}, got {type(value).__name__}"
        )
    if name in _OBJECTS_ALONE:
        raise ValueError(f"{name} takes {_OBJECTS_ALONE[name].format(value)}")
    return {plain: value}


def _steps(steps: Iterable[Any]) -> dict[str, Any]:
    """Steps behind the glue, in the one order that they have."""
    found: dict[str, Any] = {}
    last = -1
    for step in steps:
        place = next((i for i, kind in enumerate(_ORDER) if isinstance(step, kind)), None)  # type: ignore[arg-type]  # classes and a tuple of them
        if place is None or place <= last:
            raise ValueError(
                "refine takes a number of epochs, or steps in this order, each at most once: "
                f"Grow, Prune, and Refine or GaussNewton; got {list(steps)!r}"
            )
        last = place
        found |= step.given()
    return found


_OBJECTS: dict[str, tuple[tuple[type, ...], str]] = {
    "unit": ((UnitForm,), "unit"),
    "subnets": ((Subnetworks,), "subnets"),
    "training": ((TrainingOptions,), "training"),
    "ridge": ((LeaveOneOut, GeneralizedCrossValidation, FixedRidge), "ridge"),
    "refine": ((Grow, Prune, Refine, GaussNewton), "refine"),
}
_OBJECTS_ALONE = {
    "subnets": "Subnetworks, which say what each is trained on, got {!r}; their number is "
    "n_subnets",
    "training": "TrainingOptions, of precision, patience and teacher, got {!r}; epochs stand "
    "beside it",
}


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `QuadraticClassifier` from the single options of a command line or a file.

    The names are those of `rankwise.training.presets.GIVEN`, with ``rcond`` for both truncations
    and ``squash``; other names, and None, go through. What a plain value can say stays plain.
    """
    options = {name: value for name, value in given.items() if value is not None}
    rcond = options.pop("rcond", None)
    take = options.pop
    kind = take("unit", None)
    form = {name: take(name) for name in (*_FORM, "bias") if name in options}
    parameters: dict[str, Any] = {}
    if form.get("bias") is True:
        del form["bias"]
    if form or kind is not None:
        parameters["unit"] = UnitForm(kind, **form) if form else kind
    own = {
        "samples": take("samples_per_subnet", None),
        "jacobian": take("jacobian", None),
        "tol": take("tol", None),
        "rcond": take("subnet_rcond", rcond),
        "partition": take("partition", False) or None,
        "squash": take("squash_inside", False) or None,
        "dtype": None if options.get("dtype") == "auto" else options.get("dtype"),
    }
    options.pop("dtype", None)
    own = _without_none(own)
    if own:
        parameters["subnets"] = Subnetworks(**own)
    ridge = ridge_of(take("ridge", None), take("glue_rcond", rcond), take("glue_method", "auto"))
    if ridge is not None:
        parameters["ridge"] = ridge
    steps = _steps_of(options)
    if steps is not None:
        parameters["refine"] = steps
    squash = take("squash", None)
    if squash:
        parameters["probabilities"] = "sigmoid"
    return parameters | options


def convolutional_parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same of `ConvolutionalClassifier`, whose epochs are ``max_iter``."""
    options = {name: value for name, value in given.items() if value is not None}
    form = {name: options.pop(name) for name in ("rank", "activation") if name in options}
    own = {name: options.pop(name) for name in _TRAINING if name in options}
    parameters: dict[str, Any] = {"unit": UnitForm(**form)} if form else {}
    if own:
        parameters["training"] = TrainingOptions(**own)
    if "max_iter" in options:
        parameters["epochs"] = options.pop("max_iter")
    if options.pop("squash", False):
        parameters["probabilities"] = "sigmoid"
    rcond = options.pop("rcond", None)
    ridge = ridge_of(options.pop("ridge", None), options.pop("glue_rcond", rcond))
    if ridge is not None:
        parameters["ridge"] = ridge
    return parameters | options


def of_version_3(family: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a file of version 3, where more of them stood alone, as they are today."""
    found = dict(parameters)
    if family == "convolutional":
        names = ("rank", "activation", "precision", "patience")
        alone = {name: found.pop(name) for name in names if name in found}
        return found | convolutional_parameters_of(alone)
    dtype = found.pop("dtype", "auto")
    if dtype != "auto":
        found["subnets"] = replace(found.get("subnets") or Subnetworks(), dtype=dtype)
    return found


def ridge_of(ridge: Any, rcond: float | None, method: str = "auto") -> Any:
    """A plain ridge where that says all, otherwise an object; None where nothing is given."""
    if rcond is None and method == "auto":
        return ridge
    if ridge in ("gcv", "loo") or (ridge is None and method == "auto"):
        if method == "tsqr":
            raise ValueError("method 'tsqr' needs a number as ridge; 'gcv' and 'loo' need 'gram'")
        return LeaveOneOut(rcond) if ridge == "loo" else GeneralizedCrossValidation(rcond)
    return FixedRidge(0.0 if ridge is None else ridge, rcond, method)


def _steps_of(options: dict[str, Any]) -> Any:
    """The parameter ``refine`` of growing, pruning and refining, which are taken out."""
    grow, prune = options.pop("grow", 0), options.pop("prune", 0)
    refine = options.pop("refine", 0)
    solver, augmentation = options.pop("refine_solver", None), options.pop("augmentation", None)
    steps: list[Any] = [Grow(grow)] if grow else []
    if prune:
        steps.append(Prune(prune))
    if solver is not None and solver not in ("adamw", "gauss-newton"):
        raise ValueError(f"unknown refine_solver {solver!r}; accepted: adamw, gauss-newton")
    if solver is not None and not refine:
        raise ValueError(
            f"refine_solver {solver!r} needs refine, the number of its epochs or steps; none was "
            "given"
        )
    if augmentation is not None and (not refine or solver == "gauss-newton"):
        raise ValueError(
            f"augmentation {augmentation!r} needs training on batches, and sub-networks have none "
            "without refine; give refine epochs, or a preset of convolutional units"
        )
    if refine and solver == "gauss-newton":
        steps.append(GaussNewton(refine))
    elif refine:
        if not steps and augmentation is None:
            return refine
        steps.append(Refine(refine, augmentation))
    return tuple(steps) if len(steps) > 1 else steps[0] if steps else None


def _others(asked: Mapping[str, Any], *, usual: bool) -> dict[str, Any]:
    """Those that aren't the usual truth value: the other one, or what is none and refused then."""
    truths = (bool, np.bool_)
    return {k: v for k, v in asked.items() if not (isinstance(v, truths) and bool(v) is usual)}


def _without_none(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}
