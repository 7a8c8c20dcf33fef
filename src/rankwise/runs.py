"""A training run in a folder: its configuration, what an interruption keeps, its report.

A run folder holds ``run.json`` (what was asked for), ``subnets/`` (finished sub-networks, or the
last epoch of a joint training),
``model.safetensors`` and ``model.json``, ``report.json`` (written last: its presence means the
run is complete) and two pictures.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import write_json
from rankwise._memory import PeakMemory
from rankwise._version import __version__
from rankwise.data import ImageSet, check_no_shared_sources, load_images, read_image
from rankwise.errors import DataError, RunError
from rankwise.estimators import QuadraticClassifier
from rankwise.models import load_model
from rankwise.persistence import DESCRIPTION, WEIGHTS
from rankwise.varpro.batched import resolve_device
from rankwise.varpro.checkpoints import CHECKPOINT, known_of
from rankwise.varpro.convolutional_presets import CONVOLUTIONAL_PRESETS
from rankwise.varpro.presets import GIVEN, PRESETS, check_given, sized_to_data

CONFIGURATION = "run.json"
REPORT = "report.json"
SUBNETS = "subnets"


@dataclass(frozen=True)
class TrainingRun:
    """What is asked of a run; equal runs give equal models.

    Parameters
    ----------
    source : str
        Anything `rankwise.load_images` reads.
    preset : str or None
    parameters : dict
        Parameters of `QuadraticClassifier` that are set.
    reading : dict
        Options of `rankwise.load_images`: ``size``, ``grey``, ``on_error``, ``source_pattern``.
    limit : int or None
        Training images, drawn with the seed; default the preset's.
    seed : int
        42, as in the second paper's section C.2.
    bootstrap : bool
        Bootstrap on the test images afterwards: transductive, kept apart.
    """

    source: str
    preset: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 42
    bootstrap: bool = False


def train(
    run: TrainingRun,
    out: Path,
    *,
    workers: int = -1,
    device: str = "auto",
    overwrite: bool = False,
    verbose: bool = False,
) -> dict[str, Any]:
    """Carry out a run, go on with an interrupted one, or return the report of a complete one.

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

    Returns
    -------
    dict
        The report, as in ``report.json``.

    Raises
    ------
    RunError
        If the folder holds another run.
    DataError
        If the source can't be read.
    """
    with PeakMemory() as memory:
        report, draw = _train(
            run, out, workers=workers, device=device, overwrite=overwrite, verbose=verbose
        )
    if not report.get("already_complete"):
        report["peak_memory_mb"] = memory.megabytes
        draw()
        write_json(out / REPORT, report)
    return report


def _train(
    run: TrainingRun, out: Path, *, workers: int, device: str, overwrite: bool, verbose: bool
) -> tuple[dict[str, Any], Callable[[], None]]:
    """The run itself; gives its report and what draws its pictures."""
    begin = time.perf_counter()
    device = resolve_device(device)
    check_given(run.preset, {k: v for k, v in run.parameters.items() if k in GIVEN})
    if run.bootstrap and run.preset in CONVOLUTIONAL_PRESETS:
        raise ValueError(
            f"bootstrapping needs sub-networks, and preset {run.preset!r} has none; use preset "
            "'windowed' or 'pereyra'"
        )
    if workers == 0:
        raise ValueError("workers must be a number of processes, or -1 for one a core, got 0")
    source = Path(run.source)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise RunError(f"{out} lies inside the source {source}; choose a folder outside it")
    model = QuadraticClassifier(
        run.preset,
        **run.parameters,
        n_jobs=workers,
        device=device,
        checkpoint_dir=out / SUBNETS,
        random_state=run.seed,
        verbose=int(verbose),
    )
    train_set, test_set = _read(run, verbose)
    if run.bootstrap and run.preset is None and "n_subnets" not in run.parameters:
        # The default network may have no sub-networks; a bootstrap needs them.
        model.set_params(n_subnets=sized_to_data(len(train_set)))
    loaded = time.perf_counter()
    configuration = _configuration(run, train_set, test_set)
    previous = _claim(out, configuration, overwrite)
    if previous is not None and (not run.bootstrap or "bootstrap" in previous):
        return previous | {"already_complete": True}, lambda: None
    resumed = finished_parts(out)
    model.fit(train_set.images, _names(train_set))
    model.save(out)
    fitted = time.perf_counter()
    outputs = model.outputs(test_set.images)
    inductive = _accuracy(model, outputs, test_set)
    train_accuracy = _accuracy(model, model.outputs(train_set.images), train_set)
    end = time.perf_counter()
    report: dict[str, Any] = {
        "inductive_accuracy": inductive,
        "train_accuracy": train_accuracy,
        "n_parameters_units": model.n_parameters_units_,
        "n_parameters_total": model.n_parameters_total_,
        "seconds": {
            "load": loaded - begin,
            **model.seconds_,
            "evaluate": end - fitted,
            "total": end - begin,
        },
        "peak_memory_mb": None,
        "status": model.status_,
        "statuses": model.statuses_,
        "preset": model.preset_,
        "n_subnets": len(model.subnet_reports_),
        "resumed_subnets": resumed["sub-networks"],
        "resumed_epochs": resumed["epochs"],
        "n_units": model.network_.n_units,
        "epochs": len(model.history_),
        "history": model.history_,
        "output_layer": model.output_layer_,
        "ridge": model.ridge_,
        "rank": model.rank_,
        "condition": model.condition_,
        "train": _describe(train_set),
        "test": _describe(test_set),
        "run": configuration["run"],
        "environment": environment() | {"workers": workers, "device": device},
    }
    if run.bootstrap:
        report["bootstrap"] = _bootstrap(model, test_set, out)
    return report, lambda: _draw(model, outputs, test_set, out)


def evaluate(folder: Path, source: str, split: str = "test", **reading: Any) -> dict[str, Any]:
    """Accuracy of a saved model on a source, with its confusion matrix.

    Images are resized, and turned to grey, as the model's were. The seed and the source pattern
    of a hold-out are those of the run unless given, so that its test images are the run's own.

    Parameters
    ----------
    folder : Path
        Of a run, or of a model saved by `QuadraticClassifier.save`.
    source, split : str
        As for `rankwise.load_images`.
    **reading
        More options of `rankwise.load_images`; None counts as not given.
    """
    model = load_model(folder)
    options = _reading_of_run(folder) | {k: v for k, v in reading.items() if v is not None}
    images = images_for(model, folder, source, split, **options)
    unknown = set(images.class_names) - {str(c) for c in model.classes_}
    if unknown:
        raise DataError(
            f"{source} has classes that the model doesn't know: {_some(unknown)}; it was trained "
            f"on {_some({str(c) for c in model.classes_})}"
        )
    begin = time.perf_counter()
    outputs = model.outputs(images.images)
    seconds = time.perf_counter() - begin
    return {
        "accuracy": _accuracy(model, outputs, images),
        "n_samples": len(images),
        "classes": [str(c) for c in model.classes_],
        "confusion": confusion(model, outputs, images).tolist(),
        "seconds": seconds,
        "source": source,
        "split": split,
        "seed": options.get("seed"),
        "fingerprint": images.fingerprint,
        "skipped": list(images.skipped),
        "model": str(folder),
    }


def images_for(
    model: QuadraticClassifier, folder: Path, source: str, split: str = "test", **reading: Any
) -> ImageSet:
    """Images of a source as a saved model takes them, held out as its run held out.

    Parameters
    ----------
    model : QuadraticClassifier
    folder : Path
        Where it was saved.
    source, split, **reading
        As for `evaluate`.
    """
    options = _reading_of_run(folder) | {k: v for k, v in reading.items() if v is not None}
    return load_images(source, split=split, **_fitting_options(model), **options)


def predict(folder: Path, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Labels of image files: the most probable class of each, and all probabilities."""
    model = load_model(folder)
    result = []
    for path in paths:
        image = read_image(path, image_shape=model.image_shape_)
        probabilities = model.predict_proba(image[None])[0]
        best = int(probabilities.argmax())
        result.append(
            {
                "file": str(path),
                "label": str(model.classes_[best]),
                "probability": float(probabilities[best]),
                "probabilities": {
                    str(c): float(p) for c, p in zip(model.classes_, probabilities, strict=True)
                },
            }
        )
    return result


