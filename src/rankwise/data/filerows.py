"""Rows by reference: addresses of files and numbers of rows, read by whoever asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import Referred
from rankwise.data.reader import block_rows


@dataclass(frozen=True, eq=False, repr=False)
class FileRows(Referred):
    """Rows that lie in files, by the addresses of these.

    Pickled it is no more than its fields. A subclass reads rows of one file by `_of_file`.

    Parameters
    ----------
    addresses : tuple of str
        Files, one after another.
    starts : tuple of int
        Rows before each, and of all.
    row_shape : tuple of int
    dtype : dtype
    digest : str
        What the content is known by.
    rows : int array, optional
        Only these rows, in this order.
    """

    addresses: tuple[str, ...]
    starts: tuple[int, ...]
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    digest: str = ""
    rows: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # of a frozen class
        """Rows, and the shape of each."""
        return (len(self), *self.row_shape)

    @property
    def ndim(self) -> int:
        """Axes."""
        return 1 + len(self.row_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, wherever they lie."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.starts[-1] if self.rows is None else len(self.rows)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of shape {self.shape} in {len(self.addresses)} files>"

    def __iter__(self) -> Iterator[NDArray[Any]]:
        step = block_rows(int(np.prod(self.row_shape)) * self.dtype.itemsize)
        for first in range(0, len(self), step):
            yield from self[first : first + step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Rows at a slice, at positions or of a mask; one row at a position. Always a copy."""
        if isinstance(key, (int, np.integer)):
            return self[np.array([range(len(self))[key]])][0]
        places = self._places(key)
        result = np.empty((len(places), *self.row_shape), self.dtype)
        file_of = np.searchsorted(self.starts, places, side="right") - 1
        for number in np.unique(file_of):
            at = np.flatnonzero(file_of == number)
            result[at] = self._of_file(int(number), places[at] - self.starts[number])
        return result

    def chosen(self, rows: NDArray[Any]) -> Self:
        """Some rows, none read."""
        whole = len(rows) == len(self) and bool((rows == np.arange(len(rows))).all())
        small = np.min_scalar_type(max(1, self.starts[-1]))
        return self if whole else replace(self, rows=self._places(rows).astype(small))

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """What results follow from: the content, not where it lies."""
        return (self.digest or self.addresses, self.shape, self.dtype.str, self.rows)

    def known_fingerprint(self, labels: NDArray[np.int64], names: Sequence[str]) -> str | None:
        """The set's fingerprint, if it's known without reading its pixels."""
        return None

    def _of_file(self, number: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of one file, counted within it, in any order."""
        raise NotImplementedError

    def _places(self, key: Any) -> NDArray[np.int64]:
        if isinstance(key, slice):
            found = np.arange(*key.indices(len(self)))
        else:
            found = np.asarray(key)
            mask = found.dtype == np.bool_
            found = np.flatnonzero(found) if mask else found.astype(np.int64, copy=False)
            if len(found) and found.min() < 0:
                found = np.where(found < 0, found + len(self), found)
        if len(found) and (found.min() < 0 or found.max() >= len(self)):
            raise IndexError(f"rows of {self!r} go from 0 to {len(self) - 1}")
        return found if self.rows is None else self.rows[found].astype(np.int64)
