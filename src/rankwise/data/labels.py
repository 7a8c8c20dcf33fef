"""Labels as they come (integers, names, truth values) to positions in class names, kept exactly."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data.ids import distinct
from rankwise.data.reader import IntArray
from rankwise.errors import DataError

_EXACT = 2**53  # beyond it a float no longer tells neighbouring integers apart


def label_values(values: Any, where: str) -> NDArray[Any]:
    """Check labels of shape (n,) or (n, 1), and keep each as it is.

    Returns
    -------
    int64 or str array, shape (n,)
        Integers, also those that came as floats, as int64; integers beyond that as their digits,
        truth values as ``False`` and ``True``, text as it is.

    Raises
    ------
    DataError
        For any other label: fractions, NaN, None, floats beyond 2⁵³, lists.
    """
    array = _as_array(values, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hot = array.ndim == 2 and array.shape[1] > 1
        hint = "; of one-hot rows take the argmax" if hot else ""
        raise DataError(
            f"The labels of {where} have shape {array.shape}; one label per image, shape (n,), "
            f"is accepted{hint}."
        )
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.round(array)) & (np.abs(array) <= _EXACT)
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(
                f"Label {array[row]} of row {row} of {where} isn't an integer; integers or class "
                "names are accepted."
            )
        return array.astype(np.int64)
    if array.dtype.kind == "O":
        return _of_objects(array, where)
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"The labels of {where} are bytes that aren't UTF-8 ({error.reason}); class names "
                "as text are accepted."
            ) from error
    if array.dtype.kind not in "iubU":
        raise DataError(
            f"The labels of {where} have type {array.dtype}; integers or class names are accepted."
        )
    if array.dtype.kind == "U":
        check_text(array.tolist(), where)
    return exact(array)


def exact(array: NDArray[Any]) -> NDArray[Any]:
    """Integers as int64, or as their digits where some don't fit; truth values as text."""
    if array.dtype.kind in "bU":
        return array.astype(str)
    if array.dtype.kind == "u" and len(array) and array.max() > np.iinfo(np.int64).max:
        return array.astype(str)
    return array.astype(np.int64)


def _as_array(values: Any, where: str) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, (list, tuple)):
        # numpy would turn [1, "a"] into text, and [True, 2] into integers.
        kinds = {bool if isinstance(v, np.bool_) else type(v) for v in values}
        numbers = all(issubclass(k, (int, float, np.number)) and k is not bool for k in kinds)
        large = kinds == {int} and any(abs(v) >= 2**63 for v in values)
        if kinds == {str}:
            check_text(values, where)
        if large or (len(kinds) > 1 and not numbers):
            mixed = np.empty(len(values), dtype=object)
            mixed[:] = values
            return mixed
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"The labels of {where} are no array ({error}); one integer or class name per image "
            "is accepted."
        ) from error


def _of_objects(array: NDArray[Any], where: str) -> NDArray[Any]:
    values = array.tolist()
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and value != value):
            raise DataError(
                f"Label {value} of row {row} of {where} is none; integers or class names are "
                "accepted: leave the image out, or give it a label."
            )
    if all(isinstance(value, str) for value in values):
        check_text(values, where)
        return np.array(values, dtype=str)
    if all(
        isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values
    ):
        small = all(abs(int(value)) < 2**63 for value in values)
        return np.array(values, dtype=np.int64) if small else np.array([str(v) for v in values])
    if all(isinstance(value, (bool, np.bool_)) for value in values):
        return np.array([str(value) for value in values])
    kinds = sorted({type(value).__name__ for value in values})
    raise DataError(
        f"The labels of {where} are of the kinds {', '.join(kinds)}; integers alone or class names "
        "alone are accepted."
    )


def check_text(values: Sequence[str], where: str) -> None:
    """Raise `DataError` for an empty name, and for one with a zero character, which numpy drops."""
    for row, value in enumerate(values):
        if not value.strip():
            raise DataError(
                f"Label {value!r} of row {row} of {where} is empty; a name is needed: leave the "
                "image out, or give it one."
            )
        if "\0" in value:
            raise DataError(
                f"Label {value!r} of row {row} of {where} holds a zero character; names without "
                "are accepted."
            )


def check_twins(names: Sequence[str], where: str) -> None:
    """Raise `DataError` where two class names differ in Unicode form or outer blanks only."""
    forms: dict[str, str] = {}
    for name in names:
        other = forms.setdefault(unicodedata.normalize("NFC", name).strip(), name)
        if other != name:
            raise DataError(
                f"{where} has two classes that differ in their Unicode form or in blanks only, "
                f"{other!a} and {name!a}; rename one: to the other if they are one class."
            )


def capital_twins(names: Sequence[str]) -> list[str]:
    """A line on two class names that differ in capitals only; letters (``a`` and ``A``) may."""
    forms: dict[str, str] = {}
    for name in names:
        other = forms.setdefault(name.casefold(), name)
        if other != name and len(name) > 1:
            return [
                f"{other!r} and {name!r} differ in capitals only, and are read as two classes; "
                "rename one if they are one class"
            ]
    return []


def names_of(*values: NDArray[Any]) -> NDArray[Any]:
    """Give the distinct label values over all splits, sorted: the classes where no names exist."""
    if not values:
        return np.empty(0, np.int64)
    if len({array.dtype.kind for array in values}) > 1:  # digits in one, integers in another
        values = tuple(array.astype(str) for array in values)
    return np.unique(np.concatenate(values))


def positions(values: NDArray[Any], known: NDArray[Any]) -> IntArray:
    """Positions of `values` in the sorted array `known`, which holds them all."""
    if values.dtype.kind != known.dtype.kind:
        values = values.astype(known.dtype)
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
    present = distinct(labels)
    if len(present) == 0:
        raise DataError(f"{where} has no usable image; at least two classes of images are needed.")
    if len(present) == 1:
        raise DataError(
            f"{where} has images of one class only ({class_names[present[0]]!r}); "
            "at least two classes are needed."
        )
