"""Which part of a set a name means: train, validation or test, in every usual spelling."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

PARTS = ("train", "validation", "test")
"""In the order in which a source lists them."""

# The hub's own key words for splits (`datasets.data_files`), and what Kaggle's sets are called.
_WORDS = {
    "train": "train|training|trn|trainval",
    "validation": "val|valid|validation|validate|validating|dev|development",
    "test": "test|testing|tst|eval|evaluation|holdout",
}
_FILLERS = (
    "set|data|dataset|split|part|subset|folder|images?|imgs?|pictures?|pics?|photos?|files?|"
    "samples?|examples?|labels?|jpe?gs?|pngs?|csv|the|of|for"
)
_PART = {part: re.compile(f"({words})({_FILLERS})*") for part, words in _WORDS.items()}
_FILLER = re.compile(f"({_FILLERS})+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_UNLABELLED = re.compile("pred|predict|prediction|predictions|unlabel(l?)ed|inference|submission")


@dataclass(frozen=True)
class PartName:
    """What a name such as ``seg_train`` says.

    Parameters
    ----------
    part : {"train", "validation", "test"}
    rest : tuple of str
        The words that are left, ``("seg",)``: parts of one set have them in common.
    """

    part: str
    rest: tuple[str, ...]


def part_of(name: str) -> PartName | None:
    """The part that a folder, a file or a split of this name is, or None.

    >>> part_of("Training_Set"), part_of("seg_test").part, part_of("testimony")
    (PartName(part='train', rest=()), 'test', None)
    """
    found: set[str] = set()
    rest: list[str] = []
    for word in words_of(re.sub("(?i)h[eo]ld[ _-]?out", "holdout", name)):
        part = next((p for p, pattern in _PART.items() if pattern.fullmatch(word)), None)
        if part is not None:
            found.add(part)
        elif not _FILLER.fullmatch(word):
            rest.append(word)
    if found == {"train", "validation"}:  # both together, as VOC's trainval
        found = {"train"}
    return PartName(found.pop(), tuple(rest)) if len(found) == 1 else None


def words_of(name: str) -> list[str]:
    """The words of a name in small letters, parted at signs, digits and capitals."""
    return [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", name))]


def is_unlabelled(name: str) -> bool:
    """Whether a folder of this name beside the parts holds images without labels."""
    return any(_UNLABELLED.fullmatch(word) for word in words_of(name))


def in_order(parts: set[str]) -> tuple[str, ...]:
    """Names of splits, train first and test last, others between them by name."""
    return tuple(sorted(parts, key=lambda p: (p != "train", p == "test", p)))
