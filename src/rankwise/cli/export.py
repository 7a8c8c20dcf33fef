"""``rankwise export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="DIR")],
    file_format: Annotated[str, typer.Option("--format", help="onnx, c or safetensors.")],
    precision: Annotated[
        str, typer.Option(help="Of the weights: float32, float16 or int8.")
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; default: rankwise_model… in the model's folder."),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="Compare with the model on the test images of this source.", metavar="SOURCE"
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="onnx: a fixed number of images; default any.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Write a trained model for phones (ONNX), watches (C) or programs of your own."""
    from rankwise import runs
    from rankwise.export import FORMATS, export_model
    from rankwise.models import load_model

    model = load_model(folder)
    if out is None:
        suffix = "" if precision == "float32" else f"_{precision}"
        out = folder / f"rankwise_model{suffix}{FORMATS.get(file_format, '')}"
    images = None if check is None else runs.images_for(model, folder, check)
    report = export_model(model, file_format, out, precision=precision, batch=batch, images=images)
    report["check"] = check
    if as_json:
        typer.echo(json.dumps(report))
        return
    typer.echo(
        f"{out}: {report['bytes']:,} bytes, {report['n_parameters']:,} parameters, "
        f"{precision} weights"
    )
    if file_format == "c":
        typer.echo(
            f"on the device: {report['flash_bytes']:,} bytes of weights (flash), "
            f"{report['ram_bytes']:,} bytes of scratch (RAM)"
        )
    if check is not None:
        original, exported = report["accuracy_original"], report["accuracy_exported"]
        typer.echo(
            f"{report['n_images']:,} test images of {check}: accuracy {100 * original:.2f}% before,"
            f" {100 * exported:.2f}% after ({100 * (exported - original):+.2f} points);"
            f" largest difference of a probability {report['max_abs_difference']:.2g}"
        )
