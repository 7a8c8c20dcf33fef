"""Pre-trained networks of torchvision and timm, and how their weights expect images."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from rankwise.errors import MissingDependencyError, ModelFileError
from rankwise.heads.preparation import Preparation
from rankwise.nets.weights import cached_or_reached

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def from_torchvision(name: str, model: str) -> tuple[nn.Module, Preparation]:
    """A classifier of torchvision without its last layer.

    Raises
    ------
    MissingDependencyError
        If torchvision isn't there, or can't be imported.
    ValueError
        If it has no such classifier of images, or one of unknown make.
    ModelFileError
        If its weights can't be had.
    """
    models = _library("torchvision.models", name)
    known = models.list_models(module=models)
    if model not in known:
        others = model in models.list_models()
        what = "isn't a classifier of images" if others else "isn't one of torchvision's models"
        raise ValueError(f"{model!r} {what}; torchvision.models.list_models() names them")
    try:
        weights = models.get_model_weights(model).DEFAULT
        network = models.get_model(model, weights=weights)
    except OSError as error:  # of the download, or of the file
        raise ModelFileError(
            f"the weights of {name} can't be had: {_reason(error)}; without a network use "
            "'efficientnet-lite0', or a local .safetensors file"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:  # a file that is damaged, or another
        raise ModelFileError(
            f"the weights of {name} that torchvision has fetched can't be read: {_reason(error)}; "
            f"delete their file in {torch.hub.get_dir()} to fetch them again"
        ) from error
    cut_last(network, len(weights.meta["categories"]), name)
    return network, _of_transforms(weights.transforms())


def cut_last(network: nn.Module, n_outputs: int, name: str) -> None:
    """Put the identity in place of the layer that gives as many outputs as there are classes.

    It is the last one of them, a linear layer or (SqueezeNet) a 1×1 convolution. What follows it,
    such as a pooling, stays.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [
        key
        for key, layer in network.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == n_outputs)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == n_outputs)
    ]
    if not found:
        raise ValueError(f"{name} has no last layer of {n_outputs} outputs to leave out")
    parent, _, attribute = found[-1].rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())


def from_timm(name: str) -> tuple[nn.Module, Preparation]:
    """One of timm's pre-trained networks without its head.

    Raises
    ------
    MissingDependencyError
        If timm isn't there, or can't be imported.
    ValueError
        If it can't make the network.
    """
    timm = _library("timm", name)
    try:
        cached_or_reached(name, "config.json")
        network = timm.create_model(f"hf-hub:{name}", pretrained=True, num_classes=0)
    except Exception as error:
        # timm and the hub raise errors of many kinds for a name they don't know.
        raise ValueError(f"timm can't make {name!r}: {_reason(error)}") from error
    return network, timm_preparation(network)


def timm_preparation(network: nn.Module) -> Preparation:
    """How a network of timm's expects images."""
    import timm

    config = timm.data.resolve_model_data_config(network)
    channels, *sides = config["input_size"]
    return Preparation(
        channels,
        tuple(config["mean"]),
        tuple(config["std"]),
        size=int(sides[-1]),
        crop=float(config.get("crop_pct") or 1.0),
    )


def _of_transforms(transforms: Any) -> Preparation:
    """How torchvision's own evaluation of the weights takes images."""
    crop = getattr(transforms, "crop_size", [224])[-1]
    resized = getattr(transforms, "resize_size", [crop])[-1]
    return Preparation(
        3,
        tuple(getattr(transforms, "mean", _IMAGENET_MEAN)),
        tuple(getattr(transforms, "std", _IMAGENET_STD)),
        size=int(crop),
        crop=min(1.0, crop / resized),
    )


def _library(module: str, name: str) -> Any:
    """Import a library, or say that it isn't there, or why it can't be imported."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision beside another release of torch: a RuntimeError
        culprit = _culprit(library)
        if culprit is None:
            raise MissingDependencyError(
                f"backbone {name!r} needs {library}: pip install 'rankwise[{library}]'"
            ) from error
        raise MissingDependencyError(
            f"backbone {name!r} needs {library}, but {culprit} can't be imported: "
            f"{_reason(error)}; install the release of {culprit} that was made for torch "
            f"{torch.__version__}"
        ) from error


def _culprit(library: str) -> str | None:
    """The installed library that can't be imported; None where `library` isn't installed."""
    import sys

    if library in sys.modules and sys.modules[library] is None:
        return None
    try:
        if find_spec(library) is None:
            return None
    except (ImportError, ValueError):
        return None
    if library == "timm":
        try:
            importlib.import_module("torchvision")
        except Exception:
            return "torchvision"
    return library


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
