"""One parquet file, on a disk or in a store: its footer, and batches of some rows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise.data.addresses import is_address, local_path, open_file, reason_of
from rankwise.data.reader import IntArray, block_rows
from rankwise.errors import DataError, RankwiseError, is_shortage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_AFTER_FOOTER = 8
"""Bytes at the end of a file: the footer's length, and the format's mark."""
_DISK_BUFFER = 2**20
_STORE_BUFFER = 8 * 2**20
"""Bytes read at a time; a store is asked once for so many."""


class ParquetFile:
    """One parquet file, on this machine or at an address; its footer is read once.

    Attributes
    ----------
    starts : int array, shape (groups + 1,)
        Rows before each row group, and of all.
    schema : pyarrow.Schema
    stamp : str
        Digest of the file's size and its footer: places, sizes and bounds of all that it holds.
    """

    def __init__(self, address: str) -> None:
        import pyarrow.parquet as pq

        self.address = address
        with naming(address), open_file(address) as stream:
            file = pq.ParquetFile(stream)
            self._metadata = file.metadata
            self.schema = file.schema.to_arrow_schema()
            size = stream.seek(0, io.SEEK_END)
            stream.seek(size - self._metadata.serialized_size - _AFTER_FOOTER)
            self.stamp = hashlib.sha256(str(size).encode() + stream.read()).hexdigest()
            self.starts = _checked_starts(address, self._metadata, size)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batches(
        self, columns: list[str], rows: IntArray
    ) -> Iterator[tuple[int, pa.RecordBatch | pa.Table]]:
        """Read only the row groups that hold some of `rows` (sorted), a batch at a time."""
        import pyarrow.parquet as pq

        # Without a buffer size pyarrow holds the whole column of a row group.
        path = local_path(self.address)
        buffer = _DISK_BUFFER if path else _STORE_BUFFER
        with (
            naming(self.address),
            nullcontext(path) if path else open_file(self.address) as source,
            pq.ParquetFile(source, metadata=self._metadata, buffer_size=buffer) as file,
        ):
            for group in np.unique(np.searchsorted(self.starts, rows, side="right") - 1).tolist():
                first = int(self.starts[group])
                size = _batch_rows(self._metadata.row_group(group), columns)
                for batch in file.iter_batches(size, row_groups=[group], columns=columns):
                    yield first, batch
                    first += batch.num_rows
                    if first > rows[-1]:
                        break


@contextmanager
def naming(address: str) -> Iterator[None]:
    """Turn what pyarrow, or a store, complains about into a `DataError` that names the file."""
    import pyarrow as pa

    try:
        yield
    except RankwiseError:
        raise
    except Exception as error:
        # Each store's library has errors of its own.
        known = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError)
        if is_shortage(error) or not (is_address(address) or isinstance(error, known)):
            raise
        if is_address(address):
            raise DataError(f"{address} can't be read ({reason_of(error)}).") from error
        reason = str(error).split("\n")[0]
        raise DataError(f"{address} is damaged or truncated ({reason}).") from error


def _checked_starts(address: str, metadata: pq.FileMetaData, size: int) -> IntArray:
    """Rows before each group, which the file must have too; each image takes more than a byte."""
    rows = int(metadata.num_rows)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if rows != sum(groups) or min(groups, default=0) < 0 or rows > size:
        raise DataError(
            f"{address} is damaged or truncated (it promises {rows:,} rows in {len(groups):,} "
            "groups)."
        )
    return np.cumsum([0, *groups], dtype=np.int64)


def _batch_rows(group: Any, columns: list[str]) -> int:
    size = 0
    for i in range(group.num_columns):
        chunk = group.column(i)
        if any(f"{chunk.path_in_schema}.".startswith(f"{column}.") for column in columns):
            size += chunk.total_uncompressed_size
    return block_rows(size // max(1, group.num_rows))
