"""All recorded studies in one table: what each comparison found, on clean and degraded images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

KINDS = ("svd", "jpeg", "downscale", "blur", "noise")


def at_a_glance(studies: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]], str]:
    """Columns and rows of the table, and a sentence that counts the verdicts on low-rank copies.

    Parameters
    ----------
    studies : mapping
        From a study's name to its result file.
    """
    columns = ["study", "comparison", "effect, points (95%)", "verdict", *KINDS]
    rows, verdicts = [], Counter[str]()
    for name, result in studies.items():
        degraded = degraded_means(result)
        for item in result["data"]["comparisons"]:
            label, baseline = (f"{item[k]}, {item['model']}" for k in ("arm", "baseline_arm"))
            pair = [degraded.get(label), degraded.get(baseline)]
            gains = ["–"] * len(KINDS)
            if all(pair):
                gains = [_signed(pair[0][kind] - pair[1][kind]) for kind in KINDS]
            effect = item["effect"]
            low, high = (_signed(100 * effect[end]) for end in ("low", "high"))
            interval = f"{_signed(100 * effect['mean'])} ({low} to {high})"
            rows.append([name, f"{label} against {item['baseline_arm']}", interval])
            rows[-1] += [item["verdict"], *gains]
            if "low-rank" in item["arm"]:
                verdicts[item["verdict"]] += 1
    counted = ", ".join(f"{count} “{verdict}”" for verdict, count in verdicts.most_common())
    sentence = f"Of {verdicts.total()} comparisons of arms with low-rank copies: {counted}."
    return columns, rows, sentence


def degraded_means(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By arm and model: accuracy in per cent, mean of five severities, for each kind."""
    found = {}
    for table in result["tables"]:
        if table["title"].startswith("Degraded test images"):
            for row in table["rows"]:
                cells = dict(zip(table["columns"], row, strict=True))
                found[row[0]] = {kind: float(cells[kind]) for kind in KINDS}
    return found


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")
