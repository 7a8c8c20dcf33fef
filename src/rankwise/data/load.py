"""`load_images`: find the reader of a source, choose samples, then decode them in one pass."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise.data import decode
from rankwise.data.decode import BadImageError, Size
from rankwise.data.fingerprint import fingerprint
from rankwise.data.imageset import ImageSet
from rankwise.data.labels import check_classes
from rankwise.data.pixels import first_layout, read_pixels
from rankwise.data.reader import Reader
from rankwise.data.samples import Samples
from rankwise.data.split import hold_out_by_source, stratified_limit
from rankwise.data.storage import MEMORY_LIMIT
from rankwise.errors import DataError

_ACCEPTED = (
    "'digits', a hub id such as 'ylecun/mnist', a folder of the hub's parquet files, a folder with "
    "one sub-folder per class, a folder of IDX files, and an .npz archive are accepted"
)
AUGMENT_RECORD = "augment.json"
"""Written by ``rankwise augment`` beside its images."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_images(
    source: str | os.PathLike[str],
    split: str = "train",
    *,
    size: Size = None,
    grey: bool = False,
    channels: int | None = None,
    limit: int | None = None,
    seed: int = 42,
    on_error: str = "raise",
    source_pattern: str | None = None,
    progress: bool = False,
    memory_limit: int = MEMORY_LIMIT,
) -> ImageSet:
    """Read labelled images from a file, a folder, the hub, or scikit-learn.

    Parameters
    ----------
    source : str or path
        One of:

        - ``"digits"``: scikit-learn's digits, 8×8, their values 0..16 scaled to 0..255;
        - a hub id, ``"owner/name"`` (where no local path has that name);
        - a folder in the hub's parquet layout, ``<split>[-00000-of-00001].parquet``;
        - a folder with one sub-folder of images per class, at any depth; or with such folders
          in ``train`` and ``test`` (and ``val`` or ``validation``);
        - a folder of IDX files, ``train-images-idx3-ubyte[.gz]`` and companions;
        - an ``.npz`` archive: ``images`` and ``labels``, ``x`` and ``y``, Keras'
          ``x_train, y_train, x_test, y_test``, or MedMNIST's ``train_images, train_labels``…
    split : str
        ``"train"``, ``"test"``, ``"all"`` (every split, one after another), or any other split of
        the source. Where the source has no test split, 20% of its training split is held out by
        `hold_out_by_source` with `seed`: ``"test"`` gives that part and ``"train"`` the rest.
    size : int or (height, width), optional
        Resize every image, with Pillow's bilinear filter. By default images stay as they are, and
        must be of one size.
    grey : bool
        Convert colour to grey (luma). By default all images take the kind, colour or grey, of the
        first image of the source; see `rankwise.data.decode` for the kinds.
    channels : int, optional
        Convert every image to so many channels, as Pillow does: 1 (the same as `grey`), 3 (RGB)
        or 4 (RGBA). Images that aren't pictures, of 13 channels say, accept their own number.
    limit : int, optional
        Read only so many images, chosen by `stratified_limit` with `seed` within the split, in
        their original order. The others aren't decoded. Bad images count before they are skipped.
    seed : int
        Seed of the hold-out and of the limit.
    on_error : {"raise", "skip"}
        What to do with an unreadable or truncated image, a null image or a null label. Skipped
        ones are listed in the result's `skipped`. Damaged archives and mixed sizes always raise.
    source_pattern : str, optional
        A regular expression, searched in each file's name (in its whole path if the expression
        holds a ``/``). Its first group, or else the whole match, is the sample's source id, as in
        ``r"^([^_]+)_"`` for the text up to the first underscore. By default every image is a
        source of its own, under its path where it has one, else its row number. But a column
        ``source_id`` of strings or integers (parquet, hub), where there is one, gives the ids;
        where it is null, the image is a source of its own. And where all file
        names are such as ``rankwise augment`` gives (``SOURCE--0000012.png``), wherever they lie
        by now, a copy has the id of its original, so no split parts them. An expression that
        would part copies known by their names, or by the columns that ``rankwise augment``
        writes, is refused.
    progress : bool
        Show a progress bar on standard error.
    memory_limit : int
        Decoded images beyond so many bytes go to a memory-mapped temporary file, which is removed
        with the result. The default is 256 MiB: it holds MNIST or CIFAR-10, and leaves room for
        the training on a small machine.

    Returns
    -------
    ImageSet
        Images, labels, class names, source ids, and a fingerprint of the content.

    Raises
    ------
    DataError
        If the source, the split or an option isn't accepted; if a file is damaged (and isn't to be
        skipped) or sizes are mixed; if a label is out of range; if there are no two classes.
    """
    if on_error not in ("raise", "skip"):
        raise DataError(f"on_error is {on_error!r}; 'raise' or 'skip' is accepted.")
    decode.checked_size(size)
    channels = decode.checked_channels(grey, channels)
    reader = open_reader(source)
    samples = Samples.of(reader, _splits_to_read(reader, source, split))
    usable, skipped = samples.usable(skip=on_error == "skip")
    ids, told = _sources(samples, source, source_pattern, usable)
    # A test split of one class can be predicted, but not trained on.
    if split != "test" or "test" not in reader.splits:
        check_classes(samples.labels[usable], samples.class_names, f"{source} ({split})")
    if split in ("train", "test") and "test" not in reader.splits:
        rest, held_out = hold_out_by_source(samples.labels[usable], ids[usable], seed=seed)
        usable = usable[held_out if split == "test" else rest]
        check_classes(samples.labels[usable], samples.class_names, f"{source} ({split})")
    if limit is not None:
        usable = usable[stratified_limit(samples.labels[usable], limit, seed)]
    layout = decode.wanted_layout(first_layout(reader, f"{source}"), size, channels)
    images, good, bad = read_pixels(
        samples,
        usable,
        layout,
        resize=size is not None,
        skip=on_error == "skip",
        progress=progress,
        memory_limit=memory_limit,
    )
    kept = usable[good]
    labels = samples.labels[kept]
    # A small limit may choose one class only, and was asked for; bad files weren't.
    if bad and (limit is None or not len(kept)) and (split != "test" or not len(kept)):
        check_classes(labels, samples.class_names, f"{source} ({split})")
    return ImageSet(
        images=images,
        labels=labels,
        class_names=samples.class_names,
        source_ids=ids[kept],
        fingerprint=fingerprint(images, labels, samples.class_names),
        name=reader.name,
        split=split,
        skipped=(*skipped, *bad),
        holds_copies=told and len(np.unique(ids[kept])) < len(kept),
    )


