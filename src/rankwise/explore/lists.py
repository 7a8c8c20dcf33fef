"""Lists of images as CSV: what was found, and what a training is to leave out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rankwise._files import atomic_path, expanded
from rankwise.errors import DataError

IMAGE_COLUMNS = ("image", "image_id", "file", "path", "filename")
"""Names of the column that `read_list` takes, the first that is there."""

COLUMNS = ("image", "leave", "part", "label", "list", "reason", "suggested", "score")
"""Of a list of faults; `read_list` takes those that ``leave`` doesn't say no of."""

MISTAKE_COLUMNS = ("image", "true", "predicted", "confidence")
"""Of a list of wrong predictions."""

_MOST_BYTES = 2**28


def write_list(path: Path | str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV, whole or not at all; names are kept to the byte."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_list(path: Path | str) -> list[str]:
    """Names of the images in a CSV file, each once, in order.

    Parameters
    ----------
    path : path
        With a column of one of the names `IMAGE_COLUMNS`, and any others beside it. Where one is
        called ``leave``, lines that say ``no`` there are left alone.

    Raises
    ------
    DataError
        If it can't be read, or has no such column.
    """
    path = expanded(path)
    accepted = f"a CSV file with a column named {IMAGE_COLUMNS[0]} is accepted"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is too large for a list of images; {accepted}.")
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); {accepted}.") from error
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error}); {accepted}.") from error
    header = [name.strip().casefold() for name in lines[0]] if lines else []
    column = next((header.index(name) for name in IMAGE_COLUMNS if name in header), None)
    if column is None:
        raise DataError(
            f"{path} has no column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}; "
            f"{accepted}, such as rankwise explore exports."
        )
    leave = header.index("leave") if "leave" in header else None
    found = [
        line[column]
        for line in lines[1:]
        if len(line) > column
        and line[column]
        and (leave is None or len(line) <= leave or line[leave].strip().casefold() != "no")
    ]
    return list(dict.fromkeys(found))
