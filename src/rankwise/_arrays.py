"""Rows and blocks of a set of samples, so that a mapped set stays on its disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rows:
    """Rows of an array, copied only where they are asked for: by block or by batch.

    Parameters
    ----------
    array : array of shape (N, *shape)
        In memory or mapped from a file.
    rows : int array of shape (n,)

    Examples
    --------
    >>> view = Rows(np.arange(10) ** 2, np.array([1, 3, 5]))
    >>> len(view), view[1:], view[np.array([2, 0])]
    (3, array([ 9, 25]), array([25,  1]))
    """

    array: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """A copy of the rows at a slice, or at positions, of the view."""
        return self.array[self.rows[key]]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the copy which isn't made."""
        return (len(self), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.array.dtype


Images = np.ndarray | Rows
"""What a fit reads block by block."""


def chosen(images: Images, rows: np.ndarray) -> Rows:
    """Some of the images, in the order of `rows`, without a copy of them."""
    if isinstance(images, Rows):
        return Rows(images.array, images.rows[rows])
    return Rows(images, rows)


def own(record: Any, *names: str, copy: bool = True) -> None:
    """Lay arrays of a frozen record out as a file would bring them back, in ``__post_init__``.

    That is: rows in order, this machine's bytes, nobody's view. A product of BLAS sums in another
    order where a matrix is stored by columns; so what a record gives, it gives to the bit after
    loading too.

    Parameters
    ----------
    record : frozen dataclass
    *names : str
        Its fields.
    copy : bool, default=True
        False leaves an array that has this layout already, and owns its memory, as it is: for
        large ones that were made for the record.
    """
    for name in names:
        array = getattr(record, name)
        dtype = array.dtype.newbyteorder("=")
        if copy or not (array.flags.owndata and array.flags.c_contiguous and array.dtype == dtype):
            object.__setattr__(record, name, np.array(array, dtype=dtype, order="C"))


BLOCK = 4096
"""Samples a block: large enough that adding the tiles up is cheap beside the products."""


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Cut ``range(n)`` at multiples of `size`."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def as_float(images: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Images in floating point: uint8 divided by 255 (the paper's [0, 1]), floats as they are."""
    if images.dtype == np.uint8:
        return images.astype(dtype) / np.asarray(255, dtype=dtype)
    return images.astype(dtype, copy=False)
