"""Which folders of a tree are classes, and which parts of a set with such folders.

What is a part, what a class and what neither is decided by the whole tree:

- ``train``, ``validation`` and ``test`` in any usual spelling (`rankwise.data.parts`) are parts
  where the training folder holds class folders; folders beside two parts or more are left out;
- a single folder around everything, and a part's own folder inside it (``train/train/<class>``),
  is a wrapper;
- class folders that all hold parts (``<class>/train``) are read as that;
- a folder called ``train`` or ``test`` that holds images itself, beside others that do, is a class;
- what could be either is refused, with the names.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from rankwise.data.parts import PartName, is_unlabelled, part_of, says_no_class, words_of
from rankwise.data.tree import Tree
from rankwise.errors import DataError

SHOWN = 5
"""Names in one message."""


@dataclass
class FolderSet:
    """The images of a tree by part and class, and what was decided on the way."""

    root: Path
    parts: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    """For each part, files and the names of their classes."""
    own_names: dict[str, str] = field(default_factory=dict)
    """What the folder of a part is called."""
    flat: dict[str, Tree] = field(default_factory=dict)
    """Folders with the name of a part whose images lie in no class folders, by part."""
    unusable: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def classes_in(tree: Tree) -> FolderSet | None:
    """The set that a tree of class folders, or of parts with such folders, holds.

    None where its images lie in no class folders (then a table of labels may tell).

    Raises
    ------
    DataError
        If what is a part and what a class can't be told.
    """
    found = FolderSet(tree.path)
    for node in tree.walk():
        found.unusable |= node.unusable
        found.notes += node.notes
    node = tree
    while True:
        filled = node.filled
        if not filled or _are_flat_parts(filled):
            return None
        if _parts(node, found) or _classes_of_parts(node, found):
            return found
        # A wrapper: nothing but one folder, which holds folders of images.
        if node.images or len(filled) > 1 or not filled[0].filled:
            break
        _check_hidden(node)
        node = filled[0]
    _check_inner_classes(node, found)
    found.parts["train"] = _class_files(node, found)
    return found


def _check_inner_classes(node: Tree, found: FolderSet) -> None:
    """Refuse folders such as ``fold1`` that all hold the same folders; tell of other inner ones.

    Raises
    ------
    DataError
        If the names of the outer folders are one but for a number.
    """
    outer = [folder for folder in node.filled if folder.filled]
    inner = [{f.path.name for f in folder.filled} for folder in outer]
    if not any(len(names) > 1 for names in inner):
        return
    first, names = outer[0], sorted(inner[0])
    shared = set.intersection(*inner)
    same = len(outer) == len(node.filled) > 1 and 2 * len(shared) >= len(set.union(*inner))
    if not same:
        found.notes.append(
            f"classes: the {len(node.filled):,} folders of {node.path}; those inside, such as "
            f"{first.path.name}/{names[0]}, count as part of theirs"
        )
        return
    shown = listed([folder.path.name for folder in outer])
    told = f"{shown} of {node.path} all hold the folders {listed(sorted(shared))}"
    if len({tuple(w for w in words_of(f.path.name) if not w.isdigit()) for f in outer}) == 1:
        raise DataError(
            f"{told}: they look like parts of one set, each with its classes. Call them train and "
            "test, or put the images of each class into one folder; a CSV file of file and label "
            "is accepted too."
        )
    found.notes.append(
        f"classes: {told}, which count as part of theirs; if these are parts of a set, call them "
        "train and test"
    )


def _are_flat_parts(filled: list[Tree]) -> bool:
    """Whether all are called parts of one set and hold images without class folders."""
    names = [part_of(folder.path.name) for folder in filled]
    rests = {name.rest if name else None for name in names}
    flat = not any(folder.filled for folder in filled)
    return len(names) > 1 and flat and len(rests) == 1 and None not in rests


def _has_classes(node: Tree) -> bool:
    """Whether a part's folder holds class folders, not one ``images`` with all its files."""
    inside = _unwrapped(node).filled
    return bool(inside) and not (len(inside) == 1 and says_no_class(inside[0].path.name))


def _parts(node: Tree, found: FolderSet) -> bool:
    """Read the folders of a node as parts of a set, if they are."""
    filled = node.filled
    named = {folder.path.name: part_of(folder.path.name) for folder in filled}
    structured = {folder.path.name for folder in filled if _has_classes(folder)}
    sets = {name.rest for name in named.values() if name and name.part == "train"}
    if not sets:
        # Parts without training images, if there is nothing else.
        rests = {name.rest if name else None for name in named.values()}
        if len(rests) > 1 or None in rests or not structured:
            return False
        sets = {rest for rest in rests if rest is not None}
    inside = {name: part for name, part in named.items() if part and part.rest in sets}
    training = [name for name, part in inside.items() if part.part == "train"]
    others = [name for name in named if name not in inside]
    if not structured & set(inside):
        if len(inside) > 1:
            _refuse_parts(node, list(inside), others)
        return False  # a class called train
    _check_one_of_each(node, inside)
    if training and not structured & set(training):
        raise DataError(
            f"{node.path / training[0]} holds images, and {listed(sorted(structured))} beside it "
            "folders: which are classes can't be told; put the images of each class into a folder "
            f"of its own in {training[0]}."
        )
    others = [name for name in others if not is_unlabelled(name)]
    if len(inside) == 1 and others:
        _refuse_parts(node, list(inside), others)
    by_name = {folder.path.name: folder for folder in filled}
    for name, part in inside.items():
        if name in structured:
            inner = _unwrapped(by_name[name])
            found.parts[part.part] = _class_files(inner, found)
            found.own_names[part.part] = name
    for name in sorted(by_name.keys() - found.own_names.values()):
        if name in inside:
            found.flat[inside[name].part] = by_name[name]
        else:
            found.notes.append(
                f"left out: the folder {name} ({by_name[name].n_images:,} images), no part of the "
                "set by its name"
            )
    _note_loose(node, found)
    _check_hidden(node)
    return True


