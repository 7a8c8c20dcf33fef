"""A small residual network for small images, a backbone that a laptop can pre-train."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


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
