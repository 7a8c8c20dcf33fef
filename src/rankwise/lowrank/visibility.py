"""How visible a copy is, and which energy makes it as visible as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank.options import OptionError
from rankwise.lowrank.reconstruct import low_rank_approximation

STRENGTHS = {"just visible": 2.0, "plain": 6.0, "strong": 12.0}
"""Mean absolute changes of 255 that a person sees, about 40, 30 and 25 dB: rules of thumb.

From 40 dB on, pictures side by side look alike; the paper's mean energy, 0.975, leaves photographs
well above that.
"""

_STEPS = 14  # halvings: the energy to 1/16384


def mean_change(image: NDArray, copy: NDArray) -> float:
    """Mean absolute difference of two 8-bit images, in levels of 255, over pixels and channels.

    Raises
    ------
    OptionError
        If the shapes differ, or one isn't an array of uint8.
    """
    for each in (image, copy):
        _check_levels(each)
    if image.shape != copy.shape:
        raise OptionError(f"shapes differ: {image.shape} and {copy.shape}")
    return float(np.abs(image.astype(np.int16) - copy).mean())


def energy_for_change(
    images: Sequence[NDArray], change: float | int, **options: Any
) -> float | None:
    """The largest energy whose copies differ from their images by at least `change` on average.

    By halving: a smaller energy changes an image more, but for the rounding of pixels.

    Parameters
    ----------
    images : sequence of uint8 arrays, (H, W) or (H, W, C)
        Of any sizes; each counts the same.
    change : float
        Mean absolute change of 255.
    **options
        As of `low_rank_approximation`: `reference`, `energy_of`, `rank_rule`, `channels`.

    Returns
    -------
    energy : float or None
        In (0, 1); None where even the smallest energy changes less, as of an image of rank one.

    Raises
    ------
    OptionError
        If there is no image, one isn't an array of uint8, or `change` isn't positive.
    """
    if not len(images):
        raise OptionError("an energy is found for at least one image")
    for image in images:
        _check_levels(image)
    if not change > 0:
        raise OptionError(f"change must be positive, not {change}")

    def changed(energy: float) -> float:
        copies = (low_rank_approximation(i, energy=energy, **options) for i in images)
        return float(np.mean([mean_change(i, c) for i, c in zip(images, copies, strict=True)]))

    low, high = 2.0**-_STEPS, 1.0
    if changed(low) < change:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if changed(middle) >= change else (low, middle)
    return low


def _check_levels(image: Any) -> None:
    """Refuse what has no levels of 255: floats, and integers of other sizes."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise OptionError(f"changes are measured of 8-bit images, arrays of uint8, not {kind}")
