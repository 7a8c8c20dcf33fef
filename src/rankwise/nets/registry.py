"""The networks of the study, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import nn

from rankwise._process import torch_seeded
from rankwise.nets.resnet25 import ResNet25
from rankwise.nets.simple_cnn import SimpleCNN
from rankwise.nets.vgg16 import VGG16
from rankwise.nets.weights import read_weights

NETWORKS = ("simple-cnn", "resnet25", "vgg16")


class Network(Protocol):
    """What every network here has beside being an `nn.Module`."""

    n_features: int

    @property
    def head(self) -> nn.Linear:
        """The last linear layer."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The head's input, before dropout: ``(n, n_features)``."""


def make_network(
    name: str,
    image_shape: Sequence[int],
    n_classes: int,
    *,
    dropout: float = 0.5,
    weights: str | Path | None = None,
    seed: int = 42,
) -> nn.Module:
    """One of the paper's networks, with starting weights drawn from `seed`.

    Its ``forward`` takes float32 images ``(n, C, H, W)`` in [-1, 1] and gives logits ``(n,
    n_classes)``; ``features(x)`` gives the input of its last layer, ``(n, n_features)``; ``head``
    is that layer.

    Parameters
    ----------
    name : {"simple-cnn", "resnet25", "vgg16"}
    image_shape : (H, W) or (H, W, C)
    n_classes : int
        At least 2.
    dropout : float
        In [0, 1). Default 0.5, the reference code's.
    weights : str, Path or None
        For vgg16, ImageNet weights in torchvision's layout: a local safetensors file or a hub id
        (``timm/vgg16.tv_in1k``). Default None: random weights.
    seed : int
        Default 42, the paper's (C.2). PyTorch's own generator is left as it was.

    Raises
    ------
    ValueError
        For an unknown name, or a value out of range.
    ModelFileError
        If the weights can't be read or don't fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(NETWORKS)}")
    if n_classes < 2:
        raise ValueError(f"n_classes must be 2 or more; got {n_classes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1); got {dropout}")
    if weights is not None and name != "vgg16":
        raise ValueError(f"pre-trained weights are for vgg16 only; {name} starts at random")
    classes = {"simple-cnn": SimpleCNN, "resnet25": ResNet25, "vgg16": VGG16}
    with torch_seeded(seed):
        network: nn.Module = classes[name](image_shape, n_classes, dropout)
    if isinstance(network, VGG16) and weights is not None:
        network.load_torchvision(read_weights(weights), str(weights))
    return network.float()


if TYPE_CHECKING:
    _check: tuple[type[Network], ...] = (SimpleCNN, ResNet25, VGG16)
