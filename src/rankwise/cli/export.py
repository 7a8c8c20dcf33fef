"""``rankwise export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankwise._files import json_text
from rankwise.cli._options import OwnBackbone
from rankwise.cli._output import say

if TYPE_CHECKING:
    import numpy as np


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="DIR")],
    file_format: Annotated[str, typer.Option("--format", help="onnx, c, html or safetensors.")],
    precision: Annotated[
        str, typer.Option(help="Of the weights: float32, float16, int8; for c also int4.")
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; default: rankwise_model… in the model's folder."),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="Compare with the model on the test images of this source; default: the run's.",
            metavar="SOURCE",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="c in int8 or int4: the source of the training images that scales are taken "
            "from; default: the run's.",
            metavar="SOURCE",
        ),
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Write the file and compare nothing.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(min=1, help="onnx: a fixed number of images; default any.")
    ] = None,
    backbone: OwnBackbone = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Write a model for phones (ONNX), watches (C), browsers (html) or programs of your own."""
    from rankwise import runs
    from rankwise.errors import RankwiseError, RunError
    from rankwise.estimators.models import load_model
    from rankwise.export import ENDINGS, FORMATS, export_model, needs_calibration
    from rankwise.export.check import check_export

    if no_check and check is not None:
        raise typer.BadParameter("--check and --no-check exclude each other")
    model = load_model(folder, backbone)
    copies = getattr(model, "tta", None)
    if copies is not None:
        model.set_params(tta=None)
        say(
            f"note: the model averages over copies of each image (tta={copies!r}); the export, and "
            "what it is compared with, take each image once",
            err=True,
        )
    if out is None:
        suffix = "" if precision == "float32" else f"_{precision}"
        out = folder / f"{runs.EXPORTED}{suffix}{FORMATS.get(file_format, '')}"
    runs.refuse_model_file(out, folder)
    if out.suffix and out.suffix.lower() not in ENDINGS.get(file_format, (out.suffix.lower(),)):
        raise RunError(
            f"{out} isn't the name of a {file_format} file, which ends in "
            f"{' or '.join(ENDINGS[file_format])}; choose another name"
        )
    # A source that is named and can't be read is a mistake: nothing is written then.
    images = None if check is None else runs.images_for(model, folder, check)
    for note in () if images is None else images.notes:
        say(f"note: {note}", err=True)
    calibration = None
    if needs_calibration(model, file_format, precision):
        calibration = _calibration(model, folder, calibrate)
    elif calibrate is not None:
        raise typer.BadParameter(
            "--calibrate is for --format c with int8 or int4, of convolutional networks"
        )
    report = export_model(
        model, file_format, out, precision=precision, batch=batch, calibration=calibration
    )
    report |= {"check": check, "not_compared": None}
    if not as_json:
        _print_file(out, report)
    if not no_check:
        try:
            if images is None:
                report["check"], images = runs.test_images_of(model, folder)
            report |= check_export(model, out, file_format, images)
        except RankwiseError as error:
            if check is not None:
                raise
            report |= {"check": None, "not_compared": str(error)}
    if as_json:
        typer.echo(json_text(report))
    elif report["not_compared"]:
        say(f"not compared with the model: {report['not_compared']}")
    elif report["check"] is not None:
        _print_comparison(report)


def _calibration(model: Any, folder: Path, source: str | None) -> np.ndarray:
    """Some training images of all classes, of a source or of the run's."""
    from rankwise import runs
    from rankwise.errors import RankwiseError, RunError
    from rankwise.export.integers import CALIBRATION_IMAGES

    reading: dict[str, Any] = {}
    if source is None:
        try:
            source, _ = runs.test_images_of(model, folder)
            reading = runs.reading_of(folder)
        except RankwiseError as error:
            raise RunError(
                f"whole numbers take their scales from training images, and {error}; "
                "name a source by --calibrate"
            ) from error
    images = runs.images_for(model, folder, source, "train", limit=CALIBRATION_IMAGES, **reading)
    return images.images


def _print_file(out: Path, report: dict[str, Any]) -> None:
    say(
        f"{out}: {report['bytes']:,} bytes, {report['n_parameters']:,} parameters, "
        f"{report['precision']} weights"
    )
    if report["format"] == "c":
        say(
            f"on the device: {report['flash_bytes']:,} bytes of weights (flash), "
            f"{report['ram_bytes']:,} bytes of scratch (RAM)"
            + (", computed in whole numbers" if report["integers_only"] else "")
        )


def _print_comparison(report: dict[str, Any]) -> None:
    original, exported = report["accuracy_original"], report["accuracy_exported"]
    say(
        f"{report['n_images']:,} test images of {report['check']}: accuracy "
        f"{100 * original:.2f}% before, {100 * exported:.2f}% after "
        f"({100 * (exported - original):+.2f} points);"
        f" largest difference of a probability {report['max_abs_difference']:.2g}"
    )
