"""A trained model put to use: the images of a source, labels of image files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._arrays import part_rows
from rankwise._files import expanded
from rankwise.data import ImageSet, read_image
from rankwise.data.decode import BadImageError, Header, header_of
from rankwise.data.source import Source
from rankwise.data.split import stratified_limit
from rankwise.errors import DataError, ModelFileError, RunError, is_shortage
from rankwise.estimators.models import load_model
from rankwise.runs.reading import names_of, place_of, some_of
from rankwise.runs.records import CONFIGURATION, read_record


def images_for(
    model: Any, folder: Path, source: str, split: str | None = None, **reading: Any
) -> ImageSet:
    """The images of `chosen_images`."""
    return chosen_images(model, folder, source, split, **reading)[0]


def chosen_images(
    model: Any, folder: Path, source: str, split: str | None = None, **reading: Any
) -> tuple[ImageSet, str]:
    """Images of a source as a saved model takes them, held out as its run held out.

    Parameters
    ----------
    model : QuadraticClassifier or VarProHead
    folder : Path
        Where it was saved.
    source, split, **reading
        As for `rankwise.runs.evaluate`, which says what is raised.

    Returns
    -------
    images : ImageSet
    scored : str
        Which images these are, for people.
    """
    record = record_of_run(folder)
    given = {k: v for k, v in reading.items() if v is not None}
    own = bool(record) and same_source(source, record)
    columns = record["run"]["reading"] if own else {}
    opened = Source(
        source,
        image_column=given.pop("image_column", columns.get("image_column")),
        label_column=given.pop("label_column", columns.get("label_column")),
    )
    options = _fitting_options(model, folder) | {"bits": record.get("bits")}
    options |= {k: v for k, v in record.get("run", {}).items() if k == "seed"}
    pattern = record.get("run", {}).get("reading", {}).get("source_pattern")

    def read(part: str) -> ImageSet:
        if pattern is not None and "source_pattern" not in given:
            # The run's images under another path have such names, other images needn't.
            try:
                return opened.read(part, **(options | {"source_pattern": pattern} | given))
            except DataError:
                if own:
                    raise
        return opened.read(part, **(options | given))

    def other(part: str) -> ImageSet:
        images = read(part)
        if own:  # what was decided about these was told before the training
            return images
        notes = dict.fromkeys((*images.notes, *_brought(opened, images.image_shape)))
        return replace(images, notes=tuple(notes))

    if own and split in (None, "test"):
        images = _held_out(opened, record, options | {"source_pattern": pattern} | given)
        return images, f"the run's own source, {_part(opened, 'test')}"
    if split is not None:
        images = other(split)
        return images, _part(opened, images.split)
    if opened.test_part is not None:
        return other("test"), f"another source than the run's, {_part(opened, 'test')}"
    if record and "limit" not in given:
        try:
            images = read("test")
        except DataError:  # too few images for a hold-out, say: then there is no such copy
            pass
        else:
            if images.fingerprint == record.get("test_fingerprint"):
                return images, "a copy of the run's source, the images that it held out"
    return other("all"), "all images, since this isn't the source of the run"


def _part(opened: Source, split: str) -> str:
    """What a split is, for people."""
    if split == "all":
        return "all images"
    part = opened.test_part if split == "test" else split
    if opened.test_part is None and split in ("train", "test"):
        held = "a fifth held out by the seed" if split == "test" else "all but the held-out fifth"
        return f"the {split} images ({held})"
    return f"the {part} part ({opened.own_name(str(part))})"


def test_images_of(model: Any, folder: Path) -> tuple[str, ImageSet]:
    """The source of the run in a folder, and the test images that the run held out.

    Parameters
    ----------
    model : QuadraticClassifier or VarProHead
    folder : Path
        Where it was saved.

    Raises
    ------
    RunError
        If the folder holds a model but no run, or a damaged one, or the source has changed.
    DataError
        If the source can't be read any more.
    """
    folder = expanded(folder)
    record = record_of_run(folder)
    if not record:
        raise RunError(f"{folder} holds no run that says its test images; name their source")
    run = record["run"]
    if not isinstance(run.get("source"), str):
        raise RunError(
            f"{folder / CONFIGURATION} is damaged: its run has no source; train it again"
        )
    source = record.get("place") or run["source"]
    on_error = run["reading"].get("on_error")
    return source, images_for(model, folder, source, "test", on_error=on_error)


def reading_of(folder: Path) -> dict[str, Any]:
    """What the run in a folder did with images that can't be read, and which it left out."""
    record = record_of_run(folder)
    if not record:
        raise RunError(f"{folder} holds no run that says how its source was read")
    reading = record["run"]["reading"]
    return {key: reading.get(key) for key in ("on_error", "without")}


