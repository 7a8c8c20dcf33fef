"""The report's verdicts: one line of answer, forest plots, and every comparison in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from rankwise.study.forest import ForestRow, forest
from rankwise.study.outcomes import OUTCOMES
from rankwise.study.verdict import MARKS, VERDICTS
from rankwise.study.wide_sections import effect_name

_Record = dict[str, Any]

_FEW = 4
"""Comparisons that are shown in words at once; more of them are folded away."""


def verdicts(results: _Record) -> _Record:
    """Counts of verdicts, forest plots of accuracy and robustness, and a row a comparison."""
    compared, robust = results["comparisons"], results.get("robustness", [])
    cards = [item | {"mark": MARKS[item["verdict"]], "rule": _rule(item)} for item in compared]
    counts = Counter(item["verdict"] for item in cards)
    plots = [
        {"title": title, "svg": Markup(forest(rows, title))}
        for title, rows in (
            ("Effect on accuracy", _forest_rows(compared)),
            ("Effect on degraded test images", _forest_rows(robust)),
        )
        if rows
    ]
    rows = _in_words(cards, robust, results.get("failures", ()))
    return {
        "cards": cards,
        "counts": [(MARKS[v], v, counts[v]) for v in VERDICTS if counts[v]],
        "plots": plots,
        "rows": rows,
        "looks": looks(results),
        "any_robust": any(row["robust"] for row in rows),
        "open": len(rows) <= _FEW,
        "answer": answer(results),
    }


def looks(results: _Record) -> list[_Record]:
    """What each look told of each comparison, where a study was extended; else nothing."""
    items = [
        *results["comparisons"],
        *results.get("robustness", ()),
        *results.get("factors", ()),
    ]
    return [
        {
            "name": _name(item),
            "place": f"{item['data_set']}, {item['model']}",
            "outcome": OUTCOMES[item["outcome"]],
            "looks": [
                look | {"mark": MARKS[look.get("plain_verdict", look["verdict"])]}
                for look in item["looks"]
            ],
        }
        for item in items
        if item["pairs"] and len(item.get("looks") or ()) > 1
    ]


def _name(item: _Record) -> str:
    return effect_name(item) if "effect_of" in item else f"{item['arm']} – {item['baseline_arm']}"


def _in_words(
    cards: Sequence[_Record], robust: Sequence[_Record], failures: Sequence[_Record]
) -> list[_Record]:
    """A row a comparison: its verdicts on accuracy and on degraded images, with their reasons."""
    other = {
        (item["condition"], item["baseline"]): item | {"mark": MARKS[item["verdict"]]}
        for item in robust
        if item["pairs"]
    }
    rows = []
    for card in cards:
        beside = other.get((card["condition"], card["baseline"]))
        rows.append(
            {
                "name": f"{card['arm']} – {card['baseline_arm']}",
                "place": f"{card['data_set']}, {card['model']}",
                "accuracy": card | {"text": _text(card, failures)},
                "robust": beside and beside | {"text": _text(beside, failures)},
            }
        )
    return rows


def _text(item: _Record, failures: Sequence[_Record]) -> str:
    """A comparison's sentence, or the obstacle or failure that it has instead."""
    obstacle = item.get("obstacle")
    if item["pairs"]:
        if obstacle:
            return f"{obstacle[0].upper()}{obstacle[1:]}."
        return str(item["sentence"])
    reasons = [
        f["reason"] for f in failures if f["condition"] in (item["condition"], item["baseline"])
    ]
    if not reasons:
        return str(item["sentence"])
    return f"Not compared: cells failed ({'; '.join(dict.fromkeys(reasons))})."


def _forest_rows(items: Sequence[_Record]) -> list[ForestRow]:
    several = _several(items)
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
    begun = [c for c in main if c["pairs"]]
    size = f"{main[0]['folds']} folds, {_counted(main[0]['seeds'], 'seed')}"
    waiting = _waiting([c for c in main if not c["pairs"]], results.get("failures", ()))
    if not begun:
        return f"Nothing can be said yet ({size}). {waiting}"
    if all(c.get("obstacle") for c in begun):
        found = f"Nothing can be concluded: the arms weren't trained long enough ({size})."
        return f"{found} {waiting}".strip()
    said: list[str] = []
    for verdict in VERDICTS:
        arms = _arms_of(begun, verdict)
        if arms:
            words = _ANSWERS[verdict]
            said.append(f"{words if not said else words[0].lower() + words[1:]}: {arms}")
    said += _opposed(begun, results.get("robustness", ()))
    pairs = sorted({c["pairs"] for c in begun})
    most = _counted(pairs[-1], "pair")
    counted = most if len(pairs) == 1 else f"{pairs[0]} to {most}"
    return f"{'; '.join(said)} ({size}, {counted}). {waiting}".strip()


def _opposed(main: Sequence[_Record], robust: Sequence[_Record]) -> list[str]:
    """Arms that do the opposite on degraded test images, in words."""
    found = {(c["condition"], c["baseline"]): c["verdict"] for c in main}
    said = []
    for verdict, against in (("harms", "help"), ("helps", "harm")):
        own = [c for c in robust if (c["condition"], c["baseline"]) in found]
        turned = [
            c
            | {
                "verdict": verdict
                if c["pairs"]
                and c["verdict"] in (verdict, f"copies {verdict[:-1]}")
                and found[c["condition"], c["baseline"]] in (f"{against}s", f"copies {against}")
                else None
            }
            for c in own
        ]
        arms = _arms_of(turned, verdict)
        if arms:
            said.append(f"but on degraded test images {verdict}: {arms}")
    return said


def _waiting(items: Sequence[_Record], failures: Sequence[_Record]) -> str:
    """Arms that no pair of folds is finished of, and whether that is because they failed."""
    broken = {failure["condition"] for failure in failures}
    failed: list[str] = []
    other: list[str] = []
    for item in items:
        name = f"{item['arm']} on {_place(item, items)}" if _several(items) else item["arm"]
        (failed if {item["condition"], item["baseline"]} & broken else other).append(name)
    said = []
    if failed:
        said.append(f"Not compared, as cells failed: {', '.join(failed)}.")
    if other:
        said.append(f"No pair of folds is finished yet: {', '.join(other)}.")
    return " ".join(said)


def _several(items: Sequence[_Record]) -> bool:
    return len({(item["data_set"], item["model"]) for item in items}) > 1


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
