"""What the README has of the results: some figures in words, one table of the frontier."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import percent, spread
from provenance import is_uncommitted, staleness

STALE = "**stale**"
ALL_STALE = (
    f"All figures below are {STALE}: the code has changed since they were measured, as "
    "`make stale` lists; `make results` measures them again."
)

_OLDER = " †"
_FOOTNOTE = (
    f"{_OLDER.strip()} {STALE}: code that the figure depends on has changed since, so today's may "
    "differ; `make stale` lists what."
)


def readme_lines(folder: Path) -> list[str]:
    """The parts of the README that a folder of results has figures for.

    What is stale has a mark, explained once below all of them, or one sentence above where all is;
    of the frontier, whose rows have files of their own, the rows are marked. What was measured from
    an uncommitted tree is left out.
    """
    parts: list[tuple[bool, list[str]]] = []
    for patterns, of in PARTS.items():
        paths = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        found = [result for result in found if not is_uncommitted(result["provenance"])]
        if found:
            stale = [staleness(result["provenance"]) is not None for result in found]
            lines = of(found)
            if any(stale) and of is not frontier_lines:
                lines = [_with_mark(lines[0]), *lines[1:]] if lines else []
            parts.append((all(stale) if of is frontier_lines else any(stale), lines))
    text = [line for _, lines in parts for line in lines]
    if parts and all(stale for stale, _ in parts):
        return ["", ALL_STALE, "", *(line.replace(_OLDER, "") for line in text)]
    return ["", *text, *([_FOOTNOTE, ""] if any(_OLDER in line for line in text) else [])]


def _with_mark(sentence: str) -> str:
    end = sentence[-1:] if sentence.endswith((".", ":")) else ""
    return f"{sentence.removesuffix(end)}{_OLDER}{end}"


def presets_lines(results: list[dict[str, Any]]) -> list[str]:
    """The paper's scheme and ours on MNIST, in words."""
    (result,) = results
    known = result["provenance"]["environment"]
    measured = [{row[0]: row[1] for row in table["rows"]} for table in result["tables"]]
    inductive, agreement, transductive = (
        [f"{rows[name]}%" for rows in measured]
        for name in (
            "inductive accuracy, %",
            "bootstrap: agreement with guesses, %",
            "bootstrap: transductive accuracy, %",
        )
    )
    first, second = (f"`{t['title'].removeprefix('--preset ')}`" for t in result["tables"])
    return [
        f"The paper's own scheme on MNIST, {first}, has an accuracy of {inductive[0]} on test "
        f"images never seen, and {second}, the same with better units, of {inductive[1]}. After "
        "bootstrapping, a pass over the test images with guessed labels, they agree with their "
        f"guesses on {agreement[0]} and {agreement[1]} of the test images, and are right on "
        f"{transductive[0]} and {transductive[1]} ({known['date']}, {known['processor']}, "
        f"{known['cores']} cores; {result['provenance']['spread']}; "
        "[command and all figures](docs/results.md#the-papers-scheme-on-mnist)).",
        "",
    ]


def frontier_lines(results: list[dict[str, Any]]) -> list[str]:
    """The convolutional presets within their minutes, with what was asked for of each."""
    columns = ("row", "n", "test, %", "with copies, %", "bar / goal", "met", "params", "min", "on")
    # What was measured again, with other code, stands in docs/results.md both ways. Where a
    # processor has no instructions for bfloat16, the same minutes hold fewer epochs.
    rows: dict[tuple[str, str], list[str]] = {}
    for result in results:
        mark = _OLDER if staleness(result["provenance"]) else ""
        for row in _frontier_rows(result):
            precision = row[-1].rpartition(", ")[2]
            where = f"docs/results.md#{anchor(result['title'])}"
            rows[row[0], precision] = [f"[{row[0]}]({where}){mark}", *row[1:]]
    lines = [markdown(columns, [rows[key] for key in sorted(rows)]), ""]
    dates = sorted({result["provenance"]["environment"]["date"] for result in results})
    lines += [
        "- All training images of each set (of cats and of malaria, copies of 10,000 images of 100 "
        "pixels, 2,000 of them for the test), test images read once a run, 2 cores, "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; mean (min–max) over the n runs.",
        "- *row*: the set, and the most parameters; it leads to the command and notes. *bar* and "
        "*goal*: asked for beforehand. *met*: by the worst run, without copies.",
        "- *with copies*: averaged over shifted and mirrored ones (`tta=shifts`). *params*: what "
        "it has. *min*: minutes that it took, of those that the bar allows. *on*: the processor, "
        "and in which precision: bfloat16 where it has instructions for it.",
        "",
    ]
    others: dict[str, tuple[Any, dict[str, Any]]] = {}
    for result in results:
        # What a row was before it was measured again is left out here as well.
        again = {r["row"] for r in result["data"]}
        for _, of_rows in others.values():
            for row in again & set(of_rows):
                del of_rows[row]
        for other in result["tables"][1:]:
            _, of_rows = others.setdefault(other["title"], (other["columns"], {}))
            for row in other["rows"]:
                of_rows.setdefault(row[0], []).append(row)
    for title, (names, of_rows) in others.items():
        found = [row for key in sorted(of_rows) for row in of_rows[key]]
        lines += [f"{title}:", "", markdown(names, found), ""] if found else []
    return lines


