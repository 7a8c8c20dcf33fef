"""Images of parquet files by reference: a row group is decoded when one of its rows is asked for.

What travels are addresses, the column and the layout. A process decodes a row group once and keeps
it, while what is kept takes no more than `KEPT_BYTES`; the one used longest ago leaves first.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rankwise.data.arrow import encoded_images
from rankwise.data.decode import (
    BadImageError,
    Layout,
    layout_of,
    open_image,
    to_array,
    without_pillows_warnings,
)
from rankwise.data.filerows import FileRows
from rankwise.data.parquet_file import ParquetFile
from rankwise.data.reader import Encoded, IntArray
from rankwise.data.samples import HINT
from rankwise.errors import DataError

KEPT_BYTES = 256 * 2**20
"""Of decoded row groups in a process."""


@dataclass(frozen=True, eq=False, repr=False)
class ParquetRows(FileRows):
    """Images in parquet files, by the addresses of these; equal to what `load_images` decodes.

    Parameters
    ----------
    stamps : tuple of str
        `ParquetFile.stamp` of each file, which is refused if it has become another.
    column : str
        Of images.
    bits : int or None
        In use of images of 16; None where that wasn't looked at: then they are refused.
    """

    stamps: tuple[str, ...] = ()
    column: str = ""
    bits: int | None = None

    @classmethod
    def of(
        cls, files: Sequence[ParquetFile], column: str, layout: Layout, bits: int | None
    ) -> Self:
        """All rows of some files, one after another."""
        stamps = tuple(file.stamp for file in files)
        known = json.dumps([stamps, column, layout.shape, bits])
        return cls(
            addresses=tuple(file.address for file in files),
            starts=tuple(np.cumsum([0, *map(len, files)]).tolist()),
            row_shape=layout.shape,
            dtype=np.dtype(np.uint8),
            digest=hashlib.sha256(known.encode()).hexdigest(),
            stamps=stamps,
            column=column,
            bits=bits,
        )

    def notes(self) -> list[str]:
        """A word on what passes cost, where a process can't keep all images."""
        if self.nbytes <= KEPT_BYTES:
            return []
        return [
            f"images are decoded as they are asked for, and each pass over them decodes all "
            f"{self.nbytes / 2**20:,.0f} MiB again; 'rankwise shard' once is better for several"
        ]

    def known_fingerprint(self, labels: NDArray[np.int64], names: Sequence[str]) -> str | None:
        """Of files, layout, rows, labels and names: no pixel is read for it."""
        digest = hashlib.sha256(json.dumps([self.digest, list(names)]).encode())
        rows = np.arange(len(self)) if self.rows is None else self.rows
        for values in (rows, labels):
            digest.update(np.ascontiguousarray(values, dtype="<i8").data)
        return digest.hexdigest()

    def _of_file(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        file = _opened(self.addresses[number], self.stamps[number])
        result = np.empty((len(rows), *self.row_shape), np.uint8)
        group_of = np.searchsorted(file.starts, rows, side="right") - 1
        for group in np.unique(group_of).tolist():
            at = np.flatnonzero(group_of == group)
            result[at] = self._of_group(file, group, rows[at])
        return result

    def _of_group(self, file: ParquetFile, group: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        first, stop = file.starts[group : group + 2].tolist()
        if (stop - first) * int(np.prod(self.row_shape)) > KEPT_BYTES:
            wanted, back = np.unique(rows, return_inverse=True)
            images, bad = decoded(file, self.column, wanted, self.row_shape, self.bits)
            _check_good(bad, wanted)
            return images[back]
        images, bad = _kept.group(file, group, self.column, self.row_shape, self.bits)
        _check_good(bad, rows)
        return images[rows - first]


Decoded = tuple[NDArray[np.uint8], dict[int, str]]
"""Images, and a sentence on each of the rows, counted within the file, that are bad."""


def decoded(
    file: ParquetFile,
    column: str,
    rows: IntArray,
    row_shape: tuple[int, ...],
    bits: int | None,
) -> Decoded:
    """Decode some rows (sorted, distinct) of a file."""
    layout = layout_of(row_shape)
    images = np.zeros((len(rows), *row_shape), np.uint8)
    bad: dict[int, str] = {}
    done = 0
    with without_pillows_warnings():
        for first, batch in file.batches([column], rows):
            low, high = np.searchsorted(rows, [first, first + batch.num_rows])
            for block in encoded_images(batch.column(column), rows[low:high] - first):
                for encoded in block:
                    row = int(rows[done])
                    try:
                        images[done] = _image(encoded, layout, bits)
                    except BadImageError as error:
                        bad[row] = f"Row {row} of {file.address}: {error}; {HINT}."
                    except _UnknownBitsError:
                        bad[row] = (
                            f"Row {row} of {file.address} is an image of 16 bits, and how many of "
                            "them its set uses wasn't looked at, since size and channels were "
                            "given; leave one of them out, or pass bits."
                        )
                    done += 1
    return images, bad


class _UnknownBitsError(Exception):
    pass


def _image(encoded: Encoded, layout: Layout, bits: int | None) -> NDArray[np.uint8]:
    image = open_image(encoded)
    deep = image.mode.startswith("I")
    if deep and bits is None:
        raise _UnknownBitsError
    return to_array(image, layout, bits if deep else None)


def _check_good(bad: dict[int, str], rows: NDArray[np.int64]) -> None:
    for row in sorted(bad.keys() & set(rows.tolist()) if bad else ()):
        raise DataError(bad[row])


@lru_cache(maxsize=4096)
def _opened(address: str, stamp: str) -> ParquetFile:
    """A file whose footer this process has read, once."""
    file = ParquetFile(address)
    if file.stamp != stamp:
        raise DataError(f"{address} has changed since its set was loaded; load it again.")
    return file


class _Kept:
    """Decoded row groups of this process."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[Any, ...], Decoded] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # held while decoding: else two threads would decode one group

    def group(
        self,
        file: ParquetFile,
        group: int,
        column: str,
        row_shape: tuple[int, ...],
        bits: int | None,
    ) -> Decoded:
        """A row group, decoded unless it is there."""
        key = (file.address, file.stamp, group, column, row_shape, bits)
        with self._lock:
            found = self._groups.pop(key, None)
            if found is None:
                rows = np.arange(file.starts[group], file.starts[group + 1])
                found = decoded(file, column, rows, row_shape, bits)
                self._bytes += found[0].nbytes
            self._groups[key] = found
            while self._bytes > KEPT_BYTES:
                _, (images, _) = self._groups.popitem(last=False)
                self._bytes -= images.nbytes
            return found


_kept = _Kept()
