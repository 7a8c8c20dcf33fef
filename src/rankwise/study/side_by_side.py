"""Two studies side by side: what differs in their design, and what each found.

Both have verdicts of their own; this page gives none. Two intervals that overlap don't show that
two effects are alike, and that one study found an effect and the other didn't doesn't show that
they differ (Gelman and Stern, The American Statistician 60, 2006): so the difference of the effects
stands there with an interval of its own, where the studies share nothing that was drawn. Another
fingerprint doesn't show that: a limit or a size changes it, and the images are the same. It takes
another source, and marks of images that both results hold and of which none is in both.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rankwise import _page
from rankwise._reading import blamed_on
from rankwise.errors import RunError
from rankwise.study.outcomes import OUTCOMES
from rankwise.study.reading import with_defaults
from rankwise.study.results import RESULTS
from rankwise.study.sketches import OTHER, SAME, relation
from rankwise.study.spans import MOST, points, span
from rankwise.study.status import current_results

Record = dict[str, Any]

_ROOM = "rankwise.study/templates"
_LONGEST = 200
_NOT_DESIGN = ("name",)


def side_by_side(first: Path | str, second: Path | str) -> Record:
    """Compare the results of two studies.

    Parameters
    ----------
    first, second : path
        Folders of studies; unfinished ones are compared as far as they are.

    Returns
    -------
    dict
        ``names``; ``differences``, from each choice of the design that differs to both values,
        by its place (``data.digits.limit``); ``data``, from each data set of both to one of
        `rankwise.study.sketches.RELATIONS`; ``rows``, a comparison that either has in each
        (``data_set``, ``model``, ``arm``, ``baseline_arm``, ``outcome``, ``effects``,
        ``verdicts``, ``difference``, None but for other images); ``only``, what one of them has.

    Raises
    ------
    RunError
        If a folder holds no study, or a damaged one.
    """
    both = []
    for folder in (Path(first), Path(second)):
        with blamed_on(folder / RESULTS, RunError):
            results = current_results(folder)
            both.append(results | {"study": with_defaults(results["study"])})
    items = [_comparisons(results) for results in both]
    shared = [key for key in items[0] if key in items[1]]
    data = _relations(both)
    return {
        "names": [results["study"]["name"] for results in both],
        "differences": _differences(*(results["study"] for results in both)),
        "data": data,
        "rows": [_row(key, items[0][key], items[1][key], data.get(key[0])) for key in shared],
        "only": [
            [_label(key) for key in own if key not in other]
            for own, other in ((items[0], items[1]), (items[1], items[0]))
        ],
    }


Key = tuple[str, str, str, str, str]


def _comparisons(results: Record) -> dict[Key, Record]:
    found = {}
    for item in [*results.get("comparisons", []), *results.get("robustness", [])]:
        if item["effect"].get("mean") is None:
            continue  # nothing was measured: no test on degraded images was asked for, say
        outcome = item.get("outcome", "validation")
        key = (item["data_set"], item["model"], item["arm"], item["baseline_arm"], outcome)
        found[key] = item
    return found


def _relations(both: list[Record]) -> dict[str, str]:
    first, second = ({d["name"]: d for d in results["data_sets"]} for results in both)
    return {name: relation(first[name], second[name]) for name in first if name in second}


def _differences(first: Record, second: Record) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys((*first, *second)):
        if key not in _NOT_DESIGN:
            found |= _between(key, first.get(key), second.get(key))
    return found


def _between(place: str, first: Any, second: Any) -> dict[str, list[Any]]:
    """What differs between two values, by the place of each single choice."""
    if first == second:
        return {}
    one, other = _table(first), _table(second)
    if one is None or other is None:
        return {place: [first, second]}
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys((*one, *other)):
        found |= _between(f"{place}.{key}", one.get(key), other.get(key))
    return found or {place: [first, second]}


def _table(value: Any) -> Record | None:
    """A table of a study, or its list of conditions as one, by data set, model and arm."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        rows: Record = {}
        for row in value:
            name = "/".join(str(row.get(key)) for key in ("data", "model", "arm"))
            while name in rows:
                name += "'"
            rows[name] = row
        return rows
    return value if isinstance(value, dict) else None


