"""One thread for BLAS and torch while a result is computed; as many as before afterwards.

BLAS has one number of threads for the whole process. So it is set by the first one who wants it
and set back by the last one who leaves, however many threads of the caller are inside at once.
OpenMP, and with it torch, has one for each thread; there each thread's own is set, and torch's
default for new threads, which ``torch.set_num_threads`` would change for good, isn't touched.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from threadpoolctl import ThreadpoolController

Undo = Callable[[], object]


class SharedChange:
    """A change that holds while anybody is inside: the first one in makes it, the last undoes it.

    Examples
    --------
    >>> light = SharedChange()
    >>> def on():
    ...     print("on")
    ...     return lambda: print("off")
    >>> with light.holding("hall", on), light.holding("hall", on):
    ...     print("seen")
    on
    seen
    off
    """

    def __init__(self) -> None:
        self._renew()
        self._held: dict[Hashable, tuple[int, Undo]] = {}
        if hasattr(os, "register_at_fork"):
            # Another thread may hold the lock at the moment of a fork, and isn't there after it.
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, key: Hashable, change: Callable[[], Undo]) -> Iterator[None]:
        """Be inside; `change` is called by the first one and gives what undoes it."""
        with self._lock:
            count, undo = self._held[key] if key in self._held else (0, change())
            self._held[key] = (count + 1, undo)
        try:
            yield
        finally:
            with self._lock:
                count, undo = self._held.pop(key)
                if count > 1:
                    self._held[key] = (count - 1, undo)
                else:
                    undo()


_BLAS = SharedChange()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread, in the whole process."""
    with _BLAS.holding("blas", lambda: _to_one("blas")):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold BLAS at one thread, and OpenMP and torch in the thread that calls.

    Sums then have one order, whatever the machine.
    """
    with one_blas_thread():
        undo = _limit_this_thread()
        try:
            yield
        finally:
            undo()


@contextmanager
def thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute on one core each, so that their number changes no bit."""
    with (
        one_blas_thread(),
        ThreadPoolExecutor(workers, initializer=_limit_this_thread) as pool,
    ):
        yield pool


def blas_threads() -> int:
    """Threads that BLAS may use now."""
    libraries = _controller(len(sys.modules)).select(user_api="blas").lib_controllers
    return max([1, *(library.num_threads or 1 for library in libraries)])


def in_threads(f: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Results of ``f`` in the order of the items, each computed on one core; few at a time."""
    if isinstance(items, Sized) and len(items) == 1:
        # A thread of its own would take longer to begin than a small block to be done.
        with one_thread():
            found = [f(item) for item in items]
        yield from found
        return
    with thread_pool(workers) as pool:
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(pool.submit(f, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _limit_this_thread() -> Undo:
    """Give this thread's OpenMP regions one core."""
    torch = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):
        torch.get_num_threads()  # type: ignore[union-attr]  # by this torch sets the thread up
    undo_openmp = _to_one("openmp")
    set_mkl = _mkl_of_torch()
    before = 0 if set_mkl is None else set_mkl(1)

    def undo() -> None:
        undo_openmp()
        if set_mkl is not None:
            set_mkl(before)

    return undo


def _to_one(user_api: str) -> Undo:
    """Set all loaded libraries of a kind to one thread."""
    libraries = _controller(len(sys.modules)).select(user_api=user_api).lib_controllers
    before = [library.num_threads for library in libraries]
    for library in libraries:
        _set(library, 1)

    def undo() -> None:
        for library, number in zip(libraries, before, strict=True):
            _set(library, number)

    return undo


@lru_cache(maxsize=1)
def _controller(n_modules: int) -> ThreadpoolController:
    """Of all loaded libraries; finding them takes milliseconds, and no more come without a module.

    Parameters
    ----------
    n_modules : int
        Modules imported so far: with another number they are looked for again.
    """
    return ThreadpoolController()


def _set(library: Any, number: int) -> None:
    # From 3.8 on threadpoolctl lets the thread that came first alone set OpenBLAS's number, and
    # silently so. Here it is counted who is inside, and whoever comes first or leaves last sets it.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


def _mkl_of_torch() -> Callable[[int], int] | None:
    """Set this thread's number in the MKL inside torch, where there is one; gives the earlier one.

    It counts for that thread before OpenMP's does. 0 stands for OpenMP's.
    """
    torch = sys.modules.get("torch")
    return None if getattr(torch, "__file__", None) is None else _mkl_function(torch.__file__)  # type: ignore[union-attr,arg-type]


@cache
def _mkl_function(torch_file: str) -> Any:
    for path in (Path(torch_file).parent / "lib").glob("libtorch_cpu.so"):
        return getattr(ctypes.CDLL(str(path)), "MKL_Set_Num_Threads_Local", None)
    return None
