"""The degraded test images of a study: the same for all its cells."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise._files import atomic_path
from rankwise.errors import is_shortage
from rankwise.study import imagenet_c
from rankwise.study.degrade import KINDS, SEVERITIES, degrade

CORRUPTIONS = {"own": KINDS, "imagenet-c": imagenet_c.NAMES}
"""Names of corruptions by what `Study.corruptions` is."""

FOLDER = "degraded"
MOST_BYTES = 2**29
"""Of our own corruptions that are kept; ImageNet-C's always are, each cell's anew took hours."""


def degraded_sets(
    corruptions: str, images: NDArray[np.uint8], out: Path
) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """Name, severity and images, for every corruption.

    They take milliseconds an image, and every cell wants the same ones: they are kept in
    ``degraded/`` of the study's folder until it is finished, as far as `MOST_BYTES` go.

    Parameters
    ----------
    corruptions : str
        One of `CORRUPTIONS`.
    images : ndarray of uint8
        The test part.
    out : Path
        The study's folder.
    """
    names = CORRUPTIONS[corruptions]
    kept = corruptions != "own" or len(names) * len(SEVERITIES) * images.nbytes <= MOST_BYTES
    key = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()[:16]
    make = degrade if corruptions == "own" else imagenet_c.corrupt
    for name in names:
        for severity in SEVERITIES:
            path = out / FOLDER / f"{name}-{severity}-{key}.npy"
            found = _kept(path, images.shape) if kept else None
            if found is None:
                found = make(images, name, severity)
                if kept:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_path(path) as temporary, temporary.open("wb") as file:
                        np.save(file, found, allow_pickle=False)
            yield name, severity, found


def _kept(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Images of an earlier cell; None where there are none, or the file is damaged."""
    try:
        found = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy's parser of headers raises nearly anything
        if is_shortage(error):
            raise
        return None
    return found if found.dtype == np.uint8 and found.shape == shape else None


def forget(out: Path) -> None:
    """Remove what a finished study doesn't need any more."""
    shutil.rmtree(out / FOLDER, ignore_errors=True)
