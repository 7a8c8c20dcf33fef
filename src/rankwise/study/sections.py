"""What the report's sections show: rows for tables and ready charts, made of a study's results.

Figures come from `rankwise.study.tables`, as ``results.json`` holds them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from rankwise.study import tables as plain
from rankwise.study.degrade import PARAMETERS, SEVERITIES
from rankwise.study.figures import Axes, Series, line_chart, swatch
from rankwise.study.forest import ForestRow, forest
from rankwise.study.tables import by_data_and_model, degraded_values
from rankwise.study.verdict import MARKS, VERDICTS

_Record = dict[str, Any]

_DEGRADATIONS = {
    "svd": ("Low-rank (SVD)", "energy"),
    "jpeg": ("JPEG", "quality"),
    "downscale": ("Down-scaling", "side"),
    "blur": ("Gaussian blur", "σ / side"),
    "noise": ("Gaussian noise", "σ / 255"),
}


def verdicts(results: _Record) -> _Record:
    """Verdicts by data set and model: forest plots of accuracy and robustness, and sentences."""
    cards = [
        item | {"mark": MARKS[item["verdict"]], "rule": _rule(item)}
        for item in results["comparisons"]
    ]
    counts = Counter(item["verdict"] for item in cards)
    robust = results.get("robustness", [])
    plots = [
        {"title": title, "svg": Markup(forest(rows, title))}
        for title, rows in (
            ("Effect on accuracy", _forest_rows(results["comparisons"])),
            ("Effect on degraded test images", _forest_rows(robust)),
        )
        if rows
    ]
    return {
        "cards": cards,
        "counts": [(MARKS[v], v, counts[v]) for v in VERDICTS if counts[v]],
        "plots": plots,
        "robust": [
            item | {"mark": MARKS[item["verdict"]]}
            for item in robust
            if item["pairs"] >= 2 and not item.get("obstacle")
        ],
        "groups": _grouped(cards),
        "answer": answer(results),
    }


def _forest_rows(items: Sequence[_Record]) -> list[ForestRow]:
    several = len({(item["data_set"], item["model"]) for item in items}) > 1
    rows = []
    for item in items:
        effect = item["effect"]
        if effect["low"] is None:
            continue
        where = f"{_place(item, items)}: " if several else ""
        rows.append(
            ForestRow(
                label=f"{where}{item['arm']} – {item['baseline_arm']}",
                mark=MARKS[item["verdict"]],
                mean=effect["mean"],
                low=effect["low"],
                high=effect["high"],
                outer=(
                    effect.get("simultaneous_low", effect["low"]),
                    effect.get("simultaneous_high", effect["high"]),
                ),
                rope=item["bayes"]["rope"],
                folds=item.get("differences", ()),
            )
        )
    return rows


def answer(results: _Record) -> str:
    """The study in one line: what was found against no augmentation, and on how much.

    Arms that are there for the others' sake, as unchanged copies are, don't stand in it.
    """
    every = [c for c in results["comparisons"] if c["role"] == "baseline"]
    if not every:
        return "Nothing to compare: no condition has a baseline."
    controls = {c.get("control") for c in results["conditions"]}
    main = [c for c in every if c["condition"] not in controls] or every
    size = f"{main[0]['folds']} folds, {_counted(main[0]['seeds'], 'seed')}"
    if all(c.get("obstacle") for c in main):
        return f"Nothing can be concluded: the arms weren't trained long enough ({size})."
    said: list[str] = []
    for found in VERDICTS:
        arms = _arms_of(main, found)
        if arms:
            words = _ANSWERS[found]
            said.append(f"{words if not said else words[0].lower() + words[1:]}: {arms}")
    pairs = max(c["pairs"] for c in main)
    return f"{'; '.join(said)} ({size}, {pairs} pairs)."


def _arms_of(main: Sequence[_Record], found: str) -> str:
    """Arms of a verdict, with their data sets where others of the same arm have another."""
    places: dict[str, list[str]] = {}
    for item in main:
        if item["verdict"] == found:
            places.setdefault(item["arm"], []).append(_place(item, main))
    every = {arm: [_place(c, main) for c in main if c["arm"] == arm] for arm in places}
    return ", ".join(
        arm if where == every[arm] else f"{arm} on {' and '.join(where)}"
        for arm, where in places.items()
    )


def _place(item: _Record, items: Sequence[_Record]) -> str:
    """A comparison's data set, with its model where there are several."""
    several = len({c["model"] for c in items}) > 1
    return f"{item['data_set']}, {item['model']}" if several else item["data_set"]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_ANSWERS = {
    "helps": "Helps",
    "harms": "Harms",
    "copies help": "Helps no more than unchanged copies may",
    "copies harm": "Harms no more than unchanged copies may",
    "no practical difference": "No practical difference",
    "cannot tell": "Cannot tell",
}


def convergence(results: _Record) -> list[_Record]:
    """Conditions that weren't trained to the end, or are near chance."""
    rows = [r for r in results.get("convergence", []) if r["unfinished"] or r["near_chance"]]
    return _with_conditions(results, rows)


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
            title, unit = _DEGRADATIONS.get(
                kind, (kind.replace("_", " ").capitalize(), "ImageNet-C’s parameters")
            )
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
            }
        )
    return groups


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


def _grouped(cards: Sequence[_Record]) -> list[_Record]:
    """Comparisons by data set and model; those that weren't trained long enough in one sentence."""
    groups: dict[str, list[_Record]] = {}
    for card in cards:
        groups.setdefault(f"{card['data_set']}, {card['model']}", []).append(card)
    return [
        {
            "name": name,
            "cards": [card for card in found if not card.get("obstacle")],
            "untold": [
                f"{card['arm']} against {card['baseline_arm']}"
                for card in found
                if card.get("obstacle")
            ],
        }
        for name, found in groups.items()
    ]


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
