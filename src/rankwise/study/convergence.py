"""Whether the arms of a study were trained to the end, so that a comparison means anything.

Equal updates punish an arm that needs more of them. An arm is *unfinished* where, in more than half
of its folds, the best epoch lies in the last tenth: with more epochs it would most likely have been
better. It is *near chance* where it is less than a tenth of the way from the largest class's share
to 1; where all arms are, the training was too short for any of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rankwise.study.design_parts import Model
from rankwise.study.outcomes import fold_cells, fold_scores

Record = dict[str, Any]

_LATE = 0.9
_NEAR = 0.1


def is_late(cell: Record) -> bool | None:
    """Whether a fold's best epoch is among the last tenth; None where it doesn't say.

    The best of one epoch alone is the last: nothing says that a second wouldn't be better.
    """
    epochs = len(cell.get("history") or ())
    if epochs == 0 or cell.get("best_epoch") is None:
        return None
    return cell["best_epoch"] > math.floor(_LATE * epochs)


def late_share(results: Record, condition: str) -> tuple[int, int]:
    """Folds of a condition whose best epoch is among the last tenth, of how many.

    A fold that `patience` of the study has stopped, so before its last epoch, was at its plateau.
    A model that is trained in one pass has no epochs, and so none that is late.
    """
    known = next((c for c in results["conditions"] if c["id"] == condition), None)
    if known is not None and _in_one_pass(results["study"], known["model"]):
        return 0, 0
    planned = math.inf if known is None else known["epochs"]
    may_stop = bool(results["study"].get("patience"))
    told = []
    for cell in fold_cells(results, condition).values():
        late = is_late(cell)
        if late is not None:
            stopped = may_stop and len(cell["history"]) < planned
            told.append(late and not stopped)
    return sum(told), len(told)


def _in_one_pass(study: Record, name: str) -> bool:
    """Whether a model has no epochs, though its history has an entry."""
    model = (study.get("models") or {}).get(name)
    return model is not None and Model(**model).in_one_pass


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
    """A row a condition: ``condition``, ``late`` of ``folds``, ``unfinished``, ``near_chance``.

    The last is of a condition whose data set and model have no arm that is above chance: one arm
    alone near chance, though trained to its end, is what the arm does.
    """
    rows, learned = [], set()
    for condition in results["conditions"]:
        if fold_scores(results, condition["id"], outcome) and not near_chance(
            results, condition["id"], outcome
        ):
            learned.add((condition["data_set"], condition["model"]))
    for condition in results["conditions"]:
        name, place = condition["id"], (condition["data_set"], condition["model"])
        late, folds = late_share(results, name)
        rows.append(
            {
                "condition": name,
                "late": late,
                "folds": folds,
                "unfinished": 2 * late > folds,
                "near_chance": place not in learned and near_chance(results, name, outcome),
            }
        )
    return rows
