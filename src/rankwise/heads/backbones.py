"""Backbones: networks whose features a head is fitted on.

A backbone takes float32 images ``(n, C, H, W)`` in [-1, 1], as every network of this package, and
gives features ``(n, d)``. Whatever another library's weights expect (their side, mean and deviation
of a channel, three channels) is done inside.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rankwise._files import atomic_path, expanded
from rankwise._process import torch_seeded
from rankwise._reading import (
    UnreadableError,
    blamed_on,
    check_numbers,
    parse_json,
    read_tensors,
)
from rankwise.errors import ModelFileError
from rankwise.heads.efficientnet import CROP, MEAN, STD, VARIANTS, load_efficientnet
from rankwise.heads.layer_graph import LayerNetwork, NotAGraphError, describe_layers, take_weights
from rankwise.heads.libraries import from_timm, from_torchvision, timm_preparation
from rankwise.heads.own_networks import OnnxNetwork, TorchScriptNetwork, called
from rankwise.heads.preparation import Preparation
from rankwise.heads.small_resnet import Residual, SmallResNet
from rankwise.nets.layers import FeatureExtractor, has_own_features

__all__ = [
    "Backbone",
    "Residual",
    "SmallResNet",
    "as_backbone",
    "backbone_record",
    "build_network",
    "load_backbone",
    "save_backbone",
    "timm_backbone",
]

FORMAT = "rankwise-backbone"
NAMES = (*VARIANTS, "torchvision/NAME", "timm/NAME", "MODULE:FUNCTION")
"""What names a backbone that lies in no file."""


class Backbone(nn.Module):
    """A network without its head, with the identity that cached features are kept under.

    Parameters
    ----------
    network : nn.Module
        Its ``features`` are used where it has them, else its outputs; maps ``(n, d, h, w)`` are
        averaged over positions.
    name : str
        What it is, for reports.
    record : dict, optional
        How to build `network` again without its weights: see `build_network`.
    channels, mean, std, size, crop, power
        What the weights expect, and an exponent of the features: see `Preparation`.
    frozen : bool, default=True
        No gradients, and always in evaluation mode.
    """

    channels_last: bool = False  # what `network` says of itself counts as well

    def __init__(
        self,
        network: nn.Module,
        name: str,
        *,
        record: dict[str, Any] | None = None,
        channels: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        size: int | None = None,
        crop: float = 1.0,
        power: float = 1.0,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.record = record
        self.preparation = Preparation(channels, mean, std, size, crop, power)
        self.frozen = frozen
        self.reference: str | None = None
        self.loaded: str | None = None  # its fingerprint when it was loaded under the reference
        if frozen:
            self.requires_grad_(False)
            self.eval()

    @property
    def channels(self) -> int | None:
        """Channels that the network takes; None takes any."""
        return self.preparation.channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features ``(n, d)`` of images ``(n, C, H, W)`` in [-1, 1]."""
        y = self.bare()(self.preparation(x, self.name))
        if not isinstance(y, torch.Tensor) or y.ndim < 2:
            found = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            raise ValueError(
                f"backbone {self.name} gives {found}; features (n, d) or maps (n, d, h, w) are "
                "accepted"
            )
        return self.preparation.raised(y.mean(dim=(2, 3)) if y.ndim == 4 else y.flatten(1))

    def bare(self) -> nn.Module:
        """What is computed after the preparation: ``features`` of the network, or its forward."""
        return FeatureExtractor(self.network) if has_own_features(self.network) else self.network

    def train(self, mode: bool = True) -> Backbone:
        """Where it's frozen, stay in evaluation mode: its statistics must not move."""
        return super().train(mode and not self.frozen)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over structure, saved weights and preparation: what a file must bring back."""
        digest = hashlib.sha256(f"{self.network}{self.preparation}".encode())
        if self.preparation.power != 1.0:
            digest.update(f"power {self.preparation.power!r}".encode())
        for key, value in sorted(self.network.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        digest.update(getattr(self.network, "content", b""))
        return digest.hexdigest()


def as_backbone(network: nn.Module, name: str | None = None) -> Backbone:
    """Any module that maps images to features, as it is; a `Backbone` stays one.

    Networks with ``n_features`` and ``features(x)``, as all of this package, take grey images for
    colour ones.
    """
    if isinstance(network, Backbone):
        return network
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"a backbone is a torch.nn.Module, a name or a file, got {type(network).__name__}"
        )
    channels = _first_channels(network) if has_own_features(network) else None
    return Backbone(network, name or type(network).__name__, channels=channels, frozen=False)


def forward_of(network: nn.Module) -> Backbone:
    """A module's ``forward`` as a backbone, ``features`` or not; a `Backbone` stays one."""
    if isinstance(network, Backbone) or not has_own_features(network):
        return as_backbone(network)
    return Backbone(nn.Sequential(network), type(network).__name__, frozen=False)


