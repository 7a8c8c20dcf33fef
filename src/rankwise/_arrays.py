"""Rows and blocks of a set of samples, so that a mapped set stays on its disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np


class Referred:
    """Images that lie elsewhere and are read when they are asked for; see `rankwise.data.shards`.

    A subclass has ``len``, ``shape``, ``dtype``, ``ndim`` and, by slices or positions, items that
    are arrays.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, key: Any) -> np.ndarray:
        raise NotImplementedError


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

    array: np.ndarray | Referred
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __sizeof__(self) -> int:
        # Dask decides by it whether something travels with every task.
        return object.__sizeof__(self) + int(getattr(self.array, "nbytes", 0)) + self.rows.nbytes

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


Images = np.ndarray | Rows | Referred
"""What a fit reads block by block."""


@dataclass(frozen=True)
class OneHot:
    """One-hot targets of shape (n, K), made where they are asked for: of a block or a batch.

    Parameters
    ----------
    codes : int array of shape (n,)
        Positions of the classes, in as few bytes as hold them.
    n_classes : int
    dtype : dtype

    Examples
    --------
    >>> OneHot.of(np.array([1, 0, 2]), 3)[:2]
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """

    codes: np.ndarray
    n_classes: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, encoded: np.ndarray, n_classes: int, dtype: Any = np.float32) -> OneHot:
        """Of codes of any integer type."""
        small = np.asarray(encoded).astype(np.min_scalar_type(max(0, n_classes - 1)))
        return cls(small, n_classes, np.dtype(dtype))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and classes."""
        return len(self.codes), self.n_classes

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """The rows at a slice, or at positions."""
        return np.eye(self.n_classes, dtype=self.dtype)[self.codes[key]]


Targets = np.ndarray | OneHot
"""Targets ``(n, K)`` that a fit reads block by block."""


def refuse_complex(X: Any) -> None:
    """Say in one sentence, as scikit-learn begins it, that numbers are to be real.

    Raises
    ------
    ValueError
    """
    if getattr(getattr(X, "dtype", None), "kind", "") == "c":
        raise ValueError(f"Complex data not supported: X is {X.dtype}; real numbers are accepted")


def as_rgb(image: np.ndarray) -> np.ndarray:
    """An image as (height, width, 3); of other channels than 3 or 4 their mean in grey."""
    if image.ndim == 3 and image.shape[2] in (3, 4):
        return image[..., :3]
    grey = image if image.ndim == 2 else image.mean(axis=2).astype(image.dtype)
    return np.repeat(grey[..., None], 3, axis=2)


def refuse_masked(values: Any, name: str) -> None:
    """Say that what a mask hides isn't taken for a value.

    Raises
    ------
    ValueError
    """
    hidden = int(np.ma.count_masked(values)) if isinstance(values, np.ma.MaskedArray) else 0
    if hidden:
        raise ValueError(
            f"{name} hides {hidden:,} value{'s' * (hidden > 1)} behind a mask; an array without "
            "one is accepted: its filled(value), or what is left without those samples"
        )


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
    for block in blocks(len(images), images_at_a_time(images)):
        for row, image in enumerate(images[block], start=block.start):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8)
            marks[row] = int.from_bytes(digest.digest(), "little")
    return marks


def each_once(images: Images, *told: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
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


PART_BYTES = 64 * 2**20
"""Of images in floating point, and of what is made of them, that a thread holds at a time."""


def part_rows(bytes_a_row: int, most: int = 1024) -> int:
    """Rows that are read at a time: so many, or fewer where they are large."""
    return max(1, min(most, PART_BYTES // max(1, bytes_a_row)))


BLOCK = 4096
"""Samples a block: large enough that adding the tiles up is cheap beside the products."""


def images_at_a_time(images: Images, most: int = BLOCK, bytes_a_number: int | None = None) -> int:
    """Images that are read at a time, as they are or in a type of so many bytes; as `part_rows`."""
    size = images.dtype.itemsize if bytes_a_number is None else bytes_a_number
    return part_rows(prod(images.shape[1:]) * size, most)


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Cut ``range(n)`` at multiples of `size`."""
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def as_float(images: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Images in floating point: uint8 divided by 255 (the paper's [0, 1]), floats as they are."""
    if images.dtype == np.uint8:
        return images.astype(dtype) / np.asarray(255, dtype=dtype)
    return images.astype(dtype, copy=False)
