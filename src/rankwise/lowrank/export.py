"""An augmented set as files that other tools read: the hub's parquet, or a folder of images."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._files import atomic_path, write_json
from rankwise._progress import progress_bar
from rankwise.data import ImageSet
from rankwise.data.load import AUGMENT_RECORD
from rankwise.errors import RunError
from rankwise.lowrank.augmenter import AugmentedSet, LowRankAugmenter
from rankwise.lowrank.options import OptionError

FORMATS = ("parquet", "folder")
LOG = "augment-log.csv"
SOURCE_PATTERN = r"^(.*)--"  # finds the source id in a file name that `augment_files` wrote

_DONE = AUGMENT_RECORD
_COPIES = ".copies-"  # and the format: another one isn't gone on with
_ROW_GROUP = 1000  # at most; fewer where images are large
_GROUP_BYTES = 32 * 2**20
_COLUMNS = ("source_id", "energy", "rank", "error", "psnr")


def augment_files(
    images: ImageSet,
    augmenter: LowRankAugmenter,
    out: str | os.PathLike[str],
    file_format: str = "parquet",
) -> dict[str, Any]:
    """Write originals and copies, shuffled, with a log entry for each.

    Parquet: ``OUT/<split>-00000-of-00001.parquet``, the hub's layout, with the columns image,
    label, source_id, energy, rank, error (relative Frobenius norm) and psnr (decibels); the last
    four are null for originals. Folder: ``OUT/<split>/<class>/<source>--<n>.png``, with the log in
    ``OUT/augment-log.csv``. A second call finishes what a stop left; a third one does nothing.

    Parameters
    ----------
    images : ImageSet
        Training images.
    augmenter : LowRankAugmenter
    out : path
        A folder, new, empty, or of the same augmentation.
    file_format : {"parquet", "folder"}

    Returns
    -------
    summary : dict
        Counts, means and where things are; also in ``OUT/augment.json``, which is written last.

    Raises
    ------
    RunError
        If `out` holds something else.
    OptionError
        For an unknown format.
    """
    check_format(file_format)
    out = Path(out).expanduser()
    plan = augmenter.plan(images)
    key = f"{file_format}-{plan.key}"
    cache = out / f"{_COPIES}{file_format}"
    finished = _finished(out, key, cache.name)
    if finished is not None:
        return finished
    augmented = augmenter.augment(images, cache=cache)
    if file_format == "parquet":
        place = out / f"{images.split}-00000-of-00001.parquet"
        _write_parquet(augmented, place, augmenter.progress)
    else:
        place = out / images.split
        _write_folder(augmented, place, out / LOG, augmenter.progress)
    summary = {"key": key, **_summary(augmented, augmenter), "format": file_format}
    summary["data"] = place.name
    write_json(out / _DONE, summary)
    shutil.rmtree(cache)
    for stale in out.glob(f".{place.name}.*"):  # of a call that was killed while it wrote
        stale.unlink()
    return summary


def check_format(file_format: str) -> None:
    """Raise `OptionError` for a format that `augment_files` doesn't write."""
    if file_format not in FORMATS:
        raise OptionError(f"format must be one of {', '.join(FORMATS)}, not {file_format!r}")


def _finished(out: Path, key: str, cache: str) -> dict[str, Any] | None:
    if not out.exists():
        return None
    if not out.is_dir():
        raise RunError(f"{out} is a file; a folder is needed")
    found = {path.name for path in out.iterdir()}
    if _DONE in found:
        try:
            summary = json.loads((out / _DONE).read_text(encoding="utf-8"))
        except ValueError:
            summary = {}
        if summary.get("key") != key:
            raise RunError(f"{out} holds another augmentation; choose another folder")
        if summary.get("data") not in found:
            raise RunError(f"{out} has lost its {summary.get('data')}; remove it and run again")
        return summary
    if found and cache not in found:
        raise RunError(f"{out} isn't empty; choose another folder")
    return None


