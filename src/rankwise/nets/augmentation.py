"""The paper's default augmentation (4.2): flip, rotation and zoom, one draw for each image."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import nn

from rankwise.training.affine import affine_maps, moved

Fill = Literal["reflect", "nearest", "constant"]


class DefaultAugmentation(nn.Module):
    """Horizontal flip, rotation and zoom of a batch; see `default_augmentation`."""

    def __init__(self, flip: float, rotation: float, zoom: float, fill: Fill) -> None:
        super().__init__()
        self.flip, self.rotation, self.zoom, self.fill = flip, rotation, zoom, fill

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float ``(n, C, H, W)`` in [-1, 1] to the same shape; each image has its own draw."""
        n, _, height, width = x.shape
        # Drawn on the CPU: the same images on every kind of device.
        uniform = torch.rand(3, n, dtype=torch.float32).to(x.device)
        mirror = 1 - 2 * (uniform[0] < self.flip).float()
        angle = math.radians(self.rotation) * (2 * uniform[1] - 1)
        stretch = 1 + self.zoom * (2 * uniform[2] - 1)
        # Turned before it is mirrored, where `affine_maps` turns the mirrored image.
        return self.warp(x, affine_maps((height, width), mirror * angle, stretch, mirror=mirror))

    def warp(self, x: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
        """Sample bilinearly where ``(n, 2, 3)`` matrices in normalised coordinates point to."""
        # Outside is black, which is -1 here.
        shift = 1.0 if self.fill == "constant" else 0.0
        return moved(x + shift, affine, self.fill) - shift


def default_augmentation(
    *,
    flip: float = 0.5,
    rotation: float = 36.0,
    zoom: float = 0.2,
    fill: Fill = "reflect",
) -> DefaultAugmentation:
    """Random horizontal flip, rotation and zoom (paper 4.2), batched, grey or colour.

    Keras's layers interpolate twice, once to rotate and once to zoom. Both are affine maps about
    the centre, so here they and the flip are one map and one bilinear interpolation: the same
    geometry, a little sharper, and about three times as fast on small images as kornia's two
    transforms (the tests compare the two). Draws come from PyTorch's default generator; in
    `train_network` they depend on seed and epoch only.

    Parameters
    ----------
    flip : float
        Probability. Default 0.5 (paper: ``RandomHorizontalFlip(0.5)``).
    rotation : float
        Largest angle either way, degrees. Default 36 (paper: ``RandomRotation(0.1)``).
    zoom : float
        Largest relative change of the sampling grid, both sides alike. Default 0.2 (paper:
        ``RandomZoom(0.2)``).
    fill : {"reflect", "nearest", "constant"}
        What lies outside the image. Default "reflect", the default of both Keras layers;
        "constant" is black.

    Raises
    ------
    ValueError
        For a value out of range.
    """
    if not 0 <= flip <= 1:
        raise ValueError(f"flip is a probability; got {flip}")
    if rotation < 0 or not 0 <= zoom < 1:
        raise ValueError(f"rotation must be ≥ 0 and zoom in [0, 1); got {rotation} and {zoom}")
    if fill not in get_args(Fill):
        raise ValueError(f"unknown fill {fill!r}; accepted: {', '.join(get_args(Fill))}")
    return DefaultAugmentation(flip, rotation, zoom, fill)
