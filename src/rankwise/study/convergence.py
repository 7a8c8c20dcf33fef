"""Whether the arms of a study were trained to the end, so that a comparison means anything.

Equal updates punish an arm that needs more of them. An arm is *unfinished* where, in more than half
of its folds, the best epoch lies in the last tenth: with more epochs it would most likely have been
better. An arm is *near chance* where it is less than a tenth of the way from the largest class's
share to 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rankwise.study.outcomes import fold_cells, fold_scores

Record = dict[str, Any]

_LATE = 0.9
_NEAR = 0.1


def is_late(cell: Record) -> bool | None:
    """Whether a fold's best epoch is among the last tenth; None where it has no epochs to tell."""
    epochs = len(cell.get("history") or ())
    if epochs < 2 or cell.get("best_epoch") is None:
        return None
    return cell["best_epoch"] > math.floor(_LATE * epochs)


def late_share(results: Record, condition: str) -> tuple[int, int]:
    """Folds of a condition whose best epoch is among the last tenth, of how many.

    Folds that were stopped at a plateau (`patience` of the study) have none left to gain.
    """
    if results["study"].get("patience"):
        return 0, 0
    found = [is_late(cell) for cell in fold_cells(results, condition).values()]
    told = [late for late in found if late is not None]
    return sum(told), len(told)


def unfinished(results: Record, condition: str) -> bool:
    """Whether most of a condition's folds were still getting better at their end."""
    late, folds = late_share(results, condition)
    return 2 * late > folds


def near_chance(results: Record, condition: str, outcome: str) -> bool:
    """Whether a condition's mean score is hardly above the share of the largest class."""
    scores = list(fold_scores(results, condition, outcome).values())
    if not scores:
        return False
    known = next(c for c in results["conditions"] if c["id"] == condition)
    data: Record = next((d for d in results["data_sets"] if d["name"] == known["data_set"]), {})
    chance = data.get("largest_class") or 1 / max(2, len(data.get("class_names", ())))
    return float(np.mean(scores)) < chance + _NEAR * (1 - chance)


def convergence(results: Record, outcome: str) -> list[Record]:
    """A row a condition: ``condition``, ``late`` of ``folds``, ``unfinished``, ``near_chance``."""
    rows = []
    for condition in results["conditions"]:
        name = condition["id"]
        late, folds = late_share(results, name)
        rows.append(
            {
                "condition": name,
                "late": late,
                "folds": folds,
                "unfinished": 2 * late > folds,
                "near_chance": near_chance(results, name, outcome),
            }
        )
    return rows
