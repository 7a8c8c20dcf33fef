"""A training run in a folder, from images to a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._claims import checksum, held, refuse_foreign
from rankwise._device import resolve_device
from rankwise._files import write_json
from rankwise._machine import environment
from rankwise._memory import PeakMemory
from rankwise.cluster import described
from rankwise.data import ImageSet
from rankwise.errors import RunError
from rankwise.estimators._classifier import ImageClassifier
from rankwise.estimators.convolutional import ConvolutionalClassifier
from rankwise.estimators.files import WEIGHTS
from rankwise.estimators.options import check_options, classifier_of, training_options
from rankwise.estimators.quadratic import QuadraticClassifier
from rankwise.networks.probabilities import expected_calibration_error
from rankwise.runs.exploring import write_explorer
from rankwise.runs.reading import describe_images, joined, names_of, read_run
from rankwise.runs.records import (
    CONFIGURATION,
    EXPLORED,
    REPORT,
    SUBNETS,
    TrainingRun,
    claim,
    configuration_of,
    finished_parts,
    holds,
)
from rankwise.runs.use import accuracy_of, confusion
from rankwise.training.convolutional_presets import CONVOLUTIONAL_PRESETS
from rankwise.training.presets import DEFAULT, PRESETS, recommended


def train(
    run: TrainingRun,
    out: Path,
    *,
    workers: int = -1,
    device: str = "auto",
    overwrite: bool = False,
    verbose: bool = False,
    say: Callable[[str], object] = lambda line: None,
    command: str = "",
) -> dict[str, Any]:
    """Carry out a run, go on with an interrupted one, or return the report of a complete one.

    Its seconds are those of every attempt: what interrupted ones spent on sub-networks or epochs
    is ``earlier``, and part of the others. A bootstrap asked for later keeps the seconds of the
    training and counts its own apart. Where no preset is named, the kind of classifier is chosen by
    looking at the images (`presets.recommended`), except that a bootstrap needs sub-networks.

    Parameters
    ----------
    run : TrainingRun
    out : Path
    workers : int
        Sub-networks trained at a time, or threads; -1 for one a core. Doesn't change the model.
    device : {"auto", "cpu", "cuda"}
    overwrite : bool
        Discard what the folder holds.
    verbose : bool
        Progress bars on standard error.
    say : callable
        Told, in one line each, which classifier was chosen and why, and what to be wary of.
    command : str
        What the report names as the command.

    Returns
    -------
    dict
        The report, as in ``report.json``, and ``resumed_subnets`` and ``resumed_epochs``: what an
        interrupted run had left.

    Raises
    ------
    RunError
        If the folder holds another run, or another process trains in it.
    ValueError
        If a choice isn't accepted.
    DataError
        If the source can't be read.
    """
    source = Path(run.source).expanduser()
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise RunError(f"{out} lies inside the source {source}; choose a folder outside it")
    refuse_foreign(out, "run", own=(out / CONFIGURATION).exists())
    with held(out, "run"):
        with PeakMemory() as memory:
            report, draw, show = _train(
                run,
                out,
                workers=workers,
                device=device,
                overwrite=overwrite,
                verbose=verbose,
                say=say,
            )
        if not report.get("already_complete"):
            report["command"] = command
            report["peak_memory_mb"] = max(memory.megabytes, report["peak_memory_mb"] or 0.0)
            draw()
            show(report)
            # Last, since a run with a report is complete. Only times tell the report of a run that
            # was interrupted from another's.
            kept = {k: v for k, v in report.items() if not k.startswith("resumed_")}
            write_json(out / REPORT, kept)
    return report


def _train(
    run: TrainingRun,
    out: Path,
    *,
    workers: int,
    device: str,
    overwrite: bool,
    verbose: bool,
    say: Callable[[str], object],
) -> tuple[dict[str, Any], Callable[[], None], Callable[[dict[str, Any]], object]]:
    """The run itself; gives its report, what draws its pictures, and what writes its page."""
    begin = time.perf_counter()
    device = resolve_device(device)
    check_options(run.preset, run.parameters)
    if run.bootstrap and run.preset in CONVOLUTIONAL_PRESETS:
        raise ValueError(
            f"bootstrapping needs sub-networks, and preset {run.preset!r} has none; use preset "
            "'windowed' or 'pereyra', or name none"
        )
    if run.bootstrap_rounds < 1 or (run.bootstrap_rounds > 1 and not run.bootstrap):
        raise ValueError(
            f"bootstrap_rounds is {run.bootstrap_rounds}; a whole number at least 1 is accepted, "
            "and more than 1 together with bootstrap"
        )
    if workers == 0:
        raise ValueError("workers must be a number of processes, or -1 for one a core, got 0")
    train_set, test_set, validation_set = _read(run, verbose)
    preset, choice = run.preset, None
    if preset is None:
        preset, reason = recommended(training_options(run.parameters), train_set.image_shape)
        if run.parameters.get("squash"):
            preset, reason = None, "squash is given, which only they have"
        if run.bootstrap and preset in CONVOLUTIONAL_PRESETS:
            run, reason = _with_subnetworks(run, preset, out, overwrite), "bootstrapping needs them"
            preset = None
        choice = f"chosen: {_KINDS[preset is None]}, since {reason}; --preset names another"
        say(choice)
    better = _pretrained_is_likely_better(train_set.image_shape)
    if better:
        say(better)
    model = classifier_of(
        preset,
        **run.parameters,
        n_jobs=workers,
        device=device,
        random_state=run.seed,
        verbose=int(verbose),
    )
    loaded = time.perf_counter()
    configuration = configuration_of(run, train_set, test_set)
    if validation_set is not None:
        configuration["validation_fingerprint"] = validation_set.fingerprint
    previous = claim(out, configuration, overwrite)
    if previous is not None and (not run.bootstrap or _has_bootstrap(run, previous)):
        return previous | {"already_complete": True}, lambda: None, lambda report: None
    resumed = finished_parts(out)
    if isinstance(model, ConvolutionalClassifier) and not any(resumed.values()):
        say(f"to train: {model.expect(train_set.images, names_of(train_set))}")
    if validation_set is None:
        model.fit(
            train_set.images,
            names_of(train_set),
            groups=train_set.source_ids,
            checkpoint_dir=out / SUBNETS,
        )
    else:
        images, validates = joined(train_set, validation_set)
        both = np.concatenate([names_of(train_set), names_of(validation_set)])
        model.fit(images, both, validation=validates, checkpoint_dir=out / SUBNETS)
    model.save(out)
    fitted = time.perf_counter()
    outputs = model.outputs(test_set.images)
    probabilities = np.exp(model.log_probabilities_of(outputs))
    inductive = accuracy_of(model, outputs, test_set)
    train_accuracy = accuracy_of(model, model.outputs(train_set.images), train_set)
    end = time.perf_counter()
    seconds = {
        "load": loaded - begin,
        **model.seconds_,
        "evaluate": end - fitted,
        "total": end - begin + model.seconds_["earlier"],
    }
    report: dict[str, Any] = {
        "inductive_accuracy": inductive,
        "train_accuracy": train_accuracy,
        "expected_calibration_error": expected_calibration_error(
            probabilities, np.searchsorted(model.classes_, names_of(test_set))
        ),
        "n_parameters_units": model.n_parameters_units_,
        "n_parameters_total": model.n_parameters_total_,
        # A bootstrap asked for later reads the finished parts back: what they took stays.
        "seconds": seconds if previous is None else previous["seconds"],
        "peak_memory_mb": None if previous is None else previous.get("peak_memory_mb"),
        "status": model.status_,
        "statuses": model.statuses_,
        "preset": model.preset_,
        "choice": choice,
        "n_subnets": len(model.subnet_reports_),
        "resumed_subnets": resumed["sub-networks"],
        "resumed_epochs": resumed["epochs"],
        "n_units": model.network_.n_units,
        "epochs": len(model.history_),
        "history": model.history_,
        "output_layer": model.output_layer_,
        "precision": model.precision_,
        "selection": model.selection_,
        "ridge": model.ridge_,
        "rank": model.rank_,
        "condition": model.condition_,
        "train": describe_images(train_set),
        "test": describe_images(test_set),
        "validation": None if validation_set is None else describe_images(validation_set),
        "run": configuration["run"],
        "model": checksum(out / WEIGHTS),
        "environment": environment() | {"workers": workers, "device": device} | described(),
    }
    report["warnings"] = _warnings(report, names_of(test_set))
    for line in report["warnings"]:
        say(f"warning: {line}")
    if run.bootstrap:
        assert isinstance(model, QuadraticClassifier)
        report["bootstrap"] = _bootstrap(run, model, test_set, out)

    def show(report: dict[str, Any]) -> None:
        parts = [("train", train_set), ("test", test_set)]
        write_explorer(model, parts, report, out, out / EXPLORED)

    return report, lambda: _draw(model, outputs, test_set, out), show


_KINDS = (
    f"convolutional units, preset {DEFAULT!r}",
    "sub-networks of quadratic units, sized to the data",
)
_FAR, _NEAR = 0.15, 0.05
_PHOTOGRAPH = 64
"""Side of colour images from which a network that has seen ImageNet is likely better."""


def _pretrained_is_likely_better(image_shape: tuple[int, ...]) -> str | None:
    """What ``rankwise head`` would do with photographs, in one line; None for other images."""
    if len(image_shape) != 3 or image_shape[2] < 3 or min(image_shape[:2]) < _PHOTOGRAPH:
        return None
    return (
        "photographs? --backbone efficientnet-lite0 (rankwise head) fits the best last layer on a "
        "network that has seen a million photographs instead, and is likely better, since these "
        "images alone teach a network less"
    )


def _warnings(report: dict[str, Any], truth: np.ndarray) -> list[str]:
    """What the figures of a run say against it, and what to do, a line each."""
    found = []
    train, test = report["train_accuracy"], report["inductive_accuracy"]
    # Beside a glue, joint training's validation accuracies are those of the layer that went.
    of_this_layer = report["n_subnets"] > 0 or report["output_layer"] == "trained"
    history = report["history"] if of_this_layer else []
    seen = [e["validation_accuracy"] for e in history if e.get("validation_accuracy")]
    held_out, name = (max(seen), "validation") if seen else (test, "test")
    if train - held_out > _FAR:
        found.append(
            f"training accuracy {100 * train:.1f}% is far above the {100 * held_out:.1f}% of the "
            f"{name} images: the training images are learned by heart; more images help, or "
            "--preset tiny, or a pre-trained backbone (rankwise head)"
        )
    chance = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    if test < chance + _NEAR:
        found.append(
            f"test accuracy {100 * test:.1f}% is near the {100 * chance:.1f}% of always naming the "
            "largest class: look whether labels and images belong together, and whether --size "
            "leaves enough to see"
        )
    return found


def _with_subnetworks(
    run: TrainingRun, preset: str | None, out: Path, overwrite: bool
) -> TrainingRun:
    """The run with units of sub-networks, for a bootstrap of images whose default has none.

    The unit named is that of ``windowed``, so it changes nothing but the choice of the preset.
    """
    if not overwrite and holds(run, out):
        raise RunError(
            f"{out} holds this run with preset {preset!r}, the default for these images, which "
            "has no sub-networks to bootstrap; choose another folder, or discard it with "
            "--overwrite"
        )
    return replace(run, parameters={**run.parameters, "unit": PRESETS["windowed"].unit})


def _read(run: TrainingRun, verbose: bool) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    limit = run.limit
    options: dict[str, Any] = dict(run.reading, seed=run.seed, progress=verbose)
    if limit is None and run.preset in PRESETS:
        limit = PRESETS[run.preset].n_train
    # Sub-networks choose nothing by validation images, unless they are refined.
    judged = run.preset in (None, *CONVOLUTIONAL_PRESETS) or bool(run.parameters.get("refine"))
    return read_run(run.source, limit=limit, validates=judged and not run.bootstrap, **options)


def _has_bootstrap(run: TrainingRun, report: dict[str, Any]) -> bool:
    found = report.get("bootstrap")
    # Reports of earlier versions know of one round.
    return found is not None and len(found.get("rounds", [found])) == run.bootstrap_rounds


def _bootstrap(
    run: TrainingRun, model: QuadraticClassifier, test_set: ImageSet, out: Path
) -> dict[str, Any]:
    begin = time.perf_counter()
    result = model.bootstrap_transductive(
        test_set.images,
        names_of(test_set),
        rounds=run.bootstrap_rounds,
        folder=out / "bootstrap" / SUBNETS,
    )
    result.classifier.save(out / "bootstrap")
    rounds = [
        {name: value for name, value in asdict(each).items() if name != "inductive_accuracy"}
        for each in result.rounds
    ]
    return {
        **rounds[-1],
        "rounds": rounds,
        "seconds": time.perf_counter() - begin + result.classifier.seconds_["earlier"],
    }


def _draw(model: ImageClassifier, outputs: np.ndarray, images: ImageSet, out: Path) -> None:
    from rankwise.plots import save_confusion, save_units

    save_units(model.network_, out / "units.png", images=images.images)
    save_confusion(
        confusion(model, outputs, images), [str(c) for c in model.classes_], out / "confusion.png"
    )