def _refuse_parts(node: Tree, inside: list[str], others: list[str]) -> None:
    beside = f" beside {listed(others)}" if others else ""
    raise DataError(
        f"{node.path} holds {listed(inside)}{beside}: whether "
        f"{'they are parts of a set' if len(inside) > 1 else 'it is a part of a set'} or "
        f"{'classes' if len(inside) > 1 else 'a class'} can't be told; name one of the folders "
        "inside it as the source, or move the others away."
    )


def _check_one_of_each(node: Tree, inside: dict[str, PartName]) -> None:
    """Refuse two folders for one part, and parts of several sets."""
    by_part: dict[str, list[str]] = defaultdict(list)
    for name, part in inside.items():
        by_part[part.part].append(name)
    for meant, names in by_part.items():
        if len(names) > 1:
            raise DataError(
                f"{node.path} holds {listed(names)}, which are all names of a {meant} part; keep "
                "one of them, or name one as the source."
            )


def _unwrapped(node: Tree) -> Tree:
    """The folder with the class folders of a part: ``seg_train/seg_train``, for instance."""
    while not node.images and len(node.filled) == 1 and node.filled[0].filled:
        node = node.filled[0]
    return node


def _classes_of_parts(node: Tree, found: FolderSet) -> bool:
    """Read ``<class>/train`` and ``<class>/test``, if all class folders are such."""
    filled = node.filled
    split_up: list[Tree] = []
    whole: list[Tree] = []
    for folder in filled:
        parts = [part_of(inner.path.name) for inner in folder.filled]
        such = bool(parts) and all(parts) and any(p and p.part == "train" for p in parts)
        (split_up if such and not folder.images else whole).append(folder)
    if not split_up or (len(split_up) == 1 and len(filled) > 1) or len(filled) < 2:
        return False
    if whole:
        raise DataError(
            f"{node.path} has class folders with parts inside, such as "
            f"{split_up[0].path.name}/{split_up[0].filled[0].path.name}, and others without, such "
            f"as {whole[0].path.name}; give all of them the same parts, or none."
        )
    for folder in split_up:
        inside = {inner.path.name: part_of(inner.path.name) for inner in folder.filled}
        _check_no_set(folder)
        _check_one_of_each(folder, {name: part for name, part in inside.items() if part})
        for inner in folder.filled:
            part = inside[inner.path.name]
            assert part is not None
            files = found.parts.setdefault(part.part, [])
            files += [(path, folder.path.name) for path in images_in(inner)]
            found.own_names.setdefault(part.part, f"<class>/{inner.path.name}")
            _note_others(inner, found)
    _note_loose(node, found)
    _check_hidden(node)
    return True


def _check_no_set(folder: Tree) -> None:
    """Refuse a folder whose parts hold the same folders: those are classes, and it is a set."""
    held = [{inner.path.name for inner in part.filled} for part in folder.filled]
    shared = sorted(set.intersection(*held)) if len(held) > 1 else []
    if len(shared) > 1:
        part = folder.filled[0].path.name
        raise DataError(
            f"{folder.path} holds parts with the same folders in each, such as {part}/{shared[0]}; "
            f"whether {folder.path.name} is a class or a set of its own can't be told: name one "
            "such folder as the source, or leave out the folders inside its parts."
        )


def _class_files(node: Tree, found: FolderSet) -> list[tuple[Path, str]]:
    """Files of each class folder, at any depth."""
    _check_hidden(node)
    files = []
    for folder in node.folders:
        if not folder.n_files:
            raise DataError(
                f"The class folder {folder.path} has no files; put its images there or remove it."
            )
        if not folder.n_images:
            found.notes.append(f"left out: the folder {folder.path} (it holds no image)")
            continue
        _note_others(folder, found)
        files += [(path, folder.path.name) for path in images_in(folder)]
    _note_loose(node, found)
    return files


def images_in(node: Tree) -> list[Path]:
    """Image files of a folder at any depth, in the order of their paths."""
    return sorted(path for inner in node.walk() for path in inner.images)


def _note_others(node: Tree, found: FolderSet) -> None:
    """Say which files of a class folder are no images."""
    others = [path for inner in node.walk() for path in inner.others]
    others += [path for inner in node.walk() for path in inner.hidden]
    if others:
        names = listed([str(path.relative_to(found.root)) for path in others])
        found.notes.append(f"left out, as no images or hidden: {names}")


def _note_loose(node: Tree, found: FolderSet) -> None:
    if node.images:
        names = listed([path.name for path in node.images])
        found.notes.append(f"left out: {names} in {node.path}, which lie in no class folder")


def _check_hidden(node: Tree) -> None:
    if node.hidden:
        raise DataError(
            f"The folder {node.hidden[0]} holds images, and its name begins with a dot, as that "
            "of a hidden folder does; rename it to make it a class, or move it away."
        )


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
