"""Whether the arms of a study were trained to the end, so that a comparison means anything.

Equal updates punish an arm that needs more of them. An arm is *unfinished* where, in more than half
of its folds, the best epoch lies in the last tenth: with more epochs it would most likely have been
better; so is one that a patience too short to tell a plateau has stopped. It is *near chance* where
it is less than a tenth of the way from the largest class's share to 1; where all arms are, the
training was too short for any of them.
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
_EPOCHS = 5
"""Without a lower loss that are a plateau, however many epochs there are."""


def is_late(cell: Record) -> bool | None:
    """Whether a fold's best epoch is among the last tenth; None where it doesn't say.

    The best of one epoch alone is the last: nothing says that a second wouldn't be better.
    """
    epochs = len(cell.get("history") or ())
    if epochs == 0 or cell.get("best_epoch") is None:
        return None
    return cell["best_epoch"] > math.floor(_LATE * epochs)


def late_share(results: Record, condition: str) -> tuple[int, int]:
    """Folds of a condition that weren't trained to the end, of how many.

    Their best epoch is among the last tenth of those that they had, also where `patience` of the
    study has stopped them; or a patience too short to tell a plateau has (`least_patience`).
    A model that is trained in one pass has no epochs, and so none that is late.
    """
    known = next((c for c in results["conditions"] if c["id"] == condition), None)
    if known is not None and _in_one_pass(results["study"], known["model"]):
        return 0, 0
    hasty = known is not None and least_patience(results, known) is not None
    told = []
    for cell in fold_cells(results, condition).values():
        late = is_late(cell)
        if late is not None:
            stopped = known is not None and len(cell["history"]) < known["epochs"]
            told.append(late or (hasty and stopped))
    return sum(told), len(told)


def least_patience(results: Record, condition: Record) -> int | None:
    """The shortest patience that would tell a condition's plateau, where the study's is shorter.

    A wobble of the loss stops a training that has far to go where patience is under `_EPOCHS` and
    under a tenth of the epochs.
    """
    patience = results["study"].get("patience")
    least = min(_EPOCHS, math.ceil(condition["epochs"] / 10))
    return least if patience is not None and patience < least else None


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


def any_learned(results: Record, condition: Record, outcome: str) -> bool:
    """Whether any arm of a condition's data set and model is above chance."""
    place = condition["data_set"], condition["model"]
    return any(
        fold_scores(results, other["id"], outcome)
        and not near_chance(results, other["id"], outcome)
        for other in results["conditions"]
        if (other["data_set"], other["model"]) == place
    )


def convergence(results: Record, outcome: str) -> list[Record]:
    """A row a condition.

    ``condition``, ``late`` of ``folds``, ``least_patience``, ``unfinished``, ``near_chance``. The
    last is of a condition whose data set and model have no arm that is above chance: one arm
    alone near chance, though trained to its end, is what the arm does.
    """
    rows = []
    for condition in results["conditions"]:
        name = condition["id"]
        late, folds = late_share(results, name)
        rows.append(
            {
                "condition": name,
                "late": late,
                "folds": folds,
                "least_patience": least_patience(results, condition),
                "unfinished": 2 * late > folds,
                "near_chance": near_chance(results, name, outcome)
                and not any_learned(results, condition, outcome),
            }
        )
    return rows
