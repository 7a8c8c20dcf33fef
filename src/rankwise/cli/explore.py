"""``rankwise explore``: a page of a run that says what went wrong, and what next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankwise._files import json_text
from rankwise._seeds import checked_seed
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
from rankwise.cli._tables import percent, print_table


def explore(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    source: Annotated[
        str | None,
        typer.Argument(help="Other images, as for train; default: the run's own, all of them."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page; default: explore.html in the run's folder.")
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="Also a CSV file of likely wrong labels, repeats and odd images, for train "
            "--without.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of a source that is named: test, train, all, or another.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Images of a source that is named, drawn by class.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(callback=checked_seed, help="Of its hold-out and limit; default: the run's."),
    ] = None,
    backbone: OwnBackbone = None,
    skip_bad: SkipBad = False,
    source_pattern: SourcePattern = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    as_json: Json = False,
) -> None:
    """Write a page of what went wrong: mistakes, likely wrong labels, repeats, odd images, why."""
    from rankwise import runs

    if source is None and (split, limit, seed, source_pattern) != (None,) * 4:
        raise typer.BadParameter(
            "--split, --limit, --seed and --source-pattern are of other images; name their source, "
            "or leave them out: the run's own are read as it read them"
        )
    reading = reading_of(
        None, False, skip_bad, source_pattern, image_column=image_column, label_column=label_column
    )
    found = runs.explore(
        folder,
        source,
        out=out,
        split=split,
        listed=listed,
        backbone=backbone,
        limit=limit,
        seed=seed,
        progress=not as_json,
        say=lambda line: say(line, err=True),
        **reading,
    )
    if as_json:
        typer.echo(json_text(found))
        return
    low, high = found["interval"]
    print_table(
        None,
        ("", ""),
        [
            (
                "accuracy (95% interval)",
                f"{percent(found['accuracy'])} ({percent(low)} to {percent(high)})",
            ),
            ("wrong", f"{found['n_wrong']:,} of {found['n_samples']:,}"),
            ("expected calibration error", f"{found['expected_calibration_error']:.3f}"),
            ("images looked at", f"{found['n_images']:,}"),
            (
                "labels: about so many wrong / others are against",
                f"{found['n_likely_wrong']:,} / {found['n_labels']:,}",
            ),
            (
                "repeats: images / groups in both parts",
                f"{found['n_repeated']:,} / {found['n_across_parts']:,}",
            ),
            ("odd images", f"{found['n_odd']:,}"),
            *(
                ("classes that may be one", f"{pair[0]} and {pair[1]}")
                for pair in found["one_class"]
            ),
            (
                "seconds: predicting / exploring",
                f"{found['seconds']['predicting']:.1f} / {found['seconds']['exploring']:.1f}",
            ),
        ],
    )
    if listed is not None:
        what = "List, for rankwise train … --without" if found["for_training"] else "List"
        say(f"{what}: {listed}")
    say(f"Page ({found['bytes'] / 1e6:.1f} MB): {found['page']}")
