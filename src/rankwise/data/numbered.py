"""Lists that tell a split by the numbers of images, as those of CUB-200-2011."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankwise.data.file_names import Files
from rankwise.data.lines import LISTS, lines_of
from rankwise.data.parts import words_of
from rankwise.data.table import Table
from rankwise.errors import DataError


def parts_by_number(paths: Sequence[Path], files: Files) -> Table | None:
    """Parts of images by number: ``number file`` in one list, ``number 0|1`` in another.

    The other is one whose name has train and test in it, such as ``train_test_split.txt``, and 1
    means training. None where there are no two such lists of the same numbers.
    """
    lists = {path: found for path in paths if (found := _numbered(path)) is not None}
    names = [
        path
        for path, found in lists.items()
        if all(not v.isdigit() and len(files.find(v)) == 1 for v in found.values())
    ]
    splits = [
        path
        for path, found in lists.items()
        if {"train", "test"} <= set(words_of(path.stem)) and set(found.values()) == {"0", "1"}
    ]
    if len(names) != 1 or len(splits) != 1 or lists[names[0]].keys() != lists[splits[0]].keys():
        return None
    is_train = lists[splits[0]]
    rows: list[tuple[Path, str, str | None, int]] = [
        (files.find(name)[0], "", "train" if is_train[number] == "1" else "test", line)
        for line, (number, name) in enumerate(lists[names[0]].items(), start=1)
    ]
    return Table(splits[0], rows, [], None)


def _numbered(path: Path) -> dict[str, str] | None:
    """The second word of each line by the first, a number that no other line has."""
    if path.suffix.lower() not in LISTS:
        return None
    try:
        lines = lines_of(path)
    except DataError:
        return None
    found = {cells[0]: cells[1] for cells, _ in lines if len(cells) == 2 and cells[0].isdigit()}
    return found if found and len(found) == len(lines) else None
