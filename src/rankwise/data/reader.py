"""What a data source must offer: an index known before decoding, and its images in blocks.

A reader is a small object for one source (a folder, an archive, a hub data set). It knows which
splits the source really has, gives the labels of a split without touching its images, and then
hands out the images of the rows it is asked for, in order, a block at a time. Everything else
(hold-outs, limits, decoding, resizing, skipping) happens once, in `rankwise.data.source`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

Encoded = bytes | Path | None
"""An image as stored: the bytes of an image file, the path of one, or None where it is null."""

Block = NDArray[np.uint8] | Sequence[Encoded]
"""Images of consecutive rows asked for: decoded ``(m, H, W[, C])``, or `m` encoded ones."""


@dataclass(frozen=True)
class Index:
    """What is known about the samples of one split before any image is decoded.

    Attributes
    ----------
    labels : int64 array, shape (n,)
        Positions in `class_names`; the value is of no account for rows in `unusable`.
    class_names : tuple of str
        The same for every split of a source.
    paths : sequence of str, or None
        Path of each image as the source stores it; None where samples have no names.
    unusable : dict of int to str
        Rows that can't be used, with the reason (a missing label, a file of another kind).
    """

    labels: IntArray
    class_names: tuple[str, ...]
    paths: Sequence[str] | None = None
    unusable: dict[int, str] = field(default_factory=dict)
    source_ids: Sequence[str] | NDArray[np.str_] | None = None
    """What each sample derives from, where the source says so; empty where it doesn't."""
    logged_copies: bool = False
    """Whether the source has the columns of ``rankwise augment``'s log beside those ids."""

    def __len__(self) -> int:
        return len(self.labels)


class Reader(Protocol):
    """A data source; see the module's text."""

    name: str
    """What the data set is called, for people."""

    splits: tuple[str, ...]
    """The splits that the source has, such as ``("train", "test")``; never empty."""

    own_names: dict[str, str]
    """What the source itself calls each split, such as ``{"validation": "val"}``."""

    notes: tuple[str, ...]
    """What was decided about the source, a sentence each."""

    def index(self, split: str) -> Index:
        """Labels, class names and paths of one split."""
        ...

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Images of `rows` (sorted, distinct), in that order, in blocks of bounded size.

        A lazy generator: reading stops where the caller stops. An encoded image that is damaged
        is handed out as it is; a damaged container raises `DataError`.
        """
        ...

    def describe(self, split: str, row: int) -> str:
        """Name one sample in a message: the file, and the row where a file holds many."""
        ...


def contiguous_blocks(rows: IntArray, block: int) -> Iterator[IntArray]:
    """Cut sorted `rows` into pieces that lie in one stretch of `block` consecutive rows."""
    if len(rows):
        edges = np.flatnonzero(np.diff(rows // block)) + 1
        yield from np.split(rows, edges)


def block_rows(bytes_per_row: int) -> int:
    """Rows per block: about 8 MiB, so that memory stays bounded and calls stay few."""
    return int(max(1, min(8192, 8 * 2**20 // max(1, bytes_per_row))))
