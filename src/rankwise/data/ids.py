"""Ids and labels of many samples, made and compared block by block: only the result takes room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import blocks
from rankwise.data.storage import ROWS, column

Texts = Sequence[str] | NDArray[np.str_]


def cut(*several: Any) -> Iterator[Any]:
    """Stretches of sequences, arrays or ranges, one after another."""
    for values in several:
        for block in blocks(len(values), ROWS):
            yield values[block]


def texts(some: Iterable[Texts], n: int, width: int) -> NDArray[np.str_]:
    """A column of `n` texts of at most `width` characters, which come in stretches."""
    found = column(n, f"U{max(1, width)}")
    done = 0
    for stretch in some:
        found[done : done + len(stretch)] = stretch
        done += len(stretch)
    return found


def width_of(values: Texts | range) -> int:
    """Characters of the longest text, or of the largest number of a range from 0."""
    if isinstance(values, range):
        return len(str(values.stop))
    if isinstance(values, np.ndarray):
        return values.dtype.itemsize // 4
    return max(map(len, values), default=0)


def numbered(n: int) -> NDArray[np.str_]:
    """The numbers of `n` rows as text."""
    numbers = range(n)
    return texts((list(map(str, block)) for block in cut(numbers)), n, width_of(numbers))


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """``numpy.unique(values)``, where few differ."""
    return np.unique(np.concatenate([values[:0], *map(np.unique, cut(values))]))


def repeated(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Rows, in increasing order, whose id some other row has as well.

    Of text the hashes are compared first, which takes eight bytes a row: `numpy.unique` would take
    all of it once more, and the places of each.
    """
    rows = np.arange(len(ids))
    if ids.dtype.kind == "U":
        hashes = _hashes(ids)
        hashes.sort()
        twice = hashes[1:][hashes[1:] == hashes[:-1]]
        if not len(twice):
            return np.empty(0, np.int64)
        rows = np.flatnonzero(np.isin(_hashes(ids), twice))
    _, groups, sizes = np.unique(ids[rows], return_inverse=True, return_counts=True)
    return rows[sizes[groups] > 1]


def _hashes(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    found = column(len(ids), np.int64)
    for block in blocks(len(ids), ROWS):
        found[block] = list(map(hash, ids[block].tolist()))
    return found
