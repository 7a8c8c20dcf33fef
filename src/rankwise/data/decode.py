"""From stored images to uint8 arrays of one shape.

What becomes of the kinds of image files:

- grey kinds (black-and-white, 8 bits, 16 bits, grey with alpha, palettes of greys) are grey;
  palettes, CMYK and the other colour kinds become RGB;
- alpha is laid on white, as a page shows it, or on black where white would leave under an eighth
  of the contrast that black leaves (white drawings); asked for 4 channels, it is kept;
- of 16 bits the upper eight of those that are in use are kept (`used_bits`);
- floating-point files, 32-bit integers beyond 16 bits, and LAB have no agreed range and are
  refused, and so are 16-bit colours of which eight bits would keep next to nothing;
- a photograph's orientation by EXIF or XMP is applied, as the hub's own library does; EXIF that
  can't be read is passed over;
- of an animation, and of a file of several pages, the first picture is taken.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankwise._process import ignoring_warnings
from rankwise.data import png
from rankwise.data.reader import Encoded
from rankwise.errors import DataError, is_shortage

if TYPE_CHECKING:
    from PIL import Image, ImageFile

MOST_PIXELS = 178_956_970
"""Of one image: beyond it Pillow speaks of a decompression bomb (RGB then takes 512 MiB)."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that are in use of an image of 16."""

