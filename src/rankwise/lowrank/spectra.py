"""Singular values of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankwise.lowrank._colours import LUMA_CHROMA, matrices_per_image, mix_colours
from rankwise.lowrank._layout import (
    colour_limits,
    integer_range,
    is_tensor,
    tensor_to_array,
)
from rankwise.lowrank.options import resolve_options
from rankwise.lowrank.reconstruct import layout_of


def spectrum(
    images: Any,
    *,
    channels: str | None = None,
    reference: str = "paper",
    channel_axis: int | str | None = "auto",
    alpha: bool | None = None,
) -> Any:
    """Singular values ``σ_1 ≥ σ_2 ≥ …`` of images (equations 1 and 2 of the paper).

    By a float64 SVD, so that the small ones are right too; `low_rank_approximation` doesn't wait
    for that.

    Parameters
    ----------
    images : torch.Tensor or ndarray
        Tensors ``(…, channels, height, width)``, arrays ``(…, height, width, channels)``, or
        ``(height, width)``; integers or floats.
    channels : {"own", "shared", "luma-chroma", "joint"}, optional
        Which matrices: the channels (paper and notebook), Y, Cb and Cr, or one joint matrix.
    reference : {"paper", "notebook"}
        Whose choice holds where `channels` isn't given; their spectra are the same.
    channel_axis : int, None or "auto"
        As in `low_rank_approximation`.
    alpha : bool, optional
        Whether the last channel is transparency and left out. Default: if there are four.

    Returns
    -------
    sigma : ndarray or torch.Tensor of float64, (…, matrices, n)
        Descending; n is the shorter side. On the device of `images`. Empty for an empty batch.

    Raises
    ------
    OptionError
        As `low_rank_approximation`.

    Examples
    --------
    >>> import numpy as np
    >>> spectrum(np.diag([3.0, 1.0])).tolist()
    [[3.0, 1.0]]
    """
    options = resolve_options(reference, channels=channels)
    layout = layout_of(images, channel_axis, alpha)
    group = matrices_per_image(layout, options)
    array = tensor_to_array(images.cpu()) if is_tensor(images) else images
    limits = integer_range(array.dtype)
    planes = layout.planes(array).astype(np.float64)
    if limits is None:
        colour_limits(planes)
    count, colours, height, width = planes.shape
    if options.channels == "luma-chroma" and colours == 3:
        planes = mix_colours(planes, LUMA_CHROMA)
    if options.channels == "joint":
        planes = planes.transpose(0, 2, 1, 3).reshape(count, 1, height, colours * width)
    sigma = np.linalg.svd(planes, compute_uv=False)
    sigma = sigma.reshape(*layout.batch, group, sigma.shape[-1])
    if not is_tensor(images):
        return sigma
    import torch

    return torch.from_numpy(sigma).to(images.device)
