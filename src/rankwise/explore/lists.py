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
"""Of a list of faults; `read_list` takes those that ``leave`` says yes of."""

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
        called ``leave``, lines say ``yes`` there, or ``no``, and then they are left alone.

    Raises
    ------
    DataError
        If it can't be read, has no such column, or says anything else in the column ``leave``.
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
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(cells, reader.line_num) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error}); {accepted}.") from error
    header = [name.strip().casefold() for name in lines[0][0]] if lines else []
    column = next((header.index(name) for name in IMAGE_COLUMNS if name in header), None)
    if column is None:
        raise DataError(
            f"{path} has no column {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}; "
            f"{accepted}, such as rankwise explore exports."
        )
    leave = header.index("leave") if "leave" in header else None
    found = [
        cells[column]
        for cells, number in lines[1:]
        if len(cells) > column
        and cells[column]
        and (leave is None or _says_yes(cells[leave : leave + 1], f"Line {number} of {path}"))
    ]
    return list(dict.fromkeys(found))


def _says_yes(cell: list[str], where: str) -> bool:
    """What a cell of the column ``leave`` says; a line may be too short to have one."""
    said = "".join(cell).strip()
    if said.casefold() not in ("yes", "no"):
        raise DataError(f"{where} says {said!r} in the column leave; yes or no is accepted.")
    return said.casefold() == "yes"
