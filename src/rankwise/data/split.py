"""Splits that keep class proportions, and never put two samples of one source on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise._arrays import blocks
from rankwise._process import ignoring_warnings
from rankwise.data.ids import distinct, repeated
from rankwise.data.reader import IntArray
from rankwise.data.storage import ROWS
from rankwise.errors import DataError


def stratified_limit(labels: ArrayLike, limit: int, seed: int = 42) -> IntArray:
    """Choose `limit` samples at random, with the classes in the proportions they have.

    Each class gets its exact share rounded down or up; a class whose share rounds to nothing still
    gets one sample where `limit` allows one for each class, taken from the best-served classes.

    Parameters
    ----------
    labels : int array, shape (n,)
        Class of each sample.
    limit : int
        Number of samples to choose; `n` or more chooses all.
    seed : int
        Seed of the choice.

    Returns
    -------
    int64 array, shape (min(limit, n),)
        Chosen rows in increasing order.

    Raises
    ------
    DataError
        If `limit` isn't a positive integer.
    """
    labels = np.asarray(labels)
    if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
        raise DataError(f"limit is {limit!r}; a positive number of images or None is accepted.")
    if limit >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    codes, counts = _coded(labels)
    floor = np.full(len(counts), int(limit >= len(counts)))
    return _choose(codes, _seats(counts, int(limit), floor, counts), seed)


def hold_out_by_source(
    labels: ArrayLike, source_ids: ArrayLike, fraction: float = 0.2, seed: int = 42
) -> tuple[IntArray, IntArray]:
    """Cut off a hold-out part with the classes' proportions, whole sources at a time.

    Where all source ids differ, the split is a plain stratified one, and every class keeps at
    least one sample in the larger part. Where ids repeat, scikit-learn's `StratifiedGroupKFold`
    cuts about ``1 / fraction`` folds by source, and the fold nearest to the wanted share of every
    class is held out.

    Parameters
    ----------
    labels : int array, shape (n,)
        Class of each sample.
    source_ids : str array, shape (n,)
        Source of each sample: samples with one id stay on one side.
    fraction : float
        Share to hold out, above 0 and at most 0.5. The default, 0.2, is the common choice
        and the one of the low-rank augmentation paper.
    seed : int
        Seed of the split.

    Returns
    -------
    rest, held_out : int64 arrays
        Rows of the two parts, in increasing order.

    Raises
    ------
    DataError
        If there are fewer than two sources, or `fraction` is out of range.
    """
    labels, ids = np.asarray(labels), np.asarray(source_ids)
    if not 0 < fraction <= 0.5:
        raise DataError(f"fraction is {fraction!r}; a share above 0 and at most 0.5 is accepted.")
    if len(labels) != len(ids):
        raise DataError(f"{len(labels)} labels and {len(ids)} source ids; one id each is accepted.")
    groups = np.unique(ids, return_inverse=True)[1] if len(repeated(ids)) else None
    n_sources = len(ids) if groups is None else int(groups.max()) + 1
    if n_sources < 2:
        raise DataError(
            f"All {len(ids)} samples have one source id, so none can be held out; "
            "at least two sources are needed."
        )
    if groups is None:
        codes, counts = _coded(labels)
        total = max(1, round(fraction * len(labels)))
        held_out = _choose(codes, _seats(counts, total, np.zeros_like(counts), counts - 1), seed)
    else:
        held_out = _best_fold(labels, groups, min(round(1 / fraction), n_sources), seed)
    stays = np.ones(len(labels), bool)
    stays[held_out] = False
    return np.flatnonzero(stays), held_out


def check_no_shared_sources(*groups_of_ids: ArrayLike) -> None:
    """Raise where two parts of a split hold samples of one source.

    A model tested on a copy, a crop or a neighbour of a training image looks better than it is;
    so every training run passes the source ids of its parts through this check.

    Parameters
    ----------
    *groups_of_ids : str arrays
        Source ids of each part, such as those of training, validation and test.

    Raises
    ------
    DataError
        Naming one shared id and the two parts that hold it.
    """
    distinct = [np.unique(np.asarray(ids)) for ids in groups_of_ids]
    for later in range(1, len(distinct)):
        for earlier in range(later):
            shared = np.intersect1d(distinct[earlier], distinct[later], assume_unique=True)
            if len(shared):
                raise DataError(
                    f"Parts {earlier + 1} and {later + 1} of a split share {len(shared)} source "
                    f"id(s), such as {str(shared[0])!r}; all samples of a source must be in one "
                    "part."
                )


def _coded(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places of labels among the distinct ones, in few bytes, and how many there are of each."""
    known = distinct(labels)
    codes = np.empty(len(labels), np.min_scalar_type(len(known)))
    counts = np.zeros(len(known), np.int64)
    for block in blocks(len(labels), ROWS):
        codes[block] = np.searchsorted(known, labels[block])
        counts += np.bincount(codes[block], minlength=len(known))
    return codes, counts


def _seats(
    counts: NDArray[Any], total: int, at_least: NDArray[Any], at_most: NDArray[Any]
) -> NDArray[Any]:
    """Share `total` seats over classes by largest remainder, within bounds for each class."""
    quota = total * counts / counts.sum()
    seats = np.clip(np.floor(quota).astype(np.int64), at_least, at_most)
    while (spare := total - seats.sum()) != 0:
        step = int(np.sign(spare))
        room = seats < at_most if step > 0 else seats > at_least
        if not room.any():
            break
        seats[np.argmax(np.where(room, step * (quota - seats), -np.inf))] += step
    return seats


def _choose(codes: NDArray[Any], seats: NDArray[Any], seed: int) -> IntArray:
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(np.flatnonzero(codes == k))[:s].copy() for k, s in enumerate(seats)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _best_fold(labels: NDArray[Any], groups: NDArray[Any], folds: int, seed: int) -> IntArray:
    from sklearn.model_selection import StratifiedGroupKFold

    classes, codes = np.unique(labels, return_inverse=True)
    if np.bincount(codes).max() < folds:
        # No class could fill the folds, and scikit-learn refuses: then sources alone count.
        classes, codes = classes[:1], np.zeros_like(codes)
    wanted = np.bincount(codes, minlength=len(classes)) / folds
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)

    def distance(rows: Sequence[int]) -> float:
        return float(np.abs(np.bincount(codes[rows], minlength=len(classes)) - wanted).sum())

    # It warns of classes with fewer samples than folds; such classes can't be shared out.
    with ignoring_warnings(category=UserWarning):
        parts = [rows for _, rows in splitter.split(codes, codes, groups)]
    best = min((rows for rows in parts if 0 < len(rows) < len(codes)), key=distance)
    return np.sort(best).astype(np.int64)
