"""A task on its way: packed by the client, carried out by a worker, and what comes back."""

from __future__ import annotations

import io
import os
import pickle
import platform
import threading
import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import uuid4

import numpy as np

from rankwise._fingerprints import code_of_package
from rankwise._threads import one_thread
from rankwise._version import __version__
from rankwise.cluster.tree import sum_of
from rankwise.errors import ClusterError

SMALL = 16 * 2**10
"""Bytes of an array that travels with its job; larger ones travel once for all jobs."""
SMALL_JOB = 512
"""Bytes of a job that travels with each task; larger ones travel once."""

Task = Callable[[Any, Any], Any]
"""``task(common, item)``."""

inside: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether this is a task: it hands nothing on to other workers."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    value : object
    kernels : Counter
        Tasks by the BLAS kernel that they were computed with; see `kernel`.
    error : Exception or None
        What stopped it.
    worker : str
        Where that was.
    trace : str
        How it got there.
    """

    value: Any = None
    kernels: Counter[str] = field(default_factory=Counter)
    error: Exception | None = None
    worker: str = ""
    trace: str = ""


@contextmanager
def alone() -> Iterator[None]:
    """Compute on one thread, and start no other process or thread: the workers are taken."""
    from joblib import parallel_config

    token = inside.set(True)
    try:
        with one_thread(), parallel_config("sequential", n_jobs=1):
            yield
    finally:
        inside.reset(token)


def carry_out(
    code: str, job: bytes | tuple[Task, Any], item: Any, worker: str, *arrays: np.ndarray
) -> Outcome:
    """Carry out one task of a job. Nothing is raised: an error is an outcome.

    Parameters
    ----------
    code : str
        `code_here` of the client, which the worker's must equal; empty on the same machine.
    job : bytes, or (task, common)
        As `pack` gives it.
    item : object
    worker : str
        The worker's name; default this process's.
    arrays : arrays
        The large ones of the job.
    """
    here = worker or f"{platform.node()}, process {os.getpid()}"
    try:
        if code and code != code_here():
            raise ClusterError(
                f"worker {here} has {code_here()}, and this is {code}; a worker needs the client's "
                "version"
            )
        task, common = unpack(job, arrays) if isinstance(job, bytes) else job
        with alone():
            return Outcome(task(common, item), Counter([kernel()]))
    except Exception as error:
        return failed(error, worker)


def failed(error: Exception, worker: str = "") -> Outcome:
    """The outcome of a task that has just raised, on a worker; default this process's name."""
    here = worker or f"{platform.node()}, process {os.getpid()}"
    return Outcome(error=_portable(error), worker=here, trace=traceback.format_exc())


def added(add: Callable[[Any, Any], Any], a: Outcome, b: Outcome) -> Outcome:
    """The sum of two outcomes, on a worker; of an error that error."""
    for one in (a, b):
        if one.error is not None:
            return one
    try:
        with alone():
            return Outcome(add(a.value, b.value), a.kernels + b.kernels)
    except Exception as error:
        here = f"{platform.node()}, process {os.getpid()}"
        return Outcome(error=_portable(error), worker=here, trace=traceback.format_exc())


def derived(made: Callable[..., Any], *parts: Any) -> Any:
    """What the client made of values of tasks, made again where these are."""
    with alone():
        return made(*[part.value if isinstance(part, Outcome) else part for part in parts])


def summed(common: tuple[Task, Any, Callable[[Any, Any], Any]], leaves: Sequence[Any]) -> Any:
    """A task: the sum of some leaves of a tree."""
    leaf, shared, add = common
    return sum_of((leaf(shared, item) for item in leaves), add)


def _portable(error: Exception) -> Exception:
    """The error itself, or its words where it can't travel."""
    try:
        again = pickle.loads(pickle.dumps(error))
        return error if str(again) == str(error) else RuntimeError(f"{error}")
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def code_here() -> str:
    """Version and digest of the package in this process."""
    return f"rankwise {__version__} ({code_of_package('study')[:8]})"


@cache
def kernel() -> str:
    """Kernels of the BLAS that NumPy and SciPy use here, such as ``openblas 0.3.30 SkylakeX``.

    Another kernel sums in another order: results agree to rounding, no longer to the bit.
    """
    import scipy.linalg  # noqa: F401  loads its own
    from threadpoolctl import threadpool_info

    found = {
        f"{library['internal_api']} {library.get('version')} {library.get('architecture', '')}"
        for library in threadpool_info()
        if library["user_api"] == "blas" and f"{os.sep}torch{os.sep}" not in library["filepath"]
    }
    return ", ".join(sorted(found))


class _Packer:
    """Sets large arrays apart while something is pickled, each once."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._places: dict[int, int] = {}

    def place(self, thing: Any) -> int | None:
        if not isinstance(thing, np.ndarray) or thing.dtype.hasobject or thing.nbytes < SMALL:
            return None
        if id(thing) not in self._places:
            self._places[id(thing)] = len(self.arrays)
            self.arrays.append(thing)
        return self._places[id(thing)]


def pack(task: Task, common: Any) -> tuple[Any, list[np.ndarray]]:
    """A job's task and what all its tasks share, as bytes, and the large arrays in it apart.

    A job that isn't tiny itself comes as one of these arrays, the last one, and its bytes are
    its number.
    """
    from cloudpickle import CloudPickler

    packer = _Packer()

    class Pickler(CloudPickler):
        def persistent_id(self, thing: Any) -> int | None:
            return packer.place(thing)

    buffer = io.BytesIO()
    buffer.write(uuid4().bytes)
    Pickler(buffer, protocol=5).dump((task, common))
    job = buffer.getvalue()
    if len(job) < SMALL_JOB:
        return job, packer.arrays
    return job[:_TOKEN], [*packer.arrays, np.frombuffer(job, np.uint8).copy()]


def unpack(job: bytes, arrays: Sequence[np.ndarray]) -> tuple[Task, Any]:
    """What was packed; a job of several tasks in this process once."""
    token = job[:_TOKEN]
    with _LOCK:
        if token in _KEPT:
            _KEPT.move_to_end(token)
            return _KEPT[token]
    if len(job) == _TOKEN:
        job = arrays[-1].tobytes()

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, place: int) -> np.ndarray:
            return arrays[place]

    found = Unpickler(io.BytesIO(job[_TOKEN:])).load()
    with _LOCK:
        _KEPT[token] = found
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)
    return found


_TOKEN = 16
"""Bytes by which a job is known."""
_MOST_KEPT = 2
_KEPT: OrderedDict[bytes, tuple[Task, Any]] = OrderedDict()
_LOCK = threading.Lock()