def _sources(
    samples: Samples, source: str | os.PathLike[str], pattern: str | None, usable: NDArray[np.int64]
) -> tuple[NDArray[np.str_], bool]:
    """Source ids, and whether the data themselves told them.

    The column ``source_id`` knows best, then the file names of copies, then the record beside
    them. A pattern comes before all three, but can't part what are known to be copies.
    """
    declared, named = samples.declared_sources(), samples.sources_of_copies()
    if pattern is None:
        for told in (declared, named):
            if told is not None:
                return told, True
        left = _pattern_left_by_augment(source)
        return samples.source_ids(left, usable), left is not None
    ids = samples.source_ids(pattern, usable)
    copies_of = declared if samples.logged_copies() else named
    return (ids, False) if copies_of is None else (_together(ids, copies_of, pattern), True)


def _together(ids: NDArray[np.str_], copies_of: NDArray[np.str_], pattern: str) -> NDArray[np.str_]:
    """`ids`, if all copies of an original share one."""
    pairs = {(source, own) for source, own in zip(copies_of.tolist(), ids.tolist(), strict=True)}
    if len(pairs) > len(np.unique(copies_of)):
        raise DataError(
            f"source_pattern {pattern!r} gives an original and its copies different ids; one that "
            "keeps them together is accepted, or none: then the data tell."
        )
    return ids


def _pattern_left_by_augment(source: str | os.PathLike[str]) -> str | None:
    """The source pattern in the record that ``rankwise augment`` leaves beside its images."""
    record = Path(source) / AUGMENT_RECORD
    if not record.is_file():
        return None
    try:
        pattern = json.loads(record.read_text(encoding="utf-8"))["source_pattern"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{record} is damaged: it should name the source pattern of the copies beside it; "
            "give source_pattern, or augment again."
        ) from error
    return str(pattern)


def read_image(path: str | os.PathLike[str], *, image_shape: Sequence[int]) -> NDArray[np.uint8]:
    """Read one image file in the shape that a model was trained on.

    Parameters
    ----------
    path : str or path
        Image file.
    image_shape : (height, width) or (height, width, 3 or 4)
        Shape wanted: grey, RGB or RGBA, converted and resized as by `load_images`.

    Returns
    -------
    uint8 array of shape `image_shape`

    Raises
    ------
    DataError
        If the file isn't there, or isn't an image that can be decoded.
    """
    layout = decode.layout_of(tuple(int(side) for side in image_shape))
    if layout.channels not in (None, 3, 4):
        raise DataError(
            f"The model's images have {layout.channels} channels; a file gives 1 (grey), 3 or 4."
        )
    try:
        return decode.to_array(decode.open_image(Path(path)), layout)
    except BadImageError as error:
        raise DataError(f"{path} can't be used: {error}.") from error


def open_reader(source: str | os.PathLike[str]) -> Reader:
    """Find the reader of a source. A new kind of source needs a line here."""
    if source == "" or not isinstance(source, (str, os.PathLike)):
        raise DataError(f"The source is {source!r}; {_ACCEPTED}.")
    if source == "digits":
        from rankwise.data.arrays import digits_reader

        return digits_reader()
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_reader(path)
    if path.suffix == ".npz" and path.is_file():
        from rankwise.data.npz import npz_reader

        return npz_reader(path)
    if isinstance(source, str) and not path.exists() and _HUB_ID.fullmatch(source):
        from rankwise.data.hub import hub_reader

        return hub_reader(source)
    state = "is a file of another kind" if path.exists() else "doesn't exist"
    raise DataError(f"{source} {state}; {_ACCEPTED}.")


def _folder_reader(path: Path) -> Reader:
    from rankwise.data import folder, idx, parquet

    if parquet.parquet_files(path):
        return parquet.parquet_reader(path)
    if idx.idx_files(path):
        return idx.idx_reader(path)
    if any(p.is_dir() and not p.name.startswith(".") for p in path.iterdir()):
        return folder.FolderReader(path)
    state = "holds no sub-folder, parquet or IDX file" if any(path.iterdir()) else "is empty"
    raise DataError(f"The folder {path} {state}; {_ACCEPTED}.")


def _splits_to_read(reader: Reader, source: object, split: str) -> tuple[str, ...]:
    if split == "all":
        return reader.splits
    if split in reader.splits:
        return (split,)
    if split in ("train", "test") and "test" not in reader.splits:
        return ("train",) if "train" in reader.splits else reader.splits
    own = ("train", "test", "all") if "test" not in reader.splits else ("all",)
    accepted = dict.fromkeys((*reader.splits, *own))
    raise DataError(f"{source} has no split {split!r}; {', '.join(accepted)} are accepted.")
