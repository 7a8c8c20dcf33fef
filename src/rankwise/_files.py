"""Outputs that are whole or absent: written beside their place, then moved into it.

What a process that was killed has left behind, here or in the system's temporary folder, is
recognised by its name and removed by the next one that writes there.
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PART = ".rankwise-part-"
"""How names of folders of unfinished files begin: numbers of machine and process follow."""
TEMPORARY = "rankwise-tmp-"
"""The same in the system's temporary folder."""
_DAY = 86_400.0
_live: set[str] = set()
"""Unfinished files of this very process."""


def expanded(path: Path | str | os.PathLike[str]) -> Path:
    """A path with the home folder for its ``~``; that of a user nobody knows stays as it is."""
    return Path(os.path.expanduser(Path(path)))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside it, of the same name; on success it becomes `path`.

    If the block raises, or the process dies, nothing appears under `path`. What a process that
    died has left in that folder is removed first.

    Raises
    ------
    OSError
        Naming `path` where there is no room for it, whatever the library that wrote says.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    folder = path.with_name(f"{PART}{_owner()}-{secrets.token_hex(4)}")
    _live.add(folder.name)
    try:
        temporary = _new_file(folder, path)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # as any new file, whoever wrote it
        os.replace(temporary, path)
    except Exception as error:
        full = full_disk(error, path)
        if full is None:
            raise
        raise full from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _live.discard(folder.name)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; numpy scalars are numbers, NaN and ∞ null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(value, indent=2) + "\n", encoding="utf-8")


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON; numpy scalars are numbers, NaN and ∞ null."""
    return json.dumps(
        finite(value), indent=indent, allow_nan=False, default=lambda scalar: finite(scalar.item())
    )


def finite(value: Any) -> Any:
    """A copy without NaN and infinities, which JSON can't hold: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _new_file(folder: Path, path: Path) -> Path:
    """An empty file of the same name in a new folder, with the rights of any new file.

    A folder, since some libraries write a temporary file of their own beside the one they are
    given. `tempfile` would give the file to its owner alone, and the usual rights can't be asked
    for without changing them for a moment in the whole process.
    """
    try:
        folder.mkdir()
        new = folder / path.name
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return new


def is_part(path: Path) -> bool:
    """Whether a file is one that is, or was, being written."""
    return path.name.startswith(PART)


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove the unfinished files in a folder whose process has ended.

    Parameters
    ----------
    folder : Path
    alone : bool
        Whoever calls holds the folder's lock: then no unfinished file but his own is alive.
    """
    _sweep(folder, PART, alone)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's temporary one, removed at the end, or by the next process."""
    root = Path(tempfile.gettempdir())
    _sweep(root, TEMPORARY, False)
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{_owner()}-"))
    _live.add(folder.name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _live.discard(folder.name)


@contextmanager
def temporary_name(ending: str) -> Iterator[tuple[int, str]]:
    """An open new file in the system's temporary folder, and its name; removed if the block raises.

    What processes that were killed have left there is removed first.
    """
    _sweep(Path(tempfile.gettempdir()), TEMPORARY, False)
    handle, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{_owner()}-", suffix=ending)
    _live.add(Path(name).name)
    try:
        yield handle, name
    except BaseException:
        os.close(handle)
        os.unlink(name)
        raise


def _sweep(folder: Path, beginning: str, alone: bool) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(beginning) and _left_over(entry, beginning, alone):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)


def _left_over(entry: os.DirEntry[str], beginning: str, alone: bool) -> bool:
    """Whether nobody writes to a file any more. Of another machine: not for a day."""
    if entry.name in _live:
        return False
    if alone:
        return True
    machine, _, rest = entry.name.removeprefix(beginning).partition("-")
    number = rest.partition("-")[0]
    if machine != _machine() or not number.isdigit():
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY
        return False
    return int(number) == os.getpid() or not _alive(int(number))


def _alive(number: int) -> bool:
    import psutil

    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _owner() -> str:
    return f"{_machine()}-{os.getpid()}"


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


_NO_ROOM = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_ROOM_WORDS = {
    "no space left": errno.ENOSPC,
    "os error 28": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "disk quota exceeded": getattr(errno, "EDQUOT", errno.ENOSPC),
    "file too large": errno.EFBIG,
    # numpy and PyTorch don't say why less was written than asked for.
    " requested and ": errno.ENOSPC,
    "failed writing file": errno.ENOSPC,
    "unexpected pos": errno.ENOSPC,
}


def full_disk(error: BaseException, path: Path) -> OSError | None:
    """The error of a full disk that names the file asked for; None for any other error."""
    code = _no_room(error)
    return None if code is None else OSError(code, os.strerror(code), str(path))


def _no_room(error: BaseException | None) -> int | None:
    """The number of a full disk, a quota or a limit behind an error; None for any other."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno is not None:
            if error.errno in _NO_ROOM:
                return error.errno
        elif isinstance(error, (OSError, RuntimeError)) or type(error).__module__ != "builtins":
            text = str(error).lower()
            for words, code in _NO_ROOM_WORDS.items():
                if words in text:
                    return code
        error = error.__cause__ or error.__context__
    return None
