"""`ImageSet`: labelled images of one shape, with where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise.data.fingerprint import fingerprint
from rankwise.data.ids import numbered, repeated
from rankwise.data.labels import (
    check_classes,
    check_range,
    check_twins,
    label_values,
    names_of,
    positions,
)
from rankwise.data.reader import IntArray, block_rows
from rankwise.data.storage import MEMORY_LIMIT, allocate, gathered
from rankwise.errors import DataError

_NONE = ("None", "nan", "NaT", "<NA>")  # what stands where there is no value, as text


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Labelled images of one shape.

    Made by `load_images`, or from arrays by `ImageSet.from_arrays`.

    Attributes
    ----------
    images : uint8 array, shape (n, height, width) or (n, height, width, channels)
        Pixels, 0 to 255; a `numpy.memmap` where they are too many for memory.
    labels : int64 array, shape (n,)
        Positions in `class_names`.
    class_names : tuple of str
        Names of the classes, also of those without a sample here.
    source_ids : str array, shape (n,)
        What each sample derives from: samples with one id belong on one side of any split. It,
        `labels` and `image_ids` are mapped from temporary files beyond 4 MiB each.
    fingerprint : str
        SHA-256 over pixels, labels, shape and class names; see `rankwise.data.fingerprint`.
    name : str
        Name of the data set.
    split : str
        The part of it that this is.
    skipped : tuple of str
        One line for each bad sample that was left out, with the reason.
    notes : tuple of str
        What was decided on the way, a sentence each: what was left out, sizes and colours that
        were brought together, which part of a source was taken for what.
    bits : int or None
        Bits in use of the 16-bit images that it was read from; None where there were none.
    holds_copies : bool
        Whether samples share a source and the data themselves say so: low-rank copies beside their
        originals, or a column ``source_id`` that repeats. Splits by image are refused then.
    image_ids : str array, shape (n,), or None
        What the source calls each sample: its path below the source where paths tell all samples
        of all parts apart, else ``part/name`` or ``part/row``. None counts as the row numbers.
    """

    images: NDArray[np.uint8]
    labels: IntArray
    class_names: tuple[str, ...]
    source_ids: NDArray[np.str_]
    fingerprint: str
    name: str
    split: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bits: int | None = None
    holds_copies: bool = False
    image_ids: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if self.image_ids is None:
            object.__setattr__(self, "image_ids", numbered(len(self.labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __sizeof__(self) -> int:
        # Dask decides by it whether something travels with every task.
        arrays = (self.images, self.labels, self.source_ids)
        return object.__sizeof__(self) + sum(int(array.nbytes) for array in arrays)

    def __repr__(self) -> str:
        shape = "×".join(str(side) for side in self.image_shape)
        skipped = f", {self.n_skipped} skipped" if self.skipped else ""
        return (
            f"<ImageSet {self.name!r} ({self.split}): {len(self)} images of {shape}, "
            f"{self.n_classes} classes{skipped}>"
        )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: (height, width) where grey, else (height, width, channels)."""
        return tuple(self.images.shape[1:])

    @property
    def n_classes(self) -> int:
        """Number of classes, those without a sample included."""
        return len(self.class_names)

    @property
    def class_counts(self) -> dict[str, int]:
        """Images of each class, by its name."""
        counts = np.bincount(self.labels, minlength=self.n_classes)
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    @property
    def ids(self) -> NDArray[np.str_]:
        """`image_ids`, of shape (n,)."""
        assert self.image_ids is not None  # since __post_init__
        return self.image_ids

    @property
    def n_skipped(self) -> int:
        """Number of bad samples that were left out."""
        return len(self.skipped)

    def subset(self, indices: ArrayLike) -> ImageSet:
        """Copy some samples, with their source ids, into a set with a fingerprint of its own.

        Parameters
        ----------
        indices : int array, shape (m,), or bool array, shape (n,)
            Rows in the order wanted (negative ones count from the end), or a mask.

        Returns
        -------
        ImageSet
            Memory-mapped where it exceeds 256 MiB. It keeps `name`, `split` and `notes`, not
            `skipped`.

        Raises
        ------
        DataError
            If an index is out of range, or `indices` are neither integers nor a mask.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        mask = chosen.dtype == np.bool_ and chosen.shape == (len(self),)
        rows = np.flatnonzero(chosen) if mask else chosen
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError("indices must be a list of row numbers or a mask with a value per row.")
        if len(rows) and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise DataError(f"indices must be rows of this set, 0 to {len(self) - 1}.")
        images = allocate((len(rows), *self.image_shape), MEMORY_LIMIT)
        step = block_rows(int(np.prod(self.image_shape)))
        for start in range(0, len(rows), step):
            images[start : start + step] = self.images[rows[start : start + step]]
        labels = gathered(self.labels, rows)
        ids = gathered(self.source_ids, rows)
        return ImageSet(
            images=images,
            labels=labels,
            class_names=self.class_names,
            source_ids=ids,
            fingerprint=fingerprint(images, labels, self.class_names),
            name=self.name,
            split=self.split,
            notes=self.notes,
            bits=self.bits,
            holds_copies=self.holds_copies and len(repeated(ids)) > 0,
            image_ids=gathered(self.ids, rows),
        )

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: ArrayLike,
        class_names: Sequence[str] | None = None,
        source_ids: ArrayLike | None = None,
        name: str = "arrays",
    ) -> ImageSet:
        """Make a set of arrays in memory; the images aren't copied.

        Parameters
        ----------
        images : uint8 array, shape (n, height, width) or (n, height, width, channels)
            Pixels, 0 to 255. One channel is dropped: the set is then grey, ``(n, H, W)``.
        labels : array, shape (n,)
            With `class_names`, their positions or the names themselves; without, any integers or
            strings, the distinct ones becoming the classes in sorted order.
        class_names : sequence of str, optional
            Names of the classes.
        source_ids : array, shape (n,), optional
            What each sample derives from. By default every row is a source of its own.
        name : str
            Name of the data set.

        Returns
        -------
        ImageSet
            Its `split` is ``"all"``.

        Raises
        ------
        DataError
            If a type, a shape or a label is wrong, or if there are no two classes.
        """
        images = images if isinstance(images, np.ndarray) else np.asarray(images)
        check_pixels(images.dtype, images.shape, f"images of {name!r}")
        if images.ndim == 4 and images.shape[3] == 1:
            images = images[..., 0]
        if images.ndim == 3 and images.shape[-1] in (3, 4) and np.size(labels) == 1 < len(images):
            raise DataError(
                f"The images of {name!r} have shape {images.shape} for one label: one image alone "
                "is images[None]."
            )
        values = label_values(labels, f"{name!r}")
        check_counts(len(images), len(values), f"{name!r}")
        if class_names is None:
            known = names_of(values)
            names = tuple(str(value) for value in known)
            codes = positions(values, known)
            check_twins(names, f"{name!r}")
            check_classes(codes, names, f"{name!r}")
        else:
            names = checked_names(class_names, f"{name!r}")
            if np.asarray(labels).dtype == np.bool_ and not set(values) <= set(names):
                values = (values == "True").astype(np.int64)
            codes = _by_name(values, names, name) if values.dtype.kind == "U" else values
            check_range(codes, names, f"{name!r}")
        if source_ids is None:
            ids = numbered(len(values))
        else:
            ids = _checked_ids(source_ids, len(values), f"{name!r}")
        return cls(
            images=images,
            labels=codes,
            class_names=names,
            source_ids=ids,
            fingerprint=fingerprint(images, codes, names),
            name=name,
            split="all",
        )


def check_pixels(dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> None:
    """Raise `DataError` unless these are uint8 images of shape (n, H, W) or (n, H, W, C)."""
    if dtype != np.uint8:
        hint = {"f": "(255 * images).round().astype('uint8') where they are in 0..1, ", "b": ""}
        raise DataError(
            f"The {what} have type {dtype}; uint8, 0 to 255, is accepted: "
            f"{hint.get(dtype.kind, '')}"
            f"{'255 * ' if dtype.kind == 'b' else ''}images.astype('uint8')"
            f"{'' if dtype.kind == 'b' else ' where they are in 0..255'} gives it."
        )
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(
            f"The {what} have shape {shape}; (n, height, width) or "
            "(n, height, width, channels) is accepted."
        )
    if looks_channels_first(shape):
        raise DataError(
            f"The {what} have shape {shape}, which looks like channels first; (n, height, width, "
            "channels) is accepted: numpy.moveaxis(images, 1, -1) gives it."
        )


def looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether images (n, C, H, W) of 1, 3 or 4 channels have this shape rather than (n, H, W, C).

    Sides under 8 pixels are left alone: a strip of three rows is no image that anybody has.
    """
    return len(shape) == 4 and shape[1] in (1, 3, 4) and min(shape[2:]) >= 8


def check_counts(n_images: int, n_labels: int, where: str) -> None:
    """Raise `DataError` unless there is one label per image, and at least one image."""
    if n_images != n_labels:
        raise DataError(
            f"{where} has {n_images} images and {n_labels} labels; one label per image is needed."
        )
    if n_images == 0:
        raise DataError(f"{where} has no images; at least two classes of images are needed.")


def checked_names(class_names: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names as a tuple; at least two, all different, none of them blank."""
    names = (class_names,) if isinstance(class_names, str) else tuple(map(str, class_names))
    empty = any(not name.strip() or "\0" in name for name in names)
    if len(names) < 2 or len(set(names)) < len(names) or empty:
        raise DataError(
            f"The class names of {where} are {list(names)!r}; two or more different names, none "
            "of them blank or with a zero character, are accepted."
        )
    check_twins(names, where)
    return names


def _checked_ids(source_ids: ArrayLike, n: int, where: str) -> NDArray[np.str_]:
    """Source ids as text, one an image; `DataError` where one is missing."""
    ids = np.asarray(source_ids)
    if ids.shape != (n,):
        raise DataError(
            f"source_ids of {where} have shape {ids.shape}; one id per image, ({n},), is accepted."
        )
    # As text they would all be one source; and numpy makes text of a NaN in a list of text.
    sure = isinstance(source_ids, np.ndarray) and ids.dtype.kind in "USiub"
    unsure: Any = [] if sure else np.asarray(source_ids, dtype=object)
    for row, value in enumerate(unsure):
        if not isinstance(value, str) and str(value) in _NONE:
            raise DataError(
                f"The source id of row {row} of {where} is missing ({value}); an id for every "
                "image is accepted, or no source_ids, where each is a source of its own."
            )
    return ids.astype(str)


def _by_name(values: NDArray[Any], names: tuple[str, ...], where: str) -> IntArray:
    place = {name: position for position, name in enumerate(names)}
    for row, value in enumerate(values.tolist()):
        if value not in place:
            raise DataError(
                f"Label {value!r} of row {row} of {where!r} isn't a class; "
                f"{', '.join(names)} are accepted."
            )
    return np.array([place[value] for value in values.tolist()], dtype=np.int64)
