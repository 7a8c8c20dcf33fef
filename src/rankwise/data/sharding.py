"""``rankwise shard``: a source decoded once, in parallel, into files that workers read rows of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from rankwise._files import expanded
from rankwise._progress import progress_bar
from rankwise.cluster import engine, on_workers
from rankwise.data.addresses import holds_file, joined, local_path
from rankwise.data.decode import Layout
from rankwise.data.origins import split_sources
from rankwise.data.pixels import read_pixels
from rankwise.data.samples import Samples
from rankwise.data.shards import RECORD, ShardWriter
from rankwise.data.source import Source
from rankwise.errors import DataError

SHARD_BYTES = 64 * 2**20
"""Of decoded images in one file: a task reads and gives as much."""

Opening = tuple[str, str | None, str | None, str]


def shard(
    source: str,
    out: str,
    *,
    size: Any = None,
    grey: bool = False,
    channels: int | None = None,
    on_error: str = "raise",
    source_pattern: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    workers: int = -1,
    progress: bool = False,
) -> dict[str, Any]:
    """Decode all splits of a source into shards; see `rankwise.data.shards`.

    Parameters
    ----------
    source : str
        Anything `rankwise.load_images` reads. Workers of a cluster have to see it.
    out : str
        A new folder, or an address of fsspec's.
    size, grey, channels, on_error, source_pattern, image_column, label_column
        As for `rankwise.load_images`.
    shard_bytes : int
        Of a file, at most, unless one image is larger.
    workers : int
        Processes, where no ``rankwise.cluster`` says otherwise; -1 for one a core.
    progress : bool

    Returns
    -------
    dict
        Of each split the files and the fingerprint, as in ``shards.json``; the ``classes``; the
        ``image_shape``; ``notes``, what was decided; and ``skipped``, a line for each image that
        was left out.

    Raises
    ------
    DataError
        If the source can't be read, or the folder isn't empty.
    """
    if workers == 0 or workers < -1:
        raise ValueError(f"workers must be a number from 1, or -1 for one a core, got {workers}")
    place = local_path(out)
    if place is not None and place.is_dir() and any(place.iterdir()):
        raise DataError(f"{out} isn't empty; a new folder is accepted.")
    if place is None and holds_file(joined(out, RECORD)):
        raise DataError(f"{out} holds shards already; a new folder is accepted.")
    opened = Source(source, image_column=image_column, label_column=label_column)
    layout, bits = opened.layout_for(size=size, grey=grey, channels=channels)
    notes = opened.survey().notes(
        layout, size_given=size is not None, channels_given=grey or channels is not None
    )
    here = expanded(source)
    # Workers may stand in another folder, and stay for the next source of that name.
    opening: Opening = (
        str(here.absolute()) if here.exists() else source,
        image_column,
        label_column,
        uuid4().hex,
    )
    skip = on_error == "skip"
    plans = []
    for split in opened.reader.splits:
        samples = Samples.of(opened.reader, (split,))
        usable, bad = samples.usable(skip=skip)
        ids, _ = split_sources(samples, source, source_pattern, usable)
        plans.append((split, samples.labels, usable, ids, bad))
    writer = ShardWriter(out, opened.reader.name, samples.class_names)
    step = max(1, shard_bytes // max(1, int(np.prod(layout.shape))))
    skipped: list[str] = []
    total = sum(len(usable) for _, _, usable, _, _ in plans)
    taking = on_workers("shards", processes=True)
    with progress_bar(taking, total, enabled=progress) as advance:
        for split, labels, usable, ids, bad in plans:
            skipped += bad
            parts = [usable[first : first + step] for first in range(0, len(usable), step)]
            files, kept = [], []
            decoded = engine(workers).map(_decoded, parts, (opening, split, layout, bits, skip))
            for number, (rows, (images, good, lines)) in enumerate(
                zip(parts, decoded, strict=True)
            ):
                files.append(writer.write(split, number, len(parts), images))
                kept.append(rows[good])
                skipped += lines
                advance(len(rows))
            rows = np.concatenate(kept) if kept else usable
            writer.add(split, files, labels[rows], ids[rows])
    record = writer.finish()
    return {
        "splits": record["splits"],
        "classes": list(samples.class_names),
        "image_shape": list(layout.shape),
        "notes": [*opened.reader.notes, *notes],
        "skipped": skipped,
        "record": joined(out, RECORD),
    }


@lru_cache(maxsize=4)
def _opened(opening: Opening) -> Source:
    source, image_column, label_column, _ = opening
    return Source(source, image_column=image_column, label_column=label_column)


def _decoded(
    common: tuple[Opening, str, Layout, int | None, bool], rows: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """A task: the images of one shard."""
    opening, split, layout, bits, skip = common
    source = _opened(opening)
    return read_pixels(
        Samples.of(source.reader, (split,)),
        rows,
        layout,
        bits=lambda: source.survey().bits if bits is None else bits,
        skip=skip,
        progress=False,
        memory_limit=2**62,
    )
