"""Room for images and for what is known of each: in memory while they are few, else in a file.

The file removes itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rankwise._arrays import blocks
from rankwise._files import temporary_name
from rankwise.errors import DataError

MEMORY_LIMIT = 256 * 2**20
"""Bytes of decoded images held in memory by default: MNIST and CIFAR-10 fit, photo sets don't."""

COLUMN_LIMIT = 4 * 2**20
"""Bytes of one column (ids, labels) held in memory: those of MNIST fit, a million's don't."""

ROWS = 16_384
"""Rows of a column that are made or copied at a time."""


def allocate(
    shape: tuple[int, ...], memory_limit: int = MEMORY_LIMIT, dtype: DTypeLike = np.uint8
) -> NDArray[Any]:
    """Return an uninitialised array, memory-mapped where it exceeds `memory_limit` bytes.

    The file lies in the system's temporary folder (set ``TMPDIR`` to choose another) and goes with
    the array, or with the process, in whatever way that ends. joblib's worker processes can map it
    too instead of receiving a copy. Where the system has no ``/proc`` the file keeps its name, and
    what a killed process has left is removed by the next.

    Raises
    ------
    DataError
        If the temporary folder has too little room.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= memory_limit or size == 0:
        return np.empty(shape, dtype)
    folder = tempfile.gettempdir()
    # A mapped file that outgrows its disk kills the process, so the room is checked before.
    if shutil.disk_usage(folder).free < size:
        raise DataError(
            f"The decoded images take {size / 2**20:.0f} MiB and {folder} has less room than that; "
            "set TMPDIR to a larger folder, pass a smaller size or limit, or raise memory_limit."
        )
    with temporary_name(".u8") as (handle, name):
        _reserve(handle, size, folder)
        array = np.memmap(name, dtype=dtype, mode="r+", shape=shape)
        open_file = f"/proc/{os.getpid()}/fd/{handle}"
        if not os.path.exists(open_file):
            os.close(handle)
            weakref.finalize(array, _remove, name, os.getpid())
            return array
        # The file loses its name at once, so that no end of the process, however sudden, leaves
        # it there. Other processes map it by the open handle.
        os.unlink(name)
        array.filename = open_file
        weakref.finalize(array, os.close, handle)
        return array


def column(n: int, dtype: DTypeLike, *sides: int) -> NDArray[Any]:
    """Return an uninitialised array of n rows, mapped where it exceeds `COLUMN_LIMIT`.

    A plain array either way. Where there is no room for a file, it is in memory.
    """
    with suppress(DataError, OSError):
        return np.asarray(allocate((n, *sides), COLUMN_LIMIT, dtype))
    return np.empty((n, *sides), dtype)


def gathered(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """``values[rows]`` of a column, as a column."""
    found = column(len(rows), values.dtype)
    for block in blocks(len(rows), ROWS):
        found[block] = values[rows[block]]
    return found


def counted(n: int) -> NDArray[np.int64]:
    """``numpy.arange(n)`` as a column."""
    found = column(n, np.int64)
    for block in blocks(n, ROWS):
        found[block] = np.arange(block.start, block.stop)
    return found


def _reserve(handle: int, size: int, folder: str) -> None:
    """Take the room now: else every first touch of a page reserves its block, or kills."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        else:
            os.truncate(handle, size)
    except OSError as error:
        raise DataError(
            f"The decoded images take {size / 2**20:.0f} MiB, which {folder} can't hold "
            f"({error.strerror}); set TMPDIR to a larger folder, pass a smaller size or limit, or "
            "raise memory_limit."
        ) from error


def _remove(name: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker that drops its copy must leave the file alone
        with suppress(OSError):
            os.unlink(name)
