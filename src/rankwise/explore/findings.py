"""Everything that a page shows of a run, found once: scores, lists, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise._arrays import blocks
from rankwise.data.storage import allocate
from rankwise.explore import faults, scores
from rankwise.explore.seen import LeftOut, Seen, left_out
from rankwise.networks.probabilities import expected_calibration_error

MOST_LISTED = 200
"""Entries of a list at most; the CSV has all."""
_FAR_SHOWN = 48


@dataclass(frozen=True)
class Entry:
    """An image in a list.

    Parameters
    ----------
    row : int
        Over all parts, one after the other.
    reason : str
        For people.
    score : float
        By which the list is sorted.
    suggested : str
        Another label, where one is suggested.
    leave : bool
        Whether leaving it out of training is suggested.
    """

    row: int
    reason: str
    score: float
    suggested: str = ""
    leave: bool = False


@dataclass(frozen=True)
class Findings:
    """What was found about the images of a run.

    Parameters
    ----------
    classes : tuple of str
    parts : list of Seen
        The training part first, where there is one; the last is the one that is scored.
    labels : faults.WrongLabels
    lists : dict of str to list of Entry
        ``mistakes``, ``unsure``, ``labels``, ``repeats``, ``odd``.
    groups : list of dict
        Of `faults.repeated`.
    pairs : list of dict
        Of `faults.one_class`.
    layer : LeftOut
    images : uint8 array of shape (n, height, width[, channels])
        Of all parts, one after the other.
    starts : tuple of int
        First row of each part.
    score : dict
        Accuracy and its interval, confusion, and so on of the scored part.
    """

    classes: tuple[str, ...]
    parts: list[Seen]
    labels: faults.WrongLabels
    lists: dict[str, list[Entry]]
    groups: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    layer: LeftOut
    images: np.ndarray
    starts: tuple[int, ...]
    score: dict[str, Any]

    @property
    def scored(self) -> Seen:
        """The images that the accuracy is of."""
        return self.parts[-1]

    @property
    def n(self) -> int:
        """Images of all parts."""
        return sum(map(len, self.parts))

    def place(self, row: int) -> tuple[Seen, int]:
        """The part that holds a row, and the row in it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[number], row - self.starts[number]

    def name(self, row: int) -> str:
        """What the source calls an image."""
        part, at = self.place(row)
        return str(part.images.ids[at])


def find(model: Any, parts: Sequence[Seen], odd_headers: Sequence[Entry] = ()) -> Findings:
    """Look for everything.

    Parameters
    ----------
    model
        As for `rankwise.explore.seen.seen`.
    parts : sequence of Seen
        The training part first, where there is one; the last is scored.
    odd_headers : sequence of Entry
        Images whose files are unlike the others, known before they were brought together.
    """
    parts = list(parts)
    starts = tuple(np.cumsum([0, *(len(p) for p in parts[:-1])]).tolist())
    classes = tuple(str(c) for c in model.classes_)
    truth = faults.all_of(parts, "truth")
    names = np.concatenate([np.full(len(p), p.part) for p in parts])
    images = joined(parts)
    groups = faults.repeated(images, names, truth)
    layer = left_out(model, parts, groups)
    wrong = faults.wrong_labels(layer, truth)
    lists = {
        "mistakes": _mistakes(parts[-1], starts[-1], classes),
        "unsure": _unsure(parts[-1], starts[-1], classes),
        "labels": _labels(wrong, names, classes),
        "repeats": _repeats(groups, names),
        "odd": [*_blank(images, names), *odd_headers, *_far(parts, names)],
    }
    pairs = faults.one_class(layer, truth)
    score = _scores(parts[-1], len(classes))
    return Findings(classes, parts, wrong, lists, groups, pairs, layer, images, starts, score)


def joined(parts: Sequence[Seen]) -> np.ndarray:
    """Images of several parts in one array, mapped from a file where they are many."""
    if len(parts) == 1:
        return parts[0].images.images
    arrays = [p.images.images for p in parts]
    found = allocate((sum(map(len, arrays)), *arrays[0].shape[1:]))
    start = 0
    for array in arrays:
        for rows in blocks(len(array)):
            found[start + rows.start : start + rows.stop] = array[rows]
        start += len(array)
    return found


def _scores(part: Seen, n_classes: int) -> dict[str, Any]:
    counts = scores.confusion(part.truth, part.predicted, n_classes)
    right = int(part.right.sum())
    low, high = scores.interval(right, len(part))
    return {
        "n": len(part),
        "right": right,
        "accuracy": right / max(len(part), 1),
        "low": low,
        "high": high,
        "confusion": counts,
        "by_class": scores.by_class(counts),
        "reliability": scores.reliability(part.confidence, part.right),
        "ece": expected_calibration_error(part.probabilities, part.truth),
        "rejection": scores.rejection(part.confidence, part.right),
    }


def _mistakes(part: Seen, start: int, classes: Sequence[str]) -> list[Entry]:
    rows = np.flatnonzero(~part.right)
    order = rows[np.argsort(-part.confidence[rows], kind="stable")]
    return [
        Entry(
            start + int(i),
            f"{classes[part.truth[i]]} taken for {classes[part.predicted[i]]}",
            float(part.confidence[i]),
            classes[part.predicted[i]],
        )
        for i in order
    ]


def _unsure(part: Seen, start: int, classes: Sequence[str]) -> list[Entry]:
    first_two = np.partition(part.probabilities, -2, axis=1)[:, -2:]
    lead = first_two[:, 1] - first_two[:, 0]
    order = np.argsort(lead, kind="stable")[:MOST_LISTED]
    top = np.argsort(-part.probabilities[order], axis=1, kind="stable")[:, :2]
    return [
        Entry(start + int(i), f"{classes[a]} or {classes[b]}", float(lead[i]))
        for i, (a, b) in zip(order, top, strict=True)
    ]


def _labels(wrong: faults.WrongLabels, names: np.ndarray, classes: Sequence[str]) -> list[Entry]:
    return [
        Entry(
            int(row),
            f"the others say {classes[other]}",
            float(margin),
            classes[other],
            leave=bool(names[row] == "train" and likely > 0.5),
        )
        for row, margin, other, likely in zip(
            wrong.rows[: wrong.n_against], wrong.margins, wrong.others, wrong.wrong, strict=False
        )
    ]


def _repeats(groups: list[dict[str, Any]], names: np.ndarray) -> list[Entry]:
    """Every image of every group: one stays, one that isn't trained on where there is such."""
    found = []
    for group in groups:
        keep = next((r for r in group["rows"] if names[r] != "train"), group["rows"][0])
        kind = "the same pixels" if group["exact"] else "nearly the same"
        kind += ", in both parts" if group["across"] else ""
        kind += ", under two labels" if group["labels_differ"] else ""
        found += [
            Entry(r, kind, group["likeness"], leave=r != keep and names[r] == "train")
            for r in group["rows"]
        ]
    return found


def _blank(images: Any, names: np.ndarray) -> list[Entry]:
    return [
        Entry(int(row), "blank: without contrast", 0.0, leave=names[row] == "train")
        for row in faults.blank(images)
    ]


def _far(parts: Sequence[Seen], names: np.ndarray) -> list[Entry]:
    features = [np.asarray(p.features) for p in parts]
    rows, distances = faults.far(features[0] if len(features) == 1 else np.concatenate(features))
    return [
        Entry(int(row), f"far from all others: {distance:.1f} times the usual", float(distance))
        for row, distance in zip(rows[:_FAR_SHOWN], distances, strict=False)
        if distance > faults.FAR
    ]
