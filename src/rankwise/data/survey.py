"""What the images of a whole source have in common, by their headers: size, colours, depth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median

import numpy as np

from rankwise._progress import progress_bar
from rankwise.data import decode
from rankwise.data.decode import BadImageError, Layout
from rankwise.data.reader import Reader
from rankwise.errors import DataError

LONGEST_SIDE = 128
"""Of the size chosen for mixed ones. A larger one is a choice: time and memory go by its square."""

LARGE = 384
"""Longest side from which on it is told that a smaller size would do."""

_PROPORTION = 1.1  # the most that the proportions of a set may differ by to be kept


@dataclass(frozen=True)
class Survey:
    """Of all readable images of a source.

    Parameters
    ----------
    sizes : Counter of (height, width)
        Of the training split where there is one, since the size of a model is chosen by it.
    other_sizes : Counter of (height, width)
        Of the other splits.
    channels : int or None
        3 unless all are grey (None); of decoded images the number that they have.
    n_grey, n_colour, n_deep, n_pages : int
        Images of these kinds; deep ones are grey of more than 8 bits, pages are files of several
        pictures.
    bits : int
        Bits in use of deep images, over the whole source.
    """

    sizes: Counter[tuple[int, int]]
    other_sizes: Counter[tuple[int, int]]
    channels: int | None
    n_grey: int = 0
    n_colour: int = 0
    n_deep: int = 0
    n_pages: int = 0
    bits: int = 16

    @property
    def mixed(self) -> bool:
        """Whether there is more than one size."""
        return len(self.sizes | self.other_sizes) > 1

    def size(self, longest: int = LONGEST_SIDE) -> tuple[int, int]:
        """Height and width to bring all images to, where none was asked for.

        The one that the training images have. Where theirs are mixed, the one of most of them;
        else the median height and width if all are of about one proportion, or a square of the
        median shorter side; and then the longer side is at most `longest`.
        """
        if len(self.sizes) == 1:
            return next(iter(self.sizes))
        (usual, n), total = self.sizes.most_common(1)[0], sum(self.sizes.values())
        each = [size for size, n in self.sizes.items() for _ in range(n)]
        proportions = [width / height for height, width in self.sizes]
        sides: tuple[float, float]
        if 2 * n > total:
            sides = usual
        elif max(proportions) <= _PROPORTION * min(proportions):
            sides = median(h for h, _ in each), median(w for _, w in each)
        else:
            side = median(min(size) for size in each)
            sides = side, side
        shrink = min(1.0, longest / max(sides))
        height, width = (max(1, round(shrink * side)) for side in sides)
        return height, width

    def notes(self, layout: Layout, *, size_given: bool, channels_given: bool) -> list[str]:
        """What was decided for the user, a sentence each."""
        found = []
        if self.mixed and not size_given:
            every = self.sizes | self.other_sizes
            small, large = (pick(every, key=lambda s: (s[0] * s[1], s)) for pick in (min, max))
            found.append(
                f"images of {len(every)} sizes, {small[0]}×{small[1]} to {large[0]}×{large[1]} "
                f"pixels (height×width), are all resized to {layout.height}×{layout.width}; "
                "--size (size=) chooses another"
            )
        if max(layout.height, layout.width) > LARGE and not size_given:
            found.append(
                f"images of {layout.height}×{layout.width} pixels are kept as they are, which "
                f"takes long and much memory; --size {LONGEST_SIDE} (size=) makes them smaller"
            )
        if self.n_grey and self.n_colour and not channels_given:
            found.append(
                f"{self.n_grey:,} grey and {self.n_colour:,} colour images: all are read as RGB; "
                "--channels 1 (channels=1) makes them grey"
            )
        if self.n_deep and self.bits < 16:
            found.append(
                f"images of 16 bits ({self.n_deep:,}) use {self.bits} of them: the upper 8 of "
                "these are kept"
            )
        if self.n_pages:
            found.append(f"files of several pictures ({self.n_pages:,}): the first of each is read")
        return found


def survey(reader: Reader, where: str, *, progress: bool = False) -> Survey:
    """Look at the header of every image of a source; what can't be read is left to the decoding.

    Raises
    ------
    DataError
        If none can be read.
    """
    sizes: dict[bool, Counter[tuple[int, int]]] = {True: Counter(), False: Counter()}
    arrays: set[int | None] = set()
    counts: Counter[str] = Counter()
    deepest = 0
    first_bad = ""
    indices = {split: reader.index(split) for split in reader.splits}
    chooses = {"train"} if len(indices.get("train", ())) else set(reader.splits)
    total = sum(map(len, indices.values()))
    with (
        decode.without_pillows_warnings(),
        progress_bar("Looking at images", total, enabled=progress) as advance,
    ):
        for split, index in indices.items():
            rows = np.arange(len(index))
            if index.unusable:
                rows = rows[~np.isin(rows, list(index.unusable))]
            done = 0
            for block in reader.read(split, rows):
                advance(len(block))
                if isinstance(block, np.ndarray):
                    layout = decode.layout_of(block.shape[1:])
                    sizes[split in chooses][layout.height, layout.width] += len(index)
                    arrays.add(layout.channels)
                    advance(len(index) - len(block))
                    break  # all of a split have one shape
                for encoded in block:
                    try:
                        header = decode.header_of(encoded)
                        if header.deep:
                            image = decode.open_image(encoded)
                            deepest = max(deepest, decode.largest_value(image))
                    except BadImageError as error:
                        first_bad = first_bad or (
                            f"{reader.describe(split, int(rows[done]))}: {error}"
                        )
                    else:
                        sizes[split in chooses][header.height, header.width] += 1
                        counts["grey" if header.grey else "colour"] += 1
                        counts["deep"] += header.deep
                        counts["pages"] += header.pages
                    done += 1
    if not sizes[True] and not sizes[False]:
        bad = first_bad or next(
            (
                f"{reader.describe(split, row)}: {reason}"
                for split, index in indices.items()
                for row, reason in index.unusable.items()
            ),
            "it has none",
        )
        raise DataError(f"None of the images of {where} can be read; {bad}.")
    if not sizes[True]:
        sizes = {True: sizes[False], False: Counter()}
    return Survey(
        sizes=sizes[True],
        other_sizes=sizes[False],
        channels=_of_arrays(arrays) if arrays else decode.natural_channels(not counts["colour"]),
        n_grey=counts["grey"],
        n_colour=counts["colour"],
        n_deep=counts["deep"],
        n_pages=counts["pages"],
        bits=decode.used_bits(deepest) if counts["deep"] else 16,
    )


def _of_arrays(found: set[int | None]) -> int | None:
    """Channels of decoded splits: RGB where only some are grey; others can't be brought together.

    What can't is refused with the first image that is read, which names its file.
    """
    return next(iter(found)) if len(found) == 1 else max(found, key=lambda c: c or 1)
