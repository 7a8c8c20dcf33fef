"""Backbones: networks whose features a head is fitted on.

A backbone takes float32 images ``(n, C, H, W)`` in [-1, 1], as every network of this package, and
gives features ``(n, d)``. Whatever another library's weights expect (mean and deviation of a
channel, three channels) is done inside.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rankwise._files import atomic_path
from rankwise.errors import MissingDependencyError, ModelFileError
from rankwise.nets.layers import has_own_features
from rankwise.nets.weights import cached_or_reached

FORMAT = "rankwise-backbone"


class SmallResNet(nn.Module):
    """A residual network of 0.6 million parameters for small images of any size.

    Three stages of one residual block each (He et al., 2016), every stage halving the sides, then
    a 1×1 convolution to `n_features` channels and the mean over positions.

    Parameters
    ----------
    n_classes : int
    width : int, default=32
        Channels of the first stage; each later stage has twice as many.
    n_features : int, default=512
    """

    channels_last = True

    def __init__(self, n_classes: int, *, width: int = 32, n_features: int = 512) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for stage in range(3):
            stages += [_convolution(channels, width << stage, stride=2), Residual(width << stage)]
            channels = width << stage
        self.stages = nn.Sequential(*stages, nn.Conv2d(channels, n_features, 1), nn.ReLU())
        self.head = nn.Linear(n_features, n_classes)
        self.n_features = n_features

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Features ``(n, n_features)`` of images ``(n, 3, H, W)``, sides of 8 pixels or more."""
        return self.stages(x).mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)``."""
        return self.head(self.features(x))


class Residual(nn.Module):
    """``relu(x + f(x))``, ``f`` two 3×3 convolutions with batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )


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
    channels : int, optional
        Channels the network takes: grey images are repeated to that many. None takes any.
    mean, std : sequence of float, optional
        Of pixels in [0, 1], channel by channel, where the weights expect normalised images.
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
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.record = record
        self.channels = channels
        self.mean = None if mean is None else tuple(float(v) for v in mean)
        self.std = None if std is None else tuple(float(v) for v in std)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features ``(n, d)`` of images ``(n, C, H, W)`` in [-1, 1]."""
        if self.channels is not None and x.shape[1] != self.channels:
            if x.shape[1] != 1:
                raise ValueError(
                    f"backbone {self.name} takes images of {self.channels} channel(s), got "
                    f"{x.shape[1]}"
                )
            x = x.expand(-1, self.channels, -1, -1)
        if self.mean is not None and self.std is not None:
            mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
            x = (x * 0.5 + 0.5 - mean) / std
        network: Any = self.network
        y = network.features(x) if has_own_features(network) else network(x)
        return y.mean(dim=(2, 3)) if y.ndim == 4 else y.flatten(1)

    def train(self, mode: bool = True) -> Backbone:
        """Where it's frozen, stay in evaluation mode: its statistics must not move."""
        return super().train(mode and not self.frozen)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over structure, saved weights and normalisation: what a file must bring back."""
        digest = hashlib.sha256(f"{self.network}{self.channels}{self.mean}{self.std}".encode())
        for key, value in sorted(self.network.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
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


def build_network(record: dict[str, Any]) -> nn.Module:
    """A network from its record, without its weights.

    Parameters
    ----------
    record : dict
        ``architecture`` ("small-resnet", or a name of `rankwise.nets.make_network`),
        ``n_classes``, and ``options`` (for "small-resnet") or ``image_shape`` (for the others).
    """
    if record["architecture"] == "small-resnet":
        return SmallResNet(record["n_classes"], **record.get("options", {}))
    from rankwise.nets import make_network

    return make_network(record["architecture"], tuple(record["image_shape"]), record["n_classes"])


def save_backbone(network: nn.Module, path: str | Path, record: dict[str, Any]) -> None:
    """Write a network as one safetensors file that `load_backbone` reads.

    Parameters
    ----------
    network : nn.Module
    path : path
    record : dict
        As for `build_network`; further entries, such as what it was trained on, are kept too.
    """
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, "record": json.dumps(record)})


def load_backbone(name_or_file: str | Path) -> Backbone:
    """Read a frozen backbone.

    Parameters
    ----------
    name_or_file : str or path
        A ``.safetensors`` file written by `save_backbone`; ``"torchvision/resnet18"`` and the
        like, where torchvision is installed; ``"timm/resnet18.a1_in1k"`` and the like, a hub id
        of timm's, where timm is installed. The last two fetch their weights once.

    Raises
    ------
    ModelFileError
        If the file can't be read, is damaged, or is no backbone.
    MissingDependencyError
        If the library that the name belongs to isn't installed.
    ValueError
        If the name isn't one of those.
    """
    text = str(name_or_file)
    path = Path(text)
    if path.suffix == ".safetensors" or path.is_file():
        return _from_file(path)
    library, _, model = text.partition("/")
    if library == "torchvision" and model:
        return _from_torchvision(text, model)
    if library == "timm" and model:
        return _from_timm(text)
    raise ValueError(
        f"unknown backbone {text!r}; accepted: a .safetensors file written by save_backbone, "
        "'torchvision/NAME' or 'timm/NAME' (NAME of a model with pre-trained weights)"
    )


def backbone_record(path: str | Path) -> dict[str, Any]:
    """What a backbone file says of itself: architecture, and what it was trained on."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path} can't be read: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ModelFileError(
                f"{path} isn't a backbone of rankwise: its metadata hold no {FORMAT!r}; "
                "save_backbone writes such files"
            )
        return json.loads(metadata["record"])
    except (SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path} is damaged: {error}") from error


def _from_file(path: Path) -> Backbone:
    from safetensors.torch import load_file

    record = backbone_record(path)
    try:
        network = build_network(record)
        network.load_state_dict(load_file(path))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{path} doesn't fit its architecture: {reason}") from error
    return Backbone(network, path.name, record=record, channels=_first_channels(network))


def _first_channels(network: nn.Module) -> int | None:
    """Channels that the first convolution takes."""
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions), None)


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def _from_torchvision(name: str, model: str) -> Backbone:
    try:
        from torchvision.models import get_model, list_models
    except ImportError as error:
        raise MissingDependencyError(
            f"backbone {name!r} needs torchvision: pip install 'rankwise[torchvision]'"
        ) from error
    if model not in list_models():
        raise ValueError(f"torchvision has no model {model!r}; torchvision.models.list_models()")
    network = get_model(model, weights="DEFAULT")
    last = [n for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, attribute = last.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return Backbone(network, name, channels=3, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)


def _from_timm(name: str) -> Backbone:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"backbone {name!r} needs timm: pip install 'rankwise[timm]'"
        ) from error
    try:
        cached_or_reached(name, "config.json")
        network = timm.create_model(f"hf-hub:{name}", pretrained=True, num_classes=0)
    except Exception as error:
        # timm and the hub raise errors of many kinds for a name they don't know.
        raise ValueError(f"timm can't make {name!r}: {str(error).splitlines()[0]}") from error
    return timm_backbone(network, name)


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
    import timm

    config = timm.data.resolve_model_data_config(network)
    backbone = Backbone(
        network,
        name,
        channels=config["input_size"][0],
        mean=config["mean"],
        std=config["std"],
        frozen=frozen,
    )
    backbone.channels_last = True  # as timm's own scripts run its networks
    return backbone
