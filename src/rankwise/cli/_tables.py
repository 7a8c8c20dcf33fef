"""What commands print of a report: tables that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankwise._text import plain


def report_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of what a training came to."""
    rows = [
        ("inductive accuracy (test images never seen)", percent(report["inductive_accuracy"])),
        ("training accuracy", percent(report["train_accuracy"])),
        *_calibration_rows(report),
        (
            "images: training / test",
            f"{report['train']['n_samples']:,} / {report['test']['n_samples']:,}",
        ),
        *skipped_rows(report),
        *_training_rows(report),
        (
            "parameters: units / with output layer",
            f"{report['n_parameters_units']:,} / {report['n_parameters_total']:,}",
        ),
        ("peak memory", f"{report['peak_memory_mb']:,.0f} MB"),
        (
            "as C, in float32: flash / RAM",
            f"{report['flash_bytes']:,} / {report['ram_bytes']:,} bytes",
        ),
    ]
    bootstrap = report.get("bootstrap")
    if bootstrap:
        rows += [
            (
                "bootstrap: agreement with the guesses",
                percent(bootstrap["agreement_with_guesses"]),
            ),
            ("bootstrap: transductive accuracy", percent(bootstrap["transductive_accuracy"])),
            ("bootstrap: ambiguous guesses", percent(bootstrap["ambiguous_fraction"])),
        ]
        rounds = bootstrap.get("rounds", [])
        for key in ("agreement_with_guesses", "transductive_accuracy"):
            if len(rounds) > 1:
                each = " / ".join(percent(found[key]) for found in rounds)
                rows.append((f"bootstrap by round: {key.replace('_', ' ')}", each))
    return rows


def _calibration_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """How far probabilities are from how often they are right; earlier reports don't say."""
    error = report.get("expected_calibration_error")
    return [] if error is None else [("expected calibration error", f"{error:.3f}")]


def skipped_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """How many bad images were left out, where that was allowed."""
    if report["run"]["reading"].get("on_error") != "skip" or "skipped" not in report["train"]:
        return []  # not asked for, or a report of an earlier version
    # What is no image by its name is left out of both parts of a hold-out, and is one file.
    skipped = {line for part in ("train", "test") for line in report[part]["skipped"]}
    return [("skipped as bad", f"{len(skipped):,}")]


def _training_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What was trained, for how long, and how it ended."""
    seconds, statuses = report["seconds"], report["statuses"]
    ended = ", ".join(f"{n} {s}" for s, n in statuses.items())
    both = sum(statuses.values()) > report["n_subnets"]
    # Reports of earlier versions don't have it.
    earlier = seconds.get("earlier", 0.0)
    before = [("of these, before interruptions", f"{earlier:.1f}")] if earlier else []
    if not report["n_subnets"]:
        chosen = any(e["validation_accuracy"] is not None for e in report["history"])
        return [
            ("preset", str(report["preset"])),
            ("units / epochs", f"{report['n_units']:,} / {report['epochs']:,}"),
            *([("trained in", report["precision"])] if report.get("precision") else []),
            (
                "output layer" + chosen * " (the better on validation images)",
                report["output_layer"],
            ),
            *([("seconds: teacher", f"{seconds['teacher']:.1f}")] if "teacher" in seconds else []),
            *_seconds_rows("joint training", seconds["joint"], seconds),
            *before,
            ("training ended", report["status"]),
        ]
    return [
        ("units / sub-networks", f"{report['n_units']:,} / {report['n_subnets']:,}"),
        *_seconds_rows("sub-networks", seconds["subnets"], seconds),
        *before,
        ("sub-networks" + both * " and refinement" + " ended", ended),
        *_selection_rows(report.get("selection", {})),
        *([("seconds: joint refinement", f"{seconds['joint']:.1f}")] if report["epochs"] else []),
    ]


def _seconds_rows(
    training: str, trained: float, seconds: dict[str, float]
) -> list[tuple[str, str]]:
    """The fit, which a time budget is for, and what is around it: reading and evaluating."""
    if "fit" not in seconds:  # a report of an earlier version
        in_all = f"{trained:.1f} / {seconds['glue']:.1f} / {seconds['total']:.1f}"
        return [(f"seconds: {training} / glue / total", in_all)]
    return [
        (
            f"seconds: {training} / glue / whole fit",
            f"{trained:.1f} / {seconds['glue']:.1f} / {seconds['fit']:.1f}",
        ),
        (
            "seconds: reading / evaluation / total",
            f"{seconds['load']:.1f} / {seconds['evaluate']:.1f} / {seconds['total']:.1f}",
        ),
    ]


def _selection_rows(selection: dict[str, Any]) -> list[tuple[str, str]]:
    """Units that joined and were left out, and what that did to the objective of the glue."""
    return [
        (
            f"units {done}: how many / the glue's objective",
            f"{selection[done]:,} / {sign}{percent(selection[share])}",
        )
        for done, share, sign in (("grown", "gain", "−"), ("pruned", "rise", "+"))
        if done in selection
    ]


def percent(fraction: float) -> str:
    """A fraction in percent."""
    return f"{100 * fraction:.2f}%"


def print_table(
    title: str | None, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> None:
    """Print a table, cut to the terminal's width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Text, not markup: file and class names may hold brackets.
    heading = None if title is None else Text(plain(title))
    table = Table(title=heading, title_justify="left", show_header=any(header))
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console = Console()
    console.print(table, width=min(80, console.width))
