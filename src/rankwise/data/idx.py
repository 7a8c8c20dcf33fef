"""A folder of IDX files under the names of MNIST's originals, raw or gzipped."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from rankwise._reading import is_shortage
from rankwise.data.arrays import ArrayReader, Fetch, PixelStore
from rankwise.data.imageset import check_counts, check_pixels
from rankwise.data.npz import EXPANSION
from rankwise.errors import DataError

_NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[134]-ubyte(\.gz)?")


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """IDX files of a folder by (split, ``"images"`` or ``"labels"``); a raw one goes before .gz."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            split = "train" if match[1] == "train" else "test"
            found.setdefault((split, match[2]), path)
    return found


def idx_reader(folder: Path) -> ArrayReader:
    """Reader of ``train-images-idx3-ubyte`` and its three companions (t10k may be absent)."""
    files = idx_files(folder)
    parts: dict[str, tuple[PixelStore, NDArray[np.int64]]] = {}
    places: dict[str, str] = {}
    for split in ("train", "test"):
        images, labels = files.get((split, "images")), files.get((split, "labels"))
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            missing, present = ("images", labels) if images is None else ("labels", images)
            raise DataError(f"{present} has no companion file with the {missing} in {folder}.")
        store = IdxImages(images)
        check_pixels(np.dtype(np.uint8), store.shape, f"images of {images}")
        values = _labels(labels)
        check_counts(store.shape[0], len(values), f"{images} with {labels.name}")
        parts[split] = (store, values)
        places[split] = str(images)
    return ArrayReader(folder.resolve().name, parts, places)


class IdxImages:
    """Images of an IDX file: memory-mapped where raw, decompressed as a stream where gzipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape, self._offset = _header(path)

    @contextmanager
    def open(self) -> Iterator[Fetch]:
        """Open the file."""
        if self.path.suffix != ".gz":
            images = np.memmap(self.path, np.uint8, "r", self._offset, self.shape)
            yield lambda start, stop: images[start:stop]
            return
        with gzip.open(self.path) as stream:
            yield lambda start, stop: self._read(stream, start, stop)

    def _read(self, stream: gzip.GzipFile, start: int, stop: int) -> NDArray[np.uint8]:
        size = int(np.prod(self.shape[1:]))
        try:
            stream.seek(self._offset + start * size)
            data = stream.read((stop - start) * size)
            # The checksum is compared where a stream ends, so the last read must go up to there.
            more = stream.read(1) if stop == self.shape[0] else b""
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(self.path, error) from error
        if len(data) < (stop - start) * size:
            raise DataError(
                f"{self.path} is truncated: it ends before image {stop - 1} of the "
                f"{self.shape[0]} that its header promises."
            )
        if more:
            raise DataError(f"{self.path} is too long: bytes follow its {self.shape[0]} images.")
        return np.frombuffer(data, np.uint8).reshape(stop - start, *self.shape[1:])


def _labels(path: Path) -> NDArray[np.int64]:
    shape, offset = _header(path)
    if len(shape) != 1:
        raise DataError(f"{path} has {len(shape)} dimensions; one, of labels, is accepted.")
    try:
        with _open(path) as stream:
            data = stream.read(offset + shape[0] + 1)[offset:]
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    if len(data) != shape[0]:
        raise _wrong_size(path, shape[0], len(data))
    return np.frombuffer(data, np.uint8).astype(np.int64)


def _header(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape, and the number of bytes before the values; the whole file's size is checked if raw."""
    try:
        with _open(path) as stream:
            start = stream.read(4)
            if len(start) < 4 or start[:2] != b"\0\0":
                raise DataError(
                    f"{path} isn't an IDX file: it starts with {start.hex() or 'nothing'}; "
                    "00000803 (images) or 00000801 (labels) is accepted."
                )
            if start[2] != 8:
                raise DataError(
                    f"{path} holds values of IDX type {start[2]:#04x}; 0x08, unsigned bytes, "
                    "is accepted."
                )
            sizes = stream.read(4 * start[3])
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    if len(sizes) < 4 * start[3]:
        raise DataError(f"{path} is truncated: it ends within its header.")
    shape = tuple(int(side) for side in np.frombuffer(sizes, ">u4"))
    offset = 4 + 4 * start[3]
    size = path.stat().st_size
    if path.suffix != ".gz" and size - offset != prod(shape):
        raise _wrong_size(path, prod(shape), size - offset)
    if prod(shape) > EXPANSION * size:
        raise DataError(
            f"{path} is damaged: its header promises {prod(shape):,} bytes, more than {size:,} "
            "packed ones can hold."
        )
    return shape, offset


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else open(path, "rb")


def _wrong_size(path: Path, promised: int, found: int) -> DataError:
    state = "is truncated" if found < promised else "is too long"
    return DataError(f"{path} {state}: its header promises {promised} bytes, {found} follow.")


def _damaged(path: Path, error: Exception) -> DataError:
    if is_shortage(error):
        raise error
    return DataError(f"{path} is damaged or truncated ({error}).")
