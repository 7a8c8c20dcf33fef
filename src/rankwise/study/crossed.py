"""Factorial designs: the four conditions of a data set and model that are compared.

They compare like with like where what an arm brings, epochs included, is the same with and without
the other: one arm of the pair trains for the epochs of no augmentation, and both together for
those of the other arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rankwise.study.design import StudyError

Record = dict[str, Any]


def both_name(pair: Sequence[str]) -> str:
    """What the arm of two arms at once is called."""
    return f"{pair[0]}+{pair[1]}"


def four_conditions(
    conditions: Sequence[Record], pair: Sequence[str], data: str, model: str
) -> tuple[str, str, str, str] | None:
    """Ids of no augmentation, of each arm of a pair and of both, on a data set with a model.

    Parameters
    ----------
    conditions : sequence of dict
        As ``results.json`` has them.
    pair : (str, str)
        Names of the arms.
    data, model : str

    Returns
    -------
    tuple of four str, or None
        None where one of them isn't there.

    Raises
    ------
    StudyError
        If an arm is there in several conditions, or the epochs of the four don't fit.
    """
    own = [c for c in conditions if (c["data_set"], c["model"]) == (data, model)]
    name = both_name(pair)
    groups = [
        [c for c in own if c["arm_kind"] == "none"],
        *([c for c in own if c["arm"] == arm] for arm in (*pair, name)),
    ]
    if not all(groups):
        return None
    for group in groups:
        if len(group) > 1:
            raise StudyError(
                f"{data}/{model} has the arm {group[0]['arm']!r} in several conditions, "
                f"{' and '.join(c['id'] for c in group)}; a factorial design takes one of each arm"
            )
    none, first, second, both = (group[0] for group in groups)
    fit = any(
        (one["epochs"], both["epochs"]) == (none["epochs"], other["epochs"])
        for one, other in ((first, second), (second, first))
    )
    if not fit:
        trained = ", ".join(f"{c['arm']} for {c['epochs']}" for c in (none, first, second))
        raise StudyError(
            f"{data}/{model} trains {trained} epochs; a factorial design of the two takes one of "
            f"them with the epochs of {none['arm']}, and the other with as many or more"
        )
    return none["id"], first["id"], second["id"], both["id"]


def check_crossed(conditions: Sequence[Record], pairs: Iterable[Sequence[str]]) -> None:
    """See that every factorial design of some conditions compares like with like.

    Raises
    ------
    StudyError
        As `four_conditions`.
    """
    places = dict.fromkeys((c["data_set"], c["model"]) for c in conditions)
    for pair in pairs:
        for data, model in places:
            four_conditions(conditions, pair, data, model)
