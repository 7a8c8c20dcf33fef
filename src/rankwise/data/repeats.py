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

CLOSER = 0.98
"""The same at 32 × 32, for `same_looking`: digits alone are near at 16 × 16 by chance."""

_SIDE = 16
_CLOSER_SIDE = 32
_LEADING = 64
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


def thumbnails(images: NDArray[np.uint8], side: int = _SIDE) -> NDArray[np.float32]:
    """Each image as a unit vector of `side` × `side` grey values without their mean.

    A blank image is a row of zeros.
    """
    return np.concatenate(
        [_small(images[rows], side) for rows in _blocks(len(images))]
        or [np.zeros((0, side**2), np.float32)]
    )


def _small(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    n, height, width, *channels = images.shape
    channel = channels[0] if channels else 1
    across = np.repeat(_averages(width, side), channel, axis=1) / channel
    rows = images.reshape(n * height, width * channel).astype(np.float32)
    grey = _averages(height, side) @ (rows @ across.T).reshape(n, height, side)
    flat = grey.reshape(n, -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.where(length > _BLANK * side, flat / np.maximum(length, 1e-6), 0.0)


def _averages(length: int, side: int) -> NDArray[np.float32]:
    """Weights ``(side, length)`` that average an axis over `side` equal stretches."""
    at = np.arange(length)
    weights = [
        np.clip(np.minimum(at + 1, high) - np.maximum(at, low), 0, None) / (high - low)
        for low, high in pairwise(np.linspace(0, length, side + 1))
    ]
    return np.stack(weights).astype(np.float32)


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


@dataclass(frozen=True)
class Pairs:
    """Pairs of images that look the same.

    Parameters
    ----------
    first, second : int arrays of shape (p,)
        Rows, ``first < second``; the most alike pairs come first.
    likeness : float32 array of shape (p,)
        Correlation of the two in small; 2 where their pixels are the same.
    more : bool
        Whether there are more than `most`, which aren't listed.
    """

    first: IntArray
    second: IntArray
    likeness: NDArray[np.float32]
    more: bool


def same_looking(images: NDArray[np.uint8], *, most: int = 100_000) -> Pairs:
    """Pairs of images of the same pixels, or nearly the same ones, among all pairs.

    An exact repeat is paired with the first image of its pixels. Others are paired where they
    correlate by `NEAR` at 16 × 16 grey values and by `CLOSER` at 32 × 32. Not all products are
    made: with ``a = (a₁, a₂)``, the leading `_LEADING` coordinates and the rest, ``a·b`` is at
    most ``a₁·b₁ + ‖a₂‖·‖b₂‖``, which sorts out nearly all pairs, and loses none.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width[, channels])
    most : int
        Near pairs kept while they are looked for.
    """
    _, one, which = np.unique(pixel_marks(images), return_index=True, return_inverse=True)
    again = np.flatnonzero(one[which] != np.arange(len(images)))
    distinct = np.sort(one)
    small = thumbnails(images[distinct] if len(again) else images)
    near, more = _near_pairs(small, most)
    rows = np.unique(near)
    large = thumbnails(images[distinct[rows]], _CLOSER_SIDE)
    a, b = np.searchsorted(rows, near)
    likeness = np.einsum("ij,ij->i", large[a], large[b])
    kept = likeness >= CLOSER
    first = np.concatenate([one[which[again]], distinct[near[0][kept]]])
    second = np.concatenate([again, distinct[near[1][kept]]])
    likeness = np.concatenate([np.full(len(again), 2.0, np.float32), likeness[kept]])
    order = np.argsort(-likeness, kind="stable")
    return Pairs(first[order], second[order], likeness[order], more)


def _near_pairs(small: NDArray[np.float32], most: int) -> tuple[IntArray, bool]:
    """Pairs ``(2, p)`` of thumbnails that correlate by `NEAR`, and whether there are more."""
    _, vectors = np.linalg.eigh(small.T @ small)
    leading = small @ vectors[:, -_LEADING:].astype(np.float32)
    rest = np.sqrt(np.clip((small**2).sum(axis=1) - (leading**2).sum(axis=1), 0.0, None))
    bounds = np.column_stack([leading, rest])
    found: list[IntArray] = []
    n = 0
    for rows in _blocks(len(small)):
        for others in _blocks(len(small), rows.start):
            # A rounding of float32 more than the bound may be short of.
            may_be = np.flatnonzero(bounds[rows] @ bounds[others].T >= NEAR - 1e-5)
            i, j = np.divmod(may_be, others.stop - others.start)
            i, j = i + rows.start, j + others.start
            i, j = i[i < j], j[i < j]
            for part in _blocks(len(i)):
                a, b = i[part], j[part]
                near = np.einsum("ij,ij->i", small[a], small[b]) >= NEAR
                found.append(np.stack([a[near], b[near]]))
                n += int(near.sum())
                if n >= most:
                    return np.concatenate(found, axis=1), True
    return np.concatenate([np.zeros((2, 0), np.int64), *found], axis=1), False


def _blocks(n: int, start: int = 0) -> Iterator[slice]:
    """Stretches of rows; all begin at a multiple of their length where `start` does."""
    for first in range(start, n, _BLOCK):
        yield slice(first, min(first + _BLOCK, n))
