"""From stored images to uint8 arrays of one shape.

What becomes of the kinds of image files:

- grey kinds (black-and-white, 8 bits, 16 bits, grey with alpha) become grey, 16 bits by keeping
  the upper eight, alpha dropped;
- RGBA stays RGBA; palettes, CMYK and the other colour kinds become RGB;
- floating-point files, and 32-bit integers beyond 16 bits, have no agreed range and are refused;
- a photograph's EXIF orientation is applied, as the hub's own library does;
- of an animation, the first frame is taken.

All images of a set take the kind of its first image: colour where that is colour, grey (Pillow's
luma, ``0.299 R + 0.587 G + 0.114 B``) where that is grey, alpha only where that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankwise.data.reader import Encoded
from rankwise.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_MODES = {None: "L", 3: "RGB", 4: "RGBA"}
_CHANNELS = {mode: channels for channels, mode in _MODES.items()}
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_ALPHA = {"RGBA", "RGBa"}

Size = int | tuple[int, int] | None


class BadImageError(Exception):
    """An image that can't be decoded; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Layout:
    """The shape that every image of a set is brought to; `channels` None means grey, ``H×W``."""

    height: int
    width: int
    channels: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image as an array."""
        plane = (self.height, self.width)
        return plane if self.channels is None else (*plane, self.channels)

    @property
    def mode(self) -> str:
        """Pillow's name for the kind of image."""
        return _MODES[self.channels]


def layout_of(shape: tuple[int, ...]) -> Layout:
    """Layout of images of this array shape, (H, W) or (H, W, C)."""
    return Layout(shape[0], shape[1], shape[2] if len(shape) == 3 else None)


def wanted_layout(natural: Layout, size: Size, channels: int | None) -> Layout:
    """Layout of a set whose first image has the layout `natural`."""
    height, width = checked_size(size) or (natural.height, natural.width)
    own = natural.channels or 1
    if channels not in (None, own) and not {channels, own} <= {1, 3, 4}:
        raise DataError(
            f"These images have {own} channels and can't become images of {channels}; between 1 "
            "(grey), 3 and 4 they can."
        )
    found = own if channels is None else channels
    return Layout(height, width, None if found == 1 else found)


def checked_channels(grey: bool, channels: int | None) -> int | None:
    """Number of channels wanted; None for that of the first image."""
    if channels is None:
        return 1 if grey else None
    whole = isinstance(channels, (int, np.integer)) and not isinstance(channels, bool)
    if not whole or channels < 1 or (grey and channels != 1):
        also = " beside grey=True" if grey else ""
        raise DataError(
            f"channels is {channels!r}{also}; 1 (grey), 3, 4 or None is accepted, or the number "
            "that images of another kind have."
        )
    return int(channels)


def checked_size(size: Size) -> tuple[int, int] | None:
    """Bring `size` to (height, width); None stays None."""
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    whole = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in pair)
    if len(pair) != 2 or not whole or min(pair) < 1:
        raise DataError(
            f"size is {size!r}; a number of pixels, a pair (height, width) or None is accepted."
        )
    return int(pair[0]), int(pair[1])


def open_image(encoded: Encoded) -> Image.Image:
    """Decode an image file (its bytes or its path) wholly; `BadImageError` says why it can't be."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if encoded is None:
        raise BadImageError("it holds no image (null)")
    try:
        data = encoded.read_bytes() if isinstance(encoded, Path) else encoded
    except OSError as error:
        raise BadImageError(f"it can't be read ({error.strerror or error})") from error
    if not data:
        raise BadImageError("it is empty")
    try:
        image: Image.Image = Image.open(BytesIO(data))
        image.load()
        if "exif" in image.info:
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise BadImageError("it isn't an image, or its beginning is damaged") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        reason = str(error) or type(error).__name__
        raise BadImageError(
            "it is truncated" if "truncat" in reason.lower() else f"it is damaged ({reason})"
        ) from error
    return _sixteen_to_eight(image) if image.mode.startswith(("I", "F")) else image


def natural_layout(image: Image.Image) -> Layout:
    """Layout that an image has by itself: grey, RGB, or RGBA."""
    mode = "L" if image.mode in _GREY else "RGBA" if image.mode in _ALPHA else "RGB"
    return Layout(image.height, image.width, _CHANNELS[mode])


def to_array(image: Image.Image, layout: Layout) -> NDArray[np.uint8]:
    """Convert and resize one image; Pillow's bilinear filter, which averages when shrinking."""
    from PIL import Image

    if image.mode != layout.mode:
        image = image.convert(layout.mode)
    if image.size != (layout.width, layout.height):
        image = image.resize((layout.width, layout.height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def convert_block(block: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8]:
    """Convert and resize decoded images, (m, H, W[, C]), by the same rules as files."""
    if block.shape[1:] == layout.shape:
        return block
    from PIL import Image

    channels = layout_of(block.shape[1:]).channels
    if channels != layout.channels and not {channels, layout.channels} <= set(_MODES):
        raise DataError(
            f"Images of {channels or 1} channels can't become images of {layout.channels or 1}; "
            "between 1, 3 and 4 they can."
        )
    if layout.channels in _MODES:
        images = [to_array(Image.fromarray(image), layout) for image in block]
        return np.stack(images) if images else np.empty((0, *layout.shape), np.uint8)
    # Pillow has no image of, say, 13 channels: each is resized as a grey image.
    plane = Layout(layout.height, layout.width, None)
    planes = [convert_block(block[..., c], plane) for c in range(block.shape[-1])]
    return np.stack(planes, axis=-1)


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise BadImageError("its pixels are floats or 32-bit integers, of unknown range")
    return Image.fromarray((values >> 8).astype(np.uint8))
