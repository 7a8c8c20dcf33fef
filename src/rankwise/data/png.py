"""Chunks of PNG files, looked through without decoding a pixel."""

from __future__ import annotations

import struct
from typing import IO

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNING = (b"exif\0", b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keys of texts in which Pillow finds an orientation."""


def may_be_turned(stream: IO[bytes]) -> bool:
    """Whether a file has a chunk, before its pixels or behind them, that may hold an orientation.

    The stream is left where it was.
    """
    place = stream.tell()
    try:
        stream.seek(len(SIGNATURE))
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            start = stream.tell()
            if kind == b"eXIf" or (kind in _TEXTS and stream.read(32).startswith(_TURNING)):
                return True
            stream.seek(start + length + 4)
        return False
    finally:
        stream.seek(place)
