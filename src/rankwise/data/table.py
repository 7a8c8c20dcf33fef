"""A CSV file or a list of files and labels, beside the images or as the source itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from rankwise.data.class_folders import FolderSet, images_in, listed
from rankwise.data.file_names import Files
from rankwise.data.kinds import ARRAYS
from rankwise.data.lines import ENDINGS, LISTS, Lines, lines_of
from rankwise.data.parts import PartName, part_of, words_of
from rankwise.data.tree import Tree, below, has_image_ending
from rankwise.errors import DataError

LABEL_NAMES = ("label", "labels", "class", "category", "target", "y")
"""Names of a column of labels, in tables, in parquet files and on the hub."""

_FILE_WORDS = ("file", "filename", "path", "image", "img", "id", "name")
_PART_WORDS = ("split", "part", "subset", "set", "partition", "usage", "phase")
_BITS = {"0", "1", "0.0", "1.0"}  # of labels as columns of their own
_LOOKED_AT = 200  # rows by which a column of files is known
_FRACTION = re.compile(r"(?<=\d)\.0*\s*$")
_NO_LABELS = re.compile("submission|sample")  # of a contest: what to hand in, no labels


@dataclass(frozen=True)
class Table:
    """Rows of a table whose files are there.

    Parameters
    ----------
    path : Path
    rows : list of (file, label, part or None, line)
    missing : list of (text, line)
        Files of the table that aren't there.
    labels : Labels or None
        None where only the parts of files were asked for, and no column holds labels.
    others : str
        Of rows of no part, in words.
    """

    path: Path
    rows: list[tuple[Path, str, str | None, int]]
    missing: list[tuple[str, int]]
    labels: Labels | None
    others: str = ""

    @property
    def told(self) -> str:
        """What its labels are taken from."""
        column = self.labels.column if self.labels else ""
        return f"{self.path}{f', {column}' if column else ''}"


@dataclass(frozen=True)
class Labels:
    """The labels of a table, one a row.

    Parameters
    ----------
    values : list of str
    column : str
        Where they come from, if there was a choice.
    usual : bool
        Whether the column is called so.
    """

    values: list[str]
    column: str
    usual: bool


def tables_beside(folder: Path) -> list[Path]:
    """CSV files and lists in a folder that may hold labels."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS
        and not path.name.startswith(".")
        and not _NO_LABELS.search(path.stem.lower())
        and path.is_file()
    )


def read_table(
    path: Path,
    files: Files,
    label_column: str | None = None,
    *,
    beside: AbstractSet[str] = frozenset(),
) -> Table | None:
    """The files and labels of a table; None if no column names files, or none labels.

    `beside` are the names of class folders, where it lies beside such. There files alone do, if
    the table's name or a column says their part, and the one column of such names is the label.

    Raises
    ------
    DataError
        If it can't be read, or the columns can't be told apart.
    """
    lines = lines_of(path)
    if not lines:
        return None
    is_list = path.suffix.lower() in LISTS
    header, body = _header(lines, files, is_list)
    column = _file_column(path, header, body, files, is_list)
    width = Counter(len(cells) for cells, _ in lines).most_common(1)[0][0]
    for cells, line in lines:
        if len(cells) != width and (column is not None or not is_list):
            raise DataError(
                f"Line {line} of {path} has {len(cells)} cells, most lines have {width}; one for "
                "each column is accepted."
            )
    if column is None:
        return None
    columns = (i for i in range(len(header)) if i != column)
    part = next((i for i in columns if _is_parts(header, body, i)), None)
    of_table = part_of(path.stem)
    labels = _labels(path, header, body, {column, part}, label_column, beside)
    if labels is None and not (beside and (part is not None or of_table is not None)):
        return None
    rows, missing = [], []
    others: list[str] = []
    values = labels.values if labels else [""] * len(body)
    for (cells, line), label in zip(body, values, strict=True):
        named = part_of(cells[part]) if part is not None else of_table
        if part is not None and named is None:
            others.append(cells[part])
            continue
        found = _nearest(files.find(cells[column]), path.parent, named)
        if len(found) > 1:
            raise DataError(
                f"Line {line} of {path} names {cells[column]!r}, which could be {found[0]} or "
                f"{found[1]}; a path from the folder of the table is accepted."
            )
        if not found:
            missing.append((cells[column], line))
            continue
        rows.append((found[0], label, named.part if named else None, line))
    told = ""
    if others and part is not None:
        values_there = listed(sorted({repr(value) for value in others}))
        told = f"left out: {len(others):,} rows of {path} whose {header[part]} is {values_there}"
    return Table(path, rows, missing, labels, told)