def _summary(augmented: AugmentedSet, augmenter: LowRankAugmenter) -> dict[str, Any]:
    log = augmented.log
    finite = log.psnr[np.isfinite(log.psnr)]
    return {
        "originals": int((augmented.copy_of < 0).sum()),
        "copies": len(log),
        "copies_equal_to_their_original": int(np.isinf(log.psnr).sum()),
        "mean_energy": float(log.energies.mean()) if len(log) else None,
        "mean_rank": float(log.ranks.mean()) if len(log) else None,
        "mean_error": float(log.errors.mean()) if len(log) else None,
        "mean_psnr_of_the_others": float(finite.mean()) if len(finite) else None,
        "transform": augmenter.transform.to_dict(),
        "source_pattern": SOURCE_PATTERN,
    }


def _entry(augmented: AugmentedSet, row: int) -> dict[str, Any]:
    """The log's columns for one row; None for an original."""
    log, place = augmented.log, int(augmented.copy_of[row])
    values: dict[str, Any] = dict.fromkeys(_COLUMNS)
    values["source_id"] = str(augmented.images.source_ids[row])
    if place >= 0:
        values["energy"] = float(log.energies[place])
        values["rank"] = log.ranks[place].tolist()
        values["error"] = float(log.errors[place])
        values["psnr"] = float(log.psnr[place])
    return values


def _file_name(augmented: AugmentedSet, row: int) -> str:
    stem = re.sub(r"[^\w.=+-]+", "_", str(augmented.images.source_ids[row]))
    return f"{stem}--{row:07d}.png"


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _write_parquet(augmented: AugmentedSet, path: Path, progress: bool) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = augmented.images
    schema = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(images.class_names)),
            "source_id": datasets.Value("string"),
            "energy": datasets.Value("float64"),
            "rank": datasets.Sequence(datasets.Value("int64")),
            "error": datasets.Value("float64"),
            "psnr": datasets.Value("float64"),
        }
    ).arrow_schema
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
        progress_bar("parquet", len(images), enabled=progress) as advance,
    ):
        for part in _row_groups(images):
            rows = range(part.start, part.stop)
            entries = [_entry(augmented, row) for row in rows]
            columns: dict[str, Any] = {
                "image": [
                    {"bytes": _png(images.images[row]), "path": _file_name(augmented, row)}
                    for row in rows
                ],
                "label": images.labels[part],
            }
            columns |= {name: [entry[name] for entry in entries] for name in _COLUMNS}
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            advance(len(rows))


def _row_groups(images: ImageSet) -> Iterator[slice]:
    step = max(1, min(_ROW_GROUP, _GROUP_BYTES // int(np.prod(images.image_shape))))
    for start in range(0, len(images), step):
        yield slice(start, min(start + step, len(images)))


def _write_folder(augmented: AugmentedSet, place: Path, log: Path, progress: bool) -> None:
    images = augmented.images
    folders = [re.sub(r"[/\\\0]+", "_", name) for name in images.class_names]
    if len(set(folders)) < len(folders) or {"", ".", ".."} & set(folders):
        raise OptionError("class names that can't be folder names: use the parquet format")
    work = place.with_name(f".{place.name}")
    shutil.rmtree(work, ignore_errors=True)
    for label in np.unique(images.labels):
        (work / folders[label]).mkdir(parents=True)
    with (
        atomic_path(log) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
        progress_bar("images", len(images), enabled=progress) as advance,
    ):
        writer = csv.DictWriter(file, ["file", "label", *_COLUMNS])
        writer.writeheader()
        for row in range(len(images)):
            name = f"{folders[images.labels[row]]}/{_file_name(augmented, row)}"
            (work / name).write_bytes(_png(images.images[row]))
            entry = _entry(augmented, row)
            entry["rank"] = " ".join(map(str, entry["rank"] or []))
            label = images.class_names[images.labels[row]]
            writer.writerow({"file": f"{place.name}/{name}", "label": label, **entry})
            advance(1)
    shutil.rmtree(place, ignore_errors=True)
    os.replace(work, place)
