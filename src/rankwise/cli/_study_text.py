"""What the commands of studies print: tables and sentences that fit a terminal."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import typer

from rankwise._files import json_text
from rankwise.cli._output import say


def print_results(results: dict[str, Any], out: Path, as_json: bool) -> None:
    """A study's results, and where they are; as JSON the results alone."""
    if as_json:
        typer.echo(json_text(results))
        return
    _print_table(results)
    say(f"\n{out / 'results.json'}; 'rankwise study report {out}' makes a page of it")


def print_options(found: dict[str, Any]) -> None:
    """A plan's designs around the chosen one, with what they tell and cost."""
    say(f"{'folds':>5} {'seeds':>5} {'images':>9} {'power':>7} {'hours':>8} {'disk':>9}")
    for option in _telling(found):
        mark = "  chosen" if option == found["chosen"] else ""
        say(
            f"{option['folds']:>5} {option['seeds']:>5} {sum(option['images'].values()):>9,} "
            f"{option['power']:>7.1%} {option['hours']:>8.2f} {option['disk'] / 2**20:>5.0f} MiB"
            f"{mark}"
        )


def print_plan(found: dict[str, Any]) -> None:
    """What a plan rests on, or why there is none."""
    if found["assumed"]:
        wrapped(
            f"The pilot doesn't show {_shown(found['assumed'])}: the hardest of its other "
            "comparisons stands for each."
        )
    for name, chance in found["contrast_power"].items():
        known = "not shown by the pilot" if chance is None else f"{chance:.1%}"
        wrapped(f"{name}, of that size: power {known}.")
    for name, reason in found["obstacles"].items():
        wrapped(f"The pilot has no verdict on {name}: {reason}.")


def print_written(found: dict[str, Any], digest: str, out: Path) -> None:
    """A plan's seeds, and where it is."""
    seeds = ", ".join(map(str, found["study"]["seeds"]))
    wrapped(f"Seeds {seeds}: none of the pilot's, whose results are known.")
    wrapped(f"{out}, sha256 {digest}; 'rankwise study run … --plan {out}' shows it")


def _shown(names: list[str], most: int = 3) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _telling(found: dict[str, Any]) -> list[dict[str, Any]]:
    """A few options around the chosen one, by cost."""
    options, chosen = found["options"], found["chosen"]
    at = options.index(chosen) if chosen else len(options) - 1
    return options[max(0, at - 4) : at + 3]


def _print_table(results: dict[str, Any]) -> None:
    """A table of conditions, then a sentence for each comparison; at most 80 columns."""
    from rankwise.study.spans import points, span

    leaks = results["study"]["protocol"] == "notebook"
    for data in results["data_sets"]:
        if data["reduced"]:
            wrapped(f"{data['name']}: reduced: {'; '.join(data['reductions'])}")
        if not leaks:  # The note of its protocol follows, for all data sets at once.
            for note in data["notes"][len(data["reductions"]) :]:
                wrapped(f"{data['name']}: {note}")
    if leaks:
        typer.secho("protocol 'notebook': leaks on purpose; figures flatter", fg="red", err=True)
    say(f"{'condition':<35} {'validation':>14} {'test, folds':>14} {'re-trained':>14}")
    for condition in results["conditions"]:
        cells = [c for c in results["cells"] if c["condition"] == condition["id"]]
        folds = [c for c in cells if c["stage"] == "fold"]
        means = (
            _mean([c["validation_accuracy"] for c in folds]),
            _mean([c["test_accuracy"] for c in folds]),
            _mean([c["test_accuracy"] for c in cells if c["stage"] == "retrain"]),
        )
        say(f"{_shortened(condition['id'], 35):<35}" + "".join(f" {mean:>14}" for mean in means))
    robust = {(c["condition"], c["baseline"]): c for c in results.get("robustness", ())}
    for comparison in results["comparisons"]:
        name = f"{comparison['condition']} against {comparison['baseline_arm']}"
        say("")
        say(_shortened(name, 80))
        wrapped(comparison["sentence"], "  ")
        beside = robust.get((comparison["condition"], comparison["baseline"]))
        if beside is not None and beside["pairs"]:
            wrapped(beside["sentence"], "  ")
    for factor in results.get("factors", ()):
        say("")
        wrapped(f"{factor['data_set']}, {factor['model']}: {factor['sentence']}")
    for note in results.get("summaries", {}).get("notes", ()):
        say("")
        wrapped(str(note))
    for summary in results.get("summaries", {}).get("effects", ()):
        say("")
        wrapped(
            f"{summary['arm']} against {summary['baseline_arm']}, {summary['model']}, over "
            f"{len(summary['rows'])} data sets: {points(summary['mean'])} points "
            f"({span(summary['low'], summary['high'])}). {summary['note']}"
        )


def wrapped(text: str, indent: str = "") -> None:
    """A text in lines of at most 78 characters."""
    for line in textwrap.wrap(text, 78, initial_indent=indent, subsequent_indent=indent):
        say(line)


def _mean(values: list[float]) -> str:
    if not values:
        return "–"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return percent_or_pruned(mean)
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{100 * mean:.2f} ± {100 * spread:.2f}%"


def percent_or_pruned(value: float | None) -> str:
    """An accuracy in per cent; a trial of a search that was pruned has none."""
    return "pruned" if value is None else f"{100 * value:.2f}%"


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[-width + 1 :]}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
