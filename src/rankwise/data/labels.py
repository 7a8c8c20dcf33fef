"""Labels as they come (integers, names, floats that are integers) to positions in class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data.reader import IntArray
from rankwise.errors import DataError


def label_values(values: Any, where: str) -> NDArray[Any]:
    """Check labels of shape (n,) or (n, 1): integers (int64) or strings; anything else raises."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"The labels of {where} have shape {array.shape}; one label per image, shape (n,), "
            "is accepted."
        )
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.round(array))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(
                f"Label {array[row]} of row {row} of {where} isn't an integer; integers or class "
                "names are accepted."
            )
    elif array.dtype.kind not in "iubUS":
        raise DataError(
            f"The labels of {where} have type {array.dtype}; integers or class names are accepted."
        )
    return array.astype(str) if array.dtype.kind in "US" else array.astype(np.int64)


def names_of(*values: NDArray[Any]) -> NDArray[Any]:
    """Give the distinct label values over all splits, sorted: the classes where no names exist."""
    return np.unique(np.concatenate(values)) if values else np.empty(0, np.int64)


def positions(values: NDArray[Any], known: NDArray[Any]) -> IntArray:
    """Positions of `values` in the sorted array `known`, which holds them all."""
    return np.searchsorted(known, values).astype(np.int64)


def check_range(
    labels: IntArray, class_names: Sequence[str], where: str, ignore: Sequence[int] = ()
) -> None:
    """Raise `DataError` at the first label (rows in `ignore` apart) that isn't a class position."""
    wrong = (labels < 0) | (labels >= len(class_names))
    wrong[list(ignore)] = False
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"Label {labels[row]} of row {row} of {where} is out of range; "
            f"0 to {len(class_names) - 1} are accepted, for the {len(class_names)} class names."
        )


def check_classes(labels: IntArray, class_names: Sequence[str], where: str) -> None:
    """Raise `DataError` unless at least two classes have samples."""
    present = np.unique(labels)
    if len(present) == 0:
        raise DataError(f"{where} has no usable image; at least two classes of images are needed.")
    if len(present) == 1:
        raise DataError(
            f"{where} has images of one class only ({class_names[present[0]]!r}); "
            "at least two classes are needed."
        )
