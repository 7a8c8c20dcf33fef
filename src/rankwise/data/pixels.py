"""The one pass that decodes: from a reader's blocks to an array of pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rankwise._progress import progress_bar
from rankwise.data.decode import (
    BadImageError,
    Layout,
    convert_block,
    open_image,
    to_array,
    without_pillows_warnings,
)
from rankwise.data.reader import Encoded, IntArray, block_rows
from rankwise.data.samples import HINT, Samples
from rankwise.data.storage import allocate
from rankwise.errors import DataError


def read_pixels(
    samples: Samples,
    chosen: IntArray,
    layout: Layout,
    *,
    bits: Callable[[], int],
    skip: bool,
    progress: bool,
    memory_limit: int,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Decode the chosen samples: their images, which of them are good, a line on each bad one.

    `bits` gives those in use of 16-bit images; it is asked only if there are such.
    """
    images = allocate((len(chosen), *layout.shape), memory_limit)
    good = np.ones(len(chosen), bool)
    bad: list[str] = []
    done = filled = 0

    def decode(encoded: Encoded) -> NDArray[np.uint8]:
        image = open_image(encoded)
        return to_array(image, layout, bits() if image.mode.startswith("I") else None)

    with (
        without_pillows_warnings(),
        progress_bar("Reading images", len(chosen), enabled=progress) as advance,
    ):
        for block in samples.read(chosen):
            if isinstance(block, np.ndarray):
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


def brightest(images: NDArray[np.uint8], enough: int = 255) -> int:
    """The largest value of all pixels, or of the first blocks up to one of `enough`; 0 of none."""
    step = block_rows(int(np.prod(images.shape[1:])))
    top = 0
    for start in range(0, len(images), step):
        top = max(top, int(images[start : start + step].max()))
        if top >= enough:
            break
    return top
