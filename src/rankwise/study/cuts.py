"""The images of a cell: split, copied and shuffled as its protocol has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.data import ImageSet
from rankwise.study.arms import copied_rows, make_copies
from rankwise.study.design import Study
from rankwise.study.design_parts import Arm
from rankwise.study.protocols import (
    Part,
    Rows,
    Split,
    cut_folds,
    hold_out,
    protocol_of,
    reserved,
    taken,
    with_copies,
)


@dataclass(frozen=True)
class Cut:
    """The images of a cell, as rows of its data set and pixels of its copies.

    Attributes
    ----------
    split : Split
        Copies in the training part are those of `copies`, in order; so for validation.
    train, validation : (images, labels)
    sources : array of shape (n_train,)
        Source id of each training image; a copy has that of its original.
    whole : (images, labels) or None
        Under ``notebook``: all that any fold trains on, for a stage that all folds share.
    n_virtual : int
        Copies that the arm would have made, of an arm that only matches their updates.
    """

    split: Split
    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    validation: tuple[NDArray[np.uint8], NDArray[np.int64]] | None
    sources: NDArray
    whole: tuple[NDArray[np.uint8], NDArray[np.int64]] | None
    n_virtual: int


def test_part(study: Study, images: ImageSet) -> Rows:
    """Rows that only the finished models see."""
    return hold_out(
        protocol_of(study.protocol),
        images.labels,
        images.source_ids,
        study.test_fraction,
        study.split_seed,
    )[1]


def training_part(study: Study, images: ImageSet, *, searched: bool = False) -> Rows:
    """Rows that folds are cut from; with `searched` those that only a search may look at."""
    protocol, labels, ids = protocol_of(study.protocol), images.labels, images.source_ids
    rest, _ = hold_out(protocol, labels, ids, study.test_fraction, study.split_seed)
    kept, reserve = reserved(protocol, labels[rest], ids[rest], study.reserve, study.split_seed)
    return rest[reserve if searched else kept]


def cut(study: Study, arm: Arm, images: ImageSet, seed: int, fold: int | None) -> Cut:
    """Split a data set for a cell and make the copies of its arm, in its protocol's order."""
    protocol = protocol_of(study.protocol)
    labels, ids = images.labels, images.source_ids
    rest, test = training_part(study, images), test_part(study, images)
    if protocol.copies_before_folds:
        return _cut_with_leaks(study, arm, images, seed, fold, rest, test)
    if fold is None:
        return _cut_apart(arm, images, seed, rest, None, test)
    parts = cut_folds(protocol, labels[rest], ids[rest], study.folds, seed)
    return _cut_apart(arm, images, seed, rest[parts[fold][0]], rest[parts[fold][1]], test)


def cut_for_search(study: Study, arm: Arm, images: ImageSet, seed: int) -> Cut:
    """What a search of the arm's options trains and validates on.

    A fifth of the reserved images validates; without a reserve it is the study's own first fold,
    and then the study isn't a test of what was found.
    """
    if not study.reserve:
        return cut(study, arm, images, seed, 0)
    rows, protocol = training_part(study, images, searched=True), protocol_of(study.protocol)
    train, held = cut_folds(protocol, images.labels[rows], images.source_ids[rows], 5, seed)[0]
    return _cut_apart(arm, images, seed, rows[train], rows[held], rows[:0])


def _cut_apart(
    arm: Arm, images: ImageSet, seed: int, train: Rows, validation: Rows | None, test: Rows
) -> Cut:
    """Copies of training images alone, made after everything else is held out."""
    labels, ids = images.labels, images.source_ids
    part = images.subset(train)
    made, copies = make_copies(arm, part, seed)
    n_virtual = len(copied_rows(arm, part, seed)) if arm.kind == "matched" else 0
    trained = with_copies(train, train[made])
    order = np.random.default_rng(seed).permutation(len(trained))
    held = train[:0] if validation is None else validation
    split = Split(taken(trained, order), Part(held), Part(test))
    return Cut(
        split,
        _pixels(part.images, copies, labels[trained.rows], order),
        None if validation is None else (images.images[held], labels[held]),
        ids[split.train.rows],
        None,
        n_virtual,
    )


def _cut_with_leaks(
    study: Study,
    arm: Arm,
    images: ImageSet,
    seed: int,
    fold: int | None,
    rest: Rows,
    test: Rows,
) -> Cut:
    """As the public code: copies before folds, and the test part joins the re-training."""
    protocol = protocol_of(study.protocol)
    part = images.subset(rest)
    made, copies = make_copies(arm, part, seed)
    n_virtual = len(copied_rows(arm, part, seed)) if arm.kind == "matched" else 0
    pool = with_copies(rest, rest[made])
    pixels = np.concatenate([part.images, copies])
    labels = images.labels[pool.rows]
    whole = (pixels, labels)
    if fold is None:
        pool = Part(
            np.concatenate([pool.rows, test]),
            np.concatenate([pool.is_copy, np.zeros(len(test), bool)]),
        )
        pixels = np.concatenate([pixels, images.images[test]])
        train, held = np.arange(len(pool)), np.zeros(0, np.int64)
    else:
        positions = np.arange(len(pool))
        train, held = cut_folds(protocol, labels, positions, study.folds, seed)[fold]
    train = train[np.random.default_rng(seed).permutation(len(train))]
    return Cut(
        Split(taken(pool, train), taken(pool, held), Part(test)),
        (pixels[train], images.labels[pool.rows[train]]),
        None if fold is None else (pixels[held], images.labels[pool.rows[held]]),
        images.source_ids[pool.rows[train]],
        whole,
        n_virtual,
    )


def _pixels(
    originals: NDArray[np.uint8], copies: NDArray[np.uint8], labels: NDArray, order: Rows
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    pixels = np.empty((len(order), *originals.shape[1:]), np.uint8)
    pixels[places[: len(originals)]] = originals
    pixels[places[len(originals) :]] = copies
    return pixels, labels[order]
