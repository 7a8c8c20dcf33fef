"""The cells of a table's lines: CSV as spreadsheets write it, and lists parted by blanks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from rankwise.errors import DataError, is_shortage

LISTS = (".txt", ".lst", ".list")
"""Endings of lists, ``file label`` a line; a text of another sort may have them too."""
ENDINGS = (".csv", ".tsv", *LISTS)
"""Endings of what may be a table of files and labels."""

Lines = list[tuple[list[str], int]]
"""Cells and number of each line that isn't empty."""

_MOST_BYTES = 2**30


def lines_of(path: Path) -> Lines:
    """Cells and number of each line that isn't empty.

    Cells are parted by commas, semicolons or tabs, whichever the first line has most of. Those of
    a list without any are parted by blanks; where that gives lines of several lengths, file names
    hold blanks, and the last word alone is a cell of its own.

    Raises
    ------
    DataError
        If it can't be read, isn't text, or quotes aren't closed.
    """
    text = _text(path)
    first = text.split("\n", 1)[0]
    separators = (",", ";", "\t") if path.suffix.lower() != ".tsv" else ("\t", ",", ";")
    separator = max(separators, key=first.count)
    if path.suffix.lower() in LISTS and separator not in first:
        return _by_blanks(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    try:
        return [(cells, reader.line_num) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} of {path} can't be read ({error}).") from error


def _by_blanks(text: str) -> Lines:
    numbered = [(line, n) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len({len(line.split()) for line, _ in numbered}) == 1:
        return [(line.split(), n) for line, n in numbered]
    return [(line.strip().rsplit(None, 1), n) for line, n in numbered]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has over {_MOST_BYTES >> 20} MiB; a table of labels is less.")
        data = path.read_bytes()
    except OSError as error:
        if is_shortage(error):
            raise
        raise DataError(f"{path} can't be read ({error.strerror or error}).") from error
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets save "Unicode text"
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} isn't in UTF-8 (byte {error.start}), and other encodings can't be told "
            "apart; save it as UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(f"{path} isn't a table: it holds bytes of value zero.")
    return text
