"""``rankwise explore``: the page of a run, after it was trained or at any later time."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import expanded
from rankwise._machine import environment
from rankwise.data import ImageSet
from rankwise.data.source import Source
from rankwise.errors import DataError
from rankwise.estimators.files import WEIGHTS
from rankwise.estimators.models import load_model
from rankwise.explore.card import card
from rankwise.explore.findings import Entry, Findings, find
from rankwise.explore.lists import COLUMNS, write_list
from rankwise.explore.page import About, entries_as_rows, write_page
from rankwise.explore.seen import Seen, seen
from rankwise.runs.reading import some_of, trained_on
from rankwise.runs.records import (
    EXPLORED,
    FEATURES,
    REPORT,
    limit_of,
    read_record,
    refuse_model_file,
)
from rankwise.runs.use import (
    chosen_images,
    reading_of,
    record_of_run,
    same_source,
    test_images_of,
)


def write_explorer(
    model: Any,
    parts: list[tuple[str, ImageSet]],
    report: dict[str, Any],
    folder: Path,
    path: Path,
    *,
    listed: Path | None = None,
    features: list[np.ndarray] | None = None,
    odd_headers: dict[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Write the page of a model and its images.

    Parameters
    ----------
    model
        As `load_model` gives it.
    parts : list of (str, ImageSet)
        ``"train"`` first, where there is such a part; the last is scored.
    report : dict
        Of the run, as far as it is known.
    folder, path : Path
        Of the model, and of the page.
    listed : Path, optional
        CSV file of the lists of faults.
    features : list of arrays, optional
        Of a head's backbone, of each part.
    odd_headers : dict of str to str, optional
        Images whose files are unlike the others, and how.
    notes : tuple of str
        More for the limits of the card.

    Returns
    -------
    dict
        Accuracy, numbers of what was found, seconds, bytes.
    """
    begin = time.perf_counter()
    known = features or [None] * len(parts)  # type: ignore[list-item]  # of arrays or None
    views = [
        seen(model, images, part, features=some)
        for (part, images), some in zip(parts, known, strict=True)
    ]
    seen_at = time.perf_counter()
    found = find(model, views, _header_entries(views, odd_headers or {}))
    facts, limits = card(model, found, report, _bytes_of(folder), environment())
    source = (report.get("run") or {}).get("source") or parts[-1][1].name
    about = About(
        title=f"{parts[-1][1].name}: {folder.resolve().name}",
        facts=facts,
        limits=[*limits, *notes],
        train_command=f"rankwise train {shlex.quote(source)} --out NEW --without list.csv",
    )
    size = write_page(model, found, about, path)
    if listed is not None:
        faults = {name: found.lists[name] for name in ("labels", "repeats", "odd")}
        write_list(listed, COLUMNS, entries_as_rows(found, faults))
    return _account(found, path, size, seen_at - begin, time.perf_counter() - seen_at)


