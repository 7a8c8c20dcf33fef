"""The images of a run: both parts, checked against each other, and what a report says of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankwise.data import ImageSet, check_no_shared_sources, load_images
from rankwise.errors import DataError


def read_parts(
    source: str, *, limit: int | None = None, **options: Any
) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a source; they share no source id.

    Parameters
    ----------
    source : str
    limit : int, optional
        Training images.
    **options
        More options of `rankwise.load_images`.

    Raises
    ------
    DataError
        If the two parts don't fit together.
    """
    train = load_images(source, split="train", limit=limit, **options)
    test = load_images(source, split="test", **options)
    if train.image_shape != test.image_shape:
        raise DataError(
            f"{source}: training images have shape {train.image_shape}, test images "
            f"{test.image_shape}; give a size to bring them together"
        )
    check_no_shared_sources(train.source_ids, test.source_ids)
    unseen = np.setdiff1d(test.labels, train.labels)
    if len(unseen):
        names = {train.class_names[i] for i in unseen}
        raise DataError(f"{source}: classes in test images only, not in training: {some_of(names)}")
    return train, test


def describe_images(images: ImageSet) -> dict[str, Any]:
    """For a report."""
    return {
        "n_samples": len(images),
        "split": images.split,
        "image_shape": list(images.image_shape),
        "fingerprint": images.fingerprint,
        "n_skipped": images.n_skipped,
        "skipped": list(images.skipped),
    }


def names_of(images: ImageSet) -> np.ndarray:
    """Class name of each image, of shape (n,)."""
    return np.asarray(images.class_names, dtype=str)[images.labels]


def some_of(names: set[str], most: int = 5) -> str:
    """The first few names, for an error."""
    shown = sorted(names)[:most]
    return ", ".join(shown) + (", …" if len(names) > most else "")