def _held_out(opened: Source, record: dict[str, Any], options: dict[str, Any]) -> ImageSet:
    """Test images of the run's own source, which must be those that the run never trained on."""
    limit = options.pop("limit", None)
    images = opened.read("test", **options)
    known = record.get("test_fingerprint")
    if known not in (None, images.fingerprint) and opened.test_part is None:
        raise RunError(
            f"{opened.source} gives other test images than the run held out, since it has changed "
            "or is read otherwise, and the run may have trained on them; the same images, seed and "
            "pattern are accepted, or another source"
        )
    if limit is None:
        return images
    part = images.subset(stratified_limit(images.labels, limit, options["seed"]))
    return replace(part, skipped=images.skipped)


def _brought(opened: Source, shape: tuple[int, ...]) -> list[str]:
    """What images of another source weren't like those of the model, by their headers."""
    found = opened.survey()
    sizes = found.sizes + found.other_sizes
    changes: Counter[str] = Counter()
    for own, n in sizes.items():
        if own != shape[:2]:
            changes[_resized(own, shape)] += n
    if len(shape) == 2:
        changes["turned from colour to grey"] = found.n_colour
    if len(shape) == 3 and shape[2] == 3:
        changes["turned from grey to RGB"] = found.n_grey
    lines = [
        f"{n:,} of the source's {sizes.total():,} images {change}, which the model takes"
        for change, n in changes.items()
        if n
    ]
    if found.n_pages:
        lines.append(f"files of several pictures ({found.n_pages:,}): the first of each is read")
    return lines


def _resized(own: tuple[int, int], shape: tuple[int, ...]) -> str:
    """How images of a height and width came to those of the model."""
    proportions = own[0] / own[1], shape[0] / shape[1]
    how = "resized" if max(proportions) <= 1.1 * min(proportions) else "squeezed"
    return f"{how} to {shape[0]}×{shape[1]} (height×width)"


def same_source(source: str, record: dict[str, Any]) -> bool:
    """Whether a source is the one that a run read: the same place, or the same name of no path."""
    known = record["run"].get("source")
    if not isinstance(known, str):
        return False
    if "place" not in record:  # of an earlier version, which kept the source as it was typed
        paths = expanded(source), expanded(known)
        return source == known or (paths[0].exists() and paths[0].resolve() == paths[1].resolve())
    place = place_of(source)
    return source == known if place is None else place == record["place"]


def predict(
    folder: Path, paths: Sequence[Path], *, on_error: str = "raise", backbone: str | None = None
) -> list[dict[str, Any]]:
    """Labels of image files: the most probable class of each, and all probabilities.

    Parameters
    ----------
    folder : Path
        Of a run, or of a saved model.
    paths : sequence of Path
        Files, and folders, whose files are taken in the order of their names, at any depth.
    on_error : {"raise", "record"}
        What a file does that can't be read: end the call, or give an entry of its own.
    backbone : str, optional
        For a head that was saved without it.

    Returns
    -------
    list of dict
        For each file ``file``, ``changed`` (what it was brought to, where the model's images are
        otherwise), ``label``, ``probability`` and ``probabilities``; with "record" ``file`` and
        ``error`` for one that can't be read.

    Raises
    ------
    ModelFileError
        If the model can't be read.
    DataError
        If an image can't be read, or a folder has none.
    """
    if on_error not in ("raise", "record"):
        raise ValueError(f"on_error is {on_error!r}; 'raise' or 'record' is accepted")
    folder = expanded(folder)
    model = load_model(folder, backbone)
    shape = _image_shape(model, folder)
    bits = record_of_run(folder).get("bits")
    result: list[dict[str, Any]] = []
    files = _files_of(paths)
    step = part_rows(int(np.prod(shape)), _AT_A_TIME)
    for first in range(0, len(files), step):
        entries: list[dict[str, Any]] = []
        images = []
        for path in files[first : first + step]:
            try:
                images.append(_image(path, shape, bits))
                changed = _changes(header_of(path), shape)
                entries.append({"file": str(path), "changed": changed})
            except (DataError, BadImageError) as error:
                if is_shortage(error):
                    raise
                if on_error == "raise":
                    raise DataError(str(error)) from error
                entries.append({"file": str(path), "error": str(error)})
        found = iter(model.predict_proba(np.stack(images)) if images else ())
        for entry in entries:
            if "error" not in entry:
                entry |= _labelled(next(found), model.classes_)
        result += entries
    return result


