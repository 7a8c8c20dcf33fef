"""What the report's sections show: plain rows and ready charts, made of a study's results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from rankwise.study.compare import fold_scores, interval_of, retrained
from rankwise.study.degrade import KINDS, PARAMETERS, SEVERITIES
from rankwise.study.figures import Axes, Series, interval_strip, line_chart, swatch
from rankwise.study.verdict import VERDICTS

_Record = dict[str, Any]

_LEAKS = (
    ("train_validation", "sources in training and validation"),
    ("train_test", "sources in training and test"),
    ("validation_test", "sources in validation and test"),
    ("copies_of_validation_in_train", "copies of validation images in training"),
    ("copies_of_test_in_train", "copies of test images in training"),
)
_DEGRADATIONS = {
    "svd": ("Low-rank (SVD)", "energy"),
    "jpeg": ("JPEG", "quality"),
    "downscale": ("Down-scaling", "side"),
    "blur": ("Gaussian blur", "σ / side"),
    "noise": ("Gaussian noise", "σ / 255"),
}
_MARKS = {"helps": "▲", "harms": "▼", "no practical difference": "≈", "cannot tell": "?"}


def verdicts(results: _Record) -> _Record:
    """Verdict cards, their count in words, and whether the paper's rule says something else."""
    cards = []
    shown = [c for c in results["comparisons"] if c["effect"]["low"] is not None]
    ends = [abs(c["effect"][end]) for c in shown for end in ("low", "high", "mean")]
    reach = 1.08 * max([*ends, *(2 * c["bayes"]["rope"] for c in shown), 1e-4])
    for item in results["comparisons"]:
        effect, strip = item["effect"], None
        if effect["low"] is not None:
            label = f"{item['arm']} against {item['baseline_arm']}: {item['sentence']}"
            rope = item["bayes"]["rope"]
            drawn = interval_strip(
                effect["mean"], effect["low"], effect["high"], rope, reach, label
            )
            strip = Markup(drawn)
        cards.append(item | {"strip": strip, "mark": _MARKS[item["verdict"]], "rule": _rule(item)})
    counts = Counter(item["verdict"] for item in cards)
    return {
        "cards": cards,
        "counts": [(_MARKS[v], v, counts[v]) for v in VERDICTS if counts[v]],
        "rope": cards[0]["bayes"]["rope"] if cards else None,
        "groups": _grouped(cards),
    }


def uncompared(results: _Record) -> list[tuple[str, str]]:
    """Conditions that no baseline is there for, and the kind of arm that would be one."""
    return [
        (c["id"], "default" if c["arm_kind"].startswith("default+") else "none")
        for c in results["conditions"]
        if not c.get("baseline") and c["arm_kind"] != "none"
    ]


def _rule(item: _Record) -> str:
    """The paper's rule in words."""
    paper, published = item["paper"], item["published"]
    if paper is None:
        return "needs two finished folds"
    text = "rejects “no effect”" if paper["rejects"] else "retains “no effect”"
    if published is not None:
        same = published["rejects"] == paper["rejects"]
        text += ", as published" if same else ", unlike the published intervals"
    return text


def tables(results: _Record) -> list[_Record]:
    """One row for every condition: what the paper's tables have, published beside measured."""
    rows = []
    for condition in results["conditions"]:
        published = condition.get("published") or {}
        scores = list(fold_scores(results, condition["id"]).values())
        cells = retrained(results, condition["id"]).values()
        tests = [c["test_accuracy"] for c in cells if c.get("test_accuracy") is not None]
        star = [len(c["history"]) for c in cells if c.get("history")]
        rows.append(
            {
                "condition": condition,
                "published_interval": published.get("interval"),
                "published_test": published.get("test_accuracy"),
                "published_epochs": published.get("epochs"),
                "interval": interval_of(results, condition["id"]),
                "mean": float(np.mean(scores)) if scores else None,
                "folds": len(scores),
                "test": float(np.mean(tests)) if tests else None,
                "n_tests": len(tests),
                "star": float(np.mean(star)) if star else None,
            }
        )
    return rows


def curves(results: _Record) -> list[_Record]:
    """The paper's figure 4 for every condition; loss and accuracy share axes within a group."""
    groups = []
    for name, conditions in _by_data_and_model(results):
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
            best = _best_epoch(results, condition["id"])
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


def _best_epoch(results: _Record, condition: str) -> float | None:
    best = [
        cell["best_epoch"]
        for cell in results["cells"]
        if cell["condition"] == condition
        and cell["stage"] == "fold"
        and cell["status"] == "done"
        and cell.get("best_epoch")
    ]
    return float(np.mean(best)) if best else None


def degraded(results: _Record) -> list[_Record]:
    """Accuracy on degraded test images, and what every arm gains on its baseline there.

    The models are those of the folds or the re-trained ones, whichever are more.
    """
    groups = []
    for name, conditions in _by_data_and_model(results):
        stage, values = _degraded_values(results, conditions)
        shown = [(i, c) for i, c in enumerate(conditions) if c["id"] in values]
        if not shown:
            continue
        charts = []
        for index, kind in enumerate(KINDS):
            lines = [
                _degraded_line(label(c), _stack(values[c["id"]])[:, index], style)
                for style, c in shown
            ]
            title, unit = _DEGRADATIONS[kind]
            axes = Axes(
                f"{title} of {name}",
                "severity",
                "test accuracy",
                percent=True,
                x_ticks=((0, "clean"), *((s, str(s)) for s in SEVERITIES)),
            )
            parameters = " · ".join(f"{value:g}" for value in PARAMETERS[kind])
            svg = Markup(line_chart(lines, axes))
            charts.append({"title": title, "unit": unit, "parameters": parameters, "svg": svg})
        groups.append(
            {
                "name": name,
                "models": "models of the folds" if stage == "fold" else "re-trained models",
                "charts": charts,
                "legend": [(Markup(swatch(style)), label(c)) for style, c in shown],
                "rows": [_degraded_row(c, values) for _, c in shown],
            }
        )
    return groups


