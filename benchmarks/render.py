"""Write ``docs/results.md``, and the results in the README, from ``benchmarks/results/*.json``.

No number is typed by hand.

A section appears where its file exists. A file has ``title``, ``provenance``, ``notes`` and
``tables`` as `common.write_result` makes them, so a new benchmark needs no line here; known ones
are put in order by `SECTIONS`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from provenance import is_uncommitted, list_stale, staleness
from rankwise._files import atomic_path
from render_readme import STALE, markdown, readme_lines
from render_studies import (
    WHY_WITHDRAWN,
    at_a_glance,
    conclusion,
    is_withdrawn,
    marked,
    rows_of_the_paper,
    speaking,
    without_verdicts,
)

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "images"
SECTIONS = {
    "Quadratic units and variable projection": (
        "presets",
        "ablation",
        "solver_race",
        "damping",
        "scaling",
        "rivals",
        "cifar10",
    ),
    "Past the paper": (
        "default_model",
        "frontier*",
        "airbench",
        "recipe*",
        "epoch_choice",
        "accurate",
        "choices",
        "joint_race",
        "curve*",
    ),
    "Low-rank reconstruction": ("lowrank_*",),
    "Studies": ("study_mnist_*", "study_leak_*", "study_*", "study_costs", "inference_simulation"),
    "Networks and the last layer": (
        "training_overhead",
        "probes*",
        "expansion",
        "head_scale",
        "head_grid",
        "pretrain_backbone",
        "head",
        "head_memory",
        "projected_loss",
        "wrong_labels",
        "explore",
    ),
    "Others": ("*",),
}
MARKS = (
    "<!-- results: written by benchmarks/render.py -->",
    "<!-- end of results -->",
)
STUDY_MARKS = (
    "<!-- studies: written by benchmarks/render.py -->",
    "<!-- end of studies -->",
)
HEAD = """# Results

Measured, not quoted. Every table was written by `benchmarks/render.py` from
`benchmarks/results/*.json`. `make results` measures most of them again, the command above a table
that table.
"""


def main() -> None:
    """Render."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "results.md")
    parser.add_argument("--readme", type=Path, help="default: README.md, unless --results is given")
    parser.add_argument("--stale", action="store_true", help="write nothing, list what is stale")
    args = parser.parse_args()
    if args.stale:
        lines = list(list_stale(args.results))
        print(*lines, sep="\n")
        return
    # Trial results rendered elsewhere must not end up in the README.
    if args.readme is None and args.results == HERE / "results":
        args.readme = HERE.parent / "README.md"
    with atomic_path(args.out) as temporary:
        temporary.write_text("\n".join(render(args.results)), encoding="utf-8")
    print(args.out)
    presets = args.results / "presets.json"
    if presets.exists() and args.readme is not None and args.readme.exists():
        text = with_results(args.readme.read_text(encoding="utf-8"), readme_lines(args.results))
        text = with_results(text, study_lines(args.results), STUDY_MARKS)
        with atomic_path(args.readme) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(args.readme)


def with_results(readme: str, lines: Sequence[str], marks: Sequence[str] = MARKS) -> str:
    """The README with the lines between its two marks."""
    before, rest = readme.split(marks[0])
    _, after = rest.split(marks[1])
    return "\n".join([before + marks[0], *lines, marks[1] + after])


def study_lines(results: Path) -> list[str]:
    """What the recorded studies say of low-rank copies, and whether it's stale."""
    paths = {path.stem: path for path in sorted(results.glob("study_*.json"))}
    studies = shown_studies(studies_among(paths))
    return ["", *(f"  - {sentence}" for sentence in [*conclusion(studies), *old(studies)]), ""]


def old(studies: Mapping[str, dict[str, Any]]) -> list[str]:
    """A sentence on those of the studies that speak which are stale; none if none is."""
    heard = speaking(studies)
    stale = [name for name, result in heard.items() if staleness(result["provenance"])]
    return marked(list(heard), stale, STALE)


