"""A first layer that whitens small patches: their principal axes, each at unit deviation."""

from __future__ import annotations

import numpy as np
import torch

from rankwise._arrays import Images, blocks, images_at_a_time
from rankwise.networks.convolutional import as_maps, shrunk

_MOST, _BLOCK = 5000, 256
_FLOOR = 5e-4


def whitening(
    images: Images, center: np.ndarray, scale: np.ndarray, *, shrink: int, side: int
) -> np.ndarray:
    """Filters ``W = Λ^{-½}Vᵀ`` of the patches' second moments ``VΛVᵀ``, as airbench has them.

    ``Λ`` is kept away from zero by 5·10⁻⁴, airbench's value, for images whose channels have unit
    deviation.

    Parameters
    ----------
    images : array of shape (n, H, W[, C])
        The first 5000 count.
    center, scale : arrays of shape (C,)
        Of the channels.
    shrink, side : int
        Images are averaged over squares of the one; patches have the other.

    Returns
    -------
    float32 array of shape (C·side², C, side, side)
        The largest axis last; the number of largest size in each is positive.
    """
    n = min(len(images), _MOST)
    middle, deviation = (torch.as_tensor(a)[:, None, None] for a in (center, scale))
    total, count = torch.zeros((), dtype=torch.float64), 0
    for block in blocks(n, images_at_a_time(images, _BLOCK, bytes_a_number=8)):
        maps = (shrunk(as_maps(images[block]), shrink) - middle) / deviation
        patches = torch.nn.functional.unfold(maps.double(), side)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        total, count = total + rows.T @ rows, count + len(rows)
    values, vectors = np.linalg.eigh((total / count).numpy())
    filters = vectors.T / np.sqrt(np.maximum(values, 0) + _FLOOR)[:, None]
    largest = np.take_along_axis(filters, np.abs(filters).argmax(axis=1)[:, None], axis=1)
    filters = filters * np.where(largest < 0, -1.0, 1.0)
    return filters.reshape(len(filters), len(center), side, side).astype(np.float32)
