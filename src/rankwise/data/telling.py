"""What is told of the images of one part, before anything is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rankwise.data.imageset import ImageSet
from rankwise.data.source import Source

MOST_CLASSES = 30
"""Whose counts are told."""


def counts_line(images: Sequence[ImageSet]) -> str:
    """The classes of some sets, of the same classes, and how many images each has in all."""
    counts: Counter[str] = Counter()
    for part in images:
        counts.update(part.class_counts)
    shown = ", ".join(f"{name} {n:,}" for name, n in list(counts.items())[:MOST_CLASSES])
    more = len(counts) - MOST_CLASSES
    return f"{len(counts):,} classes: {shown}" + (f" and {more:,} more" if more > 0 else "")


def part_lines(opened: Source, images: Sequence[ImageSet]) -> list[str]:
    """Which images of a source were read, and which weren't, a line each.

    Parameters
    ----------
    opened : Source
    images : sequence of ImageSet
        Of one split, a set for each size.
    """
    split, n = images[0].split, sum(map(len, images))
    every = opened.reader.splits
    if split == "all":
        return [f"images: {n:,}, all of the source"]
    if split in ("train", "test") and opened.test_part is None:
        kept = "but for a fifth" if split == "train" else "the fifth of all"
        lines = [
            f"images: {n:,}, {kept}, held out by the seed to test on, since there is no test "
            "part; --split all takes all"
        ]
        used = {"train"} if "train" in every else set(every)
    else:
        used = {split if split in every else str(opened.test_part)}
        lines = [f"images: {n:,} of the {split} part ({opened.own_name(next(iter(used)))})"]
    left = [f"{name} ({opened.own_name(name)})" for name in every if name not in used]
    return lines + ([f"not used: {', '.join(left)}; --split names another part"] if left else [])
