"""What the report's sections show: rows for tables and ready charts, made of a study's results.

Figures come from `rankwise.study.tables`, as ``results.json`` holds them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from rankwise.study import tables as plain
from rankwise.study.degrade import PARAMETERS, SEVERITIES
from rankwise.study.figures import Axes, Series, line_chart, swatch
from rankwise.study.tables import by_data_and_model, degraded_values

_Record = dict[str, Any]

_DEGRADATIONS = {
    "svd": ("Low-rank (SVD)", "energy"),
    "jpeg": ("JPEG", "quality"),
    "downscale": ("Down-scaling", "side"),
    "blur": ("Gaussian blur", "σ / side"),
    "noise": ("Gaussian noise", "σ / 255"),
}
_MOST_BESIDE = 5
_MOST_ALONE = 8
"""Kinds of degradation in a table with the means over all, and in one without."""


def convergence(results: _Record) -> tuple[list[_Record], list[_Record]]:
    """Conditions that weren't trained to the end, or are near chance.

    The first have no verdict; the second have, and are told to be what they are: a banner never
    takes out of the conclusions what the answer holds.
    """
    rows = [r for r in results.get("convergence", []) if r["unfinished"] or r["near_chance"]]
    judged = {
        item[name]
        for item in results.get("comparisons", [])
        if item["pairs"] and not item.get("obstacle")
        for name in ("condition", "baseline")
    }
    rows = _with_conditions(results, rows)
    return (
        [row for row in rows if row["condition"]["id"] not in judged],
        [row for row in rows if row["condition"]["id"] in judged],
    )


def uncompared(results: _Record) -> list[tuple[str, str]]:
    """Conditions that no baseline is there for, and the kind of arm that would be one."""
    return [
        (c["id"], "default" if c["arm_kind"].startswith("default+") else "none")
        for c in results["conditions"]
        if not c.get("baseline") and c["arm_kind"] != "none"
    ]


def tables(results: _Record) -> list[_Record]:
    """One row for every condition: what the paper's tables have, published beside measured."""
    rows = []
    for row in _with_conditions(results, plain.accuracies(results)):
        published = row["condition"].get("published") or {}
        rows.append(
            row
            | {
                "published_interval": published.get("interval"),
                "published_test": published.get("test_accuracy"),
                "published_epochs": published.get("epochs"),
            }
        )
    return rows


def _with_conditions(results: _Record, rows: Sequence[_Record]) -> list[_Record]:
    """Rows with the condition itself in place of its id."""
    known = {condition["id"]: condition for condition in results["conditions"]}
    return [row | {"condition": known[row["condition"]]} for row in rows]


def curves(results: _Record) -> list[_Record]:
    """The paper's figure 4 for every condition; loss and accuracy share axes within a group."""
    groups = []
    best_epochs = {r["condition"]: r["best_epoch"] for r in plain.accuracies(results)}
    for name, conditions in by_data_and_model(results):
        runs = {c["id"]: _histories(results, c["id"]) for c in conditions}
        drawn = {key: value for key, value in runs.items() if value}
        if not drawn:
            continue
        found = {
            key: {what: _two_lines(histories, what) for what in ("loss", "accuracy")}
            for key, histories in drawn.items()
        }
        ranges = {
            what: _robust_range([line for both in found.values() for line in both[what]])
            for what in ("loss", "accuracy")
        }
        panels = []
        for condition in conditions:
            if condition["id"] not in drawn:
                continue
            best = best_epochs[condition["id"]]
            charts = [
                _curve(condition, what, found[condition["id"]][what], y_range, best)
                for what, y_range in ranges.items()
                if found[condition["id"]][what] and y_range is not None
            ]
            if charts:
                n_folds = len(drawn[condition["id"]])
                panels.append(
                    {"condition": condition, "charts": charts, "folds": n_folds, "best": best}
                )
        if panels:
            groups.append({"name": name, "panels": panels})
    return groups


def _curve(
    condition: _Record,
    what: str,
    lines: Sequence[Series],
    y_range: tuple[float, float],
    best: float | None,
) -> Markup:
    axes = Axes(
        f"{condition['arm']} on {condition['data_set']}: {what}",
        "epoch",
        what,
        y_range=y_range,
        percent=what == "accuracy",
    )
    return Markup(line_chart(lines, axes, mark_x=best))


def curve_legend() -> list[tuple[Markup, str]]:
    """Legend of `curves`."""
    return [
        (Markup(swatch(0, band=True)), "training"),
        (Markup(swatch(1, band=True)), "validation"),
    ]


def _histories(results: _Record, condition: str) -> list[list[_Record]]:
    return [
        cell["history"]
        for cell in results["cells"]
        if cell["condition"] == condition
        and cell["stage"] == "fold"
        and cell["status"] == "done"
        and cell.get("history")
    ]