def environment() -> dict[str, Any]:
    """Versions and hardware that a figure was measured with."""
    return {
        "rankwise": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "scikit-learn", "torch")},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def confusion(model: QuadraticClassifier, outputs: np.ndarray, images: ImageSet) -> np.ndarray:
    """Counts: true class down, predicted across, both in the model's order."""
    from sklearn.metrics import confusion_matrix

    names = [str(c) for c in model.classes_]
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    return confusion_matrix(_names(images), predicted, labels=names)


def _read(run: TrainingRun, verbose: bool) -> tuple[ImageSet, ImageSet]:
    limit = run.limit
    options: dict[str, Any] = dict(run.reading, seed=run.seed, progress=verbose)
    if limit is None and run.preset in PRESETS:
        limit = PRESETS[run.preset].n_train
    train_set = load_images(run.source, split="train", limit=limit, **options)
    test_set = load_images(run.source, split="test", **options)
    if train_set.image_shape != test_set.image_shape:
        raise DataError(
            f"{run.source}: training images have shape {train_set.image_shape}, test images "
            f"{test_set.image_shape}; give a size to bring them together"
        )
    check_no_shared_sources(train_set.source_ids, test_set.source_ids)
    unseen = np.setdiff1d(test_set.labels, train_set.labels)
    if len(unseen):
        names = {train_set.class_names[i] for i in unseen}
        raise DataError(
            f"{run.source}: classes in test images only, not in training: {_some(names)}"
        )
    return train_set, test_set


