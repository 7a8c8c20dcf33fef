"""Who trains on what: the protocols of a study, as arithmetic on row numbers.

=============  =========================  ========================  ==========================
               paper                      sound                     notebook
=============  =========================  ========================  ==========================
test part      20%, by class              20%, by class and source  20%, by class
folds          of the training part       the same, by source       of the training part
                                                                    and its copies together
copies         of a fold's training       of a fold's training      of the whole training
               images                     images                    part, before the folds
epochs         SVD arms twice as many     the same for all arms     SVD arms twice as many
updates        grow with the copies       equal for all arms        grow with the copies
re-training    on the training part for   on the training part for  on training and test part
               E* epochs                  the mean best epoch       for E* epochs, truncated
verdicts rest  best validation accuracy   test accuracy at the      best validation accuracy
on                                        epoch of best validation
=============  =========================  ========================  ==========================

The paper says that copies of "the training data" are made before training (3.2) and that folds
are cut of "the training data" (3.4), not in which order; ``paper`` takes the order that doesn't
leak, ``notebook`` that of the public code. There the validation split contains the test split and
joins the training data of the re-training; and its E* counts epochs from zero and cuts off where
the paper rounds. With a model that is fine-tuned, the notebook's frozen stage has seen all folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise._process import ignoring_warnings
from rankwise.data import hold_out_by_source
from rankwise.errors import DataError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Protocol:
    """What a protocol's name stands for; the table at the top of this module in words.

    Attributes
    ----------
    name : str
    by_source : bool
        Parts are cut by source id, else by image.
    copies_before_folds : bool
        A leak: copies of validation images are trained on.
    test_in_retraining : bool
        A leak: the test part is trained on.
    equal_updates : bool
        Every arm gets the steps per epoch of the arm without copies, and its epochs.
    retrain_factor : float
        E* is so many times the mean best epoch: 1.2 in the paper, for 20% more data; 1 where
        an epoch of the re-training has more updates by itself.
    controls : bool
        Add the arms ``none`` and ``duplicate``.
    degraded : str
        Which cells see degraded test images.
    """

    name: str
    by_source: bool = False
    copies_before_folds: bool = False
    test_in_retraining: bool = False
    equal_updates: bool = False
    retrain_factor: float = 1.2
    controls: bool = False
    degraded: str = "retrain"


_PROTOCOLS = {
    "paper": Protocol("paper"),
    "sound": Protocol(
        "sound",
        by_source=True,
        equal_updates=True,
        retrain_factor=1.0,
        controls=True,
        degraded="all",
    ),
    "notebook": Protocol("notebook", copies_before_folds=True, test_in_retraining=True),
}


def protocol_of(name: str) -> Protocol:
    """The protocol of that name: ``"paper"``, ``"sound"`` or ``"notebook"``."""
    return _PROTOCOLS[name]


@dataclass(frozen=True)
class Part:
    """Images of one part of a split: originals and copies, as rows of the data set.

    Attributes
    ----------
    rows : ndarray of int64, (n,)
        The original, or what a copy was made of.
    is_copy : ndarray of bool, (n,)
    """

    rows: Rows
    is_copy: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if len(self.is_copy) != len(self.rows):
            object.__setattr__(self, "is_copy", np.zeros(len(self.rows), bool))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def originals(self) -> Rows:
        """Rows that are there themselves."""
        return self.rows[~self.is_copy]

    @property
    def copied(self) -> Rows:
        """Rows that a copy is there of."""
        return self.rows[self.is_copy]


@dataclass(frozen=True)
class Split:
    """Training, validation and test part of a cell; no validation where it re-trains."""

    train: Part
    validation: Part
    test: Part


def hold_out(
    protocol: Protocol, labels: ArrayLike, source_ids: ArrayLike, fraction: float, seed: int
) -> tuple[Rows, Rows]:
    """Cut off the test part, before anything else (paper, section 3.4).

    Returns
    -------
    training, test : ndarrays of int64
        Rows of the data set, ascending.
    """
    ids = np.asarray(source_ids) if protocol.by_source else np.arange(len(np.asarray(labels)))
    return hold_out_by_source(labels, ids, fraction, seed)


def cut_folds(
    protocol: Protocol, labels: ArrayLike, source_ids: ArrayLike, folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Cut a training part into folds, by class and, under ``sound``, by source.

    Where every image is a source of its own, ``sound`` and ``paper`` cut the same folds.

    Parameters
    ----------
    labels, source_ids : arrays, (n,)
        Of the training part.

    Returns
    -------
    list of (training, validation)
        Positions in the training part, ascending; each is in exactly one validation part.

    Raises
    ------
    DataError
        If there are fewer sources, or fewer images of every class, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels, ids = np.asarray(labels), np.asarray(source_ids)
    n_sources = len(np.unique(ids)) if protocol.by_source else len(ids)
    most = most_folds(protocol, labels, ids)
    if most < folds:
        what = "sources" if n_sources < folds else "training images of any class"
        raise DataError(
            f"{folds} folds need as many {what}, and there are {most}; "
            "use fewer folds or more images"
        )
    grouped = n_sources < len(ids)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    # It warns of rare classes; they are in the folds that they fill.
    with ignoring_warnings(category=UserWarning):
        parts = list(splitter.split(labels, labels, ids if grouped else None))
    if any(len(rest) == 0 or len(held) == 0 for rest, held in parts):
        raise DataError(f"{folds} folds leave one empty, the sources being uneven; use fewer folds")
    return [(np.sort(a).astype(np.int64), np.sort(b).astype(np.int64)) for a, b in parts]


def most_folds(protocol: Protocol, labels: ArrayLike, source_ids: ArrayLike) -> int:
    """How many folds a training part has the sources, and the images of some class, for."""
    labels, ids = np.asarray(labels), np.asarray(source_ids)
    if not len(labels):
        return 0
    n_sources = len(np.unique(ids)) if protocol.by_source else len(ids)
    return min(n_sources, int(np.bincount(labels).max()))


def with_copies(originals: Rows, copied: Rows) -> Part:
    """A part of originals, followed by copies of some of them."""
    rows = np.concatenate([originals, copied]).astype(np.int64)
    return Part(rows, np.arange(len(rows)) >= len(originals))


def taken(part: Part, positions: Rows) -> Part:
    """Some of a part, in the order of `positions`."""
    return Part(part.rows[positions], part.is_copy[positions])


def leaks(split: Split, source_ids: ArrayLike) -> dict[str, int]:
    """Count what the parts of a split share, from the very rows that were trained and tested on.

    Parameters
    ----------
    split : Split
    source_ids : array, (rows of the data set,)

    Returns
    -------
    dict
        ``train_validation``, ``train_test``, ``validation_test``: sources in both parts;
        ``copies_of_validation_in_train``, ``copies_of_test_in_train``: copies that are trained on
        and whose original, or another copy of it, is in the other part.
    """
    ids = np.asarray(source_ids)

    def sources(part: Part) -> NDArray[Any]:
        return np.unique(ids[part.rows])

    def shared(a: Part, b: Part) -> int:
        return len(np.intersect1d(sources(a), sources(b), assume_unique=True))

    def copies_of(part: Part) -> int:
        return int(np.isin(ids[split.train.copied], sources(part)).sum())

    return {
        "train_validation": shared(split.train, split.validation),
        "train_test": shared(split.train, split.test),
        "validation_test": shared(split.validation, split.test),
        "copies_of_validation_in_train": copies_of(split.validation),
        "copies_of_test_in_train": copies_of(split.test),
    }


def retraining_epochs(protocol: Protocol, best_epochs: Sequence[int]) -> int:
    """For how many epochs to re-train.

    Equation 5: E* = round(mean of the folds' best epochs · 1.2), the re-training having 20% more
    data. The public code counts epochs from zero and truncates. Under ``sound`` an epoch of the
    re-training is a pass over the whole training part, so it has the more updates already, and E*
    is the mean itself: what is re-trained is the procedure that the folds were judged by.

    Parameters
    ----------
    protocol : Protocol
    best_epochs : sequence of int
        Of every fold, counted from 1.
    """
    mean = float(np.mean(best_epochs))
    if protocol.test_in_retraining:
        return max(1, int((mean - 1) * protocol.retrain_factor))
    return max(1, round(mean * protocol.retrain_factor))


def reserved(
    protocol: Protocol, labels: ArrayLike, source_ids: ArrayLike, share: float, seed: int
) -> tuple[Rows, Rows]:
    """Cut a training part into what the cells get, and what a search may look at.

    Returns
    -------
    kept, searched : ndarrays of int64
        Positions in the training part, ascending; nothing is searched on where `share` is 0.
    """
    n = len(np.asarray(labels))
    if share == 0:
        return np.arange(n), np.zeros(0, np.int64)
    # Another seed than the test part's, so that the two cuts don't follow each other.
    return hold_out(protocol, labels, source_ids, share, seed + 1)
