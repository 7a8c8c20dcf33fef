"""A folder with one sub-folder of image files per class, or such folders for train and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rankwise.data.reader import Block, Index, IntArray
from rankwise.errors import DataError

_SPLITS = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}
# What file managers leave behind; hidden files are passed over as well.
_LITTER = {"thumbs.db", "desktop.ini"}
_BLOCK = 64


class FolderReader:
    """Reader of ``root/<class>/**/<image>``, or ``root/train/<class>/…`` with ``root/test``.

    Every file in a class folder counts as a sample, at any depth: a file that isn't an image is
    reported, not passed over in silence.
    """

    def __init__(self, root: Path) -> None:
        self.name = root.resolve().name
        self._root = root
        folders = _folders(root)
        by_split = {_SPLITS[f.name]: f for f in folders if f.name in _SPLITS}
        if (
            "train" not in by_split
            or len(by_split) < len(folders)
            or not all(map(_folders, folders))
        ):
            by_split = {"train": root}
        self._folders = by_split
        self.splits = tuple(sorted(by_split, key=["train", "validation", "test"].index))
        names = {f.name for folder in by_split.values() for f in _folders(folder)}
        self._class_names = tuple(sorted(names))
        self._files = {split: self._list(folder) for split, folder in by_split.items()}

    def index(self, split: str) -> Index:
        """Classes and relative paths; files without the ending of an image are unusable."""
        from PIL import Image

        endings = Image.registered_extensions()
        files = self._files[split]
        unusable = {
            row: f"its ending {path.suffix!r} isn't an image's"
            for row, (path, _) in enumerate(files)
            if path.suffix.lower() not in endings
        }
        labels = np.array([label for _, label in files], dtype=np.int64)
        paths = [path.relative_to(self._root).as_posix() for path, _ in files]
        return Index(labels, self._class_names, paths, unusable)

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Give the paths of the images asked for."""
        files = self._files[split]
        for start in range(0, len(rows), _BLOCK):
            yield [files[row][0] for row in rows[start : start + _BLOCK]]

    def describe(self, split: str, row: int) -> str:
        """The file."""
        return str(self._files[split][row][0])

    def _list(self, folder: Path) -> list[tuple[Path, int]]:
        files = []
        for class_folder in _folders(folder):
            label = self._class_names.index(class_folder.name)
            found = [path for path in sorted(class_folder.rglob("*")) if _counts(path, folder)]
            if not found:
                raise DataError(
                    f"The class folder {class_folder} has no files; "
                    "put its images there or remove it."
                )
            files += [(path, label) for path in found]
        return files


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _counts(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.name.lower() not in _LITTER and path.is_file()
