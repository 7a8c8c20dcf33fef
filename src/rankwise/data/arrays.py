"""Sources whose images are decoded already: shared reading by blocks, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.data.labels import check_twins, names_of, positions
from rankwise.data.reader import Block, Index, IntArray, block_rows, contiguous_blocks

Fetch = Callable[[int, int], NDArray[np.uint8]]
"""Gives the rows from a start to a stop; starts only rise, so a stream need not go back."""


class PixelStore(Protocol):
    """Images of one split, stored one after another."""

    shape: tuple[int, ...]
    """(n, H, W) or (n, H, W, C)."""

    def open(self) -> AbstractContextManager[Fetch]:
        """Open the store for reading."""
        ...


class InMemory:
    """Images that are an array already (or a memory map of one)."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images
        self.shape = images.shape

    @contextmanager
    def open(self) -> Iterator[Fetch]:
        """Give slices of the array."""
        yield lambda start, stop: self.images[start:stop]


class ArrayReader:
    """Reader of decoded images; `parts` holds, for each split, the images and label values."""

    def __init__(
        self,
        name: str,
        parts: dict[str, tuple[PixelStore, NDArray[Any]]],
        places: dict[str, str],
        own_names: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.own_names = own_names or {split: split for split in parts}
        self.notes: tuple[str, ...] = ()
        self.splits = tuple(parts)
        self._parts = parts
        self._places = places
        # Over all splits, as a class may be missing from one of them.
        self._known = names_of(*(labels for _, labels in parts.values()))
        check_twins(tuple(map(str, self._known)), name)

    def index(self, split: str) -> Index:
        """Labels of one split; decoded images have no paths."""
        names = tuple(str(value) for value in self._known)
        return Index(positions(self._parts[split][1], self._known), names)

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Give the images asked for, cut out of blocks of some MiB."""
        store = self._parts[split][0]
        step = block_rows(int(np.prod(store.shape[1:])))
        with store.open() as fetch:
            for wanted in contiguous_blocks(rows, step):
                start, stop = int(wanted[0]), int(wanted[-1]) + 1
                block = fetch(start, stop)
                if len(wanted) < stop - start:
                    block = block[wanted - start]
                yield block[..., 0] if block.ndim == 4 and block.shape[3] == 1 else block

    def describe(self, split: str, row: int) -> str:
        """File and row."""
        return f"Image {row} of {self._places[split]}"


def digits_reader() -> ArrayReader:
    """Scikit-learn's digits: 1797 grey images, 8×8; 0..16 there, 0..255 here, rounded."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    part = (InMemory(images), digits.target.astype(np.int64))
    reader = ArrayReader("digits", {"train": part}, {"train": "digits"})
    if Path("digits").exists():
        reader.notes = ("digits is scikit-learn's set; ./digits names the folder of that name",)
    return reader