def _two_lines(histories: Sequence[list[_Record]], what: str) -> list[Series]:
    found = []
    for style, part in enumerate(("train", "validation")):
        key = f"{part}_{what}"
        epochs = min(len(h) for h in histories)
        if epochs < 2:
            continue  # one point is no curve
        values = np.array(
            [[_float(entry.get(key)) for entry in h[:epochs]] for h in histories], float
        )
        if not np.isfinite(values).any():
            continue
        mean = values.mean(axis=0)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(epochs)
        label = {"train": "training", "validation": "validation"}[part]
        found.append(
            Series(label, np.arange(1, epochs + 1), mean, mean - spread, mean + spread, style)
        )
    return found


def _robust_range(lines: Sequence[Series]) -> tuple[float, float] | None:
    """Range of all means; bands are cut there, since one diverged fold would flatten the rest."""
    values = np.concatenate([np.asarray(line.y, float) for line in lines] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    room = 0.08 * (high - low) or 0.01
    return low - room, high + room


def degraded(results: _Record) -> list[_Record]:
    """Accuracy on degraded test images, and what every arm gains on its baseline there.

    The models are those of the folds or the re-trained ones, whichever are more.
    """
    groups = []
    measured = {group["name"]: group for group in plain.degraded(results)}
    for name, conditions in by_data_and_model(results):
        stage, values = degraded_values(results, conditions)
        shown = [(i, c) for i, c in enumerate(conditions) if c["id"] in values]
        if not shown:
            continue
        charts = []
        for index, kind in enumerate(plain.degraded_kinds(results, conditions)):
            lines = [
                _degraded_line(label(c), _stack(values[c["id"]])[:, index], style)
                for style, c in shown
            ]
            title, unit = _degradation(kind)
            axes = Axes(
                f"{title} of {name}",
                "severity",
                "test accuracy",
                percent=True,
                x_ticks=((0, "clean"), *((s, str(s)) for s in SEVERITIES)),
            )
            parameters = " · ".join(f"{value:g}" for value in PARAMETERS.get(kind, ()))
            svg = Markup(line_chart(lines, axes))
            charts.append({"title": title, "unit": unit, "parameters": parameters, "svg": svg})
        groups.append(
            {
                "name": name,
                "models": "models of the folds" if stage == "fold" else "re-trained models",
                "charts": charts,
                "legend": [(Markup(swatch(style)), label(c)) for style, c in shown],
                "rows": _with_conditions(results, measured[name]["rows"]),
                "tables": _degraded_tables(plain.degraded_kinds(results, conditions)),
                "several_epochs": len({c["epochs"] for _, c in shown}) > 1,
            }
        )
    return groups


def _degraded_tables(kinds: Sequence[str]) -> list[_Record]:
    """Which columns stand in which table, so that none is wider than a page.

    A few kinds stand beside the means over all of them; more of them get tables of their own.
    """
    named = [(kind, _degradation(kind)[0]) for kind in kinds]
    whole = len(named) <= _MOST_BESIDE
    starts = range(0, len(named), _MOST_ALONE)
    parts = [named] if whole else [[], *(named[i : i + _MOST_ALONE] for i in starts)]
    return [
        {
            "kinds": [kind for kind, _ in part],
            "titles": [title for _, title in part],
            "whole": whole or not part,
        }
        for part in parts
    ]


def _degradation(kind: str) -> tuple[str, str]:
    """Title and unit of a kind of degradation."""
    named = (kind.replace("_", " ").capitalize(), "ImageNet-C’s parameters")
    return _DEGRADATIONS.get(kind, named)


def _stack(models: dict[tuple[int, int | None], np.ndarray]) -> np.ndarray:
    return np.stack(list(models.values()))


def _degraded_line(label: str, values: np.ndarray, style: int) -> Series:
    x = np.arange(values.shape[-1])
    if len(values) == 1:
        return Series(label, x, values[0], style=style)
    return Series(label, x, values.mean(0), values.min(0), values.max(0), style)


def costs(results: _Record) -> _Record:
    """Parameters, images, updates and seconds of every condition."""
    found = plain.costs(results)
    return found | {"rows": _with_conditions(results, found["rows"])}


def missing(results: _Record) -> _Record:
    """Cells that are planned but not done, by condition."""
    found = plain.missing(results)
    return found | {"rows": _with_conditions(results, found["rows"])}


def reductions(results: _Record) -> list[str]:
    """What makes this study smaller than the one it repeats, in words; empty if nothing does."""
    found = []
    for data in results["data_sets"]:
        if data.get("reduced"):
            # Results of earlier versions hold them among their notes.
            texts = data.get("reductions", data.get("notes"))
            found.append(f"{data['name']}: {'; '.join(texts or ['fewer images than there are'])}")
    return found


def label(condition: _Record) -> str:
    """An arm and its epochs, as legends name it."""
    epochs = condition["epochs"]
    return f"{condition['arm']}, {epochs} epoch{'s' if epochs > 1 else ''}"


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