def _frontier_rows(result: dict[str, Any]) -> list[list[str]]:
    """One line a row: what was reached beside what was asked for, and on which processor."""
    processor = re.sub(r"\(R\)|Processor", "", result["provenance"]["environment"]["processor"])
    lines = []
    for key in dict.fromkeys(r["row"] for r in result["data"]):
        runs = [r for r in result["data"] if r["row"] == key]
        asked, worst = runs[0]["asked"], 100 * min(r["accuracy"] for r in runs)
        copies = [r["accuracy_of_copies"].get("shifts") for r in runs]
        met = "goal" if worst >= asked["goal"] else "bar" if worst >= asked["bar"] else "no"
        lines.append(
            [
                f"`{key}`",
                str(len(runs)),
                percent([r["accuracy"] for r in runs]),
                "–" if None in copies else percent(copies),
                f"{asked['bar']:g} / {asked['goal']:g}",
                met,
                f"{runs[0]['n_parameters']:,}",
                f"{np.mean([r['seconds'] for r in runs]) / 60:.0f} of {asked['minutes']:g}",
                f"{' '.join(processor.split())}, {runs[0]['precision']}",
            ]
        )
    return lines


def photographs_lines(results: list[dict[str, Any]]) -> list[str]:
    """Ours beside a plain CNN on few photographs, seed by seed."""
    said = []
    for result in results:
        runs = {
            row: {r["seed"]: r["accuracy"] for r in result["data"] if r["row"] == row}
            for row in ("accurate", "plain-186k")
        }
        seeds = sorted(set(runs["accurate"]) & set(runs["plain-186k"]))
        if not seeds:
            continue
        gains = [100 * (runs["accurate"][s] - runs["plain-186k"][s]) for s in seeds]
        ours, theirs = (
            np.mean([r["microseconds"] for r in result["data"] if r["row"] == row]) for row in runs
        )
        side = re.findall(r"(\d+) pixels", result["title"])[0]
        said.append(
            f"{percent([runs['accurate'][s] for s in seeds])} and "
            f"{percent([runs['plain-186k'][s] for s in seeds])}% at {side} pixels, "
            f"{spread(gains, 2)} points apart, at {ours / theirs:.1f} times the time an image "
            f"([measured](docs/results.md#{anchor(result['title'])}))"
        )
    if not said:
        return []
    minutes = results[0]["provenance"]["minutes"]
    return [
        f"Few photographs (1600 cats and dogs), {_minutes(minutes)} each on two cores: `accurate` "
        f"and a plain CNN of 175 thousand parameters, with the same recipe and the best of three "
        f"rates, reach {'; '.join(said)}.",
        "",
    ]


def shifted_lines(results: list[dict[str, Any]]) -> list[str]:
    """The plain CNN on few photographs that are shifted, not moved affinely as ours are."""
    said = []
    for result in results:
        runs = [r["accuracy"] for r in result["data"] if r["row"] == "plain-186k"]
        side = re.findall(r"(\d+) pixels", result["title"])[0]
        where = f"docs/results.md#{anchor(result['title'])}"
        said.append(f"{percent(runs)}% at {side} pixels ([measured]({where}))")
    return [
        "On images that are shifted alone, not moved affinely as ours are, the plain CNN has "
        f"(another run) {'; '.join(said)}.",
        "",
    ]


def curve_lines(results: list[dict[str, Any]]) -> list[str]:
    """Which of ours is ahead of the best rival of its size, by each measure of size."""
    said = []
    for result in results:
        known = result["provenance"]
        if known.get("minutes") is None:
            continue
        name, n = known["data"][0]["name"], len(known["seeds"])
        said += [
            "Beside a plain CNN, a depthwise-separable one and ResNet-20 scaled to the size, "
            f"trained by the same code on the same images of {_DATA_SETS.get(name, name)}, "
            f"{_minutes(known['minutes'])} a run, {n} seed{'s' * (n != 1)} "
            f"([curve and tables](docs/results.md#{anchor(result['title'])})):",
            "",
            *(f"- {note}" for note in result["notes"] if note.startswith(_IN_README)),
            "",
        ]
    return said


_IN_README = ("By ", "nano, tiny, small: ")
_DATA_SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def _minutes(n: float) -> str:
    return f"{n:g} minute" + "s" * (n != 1)


def anchor(title: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def airbench_lines(results: list[dict[str, Any]]) -> list[str]:
    """What the copy of CIFAR-10 costs a recipe whose figure on the original is known."""
    (result,) = results
    where = f"docs/results.md#{anchor(result['title'])}"
    said = [note for note in result["notes"] if note.startswith("airbench94 ")]
    n = sum(row["row"] == "airbench94" for row in result["data"])
    runs = "one run" if n == 1 else f"{n} runs"
    tail = (
        f"This is {runs} of our rewriting, which can't be tried on the original "
        f"([measured]({where}))."
    )
    return [line for note in said for line in (f"{note} {tail}", "")]


PARTS = {
    ("presets.json",): presets_lines,
    ("frontier.json", "frontier_epyc*.json"): frontier_lines,
    ("airbench.json",): airbench_lines,
    ("curve_cifar10.json",): curve_lines,
    ("curve.json",): curve_lines,
    ("curve_photographs_*.json",): photographs_lines,
    ("curve_shifted_photographs_*.json",): shifted_lines,
}
"""What the README has of the results, by their files; all else is in docs/results.md."""


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; figures to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("  ", "&ensp;")
