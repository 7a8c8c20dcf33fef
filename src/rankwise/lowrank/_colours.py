"""The colours of an image: luma and chroma, and how many matrices they come to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._layout import Layout
from rankwise.lowrank.options import LowRankOptions, OptionError

# ITU-R BT.601, full range, without the offset of 128 that only shifts Cb and Cr.
LUMA_CHROMA = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)
FROM_LUMA_CHROMA = np.linalg.inv(LUMA_CHROMA)


def matrices_per_image(layout: Layout, options: LowRankOptions) -> int:
    """How many matrices an image is decomposed into.

    Raises
    ------
    OptionError
        If luma and chroma are asked of images that have neither one nor three colours.
    """
    if options.channels == "luma-chroma" and layout.colours not in (1, 3):
        raise OptionError(
            f"channels='luma-chroma' needs RGB images; these have {layout.colours} colours"
        )
    return 1 if options.channels == "joint" else layout.colours


def mix_colours(planes: NDArray, weights: NDArray) -> NDArray:
    """Apply a 3×3 matrix to the colours of (…, 3, height, width)."""
    flat = planes.reshape(*planes.shape[:-2], planes.shape[-2] * planes.shape[-1])
    return (weights.astype(planes.dtype) @ flat).reshape(planes.shape)
