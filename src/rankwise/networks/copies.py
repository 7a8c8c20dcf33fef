"""Outputs averaged over copies of each image: mirrored, and moved by a pixel, as in airbench.

Every copy costs as much as the image itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rankwise._arrays import Images, blocks, images_at_a_time

COPIES = ("mirror", "shifts")
"""Copies of an image: it and its mirror image; or these, and both moved up left and down right."""


@dataclass(frozen=True)
class View:
    """One copy of every image.

    Parameters
    ----------
    weight : float
        Of its outputs in the average.
    mirrored : bool
        Left and right are exchanged.
    shift : int
        Pixels to the right and down; the border is mirrored there.
    """

    weight: float
    mirrored: bool = False
    shift: int = 0

    def of(self, images: np.ndarray) -> np.ndarray:
        """The copies of images ``(n, H, W[, C])``."""
        found = images[:, :, ::-1] if self.mirrored else images
        if self.shift:
            rows, columns = images.shape[1:3]
            size = abs(self.shift)
            around = [(0, 0), (size, size), (size, size), *[(0, 0)] * (images.ndim - 3)]
            first = size - self.shift
            padded = np.pad(found, around, mode="symmetric")
            found = padded[:, first : first + rows, first : first + columns]
        return np.ascontiguousarray(found)


def views(copies: str, mirror: bool | None) -> tuple[View, ...]:
    """The copies that a name of `COPIES` stands for; the first is the image itself.

    Parameters
    ----------
    copies : {"mirror", "shifts"}
    mirror : bool or None
        Whether mirror images are images of the same class; None if that wasn't asked.

    Raises
    ------
    ValueError
        If the name is unknown, or asks for mirror images that may mean something else.
    """
    if copies not in COPIES:
        raise ValueError(f"unknown tta {copies!r}; accepted: {', '.join(COPIES)}, or None")
    if copies == "mirror":
        check_mirror(mirror)
    shifts = ((0.5, 0), (0.25, 1), (0.25, -1)) if copies == "shifts" else ((1.0, 0),)
    sides = (False, True) if mirror else (False,)
    return tuple(View(w / len(sides), side, shift) for w, shift in shifts for side in sides)


UNASKED = "that takes random moves of the images, and 200 images to train on"
"""Why there may have been no probe of mirror images."""


def check_mirror(mirror: bool | None, why: str = UNASKED) -> None:
    """Refuse copies that are mirror images where these may mean something else.

    Parameters
    ----------
    mirror : bool or None
        As in `views`.
    why : str
        No probe was run.

    Raises
    ------
    ValueError
        Another sentence where nothing was asked than where the answer was no.
    """
    if mirror:
        return
    if mirror is None:
        raise ValueError(
            "tta='mirror' needs classes that mirror images keep, and no probe of the training "
            f"images has asked whether they do: {why}; 'shifts' is accepted"
        )
    raise ValueError(
        "tta='mirror' needs classes that mirror images keep, and the probe of the training images "
        "found that they don't; 'shifts' is accepted"
    )


def outputs_of_copies(
    outputs: Callable[[np.ndarray], np.ndarray],
    images: Images,
    chosen: tuple[View, ...],
    step: int = 1,
) -> np.ndarray:
    """Weighted mean of the outputs for all copies of each image, ``(n, K)``.

    Parameters
    ----------
    outputs : callable
        Outputs ``(n, K)`` of images.
    images : array of shape (n, H, W[, C])
    chosen : tuple of View
    step : int
        Images that `outputs` computes at a time; a block is of several times as many.
    """
    parts = []
    for block in blocks(len(images), step * max(1, images_at_a_time(images) // step)):
        part = images[block]
        parts.append(sum(view.weight * outputs(view.of(part)) for view in chosen))
    return np.concatenate(parts) if parts else outputs(images[:0])
