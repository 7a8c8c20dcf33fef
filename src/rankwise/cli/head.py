"""``rankwise head``: the best last layer on a backbone, in one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise._seeds import checked_seed
from rankwise.cli._output import say
from rankwise.cli.model import (
    Channels,
    Grey,
    ImageColumn,
    Json,
    LabelColumn,
    Size,
    SkipBad,
    SourcePattern,
    _percent,
    _print_table,
    _reading,
    _skipped_rows,
)


def head(
    source: Annotated[str, typer.Argument(help="Images, as for train.")],
    backbone: Annotated[
        str, typer.Option(help="A .safetensors file, torchvision/NAME or timm/NAME.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    alpha: Annotated[str, typer.Option(help="Ridge: loo, gcv or a number.")] = "loo",
    class_weight: Annotated[
        bool, typer.Option("--balanced", help="All classes weigh the same.")
    ] = False,
    rank: Annotated[int | None, typer.Option(help="Leading directions to use.")] = None,
    loss: Annotated[
        str, typer.Option(help="squared: one pass. logistic: goes on from it to a softmax layer.")
    ] = "squared",
    limit: Annotated[
        int | None, typer.Option(help="Training images, drawn by class with the seed.")
    ] = None,
    seed: Annotated[
        int, typer.Option(callback=checked_seed, help="Of the hold-out and the limit.")
    ] = 42,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a forward pass.")] = 64,
    size: Size = None,
    grey: Grey = False,
    channels: Channels = None,
    skip_bad: SkipBad = False,
    source_pattern: SourcePattern = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Discard what the folder holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit the best linear classifier on a backbone's features, in one pass."""
    from rankwise.runs.heads import HeadRun, fit_head

    report = fit_head(
        HeadRun(
            source=source,
            backbone=backbone,
            alpha=_alpha(alpha),
            class_weight="balanced" if class_weight else None,
            rank=rank,
            loss=loss,
            limit=limit,
            seed=seed,
            reading=_reading(
                size, grey, skip_bad, source_pattern, channels, image_column, label_column
            ),
        ),
        out,
        device=device,
        batch_size=batch_size,
        overwrite=overwrite,
        verbose=not as_json,
    )
    if as_json:
        typer.echo(json.dumps(report))
        return
    _print_table(f"{source} → {out}", ("", ""), _rows(report))
    say(f"Picture: {out / 'confusion.png'}")


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = report["seconds"]
    chosen = {
        "given": "given",
        "loo": "leave one out",
        "gcv": "generalised cross-validation",
        "approximate loo": "leave one out, to first order",
    }
    return [
        ("inductive accuracy (test images never seen)", _percent(report["inductive_accuracy"])),
        ("leave-one-out accuracy, training images", _percent(report["leave_one_out_accuracy"])),
        ("expected calibration error", _percent(report["calibration_error"])),
        (
            "images: training / test",
            f"{report['train']['n_samples']:,} / {report['test']['n_samples']:,}",
        ),
        *_skipped_rows(report),
        ("features / directions used", f"{report['n_features']:,} / {report['rank']:,}"),
        ("loss", report["loss"]),
        ("ridge", f"{report['alpha']:.3g} ({chosen[report['alpha_chosen_by']]})"),
        (
            "seconds: features / head / total",
            f"{seconds['features']:.1f} / {seconds['head']:.2f} / {seconds['total']:.1f}",
        ),
        ("likely wrong labels (see report.json)", f"{report['n_against_label']:,}"),
        ("peak memory", f"{report['peak_memory_mb']:,.0f} MB"),
    ]


def _alpha(text: str) -> float | str:
    if text in ("loo", "gcv"):
        return text
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"--alpha takes a number, loo or gcv, got {text!r}") from None
