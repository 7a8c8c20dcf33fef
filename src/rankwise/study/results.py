"""``results.json``: everything a study measured, put together from the folders of its cells."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import finite, write_json
from rankwise._machine import environment
from rankwise._reading import read_json
from rankwise.data import ImageSet, repeats_between
from rankwise.errors import RunError
from rankwise.study.cells import Cell, read_result
from rankwise.study.conditions import Condition
from rankwise.study.convergence import convergence
from rankwise.study.cuts import test_part, training_part
from rankwise.study.design import Study
from rankwise.study.outcomes import primary_outcome
from rankwise.study.presets import PAPER_SIDES
from rankwise.study.protocols import most_folds, protocol_of
from rankwise.study.searched import searched_note
from rankwise.study.sketches import sketch
from rankwise.study.tables import report_tables

RESULTS = "results.json"
RECORD = "record.json"
FORMAT = 1
RULES = 1
"""Of verdicts: raised where the same cells may get another; older ones are made anew."""
_NEEDED = ("study", "conditions", "cells", "data_sets")


def describe_run(
    study: Study,
    conditions: Sequence[Condition],
    data_sets: Mapping[str, ImageSet],
    **choices: Any,
) -> dict[str, Any]:
    """What results hold beside cells: kept in ``record.json``, so that images aren't needed again.

    Parameters
    ----------
    study, conditions
    data_sets : dict of ImageSet
    **choices
        ``command``, ``started``, ``workers``, ``device``, ``look``, ``plan``, ``plan_written`` and
        ``seeds_after_plan``, as ``results.json`` has them.
    """
    described = [describe_data(study, name, data_sets[name], conditions) for name in data_sets]
    return {"environment": environment(), "data_sets": described, **choices}


def gather(
    study: Study,
    conditions: Sequence[Condition],
    cells: Sequence[Cell],
    record: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Read the done cells and compare the conditions; nothing is computed twice.

    Parameters
    ----------
    study, conditions, cells
    record : dict
        As `describe_run` gives it.
    out : Path
        The study's folder.

    Returns
    -------
    dict
        As ``results.json`` has it; cells that aren't done are left out, and then ``finished`` is
        None.
    """
    from rankwise.study.conclusions import conclusions

    found = {cell: read_result(out, cell) for cell in cells}
    done = [finite(result) for result in found.values() if result is not None]
    leaks = [
        {"condition": r["condition"], "seed": r["seed"], "fold": r["fold"], **r.pop("leaks")}
        for r in done
    ]
    parameters = {result["condition"]: result.pop("n_parameters") for result in done}
    results: dict[str, Any] = {
        "format": FORMAT,
        "rules": RULES,
        "study": study.to_json(),
        **record,
        "finished": timestamp() if len(done) == len(found) else None,
        "data_sets": [_counted(data, conditions, done) for data in record["data_sets"]],
        "devices": sorted({result["device"] for result in done if "device" in result}),
        "conditions": [
            condition.to_json() | {"n_parameters": parameters.get(condition.id)}
            for condition in conditions
        ],
        "cells": done,
        "leaks": leaks,
        "comparisons": [],
        "gallery": [],
    }
    results |= finite(conclusions(results, out))
    results["paired_starts"] = paired_starts(results)
    results["convergence"] = convergence(results, primary_outcome(study.protocol))
    results["tables"] = finite(report_tables(results))
    return results


def paired_starts(results: Mapping[str, Any]) -> bool | None:
    """Whether all arms of a data set, model and seed began with the same weights, by their digests.

    None where no network has told with what it began.
    """
    places = {c["id"]: (c["data_set"], c["model"]) for c in results["conditions"]}
    starts: dict[Any, set[str]] = {}
    for cell in results["cells"]:
        if cell.get("start"):
            starts.setdefault((*places[cell["condition"]], cell["seed"]), set()).add(cell["start"])
    return all(len(found) == 1 for found in starts.values()) if starts else None


