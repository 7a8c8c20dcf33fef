"""Whether two sets of images are told apart: by marks of some, which results hold.

The smallest 4096 of a set's 64-bit marks are kept. Small marks of one set are the small ones of
another that has the same pictures: so sets that share more than a few have marks in common, and
sets of up to 4096 images are compared in full.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import pixel_marks

KEPT = 4096


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