def render(folder: Path) -> Iterable[str]:
    """Lines of the page."""
    yield HEAD
    left = {path.stem: path for path in sorted(folder.glob("*.json"))}
    for heading, patterns in SECTIONS.items():
        names = [n for pattern in patterns for n in list(left) if Path(n).match(pattern)]
        if not names:
            continue
        yield f"## {heading}\n"
        if heading == "Studies":
            yield from glance(studies_among({n: left[n] for n in dict.fromkeys(names)}))
        for name in dict.fromkeys(names):
            yield from section(json.loads(left.pop(name).read_text(encoding="utf-8")), name)


def studies_among(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Those result files that are of recorded studies."""
    return {n: p for n, p in paths.items() if n.startswith("study_") and n != "study_costs"}


def glance(studies: Mapping[str, Path]) -> Iterable[str]:
    """All studies in one table."""
    results = shown_studies(studies)
    columns, rows, sentence = at_a_glance(results)
    for row in rows:
        if staleness(results[row[0]]["provenance"]):
            row[0] += " (stale)"
    yield "### All studies at a glance\n"
    yield from (f"{line}\n" for line in [*conclusion(results), *old(results)])
    yield "Effects are on the outcome that verdicts rest on: test accuracy under `sound`.\n"
    yield markdown(columns, rows)
    yield f"\n{sentence}\n"
    if any(is_withdrawn(result) for result in results.values()):
        yield f"{WHY_WITHDRAWN}\n"
    yield "### The rows of the augmentation paper\n"
    yield markdown(*rows_of_the_paper(results))
    yield ""


def shown_studies(studies: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Result files of studies by the studies' names, those from an uncommitted tree left out."""
    results = {
        name.removeprefix("study_").replace("_", "-"): json.loads(path.read_text(encoding="utf-8"))
        for name, path in studies.items()
    }
    return {k: v for k, v in results.items() if not is_uncommitted(v["provenance"])}


def section(result: dict[str, Any], name: str) -> Iterable[str]:
    """One result file: where its figures come from, its tables, its notes."""
    if name.startswith("study_") and "comparisons" in result["data"]:
        result = without_verdicts(result)
    yield f"### {result.get('title', name)}\n"
    if is_uncommitted(result["provenance"]):
        yield "Measured from an uncommitted tree, so not shown.\n"
        return
    stale = staleness(result["provenance"])
    if stale:
        yield f"- {STALE}: {stale}"
    yield from (f"- {line}" for line in _origin(result["provenance"]))
    yield ""
    if (PICTURES / f"{name}.png").exists():
        yield f"![{result['title']}](images/{name}.png)\n"
    for table in result.get("tables", []):
        yield f"**{table['title']}**\n"
        yield markdown(table["columns"], table["rows"])
        yield ""
    notes = result.get("notes", [])
    yield from notes and (*(f"- {note}" for note in notes), "")


def _origin(known: dict[str, Any]) -> Iterable[str]:
    """Command, date, hardware, versions, then whatever else the benchmark noted."""
    environment = known["environment"]
    yield f"command: `{known['command']}`"
    yield f"date: {environment['date']}; commit: `{known.get('commit')}`"
    if "processor" in environment:
        yield (
            f"hardware: {environment['processor']}, {environment['cores']} cores; load at the "
            f"start: {known['load_average_at_start']}"
        )
    else:
        yield f"hardware: {environment['gpu']}"
    other = ("date", "processor", "cores", "gpu")
    yield "versions: " + ", ".join(f"{k} {v}" for k, v in environment.items() if k not in other)
    done = ("command", "environment", "commit", "code", "load_average_at_start")
    for key, value in known.items():
        if key not in done and value is not None:
            yield f"{key.replace('_', ' ')}: {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list):
        return (";" if value and isinstance(value[0], dict) else ",").join(
            f" {_plain(v)}" for v in value
        )[1:]
    if isinstance(value, str) and len(value) > 40 and " " not in value:
        return f"`{value[:12]}…`"  # a fingerprint
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


if __name__ == "__main__":
    main()