_MODES = {None: "L", 3: "RGB", 4: "RGBA"}
_CHANNELS = {mode: channels for channels, mode in _MODES.items()}
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_UNREADABLE = {"F": "floats, of unknown range", "LAB": "LAB colours"}
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation to `Image.Transpose`
_ORIENTATION = 0x0112
_NOT_READ = ("BUFR", "EMF", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF")  # by other programs only
_PACKED = ("PNG", "BMP", "GIF", "PPM", "TGA", "TIFF")
_EXPANSION = 1100  # bytes of one; deflate has at most 1032, and a byte may be 8 pixels
_MOST_EXPANDED = 2**24

# Pictures that many people have and Pillow can't open, by their first bytes.
_FOREIGN = (
    (lambda data: data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif"), "HEIC"),
    (lambda data: data[4:8] == b"ftyp", "video"),
    (lambda data: b"<svg" in data[:1000], "SVG"),
    (lambda data: data[:4] == b"%PDF", "PDF"),
    (lambda data: data[128:132] == b"DICM", "DICOM"),
    (lambda data: data[:6] == b"\x93NUMPY", "numpy array"),
    (lambda data: data[:4] == b"\x76\x2f\x31\x01", "OpenEXR"),
)

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


def wanted_channels(own: int | None, channels: int | None) -> int | None:
    """Channels of a set whose images have `own` by themselves; None means grey."""
    count = own or 1
    if channels not in (None, count) and not {channels, count} <= {1, 3, 4}:
        raise DataError(
            f"These images have {count} channels and can't become images of {channels}; between 1 "
            "(grey), 3 and 4 they can."
        )
    found = count if channels is None else channels
    return None if found == 1 else found


def checked_channels(grey: bool, channels: int | None) -> int | None:
    """Number of channels wanted; None for that of the set."""
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


def checked_bits(bits: int | None) -> int | None:
    """Bits in use of 16-bit images; None for those that the set uses."""
    if bits is not None and bits not in DEPTHS:
        raise DataError(f"bits is {bits!r}; 8, 10, 12, 14, 16 or None is accepted.")
    return bits


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
    height, width = int(pair[0]), int(pair[1])
    if height * width > MOST_PIXELS:
        raise DataError(
            f"size is {size!r}; an image of at most {MOST_PIXELS // 10**6} million pixels is "
            "accepted."
        )
    return height, width


def without_pillows_warnings() -> AbstractContextManager[None]:
    """Pillow warns of odd EXIF, palettes and sizes; what matters is said by this room itself."""
    return ignoring_warnings(module=r"PIL\.")


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image say."""

    height: int
    width: int
    grey: bool
    deep: bool = False
    """Whether it is grey of more than 8 bits."""
    pages: bool = False
    """Whether it holds more than one picture."""


def header_of(encoded: Encoded) -> Header:
    """Size and kind of an image without decoding it; `BadImageError` says why it has none."""
    if isinstance(encoded, bytes):
        quick = _png_header(encoded)
        if quick is not None:
            return quick
    with _opened(encoded) as (image, size), _reasons():
        turned = _is_turned(image, size)
        grey = image.mode in _GREY or (image.mode == "P" and _is_grey_palette(image))
        # Two pictures of one photograph (MPO) are how cameras store it, not pages.
        pages = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        return Header(height, width, grey, image.mode.startswith("I"), pages)


def _png_header(data: bytes) -> Header | None:
    """Of the commonest kinds of PNG, for sets of many small ones; None where it takes Pillow."""
    if data[:8] != png.SIGNATURE or len(data) < 33 or b"acTL" in data[:4096]:
        return None
    if png.may_be_turned(BytesIO(data)):
        return None
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if colour not in (0, 2, 6) or width * height > MOST_PIXELS or not width * height:
        return None
    return Header(height, width, colour == 0, colour == 0 and depth == 16)


def open_image(encoded: Encoded) -> Image.Image:
    """Decode an image file (its bytes or its path) wholly; `BadImageError` says why it can't be."""
    with _opened(encoded) as (file, size):
        if not _can_hold_its_pixels(file, size):
            raise BadImageError(
                f"it is damaged (its {size:,} bytes can't hold {file.width}×{file.height} pixels)"
            )
        with _reasons():
            deep = not file.mode.startswith("I") and ";16" in str(getattr(file, "tile", ""))
            file.load()
            orientation = _orientation(file)  # which may stand behind the pixels
            image: Image.Image = (
                file.transpose(_transposition(orientation))
                if orientation in _TURNS
                else file.copy()
            )
    if deep:
        tops: Any = [band.getextrema() for band in image.split()]
        if "A" in image.getbands():
            tops.pop()
        if max(high for _, high in tops) < 16:
            raise BadImageError(
                "its 16-bit colours use 12 of their bits at most, and of colours the upper eight "
                "of 16 are kept; save it with 8 bits"
            )
    if image.mode.startswith("I"):
        extremes: Any = image.getextrema()
        if extremes[0] < 0 or extremes[1] > 0xFFFF:
            raise BadImageError(
                "its pixels are 32-bit integers, of unknown range; save it with 8 or 16 bits"
            )
    return image


def _can_hold_its_pixels(file: ImageFile.ImageFile, size: int) -> bool:
    """Whether so many bytes of a file can hold as many pixels as it promises."""
    pixels = file.width * file.height
    return file.format not in _PACKED or pixels <= max(_MOST_EXPANDED, size * _EXPANSION * 8)


def _is_turned(file: ImageFile.ImageFile, size: int) -> bool:
    """Whether height and width change places when it is set upright.

    Pillow reads a PNG to its end for that, pixels too; so only one that may say so is asked.
    """
    if file.format == "PNG" and "exif" not in file.info:
        if file.fp is None or not _can_hold_its_pixels(file, size):
            return False
        if not png.may_be_turned(file.fp):
            return False
    return _orientation(file) >= 5


@contextmanager
def _opened(encoded: Encoded) -> Iterator[tuple[ImageFile.ImageFile, int]]:
    """The file's header read, its pixels not; and its number of bytes."""
    from PIL import Image, UnidentifiedImageError

    if encoded is None:
        raise BadImageError("it holds no image (null)")
    stream: IO[bytes]
    try:
        if isinstance(encoded, Path):
            if not encoded.is_file():
                # Also a pipe or a device, from which reading would never end.
                what = "it isn't a file" if encoded.exists() else "No such file"
                raise BadImageError(f"it can't be read ({what})")
            size = encoded.stat().st_size
            stream = encoded.open("rb")
        else:
            size, stream = len(encoded), BytesIO(encoded)
    except OSError as error:
        if is_shortage(error):
            raise
        raise BadImageError(f"it can't be read ({error.strerror or error})") from error
    with stream:
        if not size:
            raise BadImageError("it is empty")
        try:
            image = Image.open(stream)
        except UnidentifiedImageError:
            stream.seek(0)
            start = stream.read(1024)
            kind = next((kind for is_such, kind in _FOREIGN if is_such(start)), None)
            if kind is None:
                raise BadImageError("it isn't an image, or its beginning is damaged") from None
            raise _of_a_kind_not_read(kind) from None
        except Exception as error:
            raise _reason(error) from error
        if image.format in _NOT_READ:
            raise _of_a_kind_not_read(image.format)
        if image.mode in _UNREADABLE:
            raise BadImageError(
                f"its pixels are {_UNREADABLE[image.mode]}, which can't be turned into the 256 "
                "levels of a screen's colours; save it as 8-bit grey or RGB"
            )
        yield image, size


def _of_a_kind_not_read(kind: str) -> BadImageError:
    return BadImageError(f"it is of the kind {kind}, which isn't read; save it as PNG or JPEG")


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        raise _reason(error) from error


def _reason(error: Exception) -> BadImageError:
    """What to say of an error of Pillow's; a lack of memory passes unchanged."""
    from PIL import Image

    if is_shortage(error):
        raise error
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return BadImageError(
            f"it is too large: over {MOST_PIXELS // 10**6} million pixels are refused; "
            "save it smaller"
        )
    text = str(error) or type(error).__name__
    if "truncat" in text.lower():
        return BadImageError("it is truncated")
    return BadImageError(f"it is damaged ({text})")


def _orientation(image: Image.Image) -> int:
    """Orientation by EXIF or XMP, 1 to 8; 1 where there is none, or none that can be read."""
    if image.format == "TIFF":  # Pillow turns it itself
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return found if found in _TURNS else 1
    except Exception as error:  # junk makes its parser raise nearly anything; the pixels are sound
        if is_shortage(error):
            raise
        return 1


def _transposition(orientation: int) -> Image.Transpose:
    from PIL import Image

    return Image.Transpose(_TURNS[orientation])


def _is_grey_palette(image: Image.Image) -> bool:
    colours = image.getpalette("RGB")
    if not colours:
        return False
    table = np.array(colours).reshape(-1, 3)
    return bool((table == table[:, :1]).all())


def natural_channels(grey: bool) -> int | None:
    """Channels of a set: RGB (3) unless all its images are grey (None)."""
    return None if grey else 3


def largest_value(image: Image.Image) -> int:
    """Of a grey image of more than 8 bits."""
    extremes: Any = image.getextrema()
    return int(extremes[1])


def used_bits(largest: int) -> int:
    """Bits of a 16-bit set in use: of 8, 10, 12, 14 and 16 the fewest that hold its values.

    Cameras and scanners fill 10, 12 or 14 of the 16, and many masks and exports only 8.
    """
    return next(bits for bits in DEPTHS if largest < 2**bits)


def to_array(image: Image.Image, layout: Layout, bits: int | None = None) -> NDArray[np.uint8]:
    """Convert and resize one image; Pillow's bilinear filter, which averages when shrinking.

    `bits` are those in use of a 16-bit image, by default what it uses itself.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        bits = used_bits(largest_value(image)) if bits is None else bits
        image = Image.fromarray(np.minimum(np.asarray(image) >> (bits - 8), 255).astype(np.uint8))
    if layout.channels != 4:
        image = _without_alpha(image)
    if image.mode != layout.mode:
        try:
            image = image.convert(layout.mode)
        except ValueError as error:
            raise BadImageError(
                f"its pixels are of the kind {image.mode}, which can't become {layout.mode}; save "
                "it as grey or RGB"
            ) from error
    if image.size != (layout.width, layout.height):
        image = image.resize((layout.width, layout.height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _without_alpha(image: Image.Image) -> Image.Image:
    """Laid on white, or on black where white leaves under an eighth of black's contrast."""
    from PIL import Image

    grey = image.mode in ("L", "LA", "La", "1", "I")
    if not (image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info):
        return image
    drawn = image.convert("RGBA")
    low, _ = drawn.getchannel("A").getextrema()
    mode = "L" if grey else "RGB"
    if low == 255:
        return drawn.convert(mode)

    def on(level: int) -> tuple[Image.Image, int]:
        ground = Image.new("RGBA", drawn.size, (level, level, level, 255))
        flat = Image.alpha_composite(ground, drawn).convert(mode)
        extremes: Any = flat.convert("L").getextrema()
        return flat, int(extremes[1]) - int(extremes[0])

    white, contrast = on(255)
    if contrast < 32:
        black, other = on(0)
        if other > 8 * contrast:
            return black
    return white


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
