"""Heads on disk: weights and statistics as safetensors, the rest as JSON. Loading runs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rankwise._files import expanded
from rankwise._model_files import (
    DESCRIPTION,
    WEIGHTS,
    built_from,
    check_class,
    read_description,
    read_weights,
    write_model,
)
from rankwise._parameters import from_json, to_json
from rankwise._reading import classes_json, classes_of, image_shape_of
from rankwise.errors import ModelFileError
from rankwise.linear.class_ridge import HeadSolution
from rankwise.linear.gram import EPS
from rankwise.linear.statistics import ClassStatistics

Head = TypeVar("Head")

FORMAT = "rankwise-head"
FORMAT_VERSION = 1
BACKBONE = "backbone.safetensors"

_SOLVED = ("coef", "intercept")
_STATISTICS = ("counts", "weights", "means", "scatter")


def write_head(head: Any, folder: Path) -> None:
    """Write a fitted head: weights first, then the JSON that vouches for them.

    Raises
    ------
    ValueError
        If its backbone is a module of unknown make, or a parameter of a type, that no file could
        bring back.
    """
    from sklearn.utils.validation import check_is_fitted

    from rankwise.heads.backbones import save_backbone

    check_is_fitted(head)
    parameters = {
        name: to_json(dict(value) if isinstance(value, Mapping) else value, name)
        for name, value in head.get_params(deep=False).items()
        if name != "backbone"
    }
    head._rank_and_condition()
    solved, statistics = head._solution(), head.statistics_
    described, own = _described(head)
    folder = expanded(folder)
    # Whatever can't be written is told before there is a folder.
    folder.mkdir(parents=True, exist_ok=True)
    if own is not None:
        save_backbone(own, folder / BACKBONE)
    else:
        (folder / BACKBONE).unlink(missing_ok=True)
    tensors = {name: getattr(solved, name) for name in _SOLVED}
    tensors |= {f"statistics.{name}": getattr(statistics, name) for name in _STATISTICS}
    if statistics.rounding is not None:
        tensors["statistics.rounding"] = statistics.rounding
    # What each shard brought, so that others that come later give the same bits as before.
    parts = head._parts if head._parts is not None and len(head._parts) > 1 else []
    for number, part in enumerate(parts):
        tensors |= {f"part{number}.{name}": getattr(part, name) for name in _STATISTICS}
        if part.rounding is not None:
            tensors[f"part{number}.rounding"] = part.rounding
    names = getattr(head, "feature_names_in_", None)
    description: dict[str, Any] = {
        "class": type(head).__name__,
        "classes": _classes(head.classes_),
        "parts": [
            {
                "classes": _classes(part.classes),
                "by_class": part.by_class,
                "feature_eps": part.feature_eps,
            }
            for part in parts
        ],
        "image_shape": list(getattr(head, "image_shape_", ())) or None,
        "feature_names": None if names is None else names.tolist(),
        "parameters": parameters,
        "by_class": statistics.by_class,
        "feature_eps": statistics.feature_eps,
        "removals": to_json(getattr(head, "removals_", None), "removals_"),
        "solved": {k: v for k, v in asdict(solved).items() if k not in _SOLVED},
        "backbone": described,
    }
    write_model(
        folder, tensors, format_name=FORMAT, version=FORMAT_VERSION, description=description
    )


def _classes(classes: np.ndarray) -> dict[str, Any]:
    return classes_json(classes)


def _described(head: VarProHead) -> tuple[dict[str, Any] | None, Any]:
    """What a file says of a head's backbone, and the network to write beside it, if any.

    A library's network is kept by name, one that a file or layers of torch's own can hold in a
    file, any other by what it was: then `VarProHead.load` gives the head without it. So does a
    function or a TorchScript file, which would have to be run.
    """
    from rankwise.heads.backbones import in_a_file, named_by_a_library

    backbone = head._backbone()
    if backbone is None:
        return getattr(head, "backbone_reference_", None), None
    described: dict[str, Any] = {"name": backbone.name, "fingerprint": backbone.fingerprint}
    if named_by_a_library(backbone):
        return described | {"load": backbone.reference}, None
    own = in_a_file(backbone)
    if own is not None:
        return described | {"file": BACKBONE, "fingerprint": own.fingerprint}, own
    if backbone.reference is not None:
        choices = asdict(backbone.preparation)
        return described | {"load": backbone.reference, "preparation": choices}, None
    return described, None


def read_head(folder: Path, kind: type[Head]) -> Head:
    """Read a head written by `write_head`.

    Parameters
    ----------
    folder : Path
    kind : type
        `VarProHead`, or the subclass of it that was saved.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    description = read_description(
        folder, format_name=FORMAT, version=FORMAT_VERSION, kind="a head of rankwise"
    )
    tensors = read_weights(folder, description)
    with built_from(folder):
        check_class(folder, description.get("class"), kind)
        return _build(folder, description, tensors, kind)


