"""A training run in a folder, from images to a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._arrays import blocks
from rankwise._claims import checksum, held, refuse_foreign
from rankwise._device import resolve_device
from rankwise._files import expanded, write_json
from rankwise._machine import environment
from rankwise._memory import PeakMemory
from rankwise.cluster import active, described
from rankwise.data import ImageSet
from rankwise.errors import RunError
from rankwise.estimators._classifier import ImageClassifier
from rankwise.estimators.convolutional import ConvolutionalClassifier
from rankwise.estimators.files import WEIGHTS
from rankwise.estimators.options import check_options, classifier_of, training_options
from rankwise.estimators.quadratic import QuadraticClassifier
from rankwise.networks.probabilities import expected_calibration_error
from rankwise.runs.cautions import pretrained_is_likely_better, warnings_of
from rankwise.runs.exploring import write_explorer
from rankwise.runs.planning import refuse_untrainable
from rankwise.runs.reading import ORIGIN, describe_images, joined, names_of, read_run
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
    limit_of,
    refuse_inside,
)
from rankwise.runs.use import accuracy_of, confusion
from rankwise.training.convolutional_presets import CONVOLUTIONAL_PRESETS
from rankwise.training.distributed import (
    check_same,
    data_parallel,
    ending_together,
    is_first,
    is_parallel,
    n_processes,
    of_first,
)
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
    together: bool = False,
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
    together : bool
        Train a convolutional preset with the other processes of ``torchrun``, which make the same
        call; see `rankwise.training.distributed`. So it is wherever `data_parallel` surrounds the
        call. The first one writes the folder, and if one of them can't go on, none does. `workers`
        are the threads of each, -1 for its share of the cores; the device is the CPU.

    Returns
    -------
    dict
        The report, as in ``report.json``, and ``resumed_subnets`` and ``resumed_epochs``: what an
        interrupted run had left. Empty in a process that isn't the first.

    Raises
    ------
    RunError
        If the folder holds another run, or another process trains in it; or another one of those
        that train together can't go on.
    ValueError
        If a choice isn't accepted.
    DataError
        If the source can't be read.
    """
    out = expanded(out)
    refuse_inside(out, run.source)
    together = together or is_parallel()
    if together:
        device = _device_of_several(run, device)
    with ExitStack() as holding:
        with PeakMemory() as memory:
            with data_parallel() if together else nullcontext(), ending_together():
                first = is_first()
                if first:
                    refuse_foreign(out, "run", own=(out / CONFIGURATION).exists())
                    holding.enter_context(held(out, "run"))
                of_first(None)  # the others read nothing before the folder is had
                fitted = _fit(
                    run,
                    out,
                    workers=workers,
                    device=device,
                    overwrite=overwrite,
                    verbose=verbose and first,
                    say=say if first else _say_nothing,
                )
                of_first(None)  # none leaves before all are done
            if not first:
                return {}
            if not isinstance(fitted, _Fitted):
                return fitted | {"already_complete": True}
            report, outputs = _report(fitted, out, say=say)
        report["command"] = command
        report["peak_memory_mb"] = max(memory.megabytes, report["peak_memory_mb"] or 0.0)
        _draw(fitted.model, outputs, fitted.test_set, out)
        parts = [("train", fitted.train_set), ("test", fitted.test_set)]
        write_explorer(fitted.model, parts, report, out, out / EXPLORED)
        # Last, since a run with a report is complete. Only times tell the report of a run that was
        # interrupted from another's.
        kept = {k: v for k, v in report.items() if not k.startswith("resumed_")}
        write_json(out / REPORT, kept)
    return report


def _device_of_several(run: TrainingRun, device: str) -> str:
    """What processes that train together compute on; refuses what they can't train."""
    if run.preset not in CONVOLUTIONAL_PRESETS:
        found = "none is named" if run.preset is None else f"{run.preset!r} is another"
        raise RunError(
            f"several processes train a convolutional preset together "
            f"({', '.join(CONVOLUTIONAL_PRESETS)}), and {found}; name one with --preset, or train "
            "in one process"
        )
    if device not in ("auto", "cpu"):
        raise RunError(
            f"processes that train together compute on CPUs, and device {device!r} is another; "
            "leave --device out, or train in one process"
        )
    return "cpu"


def _idle_processes(model: ConvolutionalClassifier, images: ImageSet) -> str | None:
    """In one line, how few processes a batch has work for; None where all have some."""
    joint = model.plan_for(images.image_shape, len(images)).joint
    shards = len(list(blocks(joint.batch_size, joint.shard_size(joint.batch_size))))
    if shards >= n_processes():
        return None
    return (
        f"note: a batch of {joint.batch_size} images has work for {shards} of the "
        f"{n_processes()} processes"
    )


def _say_nothing(line: str) -> None:
    pass


