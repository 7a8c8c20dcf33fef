"""The one pass that decodes: from a reader's blocks to an array of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rankwise._progress import progress_bar
from rankwise.data.decode import (
    BadImageError,
    Layout,
    convert_block,
    layout_of,
    natural_layout,
    open_image,
    to_array,
)
from rankwise.data.reader import Encoded, IntArray, Reader
from rankwise.data.samples import HINT, Samples
from rankwise.data.storage import allocate
from rankwise.errors import DataError


def first_layout(reader: Reader, where: str) -> Layout:
    """Layout of the source's first readable image, so that all its splits agree on one."""
    first_bad = ""
    for split in reader.splits:
        row = 0
        for block in reader.read(split, np.arange(len(reader.index(split)))):
            if isinstance(block, np.ndarray):
                return layout_of(block.shape[1:])
            for encoded in block:
                try:
                    return natural_layout(open_image(encoded))
                except BadImageError as error:
                    first_bad = first_bad or f"{reader.describe(split, row)}: {error}"
                row += 1
    raise DataError(f"None of the images of {where} can be read; {first_bad}.")


def read_pixels(
    samples: Samples,
    chosen: IntArray,
    layout: Layout,
    *,
    resize: bool,
    skip: bool,
    progress: bool,
    memory_limit: int,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Decode the chosen samples: their images, which of them are good, a line on each bad one."""
    images = allocate((len(chosen), *layout.shape), memory_limit)
    good = np.ones(len(chosen), bool)
    bad: list[str] = []
    done = filled = 0

    def check_size(height: int, width: int) -> None:
        usual = (layout.height, layout.width)
        if not resize and (height, width) != usual:
            raise DataError(
                f"{samples.describe(int(chosen[done]))} has {height}×{width} pixels, the first "
                f"image {usual[0]}×{usual[1]}; pass a size, such as size={usual}, to resize all."
            )

    def decode(encoded: Encoded) -> NDArray[np.uint8]:
        image = open_image(encoded)
        check_size(image.height, image.width)
        return to_array(image, layout)

    with progress_bar("Reading images", len(chosen), enabled=progress) as advance:
        for block in samples.read(chosen):
            if isinstance(block, np.ndarray):
                check_size(*block.shape[1:3])
                images[filled : filled + len(block)] = convert_block(block, layout)
                filled += len(block)
                done += len(block)
            else:
                for encoded in block:
                    try:
                        images[filled] = decode(encoded)
                        filled += 1
                    except BadImageError as error:
                        bad.append(f"{samples.describe(int(chosen[done]))}: {error}")
                        if not skip:
                            raise DataError(f"{bad[0]}; {HINT}.") from error
                        good[done] = False
                    done += 1
            advance(len(block))
    return images[:filled], good, bad
