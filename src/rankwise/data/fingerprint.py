"""A fingerprint of what a model can see of a data set: pixels, labels, shape, class names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise.data.reader import block_rows


def fingerprint(
    images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: Sequence[str]
) -> str:
    """SHA-256 over shape, class names, pixels and labels, as hexadecimal digits.

    Images are read block by block, so a memory-mapped array stays on disk. Where the images came
    from (file format, source ids, name) doesn't enter: equal content has an equal fingerprint.

    Parameters
    ----------
    images : uint8 array, shape (n, height, width[, channels])
        Pixels.
    labels : int array, shape (n,)
        Positions in `class_names`.
    class_names : sequence of str
        Names of the classes.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    header = {"shape": list(images.shape), "class_names": list(class_names)}
    digest = hashlib.sha256(json.dumps(header).encode())
    step = block_rows(int(np.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()