@dataclass
class _Fitted:
    """A fitted model, and what its report needs."""

    run: TrainingRun
    model: ImageClassifier
    train_set: ImageSet
    test_set: ImageSet
    validation_set: ImageSet | None
    configuration: dict[str, Any]
    previous: dict[str, Any] | None
    resumed: dict[str, int]
    choice: str | None
    environment: dict[str, Any]
    begin: float
    loaded: float


def _fit(
    run: TrainingRun,
    out: Path,
    *,
    workers: int,
    device: str,
    overwrite: bool,
    verbose: bool,
    say: Callable[[str], object],
) -> _Fitted | dict[str, Any]:
    """Read, claim the folder and train; or the report of a folder where that is done."""
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
    better = pretrained_is_likely_better(train_set.image_shape)
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
    if active() is not None and isinstance(model, ConvolutionalClassifier):
        say(
            f"preset {preset!r} is trained on this machine: --cluster takes its glue at most; "
            "presets 'windowed' and 'pereyra' train sub-networks there"
        )
    loaded = time.perf_counter()
    configuration = configuration_of(run, train_set, test_set)
    if validation_set is not None:
        configuration["validation_fingerprint"] = validation_set.fingerprint
    # Another machine may have the same images elsewhere.
    told = {**configuration, "run": {**configuration["run"], "source": None}}
    check_same("data or options", {k: v for k, v in told.items() if k not in ORIGIN})
    if is_first() and (overwrite or not holds(run, out)):
        refuse_untrainable(model, train_set)
    previous = of_first(claim(out, configuration, overwrite) if is_first() else None)
    if previous is not None and (not run.bootstrap or _has_bootstrap(run, previous)):
        return previous
    resumed = of_first(finished_parts(out))
    images, labels, validates = train_set.images, names_of(train_set), None
    if validation_set is not None:
        images, validates = joined(train_set, validation_set)
        labels = np.concatenate([labels, names_of(validation_set)])
    groups = train_set.source_ids if validation_set is None else None
    apart = {"groups": groups, "validation": validates}
    if isinstance(model, ConvolutionalClassifier) and not any(resumed.values()):
        say(f"to train: {model.expect(images, labels, **apart)}")
        idle = _idle_processes(model, train_set) if is_parallel() else None
        if idle:
            say(idle)
    model.fit(images, labels, **apart, checkpoint_dir=out / SUBNETS)
    used = {"workers": workers, "device": device} | described()
    if is_parallel():
        used["processes"] = n_processes()
    return _Fitted(
        run, model, train_set, test_set, validation_set, configuration, previous, resumed, choice,
        environment() | used, begin, loaded,
    )  # fmt: skip


def _report(
    fit: _Fitted, out: Path, *, say: Callable[[str], object]
) -> tuple[dict[str, Any], np.ndarray]:
    """Save the model; give its report, and its outputs for the test images."""
    run, model, previous = fit.run, fit.model, fit.previous
    train_set, test_set, validation_set = fit.train_set, fit.test_set, fit.validation_set
    model.save(out)
    fitted = time.perf_counter()
    outputs = model.outputs(test_set.images)
    probabilities = np.exp(model.log_probabilities_of(outputs))
    inductive = accuracy_of(model, outputs, test_set)
    train_accuracy = accuracy_of(model, model.outputs(train_set.images), train_set)
    end = time.perf_counter()
    seconds = {
        "load": fit.loaded - fit.begin,
        **model.seconds_,
        "fit": model.seconds_["total"],
        "evaluate": end - fitted,
        "total": end - fit.begin + model.seconds_["earlier"],
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
        "choice": fit.choice,
        "n_subnets": len(model.subnet_reports_),
        "resumed_subnets": fit.resumed["sub-networks"],
        "resumed_epochs": fit.resumed["epochs"],
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
        "run": fit.configuration["run"],
        "model": checksum(out / WEIGHTS),
        "environment": fit.environment,
    }
    report["warnings"] = warnings_of(report, names_of(test_set))
    for line in report["warnings"]:
        say(f"warning: {line}")
    if run.bootstrap:
        assert isinstance(model, QuadraticClassifier)
        report["bootstrap"] = _bootstrap(run, model, test_set, out)
    return report, outputs


_KINDS = (
    f"convolutional units, preset {DEFAULT!r}",
    "sub-networks of quadratic units, sized to the data",
)


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


_ANY_IMAGES = (8, 8)


def _will_be_convolutional(run: TrainingRun) -> bool:
    """Whether a convolutional preset is trained, as far as it's known before images are read."""
    preset = run.preset
    if preset is None and not run.parameters.get("squash"):
        preset, _ = recommended(training_options(run.parameters), _ANY_IMAGES)
    return preset in CONVOLUTIONAL_PRESETS


def _read(run: TrainingRun, verbose: bool) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    limit = limit_of(run.limit, run.preset)
    options: dict[str, Any] = dict(run.reading, seed=run.seed, progress=verbose)
    # Sub-networks choose nothing by validation images, unless they are refined.
    judged = _will_be_convolutional(run) or bool(run.parameters.get("refine"))
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