def _holds_pixels(lines: Lines) -> bool:
    """Whether lines have very many cells, or one cell of very many numbers (FER-2013)."""
    return any(len(cells) > 48 or any(c.count(" ") > 48 for c in cells) for cells, _ in lines[1:3])


def why_not(path: Path, files: Files) -> str:
    """Why a table gives no labels, for an error."""
    try:
        lines = lines_of(path)
    except DataError as error:
        return str(error).rstrip(".")
    if _holds_pixels(lines):
        return f"{path.name} holds pixels by its looks: {ARRAYS}"
    named = next((cell for cells, _ in lines for cell in cells if _is_file_name(cell)), None)
    if named is not None and not files.find(named):
        return f"{path.name} names {named}, which isn't among the images"
    return f"no columns of files and labels in {path.name}"


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


def _whole(path: Path, values: list[str], body: Lines) -> list[str]:
    """Labels, whole numbers without their ``.0``, and none where there is no number.

    Raises
    ------
    DataError
        For a column of measurements.
    """
    try:
        numbers = [float(value) for value in values if value.strip()]
    except ValueError:
        return values  # names
    fractions = [i for i, n in enumerate(numbers) if n == n and not n.is_integer()]
    if fractions:
        at = [i for i, value in enumerate(values) if value.strip()][fractions[0]]
        raise DataError(
            f"Label {values[at].strip()} in line {body[at][1]} of {path} isn't an integer; "
            "integers or class names are accepted."
        )
    return ["" if _is_nan(value) else _FRACTION.sub("", value) for value in values]


def _is_nan(value: str) -> bool:
    return value.strip().lower().lstrip("+-") == "nan"


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
        note_missing(table, found)
        found.notes.append(f"labels: from {table.told}")
    for path, (label, split, _) in sorted(known.items()):
        found.parts.setdefault(split, []).append((path, label))
    left = [path for path in images_in(tree) if path not in known]
    if left:
        found.notes.append(
            f"left out: {len(left):,} images without a line in the table, such as {left[0]}"
        )
    _note_several({label for label, _, _ in known.values()}, found)
    return found


def note_missing(table: Table, found: FolderSet) -> None:
    """Say which files of a table aren't there."""
    if table.others:
        found.notes.append(table.others)
    if table.missing:
        text, line = table.missing[0]
        more = len(table.missing) - 1
        also = f" and {more:,} more of its files" if more else ""
        found.notes.append(
            f"left out: {text} (line {line} of {table.path}){also}: not among the images"
        )


def _note_several(labels: set[str], found: FolderSet) -> None:
    """Say that several labels of one image, ``cat|dog``, are read as one class."""
    plain = {label.strip() for label in labels}
    for label in sorted(plain):
        for sign in "|;,":
            pieces = [piece.strip() for piece in label.split(sign)]
            if len(pieces) > 1 and any(piece in plain for piece in pieces):
                found.notes.append(
                    f"the label {label!r} holds several by its looks; it is read as a class of its "
                    "own, since an image has one label"
                )
                return


def _header(lines: Lines, files: Files, is_list: bool) -> tuple[list[str], Lines]:
    """Names of the columns, numbers from 1 where the first line names a file already."""
    first = lines[0][0]
    if any(_names_file(cell, files, bare=not is_list) for cell in first):
        return [str(i) for i in range(1, len(first) + 1)], lines
    if is_list and not any(set(words_of(cell)) & {*_FILE_WORDS, *LABEL_NAMES} for cell in first):
        return [str(i) for i in range(1, len(first) + 1)], lines
    return [cell.strip() for cell in first], lines[1:]