def _row(key: Key, first: Record, second: Record, relation: str | None) -> Record:
    effects = [
        {name: item["effect"].get(name) for name in ("mean", "low", "high")}
        | {"pairs": item["pairs"], "rope": item["bayes"]["rope"]}
        for item in (first, second)
    ]
    return {
        **dict(zip(("data_set", "model", "arm", "baseline_arm", "outcome"), key, strict=True)),
        "effects": effects,
        "verdicts": [first["verdict"], second["verdict"]],
        "difference": _difference(first, second) if relation == OTHER else None,
        "same_images": relation == SAME,
    }


def _difference(first: Record, second: Record) -> Record | None:
    """Second less first, of studies on other images; Welch's interval."""
    from scipy import stats

    tests = [item["corrected_t"] for item in (first, second)]
    if any(not test["standard_error"] or not test["degrees_of_freedom"] for test in tests):
        return None
    variances = [test["standard_error"] ** 2 for test in tests]
    total = sum(variances)
    freedom = total**2 / sum(
        v**2 / test["degrees_of_freedom"] for v, test in zip(variances, tests, strict=True)
    )
    mean = second["effect"]["mean"] - first["effect"]["mean"]
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(total)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _label(key: Key) -> str:
    data, model, arm, baseline, outcome = key
    return f"{data}, {model}: {arm} against {baseline}, {OUTCOMES.get(outcome, outcome)}"


def lines_of(found: Record) -> list[str]:
    """The comparison in lines of text."""
    names = found["names"]
    lines = [f"A: {names[0]}", f"B: {names[1]}"]
    for key, (one, other) in found["differences"].items():
        lines.append(f"{key}: {_short(one)} in A, {_short(other)} in B")
    lines += [f"{name}: {relation}" for name, relation in found["data"].items()]
    for row in found["rows"]:
        lines.append("")
        lines.append(
            f"{row['data_set']}, {row['model']}: {row['arm']} against {row['baseline_arm']}, "
            f"{OUTCOMES.get(row['outcome'], row['outcome'])}"
        )
        for letter, effect, verdict in zip("AB", row["effects"], row["verdicts"], strict=True):
            lines.append(f"  {letter}: {_effect(effect)}; {verdict}; {effect['pairs']} pairs")
        if row["difference"] is not None:
            lines.append(f"  B less A: {_effect(row['difference'], 2 * MOST)}")
    for letter, labels in zip("AB", found["only"], strict=True):
        lines += [""] * bool(labels) + [f"only in {letter}: {label}" for label in labels]
    return lines


def _effect(effect: Record, most: float = MOST) -> str:
    """An effect with its interval, which ends at `most`: of two effects' difference, twice that."""
    if effect["low"] is None:
        mean = effect["mean"]
        return "no effect measured" if mean is None else f"{points(mean)} points, no interval"
    return f"{points(effect['mean'])} points ({span(effect['low'], effect['high'], most)})"


def _short(value: Any) -> str:
    """A choice in a line: a whole table is there or not, as a choice without a value is."""
    if value is None:
        return "not given"
    text = "given" if isinstance(value, dict) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def write_page(found: Record, path: Path | str) -> Path:
    """The comparison as one HTML file that opens offline, with a forest plot of both.

    Parameters
    ----------
    found : dict
        As `side_by_side` gives it.
    path : path
    """
    from rankwise.study.forest import ForestRow, forest
    from rankwise.study.verdict import MARKS

    plots: dict[str, list[ForestRow]] = {}
    for row in found["rows"]:
        title = OUTCOMES.get(row["outcome"], row["outcome"])
        for letter, effect, verdict in zip("AB", row["effects"], row["verdicts"], strict=True):
            if effect["low"] is None:
                continue
            plots.setdefault(title, []).append(
                ForestRow(
                    label=f"{letter}: {row['data_set']}, {row['arm']} – {row['baseline_arm']}",
                    mark=MARKS[verdict],
                    mean=effect["mean"],
                    low=effect["low"],
                    high=effect["high"],
                    outer=(effect["low"], effect["high"]),
                    rope=effect["rope"],
                    folds=(),
                )
            )
    html = _page.render(
        _ROOM,
        "two.html",
        filters={"effect": _effect, "short": _short},
        found=found,
        style=_page.markup(_page.shared("base.css"), _page.part(_ROOM, "report.css")),
        plots=[(title, _page.markup(forest(rows, title))) for title, rows in plots.items()],
        outcomes=OUTCOMES,
    )
    _page.write(Path(path), html)
    return Path(path)
