"""How far a study is: read from its folder, without disturbing those who work on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise._claims import LOCK, locked
from rankwise._reading import blamed_on, read_json_object
from rankwise.errors import RunError
from rankwise.study.cells import FAILURE, RESULT, Cell, cells_of, read_result
from rankwise.study.cells import LOCK as CELL_LOCK
from rankwise.study.claim import STUDY, looks_of, read_claim, study_of
from rankwise.study.conditions import Condition, conditions_of
from rankwise.study.design import Study
from rankwise.study.results import RECORD, RESULTS, RULES, gather, read_results, write_results

MOST_CELLS = 1_000_000
"""Of a study; more of them come from a damaged file."""


def study_status(out: Path | str) -> dict[str, Any]:
    """Count the cells of a study's folder.

    Returns
    -------
    dict
        ``name``, ``protocol``, ``cells`` (how many), ``done``, ``running``, ``failed``, ``left``
        (neither done nor running), ``seconds`` (spent in done cells, as if one after another),
        ``seconds_left`` (an estimate of the same kind from cells of the same data set and model,
        scaled by their epochs; None before a first cell is done), ``complete`` (whether all
        are done and ``results.json`` is there), ``conditions`` (the counts of each) and
        ``failures``.

    Raises
    ------
    RunError
        If the folder holds no study.
    """
    out = Path(out)
    claim, study, conditions, cells = _plan(out)
    results = {cell: read_result(out, cell) for cell in cells}
    running = {
        cell for cell in cells if results[cell] is None and is_held(out / cell.place / CELL_LOCK)
    }
    failures = {
        cell.place: _failure(out / cell.place / FAILURE)
        for cell in cells
        if results[cell] is None and cell not in running and (out / cell.place / FAILURE).exists()
    }
    done = {cell: result for cell, result in results.items() if result is not None}
    waiting = [cell for cell in cells if cell not in done]
    return {
        "name": study.name,
        "protocol": study.protocol,
        "cells": len(cells),
        "done": len(done),
        "running": len(running),
        "failed": len(failures),
        "left": len(waiting) - len(running),
        "seconds": sum(result["seconds"] for result in done.values()),
        "seconds_left": _estimate(done, waiting),
        "started": claim.get("started"),
        "complete": not waiting and (out / RESULTS).exists(),
        "conditions": [
            {
                "id": condition.id,
                "cells": sum(cell.condition.id == condition.id for cell in cells),
                "done": sum(cell.condition.id == condition.id for cell in done),
                "running": sum(cell.condition.id == condition.id for cell in running),
            }
            for condition in conditions
        ],
        "failures": failures,
    }


def failures_of(out: Path | str) -> list[dict[str, Any]]:
    """Failed cells of a study's folder, by condition and reason.

    Returns
    -------
    list of dict
        ``condition``, ``cells`` (how many) and ``reason``; empty where the folder holds results
        alone.
    """
    out = Path(out)
    if not (out / RECORD).is_file():  # results alone, or those of a version that kept none
        return []
    *_, cells = _plan(out)
    counted = Counter(
        (cell.condition.id, _failure(out / cell.place / FAILURE))
        for cell in cells
        if (out / cell.place / FAILURE).exists()
        and not (out / cell.place / RESULT).exists()
        and not is_held(out / cell.place / CELL_LOCK)
    )
    return [
        {"condition": condition, "cells": number, "reason": reason}
        for (condition, reason), number in counted.items()
    ]


def extension_of(out: Path | str, results: dict[str, Any]) -> dict[str, Any] | None:
    """How far a study's extension is; None where none is under way.

    Parameters
    ----------
    out : path
        The study's folder.
    results : dict
        As `current_results` gives them: those of the seeds before it, until one of its cells is
        done.

    Returns
    -------
    dict or None
        ``seeds`` that it is to have, ``before`` (seeds that the results are of), ``done`` of
        ``cells``.
    """
    out = Path(out)
    if not (out / RECORD).is_file():  # results alone, or those of a version that kept none
        return None
    claim, study, _, cells = _plan(out)
    before, looks = len(results["study"]["seeds"]), looks_of(claim)
    if len(looks) < 2 or (results.get("finished") and before == len(study.seeds)):
        return None
    done = sum((out / cell.place / RESULT).is_file() for cell in cells)
    return {"seeds": len(study.seeds), "before": before, "done": done, "cells": len(cells)}


def _failure(path: Path) -> str:
    """Why a cell failed; a file that doesn't say it is no reason to say nothing else."""
    try:
        return str(read_json_object(path, error=RunError, needs=("error",))["error"])
    except RunError as error:
        return str(error)


def _plan(out: Path) -> tuple[dict[str, Any], Study, tuple[Condition, ...], list[Cell]]:
    """``study.json`` of a folder, and what it stands for."""
    claim = read_claim(out)
    study = study_of(out, claim)
    conditions = conditions_of(study)
    n_cells = len(conditions) * len(study.seeds) * (study.folds + 1)
    if n_cells > MOST_CELLS:
        raise RunError(f"{out / STUDY} is damaged: its study would have {n_cells} cells")
    return claim, study, conditions, cells_of(study, conditions)


def current_results(out: Path | str) -> dict[str, Any]:
    """``results.json`` of a folder, with the cells that were done since it was written.

    So that a study that runs, or was killed, has a report too: where cells are missing from the
    file, its verdicts are of other rules, or the file isn't there, it's put together and written
    anew. Safe beside a run, which has the last word.

    Raises
    ------
    RunError
        If the folder holds neither results nor a begun study, or they are damaged.
    """
    out = Path(out)
    if not (out / RECORD).is_file():
        # Results alone, or those of a version that kept no record.
        return read_results(out)
    with locked(out / LOCK, wait=True):
        _, study, conditions, cells = _plan(out)
        found = read_results(out) if (out / RESULTS).is_file() else None
        n_done = sum((out / cell.place / RESULT).is_file() for cell in cells)
        current = found is not None and found.get("rules") == RULES
        if found is not None and current and len(found["cells"]) >= n_done:
            return found
        record = _record(out / RECORD)
        with blamed_on(out / RECORD, RunError):
            results = gather(study, conditions, cells, record, out)
        results["gallery"] = found.get("gallery", []) if found else []
        write_results(results, out)
    return results


def _record(path: Path) -> dict[str, Any]:
    return read_json_object(
        path,
        error=RunError,
        hint="; the command that runs the study writes it anew",
        needs=("data_sets",),
    )


def is_held(lock: Path) -> bool:
    """Whether a process holds a cell's lock; held for a moment to find out."""
    if not lock.exists():
        return False
    with locked(lock) as mine:
        return not mine


def _estimate(done: dict[Cell, dict[str, Any]], waiting: Sequence[Cell]) -> float | None:
    """Seconds of the cells left, at the seconds an epoch of those most like them took."""
    if not done:
        return None

    def rate(cells: Sequence[Cell]) -> float | None:
        spent = [done[cell]["seconds"] / max(1, done[cell]["epochs"]) for cell in cells]
        return sum(spent) / len(spent) if spent else None

    total = 0.0
    for cell in waiting:
        own = cell.condition
        like = [
            [c for c in done if c.condition.id == own.id],
            [
                c
                for c in done
                if (c.condition.data_set, c.condition.model) == (own.data_set, own.model)
            ],
            list(done),
        ]
        found = next(value for value in map(rate, like) if value is not None)
        total += found * own.epochs
    return total