def _counted(
    data: Mapping[str, Any], conditions: Sequence[Condition], done: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A data set's description with the sizes of its parts, as its done cells had them."""
    own = {c.id for c in conditions if c.data_set == data["name"]}
    any_cell = [r for r in done if r["condition"] in own]
    folds = [r for r in any_cell if r["stage"] == "fold"]
    return {
        **data,
        "n_train": _one_or_all(r["n_train"] for r in folds),
        "n_validation": _one_or_all(r["n_validation"] for r in folds),
        "n_test": _one_or_all(r["n_test"] for r in any_cell),
    }


def describe_data(
    study: Study,
    name: str,
    images: ImageSet,
    conditions: Sequence[Condition],
) -> dict[str, Any]:
    """What was read, and in what it falls short of the study in full."""
    own = {c.id for c in conditions if c.data_set == name}
    data = study.data[name]
    notes = []
    if data.limit is not None:
        notes.append(f"{len(images)} images, drawn by class; the source may have more")
    if study.epochs_factor != 1:
        notes.append(f"{study.epochs_factor:g} times the epochs")
    if any(c.published for c in conditions) and study.folds != 5:
        notes.append(f"{study.folds} folds, the paper has 5")
    height, width = images.image_shape[:2]
    side = PAPER_SIDES.get(name)
    if any(c.published and c.id in own for c in conditions) and {height, width} != {side}:
        notes.append(f"images of {height} × {width} pixels, the paper has {side} × {side}")
    reductions = list(notes)
    protocol = protocol_of(study.protocol)
    rest, test = training_part(study, images), test_part(study, images)
    if images.n_skipped:
        notes.append(f"{images.n_skipped} unreadable images left out")
    if protocol.by_source:
        notes.append(_sources_note(len(set(images.source_ids.tolist())), len(images)))
    if study.reserve:
        notes.append(f"{study.reserve:.0%} of the training part reserved for tuning")
    searched = searched_note(study, name, images)
    if searched is not None:
        notes.append(searched)
    if study.protocol == "notebook":
        notes.append("protocol 'notebook': leaks on purpose, its figures flatter")
    return {
        "name": name,
        "source": data.source,
        "image_shape": list(images.image_shape),
        "class_names": list(images.class_names),
        "n_images": len(images),
        "most_folds": most_folds(protocol, images.labels[rest], images.source_ids[rest]),
        "largest_class": float(np.bincount(images.labels).max() / len(images)),
        "repeats": asdict(repeats_between(images, rest, test)),
        "fingerprint": images.fingerprint,
        "marks": sketch(images.images),
        "reduced": bool(reductions),
        "reductions": reductions,
        "searched": searched,
        "notes": notes,
    }


def _sources_note(n_sources: int, n_images: int) -> str:
    if n_sources < n_images:
        return f"split by source id: {n_sources} sources"
    return (
        "every image counts as a source of its own; where several show one object, patient or "
        "slide, source_pattern finds it in their file names"
    )


def write_results(results: Mapping[str, Any], out: Path) -> Path:
    """Write ``results.json``, whole or not at all."""
    write_json(out / RESULTS, results)
    return out / RESULTS


def read_results(folder: Path | str) -> dict[str, Any]:
    """``results.json`` of a study's folder, checked as far as a report needs it.

    Raises
    ------
    RunError
        If it is absent, damaged, or of another format.
    """
    path = Path(folder) / RESULTS
    if not path.exists():
        raise RunError(f"{folder} has no results.json: run the study first (rankwise study run)")
    results = read_json(path, error=RunError, finite=True)
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        found = results.get("format") if isinstance(results, dict) else None
        raise RunError(f"{path} has format {found!r}; this version reads format {FORMAT}")
    lacking = [key for key in _NEEDED if key not in results]
    if lacking:
        raise RunError(f"{path} isn't a study's: it lacks {', '.join(lacking)}")
    return results


def timestamp() -> str:
    """Now, in ISO 8601, to the second, with the zone's offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _one_or_all(values: Any) -> int | list[int] | None:
    """One number where all folds agree, else all different ones, ascending."""
    distinct = sorted(set(values))
    if not distinct:
        return None
    return distinct[0] if len(distinct) == 1 else distinct
