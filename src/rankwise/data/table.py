"""A CSV file of files and labels, beside the images or as the source itself."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rankwise.data.class_folders import FolderSet, images_in
from rankwise.data.parts import PartName, part_of, words_of
from rankwise.data.tree import Tree, below
from rankwise.errors import DataError, is_shortage

ENDINGS = (".csv", ".tsv")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "y")
"""Names of a column of labels, in tables, in parquet files and on the hub."""

_MOST_BYTES = 2**30
_FILE_WORDS = ("file", "filename", "path", "image", "img", "id", "name")
_LOOKED_AT = 200  # rows by which a column of files is known
_NO_LABELS = re.compile("submission|sample")  # of a contest: what to hand in, no labels


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file whose files are there.

    Parameters
    ----------
    path : Path
    rows : list of (file, label, part or None, line)
    missing : list of (text, line)
        Files of the table that aren't there.
    """

    path: Path
    rows: list[tuple[Path, str, str | None, int]]
    missing: list[tuple[str, int]]
    usual: bool
    """Whether the column of labels is called so."""


class Files:
    """Files of a tree by every way in which a table may name them."""

    def __init__(self, images: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in images:
            self._by_name[path.name].append(path)
            self._by_name[path.stem].append(path)

    def find(self, text: str) -> list[Path]:
        """All files that a text may mean, the longest common path deciding."""
        parts = [p for p in text.strip().replace("\\", "/").split("/") if p not in ("", ".", "..")]
        if not parts:
            return []
        found = list(dict.fromkeys(self._by_name.get(parts[-1], [])))
        exact = [path for path in found if path.name == parts[-1]]
        found = exact or found
        # Folders before the name tell files of one name apart, as far as they are there.
        for n in range(2, len(parts) + 1):
            closer = [path for path in found if path.parts[-n:-1] == tuple(parts[-n:-1])]
            if not closer:
                break
            found = closer
        return found


def tables_beside(folder: Path) -> list[Path]:
    """CSV files in a folder that may hold labels."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS
        and not path.name.startswith(".")
        and not _NO_LABELS.search(path.stem.lower())
        and path.is_file()
    )


def read_table(path: Path, files: Files, label_column: str | None = None) -> Table | None:
    """The files and labels of a CSV file; None if no column names files, or none labels.

    Raises
    ------
    DataError
        If it can't be read, or the columns can't be told apart.
    """
    lines = _lines(path)
    if not lines:
        return None
    width = Counter(len(cells) for cells, _ in lines).most_common(1)[0][0]
    header, body = _header(lines, files)
    for cells, line in lines:
        if len(cells) != width:
            raise DataError(
                f"Line {line} of {path} has {len(cells)} cells, most lines have {width}; one for "
                "each column is accepted."
            )
    column = _file_column(path, header, body, files)
    if column is None:
        return None
    part = next((i for i, _ in enumerate(header) if i != column and _is_parts(body, i)), None)
    label = _label_column(path, header, body, {column, part}, label_column)
    if label is None:
        return None
    _check_no_fractions(path, body, label)
    rows, missing = [], []
    of_table = part_of(path.stem)
    for cells, line in body:
        named = part_of(cells[part]) if part is not None else of_table
        found = _nearest(files.find(cells[column]), path.parent, named)
        if len(found) > 1:
            raise DataError(
                f"Line {line} of {path} names {cells[column]!r}, which could be {found[0]} or "
                f"{found[1]}; a path from the folder of the table is accepted."
            )
        if not found:
            missing.append((cells[column], line))
            continue
        rows.append((found[0], cells[label], named.part if named else None, line))
    usual = label_column is not None or bool(set(words_of(header[label])) & set(LABEL_NAMES))
    return Table(path, rows, missing, usual)


def _nearest(found: list[Path], folder: Path, part: PartName | None) -> list[Path]:
    """Of files of one name those beside the table, or in the part that its row or name says."""
    beside = [path for path in found if path.parent == folder]
    if len(found) < 2 or len(beside) == 1:
        return beside or found
    inside = [path for path in found if path.is_relative_to(folder)] or found
    meant = [
        path
        for path in inside
        if part is not None
        and any(p and p.part == part.part for p in map(part_of, below(path, folder).parts[:-1]))
    ]
    return meant or inside


def _check_no_fractions(path: Path, body: list[tuple[list[str], int]], i: int) -> None:
    """Refuse a column of measurements as labels."""
    values = [(cells[i].strip(), line) for cells, line in body if cells[i].strip()]
    try:
        numbers = [(float(value), value, line) for value, line in values]
    except ValueError:
        return  # names
    for number, value, line in numbers:
        if not number.is_integer():
            raise DataError(
                f"Label {value} in line {line} of {path} isn't an integer; integers or class names "
                "are accepted."
            )


def set_of(tree: Tree, tables: list[Table], found: FolderSet) -> FolderSet:
    """The images that tables label, in the parts that they, or the folders, say.

    Raises
    ------
    DataError
        If a file has two labels or lies in two parts, or a label is empty.
    """
    known: dict[Path, tuple[str, str, str]] = {}
    for table in tables:
        for path, label, part, line in table.rows:
            where = f"line {line} of {table.path}"
            if not label.strip():
                found.unusable[path] = f"{where} gives it no label"
            inside = [p.part for p in map(part_of, below(path, tree.path).parts[:-1]) if p]
            split = part or (inside[0] if inside else "train")
            before = known.setdefault(path, (label, split, where))
            if before[:2] != (label, split):
                raise DataError(
                    f"{path} is {before[0]!r} ({before[1]}) by {before[2]} and {label!r} ({split}) "
                    f"by {where}; one of them is accepted."
                )
        if table.missing:
            text, line = table.missing[0]
            more = len(table.missing) - 1
            also = f" and {more:,} more of its files" if more else ""
            found.notes.append(
                f"left out: {text} (line {line} of {table.path}){also}: not among the images"
            )
        found.notes.append(f"labels: from {table.path}")
    for path, (label, split, _) in sorted(known.items()):
        found.parts.setdefault(split, []).append((path, label))
    left = [path for path in images_in(tree) if path not in known]
    if left:
        found.notes.append(
            f"left out: {len(left):,} images without a line in the table, such as {left[0]}"
        )
    return found


def _lines(path: Path) -> list[tuple[list[str], int]]:
    """Cells and number of each line that isn't empty."""
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
    first = text.split("\n", 1)[0]
    separator = max(
        ("," if path.suffix.lower() != ".tsv" else "\t", ",", ";", "\t"), key=first.count
    )
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    try:
        return [(cells, reader.line_num) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} of {path} can't be read ({error}).") from error


def _header(
    lines: list[tuple[list[str], int]], files: Files
) -> tuple[list[str], list[tuple[list[str], int]]]:
    """Names of the columns, numbers from 1 where the first line names a file already."""
    first = lines[0][0]
    if any(files.find(cell) for cell in first):
        return [str(i) for i in range(1, len(first) + 1)], lines
    return [cell.strip() for cell in first], lines[1:]


def _file_column(
    path: Path, header: list[str], body: list[tuple[list[str], int]], files: Files
) -> int | None:
    """The column whose cells name files of the tree, most of them different ones."""
    looked_at = body[:: max(1, len(body) // _LOOKED_AT)]
    scores = {}
    for i in range(len(header)):
        cells = [cells[i] for cells, _ in looked_at]
        named = sum(bool(files.find(cell)) for cell in cells)
        if 2 * named >= len(cells) > 0 and 2 * len(set(cells)) >= len(cells):
            scores[i] = named
    best = [i for i, score in scores.items() if score == max(scores.values())]
    usual = [i for i in best if set(words_of(header[i])) & set(_FILE_WORDS)]
    best = usual if len(best) > 1 and usual else best
    if len(best) > 1:
        raise DataError(
            f"{path} names files in the columns {', '.join(header[i] for i in best)}; which one is "
            "meant can't be told: call it 'file'."
        )
    return best[0] if best else None


def _is_parts(body: list[tuple[list[str], int]], i: int) -> bool:
    values = {cells[i] for cells, _ in body}
    return 1 <= len(values) <= 8 and all(map(part_of, values))


def _label_column(
    path: Path,
    header: list[str],
    body: list[tuple[list[str], int]],
    taken: set[int | None],
    wanted: str | None,
) -> int | None:
    left = [i for i in range(len(header)) if i not in taken]
    if wanted is not None:
        named = [i for i in left if header[i] == wanted]
        if not named:
            raise DataError(
                f"{path} has no column {wanted!r}; "
                f"{', '.join(header[i] for i in left)} are accepted."
            )
        return named[0]
    usual = [i for i in left if set(words_of(header[i])) & set(LABEL_NAMES)]
    candidates = usual or left
    # Two spellings of one label, a number and its name, are one: the name is shown.
    while len(candidates) > 1 and _same(body, candidates[0], candidates[1]):
        numbers = all(cells[candidates[0]].strip().isdigit() for cells, _ in body)
        candidates.pop(0 if numbers else 1)
    if len(candidates) > 1:
        raise DataError(
            f"{path} could hold labels in the columns {', '.join(header[i] for i in candidates)}; "
            "name the one with label_column (--label-column on the command line)."
        )
    return candidates[0] if candidates else None


def _same(body: list[tuple[list[str], int]], one: int, other: int) -> bool:
    pairs = {(cells[one], cells[other]) for cells, _ in body}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
