"""Room for decoded images: in memory while they are few, else in a file that removes itself."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import DataError

MEMORY_LIMIT = 256 * 2**20
"""Bytes of decoded images held in memory by default: MNIST and CIFAR-10 fit, photo sets don't."""


def allocate(shape: tuple[int, ...], memory_limit: int = MEMORY_LIMIT) -> NDArray[np.uint8]:
    """Return an uninitialised uint8 array, memory-mapped where it exceeds `memory_limit` bytes.

    The file lies in the system's temporary folder (set ``TMPDIR`` to choose another) and is removed
    with the array, or at the end of the process. It keeps its name until then, so that joblib's
    worker processes can map it too instead of receiving a copy.

    Raises
    ------
    DataError
        If the temporary folder has too little room.
    """
    size = int(np.prod(shape))
    if size <= memory_limit or size == 0:
        return np.empty(shape, np.uint8)
    folder = tempfile.gettempdir()
    # A mapped file that outgrows its disk kills the process, so the room is checked before.
    if shutil.disk_usage(folder).free < size:
        raise DataError(
            f"The decoded images take {size / 2**20:.0f} MiB and {folder} has less room than that; "
            "set TMPDIR to a larger folder, pass a smaller size or limit, or raise memory_limit."
        )
    handle, name = tempfile.mkstemp(prefix="rankwise-images-", suffix=".u8")
    try:
        if hasattr(os, "posix_fallocate"):  # else every first touch of a page reserves its block
            os.posix_fallocate(handle, 0, size)
        else:
            os.truncate(handle, size)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(handle)
    array = np.memmap(name, dtype=np.uint8, mode="r+", shape=shape)
    weakref.finalize(array, _remove, name, os.getpid())
    return array


def _remove(name: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker that drops its copy must leave the file alone
        with suppress(OSError):
            os.unlink(name)
