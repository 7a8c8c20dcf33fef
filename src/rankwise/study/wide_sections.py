"""The report's sections on more than two arms or one data set: factors, effects, ranks."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from rankwise.study.forest import ForestRow, forest
from rankwise.study.ranks_figure import rank_diagram
from rankwise.study.spans import most_of
from rankwise.study.verdict import MARKS

Record = dict[str, Any]


def factors(results: Record) -> Record | None:
    """Main effects and interactions of factorial designs; None without one."""
    items = results.get("factors") or []
    if not items:
        return None
    several = len({(item["data_set"], item["model"]) for item in items}) > 1
    plots: list[Record] = []
    sentences: list[str] = []
    for outcome, title in (
        ("accuracy", "Main effects and interactions, accuracy"),
        ("degraded", "Main effects and interactions, degraded test images"),
    ):
        own = [item for item in items if (item["outcome"] == "degraded") == (outcome == "degraded")]
        rows = [
            ForestRow(
                label=f"{item['data_set']}, {item['model']}: " * several + effect_name(item),
                mark=MARKS[item["plain_verdict"]],
                mean=item["effect"]["mean"],
                low=item["effect"]["low"],
                high=item["effect"]["high"],
                outer=(item["effect"]["simultaneous_low"], item["effect"]["simultaneous_high"]),
                rope=item["bayes"]["rope"],
                folds=item["differences"],
                most=most_of(item["effect_of"]),
            )
            for item in own
            if item["effect"]["low"] is not None
        ]
        if rows:
            plots.append({"title": title, "svg": Markup(forest(rows, title))})
            sentences += [item["sentence"] for item in own]
    return {"plots": plots, "sentences": sentences or [item["sentence"] for item in items]}


def effect_name(item: Record) -> str:
    """A main effect or an interaction by its arms."""
    if item["effect_of"] == "interaction":
        return f"{item['pair'][0]} × {item['pair'][1]}"
    return f"{item['arm']}, main effect"


def summaries(results: Record) -> Record | None:
    """Effects over data sets as forest plots, ranks of arms, and why there are none.

    None for one data set.
    """
    found = results.get("summaries") or {}
    effects = [_summary(entry) for entry in found.get("effects", ())]
    ranks = [
        entry
        | {
            "title": f"Arms of {entry['model']}, ranked over {entry['n']} data sets",
            "svg": Markup(
                rank_diagram(
                    entry["arms"],
                    entry["mean_ranks"],
                    entry["critical_difference"],
                    entry["groups"],
                    f"Arms of {entry['model']}, ranked",
                )
            ),
        }
        for entry in found.get("ranks", ())
    ]
    parts = {"effects": effects, "ranks": ranks, "notes": list(found.get("notes", ()))}
    return parts if any(parts.values()) else None


def _summary(entry: Record) -> Record:
    title = f"{entry['arm']} – {entry['baseline_arm']}, {entry['model']}"
    rows = [
        ForestRow(
            label=row["data_set"],
            mark="",
            mean=row["mean"],
            low=row["low"],
            high=row["high"],
            outer=(row["low"], row["high"]),
            rope=row["rope"],
            folds=row["seeds"],
        )
        for row in entry["rows"]
    ]
    predicted = entry["predicted"]
    outer = (entry["low"], entry["high"]) if None in predicted else tuple(predicted)
    rows.append(
        ForestRow(
            label="mean over data sets",
            mark="◆",
            mean=entry["mean"],
            low=entry["low"],
            high=entry["high"],
            outer=outer,
            rope=0.0,
            folds=(),
        )
    )
    return entry | {"title": title, "svg": Markup(forest(rows, title))}
