"""Files that anybody may have written, cut short or made to harm: what every reader checks.

A reader of the package goes through here for JSON and tensors, and asks `is_shortage` before it
calls a file damaged. What is wrong with a file is one sentence; nothing a file says is believed
before it has been checked: how deep it nests, how much it declares, whether its numbers are finite.
"""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

from rankwise.errors import RankwiseError

JSON_DEPTH = 64
"""Levels of lists and objects inside each other; the package's own files have under ten."""

JSON_BYTES = 256 * 2**20
"""Size of a JSON file; the largest study so far has 30 MiB of results."""

_SHORTAGES = {
    getattr(errno, name)
    for name in ("EAGAIN", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC")
    if hasattr(errno, name)
}
_SHORTAGE_WORDS = (
    "can't start new thread",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "malloc of size",
    "no space left on device",
    "out of memory",
    "resource temporarily unavailable",
    "too many open files",
    "unable to allocate",
)


class UnreadableError(ValueError):
    """What is wrong with a content, without the name of its file: ``"it isn't JSON"``."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that the machine lacks memory, threads or room.

    Such an error is no damage of the file that was being read: it has to pass unchanged.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return True
        # Libraries in other languages have classes of their own for it.
        if isinstance(error, (RuntimeError, OSError)) or "Memory" in type(error).__name__:
            text = str(error).lower()
            if any(words in text for words in _SHORTAGE_WORDS):
                return True
        error = error.__cause__ or error.__context__
    return False


def parse_json(content: str | bytes, *, depth: int = JSON_DEPTH, finite: bool = False) -> Any:
    """The value of a JSON text.

    Parameters
    ----------
    content : str or bytes
        Bytes are UTF-8.
    depth : int
        Most levels of lists and objects inside each other.
    finite : bool
        Refuse NaN and infinities, which Python's JSON knows and no other's does.

    Raises
    ------
    UnreadableError
        What is wrong, as the end of a sentence: ``"it isn't JSON"``.
    """
    if len(content) > JSON_BYTES:
        raise UnreadableError(f"it is JSON of over {JSON_BYTES >> 20} MiB")
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise UnreadableError(f"it nests over {depth} levels deep") from error
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise UnreadableError("it isn't JSON") from error
    _check(value, depth, finite)
    return value


def _check(value: Any, depth: int, finite: bool) -> None:
    """Depth and finiteness, level by level: no recursion of ours."""
    level, below = [value], 0
    while level:
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
            elif finite and isinstance(item, float) and not math.isfinite(item):
                raise UnreadableError("it holds a number that isn't finite")
        if any(isinstance(item, (dict, list)) for item in level):
            below += 1
            if below > depth:
                raise UnreadableError(f"it nests over {depth} levels deep")
        level = deeper


def read_json(
    path: Path, *, error: type[RankwiseError], hint: str = "", finite: bool = False
) -> Any:
    """The value of a JSON file.

    Parameters
    ----------
    path : Path
    error : class
        What to raise: `DataError`, `ModelFileError` or `RunError`.
    hint : str
        Ends the sentence, such as ``"; choose another folder"``.
    finite : bool
        As for `parse_json`.

    Raises
    ------
    error
        Naming the file and what is wrong with it.
    OSError, MemoryError
        Where the machine lacks memory or open files: that is no damage.
    """
    try:
        if path.stat().st_size > JSON_BYTES:
            raise UnreadableError(f"it is JSON of over {JSON_BYTES >> 20} MiB")
        return parse_json(path.read_bytes(), finite=finite)
    except OSError as wrong:
        if is_shortage(wrong):
            raise
        raise error(f"{path} can't be read: {wrong.strerror or wrong}{hint}") from wrong
    except UnreadableError as wrong:
        raise error(f"{path} is damaged: {wrong}{hint}") from wrong


def read_json_object(
    path: Path,
    *,
    error: type[RankwiseError],
    hint: str = "",
    needs: tuple[str, ...] = (),
    finite: bool = False,
) -> dict[str, Any]:
    """The object of a JSON file, with all the keys that it `needs`; else as `read_json`."""
    value = read_json(path, error=error, hint=hint, finite=finite)
    if not isinstance(value, dict):
        raise error(f"{path} is damaged: it holds no JSON object{hint}")
    lacks = [name for name in needs if name not in value]
    if lacks:
        raise error(f"{path} is damaged: it lacks {', '.join(lacks)}{hint}")
    return value
