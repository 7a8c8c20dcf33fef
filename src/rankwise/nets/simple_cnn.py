"""The simple CNN of the study: repeated convolution and max pooling (paper A.2, table 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rankwise.nets.layers import ConvolutionReLU, height_width_channels, initialise

FILTERS = (32, 64, 128)
# Below this, the three unpadded convolutions and two poolings would leave no pixel.
SMALLEST_UNPADDED = 18


class SimpleCNN(nn.Module):
    """Three 3×3 convolutions of 32, 64 and 128 filters, two max poolings, dropout, softmax.

    The paper gives a depth of 9 without dropout and about 100 K parameters on 28×28×1, no more.
    What stands here fits both: input, scaling, convolution, pooling, convolution, pooling,
    convolution, flattening and softmax, and 104,202 parameters.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
        Convolutions are unpadded; images smaller than 18 pixels are padded.
    n_classes : int
    dropout : float
        Probability, before the softmax layer (paper 3.5). Default 0.5, the reference code's.
    """

    channels_last = True

    def __init__(self, image_shape: Sequence[int], n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        height, width, channels = height_width_channels(image_shape)
        padding = 0 if min(height, width) >= SMALLEST_UNPADDED else 1
        sides = [height, width]
        if min(sides) < 4:
            raise ValueError(f"simple-cnn needs images of 4 × 4 pixels or more; got {sides}")
        first, second, third = FILTERS
        self.conv1 = ConvolutionReLU(channels, first, padding=padding)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = ConvolutionReLU(first, second, padding=padding)
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = ConvolutionReLU(second, third, padding=padding)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        shrink = 2 - 2 * padding
        for _ in range(2):
            sides = [(side - shrink) // 2 for side in sides]
        self.n_features = third * (sides[0] - shrink) * (sides[1] - shrink)
        self.head = nn.Linear(self.n_features, n_classes)
        initialise(self)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, C, H, W)`` to what the head sees, ``(n, n_features)``, before dropout."""
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(x))
        return self.flatten(self.conv3(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of float32 images ``(n, C, H, W)`` in [-1, 1]."""
        return self.head(self.dropout(self.features(x)))