def _configuration(run: TrainingRun, train_set: ImageSet, test_set: ImageSet) -> dict[str, Any]:
    return {
        "run": _described(run),
        "train_fingerprint": train_set.fingerprint,
        "test_fingerprint": test_set.fingerprint,
        "rankwise": __version__,
    }


def _described(run: TrainingRun) -> dict[str, Any]:
    return {
        "source": run.source,
        "preset": run.preset,
        "parameters": _plain(run.parameters),
        "reading": _plain(run.reading),
        "limit": run.limit,
        "seed": run.seed,
    }


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back, so that a run equals itself after a stop."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def _claim(out: Path, configuration: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Make the folder this run's; give its report if it's complete already."""
    path = out / CONFIGURATION
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder to write the run into")
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise RunError(f"{out} isn't empty and holds no run; choose another folder")
    elif overwrite:
        for name in (SUBNETS, "bootstrap"):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (REPORT, DESCRIPTION, WEIGHTS, "units.png", "confusion.png"):
            (out / name).unlink(missing_ok=True)
    else:
        different = _differences(_read_json(path), configuration)
        if different:
            raise RunError(
                f"{out} holds another run (different: {', '.join(different)}); choose another "
                "folder, or discard it with --overwrite"
            )
        report = out / REPORT
        return _read_json(report) if report.exists() else None
    write_json(path, configuration)
    return None


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = [k for k in wanted if k != "run" and found.get(k) != wanted[k]]
    run = found.get("run", {})
    # The source may be spelled differently: the fingerprints say whether it's the same.
    asked = [k for k in wanted["run"] if k != "source" and run.get(k) != wanted["run"][k]]
    return asked + names


def _read_json(path: Path) -> dict[str, Any]:
    """A record of a run, or one sentence that names the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path} is damaged: it isn't JSON; discard the run with --overwrite"
        ) from error
    if not isinstance(value, dict) or not isinstance(value.get("run"), dict):
        raise RunError(f"{path} is damaged or foreign: it describes no run")
    return value


def holds(run: TrainingRun, out: Path) -> bool:
    """Whether a folder holds this very run, complete or not."""
    path = out / CONFIGURATION
    return path.exists() and _read_json(path)["run"] == _described(run)


def finished_parts(out: Path) -> dict[str, int]:
    """What an interrupted run has kept: ``sub-networks`` and ``epochs``."""
    epochs = known_of(out / SUBNETS / CHECKPOINT).get("epoch", 0)
    return {
        "sub-networks": len(list((out / SUBNETS).glob("[0-9]*.safetensors"))),
        "epochs": int(epochs),
    }


def _bootstrap(model: QuadraticClassifier, test_set: ImageSet, out: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    result = model.bootstrap_transductive(
        test_set.images, _names(test_set), folder=out / "bootstrap" / SUBNETS
    )
    result.classifier.save(out / "bootstrap")
    return {
        "agreement_with_guesses": result.report.agreement_with_guesses,
        "transductive_accuracy": result.report.transductive_accuracy,
        "guess_accuracy": result.report.guess_accuracy,
        "ambiguous_fraction": result.report.ambiguous_fraction,
        "seconds": time.perf_counter() - begin,
    }


def _draw(model: QuadraticClassifier, outputs: np.ndarray, images: ImageSet, out: Path) -> None:
    from rankwise.plots import save_confusion, save_units

    save_units(model.network_, out / "units.png")
    save_confusion(
        confusion(model, outputs, images), [str(c) for c in model.classes_], out / "confusion.png"
    )


def _names(images: ImageSet) -> np.ndarray:
    return np.asarray(images.class_names, dtype=str)[images.labels]


def _accuracy(model: QuadraticClassifier, outputs: np.ndarray, images: ImageSet) -> float:
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    return float(np.mean(predicted == _names(images)))


def _describe(images: ImageSet) -> dict[str, Any]:
    return {
        "n_samples": len(images),
        "split": images.split,
        "image_shape": list(images.image_shape),
        "fingerprint": images.fingerprint,
        "n_skipped": images.n_skipped,
    }


def _fitting_options(model: QuadraticClassifier) -> dict[str, Any]:
    shape = model.image_shape_
    return {"size": tuple(shape[:2]), "grey": len(shape) == 2}


def _reading_of_run(folder: Path) -> dict[str, Any]:
    """Seed and source pattern of the run in a folder: they decide what its hold-out is."""
    path = folder / CONFIGURATION
    if not path.exists():
        return {}
    run = _read_json(path)["run"]
    return {"seed": run["seed"]} | {
        k: v for k, v in run["reading"].items() if k == "source_pattern"
    }


def _some(names: set[str], most: int = 5) -> str:
    shown = sorted(names)[:most]
    return ", ".join(shown) + (", …" if len(names) > most else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
