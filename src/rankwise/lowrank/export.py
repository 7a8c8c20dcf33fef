"""An augmented set as files that other tools read: the hub's parquet, or a folder of images."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._claims import LOCK, contents, held, refuse_foreign
from rankwise._files import atomic_path, expanded, write_json
from rankwise._progress import progress_bar
from rankwise._reading import read_json_object
from rankwise.data import ImageSet
from rankwise.data.origins import AUGMENT_RECORD
from rankwise.errors import DataError, RunError
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
    images: ImageSet | Sequence[ImageSet],
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
    images : ImageSet or sequence of ImageSet
        Training images; several sets of one split and of the same classes where sizes are mixed,
        one for each size (`rankwise.data.source.Source.read_by_size`).
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
        If `out` holds something else, or a name isn't UTF-8, as those in such files are.
    DataError
        If the images have other than 1, 3 or 4 channels: both formats hold PNG files.
    OptionError
        For an unknown format.
    """
    check_format(file_format)
    out = expanded(out)
    sets = [images] if isinstance(images, ImageSet) else list(images)
    _check_names(sets)
    _check_channels(sets)
    keys = [augmenter.plan(part).key for part in sets]
    joined = keys[0] if len(keys) == 1 else hashlib.sha256("".join(keys).encode()).hexdigest()
    key = f"{file_format}-{joined}"
    cache = out / f"{_COPIES}{file_format}"
    finished = _finished(out, key, cache.name)
    if finished is not None and not cache.exists() and not (out / LOCK).exists():
        return finished  # else a kill after the last word has left something
    with held(out, "augmentation"):
        if finished is None:
            finished = _written(sets, augmenter, out, cache, key, file_format)
        shutil.rmtree(cache, ignore_errors=True)
    return finished


def _written(
    sets: list[ImageSet],
    augmenter: LowRankAugmenter,
    out: Path,
    cache: Path,
    key: str,
    file_format: str,
) -> dict[str, Any]:
    """Write everything; the summary comes last."""
    augmented = _Augmented.of(sets, augmenter, cache)
    split = sets[0].split
    if file_format == "parquet":
        place = out / f"{split}-00000-of-00001.parquet"
        _write_parquet(augmented, place, augmenter.progress)
    else:
        place = out / split
        _write_folder(augmented, place, out / LOG, augmenter.progress)
    summary = {"key": key, **augmented.summary(augmenter), "format": file_format}
    summary["data"] = place.name
    write_json(out / _DONE, summary)
    return summary


def _check_names(sets: list[ImageSet]) -> None:
    """A file's name may be any bytes, but not in a parquet or CSV file."""
    for part in sets:
        for kind, names in (("class", part.class_names), ("image", part.source_ids)):
            for name in map(str, names):
                try:
                    name.encode()
                except UnicodeEncodeError:
                    raise RunError(
                        f"the name of the {kind} {name!a} isn't UTF-8, which the names in "
                        "parquet and CSV files are; rename it"
                    ) from None


def _check_channels(sets: list[ImageSet]) -> None:
    """A PNG file holds grey, RGB or RGBA; two channels would be read as grey and transparency."""
    for part in sets:
        channels = part.image_shape[2] if len(part.image_shape) == 3 else 1
        if channels not in (1, 3, 4):
            raise DataError(
                f"images of {channels} channels can't be written as PNG files, which either format "
                "holds; 1, 3 or 4 channels are accepted"
            )


def check_format(file_format: str) -> None:
    """Raise `OptionError` for a format that `augment_files` doesn't write."""
    if file_format not in FORMATS:
        raise OptionError(f"format must be one of {', '.join(FORMATS)}, not {file_format!r}")


def _finished(out: Path, key: str, cache: str) -> dict[str, Any] | None:
    found = {path.name for path in contents(out)}
    if _DONE in found:
        summary = read_json_object(out / _DONE, error=RunError, hint="; choose another folder")
        if summary.get("key") != key:
            raise RunError(f"{out} holds another augmentation; choose another folder")
        if summary.get("data") not in found:
            raise RunError(f"{out} has lost its {summary.get('data')}; remove it and run again")
        return summary
    refuse_foreign(out, "augmentation", own=cache in found)
    return None


