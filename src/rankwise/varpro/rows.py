"""Some rows of an array without a copy of them, so that a mapped set stays on its disk."""

from __future__ import annotations

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
