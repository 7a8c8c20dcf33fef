"""The images of a run: both parts, checked against each other, and what a report says of them."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import blocks, pixel_marks
from rankwise._files import expanded
from rankwise._text import plain
from rankwise.data import ImageSet, check_no_shared_sources
from rankwise.data.source import Source
from rankwise.data.storage import allocate
from rankwise.errors import DataError

MOST_CLASSES = 30
"""Whose counts are printed; a report has all."""


ORIGIN = ("place", "bits", "trained_on")
"""Keys of `origin_of` in the record of a run."""


def tell(line: str) -> None:
    """Print a line for people, on standard error: standard output may be JSON."""
    print(plain(line, lines=True), file=sys.stderr)


def read_parts(source: str, **options: Any) -> tuple[ImageSet, ImageSet]:
    """Training and test images of `read_run`; a validation part beside them isn't used."""
    train, test, _ = read_run(source, **options)
    return train, test


def read_run(
    source: str,
    *,
    validates: bool = False,
    limit: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    say: Callable[[str], None] = tell,
    **options: Any,
) -> tuple[ImageSet, ImageSet, ImageSet | None]:
    """Training, test and validation images of a source; they share no source id.

    Classes with their counts, the parts and whatever was decided about the images are told.

    Parameters
    ----------
    source : str
    validates : bool
        Read the validation part, where there is a test part beside it; else there is none.
    limit : int, optional
        Training images.
    image_column, label_column : str, optional
    say : callable
        Takes each line.
    **options
        More options of `rankwise.load_images`.

    Raises
    ------
    DataError
        If the parts don't fit together.
    """
    opened = Source(source, image_column=image_column, label_column=label_column)
    train = opened.read("train", limit=limit, **options)
    test = opened.read("test", **options)
    if train.image_shape != test.image_shape:
        raise DataError(
            f"{source}: training images have shape {train.image_shape}, test images "
            f"{test.image_shape}; give a size to bring them together"
        )
    check_no_shared_sources(train.source_ids, test.source_ids)
    unseen = np.setdiff1d(test.labels, train.labels)
    if len(unseen):
        names = {train.class_names[i] for i in unseen}
        raise DataError(f"{source}: classes in test images only, not in training: {some_of(names)}")
    validation = None
    if validates and opened.test_part == "test" and "validation" in opened.reader.splits:
        validation = opened.read("validation", **options)
        check_no_shared_sources(train.source_ids, validation.source_ids, test.source_ids)
        unknown = np.setdiff1d(validation.labels, train.labels)
        if len(unknown):
            names = {train.class_names[i] for i in unknown}
            raise DataError(
                f"{source}: classes in validation images only, not in training: {some_of(names)}"
            )
    for line in lines_on(opened, train, test, validation):
        say(line)
    return train, test, validation


def joined(train: ImageSet, validation: ImageSet) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Images of both in one array, mapped from a file where they are many, and which validate."""
    n = len(train) + len(validation)
    images = allocate((n, *train.image_shape))
    for part, start in ((train, 0), (validation, len(train))):
        for rows in blocks(len(part)):
            images[start + rows.start : start + rows.stop] = part.images[rows]
    return images, np.arange(n) >= len(train)


def lines_on(
    opened: Source, train: ImageSet, test: ImageSet, validation: ImageSet | None = None
) -> list[str]:
    """What to tell about the images of a run before it trains."""
    part = opened.test_part
    if part is None:
        where = "a fifth of the images, held out by the seed, since there is no test part"
    elif part == "test":
        where = f"the test part ({opened.own_name(part)})"
    else:
        where = (
            f"the validation part ({opened.own_name(part)}), since there is no test part; nothing "
            "is chosen by it"
        )
    pairs = zip(train.class_counts.items(), test.class_counts.values(), strict=True)
    counts = [f"{name} {n:,}/{m:,}" for (name, n), m in pairs]
    more = len(counts) - MOST_CLASSES
    shown = ", ".join(counts[:MOST_CLASSES]) + (f" and {more:,} more" if more > 0 else "")
    shape = "×".join(map(str, train.image_shape))
    lines = [
        f"{len(counts):,} classes (training/test images): {shown}",
        f"images: {shape}, {len(train):,} to train on, {len(test):,} to test on: {where}",
    ]
    used = {"train", part}
    if validation is not None:
        lines.append(
            f"{len(validation):,} images of the validation part ({opened.own_name('validation')}) "
            "are left to choose epochs and output layers by, and never trained on"
        )
        used.add("validation")
    if part is None and "train" not in opened.reader.splits:  # then all were joined
        used.update(opened.reader.splits)
    left = [split for split in opened.reader.splits if split not in used]
    lines += [
        f"not used: the {split} part ({opened.own_name(split)}); evaluate --split {split} scores it"
        for split in left
    ]
    lines += [f"note: {note}" for note in dict.fromkeys((*train.notes, *test.notes))]
    skipped = dict.fromkeys((*train.skipped, *test.skipped))
    lines += [f"skipped: {line}" for line in skipped]
    repeated = repeats_of(train, test)
    if len(repeated):
        row, before = repeated[0]
        lines.append(
            f"warning: {len(repeated):,} of {len(test):,} test images repeat training images (the "
            f"same pixels), such as {test.source_ids[row]} and {train.source_ids[before]}; the "
            "accuracy on them says nothing about new images"
        )
    return lines


def repeats_of(train: ImageSet, test: ImageSet) -> list[tuple[int, int]]:
    """Rows of test images that have the pixels of a training image, and a row of such."""
    known = {mark: row for row, mark in enumerate(pixel_marks(train.images).tolist())}
    marks = pixel_marks(test.images).tolist()
    return [(row, known[mark]) for row, mark in enumerate(marks) if mark in known]


def origin_of(source: str, train: ImageSet) -> dict[str, Any]:
    """By what a run knows its images again: their absolute place, and their pixels."""
    marks = np.unique(pixel_marks(train.images))
    return {
        "place": place_of(source),
        "bits": train.bits,
        "trained_on": base64.b64encode(marks.astype("<u8").tobytes()).decode("ascii"),
    }


def place_of(source: str) -> str | None:
    """The absolute path of a source; None for what is no path on this machine."""
    if source == "digits":
        return None
    path = expanded(source)
    return str(path.resolve()) if path.exists() else None


def trained_on(record: dict[str, Any], images: ImageSet) -> int:
    """How many of some images a run was trained on, by their pixels; 0 for earlier records."""
    try:
        marks = np.frombuffer(base64.b64decode(record.get("trained_on") or ""), "<u8")
    except (ValueError, TypeError) as error:
        raise DataError("the record of the run's training images is damaged") from error
    return int(np.isin(pixel_marks(images.images), marks).sum()) if len(marks) else 0


def describe_images(images: ImageSet) -> dict[str, Any]:
    """For a report."""
    return {
        "n_samples": len(images),
        "split": images.split,
        "image_shape": list(images.image_shape),
        "class_counts": images.class_counts,
        "fingerprint": images.fingerprint,
        "notes": list(images.notes),
        "n_skipped": images.n_skipped,
        "skipped": list(images.skipped),
    }


def names_of(images: ImageSet) -> np.ndarray:
    """Class name of each image, of shape (n,)."""
    return np.asarray(images.class_names, dtype=str)[images.labels]


def some_of(names: set[str], most: int = 5) -> str:
    """The first few names, for an error."""
    shown = sorted(names)[:most]
    return ", ".join(shown) + (", …" if len(names) > most else "")
