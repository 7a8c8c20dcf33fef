"""A folder of image files: class folders, parts of a set, or images with a table of labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankwise.data.class_folders import FolderSet, classes_in, images_in, listed
from rankwise.data.labels import check_twins
from rankwise.data.parts import in_order, part_of
from rankwise.data.reader import Block, Index, IntArray
from rankwise.data.table import ENDINGS, Files, read_table, set_of, tables_beside
from rankwise.data.tree import Tree, below, has_image_ending, is_image, scan
from rankwise.errors import DataError

_BLOCK = 64


class FolderReader:
    """Reader of a `FolderSet`."""

    def __init__(self, found: FolderSet, name: str) -> None:
        self.name = name
        self._found = found
        self.splits = in_order(set(found.parts))
        self.own_names = {split: found.own_names.get(split, split) for split in self.splits}
        self.notes = tuple(found.notes)
        self._class_names = tuple(
            sorted({name for files in found.parts.values() for _, name in files if name.strip()})
        )
        check_twins(self._class_names, f"{found.root}")

    def index(self, split: str) -> Index:
        """Classes, relative paths, and the files that can't be read."""
        files = self._found.parts[split]
        place = {name: label for label, name in enumerate(self._class_names)}
        unusable = {
            row: self._found.unusable[path]
            for row, (path, _) in enumerate(files)
            if path in self._found.unusable
        }
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
        raise DataError(
            f"The folder {root} {state}; a folder of images for each class, such folders in train "
            "and test, or images with a CSV file of file and label are accepted."
        )
    found = classes_in(tree)
    tables = _tables_of(tree)
    # One folder of images is no class of its own where a table tells the classes.
    one = found is not None and len({n for f in found.parts.values() for _, n in f}) == 1
    if found is None or (one and tables):
        return _with_tables(tree, tables, label_column)
    for path in tables:
        _compare(found, tree, path, label_column)
    for part, node in found.flat.items():
        if part not in found.parts:
            found.notes.append(
                f"left out: the folder {node.path.name} ({node.n_images:,} images, in no class "
                "folders, so without labels)"
            )
    return FolderReader(found, root.resolve().name)


def table_reader(path: Path, label_column: str | None = None) -> FolderReader:
    """Reader of a CSV file of files and labels; paths count from its folder."""
    root = path.parent
    # What it names from its own folder is found without a look through all that lies there.
    named = Tree(root, images=_named_directly(path))
    return _with_tables(named if named.images else scan(root), [path], label_column)


def _with_tables(tree: Tree, paths: list[Path], label_column: str | None) -> FolderReader:
    files = Files(images_in(tree))
    tables = [read_table(path, files, label_column) for path in paths]
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
        tried = f"; no columns of files and labels in {listed([p.name for p in paths])}"
        raise DataError(
            f"{tree.path} holds {tree.n_images:,} images in the {where}, and no label for them"
            f"{tried if paths else ''}; a folder of images for each class, or a CSV file of file "
            "and label beside them, is accepted."
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
    """Tables in the folder, in a wrapper, and in the folders of parts."""
    places = [tree.path, *(folder.path for folder in tree.folders if part_of(folder.path.name))]
    node = tree
    while not node.images and len(node.filled) == 1:
        node = node.filled[0]
        places.append(node.path)
    return list(dict.fromkeys(path for place in places for path in tables_beside(place)))


def _compare(found: FolderSet, tree: Tree, path: Path, label_column: str | None) -> None:
    """Take the labels of a part that has no class folders, and refuse other ones of a class's."""
    flat = {file: part for part, node in found.flat.items() for file in images_in(node)}
    of_folders = {file: name for files in found.parts.values() for file, name in files}
    try:
        table = read_table(path, Files([*flat, *of_folders]), label_column)
    except DataError as error:
        found.notes.append(f"not read: {path.name} ({str(error).rstrip('.')})")
        return
    if table is None or not table.usual:
        return
    given = {file: label for file, label, _, _ in table.rows if file in of_folders}
    pairs = {(of_folders[file], label) for file, label in given.items()}
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    if any(a != b for a, b in pairs) and not one_to_one:
        file = next(file for file, label in given.items() if label != of_folders[file])
        raise DataError(
            f"{file} is {of_folders[file]!r} by its folder and {given[file]!r} by {path}; which "
            f"labels are meant can't be told: name {path} as the source, or move it away."
        )
    names = {label: folder for folder, label in pairs}
    added = False
    for file, label, _, _ in table.rows:
        if file in flat:
            found.parts.setdefault(flat[file], []).append((file, names.get(label, label)))
            found.own_names[flat[file]] = found.flat[flat[file]].path.name
            added = True
    if added:
        found.notes.append(f"labels of {', '.join(sorted(found.flat))}: from {path}")


def _named_directly(path: Path) -> list[Path]:
    """Images that the cells of a table name from its folder."""
    if path.suffix.lower() not in ENDINGS:
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    cells = {cell.strip().strip('"') for line in text.splitlines() for cell in _cells(line)}
    found = [path.parent / cell.replace("\\", "/") for cell in sorted(cells) if cell]
    return [file for file in found if _is_named_image(file)]


def _cells(line: str) -> list[str]:
    return line.replace(";", ",").replace("\t", ",").split(",")


def _is_named_image(file: Path) -> bool:
    try:
        return file.is_file() and (has_image_ending(file) or is_image(file))
    except (OSError, ValueError):  # a cell that is no path at all
        return False
