"""Heads on disk: weights and statistics as safetensors, the rest as JSON. Loading runs nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._model_files import built_from, read_description, read_weights, write_model
from rankwise.errors import ModelFileError
from rankwise.linear.class_ridge import HeadSolution
from rankwise.linear.statistics import ClassStatistics

if TYPE_CHECKING:
    from rankwise.heads.head import VarProHead

FORMAT = "rankwise-head"
FORMAT_VERSION = 1
BACKBONE = "backbone.safetensors"

_PARAMETERS = (
    "alpha",
    "alphas",
    "fit_intercept",
    "standardise",
    "rank",
    "loss",
    "max_passes",
    "block_size",
)
_SOLVED = ("coef", "intercept")
_STATISTICS = ("counts", "weights", "means", "scatter")


def write_head(head: VarProHead, folder: Path) -> None:
    """Write a fitted head: weights first, then the JSON that vouches for them.

    Raises
    ------
    ValueError
        If its backbone is a module of unknown make, which no file could bring back.
    """
    from sklearn.utils.validation import check_is_fitted

    from rankwise.heads.backbones import save_backbone

    check_is_fitted(head)
    solved, statistics = head._solution(), head.statistics_
    backbone = head._backbone()
    folder.mkdir(parents=True, exist_ok=True)
    described = None
    if backbone is not None:
        if backbone.record is not None:
            save_backbone(backbone.network, folder / BACKBONE, backbone.record)
            described = {"file": BACKBONE, "name": backbone.name}
        elif backbone.name.startswith(("torchvision/", "timm/")):
            described = {"name": backbone.name}
        else:
            raise ValueError(
                f"backbone {backbone.name} can't be written: it came neither from a file nor from "
                "a library by name; save the head with backbone=None and attach it after loading"
            )
        described["fingerprint"] = backbone.fingerprint
    tensors = {name: getattr(solved, name) for name in _SOLVED}
    tensors |= {f"statistics.{name}": getattr(statistics, name) for name in _STATISTICS}
    choices = {name: getattr(head, name) for name in _PARAMETERS}
    if choices["alphas"] is not None:
        choices["alphas"] = [float(a) for a in choices["alphas"]]
    weight = head.class_weight
    description: dict[str, Any] = {
        "classes": {"dtype": head.classes_.dtype.str, "values": head.classes_.tolist()},
        "image_shape": list(getattr(head, "image_shape_", ())) or None,
        "parameters": choices,
        "class_weight": weight
        if weight is None or isinstance(weight, str)
        else [[str(k), float(v)] for k, v in weight.items()],
        "by_class": statistics.by_class,
        "solved": {k: v for k, v in asdict(solved).items() if k not in _SOLVED},
        "backbone": described,
    }
    write_model(
        folder, tensors, format_name=FORMAT, version=FORMAT_VERSION, description=description
    )


def read_head(folder: Path) -> VarProHead:
    """Read a head written by `write_head`.

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
        return _build(folder, description, tensors)


def _build(folder: Path, description: dict[str, Any], tensors: dict[str, np.ndarray]) -> VarProHead:
    from rankwise.heads.backbones import load_backbone
    from rankwise.heads.head import VarProHead

    weight = description["class_weight"]
    backbone = description["backbone"]
    head = VarProHead(
        **description["parameters"],
        class_weight=dict(weight) if isinstance(weight, list) else weight,
        backbone=None
        if backbone is None
        else load_backbone(folder / backbone["file"] if "file" in backbone else backbone["name"]),
    )
    if backbone is not None:
        found = head._backbone()
        assert found is not None
        found.name = backbone["name"]
        if found.fingerprint != backbone["fingerprint"]:
            raise ModelFileError(
                f"the weights of backbone {backbone['name']} have changed since the head of "
                f"{folder} was fitted on them"
            )
    classes = np.array(description["classes"]["values"], dtype=description["classes"]["dtype"])
    statistics = ClassStatistics(
        classes=classes,
        **{name: tensors[f"statistics.{name}"] for name in _STATISTICS},
        by_class=bool(description["by_class"]),
    )
    head._adopt(statistics)
    values = dict(description["solved"])
    values["criterion"] = [(float(m), float(e)) for m, e in values["criterion"]]
    head._solved = HeadSolution(coef=tensors["coef"], intercept=tensors["intercept"], **values)
    if description["image_shape"] is not None:
        head.image_shape_ = tuple(description["image_shape"])
    return head