def build_network(record: dict[str, Any]) -> nn.Module:
    """A network from its record, without its weights.

    Parameters
    ----------
    record : dict
        ``architecture`` ("small-resnet", "layers", or a name of `rankwise.nets.make_network`),
        ``n_classes``, and ``options`` (for "small-resnet"), ``steps`` (for "layers", see
        `rankwise.heads.layer_graph`) or ``image_shape`` (for the others).
    """
    if record["architecture"] == "layers":
        with torch_seeded():
            return LayerNetwork(record["steps"])
    if record["architecture"] == "small-resnet":
        with torch_seeded():
            return SmallResNet(record["n_classes"], **record.get("options", {}))
    from rankwise.nets import make_network

    return make_network(record["architecture"], tuple(record["image_shape"]), record["n_classes"])


def save_backbone(
    network: nn.Module, path: str | Path, record: dict[str, Any] | None = None
) -> None:
    """Write a network as one safetensors file that `load_backbone` reads.

    Parameters
    ----------
    network : nn.Module
        Of a `Backbone`, what it expects of images is kept too.
    path : path
    record : dict, optional
        As for `build_network`; further entries, such as what it was trained on, are kept too.
        Without ``architecture``, the network is written down layer by layer: it must be a fixed
        graph of torch's own layers.

    Raises
    ------
    rankwise.heads.layer_graph.NotAGraphError
        If it isn't, naming the layer; nothing is written then.
    """
    from safetensors.torch import save_file

    record = dict(record or {})
    if isinstance(network, Backbone):
        record.setdefault("preparation", asdict(network.preparation))
        if "architecture" not in record and network.record is not None:
            record = network.record | record
        network = network.network
    if "architecture" not in record:
        network = _in_layers(network)
        record |= {"architecture": "layers", "steps": network.steps}
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_path(expanded(path)) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "record": json.dumps(record)})


def named_by_a_library(backbone: Backbone) -> bool:
    """Whether its reference alone brings it back, weights included, as they are now."""
    reference = backbone.reference
    if reference is None or not _of_a_library(reference):
        return False
    return backbone.fingerprint == backbone.loaded


def _of_a_library(reference: str) -> bool:
    return reference in VARIANTS or reference.startswith(("torchvision/", "timm/"))


def runs_a_program(reference: str) -> bool:
    """Whether reading a backbone of that name runs what it names: a function, TorchScript."""
    if Path(reference).suffix in (".onnx", ".safetensors"):
        return False
    return not _of_a_library(reference)


def in_a_file(backbone: Backbone) -> Backbone | None:
    """A backbone that `save_backbone` can write, or None where it is of unknown make."""
    if backbone.record is not None:
        return backbone
    try:
        network = _in_layers(backbone.network)
    except NotAGraphError:
        return None
    record = {"architecture": "layers", "steps": network.steps}
    own = Backbone(network, backbone.name, record=record)
    own.preparation = backbone.preparation
    return own


def _in_layers(network: nn.Module) -> LayerNetwork:
    """A network's features as a `LayerNetwork` with its weights."""
    bare = FeatureExtractor(network) if has_own_features(network) else network
    written = LayerNetwork(describe_layers(bare))
    take_weights(written, bare)
    return written.eval()


def load_backbone(
    name_or_file: str | Path,
    *,
    size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    crop: float | None = None,
    power: float | None = None,
) -> Backbone:
    """Read a frozen backbone.

    Parameters
    ----------
    name_or_file : str or path
        One of:

        - ``"efficientnet-lite0"``, lite1 or lite2: ImageNet weights that ``rankwise[backbones]``
          installs, no hub is asked;
        - a ``.safetensors`` file written by `save_backbone`;
        - ``"torchvision/resnet18"`` and the like, where torchvision is installed;
          ``"timm/resnet18.a1_in1k"`` and the like, a hub id of timm's, where timm is installed;
          both fetch their weights once;
        - an ``.onnx`` file; a TorchScript file (``.pt``, ``.ts`` or ``.torchscript``), whose
          program is run;
        - ``"package.module:function"``, a function without arguments that gives an `nn.Module`
          or a `Backbone`.
    size, mean, std, crop, power
        What the weights expect of images, in place of what is known of them, and an exponent of the
        features: see `rankwise.heads.preparation.Preparation`. A file of ONNX or TorchScript and a
        function's module get pixels in [-1, 1] as they are unless they are given.

    Raises
    ------
    ModelFileError
        If the file can't be read, is damaged, or is no backbone; if weights can't be fetched.
    MissingDependencyError
        If the library that the name belongs to isn't installed.
    ValueError
        If the name isn't one of those.
    """
    with torch_seeded():  # whatever draws starting weights, which the file's replace
        backbone = _found(str(name_or_file))
    given = {"size": size, "mean": mean, "std": std, "crop": crop, "power": power}
    given = {k: v for k, v in given.items() if v is not None}
    if given:
        backbone.preparation = replace(backbone.preparation, **given)  # type: ignore[arg-type] # by name
        backbone.loaded = None
    elif backbone.reference is not None:
        backbone.loaded = backbone.fingerprint
    return backbone


