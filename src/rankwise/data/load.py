"""`load_images` and `read_image`: what users call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankwise._files import expanded
from rankwise.data import decode
from rankwise.data.decode import BadImageError, Size
from rankwise.data.imageset import ImageSet
from rankwise.data.source import Source
from rankwise.data.storage import MEMORY_LIMIT
from rankwise.errors import DataError, DataWarning


def load_images(
    source: str | os.PathLike[str],
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
    image_column: str | None = None,
    label_column: str | None = None,
    without: Sequence[str] | None = None,
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
        - a folder in the hub's parquet layout, ``<split>[-00000-of-00001].parquet``, in it or in
          its ``data``, or one such file;
        - an address of fsspec's, ``"s3://bucket/set"``, ``"hf://datasets/owner/name"`` or
          ``"file:///data/set"``, of such a folder or file, or of shards (``rankwise shard``): the
          images are by reference, read when they are asked for (`rankwise.data.parquet_rows`,
          `rankwise.data.shards`). Of parquet files all images are fetched once for their headers,
          unless `size` and `channels` are given, and decoded at once where bad ones are to be
          skipped. Rows drawn at random decode whole row groups: for more than one pass over a
          large set, shards are better;
        - a folder with one sub-folder of images per class, at any depth; or with such folders
          in parts, ``train``, ``validation`` and ``test`` in any usual spelling
          (`rankwise.data.class_folders` says what is a part and what a class);
        - a folder of images with a CSV file of files and labels, or that file itself;
        - a folder of IDX files, ``train-images-idx3-ubyte[.gz]`` and companions;
        - an ``.npz`` archive: ``images`` and ``labels``, ``x`` and ``y``, Keras'
          ``x_train, y_train, x_test, y_test``, or MedMNIST's ``train_images, train_labels``…
    split : str
        ``"train"``, ``"test"``, ``"validation"``, ``"all"`` (every split, one after another), or
        any other split of the source, each in any usual spelling. Where the source has no test
        split, ``"test"`` is its validation split; where it has neither, 20% of its training split
        are held out by `hold_out_by_source` with `seed`: ``"test"`` gives that part and
        ``"train"`` the rest.
    size : int or (height, width), optional
        Resize every image, with Pillow's bilinear filter. By default images of one size stay as
        they are, and mixed ones are brought to the size of `rankwise.data.survey.Survey.size`.
    grey : bool
        Convert colour to grey (luma, ``0.299 R + 0.587 G + 0.114 B``). By default images are RGB
        unless all of the source are grey; see `rankwise.data.decode` for the kinds.
    channels : int, optional
        Convert every image to so many channels, as Pillow does: 1 (the same as `grey`), 3 (RGB)
        or 4 (RGBA). Images that aren't pictures, of 13 channels say, accept their own number.
    bits : {8, 10, 12, 14, 16}, optional
        Bits in use of grey images of 16: the upper eight of these are kept. By default the fewest
        that hold the largest value of the source.
    limit : int, optional
        Read only so many images, chosen by `stratified_limit` with `seed` within the split, in
        their original order. The others aren't decoded. Bad images count before they are skipped.
    seed : int
        Seed of the hold-out and of the limit.
    on_error : {"raise", "skip"}
        What to do with an unreadable or truncated image, a dead link, a null image or a null
        label. Skipped ones are listed in the result's `skipped`. Damaged archives always raise.
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
    image_column, label_column : str, optional
        Columns of parquet files, of the hub's sets and (labels alone) of CSV files. By default
        those that the hub's metadata, or else their content, types and names tell; several that
        could be meant are refused by name.
    without : sequence of str, optional
        Training images to leave out, by their `ImageSet.image_ids` or their files' absolute paths.
        They leave after the hold-out and the limit have been drawn, so both stay as they were, and
        only from the split ``"train"``: what tests a model isn't chosen.
    progress : bool
        Show a progress bar on standard error.
    memory_limit : int
        Decoded images beyond so many bytes go to a memory-mapped temporary file, which is removed
        with the result. The default is 256 MiB: it holds MNIST or CIFAR-10, and leaves room for
        the training on a small machine.

    Returns
    -------
    ImageSet
        Images, labels, class names, source ids, and a fingerprint of the content; of parquet
        files at an address, of their footers and sizes, labels and rows, not of pixels.

    Raises
    ------
    DataError
        If the source, the split or an option isn't accepted; if a file is damaged (and isn't to be
        skipped); if parts, classes, columns or labels can't be told; if there are no two classes.

    Warns
    -----
    DataWarning
        With the result's `notes`: what was decided, and what was left out.
    """
    found = Source(source, image_column=image_column, label_column=label_column).read(
        split,
        size=size,
        grey=grey,
        channels=channels,
        bits=bits,
        limit=limit,
        seed=seed,
        on_error=on_error,
        source_pattern=source_pattern,
        without=without,
        progress=progress,
        memory_limit=memory_limit,
    )
    if found.notes:
        warnings.warn(f"{source}: {'; '.join(found.notes)}", DataWarning, stacklevel=2)
    return found


def read_image(
    path: str | os.PathLike[str], *, image_shape: Sequence[int], bits: int | None = None
) -> NDArray[np.uint8]:
    """Read one image file in the shape that a model was trained on.

    Parameters
    ----------
    path : str or path
        Image file.
    image_shape : (height, width) or (height, width, 1, 3 or 4)
        Shape wanted: grey, grey, RGB or RGBA, converted and resized as by `load_images`.
    bits : int, optional
        Bits in use of grey images of 16, as in `load_images`; by default those that the image
        uses itself.

    Returns
    -------
    uint8 array of shape `image_shape`

    Raises
    ------
    DataError
        If the file isn't there, or isn't an image that can be decoded; if `image_shape` is no
        shape of an image.
    """
    shape = _checked_shape(image_shape)
    layout = decode.layout_of(shape[:2] if shape[2:] == (1,) else shape)
    if layout.channels not in (None, 3, 4):
        raise DataError(
            f"The model's images have {layout.channels} channels; a file gives 1 (grey), 3 or 4."
        )
    try:
        with decode.without_pillows_warnings():
            image = decode.open_image(expanded(path))
            return decode.to_array(image, layout, decode.checked_bits(bits)).reshape(shape)
    except BadImageError as error:
        raise DataError(f"{path} can't be used: {error}.") from error


def _checked_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(int(side) for side in image_shape)
    except (TypeError, ValueError):
        shape = ()
    if len(shape) not in (2, 3) or min(shape) < 1 or shape[0] * shape[1] > decode.MOST_PIXELS:
        raise DataError(
            f"image_shape is {image_shape!r}; (height, width) or (height, width, 1, 3 or 4), "
            f"of at most {decode.MOST_PIXELS // 10**6} million pixels, is accepted."
        )
    return shape
