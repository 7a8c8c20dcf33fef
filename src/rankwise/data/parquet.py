"""A folder in the hub's parquet layout, on this machine or at an address, read batch by batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._reading import UnreadableError, parse_json
from rankwise.data.addresses import is_address, joined, last_name, listing
from rankwise.data.arrow import ArrowReader
from rankwise.data.decode import Layout
from rankwise.data.parquet_file import ParquetFile
from rankwise.data.parquet_rows import ParquetRows
from rankwise.data.reader import IntArray
from rankwise.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"(?P<split>.+?)(-(?P<shard>\d+)-of-(?P<shards>\d+))?(-[0-9a-f]{16})?\.parquet")
_AT_ONCE = 8
"""Footers that are fetched at a time; one after another they would take long."""


class ParquetSplit:
    """The parquet files (shards) of one split, one after another."""

    def __init__(self, addresses: list[str]) -> None:
        self.files = _opened(addresses)
        self.schema = self.files[0].schema
        self.features = _features(self.schema)
        for file in self.files:
            if not file.schema.equals(self.schema):
                raise DataError(
                    f"{file.address} has other columns or types than {last_name(addresses[0])}; "
                    "all files of a split need the same."
                )
        _check_class_names(self.files)
        self._starts = np.concatenate([[0], np.cumsum([len(file) for file in self.files])])
        self.n_rows = int(self._starts[-1])

    def batches(
        self, columns: list[str], rows: IntArray
    ) -> Iterator[tuple[int, pa.RecordBatch | pa.Table]]:
        """Read only the files and row groups that hold some of `rows`."""
        for file, start in zip(self.files, self._starts[:-1].tolist(), strict=True):
            low, high = np.searchsorted(rows, [start, start + len(file)])
            if low < high:
                for first, batch in file.batches(columns, rows[low:high] - start):
                    yield start + first, batch

    def describe(self, row: int) -> str:
        """File and row within it."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"row {row - self._starts[number]} of {self.files[number].address}"


def _opened(addresses: list[str]) -> list[ParquetFile]:
    if not is_address(addresses[0]):
        return [ParquetFile(address) for address in addresses]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(ParquetFile, addresses))


def parquet_files(folder: str) -> dict[str, list[str]]:
    """Parquet files by split, in a folder itself or in its ``data``; shards in order.

    Parameters
    ----------
    folder : str
        A path, or an address.

    Raises
    ------
    DataError
        If some of a split's shards are missing, or there twice.
    """
    for place in (folder, joined(folder, "data")):
        found: dict[str, list[tuple[str, re.Match[str]]]] = {}
        for name in _names(place):
            match = _NAME.fullmatch(name)
            if match and not name.startswith("."):  # hidden: what a kill left half written
                found.setdefault(match["split"], []).append((joined(place, name), match))
        for split, shards in found.items():
            _check_shards(f"Split {split!r} in {place}", [match for _, match in shards])
        if found:
            order = sorted(found, key=lambda s: (s != "train", s == "test", s))
            return {split: [address for address, _ in found[split]] for split in order}
    return {}


def _check_shards(split: str, shards: list[re.Match[str]]) -> None:
    """Raise `DataError` unless each shard that the names of a split's files promise is there once.

    Shards are counted from 0, or from 1.
    """
    promised = int(shards[0]["shards"] or 0)
    for match in shards:
        if int(match["shards"] or 0) != promised:
            raise DataError(
                f"{split} has the parquet files {shards[0][0]} and {match[0]}, of two ways to cut "
                "it; the files of one are accepted."
            )
    if not promised:
        return
    by_number: dict[int, str] = {}
    for match in shards:
        other = by_number.setdefault(int(match["shard"]), match[0])
        if other != match[0]:
            raise DataError(
                f"{split} has the parquet files {other} and {match[0]}, of one number; one file "
                "of each is accepted."
            )
    start = int(promised in by_number)
    missing = next((i for i in range(start, start + promised) if i not in by_number), None)
    if missing is not None or len(shards) != promised:
        without = "" if missing is None else f": number {missing} is missing"
        raise DataError(f"{split} has {len(shards)} of its {promised} parquet files{without}.")


def _names(folder: str) -> list[str]:
    """Names of what may be a parquet file; none where there is no such folder."""
    if not is_address(folder):
        return sorted(path.name for path in Path(folder).glob("*.parquet"))
    try:
        there = listing(folder) or {}
    except FileNotFoundError:
        return []
    return sorted(name for name, is_folder in there.items() if not is_folder)


def parquet_reader(
    folder: str, image_column: str | None = None, label_column: str | None = None
) -> ArrowReader:
    """Reader of a folder in the hub's parquet layout."""
    parts = {split: ParquetSplit(places) for split, places in parquet_files(folder).items()}
    name = last_name(folder) if is_address(folder) else Path(folder).resolve().name
    return _reader(name, folder, parts, folder, image_column, label_column)


def file_reader(
    file: str, image_column: str | None = None, label_column: str | None = None
) -> ArrowReader:
    """Reader of one parquet file, all of whose rows are the training part."""
    parts = {"train": ParquetSplit([file])}
    name = Path(last_name(file) if is_address(file) else file).stem
    return _reader(name, file, parts, str(Path(file).parent), image_column, label_column)


def _reader(
    name: str,
    where: str,
    parts: dict[str, ParquetSplit],
    base: str,
    image_column: str | None,
    label_column: str | None,
) -> ArrowReader:
    if is_address(where):
        return AddressedReader(name, where, parts, image_column, label_column)
    return ArrowReader(name, where, dict(parts), Path(base), image_column, label_column)


class AddressedReader(ArrowReader):
    """Reader of parquet files at an address, and what gives their images by reference."""

    def __init__(
        self,
        name: str,
        where: str,
        parts: dict[str, ParquetSplit],
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        super().__init__(name, where, dict(parts), None, image_column, label_column)
        self._files = {split: parts[own].files for split, own in self.own_names.items()}

    def refer(
        self, splits: Sequence[str], rows: IntArray, layout: Layout, bits: int | None
    ) -> ParquetRows:
        """Images of some rows of these splits, one after another, by reference.

        Parameters
        ----------
        splits : sequence of str
        rows : int array
            Numbered through over the splits.
        layout : Layout
            What every image is brought to.
        bits : int or None
            In use of those of 16 bits; None where that isn't known.
        """
        files = [file for split in splits for file in self._files[split]]
        return ParquetRows.of(files, self.image_column, layout, bits).chosen(rows)


def _check_class_names(files: list[ParquetFile]) -> None:
    """Raise `DataError` where two files' metadata name the classes, and not alike."""
    named = [(file, names) for file in files if (names := _class_names(file.schema))]
    for file, names in named:
        if names != named[0][1]:
            raise DataError(
                f"{file.address} has other class names, or another order of them, than "
                f"{last_name(named[0][0].address)}; all files of a split need the same."
            )


def _class_names(schema: pa.Schema) -> dict[str, Any]:
    """Names of the classes of each column whose metadata say some."""
    return {
        column: feature["names"]
        for column, feature in _features(schema).items()
        if isinstance(feature, dict) and "names" in feature
    }


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Column types that the hub keeps in the file's metadata; empty where another wrote it."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, UnreadableError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}
