"""A folder of image files: class folders, parts of a set, or images with a table of labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankwise.data.class_folders import SHOWN, FolderSet, classes_in, images_in, listed
from rankwise.data.file_names import Files
from rankwise.data.kinds import ARRAYS, remedy_of
from rankwise.data.labels import capital_twins, check_twins
from rankwise.data.lines import ENDINGS, LISTS, lines_of
from rankwise.data.numbered import parts_by_number
from rankwise.data.parts import in_order, part_of, says_no_class
from rankwise.data.reader import Block, Index, IntArray
from rankwise.data.table import (
    Table,
    note_missing,
    read_table,
    set_of,
    tables_beside,
    why_not,
)
from rankwise.data.tree import Tree, below, has_image_ending, is_image, scan
from rankwise.errors import DataError

_BLOCK = 64
# Files about a set that hold neither labels nor parts.
_ABOUT = re.compile(
    r"(?i)^(augment[.-]|readme|licen[sc]e|copying|citation|changelog|notice)|\.(md|pdf|html?)$"
)


class FolderReader:
    """Reader of a `FolderSet`."""

    def __init__(self, found: FolderSet, name: str) -> None:
        self.name = name
        self._found = found
        self.splits = in_order(set(found.parts))
        self.own_names = {split: found.own_names.get(split, split) for split in self.splits}
        self._class_names = tuple(
            sorted({name for files in found.parts.values() for _, name in files if name.strip()})
        )
        check_twins(self._class_names, f"{found.root}")
        self.notes = (*found.notes, *capital_twins(self._class_names))

    def index(self, split: str) -> Index:
        """Classes, relative paths, and the files that can't be read."""
        files = self._found.parts[split]
        place = {name: label for label, name in enumerate(self._class_names)}
        unusable = {
            row: self._found.unusable[path]
            for row, (path, _) in enumerate(files)
            if path in self._found.unusable
        }
        blank = (row for row, (_, name) in enumerate(files) if name not in place)
        unusable = dict.fromkeys(blank, "its label is empty") | unusable
        labels = np.array([place.get(name, 0) for _, name in files], dtype=np.int64)
        root = self._found.root
        paths = [below(path, root).as_posix() for path, _ in files]
        return Index(labels, self._class_names, paths, unusable)

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Give the paths of the images asked for."""
        files = self._found.parts[split]
        for start in range(0, len(rows), _BLOCK):
            yield [files[row][0] for row in rows[start : start + _BLOCK]]

    def describe(self, split: str, row: int) -> str:
        """The file."""
        return str(self._found.parts[split][row][0])


def folder_reader(root: Path, label_column: str | None = None) -> FolderReader:
    """Reader of a folder of images.

    Raises
    ------
    DataError
        If it holds none, their labels can't be told, or what is a part and what a class can't.
    """
    tree = scan(root)
    if not tree.n_images:
        state = "holds no image, parquet or IDX file" if any(root.iterdir()) else "is empty"
        accepted = (
            "a folder of images for each class, such folders in train and test, or images with a "
            "CSV file of file and label are accepted"
        )
        raise DataError(f"The folder {root} {state}; {_kinds_in(tree) or accepted}.")
    found = classes_in(tree)
    tables = _tables_of(tree)
    names = set() if found is None else {n for f in found.parts.values() for _, n in f}
    # One folder of images is no class of its own where a table tells the classes.
    if found is None or (len(names) == 1 and (tables or all(map(says_no_class, names)))):
        return _with_tables(tree, tables, label_column)
    if names and all(map(says_no_class, names)):
        raise DataError(
            f"{root} holds the folders {listed(sorted(names))}, whose names say what their files "
            "are, not of which class; a folder of images for each class, or a CSV file of file and "
            "label beside the images, is accepted."
        )
    used = _used(found, tree, tables, label_column)
    _note_unread(tree, found, used)
    return FolderReader(found, root.resolve().name)


def table_reader(path: Path, label_column: str | None = None) -> FolderReader:
    """Reader of a CSV file of files and labels; paths count from its folder."""
    root = path.parent
    # What it names from its own folder is found without a look through all that lies there.
    named = Tree(root, images=_named_directly(path))
    return _with_tables(named if named.images else scan(root), [path], label_column)


def _with_tables(tree: Tree, paths: list[Path], label_column: str | None) -> FolderReader:
    files = Files(images_in(tree), [node.path for node in tree.walk()])
    tables = []
    for path in paths:
        try:
            tables.append(read_table(path, files, label_column))
        except DataError:
            # A text that lies there need be no list; one that is named must be.
            if path.suffix.lower() not in LISTS or len(paths) == 1:
                raise
    usable = [table for table in tables if table is not None and table.rows]
    named = [part_of(t.path.stem) or part_of(t.path.parent.name) for t in usable]
    parts = {name.part if name else None for name in named}
    if len(parts) < len(usable):
        raise DataError(
            f"{tree.path} holds several tables of labels, "
            f"{listed([table.path.name for table in usable])}; name the one that is meant as the "
            "source, or call them train and test."
        )
    if not usable:
        folders = [folder.path.name for folder in tree.filled]
        where = f"folders {listed(folders)}" if folders else "folder itself"
        tried = "".join(f"; {why_not(path, files)}" for path in paths[:SHOWN])
        tried += "; ".join(["", *_remedies(tree.others)])
        raise DataError(
            f"{tree.path} holds {tree.n_images:,} images in the {where}, and no label for "
            f"them{tried}; a folder of images for each class, or a CSV file or list of file and "
            "label beside them, is accepted."
            if tree.n_images
            else f"{paths[0]} names no image that is there{tried}; a CSV file or list of file and "
            "label, beside the images, is accepted."
        )
    found = FolderSet(tree.path)
    for node in tree.walk():
        found.unusable |= node.unusable
        found.notes += node.notes
    return FolderReader(
        set_of(tree, usable, found),
        paths[0].stem if not tree.folders and len(paths) == 1 else tree.path.resolve().name,
    )


def _tables_of(tree: Tree) -> list[Path]:
    """Tables in the folder, in a wrapper, in the folders of parts, and in those without images."""
    places = [tree.path]
    node = tree
    while True:
        for folder in node.folders:
            if not folder.n_images:  # such as meta, splits, ImageSets
                places += [inner.path for inner in folder.walk()]
            elif part_of(folder.path.name):
                places.append(folder.path)
        if node.images or len(node.filled) != 1:
            break
        node = node.filled[0]
        places.append(node.path)
    return list(dict.fromkeys(path for place in places for path in tables_beside(place)))


def _used(found: FolderSet, tree: Tree, paths: list[Path], label_column: str | None) -> set[Path]:
    """Take labels and parts from tables beside class folders; the tables that gave some."""
    flat = {file: part for part, node in found.flat.items() for file in images_in(node)}
    of_folders = {file: name for files in found.parts.values() for file, name in files}
    files = Files([*flat, *of_folders], [node.path for node in tree.walk()])
    tables: list[Table] = []
    for path in paths:
        try:
            table = read_table(path, files, label_column, beside=set(of_folders.values()))
        except DataError as error:
            if path.suffix.lower() not in LISTS:
                found.notes.append(f"not read: {path.name} ({str(error).rstrip('.')})")
            continue
        if table is not None:
            tables.append(table)
    used = {table.path for table in tables if _takes_labels(found, table, flat, of_folders)}
    by_number = parts_by_number(paths, files)
    used |= _part_by_tables(found, tables + ([by_number] if by_number else []))
    for part, node in found.flat.items():
        if part not in found.parts:
            found.notes.append(
                f"left out: the folder {node.path.name} ({node.n_images:,} images, in no class "
                "folders, so without labels)"
            )
    return used


def _takes_labels(
    found: FolderSet, table: Table, flat: dict[Path, str], of_folders: dict[Path, str]
) -> bool:
    """Take the labels of a part that has no class folders, and refuse other ones of a class's."""
    if table.labels is None:
        return False
    given = {file: label for file, label, _, _ in table.rows if file in of_folders}
    pairs = {(of_folders[file], label) for file, label in given.items()}
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    usual = table.labels.usual
    if usual and any(a != b for a, b in pairs) and not one_to_one:
        file = next(file for file, label in given.items() if label != of_folders[file])
        raise DataError(
            f"{file} is {of_folders[file]!r} by its folder and {given[file]!r} by {table.path}; "
            f"which labels are meant can't be told: name {table.path} as the source, or move it "
            "away."
        )
    names = {label: folder for folder, label in pairs} if one_to_one else {}
    known = set(of_folders.values())
    added = set()
    for file, label, _, _ in table.rows:
        if file in flat and (usual or names.get(label, label) in known):
            found.parts.setdefault(flat[file], []).append((file, names.get(label, label)))
            found.own_names[flat[file]] = found.flat[flat[file]].path.name
            added.add(flat[file])
    if added:
        found.notes.append(f"labels of {', '.join(sorted(added))}: from {table.path}")
    return bool(added) or (usual and bool(pairs))


