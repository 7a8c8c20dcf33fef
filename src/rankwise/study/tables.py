"""The figures of a report's tables, computed of a study's cells: plain numbers, for JSON and HTML.

``results.json`` keeps them under ``tables``; the report's sections put the same rows into words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rankwise.study.compare import interval_of
from rankwise.study.outcomes import fold_scores, retrained

_Record = dict[str, Any]

LEAKS = (
    ("train_validation", "sources in training and validation"),
    ("train_test", "sources in training and test"),
    ("validation_test", "sources in validation and test"),
    ("copies_of_validation_in_train", "copies of validation images in training"),
    ("copies_of_test_in_train", "copies of test images in training"),
)
"""Counts of a cell's leak check, and what they count."""


def report_tables(results: _Record) -> _Record:
    """Every table of the report that isn't stored elsewhere in the results.

    Parameters
    ----------
    results : dict
        As in ``results.json``: ``study``, ``conditions``, ``cells``, ``leaks``. Not modified.

    Returns
    -------
    dict
        ``accuracies``, ``degraded``, ``leaks``, ``costs``, ``missing``: see the functions of
        these names. Rows name their condition by its id.
    """
    return {
        "accuracies": accuracies(results),
        "degraded": degraded(results),
        "leaks": leaks(results),
        "costs": costs(results),
        "missing": missing(results),
    }


def accuracies(results: _Record) -> list[_Record]:
    """A row a condition.

    ``mean`` and ``interval`` (the paper's; None with fewer than two folds) of the folds' best
    validation accuracies, ``folds``; ``best_epoch``, its mean over the folds; ``test``, the mean
    accuracy of ``n_tests`` re-trained models, and ``star``, the mean of their epochs; ``fold_test``
    and ``fold_test_deviation`` of the folds' models on the test part.
    """
    rows = []
    for condition in results["conditions"]:
        scores = list(fold_scores(results, condition["id"]).values())
        cells = retrained(results, condition["id"]).values()
        tests = [c["test_accuracy"] for c in cells if c.get("test_accuracy") is not None]
        on_test = list(fold_scores(results, condition["id"], "test").values())
        star = [len(c["history"]) for c in cells if c.get("history")]
        rows.append(
            {
                "condition": condition["id"],
                "interval": interval_of(results, condition["id"]),
                "mean": _mean(scores),
                "folds": len(scores),
                "best_epoch": _mean(
                    [c["best_epoch"] for c in _folds(results, condition) if c.get("best_epoch")]
                ),
                "test": _mean(tests),
                "n_tests": len(tests),
                "fold_test": _mean(on_test),
                "fold_test_deviation": float(np.std(on_test, ddof=1)) if len(on_test) > 1 else None,
                "star": _mean(star),
            }
        )
    return rows


def degraded(results: _Record) -> list[_Record]:
    """Mean accuracy on degraded test images, and what every arm gains on its baseline there.

    One entry for each data set and model: ``stage`` of its models (those of the folds or the
    re-trained ones, whichever are more) and ``rows``: ``clean``, ``kinds`` (the mean of the five
    severities), ``all``, ``mce`` (see `_corruption_error`), ``gain`` (points of accuracy as a
    fraction, model by model with the same seed and fold), ``gain_range``, ``n`` models.
    """
    found = []
    for name, conditions in by_data_and_model(results):
        stage, values = degraded_values(results, conditions)
        if values:
            kinds = degraded_kinds(results, conditions)
            rows = [_degraded_row(c, values, kinds) for c in conditions if c["id"] in values]
            found.append({"name": name, "stage": stage, "rows": rows})
    return found


Curves = dict[str, dict[tuple[int, int | None], np.ndarray]]
"""By condition and (seed, fold): ``(kinds, 6)``, clean and five severities."""


def kinds_of(measured: _Record) -> list[str]:
    """Names of the degradations that a cell was tested on."""
    return [kind for kind in measured if kind != "clean"]


def degraded_kinds(results: _Record, conditions: Sequence[_Record]) -> list[str]:
    """The same of the first cell of some conditions that was."""
    own = {c["id"] for c in conditions}
    cells = (c["degraded"] for c in _done(results) if c["condition"] in own and c.get("degraded"))
    return kinds_of(next(cells, {}))


def degraded_values(results: _Record, conditions: Sequence[_Record]) -> tuple[str, Curves]:
    """Accuracies on degraded images of the stage that has more models, and the stage."""
    own = {c["id"] for c in conditions}
    found: dict[str, Curves] = {"retrain": {}, "fold": {}}
    for cell in results["cells"]:
        if cell["condition"] in own and cell["status"] == "done" and cell.get("degraded"):
            measured = cell["degraded"]
            kinds = kinds_of(measured)
            values = np.array([[measured["clean"], *measured[kind]] for kind in kinds], float)
            of_condition = found[cell["stage"]].setdefault(cell["condition"], {})
            of_condition[cell["seed"], cell["fold"]] = values
    stage = max(found, key=lambda s: sum(len(models) for models in found[s].values()))
    return stage, found[stage]


