"""The same picture twice: exact repeats by their pixels, near ones by what they look like.

Names don't tell: a set may hold one picture under several. An exact repeat has the same pixels.
A near one looks the same in small: every image is averaged to 16 × 16 grey values, their mean and
scale taken out, and two are near where these differ by less than a hundredth of their energy. That
finds JPEG copies, other sizes and brightness; it does not find crops, mirrors or rotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import pixel_marks
from rankwise.data.imageset import ImageSet
from rankwise.data.reader import IntArray

NEAR = 0.99
"""Correlation of two thumbnails from which on they are near."""

_SIDE = 16
_BLOCK = 2048
# Under this deviation (of 255) an image is blank, and looks like any other blank one.
_BLANK = 2.0


@dataclass(frozen=True)
class Repeats:
    """Pictures that two parts of a set share.

    Parameters
    ----------
    exact, near : int
        Images of the second part that the first has too: the same pixels; nearly the same ones.
    exact_within : int
        Images of the first part that repeat an earlier one of it.
    checked : int
        Images looked at.
    blank : int
        Images without contrast, which aren't compared.
    """

    exact: int
    near: int
    exact_within: int
    checked: int
    blank: int


def one_source_each(images: ImageSet) -> ImageSet:
    """The same set with exact repeats under one source id, so that no split parts them.

    Sources that share a picture become one, with whatever else they have.
    """
    codes = np.unique(images.source_ids, return_inverse=True)[1]
    pictures = np.unique(pixel_marks(images.images), return_inverse=True)[1]
    joined = _joined(codes, pictures)
    if len(np.unique(joined)) == len(np.unique(codes)):
        return images
    first = np.full(int(joined.max()) + 1, len(joined))
    np.minimum.at(first, joined, np.arange(len(joined)))
    return replace(images, source_ids=images.source_ids[first[joined]])


def _joined(sources: IntArray, pictures: IntArray) -> IntArray:
    """Connected groups of rows that share a source or a picture."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_sources, n_pictures = int(sources.max()) + 1, int(pictures.max()) + 1
    size = n_sources + n_pictures
    graph = coo_array((np.ones(len(sources)), (sources, n_sources + pictures)), shape=(size, size))
    return connected_components(graph, directed=False)[1][sources]


def thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each image as a unit vector of 16 × 16 grey values without their mean, ``(n, 256)``.

    A blank image is a row of zeros.
    """
    return np.concatenate(
        [_small(images[rows]) for rows in _blocks(len(images))]
        or [np.zeros((0, _SIDE**2), np.float32)]
    )


def _small(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = images.astype(np.float32)
    if grey.ndim == 4:
        grey = grey.mean(axis=3)
    for axis in (1, 2):
        edges = np.linspace(0, grey.shape[axis], _SIDE + 1)
        weights = np.stack(
            [
                np.clip(
                    np.minimum(np.arange(grey.shape[axis]) + 1, high)
                    - np.maximum(np.arange(grey.shape[axis]), low),
                    0,
                    None,
                )
                / (high - low)
                for low, high in pairwise(edges)
            ]
        ).astype(np.float32)
        grey = np.moveaxis(np.tensordot(grey, weights, axes=(axis, 1)), -1, axis)
    flat = grey.reshape(len(grey), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > _BLANK * _SIDE, flat / np.maximum(length, 1e-6), 0.0)


def nearest(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each thumbnail of the second set, the largest correlation with one of the first.

    Memory is that of a block of products, not of all pairs.
    """
    best = np.full(len(second), -1.0, np.float32)
    for rows in _blocks(len(second)):
        for others in _blocks(len(first)):
            products = second[rows] @ first[others].T
            np.maximum(best[rows], products.max(axis=1), out=best[rows])
    return best


def repeats_between(images: ImageSet, first: IntArray, second: IntArray) -> Repeats:
    """Pictures that two parts of a set share, whatever their names.

    Parameters
    ----------
    images : ImageSet
    first, second : int arrays
        Rows of the parts, such as training and test.
    """
    pixels = pixel_marks(images.images)
    ours, theirs = pixels[first], pixels[second]
    small = thumbnails(images.images)
    exact = np.isin(theirs, ours)
    near = nearest(small[first], small[second]) >= NEAR if len(first) and len(second) else exact
    return Repeats(
        exact=int(exact.sum()),
        near=int((near & ~exact).sum()),
        exact_within=len(ours) - len(np.unique(ours)),
        checked=len(first) + len(second),
        blank=int((~small.any(axis=1)).sum()),
    )


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))