@dataclass(frozen=True)
class _Augmented:
    """Augmented sets of one or several sizes, their rows mixed.

    Parameters
    ----------
    sets : list of AugmentedSet
    part_of, row_of : int arrays, or row_of a range
        Set, and row in it, of each row.
    """

    sets: list[AugmentedSet]
    part_of: NDArray[np.int64]
    row_of: NDArray[np.int64] | range

    @classmethod
    def of(cls, sets: list[ImageSet], augmenter: LowRankAugmenter, cache: Path) -> _Augmented:
        """Augment each set; several are mixed once more, by the seed."""
        if len(sets) == 1:
            only = augmenter.augment(sets[0], cache=cache)
            n = len(only.images)
            return cls([only], np.broadcast_to(np.int64(0), n), range(n))
        found = [
            augmenter.augment(part, cache=cache / str(number)) for number, part in enumerate(sets)
        ]
        sizes = [len(part.images) for part in found]
        order = augmenter.order(sum(sizes))
        part_of = np.repeat(np.arange(len(found)), sizes)
        row_of = np.concatenate([np.arange(n) for n in sizes])
        return cls(found, part_of[order], row_of[order])

    def __len__(self) -> int:
        return len(self.row_of)

    def _at(self, number: int) -> tuple[AugmentedSet, int]:
        """The set of a row, and the row there."""
        return self.sets[self.part_of[number]], int(self.row_of[number])

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.sets[0].images.class_names

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """One image."""
        part, row = self._at(number)
        return part.images.images[row]

    def label(self, number: int) -> int:
        """Its class."""
        part, row = self._at(number)
        return int(part.images.labels[row])

    def file_name(self, number: int) -> str:
        """A name that tells the source, and no other row has."""
        part, row = self._at(number)
        stem = re.sub(r"[^\w.=+-]+", "_", str(part.images.source_ids[row]))
        return f"{stem}--{number:07d}.png"

    def entry(self, number: int) -> dict[str, Any]:
        """The log's columns for one row; None for an original."""
        augmented, row = self._at(number)
        log, place = augmented.log, int(augmented.copy_of[row])
        values: dict[str, Any] = dict.fromkeys(_COLUMNS)
        values["source_id"] = str(augmented.images.source_ids[row])
        if place >= 0:
            values["energy"] = float(log.energies[place])
            values["rank"] = log.ranks[place].tolist()
            values["error"] = float(log.errors[place])
            values["psnr"] = float(log.psnr[place])
        return values

    def groups(self) -> Iterator[range]:
        """Rows that are written at a time."""
        most = max(int(np.prod(part.images.image_shape)) for part in self.sets)
        step = max(1, min(_ROW_GROUP, _GROUP_BYTES // most))
        for start in range(0, len(self), step):
            yield range(start, min(start + step, len(self)))

    def summary(self, augmenter: LowRankAugmenter) -> dict[str, Any]:
        """Counts and means, for ``augment.json``."""
        logs = [part.log for part in self.sets]
        copies = sum(map(len, logs))
        psnr = np.concatenate([log.psnr for log in logs])
        finite = psnr[np.isfinite(psnr)]

        def mean(*values: NDArray[Any]) -> float | None:
            return float(np.concatenate(values).mean()) if copies else None

        return {
            "originals": int(sum((part.copy_of < 0).sum() for part in self.sets)),
            "copies": copies,
            "copies_equal_to_their_original": int(np.isinf(psnr).sum()),
            "mean_energy": mean(*(log.energies for log in logs)),
            "mean_rank": mean(*(log.ranks.ravel() for log in logs)),
            "mean_error": mean(*(log.errors for log in logs)),
            "mean_psnr_of_the_others": float(finite.mean()) if len(finite) else None,
            "transform": augmenter.transform.to_dict(),
            "source_pattern": SOURCE_PATTERN,
        }


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _write_parquet(augmented: _Augmented, path: Path, progress: bool) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(augmented.class_names)),
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
        progress_bar("parquet", len(augmented), enabled=progress) as advance,
    ):
        for rows in augmented.groups():
            entries = [augmented.entry(row) for row in rows]
            columns: dict[str, Any] = {
                "image": [
                    {"bytes": _png(augmented.pixels(row)), "path": augmented.file_name(row)}
                    for row in rows
                ],
                "label": [augmented.label(row) for row in rows],
            }
            columns |= {name: [entry[name] for entry in entries] for name in _COLUMNS}
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            advance(len(rows))


def _write_folder(augmented: _Augmented, place: Path, log: Path, progress: bool) -> None:
    folders = [re.sub(r"[/\\\0]+", "_", name) for name in augmented.class_names]
    # A folder of a name that begins with a dot is hidden, and isn't read again.
    if len(set(folders)) < len(folders) or any(name[:1] in ("", ".") for name in folders):
        raise OptionError("class names that can't be folder names: use the parquet format")
    work = place.with_name(f".{place.name}")
    shutil.rmtree(work, ignore_errors=True)
    for folder in {folders[augmented.label(row)] for row in range(len(augmented))}:
        (work / folder).mkdir(parents=True)
    with (
        atomic_path(log) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
        progress_bar("images", len(augmented), enabled=progress) as advance,
    ):
        writer = csv.DictWriter(file, ["file", "label", *_COLUMNS])
        writer.writeheader()
        for row in range(len(augmented)):
            name = f"{folders[augmented.label(row)]}/{augmented.file_name(row)}"
            (work / name).write_bytes(_png(augmented.pixels(row)))
            entry = augmented.entry(row)
            entry["rank"] = " ".join(map(str, entry["rank"] or []))
            label = augmented.class_names[augmented.label(row)]
            writer.writerow({"file": f"{place.name}/{name}", "label": label, **entry})
            advance(1)
    shutil.rmtree(place, ignore_errors=True)
    os.replace(work, place)
