"""``rankwise demo`` and ``train``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    pruning_of,
    reading_of,
    ridge_of,
)
from rankwise.cli._output import say
from rankwise.cli._stops import interrupted
from rankwise.cli._tables import percent, print_table, report_rows
from rankwise.cli._together import rank_here, refuse_several

if TYPE_CHECKING:
    from rankwise.runs import TrainingRun


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model and its pictures.")] = Path(
        "demo-out"
    ),
    as_json: Json = False,
) -> None:
    """Train on the handwritten digits embedded in scikit-learn; a few seconds."""
    from rankwise.estimators.models import load_model
    from rankwise.export import export_model
    from rankwise.runs import EXPORTED, TrainingRun, holds

    run = TrainingRun("digits", parameters={"n_subnets": 8}, bootstrap=True)
    # An earlier demo is shown anew; any other run is left alone.
    _train(run, out, workers=-1, device="cpu", overwrite=holds(run, out), as_json=as_json)
    page = out / f"{EXPORTED}.html"
    export_model(load_model(out), "html", page)
    if not as_json:
        say(f"Draw digits for it: open {page} in a browser.")


def train(
    source: Annotated[str, typer.Argument(help="digits, a hub id, a folder, an .npz file.")],
    out: Annotated[Path, typer.Option(help="Folder for the run.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="wide, accurate, small, tiny, nano (about 393, 96, 19, 5 and 1 thousand "
            "parameters on MNIST), "
            "windowed or pereyra (the paper's Table 3); default: small, or sub-networks sized to "
            "the data where an option that only they have is given."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Photographs: what rankwise head does, on efficientnet-lite0 or another."
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="symmetric, bilinear, colour, colour-bilinear or multilinear."),
    ] = None,
    units: Annotated[int | None, typer.Option(help="Units of the whole network.")] = None,
    subnets: Annotated[int | None, typer.Option(help="Sub-networks that share them.")] = None,
    samples_per_subnet: Annotated[
        int | None, typer.Option(help="Mini-batch of a sub-network.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank-one forms summed in a unit.")] = None,
    activation: Annotated[
        str | None, typer.Option(help="tanh, logistic, relu, softplus, silu or gelu.")
    ] = None,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="Units without a bias.")] = False,
    partition: Annotated[
        bool, typer.Option("--partition", help="Deal images out: none to two sub-networks.")
    ] = False,
    rcond: Annotated[
        float | None,
        typer.Option(help="Drop singular values under this share of the largest (paper, 8.1)."),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Probabilities by a temperature that left-out images choose."
        ),
    ] = False,
    whole_image: Annotated[
        bool, typer.Option("--whole-image", help="Units without windows.")
    ] = False,
    solver: Annotated[
        str | None,
        typer.Option(
            help="levenberg-marquardt, minpack, trust-region, lbfgs, gradient-descent or search."
        ),
    ] = None,
    jacobian: Annotated[str | None, typer.Option(help="golub-pereyra or kaufman.")] = None,
    max_iter: Annotated[
        int | None, typer.Option(help="Iterations of a sub-network, or epochs.")
    ] = None,
    ridge: Annotated[
        str | None, typer.Option(help="Of the glue: a number per sample, gcv or loo.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="How units start: gaussian, or images: singular vectors of windows."),
    ] = None,
    grow: Annotated[
        int | None, typer.Option(help="Units that join behind the glue, the best of ten times N.")
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(
            help="Units then left out, the least needed first: a number, or a share under 1.",
            metavar="N|SHARE",
        ),
    ] = None,
    refine: Annotated[
        int | None, typer.Option(help="Epochs or steps of joint refinement behind that.")
    ] = None,
    refine_solver: Annotated[
        str | None,
        typer.Option(help="adamw on mini-batches, or gauss-newton on all images (few units)."),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(help="Of images trained on: moves, low-rank, moves+low-rank or none."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of training: float32, bfloat16, or auto: what this processor has."),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(help="Train as well as it gets in so many minutes.", metavar="MINUTES"),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Train this larger preset first, and learn its outputs beside the labels.",
            metavar="PRESET",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better validation accuracy."),
    ] = None,
    squash: Annotated[
        bool, typer.Option("--squash", help="Probabilities through a sigmoid of the outputs.")
    ] = False,
    squash_inside: Annotated[
        bool,
        typer.Option(
            "--squash-inside",
            help="Fit sub-networks with their outputs behind a sigmoid.",
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            help="Sub-networks or threads at a time; -1 for one a core. Under torchrun: threads of "
            "each process; -1 shares a machine's cores among its processes."
        ),
    ] = -1,
    device: Device = "auto",
    seed: Annotated[
        int, typer.Option(callback=checked_seed, help="The same seed gives the same model.")
    ] = 42,
    limit: TrainingLimit = None,
    size: Size = None,
    grey: Grey = False,
    channels: Channels = None,
    skip_bad: SkipBad = False,
    source_pattern: SourcePattern = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    without: Without = None,
    bootstrap: Annotated[
        bool,
        typer.Option(
            "--bootstrap",
            help="Then train on the test images with guessed labels (transductive). Without a "
            "preset: sub-networks sized to the data.",
        ),
    ] = False,
    bootstrap_rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Passes of --bootstrap, each on the guesses of the one before."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a classifier; interrupted, the same command goes on where it stopped.

    torchrun --nproc-per-node 2 -m rankwise train ... trains a convolutional preset in processes
    that share out each batch, to the same model.
    """
    from rankwise.runs import TrainingRun

    if bootstrap_rounds is not None and not bootstrap:
        raise typer.BadParameter("--bootstrap-rounds is for --bootstrap, which isn't given")
    given = {
        "unit": unit,
        "n_units": units,
        "n_subnets": subnets,
        "samples_per_subnet": samples_per_subnet,
        "rank": rank,
        "activation": activation,
        "window": False if whole_image else None,
        "solver": solver,
        "jacobian": jacobian,
        "max_iter": max_iter,
        "ridge": ridge_of(ridge),
        "start": start,
        "grow": grow,
        "prune": pruning_of(prune),
        "refine": refine,
        "refine_solver": refine_solver,
        "augmentation": augmentation,
        "precision": precision,
        "time_budget": time_budget,
        "teacher": teacher,
        "patience": patience,
        "squash": squash or None,
        "squash_inside": squash_inside or None,
        "bias": False if no_bias else None,
        "partition": partition or None,
        "rcond": rcond,
        "probabilities": "calibrated" if calibrate else None,
    }
    reading = reading_of(
        size, grey, skip_bad, source_pattern, channels, image_column, label_column, without
    )
    if backbone is not None:
        refuse_several("train --backbone")
        _train_head(
            source, out, backbone, {k for k, v in given.items() if v is not None},
            preset=preset, bootstrap=bootstrap, reading=reading, limit=limit, seed=seed,
            device=device, overwrite=overwrite, as_json=as_json,
        )  # fmt: skip
        return
    run = TrainingRun(
        source=source,
        preset=preset,
        parameters={name: value for name, value in given.items() if value is not None},
        reading=reading,
        limit=limit,
        seed=seed,
        bootstrap=bootstrap,
        bootstrap_rounds=bootstrap_rounds or 1,
    )
    _train(run, out, workers=workers, device=device, overwrite=overwrite, as_json=as_json)


