"""Options that several commands take, and what their text means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

TrainingLimit = Annotated[
    int | None, typer.Option(help="Training images, drawn by class with the seed.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard what the folder holds.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Size = Annotated[str | None, typer.Option(help="Resize images to N×N, or HxW.", metavar="N|HxW")]
Grey = Annotated[bool, typer.Option("--grey", help="Turn colour images to grey.")]
Channels = Annotated[
    int | None,
    typer.Option(help="1: grey, 3: RGB, 4: RGBA; default: RGB unless all images are grey."),
]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column of images in parquet files and on the hub.")
]
LabelColumn = Annotated[str | None, typer.Option(help="Column of labels there, or in a CSV file.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave unreadable files out instead of stopping.")
]
SourcePattern = Annotated[
    str | None,
    typer.Option(help="Regular expression on file names; its first group is the source id."),
]
OwnBackbone = Annotated[
    str | None,
    typer.Option(
        help="For a head that was saved without its backbone: MODULE:FUNCTION or a file.",
        metavar="BACKBONE",
    ),
]
Without = Annotated[
    Path | None,
    typer.Option(
        help="CSV file of training images to leave out, as rankwise explore exports it.",
        metavar="LIST.CSV",
    ),
]


def pruning_of(text: str | None) -> int | float | None:
    """Units to leave out: a number, or a share under 1."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"--prune takes a whole number of units or a share under 1, got {text!r}"
        ) from None


def ridge_of(text: str | None) -> float | str | None:
    """A ridge, or how it is chosen."""
    if text is None or text in ("gcv", "loo"):
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"--ridge takes a number, gcv or loo, got {text!r}") from None


def reading_of(
    size: str | None,
    grey: bool,
    skip_bad: bool,
    source_pattern: str | None,
    channels: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    without: Path | None = None,
) -> dict[str, Any]:
    """Options of `load_images` that were given."""
    options: dict[str, Any] = {}
    if size is not None:
        sides = size.lower().split("x")
        if len(sides) > 2 or not all(s.isdigit() and int(s) > 0 for s in sides):
            raise typer.BadParameter(f"--size takes N or HxW, such as 32 or 28x20, got {size!r}")
        options["size"] = int(sides[0]) if len(sides) == 1 else [int(s) for s in sides]
    if grey and channels not in (None, 1):
        raise typer.BadParameter(f"--grey is --channels 1, and --channels {channels} is given too")
    if grey:
        options["grey"] = True
    if channels is not None:
        options["channels"] = channels
    if image_column is not None:
        options["image_column"] = image_column
    if label_column is not None:
        options["label_column"] = label_column
    if skip_bad:
        options["on_error"] = "skip"
    if source_pattern is not None:
        options["source_pattern"] = source_pattern
    if without is not None:
        from rankwise.explore.lists import read_list

        options["without"] = read_list(without)
    return options
