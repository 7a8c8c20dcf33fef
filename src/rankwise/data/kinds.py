"""Files of images that aren't read, and how to bring them into a form that is."""

from __future__ import annotations

from pathlib import Path

_UNPACK = "unpack it, and name the folder"
ARRAYS = (
    "save its images, (n, height, width) or (n, height, width, channels) in uint8, and their "
    "labels by numpy.savez('data.npz', images=images, labels=labels), and name that"
)
"""How images in any other file of arrays are brought in."""
_TABLE = "save it as a CSV file of file and label"
_REMEDIES = {
    ".zip .tar .tgz .gz .bz2 .xz .7z .rar .zst": _UNPACK,
    ".npy .pkl .pickle .p .mat .h5 .hdf5 .pt .pth .bin .joblib .tfrecord .tfrecords .feather "
    ".arrow .lmdb .mdb .beton .rec": ARRAYS,
    ".xls .xlsx .ods .json .jsonl .ndjson .xml .yaml .yml .db .sqlite": _TABLE,
}
_OF_ENDING = {ending: text for endings, text in _REMEDIES.items() for ending in endings.split()}


def remedy_of(path: Path) -> str:
    """What to do with a file of a kind that isn't read; empty for one of no known kind.

    >>> remedy_of(Path("data.zip"))
    'unpack it, and name the folder'
    """
    known = _OF_ENDING.get(path.suffix.lower(), "")
    if known or path.suffix:
        return known
    try:
        with path.open("rb") as file:
            first = file.read(2)
    except OSError:
        return ""
    return ARRAYS if first[:1] == b"\x80" and first[1:] in (b"\x02", b"\x03", b"\x04") else ""