def _found(text: str) -> Backbone:
    path = expanded(text)
    library, _, model = text.partition("/")
    if text in VARIANTS:
        side = VARIANTS[text][2]
        return _named(text, load_efficientnet(text), Preparation(3, MEAN, STD, side, CROP))
    if path.suffix == ".onnx" or path.suffix in _TORCHSCRIPT:
        if not path.is_file():
            raise ModelFileError(f"{path} can't be read: there is no such file")
        if path.suffix == ".onnx":
            read = OnnxNetwork(path.read_bytes(), path.name)
            backbone = Backbone(read, path.name, channels=read.channels, size=read.side)
        else:
            backbone = Backbone(TorchScriptNetwork(path.read_bytes(), path.name), path.name)
        backbone.reference = str(path.resolve())
        return backbone
    if path.suffix == ".safetensors" or path.is_file():
        return _from_file(path)
    if library == "torchvision" and model:
        return _named(text, *from_torchvision(text, model))
    if library == "timm" and model:
        return _named(text, *from_timm(text), channels_last=True)
    if ":" in text and "/" not in text:
        network = called(text)
        backbone = network if isinstance(network, Backbone) else Backbone(network, text)
        backbone.name = backbone.reference = text
        return backbone
    raise ValueError(
        f"unknown backbone {text!r}; accepted: {', '.join(NAMES)}, or a file: .safetensors written "
        "by save_backbone, .onnx, or TorchScript (.pt)"
    )


_TORCHSCRIPT = (".pt", ".ts", ".torchscript")


def _named(
    name: str, network: nn.Module, preparation: Preparation, *, channels_last: bool = False
) -> Backbone:
    backbone = Backbone(network, name)
    backbone.preparation, backbone.reference = preparation, name
    if channels_last:  # as timm's own scripts run its networks
        backbone.channels_last = True
    return backbone


def backbone_record(path: str | Path) -> dict[str, Any]:
    """What a backbone file says of itself: architecture, and what it was trained on."""
    return _record_and_tensors(Path(path))[0]


def _record_and_tensors(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.exists():
        raise ModelFileError(f"{path} can't be read: there is no such file")
    tensors, metadata = read_tensors(path, error=ModelFileError)
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{path} isn't a backbone of rankwise: its metadata hold no {FORMAT!r}; "
            "save_backbone writes such files"
        )
    with blamed_on(path, ModelFileError):
        record = parse_json(metadata["record"])
        if not isinstance(record, dict):
            raise UnreadableError("its record is no JSON object")
    check_numbers(path, record, ModelFileError)
    return record, tensors


def _from_file(path: Path) -> Backbone:
    record, tensors = _record_and_tensors(path)
    with blamed_on(path, ModelFileError, names="doesn't fit its architecture"):
        with torch.device("meta"):  # sizes without memory: no larger network is made than the file
            wanted = {k: tuple(v.shape) for k, v in build_network(record).state_dict().items()}
        found = {name: array.shape for name, array in tensors.items()}
        if found != wanted:
            raise UnreadableError("its weights have other names or shapes")
        network = build_network(record)
        network.load_state_dict({name: torch.from_numpy(a) for name, a in tensors.items()})
        known = record.get("preparation")
        preparation = Preparation(**known) if known else Preparation(_first_channels(network))
    backbone = Backbone(network, path.name, record=record)
    backbone.preparation = preparation
    return backbone


def _first_channels(network: nn.Module) -> int | None:
    """Channels that the first convolution takes."""
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions), None)


def timm_backbone(network: nn.Module, name: str, *, frozen: bool = True) -> Backbone:
    """One of timm's pre-trained networks, which gets images as its weights expect them.

    Parameters
    ----------
    network : nn.Module
        As ``timm.create_model(..., pretrained=True)`` gives it, for as many channels as its weights
        have.
    name : str
    frozen : bool, default=True
        As in `Backbone`.
    """
    backbone = Backbone(network, name, frozen=frozen)
    backbone.preparation = timm_preparation(network)
    backbone.channels_last = True  # as timm's own scripts run its networks
    return backbone
