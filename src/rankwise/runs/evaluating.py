"""``rankwise evaluate``: how good a saved model is on a source, and where it is wrong."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import expanded
from rankwise.data import ImageSet
from rankwise.errors import DataError, RunError
from rankwise.estimators.convolutional import ConvolutionalClassifier
from rankwise.estimators.models import load_model
from rankwise.explore.lists import MISTAKE_COLUMNS, write_list
from rankwise.explore.seen import log_probabilities_from
from rankwise.networks.copies import views
from rankwise.runs.exploring import report_of, write_explorer
from rankwise.runs.reading import names_of, some_of, trained_on
from rankwise.runs.records import refuse_model_file
from rankwise.runs.use import accuracy_of, chosen_images, confusion, record_of_run


def evaluate(
    folder: Path,
    source: str,
    split: str | None = None,
    *,
    mistakes: Path | None = None,
    tta: str | None = None,
    backbone: str | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Accuracy of a saved model on a source, with its confusion matrix.

    Images are resized and converted as the model's were. The seed of a hold-out is that of the
    run unless given, and so is the source pattern where the names of the files have it.

    Parameters
    ----------
    folder : Path
        Of a run, or of a model saved by `QuadraticClassifier.save`.
    source : str
        As for `rankwise.load_images`.
    split : str, optional
        As for `rankwise.load_images`. By default the test images of the run's own source, known by
        its absolute place or its content; of another source the test part or, where it has none,
        all images.
    mistakes : Path, optional
        File of the images that are wrong, the most confident first: ``.csv``, with their names,
        true and predicted labels and confidences, or ``.html``, the page of `explore`.
    tta : {"mirror", "shifts"}, optional
        Copies of each image, as `ConvolutionalClassifier` has them. Default: the model's own.
    backbone : str, optional
        For a head that was saved without it.
    **reading
        More options of `rankwise.load_images`; None counts as not given.

    Raises
    ------
    ValueError
        If the model takes no copies, or not these.
    RunError
        If the test images of the run's own source aren't those that it held out.
    DataError
        If the source can't be read, or has images of a class that the model doesn't know.
    """
    folder = expanded(folder)
    if mistakes is not None:
        mistakes = expanded(mistakes)
        check_mistakes(mistakes, folder)
    model = load_model(folder, backbone)
    if tta is not None:
        if not isinstance(model, ConvolutionalClassifier):
            raise ValueError(f"tta={tta!r} is for convolutional units; {folder} holds other ones")
        model.set_params(tta=tta)
    images, scored = chosen_images(model, folder, source, split, **reading)
    unknown = set(names_of(images)) - {str(c) for c in model.classes_}
    if unknown:
        raise DataError(
            f"{source} has classes that the model doesn't know: {some_of(unknown)}; it was trained "
            f"on {some_of({str(c) for c in model.classes_})}"
        )
    seed = reading.get("seed")
    begin = time.perf_counter()
    outputs = model.outputs(images.images)
    seconds = time.perf_counter() - begin
    if mistakes is not None:
        _write_mistakes(model, images, outputs, folder, mistakes)
    return {
        "accuracy": accuracy_of(model, outputs, images),
        "n_samples": len(images),
        "classes": [str(c) for c in model.classes_],
        "confusion": confusion(model, outputs, images).tolist(),
        "seconds": seconds,
        "copies": _copies_of(model),
        "source": source,
        "split": images.split,
        "scored": scored,
        "n_trained_on": trained_on(record_of_run(folder), images),
        "notes": list(images.notes),
        "seed": record_of_run(folder).get("run", {}).get("seed") if seed is None else seed,
        "fingerprint": images.fingerprint,
        "n_skipped": images.n_skipped,
        "skipped": list(images.skipped),
        "model": str(folder),
    }


def _copies_of(model: Any) -> int:
    """How many copies of each image a model averages over; as many times the time."""
    tta = getattr(model, "tta", None)
    return 1 if tta is None else len(views(tta, model.mirror_))


def check_mistakes(path: Path, folder: Path) -> None:
    """Refuse a file of mistakes that is neither kind, or a part of the model.

    Raises
    ------
    RunError
    """
    if path.suffix.lower() not in (".csv", ".html"):
        raise RunError(f"{path}: a .csv or .html file is accepted for the mistakes")
    refuse_model_file(path, folder)


def _write_mistakes(
    model: Any, images: ImageSet, outputs: np.ndarray, folder: Path, path: Path
) -> None:
    if path.suffix.lower() == ".html":
        write_explorer(model, [("test", images)], report_of(folder), folder, path)
        return
    shares = np.exp(log_probabilities_from(model, outputs))
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    truth = names_of(images)
    wrong = np.flatnonzero(predicted != truth)
    order = wrong[np.argsort(-shares[wrong].max(axis=1), kind="stable")]
    rows = ((images.ids[i], truth[i], predicted[i], f"{shares[i].max():.4f}") for i in order)
    write_list(path, MISTAKE_COLUMNS, rows)
