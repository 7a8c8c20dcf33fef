"""`Source`: a source opened once; samples of a split chosen, then decoded in one pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._files import expanded
from rankwise._seeds import checked_seed
from rankwise.data import decode
from rankwise.data.addresses import is_address
from rankwise.data.decode import BadImageError, Layout, Size
from rankwise.data.filerows import FileRows
from rankwise.data.fingerprint import fingerprint
from rankwise.data.headers import odd_headers
from rankwise.data.ids import repeated
from rankwise.data.imageset import ImageSet
from rankwise.data.labels import check_classes
from rankwise.data.opening import open_reader
from rankwise.data.origins import split_sources
from rankwise.data.parquet import AddressedReader
from rankwise.data.parquet_rows import ParquetRows
from rankwise.data.parts import part_of
from rankwise.data.pixels import brightest, read_pixels
from rankwise.data.samples import Samples
from rankwise.data.shards import ShardReader
from rankwise.data.split import hold_out_by_source, stratified_limit
from rankwise.data.storage import MEMORY_LIMIT, gathered
from rankwise.data.survey import LONGEST_SIDE, Survey, survey
from rankwise.errors import DataError


class Source:
    """A source opened once, for several of its splits.

    Parameters
    ----------
    source, image_column, label_column
        As for `load_images`.

    Raises
    ------
    DataError
        If it isn't accepted.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.source = source
        self.reader = open_reader(source, image_column, label_column)
        self._survey: Survey | None = None

    @property
    def test_part(self) -> str | None:
        """The split that ``"test"`` gives: the test part, else the validation part, else none.

        Where there is none, a part of the training images is held out.
        """
        return next((s for s in ("test", "validation") if s in self.reader.splits), None)

    def own_name(self, split: str) -> str:
        """What the source itself calls a split."""
        return self.reader.own_names.get(split, split)

    def survey(self, *, progress: bool = False) -> Survey:
        """Sizes and kinds of all its images, found once."""
        if self._survey is None:
            shown = progress and not self._holds_arrays()
            self._survey = survey(self.reader, f"{self.source}", progress=shown)
        return self._survey

    def odd_headers(self) -> dict[str, str]:
        """Reasons of the images whose files are unlike the others, by `ImageSet.image_ids`."""
        return odd_headers(self.reader)

    def read(
        self,
        split: str = "train",
        *,
        size: Size = None,
        grey: bool = False,
        channels: int | None = None,
        bits: int | None = None,
        limit: int | None = None,
        seed: int = 42,
        on_error: str = "raise",
        source_pattern: str | None = None,
        longest: int = LONGEST_SIDE,
        progress: bool = False,
        own_size: tuple[int, int] | None = None,
        without: Sequence[str] | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> ImageSet:
        """The images of a split, as `load_images` gives them, without its warning.

        `longest` is the longest side that is chosen for mixed sizes. With `own_size`, those images
        alone that have this height and width by themselves, of the ones that there would be.
        """
        if on_error not in ("raise", "skip"):
            raise DataError(f"on_error is {on_error!r}; 'raise' or 'skip' is accepted.")
        _check_seed(seed)
        size = decode.checked_size(size)
        channels = decode.checked_channels(grey, channels)
        bits = decode.checked_bits(bits)
        where = f"{self.source} ({split})"
        split, parts = self._parts(split)
        samples = Samples.of(self.reader, parts)
        usable, skipped = samples.usable(skip=on_error == "skip")
        if skipped and not len(usable):
            raise DataError(f"{where} has no usable image; the first: {skipped[0]}.")
        ids, told = split_sources(samples, self.source, source_pattern, usable)
        held_out = split in ("train", "test") and self.test_part is None
        # A test split of one class can be predicted, but not trained on.
        if split != "test" or held_out:
            check_classes(_of(samples.labels, usable), samples.class_names, where)
        if held_out:
            usable = self._held_out(split, samples, usable, ids, seed)
            check_classes(_of(samples.labels, usable), samples.class_names, where)
        if limit is not None:
            usable = usable[stratified_limit(_of(samples.labels, usable), limit, seed)]
        names = samples.image_ids()
        left: list[str] = []
        if without is not None and split == "train":
            usable, left = self._without(without, names, usable)
            check_classes(_of(samples.labels, usable), samples.class_names, where)
        if own_size is not None:
            usable = usable[[s == own_size for s in self._own_sizes(samples, usable)]]
        layout, notes = self._layout(own_size or size, channels, longest, progress)
        used: list[int] = []

        def bits_in_use() -> int:
            if not used:
                used.append(self.survey().bits if bits is None else bits)
            return used[0]

        images: Any = self._referred(samples, usable, layout, bits, on_error)
        good, bad = np.ones(len(usable), bool), list[str]()
        if images is None:
            images, good, bad = read_pixels(
                samples,
                usable,
                layout,
                bits=bits_in_use,
                skip=on_error == "skip",
                progress=progress,
                memory_limit=memory_limit,
            )
        kept = usable if good.all() else usable[good]
        labels, ids, names = (_of(column, kept) for column in (samples.labels, ids, names))
        # A small limit may choose one class only, and was asked for; bad files weren't.
        may_be_few = len(kept) and (limit is not None or split == "test")
        if bad and own_size is None and not may_be_few:
            check_classes(labels, samples.class_names, where)
        cost = images.notes() if isinstance(images, ParquetRows) else []
        return ImageSet(
            images=images,
            labels=labels,
            class_names=samples.class_names,
            source_ids=ids,
            fingerprint=_fingerprint(images, labels, samples.class_names),
            name=self.reader.name,
            split=split,
            skipped=(*skipped, *bad),
            notes=(*self.reader.notes, *notes, *_dim(images), *left, *cost),
            bits=images.bits if isinstance(images, ParquetRows) else used[0] if used else None,
            holds_copies=told and len(repeated(ids)) > 0,
            image_ids=names,
        )

    def _held_out(
        self,
        split: str,
        samples: Samples,
        usable: NDArray[np.int64],
        ids: NDArray[np.str_],
        seed: int,
    ) -> NDArray[np.int64]:
        """The part of all samples that is held out to test on, or the rest to train on."""
        labels = _of(samples.labels, usable)
        rest, test = hold_out_by_source(labels, _of(ids, usable), seed=seed)
        if not len(test):
            raise DataError(
                f"{self.source} has no test part, and one image of each class "
                f"({len(usable):,} in all), so none can be held out to test on; two of a class "
                "or more, or a test part, are needed."
            )
        return gathered(usable, test if split == "test" else rest)

    def _without(
        self, listed: Sequence[str], names: NDArray[np.str_], usable: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[str]]:
        """Training rows but for those listed, and a word on how many those were."""
        root = Path() if is_address(self.source) else expanded(self.source).absolute()
        root = root.parent if root.is_file() else root
        wanted = {_below(text, root) for text in listed}
        every = {name for part in self.reader.splits for name in self._ids(part)}
        unknown = sorted(wanted - every)
        if unknown:
            more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
            raise DataError(
                f"{self.source} has no image {unknown[0]!r}{more}, which is to be left out; names "
                f"such as {names[0]!r} are accepted."
            )
        gone = np.isin(names[usable], list(wanted))
        stay = len(wanted) - int(gone.sum())
        rest = f"; {stay:,} more that are listed are no training images, and stay" if stay else ""
        return usable[~gone], [f"left out of training, as listed: {int(gone.sum()):,} images{rest}"]

    def _ids(self, part: str) -> list[str]:
        return Samples.of(self.reader, (part,)).image_ids().tolist()

    def layout_for(
        self, *, size: Size = None, grey: bool = False, channels: int | None = None
    ) -> tuple[Layout, int]:
        """The shape that all images are brought to, and the bits in use of those of 16."""
        wanted = decode.checked_channels(grey, channels)
        layout, _ = self._layout(decode.checked_size(size), wanted, LONGEST_SIDE, False)
        return layout, self.survey().bits

    def _referred(
        self,
        samples: Samples,
        rows: NDArray[np.int64],
        layout: Layout,
        bits: int | None,
        on_error: str,
    ) -> FileRows | None:
        """Images by reference, where the source has them so, and of the shape that is wanted."""
        reader, splits = self.reader, [split for split, _ in samples.parts]
        if isinstance(reader, ShardReader) and len(splits) == 1:
            images = reader.refer(splits[0], rows)
            return images if images.row_shape == tuple(layout.shape) else None
        if isinstance(reader, AddressedReader) and on_error == "raise":
            known = self._survey
            if known is not None:
                bits = (bits or known.bits) if known.n_deep else None
            return reader.refer(splits, rows, layout, bits)
        return None

    def _own_sizes(self, samples: Samples, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Height and width of each image; those of the first one where a header can't be read."""
        found: list[tuple[int, int] | None] = []
        for block in samples.read(rows):
            if isinstance(block, np.ndarray):
                found += [(int(block.shape[1]), int(block.shape[2]))] * len(block)
                continue
            for encoded in block:
                try:
                    header = decode.header_of(encoded)
                    found.append((header.height, header.width))
                except BadImageError:
                    found.append(None)  # its decoding says what is wrong
        first = next((size for size in found if size is not None), (1, 1))
        return [first if size is None else size for size in found]

    def read_by_size(self, split: str, **options: Any) -> list[ImageSet]:
        """The images of a split as they are: a set for each size, in the order of the sizes."""
        found = self.survey(progress=bool(options.get("progress")))
        sizes = sorted(found.sizes | found.other_sizes)
        parts = [self.read(split, **options, own_size=size) for size in sizes]
        return [part for part in parts if len(part) or part.skipped]

    def _layout(
        self, size: tuple[int, int] | None, channels: int | None, longest: int, progress: bool
    ) -> tuple[Layout, list[str]]:
        """The shape of all images, and what was decided about it."""
        if size is not None and channels in (1, 3, 4) and not self._holds_arrays():
            return Layout(*size, None if channels == 1 else channels), []
        found = self.survey(progress=progress)
        height, width = size or found.size(longest)
        layout = Layout(height, width, decode.wanted_channels(found.channels, channels))
        given = {"size_given": size is not None, "channels_given": channels is not None}
        return layout, found.notes(layout, **given)

    def _holds_arrays(self) -> bool:
        from rankwise.data.arrays import ArrayReader

        return isinstance(self.reader, ArrayReader)

    def _parts(self, split: str) -> tuple[str, tuple[str, ...]]:
        """The split by its usual name, and the source's own splits that it is read from."""
        splits = self.reader.splits
        if split == "all":
            return split, splits
        if split in splits:
            return split, (split,)
        own = next((s for s, name in self.reader.own_names.items() if name == split), None)
        meant = part_of(split)
        usual = own or (meant.part if meant else split)
        if usual in splits:
            return usual, (usual,)
        if usual == "test" and self.test_part is not None:
            return usual, (self.test_part,)
        if usual in ("train", "test") and self.test_part is None:
            return usual, (("train",) if "train" in splits else splits)
        if usual == "train":
            there = " and ".join(f"{s} ({self.own_name(s)})" for s in splits)
            raise DataError(
                f"{self.source} has no training part, only {there}; name the folder or file of one "
                "as the source to train on that."
            )
        own_splits = ("train", "test", "all") if self.test_part is None else ("all",)
        accepted = dict.fromkeys((*splits, *own_splits))
        raise DataError(
            f"{self.source} has no split {split!r}; {', '.join(accepted)} are accepted."
        )


def _check_seed(seed: int) -> None:
    try:
        if checked_seed(seed) is None:
            raise ValueError(
                "seed is None, which would hold out other images at each call; a whole number from "
                "0 is accepted"
            )
    except ValueError as error:
        raise DataError(f"{error}.") from error


def _of(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """A column at some of its rows, in increasing order; the column itself at all of them."""
    return values if len(rows) == len(values) else gathered(values, rows)


def _below(text: str, root: Path) -> str:
    """An absolute path as it counts from the source; anything else as it is."""
    path = expanded(text)
    if not path.is_absolute():
        return text
    # A link in the source is called there by its own name, and its folder by any.
    for found, place in ((path, root), (path.parent.resolve() / path.name, root.resolve())):
        if found.is_relative_to(place) and ".." not in found.parts:
            return found.relative_to(place).as_posix()
    return text


def _fingerprint(
    images: NDArray[np.uint8] | FileRows, labels: NDArray[np.int64], names: Sequence[str]
) -> str:
    """Of all images of a split: of those by reference the known one, of others the content's."""
    known = images.known_fingerprint(labels, names) if isinstance(images, FileRows) else None
    return known or fingerprint(images, labels, names)  # type: ignore[arg-type]  # like an array


def _dim(images: NDArray[np.uint8]) -> list[str]:
    """A word on pixels that use under an eighth of their range."""
    top = brightest(images, enough=32)
    if not len(images) or top >= 32:
        return []
    return [
        f"no pixel is above {top} of 255; the values are kept as they are, scale them if they "
        "were meant to reach 255"
    ]
