"""Files in a folder of this machine, or at any address of fsspec's: ``s3://…``, ``memory://…``."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankwise._files import atomic_path, expanded
from rankwise.errors import DataError, MissingDependencyError, RankwiseError, is_shortage


def is_address(source: Any) -> bool:
    """Whether a source is an address of fsspec's and no path or hub id."""
    return isinstance(source, str) and "://" in source


def local_path(address: str) -> Path | None:
    """The path of an address on this machine; None for a store."""
    if address.startswith("file://"):
        return Path(address.removeprefix("file://"))
    return None if is_address(address) else expanded(address)


def joined(address: str, name: str) -> str:
    """The address of a file in a folder."""
    return posixpath.join(address, name) if is_address(address) else str(Path(address) / name)


def last_name(address: str) -> str:
    """What a file or a folder is called, without the folders that it lies in."""
    return address.rstrip("/").rpartition("/")[2]


def store(address: str) -> tuple[Any, str]:
    """A file system of fsspec's, and the path in it.

    Raises
    ------
    MissingDependencyError
        If nobody knows the protocol, or its library isn't installed.
    """
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise MissingDependencyError(f"{address} can't be reached: {error}") from error


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turn what any store's library complains about into a `DataError` that names the address.

    A file that isn't there stays a `FileNotFoundError`.
    """
    try:
        yield
    except (RankwiseError, FileNotFoundError):
        raise
    except Exception as error:  # each store's library has its own
        if is_shortage(error):
            raise
        raise DataError(f"{address} can't be read ({reason_of(error)}).") from error


def reason_of(error: Exception) -> str:
    """The first line of what went wrong."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.strip().split("\n")[0].rstrip(".") or type(error).__name__


def write_file(address: str, data: bytes) -> None:
    """Write a file, whole or not at all."""
    path = local_path(address)
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        return
    system, place = store(address)
    system.makedirs(posixpath.dirname(place), exist_ok=True)
    system.pipe_file(place, data)


def read_bytes(address: str) -> bytes:
    """A whole file.

    Raises
    ------
    DataError
        If it can't be read.
    """
    path = local_path(address)
    try:
        with reaching(address):
            if path is not None:
                return path.read_bytes()
            system, place = store(address)
            return system.cat_file(place)
    except FileNotFoundError as error:
        raise DataError(f"{address} can't be read ({reason_of(error)}).") from error


def open_file(address: str) -> Any:
    """A file to read stretches of, each fetched from its store as it is asked for."""
    path = local_path(address)
    if path is not None:
        return path.open("rb")
    system, place = store(address)
    return system.open(place, "rb", cache_type="none")  # reading ahead would fetch what isn't asked


def holds_file(address: str) -> bool:
    """Whether there is a file at an address; False too where its store doesn't tell."""
    path = local_path(address)
    if path is not None:
        return path.is_file()
    system, place = store(address)
    return bool(system.isfile(place))


def listing(address: str) -> dict[str, bool] | None:
    """Names in a folder, and whether each is a folder itself; None where it's one file.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    DataError
        If it can't be read.
    """
    path = local_path(address)
    with reaching(address):
        if path is not None:
            there = (
                {entry.name: entry.is_dir() for entry in path.iterdir()} if path.is_dir() else None
            )
            if there is None and not path.exists():
                raise FileNotFoundError(address)
            return there
        system, place = store(address)
        entries = system.ls(place, detail=True)
        own = place.rstrip("/")
        others = {e["name"].rstrip("/"): e["type"] == "directory" for e in entries}
        alone = others.pop(own, None)
        if not others and alone is False:
            return None
        return {last_name(name): folder for name, folder in others.items()}
