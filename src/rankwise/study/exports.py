"""A study's tables as files for a paper: CSV, LaTeX, the paragraph of methods, BibTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise._files import atomic_path
from rankwise.study import tables as plain
from rankwise.study.methods import methods
from rankwise.study.outcomes import OUTCOMES
from rankwise.study.references import REFERENCES
from rankwise.study.spans import MOST, held, most_of

_Record = dict[str, Any]
Table = tuple[list[str], list[list[str]]]
"""Heads and rows."""

_WORDS = {
    "data set", "model", "arm", "against", "arms", "effect of", "outcome", "verdict", "note",
}  # fmt: skip
"""Columns that LaTeX sets to the left."""


def comparison_table(results: _Record) -> Table:
    """Heads and rows of the main table: one row a comparison, of accuracy and of robustness."""
    heads = [
        "data set", "model", "arm", "against", "outcome", "pairs", "effect", "low", "high",
        "simultaneous low", "simultaneous high", "p", "p after Holm", "verdict",
    ]  # fmt: skip
    rows = []
    for item in [*results["comparisons"], *results.get("robustness", [])]:
        rows.append(
            [
                item["data_set"],
                item["model"],
                item["arm"],
                item["baseline_arm"],
                OUTCOMES.get(item.get("outcome", ""), "validation accuracy"),
                *_judged(item),
            ]
        )
    return heads, rows


def factor_table(results: _Record) -> Table:
    """One row a main effect or interaction."""
    heads = [
        "data set", "model", "arms", "effect of", "outcome", "pairs", "effect", "low", "high",
        "simultaneous low", "simultaneous high", "p", "p after Holm", "verdict",
    ]  # fmt: skip
    rows = []
    for item in results.get("factors") or ():
        both = " × ".join(item["pair"])
        rows.append(
            [
                item["data_set"],
                item["model"],
                both,
                "interaction" if item["effect_of"] == "interaction" else item["arm"],
                OUTCOMES.get(item["outcome"], item["outcome"]),
                *_judged(item),
            ]
        )
    return heads, rows


def _judged(item: _Record) -> list[str]:
    """Pairs, effect with its intervals, p, p after Holm and verdict of what was compared."""
    ends = ("mean", "low", "high", "simultaneous_low", "simultaneous_high")
    most = most_of(item.get("effect_of", ""))
    test = item["corrected_t"]
    return [
        str(item["pairs"]),
        *(_points(item["effect"].get(key), most) for key in ends),
        _plain(test["p_value"]),
        _plain(test["p_holm"]),
        item["verdict"],
    ]


def summary_table(results: _Record) -> Table:
    """Effects over data sets: a row for each data set, and one for their mean."""
    heads = ["model", "arm", "against", "outcome", "data set", "effect", "low", "high", "p",
             "deviation between data sets"]  # fmt: skip
    rows = []
    for entry in (results.get("summaries") or {}).get("effects", ()):
        name = [entry["model"], entry["arm"], entry["baseline_arm"]]
        name.append(OUTCOMES.get(entry["outcome"], entry["outcome"]))
        for one in entry["rows"]:
            effect = [_points(one[key]) for key in ("mean", "low", "high")]
            rows.append([*name, one["data_set"], *effect, "", ""])
        effect = [_points(entry[key]) for key in ("mean", "low", "high")]
        between = "" if entry["between"] is None else f"{100 * entry['between']:.3f}"
        rows.append([*name, "mean", *effect, _plain(entry["p_value"]), between])
    return heads, rows


def rank_table(results: _Record) -> Table:
    """Mean ranks of arms over data sets."""
    heads = ["model", "arm", "mean rank", "data sets", "critical difference", "p of Friedman"]
    rows = [
        [
            entry["model"],
            arm,
            f"{rank:.3f}",
            str(entry["n"]),
            f"{entry['critical_difference']:.3f}",
            _plain(entry["p_value"]),
        ]
        for entry in (results.get("summaries") or {}).get("ranks", ())
        for arm, rank in zip(entry["arms"], entry["mean_ranks"], strict=True)
    ]
    return heads, rows


def accuracy_table(results: _Record) -> Table:
    """Accuracies of every condition, per cent."""
    heads = ["data set", "model", "arm", "epochs", "folds", "test", "deviation", "best validation",
             "test of the re-trained"]  # fmt: skip
    known = {c["id"]: c for c in results["conditions"]}
    rows = []
    for row in plain.accuracies(results):
        c = known[row["condition"]]
        rows.append([c["data_set"], c["model"], c["arm"], str(c["epochs"]), str(row["folds"])])
        keys = ("fold_test", "fold_test_deviation", "mean", "test")
        rows[-1] += [_percent(row[key]) for key in keys]
    return heads, rows


def degraded_table(results: _Record) -> Table:
    """Accuracies on degraded test images, per cent, and mCE, per cent of the baseline's."""
    kinds = plain.degraded_kinds(results, results["conditions"])
    heads = ["data set", "model", "arm", "models", "clean", *kinds, "all degraded", "mCE", "gain"]
    known = {c["id"]: c for c in results["conditions"]}
    rows = []
    for group in plain.degraded(results):
        for row in group["rows"]:
            c = known[row["condition"]]
            values = [row["clean"], *(row["kinds"].get(kind) for kind in kinds), row["all"]]
            rows.append([c["data_set"], c["model"], c["arm"], str(row["n"])])
            rows[-1] += [*map(_percent, values), _percent(row["mce"]), _points(row["gain"])]
    return heads, rows


def write_tables(results: _Record, folder: Path) -> list[Path]:
    """Write every table as CSV and LaTeX, ``methods.txt`` and ``references.bib``.

    ``comparisons`` are there always; ``factors``, ``summaries``, ``ranks``, ``accuracies`` and
    ``degraded`` where the study has any.

    Parameters
    ----------
    results : dict
        As in ``results.json``.
    folder : Path
        Made where it isn't there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "comparisons": comparison_table(results),
        "factors": factor_table(results),
        "summaries": summary_table(results),
        "ranks": rank_table(results),
        "accuracies": accuracy_table(results),
        "degraded": degraded_table(results),
    }
    texts = {}
    for name, (heads, rows) in tables.items():
        if rows or name == "comparisons":
            texts[f"{name}.csv"] = _csv(heads, rows)
            texts[f"{name}.tex"] = _latex(heads, rows)
    texts |= {"methods.txt": methods(results) + "\n", "references.bib": REFERENCES}
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _csv(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([heads, *([_cell(value) for value in row] for row in rows)])
    return text.getvalue()


def _cell(value: str) -> str:
    """A name that a spreadsheet would take for a formula gets a quote before it."""
    number = value.lstrip("+-").replace(".", "", 1).isdigit()
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") and not number else value


_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
}


def _latex(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(values: Sequence[str]) -> str:
        cells = ("".join(_ESCAPES.get(sign, sign) for sign in value) for value in values)
        return " & ".join(cells) + r" \\"

    columns = "".join("l" if head in _WORDS else "r" for head in heads)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            line(heads),
            r"\hline",
            *(line(row) for row in rows),
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _points(value: float | None, most: float = MOST) -> str:
    """A difference in points, held to what is possible."""
    return "" if value is None else f"{100 * held(value, most):+.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
