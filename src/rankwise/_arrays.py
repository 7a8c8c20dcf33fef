"""Rows and blocks of a set of samples, so that a mapped set stays on its disk."""

from __future__ import annotations

import hashlib
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


def pixel_marks(images: Images | np.ndarray) -> np.ndarray:
    """A mark of 64 bits of each image's pixels: equal images have equal marks, and no others do.

    (Two of a million different images share one with a probability of 3·10⁻⁸.)

    Parameters
    ----------
    images : array of shape (n, ...)

    Returns
    -------
    uint64 array of shape (n,)
    """
    marks = np.empty(len(images), "<u8")
    for block in blocks(len(images)):
        for row, image in enumerate(images[block], start=block.start):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8)
            marks[row] = int.from_bytes(digest.digest(), "little")
    return marks


def each_once(images: np.ndarray, *told: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Each different sample once, in an order that the samples alone decide.

    Parameters
    ----------
    images : array of shape (n, *shape)
    *told : arrays of shape (n,), or None
        What else tells samples apart, such as labels.

    Returns
    -------
    rows : int array of shape (m,)
        Where each different sample comes first.
    of : int array of shape (n,)
        Which of these each sample is, ``0 … m − 1``.
    """
    codes = [np.unique(t, return_inverse=True)[1] for t in told if t is not None]
    marks = pixel_marks(images)
    order = np.lexsort((*codes, marks))
    new = np.ones(len(order), dtype=bool)
    for i in np.flatnonzero(marks[order][1:] == marks[order][:-1]):
        a, b = order[i], order[i + 1]
        same = all(c[a] == c[b] for c in codes) and np.array_equal(images[a], images[b])
        new[i + 1] = not same
    of = np.empty(len(order), dtype=np.intp)
    of[order] = np.cumsum(new) - 1
    return order[new], of


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