def _part_by_tables(found: FolderSet, tables: list[Table]) -> set[Path]:
    """Parts of class folders as tables tell them, ``train.txt`` and ``test.txt`` for instance.

    A file in no table is of the training part, unless a table lists that part: then it is left
    out. Folders that are parts already stay what they are.

    Returns
    -------
    set of Path
        The tables that were followed.

    Raises
    ------
    DataError
        If two tables put a file into different parts.
    """
    of_tables: dict[Path, tuple[str, str]] = {}
    for table in tables:
        for file, _, part, line in table.rows:
            where = f"line {line} of {table.path}"
            before = of_tables.setdefault(file, (part or "", where)) if part else None
            if before is not None and before[0] != part:
                raise DataError(
                    f"{file} is of the {before[0]} part by {before[1]} and of the {part} part by "
                    f"{where}; one of them is accepted."
                )
    parts = {part for part, _ in of_tables.values()}
    if found.own_names or set(found.parts) != {"train"} or not parts - {"train"}:
        return set()
    told = [table for table in tables if any(part for _, _, part, _ in table.rows)]
    left = []
    files, found.parts = found.parts["train"], {}
    for file, name in files:
        unlisted = "train" if "train" not in parts else ""
        part = of_tables[file][0] if file in of_tables else unlisted
        if part:
            found.parts.setdefault(part, []).append((file, name))
        else:
            left.append(file)
    found.notes.append(f"parts: from {listed([str(table.path) for table in told])}")
    if left:
        found.notes.append(f"left out: {len(left):,} images in none of them, such as {left[0]}")
    for table in told:
        note_missing(table, found)
    return {table.path for table in told}


