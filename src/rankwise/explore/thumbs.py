"""Images small enough for a page: sheets of thumbnails, and single pictures for a closer look."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import UInt8

from rankwise._arrays import as_rgb

SHEET = 256
"""Thumbnails on a sheet."""
_ACROSS = 16
_QUALITIES = (82, 65, 45, 25)
_BYTES_A_PIXEL = 0.3  # of a photograph at the first quality, about
_BLOCK = 16  # of WebP: a cell is a whole number of them, so that no neighbour shines through


@dataclass(frozen=True)
class Sheets:
    """Thumbnails in order, `SHEET` on each sheet, `across` in a row.

    Parameters
    ----------
    sheets : list of bytes
        WebP.
    height, width : int
        Of a thumbnail.
    cell : (int, int)
        Height and width of what holds one.
    """

    sheets: list[bytes]
    height: int
    width: int
    cell: tuple[int, int]
    across: int = _ACROSS


def sheets_of(images: UInt8[np.ndarray, "n ..."], rows: np.ndarray, most_bytes: int) -> Sheets:
    """Thumbnails of some images, as large and as good as so many bytes allow.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width[, channels])
    rows : int array
    most_bytes : int
        For all sheets together; the coarsest quality may exceed it.
    """
    height, width = images.shape[1:3]
    most = np.sqrt(most_bytes / _BYTES_A_PIXEL / max(len(rows), 1))
    side = int(np.clip(most // _BLOCK * _BLOCK, _BLOCK, 96))
    height, width = _fitting(height, width, side)
    cell = (-(-height // _BLOCK) * _BLOCK, -(-width // _BLOCK) * _BLOCK)
    arrays = []
    for start in range(0, len(rows), SHEET):
        some = rows[start : start + SHEET]
        down = -(-len(some) // _ACROSS)
        sheet = np.zeros((down * cell[0], _ACROSS * cell[1], 3), np.uint8)
        for i, row in enumerate(some):
            y, x = i // _ACROSS * cell[0], i % _ACROSS * cell[1]
            sheet[y : y + height, x : x + width] = _resized(as_rgb(images[row]), height, width)
        arrays.append(sheet)
    found: list[bytes] = []
    for quality in _QUALITIES:
        found = [_webp(sheet, quality) for sheet in arrays]
        if sum(map(len, found)) <= most_bytes:
            break
    return Sheets(found, height, width, cell)


def pictures_of(
    images: UInt8[np.ndarray, "n ..."], rows: np.ndarray, most_bytes: int, side: int = 192
) -> list[bytes]:
    """The first of some images in WebP, each alone, until so many bytes are used."""
    found: list[bytes] = []
    used = 0
    for row in rows:
        image = as_rgb(images[row])
        data = _webp(_resized(image, *_fitting(image.shape[0], image.shape[1], side)), 80)
        used += len(data)
        if used > most_bytes:
            break
        found.append(data)
    return found


def _fitting(height: int, width: int, side: int) -> tuple[int, int]:
    """A size of the same proportions, no larger than it is or than `side`."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def _webp(image: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "WEBP", quality=quality, method=1)
    return buffer.getvalue()
