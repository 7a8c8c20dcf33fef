"""The exceptions that rankwise raises on purpose: one clear sentence each, for people."""

from __future__ import annotations

import errno


class RankwiseError(Exception):
    """Base of the errors that the command line prints as one sentence, without a traceback."""

    several_lines = False
    """Whether line breaks are the package's own: a list of mistakes."""


class DataError(RankwiseError, ValueError):
    """A data source that can't be read: what was wrong, what is accepted, which file."""


class DataWarning(UserWarning):
    """Something about data that was decided for the user, or that looks wrong."""


class ModelFileError(RankwiseError, ValueError):
    """A saved model that is damaged, foreign, or of another version."""


class RunError(RankwiseError, RuntimeError):
    """A run that can't go on, such as a folder that holds another run."""


class ClusterError(RankwiseError, RuntimeError):
    """Workers that can't be reached, that differ, or that were lost for good."""


class MissingDependencyError(RankwiseError, ImportError):
    """An optional library that isn't installed; the message says what to install."""


_SHORTAGES = {
    getattr(errno, name)
    for name in ("EAGAIN", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC")
    if hasattr(errno, name)
}
_SHORTAGE_WORDS = (
    "can't start new thread",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "bad_alloc",
    "malloc of size",
    "no space left on device",
    "out of memory",
    "resource temporarily unavailable",
    "too many open files",
    "unable to allocate",
)


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
        foreign = type(error).__module__.startswith("pyarrow") or "Memory" in type(error).__name__
        if isinstance(error, (RuntimeError, OSError, ImportError)) or foreign:
            text = str(error).lower()
            if any(words in text for words in _SHORTAGE_WORDS):
                return True
        error = error.__cause__ or error.__context__
    return False