def _note_unread(tree: Tree, found: FolderSet, used: set[Path]) -> None:
    """Say which files around the classes weren't read: they may hold labels or parts."""
    beside = [*tree.others]
    for folder in tree.folders:
        if not folder.n_images or part_of(folder.path.name):
            beside += folder.others
    names = [
        str(path.relative_to(tree.path))
        for path in beside
        if path not in used and not _ABOUT.search(path.name)
    ]
    if names:
        found.notes.append(f"not read: {listed(names)}")


def _kinds_in(tree: Tree) -> str:
    """What else is in a folder without images, and how it would be read."""
    others = [path for node in tree.walk() for path in node.others]
    tables = [path for path in others if path.suffix.lower() in ENDINGS]
    pixels = [said for said in (why_not(p, Files([])) for p in tables) if said.endswith(ARRAYS)]
    return "; ".join(_remedies(others) or pixels[:1])


def _remedies(others: list[Path]) -> list[str]:
    """How files of other kinds could be read, a line a kind."""
    found: dict[str, str] = {}
    for path in others:
        remedy = remedy_of(path)
        if remedy:
            found.setdefault(remedy, f"{path.name} isn't read: {remedy}")
    return list(found.values())[:SHOWN]


def _named_directly(path: Path) -> list[Path]:
    """Images that the cells of a table name from its folder."""
    if path.suffix.lower() not in ENDINGS:
        return []
    try:
        cells = {cell.strip() for cells, _ in lines_of(path) for cell in cells}
    except DataError:
        return []  # said where the table is read
    found = [path.parent / cell.replace("\\", "/") for cell in sorted(cells) if cell]
    return [file for file in found if _is_named_image(file)]


def _is_named_image(file: Path) -> bool:
    try:
        return file.is_file() and (has_image_ending(file) or is_image(file))
    except (OSError, ValueError):  # a cell that is no path at all
        return False
