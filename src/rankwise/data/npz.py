"""An ``.npz`` archive of images and labels, streamed member by member."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data.arrays import ArrayReader, Fetch, PixelStore
from rankwise.data.imageset import check_counts, check_pixels
from rankwise.data.labels import label_values
from rankwise.errors import DataError

# (images, labels) by split: ours, scikit-learn's habit, that of Keras, and that of MedMNIST.
_PAIRS = {
    "train": [("images", "labels"), ("x", "y"), ("x_train", "y_train")],
    "validation": [("x_val", "y_val")],
    "test": [("x_test", "y_test")],
}
for _split, _prefix in (("train", "train"), ("validation", "val"), ("test", "test")):
    _PAIRS[_split].append((f"{_prefix}_images", f"{_prefix}_labels"))


def npz_reader(path: Path) -> ArrayReader:
    """Reader of an archive whose keys are one of the accepted pairs."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {_key(name): name for name in archive.namelist()}
            parts: dict[str, tuple[PixelStore, NDArray[Any]]] = {}
            for split, pairs in _PAIRS.items():
                for images, labels in pairs:
                    if images in members and labels in members:
                        store = NpzImages(path, archive, members[images])
                        values = _labels(path, archive, members[labels])
                        check_counts(store.shape[0], len(values), f"{path} ({images}, {labels})")
                        parts.setdefault(split, (store, values))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise _damaged(path, error) from error
    if not parts:
        raise DataError(
            f"{path} holds {', '.join(sorted(members)) or 'nothing'}; images and labels, x and y, "
            "x_train and y_train (x_test, y_test), or train_images and train_labels are accepted."
        )
    return ArrayReader(path.stem, parts, {split: f"{split} in {path}" for split in parts})


class NpzImages:
    """Images of one member of an archive, read as a stream."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: str) -> None:
        self.path, self.member = path, member
        with archive.open(member) as stream:
            self.shape, fortran, dtype = _header(stream, path, member)
        check_pixels(dtype, self.shape, f"images {member} of {path}")
        if fortran:
            raise DataError(
                f"{member} of {path} is stored column by column; "
                "save it again after numpy.ascontiguousarray."
            )

    @contextmanager
    def open(self) -> Iterator[Fetch]:
        """Open the member; rows before the first one asked for are read and dropped."""
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
            _header(stream, self.path, self.member)
            begin = stream.tell()
            yield lambda start, stop: self._read(stream, begin, start, stop)

    def _read(self, stream: IO[bytes], begin: int, start: int, stop: int) -> NDArray[np.uint8]:
        size = int(np.prod(self.shape[1:]))
        try:
            stream.seek(begin + start * size)
            data = stream.read((stop - start) * size)
            if stop == self.shape[0]:
                stream.read(1)  # the checksum is compared where the stream ends
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise _damaged(self.path, error) from error
        if len(data) < (stop - start) * size:
            raise DataError(f"{self.member} of {self.path} is truncated.")
        return np.frombuffer(data, np.uint8).reshape(stop - start, *self.shape[1:])


def _header(
    stream: IO[bytes], path: Path, member: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    except ValueError as error:
        raise DataError(f"{member} of {path} isn't a numpy array ({error}).") from error


def _labels(path: Path, archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    try:
        with archive.open(member) as stream:
            values = np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise DataError(
            f"{member} of {path} can't be read ({error}); integers or strings are accepted."
        ) from error
    return label_values(values, f"{member} of {path}")


def _key(name: str) -> str:
    return name.removesuffix(".npy").lower()


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged or truncated ({error}).")
