"""Whether two sets of images are told apart: by marks of some, which results hold.

The smallest 4096 of a set's 64-bit marks are kept. Small marks of one set are the small ones of
another that has the same pictures: so sets that share more than a few have marks in common, and
sets of up to 4096 images are compared in full.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import pixel_marks

KEPT = 4096

SAME, OTHER = "the same images", "other images"
ONE_SOURCE = "the same source, with another selection or another size"
SHARED = "some of the same images"
UNKNOWN = "not known to be other images"
RELATIONS = (SAME, ONE_SOURCE, SHARED, UNKNOWN, OTHER)
"""What the images of a data set are to those of another."""


def sketch(images: NDArray[np.uint8]) -> str:
    """The smallest marks of images, as text."""
    marks = np.unique(pixel_marks(images))[:KEPT]
    return base64.b64encode(marks.astype("<u8").tobytes()).decode()


def share_images(first: dict[str, Any], second: dict[str, Any]) -> bool | None:
    """Whether two described data sets hold the same pictures, None where that can't be told.

    Parameters
    ----------
    first, second : dict
        As ``data_sets`` of ``results.json`` have them. Images of other shapes have other pixels,
        and earlier versions kept no marks: then nothing is known.
    """
    texts = [data.get("marks") for data in (first, second)]
    if None in texts or first.get("image_shape") != second.get("image_shape"):
        return None
    try:
        one, other = (
            np.frombuffer(base64.b64decode(str(text), validate=True), "<u8") for text in texts
        )
    except ValueError:  # a damaged one tells nothing
        return None
    return bool(np.isin(one, other).any())


def relation(first: dict[str, Any], second: dict[str, Any]) -> str:
    """What the images of two described data sets are to each other: one of `RELATIONS`.

    Parameters
    ----------
    first, second : dict
        As in `share_images`. They are told to be others by another source, with marks of both and
        none in common.
    """
    if first.get("fingerprint") and first.get("fingerprint") == second.get("fingerprint"):
        return SAME
    places = [_place(data.get("source")) for data in (first, second)]
    if places[0] is not None and places[0] == places[1]:
        return ONE_SOURCE
    shared = share_images(first, second)
    if shared is None or None in places:
        return SHARED if shared else UNKNOWN
    return SHARED if shared else OTHER


def _place(source: str | None) -> str | None:
    """Where images come from; of a folder or a file, however its path is spelled."""
    return str(Path(source).resolve()) if source and Path(source).exists() else source