def _image(path: Path, shape: tuple[int, ...], bits: int | None) -> np.ndarray:
    if path.is_dir():
        raise DataError(
            f"the folder {path} holds no files that can be read; image files are accepted"
        )
    return read_image(path, image_shape=shape, bits=bits)


_AT_A_TIME = 100_000
"""Image files that are labelled at a time, where their pixels aren't many."""


def _labelled(probabilities: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    best = int(probabilities.argmax())
    pairs = zip(classes, probabilities, strict=True)
    return {
        "label": str(classes[best]),
        "probability": float(probabilities[best]),
        "probabilities": {str(c): float(p) for c, p in pairs},
    }


def _changes(header: Header, shape: tuple[int, ...]) -> list[str]:
    """What an image wasn't like those of the model, and was brought to."""
    found = []
    if (header.height, header.width) != shape[:2]:
        found.append(_resized((header.height, header.width), shape))
    if shape[2:] in ((), (1,)) and not header.grey:
        found.append("turned from colour to grey")
    if len(shape) == 3 and shape[2] == 3 and header.grey:
        found.append("turned from grey to RGB")
    if header.pages:
        found.append("read as the first of several pictures")
    return found


def _files_of(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of the folders named, but for hidden ones.

    Links are followed, each folder once. A link that leads nowhere is a file, which can't be read,
    and so is a folder that can't be, or holds nothing.
    """
    found: list[Path] = []
    for path in map(expanded, paths):
        found += sorted(_inside(path)) or [path]
    return found


def _inside(path: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[str] = set()

    def note(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, folders, files in os.walk(path, followlinks=True, onerror=note):
        seen.add(os.path.realpath(place))
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = [n for n in shown if os.path.realpath(os.path.join(place, n)) not in seen]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return found


def confusion(model: Any, outputs: np.ndarray, images: ImageSet) -> np.ndarray:
    """Counts: true class down, predicted across, both in the model's order."""
    from sklearn.metrics import confusion_matrix

    names = [str(c) for c in model.classes_]
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    return confusion_matrix(names_of(images), predicted, labels=names)


def accuracy_of(model: Any, outputs: np.ndarray, images: ImageSet) -> float:
    predicted = model.classes_[outputs.argmax(axis=1)].astype(str)
    return float(np.mean(predicted == names_of(images)))


def _image_shape(model: Any, folder: Path) -> tuple[int, ...]:
    shape = getattr(model, "image_shape_", None)
    backbone_of = getattr(model, "_backbone", None)
    if shape is None or (backbone_of is not None and backbone_of() is None):
        known = getattr(model, "backbone_reference_", None)
        missing = "a backbone that it doesn't name" if known is None else f"{known['name']}"
        raise ModelFileError(
            f"{folder} holds a head of {model.n_features_in_:,} features with the classes "
            f"{some_of({str(c) for c in model.classes_})}, saved without what makes features of "
            f"images ({missing}), which nothing calls unasked; --backbone takes it, and in Python "
            "load_head(folder, backbone=...)"
        )
    return tuple(shape)


def _fitting_options(model: Any, folder: Path) -> dict[str, Any]:
    height, width, *channels = _image_shape(model, folder)
    return {"size": (height, width), "channels": channels[0] if channels else 1}


def record_of_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a folder with what decides its hold-out; empty where there is none."""
    path = expanded(folder) / CONFIGURATION
    if not path.exists():
        return {}
    record = read_record(path)
    run = record["run"]
    if "seed" not in run or not isinstance(run.get("reading"), dict):
        raise RunError(f"{path} is damaged: its run has no seed or reading; train it again")
    pattern = run["reading"].get("source_pattern")
    if type(run["seed"]) is not int or not (pattern is None or isinstance(pattern, str)):
        raise RunError(
            f"{path} is damaged: its seed is no whole number or its pattern no text; train it again"
        )
    return record