def _build(
    folder: Path, description: dict[str, Any], tensors: dict[str, np.ndarray], kind: type[Head]
) -> Head:
    parameters = _parameters(description)
    if description["backbone"] is not None:
        parameters["backbone"] = _backbone(folder, description)
    head: Any = kind(**parameters)
    head._check_parameters()
    if description["backbone"] is not None and head.backbone is None:
        head.backbone_reference_ = description["backbone"]
    statistics = _statistics(description, tensors)
    parts = [
        _statistics(part, tensors, f"part{number}")
        for number, part in enumerate(description.get("parts", []))
    ]
    head._adopt(statistics, parts or None)
    head._solved = _solution(description["solved"], tensors, statistics)
    if description["image_shape"] is not None:
        head.image_shape_ = image_shape_of(description["image_shape"])
    if description.get("feature_names") is not None:
        head.feature_names_in_ = np.array(description["feature_names"], dtype=object)
    if description.get("removals") is not None:
        head.removals_ = from_json(description["removals"])
    return head  # type: ignore[no-any-return]  # of the kind asked for


def _parameters(description: dict[str, Any]) -> dict[str, Any]:
    found = {name: from_json(value) for name, value in description["parameters"].items()}
    # Files of rankwise 0.1 have it beside the parameters, its labels as text.
    weight = description.get("class_weight")
    if weight is not None:
        found["class_weight"] = dict(weight) if isinstance(weight, list) else weight
    return found


def _statistics(
    description: dict[str, Any], tensors: dict[str, np.ndarray], prefix: str = "statistics"
) -> ClassStatistics:
    """Statistics whose sizes fit each other, of all samples or of a part."""
    classes = classes_of(description["classes"])
    k, by_class = len(classes), bool(description["by_class"])
    means = tensors[f"{prefix}.means"]
    d = means.shape[1] if means.ndim == 2 else 0
    expected = {
        "counts": (k,),
        "weights": (k,),
        "means": (k, d),
        "scatter": (k if by_class else 1, d, d),
    }
    _check_sizes(tensors, {f"{prefix}.{name}": shape for name, shape in expected.items()})
    return ClassStatistics(
        classes=classes,
        **{name: tensors[f"{prefix}.{name}"] for name in _STATISTICS},
        by_class=by_class,
        rounding=tensors.get(f"{prefix}.rounding"),
        feature_eps=float(description.get("feature_eps", EPS)),
    )


def _check_sizes(tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise where an array has another shape or kind than the description says."""
    for name, shape in expected.items():
        found = tensors[name]
        if found.shape != shape or found.dtype.kind != ("i" if name.endswith("counts") else "f"):
            raise ModelFileError(
                f"{WEIGHTS} doesn't fit {DESCRIPTION}: {name} is {found.dtype} of shape "
                f"{found.shape} instead of {shape}"
            )


def _backbone(folder: Path, description: dict[str, Any]) -> Any:
    """The backbone that was saved, or the library's of its name."""
    from rankwise.heads.backbones import load_backbone, runs_a_program

    saved = description["backbone"]
    if saved.get("file", BACKBONE) != BACKBONE:
        raise ModelFileError(f"{folder / DESCRIPTION} names another backbone file than {BACKBONE}")
    if "file" in saved:
        found = load_backbone(folder / saved["file"])
    elif not runs_a_program(str(saved.get("load", saved["name"]))):
        choices = {k: v for k, v in saved.get("preparation", {}).items() if k != "channels"}
        found = load_backbone(saved.get("load", saved["name"]), **choices)
    else:
        return None
    found.name = saved["name"]
    if found.fingerprint != saved["fingerprint"]:
        raise ModelFileError(
            f"the weights of backbone {saved['name']} have changed since the head of "
            f"{folder} was fitted on them"
        )
    return found


def _solution(
    described: dict[str, Any], tensors: dict[str, np.ndarray], statistics: ClassStatistics
) -> HeadSolution:
    """The solved layer, whose sizes are those of the classes and features."""
    k, d = statistics.means.shape
    _check_sizes(tensors, {"coef": (k, d), "intercept": (k,)})
    values = dict(described)
    values["criterion"] = [
        (float(m), math.nan if e is None else float(e)) for m, e in values["criterion"]
    ]
    for name in ("temperature", "curvature", "ridge"):
        number = values.get(name, 1.0)
        least = 0.0 if name == "ridge" else np.finfo(float).tiny
        if type(number) not in (int, float) or not least <= number < np.inf:
            raise ModelFileError(f"{DESCRIPTION} is damaged: its {name} is {number!r:.40}")
    return HeadSolution(coef=tensors["coef"], intercept=tensors["intercept"], **values)