def _degraded_row(condition: _Record, values: Curves, names: Sequence[str]) -> _Record:
    ours = values[condition["id"]]
    theirs = values.get(condition.get("baseline") or "", {})
    gains = [float((ours[k] - theirs[k])[:, 1:].mean()) for k in ours if k in theirs]
    stacked = np.stack(list(ours.values()))
    return {
        "condition": condition["id"],
        "clean": float(stacked[:, :, 0].mean()),
        "kinds": {kind: float(stacked[:, i, 1:].mean()) for i, kind in enumerate(names)},
        "all": float(stacked[:, :, 1:].mean()),
        "mce": _corruption_error(ours, theirs),
        "gain": _mean(gains),
        "gain_range": [min(gains), max(gains)] if gains else None,
        "n": len(ours),
    }


def _corruption_error(
    ours: dict[tuple[int, int | None], np.ndarray], theirs: dict[tuple[int, int | None], np.ndarray]
) -> float | None:
    """mCE: errors over severities as a share of the baseline's, mean over kinds of degradation.

    Hendrycks and Dietterich's divide by AlexNet's; here it is the study's own baseline.
    """
    shared = [key for key in ours if key in theirs]
    if not shared:
        return None
    errors, of_baseline = (
        1 - np.mean([models[key][:, 1:] for key in shared], axis=0) for models in (ours, theirs)
    )
    sums = of_baseline.sum(axis=1)
    return float(np.mean(errors.sum(axis=1)[sums > 0] / sums[sums > 0])) if sums.any() else None


def leaks(results: _Record) -> _Record:
    """Counts of shared sources and copies: ``rows`` summed over a condition's cells, ``total``.

    ``checked`` is the number of cells counted; a row's ``counts`` are named as in `LEAKS`.
    """
    rows, total = [], 0
    for condition in results["conditions"]:
        entries = [e for e in results.get("leaks", []) if e["condition"] == condition["id"]]
        counts = {key: sum(int(e[key]) for e in entries) for key, _ in LEAKS}
        total += sum(counts.values())
        rows.append({"condition": condition["id"], "cells": len(entries), "counts": counts})
    return {"rows": rows, "total": total, "checked": sum(row["cells"] for row in rows)}


def costs(results: _Record) -> _Record:
    """Parameters, images, updates and seconds: ``rows``, a condition each, and ``seconds``.

    Images, copies, updates and ``per_fold`` seconds are means over folds; ``seconds`` are those
    of all cells.
    """
    rows = []
    for condition in results["conditions"]:
        cells = [c for c in _done(results) if c["condition"] == condition["id"]]
        folds = _folds(results, condition)
        rows.append(
            {
                "condition": condition["id"],
                "cells": len(cells),
                "n_parameters": condition.get("n_parameters"),
                "n_train": _mean_of(folds, "n_train"),
                "n_copies": _mean_of(folds, "n_copies"),
                "n_updates": _mean_of(folds, "n_updates"),
                "per_fold": _mean_of(folds, "seconds"),
                "seconds": sum(c.get("seconds") or 0.0 for c in cells),
            }
        )
    return {"rows": rows, "seconds": sum(row["seconds"] for row in rows)}


def missing(results: _Record) -> _Record:
    """Cells that are planned but not done: ``rows`` of the conditions that lack some.

    A row counts its missing ``fold`` and ``retrain`` cells; ``done`` and ``planned`` count all.
    """
    study = results["study"]
    seeds, folds = len(study["seeds"]), int(study["folds"])
    stages = {"fold": seeds * folds, "retrain": seeds if study.get("retrain", True) else 0}
    rows, done = [], 0
    for condition in results["conditions"]:
        there = Counter(c["stage"] for c in _done(results) if c["condition"] == condition["id"])
        left = {stage: max(0, count - there[stage]) for stage, count in stages.items()}
        done += sum(there[stage] for stage in stages)
        if any(left.values()):
            rows.append({"condition": condition["id"], **left})
    planned = len(results["conditions"]) * sum(stages.values())
    return {"rows": rows, "done": done, "planned": planned}


def by_data_and_model(results: _Record) -> Iterator[tuple[str, list[_Record]]]:
    """Conditions of one data set and model, under their names."""
    groups: dict[str, list[_Record]] = {}
    for condition in results["conditions"]:
        groups.setdefault(f"{condition['data_set']}, {condition['model']}", []).append(condition)
    yield from groups.items()


def _done(results: _Record) -> Iterator[_Record]:
    return (c for c in results["cells"] if c["status"] == "done")


def _folds(results: _Record, condition: _Record) -> list[_Record]:
    own = condition["id"]
    return [c for c in _done(results) if c["condition"] == own and c["stage"] == "fold"]


def _mean_of(cells: Sequence[_Record], key: str) -> float | None:
    return _mean([c[key] for c in cells if c.get(key) is not None])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
