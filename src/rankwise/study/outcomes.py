"""What arms are compared by: scores of the folds' models, and how much their images alone vary.

==============  ==========================================================  =====================
outcome         score of a fold                                             images
==============  ==========================================================  =====================
``test``        test accuracy of its model, at the epoch that validation    the test part, shared
                chose: ``sound``                                            by all folds
``validation``  best validation accuracy, on the images that chose the      its validation part,
                epoch: the paper's (3.4)                                    its own
``degraded``    mean accuracy on the degraded test images                   the test part, shared
==============  ==========================================================  =====================

The best epoch's validation accuracy is the maximum over epochs of a noisy figure: an arm whose
accuracy wobbles more gets a larger maximum without being better. The test part hasn't chosen
anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._reading import blamed_on, read_arrays
from rankwise.errors import RunError
from rankwise.study.cells import REMEDY
from rankwise.study.design import RELATIVE_ROPE, ROPE
from rankwise.study.infer import ImageNoise, image_noise
from rankwise.study.protocols import protocol_of

Record = dict[str, Any]
Key = tuple[int, int]

OUTCOMES = {
    "test": "test accuracy",
    "validation": "validation accuracy",
    "degraded": "accuracy on degraded test images",
}
"""Names of outcomes, and their words."""


def primary_outcome(protocol: str) -> str:
    """What verdicts rest on: ``"test"`` under protocol ``sound``, else ``"validation"``."""
    return "test" if protocol_of(protocol).equal_updates else "validation"


def fold_cells(results: Record, condition: str) -> dict[Key, Record]:
    """Finished folds of a condition, by (seed, fold)."""
    return {
        (cell["seed"], cell["fold"]): cell
        for cell in results["cells"]
        if cell["condition"] == condition and cell["stage"] == "fold" and cell["status"] == "done"
    }


def retrained(results: Record, condition: str) -> dict[int, Record]:
    """Finished re-trained cells of a condition, by seed."""
    return {
        cell["seed"]: cell
        for cell in results["cells"]
        if cell["condition"] == condition
        and cell["stage"] == "retrain"
        and cell["status"] == "done"
    }


def fold_scores(results: Record, condition: str, outcome: str = "validation") -> dict[Key, float]:
    """Scores of a condition's finished folds, by (seed, fold).

    Parameters
    ----------
    results : dict
        As in ``results.json``.
    condition : str
    outcome : str
        One of `OUTCOMES`. Folds that weren't measured so are left out.
    """
    found = {}
    for key, cell in fold_cells(results, condition).items():
        score = _score(cell, outcome)
        if score is not None:
            found[key] = score
    return found


def _score(cell: Record, outcome: str) -> float | None:
    if outcome == "degraded":
        return mean_degraded(cell.get("degraded"))
    value = cell.get(f"{outcome}_accuracy")
    return None if value is None else float(value)


def mean_degraded(measured: Record | None) -> float | None:
    """Mean accuracy over all kinds of degradation and severities, the clean images left out."""
    if not measured:
        return None
    return float(np.mean([values for kind, values in measured.items() if kind != "clean"]))


def noise_between(
    results: Record, first: str, second: str, outcome: str, folder: Path | str
) -> ImageNoise | None:
    """How much of two conditions' mean difference comes of the images that they are scored on.

    As `noise_of`, of the first less the second.
    """
    return noise_of(results, {first: 1.0, second: -1.0}, outcome, folder)


def noise_of(
    results: Record, weights: Mapping[str, float], outcome: str, folder: Path | str
) -> ImageNoise | None:
    """How much of a weighted sum of conditions' means comes of the images that they are scored on.

    Parameters
    ----------
    results, outcome
        As in `fold_scores`.
    weights : dict
        From conditions to their weights.
    folder : path
        Where the cells' ``predictions`` are.

    Returns
    -------
    ImageNoise or None
        None where no fold names its predictions, or some fold's arms weren't scored on the same
        images, as with copies under ``notebook``.

    Raises
    ------
    RunError
        If the predictions of a finished fold aren't there, or are damaged.
    """
    cells = {name: fold_cells(results, name) for name in weights}
    scored: list[tuple[Any, ...]] = []
    for key in sorted(set.intersection(*(set(found) for found in cells.values()))):
        parts = [_right(cells[name][key], outcome, Path(folder)) for name in weights]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        rows, codes, _ = known[0]
        if any(not np.array_equal(rows, others) for others, _, _ in known[1:]):
            return None
        sums = sum(
            weight * right for weight, (_, _, right) in zip(weights.values(), known, strict=True)
        )
        scored.append((rows, codes, sums))
    if not scored:
        return None
    rows, codes, sums = (np.concatenate(part) for part in zip(*scored, strict=True))
    _, first, image = np.unique(rows, return_index=True, return_inverse=True)
    means = np.bincount(image, sums) / np.bincount(image)
    return image_noise(means.tolist(), codes[first].tolist(), shared=outcome != "validation")


def _right(
    cell: Record, outcome: str, folder: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Rows that a fold was scored on, their sources, and how often each was right."""
    if not cell.get("predictions"):
        return None
    path = folder / cell["predictions"]
    if not path.is_file():
        # Without them the images' variance would be left out, and a verdict be too sure.
        raise RunError(f"{path} of a finished cell isn't there{REMEDY}")
    part = "validation" if outcome == "validation" else "test"
    stored = read_arrays(path, None, error=RunError, hint=REMEDY)
    with blamed_on(path, RunError, REMEDY):
        rows = stored[f"{part}_index"]
        # Predictions of earlier versions name no sources: then each image is one.
        codes = stored.get(f"{part}_source", rows)
        if outcome == "degraded":
            if "degraded_right" not in stored:
                return None
            right = stored["degraded_right"]
        else:
            right = stored[f"{part}_predicted"] == stored[f"{part}_labels"]
        if len(rows) == 0 or len(np.unique(rows)) < len(rows):
            return None
        return rows, codes, right.astype(np.float64)


def region(study: Record, baseline_scores: Sequence[float]) -> float:
    """Half width of the region of practical equivalence.

    The study's `rope` where it names one; else `relative_rope` (a tenth) of the baseline's mean
    error, so that it means as much where accuracies are 99% as where they are 75%.
    """
    if study.get("rope") is not None:
        return float(study["rope"])
    if not baseline_scores:
        return ROPE
    return float(study.get("relative_rope", RELATIVE_ROPE) * (1 - np.mean(baseline_scores)))
