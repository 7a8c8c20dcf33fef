"""What lies in a folder: image files at any depth, told by content; litter and links told apart."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rankwise.data.decode import BadImageError, header_of
from rankwise.errors import DataError, is_shortage

DEPTH = 64
"""Folders inside each other."""

# What file managers, archives, note books and disks leave behind; it is passed over.
_LITTER = {
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "picasa.ini",
    "icon\r",
    "@eadir",
    "#recycle",
    "#snapshot",
    "__macosx",
    "__pycache__",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
# A file of such an ending counts as an image, whatever it holds: if it can't be read, that is said.
_ENDINGS = frozenset(
    re.findall(
        r"\w+",
        "apng avif avifs bmp dds dib exr gif heic heif hdr icb ico j2c j2k jfif jp2 jpc jpe jpeg "
        "jpf jpg jpx mpo pbm pcx pgm png pnm ppm psd sgi svg tga tif tiff vda vst webp xbm xpm "
        "arw cr2 cr3 crw dcm dng nef orf raf raw rw2",
    )
)


@dataclass
class Tree:
    """A folder and what counts in it.

    Parameters
    ----------
    path : Path
    images : list of Path
        Image files directly in it, by name.
    unusable : dict of Path to str
        Of these, the ones that can't be read, with the reason: dead links, pipes.
    others : list of Path
        Files directly in it that are no images.
    folders : list of Tree
        By name; hidden ones and litter are not among them.
    hidden : list of Path
        Hidden folders directly in it that hold images.
    notes : list of str
        A line on each link that isn't followed.
    """

    path: Path
    images: list[Path] = field(default_factory=list)
    unusable: dict[Path, str] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    folders: list[Tree] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def walk(self) -> Iterator[Tree]:
        """Give this folder and all in it, in the order of their paths."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    @cached_property
    def n_images(self) -> int:
        """Image files at any depth."""
        return len(self.images) + sum(folder.n_images for folder in self.folders)

    @cached_property
    def n_files(self) -> int:
        """Files at any depth."""
        here = len(self.images) + len(self.others)
        return here + sum(folder.n_files for folder in self.folders)

    @property
    def filled(self) -> list[Tree]:
        """Folders directly in it that hold images at any depth."""
        return [folder for folder in self.folders if folder.n_images]


def scan(root: Path) -> Tree:
    """Look through a folder. A linked folder is read once; where it is read already, that is noted.

    Raises
    ------
    DataError
        If a folder can't be read, or they lie too deep.
    """
    tree = Tree(root)
    seen: set[tuple[int, int]] = set()
    links: list[tuple[Tree, Path]] = []
    _fill(tree, seen, links, 0)
    # Links last, so that a folder and a link to it are read where the folder is.
    while links:
        waiting, links = links, []
        for parent, path in waiting:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                parent.notes.append(f"{path} is a link to {path.resolve()}, which is read already")
                continue
            linked = Tree(path)
            _fill(linked, seen, links, len(path.relative_to(root).parts))
            parent.folders.append(linked)
            parent.folders.sort(key=lambda folder: folder.path.name)
    return tree


def _fill(
    tree: Tree, seen: set[tuple[int, int]], links: list[tuple[Tree, Path]], depth: int
) -> None:
    if depth > DEPTH:
        raise DataError(f"{tree.path} lies over {DEPTH} folders deep; move it up.")
    try:
        status = tree.path.stat()
        with os.scandir(tree.path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if is_shortage(error):
            raise
        raise DataError(
            f"The folder {tree.path} can't be read ({error.strerror or error})."
        ) from error
    seen.add((status.st_dev, status.st_ino))
    for entry in found:
        path = tree.path / entry.name
        if is_litter(entry.name):
            continue
        hidden = entry.name.startswith(".")
        if _is_folder(entry):
            if hidden:
                if _is_hidden_set(path):
                    tree.hidden.append(path)
            elif entry.is_symlink():
                links.append((tree, path))
            else:
                folder = Tree(path)
                _fill(folder, seen, links, depth + 1)
                tree.folders.append(folder)
        elif hidden:
            if has_image_ending(path):
                tree.others.append(path)
        else:
            _sort_in(tree, path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _sort_in(tree: Tree, path: Path) -> None:
    """A file among the images or the others of its folder."""
    usual = has_image_ending(path)
    if not path.exists():
        if usual or not path.suffix:
            target = os.readlink(path) if path.is_symlink() else "nothing"
            tree.images.append(path)
            tree.unusable[path] = f"its link leads nowhere ({target} isn't there)"
        else:
            tree.others.append(path)
    elif not path.is_file():
        if usual:
            tree.images.append(path)
            tree.unusable[path] = "it isn't a file but a pipe or a device"
        else:
            tree.others.append(path)
    elif usual or is_image(path):
        tree.images.append(path)
    else:
        tree.others.append(path)


def below(path: Path, root: Path) -> Path:
    """A path from the folder `root`; as it is where it lies elsewhere."""
    return path.relative_to(root) if path.is_relative_to(root) else path


def is_litter(name: str) -> bool:
    """Whether another system leaves files or folders of this name, which are no part of a set."""
    return name.lower() in _LITTER or name.startswith("._")


def has_image_ending(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix[1:].lower() in _ENDINGS


def is_image(path: Path) -> bool:
    """Whether the content of a file is an image's."""
    try:
        header_of(path)
    except BadImageError:
        return False
    return True


def _is_hidden_set(path: Path) -> bool:
    """Whether a hidden folder holds image files directly, and isn't a program's own store."""
    name = path.name.lower()
    if name.startswith((".thumb", ".cache", ".trash", ".git", ".ipynb", ".picasa", ".@", ".spot")):
        return False
    try:
        with os.scandir(path) as entries:
            return any(has_image_ending(Path(entry.name)) and entry.is_file() for entry in entries)
    except OSError:
        return False
