"""The report of a study: one HTML file that opens offline, on a phone and on paper too.

Everything is in the file: style, the script that sorts tables, charts as SVG, pictures as data.
Text from the study is escaped (jinja2's autoescape); charts escape their own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rankwise import _page
from rankwise._files import finite
from rankwise._reading import blamed_on
from rankwise.errors import RunError
from rankwise.study import sections, spans, verdict_sections, wide_sections
from rankwise.study.conclusions import conclusions
from rankwise.study.exports import write_tables
from rankwise.study.leak_section import leak_check
from rankwise.study.methods import methods
from rankwise.study.references import REFERENCES
from rankwise.study.results import RESULTS
from rankwise.study.status import current_results, extension_of, failures_of

_ROOM = "rankwise.study/templates"

# What a study that was interrupted early may lack.
_ABSENT: dict[str, Any] = {
    "command": "",
    "environment": {},
    "started": None,
    "finished": None,
    "devices": [],
    "look": 1,
    "plan": None,
    "failures": [],
    "extension": None,
}


def write_report(folder: Path | str) -> Path:
    """Write ``report.html`` beside ``results.json``, and ``tables/`` for a paper.

    A study that runs, or was stopped, gets a report of its finished cells, which says what is
    missing; ``results.json`` is brought up to date with it.

    Parameters
    ----------
    folder : path
        Of the study.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    RunError
        If the folder holds no study, or a damaged one.
    """
    folder = Path(folder)
    with blamed_on(folder / RESULTS, RunError):
        results = _completed(current_results(folder), folder)
        # What changes without a cell being done isn't in results.json.
        results["failures"] = failures_of(folder)
        results["extension"] = extension_of(folder, results)
        html = render(results, folder)
        write_tables(results, folder / "tables")
    path = folder / "report.html"
    _page.write(path, html)
    return path


def render(results: dict[str, Any], folder: Path | str) -> str:
    """The report as HTML; pictures are read from `folder`.

    Comparisons that aren't in `results` are made here.
    """
    folder = Path(folder)
    results = _completed(results, folder)
    filters = {
        "percent": percent,
        "points": points,
        "span": span_of,
        "probability": probability,
        "seconds": seconds,
        "whole": whole,
        "interval": interval,
        "shares": shares,
        "counts": counts,
        "label": sections.label,
    }
    return _page.render(
        _ROOM,
        "report.html",
        filters=filters,
        results=results,
        study=results["study"],
        style=_page.markup(_page.shared("base.css"), _page.part(_ROOM, "report.css")),
        script=_page.markup(_page.part(_ROOM, "report.js")),
        verdicts=verdict_sections.verdicts(results),
        factors=wide_sections.factors(results),
        summaries=wide_sections.summaries(results),
        convergence=sections.convergence(results),
        methods=methods(results),
        references=REFERENCES,
        uncompared=sections.uncompared(results),
        tables=sections.tables(results),
        curves=sections.curves(results),
        curve_legend=sections.curve_legend(),
        gallery=gallery(results, folder),
        degraded=sections.degraded(results),
        leaks=leak_check(results),
        costs=sections.costs(results),
        missing=sections.missing(results),
        reductions=sections.reductions(results),
    )


def _completed(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Results with what a study that was interrupted early may lack."""
    results = _ABSENT | results
    if "comparisons" in results:
        return results
    return results | finite(conclusions(results, folder))


def gallery(results: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The gallery's pictures as data; one whose file is gone is named, with None."""
    found = []
    for item in results.get("gallery") or []:
        path = folder / item["file"]
        uri = None
        # A file elsewhere isn't the study's, whatever its results say.
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            uri = _page.data_uri(path.read_bytes(), "image/png")
        found.append(item | {"uri": uri})
    return found


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction in per cent, "–" for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def points(value: float | None) -> str:
    """A difference of fractions in points of per cent, "–" for None."""
    return "–" if value is None else spans.points(value)


def span_of(effect: dict[str, Any], which: str = "") -> str:
    """An interval of an effect in points, "–" where there is none.

    Parameters
    ----------
    effect : dict
        With ``low`` and ``high``.
    which : str
        Before these names, such as ``"simultaneous_"``.
    """
    low, high = effect.get(f"{which}low"), effect.get(f"{which}high")
    return "–" if low is None or high is None else spans.span(low, high)


def probability(value: float | None) -> str:
    """A probability or p-value to three digits."""
    if value is None or math.isnan(value):
        return "–"
    if value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """A duration: 4.2 s, 3 min 05 s, 2 h 03 min."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def whole(value: float | None) -> str:
    """A count with thin groups of thousands."""
    return "–" if value is None else f"{round(value):,}"


def interval(value: tuple[float, float] | list[float] | None) -> str:
    """An interval as the paper prints it."""
    return "–" if value is None else f"[{100 * value[0]:.2f}%, {100 * value[1]:.2f}%]"


def shares(values: list[float | None]) -> str:
    """Probabilities beside one another, in per cent."""
    if any(value is None for value in values):
        return "–"
    return " / ".join(f"{100 * value:.1f}" for value in values if value is not None)


def counts(value: int | list[int] | None) -> str:
    """One count, or the range where folds differ."""
    if isinstance(value, list) and value:
        low, high = min(value), max(value)
        return whole(low) if low == high else f"{whole(low)} to {whole(high)}"
    return whole(value if isinstance(value, int) else None)
