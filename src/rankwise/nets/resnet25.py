"""ResNet25, the residual network of the study (paper A.2, figure A.2, table 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rankwise.nets.layers import ResidualBlock, height_width_channels, initialise

FILTERS = (64,) * 4 + (128,) * 5 + (256,) * 3


class ResNet25(nn.Module):
    """7×7/2 convolution, max pooling, twelve residual blocks, mean over pixels, dropout, softmax.

    About 5 M parameters whatever the image's size. The depth of 25 in table 5 (a block as one
    layer, dropout included) is reached if the three default augmentations, which are layers in
    Keras, are counted; 25 is also the number of convolutions along the main path.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
    n_classes : int
    dropout : float
        Probability, before the softmax layer. Default 0.5, the reference code's.
    """

    channels_last = True

    def __init__(self, image_shape: Sequence[int], n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        channels = height_width_channels(image_shape)[2]
        width = FILTERS[0]
        self.conv = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks = []
        for filters in FILTERS:
            blocks.append(ResidualBlock(width, filters, stride=1 if filters == width else 2))
            width = filters
        self.blocks = nn.Sequential(*blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.n_features = width
        self.head = nn.Linear(width, n_classes)
        initialise(self)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, C, H, W)`` to what the head sees, ``(n, 256)``, before dropout."""
        x = self.pool(self.relu(self.norm(self.conv(x))))
        return self.flatten(self.average(self.blocks(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of float32 images ``(n, C, H, W)`` in [-1, 1]."""
        return self.head(self.dropout(self.features(x)))
