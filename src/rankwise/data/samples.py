"""The samples of the splits asked for, one split after another, before any image is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import blocks
from rankwise.data.ids import cut, texts, width_of
from rankwise.data.reader import Block, Index, IntArray, Reader
from rankwise.data.storage import ROWS, column, counted
from rankwise.errors import DataError

_COPY = re.compile(r"(.+)--\d{7}\.png")  # a name that `rankwise.lowrank.export` gives
HINT = "repair or remove it, or pass on_error='skip' (--skip-bad on the command line)"


@dataclass(frozen=True)
class Samples:
    """Samples numbered through over `parts`, (split, index) pairs that begin at `starts`."""

    reader: Reader
    parts: list[tuple[str, Index]]
    labels: IntArray
    starts: IntArray

    @classmethod
    def of(cls, reader: Reader, splits: tuple[str, ...]) -> Samples:
        """Read the indices of some splits."""
        parts = [(split, reader.index(split)) for split in splits]
        starts = np.cumsum([0, *(len(index) for _, index in parts[:-1])])
        labels = column(sum(len(index) for _, index in parts), np.int64)
        np.concatenate([index.labels for _, index in parts], out=labels)
        return cls(reader, parts, labels, starts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names, which all splits of a source share."""
        return self.parts[0][1].class_names

    def describe(self, sample: int) -> str:
        """Name one sample in a message."""
        part = int(np.searchsorted(self.starts, sample, side="right")) - 1
        return self.reader.describe(self.parts[part][0], int(sample - self.starts[part]))

    def read(self, chosen: IntArray) -> Iterator[Block]:
        """Images of the chosen samples (sorted), in blocks."""
        for (split, index), start in zip(self.parts, self.starts, strict=True):
            low, high = np.searchsorted(chosen, [start, start + len(index)])
            yield from self.reader.read(split, chosen[low:high] - start)

    def usable(self, *, skip: bool) -> tuple[IntArray, list[str]]:
        """Samples that can be used as far as the index knows, and a line on each of the others."""
        skipped: list[str] = []
        keep = np.ones(len(self.labels), bool)
        for (_, index), start in zip(self.parts, self.starts, strict=True):
            for row, reason in sorted(index.unusable.items()):
                line = f"{self.describe(int(start) + row)}: {reason}"
                if not skip:
                    more = sum(len(index.unusable) for _, index in self.parts) - 1
                    also = f" (and {more:,} more that can't be used)" if more else ""
                    raise DataError(f"{line}{also}; {HINT}.")
                skipped.append(line)
                keep[start + row] = False
        return np.flatnonzero(keep) if skipped else counted(len(keep)), skipped

    def declared_sources(self) -> NDArray[np.str_] | None:
        """What the column ``source_id`` says; an id of its own for a sample without one."""
        if all(index.source_ids is None for _, index in self.parts):
            return None
        told = [
            np.full(len(index), "") if index.source_ids is None else index.source_ids
            for _, index in self.parts
        ]
        n = len(self.labels)
        if all("" not in ids for ids in told):
            return texts(cut(*told), n, max(map(width_of, told)))
        own = self.source_ids(None, np.arange(n))
        found = texts(cut(*told), n, max(map(width_of, [own, *told])))
        for block in blocks(n, ROWS):
            found[block] = np.where(found[block] == "", own[block], found[block])
        return found

    def logged_copies(self) -> bool:
        """Whether the columns of some split are those that ``rankwise augment`` writes."""
        return any(index.logged_copies and index.source_ids is not None for _, index in self.parts)

    def sources_of_copies(self) -> NDArray[np.str_] | None:
        """Originals as the file names of ``rankwise augment`` tell them, if all names are such."""
        found = []
        for _, index in self.parts:
            for path in index.paths or [""]:
                match = _COPY.fullmatch(path.rpartition("/")[2])
                if match is None:
                    return None
                found.append(match[1])
        return np.array(found, dtype=str)

    def image_ids(self) -> NDArray[np.str_]:
        """What the source calls each sample, whichever of its parts are read; all differ."""
        parts = dict(self.parts)
        every = [
            path
            for split in self.reader.splits
            for path in (parts.get(split) or self.reader.index(split)).paths or [""]
        ]
        n = len(self.labels)
        if not all(every) or len(set(every)) < len(every):
            return self.source_ids(None, np.arange(n))
        read = [index.paths or [] for _, index in self.parts]
        return texts(cut(*read), n, max(map(width_of, read)))

    def source_ids(self, pattern: str | None, usable: IntArray) -> NDArray[np.str_]:
        """What `pattern` finds in each path; by default an id of its own for each sample."""
        if pattern is None:
            names = [(split, _names(index)) for split, index in self.parts]
            own = (
                [f"{split}/{name}" for name in some]
                for split, known in names
                for some in cut(known)
            )
            width = max(len(split) + 1 + width_of(known) for split, known in names)
            return texts(own, len(self.labels), width)
        try:
            search = re.compile(pattern).search
        except re.error as error:
            raise DataError(
                f"source_pattern {pattern!r} isn't a regular expression: {error}."
            ) from None
        ids = np.full(len(self.labels), "", dtype=object)
        wanted = np.isin(np.arange(len(ids)), usable)
        for (split, index), start in zip(self.parts, self.starts, strict=True):
            if index.paths is None:
                raise DataError(
                    f"source_pattern needs images with file names; those of {self.reader.name} "
                    f"({split}) have none."
                )
            for sample, path in enumerate(index.paths, start=int(start)):
                match = search(path if "/" in pattern else path.rpartition("/")[2])
                found = match and (match[1] if match.re.groups else match[0])
                if not found and wanted[sample]:
                    raise DataError(
                        f"{self.describe(sample)} doesn't match source_pattern {pattern!r}; "
                        "every file name must."
                    )
                ids[sample] = found or ""
        return ids.astype(str)


def _names(index: Index) -> Sequence[str] | range:
    """Names that tell the samples of a split apart: paths if they do, else row numbers."""
    paths = index.paths
    if paths is None or not all(paths) or len(set(paths)) < len(paths):
        return range(len(index))
    return paths