def _train_head(
    source: str,
    out: Path,
    backbone: str,
    given: set[str],
    *,
    preset: str | None,
    bootstrap: bool,
    reading: dict[str, Any],
    limit: int | None,
    seed: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """``rankwise train --backbone``: a head, and none of the choices of a network."""
    from rankwise.runs.heads import HeadRun, fit_head

    others = sorted(
        given | ({"preset"} if preset else set()) | ({"bootstrap"} if bootstrap else set())
    )
    if others:
        raise typer.BadParameter(
            f"--backbone fits a last layer, which has no {', '.join(others)}; leave them out, or "
            "leave out --backbone"
        )
    run = HeadRun(source=source, backbone=backbone, limit=limit, seed=seed, reading=reading)
    report = fit_head(
        run, out, device=device, overwrite=overwrite, verbose=not as_json,
        command=shlex.join(["rankwise", *sys.argv[1:]]),
    )  # fmt: skip
    if as_json:
        typer.echo(json_text(report))
        return
    print_table(
        f"{source} → {out}",
        ("", ""),
        [
            ("inductive accuracy (test images never seen)", percent(report["inductive_accuracy"])),
            ("leave-one-out accuracy", percent(report["leave_one_out_accuracy"])),
            ("backbone", report["backbone"]["name"]),
        ],
    )
    again = shlex.join(["rankwise", "head", source, "--backbone", str(backbone), "--out", str(out)])
    say(f"More of it: {again}")


def _train(
    run: TrainingRun, out: Path, *, workers: int, device: str, overwrite: bool, as_json: bool
) -> None:
    from rankwise import runs
    from rankwise._reading import blamed_on
    from rankwise.errors import RunError
    from rankwise.estimators.models import load_model
    from rankwise.export import footprint

    try:
        report = runs.train(
            run,
            out,
            workers=workers,
            device=device,
            overwrite=overwrite,
            verbose=not as_json,
            say=lambda line: say(line, err=True),
            command=shlex.join(["rankwise", *sys.argv[1:]]),
            together=rank_here() is not None,
        )
    except KeyboardInterrupt:
        parts = runs.finished_parts(out)
        kept = [f"{n} finished {what}" for what, n in parts.items() if n]
        raise interrupted(
            f": {' and '.join(kept)} are kept in {out}; the same command goes on from there"
            if kept
            else f": nothing was finished yet in {out}; the same command begins anew"
        ) from None
    if rank_here():
        return
    report = report | footprint(load_model(out))
    if as_json:
        typer.echo(json_text(report))
        return
    with blamed_on(out / runs.REPORT, RunError, "; remove it, and the same command makes it again"):
        rows = report_rows(report)
    print_table(f"{run.source} → {out}", ("", ""), rows)
    if report.get("already_complete"):
        say("This run was complete already; --overwrite trains it again.")
    say(f"Pictures: {out / 'units.png'}, {out / 'confusion.png'}")
    say(f"What went wrong, and what next: open {out / runs.EXPLORED} in a browser.")
