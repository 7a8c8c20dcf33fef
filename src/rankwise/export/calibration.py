"""Calibration images: what a network in whole numbers takes its scales from."""

from __future__ import annotations

import numpy as np


def as_pixels(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Images as bytes: uint8, or the same whole numbers in another type, as `predict` takes them.

    Parameters
    ----------
    images : array of shape (n, *shape)
    shape : tuple of int

    Returns
    -------
    uint8 array of shape (n, *shape)

    Raises
    ------
    ValueError
        If there is none, their shape is another, or they are no pixels from 0 to 255: scales of
        pixels from 0 to 1 would fit no image that the exported program gets.
    """
    images = np.asarray(images)
    if shape == (*images.shape[1:], 1):  # grey images without an axis for their channel
        images = images[..., None]
    if images.shape[1:] != shape:
        raise ValueError(
            f"calibration has images of shape {images.shape[1:]}; the network takes {shape}"
        )
    if len(images) == 0:
        raise ValueError("calibration needs at least one image")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iuf":
        raise ValueError(f"calibration has type {images.dtype}; pixels 0 to 255 are accepted")
    low, high = images.min(), images.max()
    unscaled = images.dtype.kind != "f" or high > 1
    if not (low >= 0 and high <= 255 and unscaled and (images == np.rint(images)).all()):
        raise ValueError(
            f"calibration has {images.dtype} values from {low:.4g} to {high:.4g}; pixels in whole "
            "numbers, 0 to 255, are accepted, such as uint8"
        )
    return images.astype(np.uint8)
