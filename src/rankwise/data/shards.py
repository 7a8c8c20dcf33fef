"""Images by reference: shards in a folder or a store, read by whoever needs which rows of them.

A folder of shards has ``shards.json`` (kind, shape, classes and, for each split, its files and
fingerprint) and, for each split, ``train-00000-of-00012.npy`` … of decoded pixels and
``train-labels.npy`` and ``train-sources.npy``. It may lie on a disk, whose files are mapped, or at
any address of fsspec's: ``s3://…``, ``gs://…``, ``memory://…``. What travels to a worker are
addresses and row numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._reading import parse_json
from rankwise.data.addresses import (
    holds_file,
    joined,
    local_path,
    reaching,
    read_bytes,
    store,
    write_file,
)
from rankwise.data.filerows import FileRows
from rankwise.data.fingerprint import fingerprint
from rankwise.data.labels import check_range
from rankwise.data.reader import Block, Index, IntArray, block_rows
from rankwise.data.storage import column
from rankwise.errors import DataError, is_shortage

RECORD = "shards.json"
KIND = "rankwise shards 1"
_GAP = 64 * 2**10
"""Bytes between two rows that are rather read than skipped, where a file isn't on a disk."""


@dataclass(frozen=True, eq=False, repr=False)
class Shards(FileRows):
    """Rows of arrays that lie in files ``.npy``, by their addresses.

    Files are opened once a process, when they are first read.
    """

    def known_fingerprint(self, labels: NDArray[np.int64], names: Sequence[str]) -> str | None:
        """Of all rows the one that ``shards.json`` has, which labels and names are part of."""
        return self.digest if self.rows is None else None

    def _of_file(self, number: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        first, stop = self.starts[number : number + 2]
        shape = (stop - first, *self.row_shape)
        return opened(self.addresses[number], shape, self.dtype.str)[rows]


def opened(address: str, shape: tuple[int, ...], dtype: str) -> Any:
    """A file of this process, opened once: mapped, or read row by row from a store.

    Raises
    ------
    DataError
        If it isn't there, or not of this shape.
    """
    path = local_path(address)
    try:
        seen = None if path is None else path.stat()
        stamp = () if seen is None else (seen.st_ino, seen.st_size, seen.st_mtime_ns)
        found = _opened(address, stamp)
    except (OSError, ValueError, EOFError) as error:
        if is_shortage(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{address} can't be read ({reason}); shard again.") from error
    if found.shape != shape or found.dtype != np.dtype(dtype):
        raise DataError(
            f"{address} holds {found.dtype} of shape {found.shape}, where {np.dtype(dtype)} of "
            f"shape {shape} is recorded; shard again."
        )
    return found


@lru_cache(maxsize=4096)
def _opened(address: str, stamp: tuple[int, ...]) -> Any:
    """The file as it is now; `stamp` tells another one of the same name."""
    path = local_path(address)
    return _Stored(address) if path is None else np.load(path, mmap_mode="r", allow_pickle=False)


class _Stored:
    """An ``.npy`` in a store: of the rows asked for, stretches are read."""

    def __init__(self, address: str) -> None:
        self._system, self._path = store(address)
        start = io.BytesIO(self._system.cat_file(self._path, start=0, end=4096))
        version = np.lib.format.read_magic(start)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        self.shape, fortran, self.dtype = read(start)
        if fortran:
            raise ValueError("it is stored column by column")
        self._begin = start.tell()
        self._size = int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        wanted, back = np.unique(rows, return_inverse=True)
        most = max(1, _GAP // self._size)
        stretches = np.split(wanted, np.flatnonzero(np.diff(wanted) > most) + 1)
        bounds = [(int(s[0]), int(s[-1]) + 1) for s in stretches if len(s)]
        parts = self._system.cat_ranges(
            [self._path] * len(bounds),
            [self._begin + first * self._size for first, _ in bounds],
            [self._begin + stop * self._size for _, stop in bounds],
        )
        found = [
            np.frombuffer(part, self.dtype).reshape(-1, *self.shape[1:])[stretch - first]
            for part, stretch, (first, _) in zip(parts, stretches, bounds, strict=True)
        ]
        return np.concatenate(found)[back]


class ShardReader:
    """Reader of a folder of shards, and what gives their images by reference."""

    def __init__(self, address: str) -> None:
        path = local_path(address)
        # Workers may stand in another folder.
        self.address = address if path is None else str(path.absolute())
        place = joined(self.address, RECORD)
        remedy = f"; 'rankwise shard SOURCE {address}' writes it"
        content = read_bytes(place)
        try:
            record = parse_json(content)
            if record["kind"] != KIND:
                raise DataError(f"{place} is {record['kind']!r}, and {KIND!r} is read{remedy}.")
            self.name = str(record["name"])
            self.class_names = tuple(map(str, record["classes"]))
            self._row_shape = tuple(int(side) for side in record["row_shape"])
            self._splits = {str(name): dict(split) for name, split in record["splits"].items()}
            self._dtype = np.dtype(record["dtype"])
            self._shards = {name: self._of(split) for name, split in self._splits.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{place} is damaged ({error}){remedy}.") from error
        self.splits = tuple(self._splits)
        self.own_names = {split: split for split in self.splits}
        self.notes: tuple[str, ...] = ()

    def _of(self, split: dict[str, Any]) -> Shards:
        files = [(str(name), int(rows)) for name, rows in split["files"]]  # none: it has no rows
        starts = tuple(np.cumsum([0, *(rows for _, rows in files)]).tolist())
        places = tuple(joined(self.address, name) for name, _ in files)
        return Shards(places, starts, self._row_shape, self._dtype, str(split["fingerprint"]))

    def index(self, split: str) -> Index:
        """Labels and sources of one split."""
        sources = self._column(split, "sources", "U")
        return Index(self.labels(split), self.class_names, None, {}, sources)

    def labels(self, split: str) -> IntArray:
        """Positions of the classes of one split."""
        stored = self._column(split, "labels", "iu")
        found = column(len(stored), np.int64)
        found[:] = stored
        check_range(found, self.class_names, joined(self.address, f"{split}-labels.npy"))
        return found

    def _column(self, split: str, name: str, kinds: str) -> NDArray[Any]:
        """What is known of each row of a split, mapped where it lies on a disk."""
        place = joined(self.address, f"{split}-{name}.npy")
        path = local_path(place)
        with reaching(place):
            try:
                if path is not None and path.is_file():
                    found = np.load(path, mmap_mode="r", allow_pickle=False)
                else:
                    found = np.load(io.BytesIO(read_bytes(place)), allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise DataError(f"{place} is damaged ({error}); shard again.") from error
        if found.dtype.kind not in kinds or found.shape != (len(self._shards[split]),):
            raise DataError(f"{place} and {RECORD} are of different sets; shard again.")
        return found

    def refer(self, split: str, rows: IntArray | None) -> Shards:
        """Images of some rows by reference, or of all."""
        shards = self._shards[split]
        return shards if rows is None else shards.chosen(rows)

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Images of some rows, read."""
        shards = self._shards[split]
        step = block_rows(int(np.prod(self._row_shape)))
        for first in range(0, len(rows), step):
            yield shards[rows[first : first + step]]

    def describe(self, split: str, row: int) -> str:
        """File and row."""
        shards = self._shards[split]
        number = int(np.searchsorted(shards.starts, row, side="right")) - 1
        return f"row {row - shards.starts[number]} of {shards.addresses[number]}"


def holds_shards(source: str) -> bool:
    """Whether a folder, on this machine or at an address, is one of shards."""
    return holds_file(joined(source, RECORD))


def open_shards(
    addresses: str | Sequence[str], split: str = "train"
) -> tuple[Shards, NDArray[np.str_]]:
    """Rows of one or several folders of shards, one after another, and the names of their classes.

    Raises
    ------
    DataError
        If they can't be read, or are of different classes, shapes or types.
    """
    places = [addresses] if isinstance(addresses, str) else list(map(str, addresses))
    if not places:
        raise DataError("no shards were given; a folder, or an address, or several are accepted.")
    readers = [ShardReader(place) for place in places]
    found = []
    for reader in readers:
        if split not in reader.splits:
            raise DataError(
                f"{reader.address} has no split {split!r}; {', '.join(reader.splits)} are accepted."
            )
        part = reader.refer(split, None)
        found.append(part)
        if (part.row_shape, part.dtype) != (found[0].row_shape, found[0].dtype):
            raise DataError(
                f"{reader.address} holds {part.dtype} of shape {part.row_shape}, and "
                f"{places[0]} {found[0].dtype} of shape {found[0].row_shape}."
            )
    sizes = [n for part in found for n in np.diff(part.starts).tolist()]
    digest = hashlib.sha256("".join(part.digest for part in found).encode()).hexdigest()
    whole = Shards(
        tuple(address for part in found for address in part.addresses),
        tuple(np.cumsum([0, *sizes]).tolist()),
        found[0].row_shape,
        found[0].dtype,
        found[0].digest if len(found) == 1 else digest,
    )
    names = [np.asarray(reader.class_names, dtype=str)[reader.labels(split)] for reader in readers]
    return whole, np.concatenate(names)


class ShardWriter:
    """Writes shards into a folder or a store; `finish` comes last, and makes them be there.

    Parameters
    ----------
    address : str
    name : str
    class_names : sequence of str
    """

    def __init__(self, address: str, name: str, class_names: Sequence[str]) -> None:
        self.address, self.name, self.class_names = address, name, tuple(class_names)
        self._splits: dict[str, dict[str, Any]] = {}
        self._row_shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def write(self, split: str, number: int, of: int, rows: NDArray[Any]) -> tuple[str, int]:
        """One file; gives its name and rows."""
        name = f"{split}-{number:05d}-of-{of:05d}.npy"
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(rows), allow_pickle=False)
        write_file(joined(self.address, name), buffer.getvalue())
        self._row_shape, self._dtype = rows.shape[1:], rows.dtype
        return name, len(rows)

    def add(
        self,
        split: str,
        files: Sequence[tuple[str, int]],
        labels: NDArray[np.int64],
        source_ids: NDArray[np.str_],
    ) -> None:
        """A split whose files are written."""
        kept = [file for file in files if file[1]]
        small = np.min_scalar_type(max(1, len(self.class_names) - 1))
        for name, values in (("labels", labels.astype(small)), ("sources", source_ids)):
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            write_file(joined(self.address, f"{split}-{name}.npy"), buffer.getvalue())
        starts = tuple(np.cumsum([0, *(n for _, n in kept)]).tolist())
        places = tuple(joined(self.address, name) for name, _ in kept)
        shards = Shards(places, starts, self._row_shape, self._dtype)
        self._splits[split] = {
            "files": kept,
            "fingerprint": fingerprint(shards, labels, self.class_names),  # type: ignore[arg-type]
        }

    def finish(self) -> dict[str, Any]:
        """Write ``shards.json``; gives its content."""
        record = {
            "kind": KIND,
            "name": self.name,
            "classes": self.class_names,
            "row_shape": self._row_shape,
            "dtype": self._dtype.str,
            "splits": self._splits,
        }
        write_file(joined(self.address, RECORD), json.dumps(record, indent=1).encode())
        return record
