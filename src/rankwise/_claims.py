"""Whose folder it is: one place that knows.

A folder of results says in a record what it was made from. Whoever is about to write there asks
here whether it is new, his own, or somebody else's, and holds it while he works. What a process
has left that was killed before its first word, a lock or an unfinished file, makes no folder
foreign.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rankwise._files import is_part, sweep
from rankwise.errors import RunError

LOCK = ".lock"


def contents(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without its lock and without unfinished files."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name != LOCK and not is_part(p))


def refuse_foreign(out: Path, what: str, *, own: bool, begun: tuple[str, ...] = ()) -> None:
    """Refuse a folder that is neither new, nor empty, nor one's own.

    Parameters
    ----------
    out : Path
    what : str
        What one's own folders hold: ``"run"``.
    own : bool
        Whether its record says that it is.
    begun : tuple of str
        Names (patterns) of what a process may have written before that record. Where there is
        nothing else, the folder is one's own too.

    Raises
    ------
    RunError
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder to write the {what} into")
    found = [] if own else contents(out)
    if not all(any(fnmatch(path.name, pattern) for pattern in begun) for path in found):
        raise RunError(f"{out} isn't empty and holds no {what}; choose another folder")


@contextmanager
def held(out: Path, what: str) -> Iterator[None]:
    """Make a folder, keep every other process out of it, and clear what a killed one has left.

    The system lets go of the lock when the process ends, in whatever way.

    Raises
    ------
    RunError
        If another process works there.
    """
    with locked(out / LOCK) as mine:
        if not mine:
            raise RunError(
                f"another {what} is running in {out}; wait until it ends, or choose another folder"
            )
        for folder, _, _ in os.walk(out):
            sweep(Path(folder), alone=True)
        yield


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file, made with its folder and removed at the end.

    Parameters
    ----------
    path : Path
    wait : bool
        Until others let go of it.

    Yields
    ------
    bool
        False if another process holds it, and the block runs without.
    """
    from filelock import FileLock, Timeout

    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # While it is held: whoever waits for it sees that its name is gone, and makes a new one.
        with suppress(OSError):
            os.unlink(path)
        lock.release()
        with suppress(OSError):  # Folders made for nothing go again.
            for folder in made:
                folder.rmdir()


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of what is wanted and was otherwise, in the order of `wanted`."""
    return [key for key in wanted if found.get(key) != wanted[key]]


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
