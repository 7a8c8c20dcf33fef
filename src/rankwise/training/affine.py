"""Affine maps of whole batches of images: how each is made of its parts, and applied."""

from __future__ import annotations

import torch
from torch.nn import functional as F

FILLS = {"reflect": "reflection", "nearest": "border", "constant": "zeros"}
"""What lies outside an image, and what `torch.nn.functional.grid_sample` calls it."""


def affine_maps(
    size: tuple[int, int],
    angle: torch.Tensor,
    stretch: torch.Tensor,
    *,
    shear: torch.Tensor | float = 0.0,
    right: torch.Tensor | float = 0.0,
    down: torch.Tensor | float = 0.0,
    mirror: torch.Tensor | float = 1.0,
    flip: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Where each pixel is taken from: a rotation in pixels about the centre, stretched, sheared.

    Coordinates are those of `torch.nn.functional.affine_grid`, from −1 to 1 along both axes, so a
    rotation needs the aspect.

    Parameters
    ----------
    size : (int, int)
        Rows and columns.
    angle : tensor of shape (n,)
        Radians.
    stretch : tensor of shape (n,)
        Of the grid of places: above 1 shows more of the image.
    shear : tensor of shape (n,), optional
        Columns a row, where 1 is a place of the stretched grid.
    right, down : tensors of shape (n,), optional
        Half the axis is 1.
    mirror, flip : tensors of shape (n,), optional
        −1 exchanges left and right, top and bottom; 1 doesn't.

    Returns
    -------
    tensor of shape (n, 2, 3)
    """
    cos, sin = torch.cos(angle) * stretch, torch.sin(angle) * stretch
    aspect, zero = size[0] / size[1], torch.zeros_like(cos)
    first = [cos * mirror, (shear * cos - sin) * flip * aspect, zero + right]
    second = [sin * mirror / aspect, (shear * sin + cos) * flip, zero + down]
    return torch.stack([torch.stack(first, dim=1), torch.stack(second, dim=1)], dim=1)


def moved(maps: torch.Tensor, affine: torch.Tensor, fill: str = "nearest") -> torch.Tensor:
    """Maps ``(n, C, H, W)`` sampled bilinearly where affine maps ``(n, 2, 3)`` point to.

    Parameters
    ----------
    maps, affine : tensors
    fill : {"nearest", "reflect", "constant"}
        What lies outside: the border goes on, the image is mirrored there, or zero.
    """
    grid = F.affine_grid(affine.to(maps), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode=FILLS[fill], align_corners=False)
