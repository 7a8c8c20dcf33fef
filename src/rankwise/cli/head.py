"""``rankwise head``: the best last layer on a backbone, in one pass."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise._files import json_text
from rankwise._seeds import checked_seed
from rankwise.cli._options import (
    Channels,
    Device,
    Grey,
    ImageColumn,
    Json,
    LabelColumn,
    Overwrite,
    Size,
    SkipBad,
    SourcePattern,
    TrainingLimit,
    Without,
    reading_of,
)
from rankwise.cli._output import say
from rankwise.cli._tables import percent, print_table, skipped_rows


def head(
    source: Annotated[str, typer.Argument(help="Images, as for train.")],
    backbone: Annotated[
        str,
        typer.Option(
            help="efficientnet-lite0 (or lite1, lite2), a .safetensors, .onnx or TorchScript file, "
            "MODULE:FUNCTION, torchvision/NAME or timm/NAME."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    alpha: Annotated[str, typer.Option(help="Ridge: loo, gcv or a number.")] = "loo",
    class_weight: Annotated[
        bool, typer.Option("--balanced", help="All classes weigh the same.")
    ] = False,
    rank: Annotated[int | None, typer.Option(help="Leading directions to use.")] = None,
    loss: Annotated[
        str, typer.Option(help="squared: one pass. logistic: a softmax layer, in further passes.")
    ] = "squared",
    limit: TrainingLimit = None,
    seed: Annotated[
        int, typer.Option(callback=checked_seed, help="Of the hold-out and the limit.")
    ] = 42,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a forward pass.")] = 64,
    backbone_size: Annotated[
        int | None, typer.Option(min=1, help="Side that the backbone gets; default its own.")
    ] = None,
    backbone_power: Annotated[
        float | None,
        typer.Option(help="Exponent of its features, above 0, at most 1; 0.5 for square roots."),
    ] = None,
    backbone_mean: Annotated[
        str | None, typer.Option(help="Mean of a channel's pixels in [0, 1]: 0.5,0.5,0.5.")
    ] = None,
    backbone_std: Annotated[
        str | None, typer.Option(help="Their standard deviation: 0.5,0.5,0.5.")
    ] = None,
    size: Size = None,
    grey: Grey = False,
    channels: Channels = None,
    skip_bad: SkipBad = False,
    source_pattern: SourcePattern = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    without: Without = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fit the best linear classifier on a backbone's features, in one pass."""
    from rankwise.runs import EXPLORED
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
            preparation=_preparation(backbone_size, backbone_mean, backbone_std, backbone_power),
            reading=reading_of(
                size, grey, skip_bad, source_pattern, channels, image_column, label_column, without
            ),
        ),
        out,
        device=device,
        batch_size=batch_size,
        overwrite=overwrite,
        verbose=not as_json,
        command=shlex.join(["rankwise", *sys.argv[1:]]),
    )
    if as_json:
        typer.echo(json_text(report))
        return
    print_table(f"{source} → {out}", ("", ""), _rows(report))
    if len(report["classes"]) <= _MANY:
        print_table("accuracy by class", ("class", "test images", "right"), _classes(report))
    if report["likely_wrong_labels"]:
        print_table(
            "likely wrong labels among the training images, the first",
            ("image", "label", "the others say"),
            [
                (_short(w["source_id"]), _short(w["label"], 16), _short(w["others_say"], 16))
                for w in report["likely_wrong_labels"][:_FIRST]
            ],
        )
        say(f"Likely wrong labels: {out / 'likely_wrong_labels.png'}")
    say(f"Picture: {out / 'confusion.png'}")
    say(f"What went wrong, and what next: open {out / EXPLORED} in a browser.")
    if report["backbone"]["record"] is not None:
        command = shlex.join(["rankwise", "export", str(out), "--format", "onnx"])
        say(f"One file for phones and servers: {command}")


_MANY = 30
"""Classes that a table shows."""
_FIRST = 8


def _classes(report: dict[str, Any]) -> list[tuple[str, ...]]:
    found = report["accuracy_by_class"].items()
    return [
        (
            _short(name, 40),
            f"{row['n_samples']:,}",
            "–" if row["accuracy"] is None else percent(row["accuracy"]),
        )
        for name, row in found
    ]


def _short(text: str, most: int = 36) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]


def _preparation(
    size: int | None, mean: str | None, std: str | None, power: float | None
) -> dict[str, Any]:
    given = {
        "size": size,
        "power": power,
        "mean": _numbers("mean", mean),
        "std": _numbers("std", std),
    }
    return {k: v for k, v in given.items() if v is not None}


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--backbone-{name} takes numbers with commas between, one a channel, got {text!r}"
        ) from None


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = report["seconds"]
    chosen = {
        "given": "given",
        "loo": "leave one out",
        "gcv": "generalised cross-validation",
        "cross-validation": "cross-validation",
    }
    return [
        ("inductive accuracy (test images never seen)", percent(report["inductive_accuracy"])),
        ("leave-one-out accuracy, training images", percent(report["leave_one_out_accuracy"])),
        ("expected calibration error", percent(report["calibration_error"])),
        (
            "images: training / test",
            f"{report['train']['n_samples']:,} / {report['test']['n_samples']:,}",
        ),
        *skipped_rows(report),
        ("features / directions used", f"{report['n_features']:,} / {report['rank']:,}"),
        ("loss", report["loss"]),
        ("ridge", f"{report['alpha']:.3g} ({chosen[report['alpha_chosen_by']]})"),
        (
            "seconds: features / head / total",
            f"{seconds['features']:.1f} / {seconds['head']:.2f} / {seconds['total']:.1f}",
        ),
        ("images a second", f"{report['images_per_second']:,.0f}"),
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
