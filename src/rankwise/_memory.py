"""Memory: what is free, and the peak of a run, its worker processes included."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType


def available_memory() -> int:
    """Bytes that can be taken without pushing anything out of memory."""
    import psutil

    return int(psutil.virtual_memory().available)


_ONE_ARENA, _NO_MAPPING, _NO_TRIMMING = (-8, 1), (-4, 0), (-1, 2**31 - 1)
"""Of glibc's ``mallopt``: blocks of all threads from one place, which is kept."""


def keep_freed_memory() -> bool:
    """Keep what this process frees for what it allocates next, from now on; whether it will.

    glibc gives blocks of over 32 MiB, and those that threads free, back to the system, which brings
    them again page by page, filled with zeros, which a training on large images waits for. For a
    process of one's own: there is no way back. Elsewhere than under glibc
    it does nothing.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    taken = [mallopt(*each) for each in (_ONE_ARENA, _NO_MAPPING, _NO_TRIMMING)]
    return all(taken)


class PeakMemory:
    """Samples the resident memory of this process and its children while a block runs.

    Pages that processes share count once for each, so the figure is an upper bound. (The
    operating system's own maximum for children starts, on Linux, from the parent's at the fork,
    and would be far too high.)

    Attributes
    ----------
    megabytes : float
        Largest sum seen, in units of 2²⁰ bytes.
    """

    def __init__(self, interval: float = 0.1) -> None:
        self.megabytes = 0.0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        this = psutil.Process()
        while True:
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue  # it ended between the two calls
            self.megabytes = max(self.megabytes, total / 2**20)
            if self._stop.wait(self._interval):
                return
