"""An ``.npz`` archive of images and labels, streamed member by member."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rankwise.data.arrays import ArrayReader, Fetch, PixelStore
from rankwise.data.imageset import check_counts, check_pixels
from rankwise.data.labels import label_values
from rankwise.errors import DataError, is_shortage

EXPANSION = 1100
"""Bytes that one of a packed file can stand for; deflate has at most 1032."""

# (images, labels) by split: ours, scikit-learn's habit, that of Keras, and that of MedMNIST.
_PAIRS: dict[str, list[tuple[str, str]]] = {
    "train": [("images", "labels"), ("x", "y")],
    "validation": [],
    "test": [],
}
for _split, _names in (
    ("train", ["train"]),
    ("validation", ["val", "valid", "validation", "dev"]),
    ("test", ["test"]),
):
    for _name in _names:
        _PAIRS[_split].append((f"x_{_name}", f"y_{_name}"))
        _PAIRS[_split].append((f"{_name}_images", f"{_name}_labels"))
        _PAIRS[_split].append((f"{_name}_x", f"{_name}_y"))


def npz_reader(path: Path) -> ArrayReader:
    """Reader of an archive whose keys are one of the accepted pairs."""
    parts: dict[str, tuple[PixelStore, NDArray[Any]]] = {}
    own_names: dict[str, str] = {}
    with naming(path), zipfile.ZipFile(path) as archive:
        members = {_key(name): name for name in archive.namelist()}
        if len(members) < len(archive.namelist()):
            raise DataError(f"{path} holds two arrays of one name; one of each is accepted.")
        for split, pairs in _PAIRS.items():
            found = [pair for pair in pairs if set(pair) <= set(members)]
            if len(found) > 1:
                raise DataError(
                    f"{path} holds {found[0][0]} and {found[1][0]}, which could both be the images "
                    f"of its {split} part; one of them is accepted."
                )
            for images, labels in found:
                store = NpzImages(path, archive, members[images])
                values = _labels(path, archive, members[labels], store.shape[0])
                check_counts(store.shape[0], len(values), f"{path} ({images}, {labels})")
                parts[split] = (store, values)
                own_names[split] = images
    if not parts:
        raise DataError(
            f"{path} holds {', '.join(sorted(members)) or 'nothing'}; images and labels, x and y, "
            "x_train and y_train (x_test, y_test), or train_images and train_labels are accepted."
        )
    places = {split: f"{split} in {path}" for split in parts}
    return ArrayReader(path.stem, parts, places, own_names)


class NpzImages:
    """Images of one member of an archive, read as a stream."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: str) -> None:
        self.path, self.member = path, member
        self.shape, fortran, dtype = _checked_header(path, archive, member)
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
            _header(stream, f"{self.member} of {self.path}")
            begin = stream.tell()
            yield lambda start, stop: self._read(stream, begin, start, stop)

    def _read(self, stream: IO[bytes], begin: int, start: int, stop: int) -> NDArray[np.uint8]:
        size = int(np.prod(self.shape[1:]))
        with naming(self.path):
            stream.seek(begin + start * size)
            data = stream.read((stop - start) * size)
            if stop == self.shape[0]:
                stream.read(1)  # the checksum is compared where the stream ends
        if len(data) < (stop - start) * size:
            raise DataError(f"{self.member} of {self.path} is truncated.")
        return np.frombuffer(data, np.uint8).reshape(stop - start, *self.shape[1:])


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what the parsers of a damaged archive raise into a `DataError` that names it."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of zip, deflate and Python's own tokens: nearly anything
        if is_shortage(error):
            raise
        raise DataError(
            f"{path} is damaged or truncated ({str(error)[:200] or type(error).__name__})."
        ) from error


def _header(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
        raise  # of the archive
    except Exception as error:  # it is an expression of Python: nearly anything
        if is_shortage(error):
            raise
        raise DataError(
            f"{what} isn't a numpy array ({str(error)[:200] or type(error).__name__})."
        ) from error


def _checked_header(
    path: Path, archive: zipfile.ZipFile, member: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of a member, which its bytes must be able to hold."""
    info = archive.getinfo(member)
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream, f"{member} of {path}")
    if dtype.hasobject:
        raise DataError(
            f"{member} of {path} holds Python objects, which aren't read since that could run "
            "code; numbers or, for labels, text are accepted: labels.astype(str) gives it."
        )
    promised = prod(shape) * dtype.itemsize
    held = min(info.file_size, EXPANSION * min(info.compress_size, path.stat().st_size) + 1024)
    if promised > held:
        raise DataError(
            f"{member} of {path} is truncated: its header promises {promised:,} bytes, at most "
            f"{held:,} follow."
        )
    return shape, fortran, dtype


def _labels(path: Path, archive: zipfile.ZipFile, member: str, n: int) -> NDArray[Any]:
    shape, _, dtype = _checked_header(path, archive, member)
    if prod(shape) > 2**24 + 1000 * n or dtype.itemsize > 2**16:
        raise DataError(
            f"{member} of {path} has shape {shape} and type {dtype}; one label per image is "
            "accepted."
        )
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
