"""``rankwise evaluate`` and ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise._files import json_text
from rankwise._seeds import checked_seed
from rankwise._text import plain
from rankwise.cli._options import (
    ImageColumn,
    Json,
    LabelColumn,
    OwnBackbone,
    SkipBad,
    SourcePattern,
    reading_of,
)
from rankwise.cli._output import say
from rankwise.cli._tables import print_table


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="DIR")],
    source: Annotated[str, typer.Argument(help="Images, as for train.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="test, train, validation, all or a split's name; default: what the run held out "
            "of its own source, and of another one the test part, or all images."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Images, drawn by class.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            callback=checked_seed, help="Of the hold-out and the limit; default: the run's."
        ),
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            help="Average over copies of each image: mirror (2 times the time), or shifts (6 "
            "times; 3 where mirror images mean something else)."
        ),
    ] = None,
    mistakes: Annotated[
        Path | None,
        typer.Option(
            help="File of the wrong ones, the most confident first: a .csv list, or an .html page.",
            metavar="LIST.CSV|PAGE.HTML",
        ),
    ] = None,
    backbone: OwnBackbone = None,
    skip_bad: SkipBad = False,
    source_pattern: SourcePattern = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    as_json: Json = False,
) -> None:
    """Accuracy of a trained model on a source, class by class."""
    from rankwise import runs

    reading = reading_of(
        None, False, skip_bad, source_pattern, image_column=image_column, label_column=label_column
    )
    report = runs.evaluate(
        folder,
        source,
        split,
        mistakes=mistakes,
        tta=tta,
        backbone=backbone,
        limit=limit,
        seed=seed,
        **reading,
    )
    say(f"scored: {report['scored']}", err=True)
    for note in report["notes"]:
        say(f"note: {note}", err=True)
    if report["n_trained_on"] and report["split"] != "train":
        say(
            f"warning: {report['n_trained_on']:,} of these {report['n_samples']:,} images are "
            "training images of the run (the same pixels); the accuracy on them says nothing about "
            "new ones",
            err=True,
        )
    if as_json:
        typer.echo(json_text(report))
        return
    counts = report["confusion"]
    rows = [
        (name, f"{sum(counts[i])}", f"{100 * counts[i][i] / sum(counts[i]):.2f}%")
        for i, name in enumerate(report["classes"])
        if sum(counts[i])
    ]
    rows.append(("all", str(report["n_samples"]), f"{100 * report['accuracy']:.2f}%"))
    if report["copies"] > 1:
        rows.append((f"copies of each image averaged: {report['copies']} times the time", "", ""))
    if skip_bad:
        rows.append(("skipped as bad", str(report["n_skipped"]), ""))
    print_table(f"{source}, {report['split']}", ("class", "images", "accuracy"), rows)
    if mistakes is not None:
        say(f"Mistakes: {mistakes}")


def predict(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="DIR")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders of them.", metavar="IMAGE...")
    ],
    backbone: OwnBackbone = None,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Label image files; exit status 1 if one of them can't be read."""
    from rankwise import runs

    entries = runs.predict(folder, images, on_error="record", backbone=backbone)
    predictions = [entry for entry in entries if "error" not in entry]
    failed = [entry for entry in entries if "error" in entry]
    if as_json:
        typer.echo(json_text({"predictions": predictions, "failed": failed}))
    elif predictions:
        rows = [(p["file"], p["label"], f"{100 * p['probability']:.1f}%") for p in predictions]
        print_table(None, ("file", "label", "probability"), rows)
    for change, files in _by_change(predictions).items():
        count = f"{len(files):,} of {len(predictions):,} images"
        say(f"note: {count} {change}, which the model takes: {plain(files[0])} first", err=True)
    for entry in failed:
        word = "skipped" if skip_bad else "error"
        say(f"{word}: {plain(entry['error'])}", err=True)
    if failed and not (skip_bad and predictions):
        raise typer.Exit(1)


def _by_change(predictions: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The files that each change was made to."""
    found: dict[str, list[str]] = {}
    for entry in predictions:
        for change in entry["changed"]:
            found.setdefault(change, []).append(entry["file"])
    return found
