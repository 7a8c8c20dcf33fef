"""A local folder in the hub's parquet layout, read batch by batch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._reading import UnreadableError, parse_json
from rankwise.data.arrow import ArrowReader, ArrowSplit
from rankwise.data.reader import IntArray, block_rows
from rankwise.errors import DataError, is_shortage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_NAME = re.compile(r"(?P<split>.+?)(-(?P<shard>\d+)-of-(?P<shards>\d+))?(-[0-9a-f]{16})?\.parquet")


class ParquetSplit:
    """The parquet files (shards) of one split, read without unpacking more than a batch."""

    def __init__(self, paths: list[Path]) -> None:
        import pyarrow.parquet as pq

        self.paths = paths
        with naming(paths[0]):
            self.schema = pq.read_schema(paths[0])
        self.features = _features(self.schema)
        sizes = []
        for path in paths:
            with naming(path):
                sizes.append(_checked_rows(path, pq.read_metadata(path)))
                other = pq.read_schema(path)
            if not other.equals(self.schema):
                raise DataError(
                    f"{path} has other columns or types than {paths[0].name}; all files of a split "
                    "need the same."
                )
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.n_rows = int(self._starts[-1])

    def batches(
        self, columns: list[str], rows: IntArray
    ) -> Iterator[tuple[int, pa.RecordBatch | pa.Table]]:
        """Read only the row groups that hold some of `rows`."""
        import pyarrow.parquet as pq

        for path, start in zip(self.paths, self._starts[:-1], strict=True):
            # Without a buffer size pyarrow holds the whole column of a row group.
            with naming(path), pq.ParquetFile(path, buffer_size=2**20) as file:
                first = int(start)
                for group in range(file.num_row_groups):
                    stop = first + file.metadata.row_group(group).num_rows
                    if np.searchsorted(rows, first) < np.searchsorted(rows, stop):
                        size = _batch_rows(file.metadata.row_group(group), columns)
                        for batch in file.iter_batches(size, row_groups=[group], columns=columns):
                            yield first, batch
                            first += batch.num_rows
                    first = stop

    def describe(self, row: int) -> str:
        """File and row within it."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"row {row - self._starts[shard]} of {self.paths[shard]}"


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Parquet files by split, in the folder itself or in its ``data``; shards in order."""
    for place in (folder, folder / "data"):
        found: dict[str, list[tuple[Path, re.Match[str]]]] = {}
        for path in sorted(place.glob("*.parquet")):
            match = _NAME.fullmatch(path.name)
            if match and not path.name.startswith("."):  # hidden: what a kill left half written
                found.setdefault(match["split"], []).append((path, match))
        for split, shards in found.items():
            promised = int(shards[0][1]["shards"] or len(shards))
            if len(shards) != promised:
                raise DataError(
                    f"Split {split!r} in {place} has {len(shards)} of its {promised} parquet files."
                )
        if found:
            order = sorted(found, key=lambda s: (s != "train", s == "test", s))
            return {split: [path for path, _ in found[split]] for split in order}
    return {}


def parquet_reader(
    folder: Path, image_column: str | None = None, label_column: str | None = None
) -> ArrowReader:
    """Reader of a local folder in the hub's parquet layout."""
    parts: dict[str, ArrowSplit] = {}
    for split, paths in parquet_files(folder).items():
        parts[split] = ParquetSplit(paths)
    name = folder.resolve().name
    return ArrowReader(name, str(folder), parts, folder, image_column, label_column)


def file_reader(
    path: Path, image_column: str | None = None, label_column: str | None = None
) -> ArrowReader:
    """Reader of one parquet file, all of whose rows are the training part."""
    parts: dict[str, ArrowSplit] = {"train": ParquetSplit([path])}
    return ArrowReader(path.stem, str(path), parts, path.parent, image_column, label_column)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn pyarrow's complaints about a file into a `DataError` that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        if is_shortage(error):
            raise
        reason = str(error).split("\n")[0]
        raise DataError(f"{path} is damaged or truncated ({reason}).") from error


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Column types that the hub keeps in the file's metadata; empty where another wrote it."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, UnreadableError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _checked_rows(path: Path, metadata: pq.FileMetaData) -> int:
    """Rows of a file, which its groups must have too; each image takes more than a byte."""
    rows = int(metadata.num_rows)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if rows != sum(groups) or min(groups, default=0) < 0 or rows > path.stat().st_size:
        raise DataError(
            f"{path} is damaged or truncated (it promises {rows:,} rows in {len(groups):,} groups)."
        )
    return rows


def _batch_rows(group: Any, columns: list[str]) -> int:
    size = 0
    for i in range(group.num_columns):
        chunk = group.column(i)
        if any(f"{chunk.path_in_schema}.".startswith(f"{column}.") for column in columns):
            size += chunk.total_uncompressed_size
    return block_rows(size // max(1, group.num_rows))
