"""Layers that the networks share, their starting weights, and what an image's shape means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


class ConvolutionReLU(nn.Sequential):
    """A k×k convolution and its ReLU, counted as one layer (Keras: ``Conv2D(activation="relu")``).

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    size : int
        Side of the kernel, pixels. Default 3.
    padding : int
        Zeros around the image, pixels. Default 0.
    """

    is_layer = True

    def __init__(self, n_in: int, n_out: int, size: int = 3, padding: int = 0) -> None:
        super().__init__(nn.Conv2d(n_in, n_out, size, padding=padding), nn.ReLU())


class ResidualBlock(nn.Module):
    """``ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x))``: paper A.2, one layer in its count.

    Both convolutions are 3×3 and without bias. The shortcut is the identity or, where the size
    changes, a 1×1 convolution of the same stride with batch norm.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    stride : int
        Of the first convolution.
    """

    is_layer = True

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, n_in, H, W)`` to ``(n, n_out, ceil(H/stride), ceil(W/stride))``."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def initialise(network: nn.Module) -> None:
    """Draw starting weights: He normal for convolutions, Glorot uniform for linear layers.

    These are the reference code's (``he_normal``) and Keras's default. Biases are zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def height_width_channels(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """``(H, W)`` or ``(H, W, C)`` as three numbers, C being 1 for grey images.

    Raises
    ------
    ValueError
        For any other shape.
    """
    shape = tuple(int(side) for side in image_shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(
            f"image_shape must be (height, width) or (height, width, channels); got {shape}"
        )
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


def has_own_features(network: nn.Module) -> bool:
    """Whether it's built as this package's networks are: ``features(x)`` of ``n_features``.

    A callable ``features`` alone says little: torchvision's and timm's are maps before their own
    pooling, without ``n_features``.
    """
    return callable(getattr(network, "features", None)) and hasattr(network, "n_features")


class FeatureExtractor(nn.Module):
    """One of `rankwise.nets`' networks without its head: ``forward`` gives its features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``network.features(x)``, ``(n, n_features)``."""
        features: Callable[[torch.Tensor], torch.Tensor] = self.network.features  # type: ignore[assignment]
        return features(x)
