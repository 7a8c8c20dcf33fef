"""A trained model put to use: accuracy on a source, labels of image files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.data import ImageSet, load_images, read_image
from rankwise.errors import DataError, RunError
from rankwise.estimators import QuadraticClassifier
from rankwise.models import load_model
from rankwise.runs.reading import names_of, some_of
from rankwise.runs.records import CONFIGURATION, read_record


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
            f"{source} has classes that the model doesn't know: {some_of(unknown)}; it was trained "
            f"on {some_of({str(c) for c in model.classes_})}"
        )
    begin = time.perf_counter()
    outputs = model.outputs(images.images)
    seconds = time.perf_counter() - begin
    return {
        "accuracy": accuracy_of(model, outputs, images),
        "n_samples": len(images),
        "classes": [str(c) for c in model.classes_],
        "confusion": confusion(model, outputs, images).tolist(),
        "seconds": seconds,
        "source": source,
        "split": split,
        "seed": options.get("seed"),
        "fingerprint": images.fingerprint,
        "n_skipped": images.n_skipped,
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


def test_images_of(model: QuadraticClassifier, folder: Path) -> tuple[str, ImageSet]:
    """The source of the run in a folder, and the test images that the run held out.

    Parameters
    ----------
    model : QuadraticClassifier
    folder : Path
        Where it was saved.

    Raises
    ------
    RunError
        If the folder holds a model but no run, or a damaged one.
    DataError
        If the source can't be read any more.
    """
    path = folder / CONFIGURATION
    if not path.exists():
        raise RunError(f"{folder} holds no run that says its test images; name their source")
    run = read_record(path)["run"]
    options = _reading_of_run(folder)
    if not isinstance(run.get("source"), str):
        raise RunError(f"{path} is damaged: its run has no source; train it again")
    if "on_error" in run["reading"]:
        options["on_error"] = run["reading"]["on_error"]
    return run["source"], images_for(model, folder, run["source"], **options)


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


def confusion(model: QuadraticClassifier, outputs: np.ndarray, images: ImageSet) -> np.ndarray:
    """Counts: true class down, predicted across, both in the model's order."""
    from sklearn.metrics import confusion_matrix

    names = [str(c) for c in model.classes_]
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    return confusion_matrix(names_of(images), predicted, labels=names)


def accuracy_of(model: QuadraticClassifier, outputs: np.ndarray, images: ImageSet) -> float:
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    return float(np.mean(predicted == names_of(images)))


def _fitting_options(model: QuadraticClassifier) -> dict[str, Any]:
    shape = model.image_shape_
    return {"size": tuple(shape[:2]), "grey": len(shape) == 2}


def _reading_of_run(folder: Path) -> dict[str, Any]:
    """Seed and source pattern of the run in a folder: they decide what its hold-out is."""
    path = folder / CONFIGURATION
    if not path.exists():
        return {}
    run = read_record(path)["run"]
    if "seed" not in run or not isinstance(run.get("reading"), dict):
        raise RunError(f"{path} is damaged: its run has no seed or reading; train it again")
    return {"seed": run["seed"]} | {
        k: v for k, v in run["reading"].items() if k == "source_pattern"
    }