def _names_file(cell: str, files: Files, *, bare: bool) -> bool:
    """Whether a cell names a file; a number alone does so where `bare`."""
    return bool(files.find(cell)) and (bare or not cell.strip().isdigit())


def _is_file_name(cell: str) -> bool:
    return has_image_ending(Path(cell.strip())) and len(cell) < 1000


def _file_column(
    path: Path, header: list[str], body: Lines, files: Files, is_list: bool
) -> int | None:
    """The column whose cells name files of the tree, most of them different ones.

    A number names a file too, but in a list only where a header says so: there it is a label.
    """
    looked_at = body[:: max(1, len(body) // _LOOKED_AT)]
    scores = {}
    for i in range(len(header)):
        cells = [cells[i] for cells, _ in looked_at if i < len(cells)]
        bare = not is_list or bool(set(words_of(header[i])) & set(_FILE_WORDS))
        named = sum(_names_file(cell, files, bare=bare) for cell in cells)
        differ = 2 * len(set(cells)) >= len(cells) or all(map(_is_file_name, cells))
        if 2 * named >= len(cells) > 0 and differ:
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


def _is_parts(header: list[str], body: Lines, i: int) -> bool:
    """Whether a column says parts: all of its values do, or training and another one do by name."""
    values = {cells[i] for cells, _ in body}
    if not 1 <= len(values) <= 8:
        return False
    parts = {named.part for named in map(part_of, values) if named is not None}
    if set(words_of(header[i])) & set(_PART_WORDS) and "train" in parts and len(parts) > 1:
        return True
    return all(map(part_of, values))


def _labels(
    path: Path,
    header: list[str],
    body: Lines,
    taken: set[int | None],
    wanted: str | None,
    beside: AbstractSet[str],
) -> Labels | None:
    """The label of each row: of one column, or the one column of several that has a 1."""
    left = [i for i in range(len(header)) if i not in taken]
    words = [set(words_of(name)) for name in header]
    # Beside an x, y is a place.
    names = set(LABEL_NAMES) - ({"y"} if any("x" in some for some in words) else set())
    usual = [i for i in left if words[i] & names]
    if wanted is None and not usual:
        hot = [i for i in left if {cells[i].strip() for cells, _ in body} <= _BITS]
        ones = [[header[i] for i in hot if float(cells[i]) == 1] for cells, _ in body]
        if len(hot) > 1 and hot == left and all(len(names) == 1 for names in ones):
            shown = listed([header[i] for i in hot])
            return Labels([names[0] for names in ones], f"the one of {shown} that is 1", True)
    if wanted is None and len(usual) != 1 and beside:
        usual = [i for i in left if {cells[i].strip() for cells, _ in body} <= beside] or usual
    column = _label_column(path, header, body, left, usual, wanted)
    if column is None:
        return None
    values = _whole(path, [cells[column] for cells, _ in body], body)
    told = f"column {header[column]}" if len(left) > 1 else ""
    return Labels(values, told, wanted is not None or column in usual)


def _label_column(
    path: Path,
    header: list[str],
    body: Lines,
    left: list[int],
    usual: list[int],
    wanted: str | None,
) -> int | None:
    if wanted is not None:
        named = [i for i in left if header[i] == wanted]
        if not named:
            names = ", ".join(header[i] for i in left)
            raise DataError(
                f"{path} has no column {wanted!r} of labels; {names or 'no other'} "
                f"{'is' if len(left) < 2 else 'are'} there."
            )
        return named[0]
    candidates = usual or left
    # Two spellings of one label, a number and its name, are one: the name is shown.
    while len(candidates) > 1 and _same(body, candidates[0], candidates[1]):
        numbers = all(cells[candidates[0]].strip().isdigit() for cells, _ in body)
        candidates = [c for c in candidates if c != candidates[0 if numbers else 1]]
    if len(candidates) > 1:
        raise DataError(
            f"{path} could hold labels in the columns {', '.join(header[i] for i in candidates)}; "
            "name the one with label_column (--label-column on the command line)."
        )
    return candidates[0] if candidates else None


def _same(body: Lines, one: int, other: int) -> bool:
    pairs = {(cells[one], cells[other]) for cells, _ in body}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