_Curves = dict[str, dict[tuple[int, int | None], np.ndarray]]


def _degraded_values(results: _Record, conditions: Sequence[_Record]) -> tuple[str, _Curves]:
    """By condition and (seed, fold): (kinds, clean and five severities)."""
    own = {c["id"] for c in conditions}
    found: dict[str, _Curves] = {"retrain": {}, "fold": {}}
    for cell in results["cells"]:
        if cell["condition"] in own and cell["status"] == "done" and cell.get("degraded"):
            measured = cell["degraded"]
            values = np.array([[measured["clean"], *measured[kind]] for kind in KINDS], float)
            of_condition = found[cell["stage"]].setdefault(cell["condition"], {})
            of_condition[cell["seed"], cell["fold"]] = values
    stage = max(found, key=lambda s: sum(len(models) for models in found[s].values()))
    return stage, found[stage]


def _stack(models: dict[tuple[int, int | None], np.ndarray]) -> np.ndarray:
    return np.stack(list(models.values()))


def _degraded_row(condition: _Record, values: _Curves) -> _Record:
    ours = values[condition["id"]]
    theirs = values.get(condition.get("baseline") or "", {})
    gains = [float((ours[k] - theirs[k])[:, 1:].mean()) for k in ours if k in theirs]
    stacked = _stack(ours)
    return {
        "condition": condition,
        "clean": float(stacked[:, :, 0].mean()),
        "kinds": [float(stacked[:, i, 1:].mean()) for i in range(len(KINDS))],
        "all": float(stacked[:, :, 1:].mean()),
        "gain": float(np.mean(gains)) if gains else None,
        "gain_range": (min(gains), max(gains)) if gains else None,
        "n": len(ours),
    }


def _degraded_line(label: str, values: np.ndarray, style: int) -> Series:
    x = np.arange(values.shape[-1])
    if len(values) == 1:
        return Series(label, x, values[0], style=style)
    return Series(label, x, values.mean(0), values.min(0), values.max(0), style)


def leak_check(results: _Record) -> _Record:
    """Counts of each condition, summed over its cells, and whether all are zero."""
    rows, total = [], 0
    for condition in results["conditions"]:
        entries = [e for e in results.get("leaks", []) if e["condition"] == condition["id"]]
        counts = [sum(int(e[key]) for e in entries) for key, _ in _LEAKS]
        total += sum(counts)
        rows.append({"condition": condition, "cells": len(entries), "counts": counts})
    checked = sum(row["cells"] for row in rows)
    return {
        "rows": rows,
        "heads": [text for _, text in _LEAKS],
        "total": total,
        "checked": checked,
        "clean": checked > 0 and total == 0,
    }


def costs(results: _Record) -> _Record:
    """Parameters, images, updates and seconds of every condition."""
    rows = []
    for condition in results["conditions"]:
        cells = [
            c
            for c in results["cells"]
            if c["condition"] == condition["id"] and c["status"] == "done"
        ]
        folds = [c for c in cells if c["stage"] == "fold"]
        rows.append(
            {
                "condition": condition,
                "cells": len(cells),
                "n_parameters": condition.get("n_parameters"),
                "n_train": _mean(folds, "n_train"),
                "n_copies": _mean(folds, "n_copies"),
                "n_updates": _mean(folds, "n_updates"),
                "per_fold": _mean(folds, "seconds"),
                "seconds": sum(c.get("seconds") or 0.0 for c in cells),
            }
        )
    return {"rows": rows, "seconds": sum(row["seconds"] for row in rows)}


def missing(results: _Record) -> _Record:
    """Cells that are planned but not done, by condition."""
    study = results["study"]
    seeds, folds = len(study["seeds"]), int(study["folds"])
    stages = {"fold": seeds * folds, "retrain": seeds if study.get("retrain", True) else 0}
    rows, done = [], 0
    for condition in results["conditions"]:
        there = Counter(
            c["stage"]
            for c in results["cells"]
            if c["condition"] == condition["id"] and c["status"] == "done"
        )
        left = {stage: max(0, count - there[stage]) for stage, count in stages.items()}
        done += sum(there[stage] for stage in stages)
        if any(left.values()):
            rows.append({"condition": condition, **left})
    return {
        "rows": rows,
        "done": done,
        "planned": len(results["conditions"]) * sum(stages.values()),
    }


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


def _by_data_and_model(results: _Record) -> Iterator[tuple[str, list[_Record]]]:
    groups: dict[str, list[_Record]] = {}
    for condition in results["conditions"]:
        groups.setdefault(f"{condition['data_set']}, {condition['model']}", []).append(condition)
    yield from groups.items()


def _grouped(cards: Sequence[_Record]) -> list[_Record]:
    groups: dict[str, list[_Record]] = {}
    for card in cards:
        groups.setdefault(f"{card['data_set']}, {card['model']}", []).append(card)
    return [{"name": name, "cards": found} for name, found in groups.items()]


def _mean(cells: Sequence[_Record], key: str) -> float | None:
    values = [c[key] for c in cells if c.get(key) is not None]
    return float(np.mean(values)) if values else None


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