def explore(
    folder: Path,
    source: str | None = None,
    *,
    out: Path | None = None,
    split: str | None = None,
    listed: Path | None = None,
    backbone: Any = None,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
    **reading: Any,
) -> dict[str, Any]:
    """Write the page of a run, or of its model on other images.

    Parameters
    ----------
    folder : Path
        Of a run, or of a saved model.
    source : str, optional
        Other images, all of which are scored. By default the run's own: its test images are
        scored, and the faults are looked for among its training images too.
    out : Path, optional
        The page; default ``explore.html`` in the folder.
    split : str, optional
        Of `source`, as for `rankwise.runs.evaluate`.
    listed : Path, optional
        CSV file of the lists of faults.
    backbone : str or path, optional
        For a head that was saved without it; see `load_model`.
    progress : bool
        Progress bars on standard error.
    say : callable
        Told, in one line, which images these are.
    **reading
        More options of `rankwise.load_images`; None counts as not given.

    Returns
    -------
    dict
        As `write_explorer`, ``page``, and ``for_training``: whether a training may leave out what
        is listed, which of the images that a run held out none can.

    Raises
    ------
    RunError
        If the folder holds no run and no source is given, or the run's images have changed.
    DataError
        If the source can't be read, or has a class that the model doesn't know.
    """
    folder = expanded(folder)
    out, listed = (None if path is None else expanded(path) for path in (out, listed))
    for path in (out, listed):
        if path is not None and path.name != EXPLORED:
            refuse_model_file(path, folder)
    model = load_model(folder, backbone)
    record = record_of_run(folder)
    given = {k: v for k, v in reading.items() if v is not None} | {"progress": progress}
    notes: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    if source is None:
        place, test = test_images_of(model, folder)
        train, headers = _training_images(model, folder, place, record, given)
        known = record.get("train_fingerprint")
        if known not in (None, train.fingerprint):
            notes = (
                "The training images aren't those that the run was trained on: the source has "
                "changed since, so left-out outputs of images that have changed mean nothing.",
            )
        parts = [("train", train), ("test", test)]
        say(f"the run's own images: {len(train):,} trained on, {len(test):,} scored")
    else:
        place = source
        images, scored = chosen_images(model, folder, source, split, **given)
        n = trained_on(record, images)
        if n:
            notes = (f"{n:,} of these images were trained on: their accuracy says little.",)
        parts = [("test", images)]
        say(f"scored: {scored}")
        for note in images.notes:
            say(f"note: {note}")
        for line in images.skipped:
            say(f"skipped {line}")
    unknown = {parts[-1][1].class_names[i] for i in np.unique(parts[-1][1].labels)}
    unknown -= {str(c) for c in model.classes_}
    if unknown:
        raise DataError(
            f"{place} has classes that the model doesn't know: {some_of(unknown)}; it was trained "
            f"on {some_of({str(c) for c in model.classes_})}"
        )
    kept = folder / FEATURES
    if getattr(model, "cache", 0) is None and kept.is_dir() and os.access(kept, os.W_OK):
        model.cache = folder / FEATURES  # a head's own features, if they are there still
    path = folder / EXPLORED if out is None else out
    account = write_explorer(
        model,
        parts,
        report_of(folder),
        folder,
        path,
        listed=listed,
        odd_headers=headers,
        notes=notes,
    )
    own = source is not None and bool(record) and same_source(source, record)
    return account | {"for_training": not (own and split in (None, "test"))}


def report_of(folder: Path) -> dict[str, Any]:
    """What is known of the run in a folder; empty where it holds a model alone."""
    report = read_record(folder / REPORT) if (folder / REPORT).exists() else {}
    return {"run": record_of_run(folder).get("run", {})} | report


def _training_images(
    model: Any, folder: Path, place: str, record: dict[str, Any], given: dict[str, Any]
) -> tuple[ImageSet, dict[str, str]]:
    """What the run was trained on, read as it was, and files unlike the others."""
    run = record["run"]
    options: dict[str, Any] = reading_of(folder)
    options |= {"limit": limit_of(run.get("limit"), run.get("preset"))} | given
    kept = {k: v for k, v in options.items() if v is not None}
    images, _ = chosen_images(model, folder, place, "train", **kept)
    columns = {k: run["reading"].get(k) for k in ("image_column", "label_column")}
    return images, Source(place, **columns).odd_headers()


def _header_entries(views: list[Seen], odd: dict[str, str]) -> list[Entry]:
    if not odd:
        return []
    entries, start = [], 0
    for view in views:
        names = view.images.ids
        for at in np.flatnonzero(np.isin(names, list(odd))):
            entries.append(Entry(start + int(at), odd[str(names[at])], 0.0))
        start += len(view)
    return entries


def _bytes_of(folder: Path) -> int | None:
    path = folder / WEIGHTS
    return path.stat().st_size if path.exists() else None


def _account(
    found: Findings, path: Path, size: int, predicting: float, exploring: float
) -> dict[str, Any]:
    scored = found.score
    return {
        "page": str(path),
        "bytes": size,
        "accuracy": scored["accuracy"],
        "interval": [scored["low"], scored["high"]],
        "n_samples": scored["n"],
        "n_wrong": scored["n"] - scored["right"],
        "expected_calibration_error": scored["ece"],
        "n_images": found.n,
        "n_labels": found.labels.n_against,
        "n_likely_wrong": found.labels.n_likely,
        "n_repeated": sum(len(g["rows"]) for g in found.groups),
        "n_across_parts": sum(g["across"] for g in found.groups),
        "n_odd": len(found.lists["odd"]),
        "one_class": [
            [found.classes[c] for c in pair["classes"]] for pair in found.pairs if pair["may"]
        ],
        "seconds": {"predicting": predicting, "exploring": exploring},
    }
