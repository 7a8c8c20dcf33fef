"""`open_reader`: what a source is, and the reader for it."""

from __future__ import annotations

import difflib
import errno
import os
import re
from pathlib import Path

from rankwise._files import expanded
from rankwise.data.addresses import holds_file, is_address, joined, listing, reaching, store
from rankwise.data.kinds import remedy_of
from rankwise.data.lines import ENDINGS
from rankwise.data.reader import Reader
from rankwise.data.shards import RECORD, ShardReader, holds_shards
from rankwise.data.tree import has_image_ending
from rankwise.errors import DataError

_ACCEPTED = (
    "'digits', a hub id such as 'ylecun/mnist', a parquet file or a folder of the hub's, a folder "
    "with one sub-folder per class, a CSV file or list of file and label, a folder of IDX files, "
    "an .npz archive, shards (rankwise shard), and parquet files or shards at an address such as "
    "s3://… are accepted"
)
_AT_ADDRESS = (
    "at an address, a folder of the hub's parquet files, a parquet file, and shards (rankwise "
    "shard) are accepted"
)

_NAMED = 3
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_reader(
    source: str | os.PathLike[str],
    image_column: str | None = None,
    label_column: str | None = None,
) -> Reader:
    """Find the reader of a source. A new kind of source needs a line here."""
    if not isinstance(source, (str, os.PathLike)):
        raise DataError(
            f"The source is of type {type(source).__name__}; {_ACCEPTED}. Images in memory become "
            "a set by ImageSet.from_arrays(images, labels)."
        )
    if source == "":
        raise DataError(f"The source is {source!r}; {_ACCEPTED}.")
    if is_address(source):
        return _addressed(str(source), image_column, label_column)
    _check_length(source)
    if holds_shards(str(source)):
        return ShardReader(str(source))
    if source == "digits":
        from rankwise.data.arrays import digits_reader

        return digits_reader()
    path = expanded(source)
    if path.is_dir():
        return _folder_reader(path, image_column, label_column)
    if path.suffix.lower() == ".npz" and path.is_file():
        from rankwise.data.npz import npz_reader

        return npz_reader(path)
    if path.suffix.lower() in ENDINGS and path.is_file():
        from rankwise.data.folder import table_reader

        return table_reader(path, label_column)
    if path.suffix.lower() == ".parquet" and path.is_file():
        from rankwise.data.parquet import file_reader

        return file_reader(str(path), image_column, label_column)
    if isinstance(source, str) and not path.exists() and _HUB_ID.fullmatch(source):
        from rankwise.data.hub import hub_reader

        _check_mistyped(path)
        return hub_reader(source, image_column, label_column)
    if path.is_file() and (remedy := remedy_of(path) or _of_a_set(path)):
        raise DataError(f"{source} isn't read by itself: {remedy}.")
    state = "is a file of another kind" if path.exists() else "doesn't exist"
    if path.is_symlink() and not path.exists():
        raise DataError(f"{source} is a link that leads nowhere ({os.readlink(path)} isn't there).")
    raise DataError(f"{source} {state}{_near(path)}; {_ACCEPTED}.")


def _check_length(source: str | os.PathLike[str]) -> None:
    """Refuse what no file can be called, which the system has no other word for."""
    try:
        os.lstat(expanded(source) / RECORD)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            begins = str(source)[:60]
            raise DataError(
                f"The source {begins!r}…, of {len(str(source))} characters, is no name that a file "
                f"can have; {_ACCEPTED}."
            ) from error


def _addressed(address: str, image_column: str | None, label_column: str | None) -> Reader:
    from rankwise.data.parquet import file_reader, parquet_files, parquet_reader

    if address.startswith("file://"):  # workers may stand in another folder
        address = f"file://{Path(address.removeprefix('file://')).absolute()}"
    store(address)  # what it lacks is told by the address as it was given
    with reaching(address):
        one_file = address.lower().endswith(".parquet") and holds_file(address)
        shards = not one_file and holds_shards(address)
    if one_file:
        return file_reader(address, image_column, label_column)
    if shards:
        return ShardReader(address)
    local = "; other sources on this machine by their path" if address.startswith("file:") else ""
    try:
        there = listing(address)
    except FileNotFoundError as error:
        raise DataError(f"{address} doesn't exist; {_AT_ADDRESS}{local}.") from error
    if there is None:
        raise DataError(f"{address} is a file of another kind; {_AT_ADDRESS}{local}.")
    if parquet_files(address):
        return parquet_reader(address, image_column, label_column)
    folders = [joined(address, name) for name in sorted(there) if there[name]]
    more = ", …" if len(folders) > _NAMED else ""
    inside = f", but the folders {', '.join(folders[:_NAMED])}{more}" if folders else ""
    raise DataError(
        f"{address} holds neither parquet files nor shards.json{inside}; {_AT_ADDRESS}{local}."
    )


def _of_a_set(path: Path) -> str:
    """What to name instead of one file of a set."""
    if has_image_ending(path):
        return "it is one image; name the folder that holds its set"
    name = path.name.lower()
    return "it is one file of several; name its folder" if "idx" in name and "ubyte" in name else ""


def _check_mistyped(path: Path) -> None:
    """Raise where a path is meant, not a data set of the hub: its folder is there."""
    if path.parent.is_dir():
        raise DataError(
            f"{path} doesn't exist{_near(path)}, and isn't looked up on the hub, since there is a "
            f"folder {path.parent}; {_ACCEPTED}."
        )


def _near(path: Path) -> str:
    """What is there under a similar name."""
    parent = path.parent
    if path.exists() or not parent.is_dir():
        return ""
    try:
        names = sorted(entry.name for entry in parent.iterdir())
    except OSError:
        return ""
    found = difflib.get_close_matches(path.name, names, n=1)
    return f" ({parent / found[0]} does)" if found else ""


def _folder_reader(path: Path, image_column: str | None, label_column: str | None) -> Reader:
    from rankwise.data import folder, idx, parquet

    if parquet.parquet_files(str(path)):
        return parquet.parquet_reader(str(path), image_column, label_column)
    if idx.idx_files(path):
        return idx.idx_reader(path)
    return folder.folder_reader(path, label_column)
