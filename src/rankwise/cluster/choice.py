"""Which engine carries out tasks: what an address names, and which one is in use here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from rankwise._files import expanded
from rankwise.cluster.executor import Executor
from rankwise.cluster.local import JoblibExecutor
from rankwise.cluster.tasks import inside
from rankwise.errors import ClusterError

ACCEPTED = (
    "tcp://HOST:8786 (Dask's scheduler), ray://HOST:10001 or ray (Ray), local or local:4 "
    "(processes of this machine) and folder:PATH (tasks in a folder, for 'rankwise work PATH') "
    "are accepted"
)

_in_use: ContextVar[Executor | None] = ContextVar("in_use", default=None)


def active() -> Executor | None:
    """The executor of the surrounding ``rankwise.cluster``; none inside of a task."""
    return None if inside.get() else _in_use.get()


def elsewhere() -> Executor | None:
    """The same, where its tasks run elsewhere: what is done with threads here goes there then."""
    executor = active()
    return executor if executor is not None and executor.remote else None


def on_workers(what: str, *, processes: bool = False) -> str | Callable[[], str]:
    """Description of a progress bar: with the number of workers, where a cluster surrounds it.

    Parameters
    ----------
    what : str
        Such as ``"sub-networks"``.
    processes : bool, default=False
        Whether processes of this machine take it as well, as `active` has it, or else threads do.
    """
    executor = active() if processes else elsewhere()
    return what if executor is None else partial(executor.on_workers, what)


def described() -> dict[str, Any]:
    """For a report's environment: the surrounding ``rankwise.cluster``, where there is one."""
    executor = active()
    return {} if executor is None else {"cluster": executor.describe()}


def engine(workers: int = 1) -> Executor:
    """The executor for a job: the surrounding ``rankwise.cluster``'s, else joblib's.

    Parameters
    ----------
    workers : int
        Processes, as joblib counts them, where no cluster says otherwise.
    """
    return active() or JoblibExecutor(1 if inside.get() else workers)


@contextmanager
def cluster(where: Any, *, mixed_kernels: bool = False) -> Iterator[Executor]:
    """Let everything big in a block run elsewhere: training, heads, copies, predictions, studies.

    Results have the bits of one machine, as long as all processors are of one kind. What is kept
    on disk is written by the process that calls, never by a worker.

    Parameters
    ----------
    where : str, dask.distributed.Client or Executor
        ``"tcp://HOST:8786"``, a scheduler of Dask's; ``"ray://HOST:10001"``, or ``"ray"`` for
        Ray on this machine; ``"local:4"``, processes of this machine; ``"folder:PATH"``, tasks in
        a folder that any number of ``rankwise work PATH`` work off.
    mixed_kernels : bool, default=False
        Accept workers whose BLAS kernels differ: results then agree to rounding only.

    Yields
    ------
    Executor

    Raises
    ------
    ClusterError
        If the address isn't one, nobody answers there, or a worker has another version.
    MissingDependencyError
        If the engine isn't installed.

    Examples
    --------
    >>> import rankwise
    >>> with rankwise.cluster("local:2") as executor:
    ...     list(executor.map(abs, [-1, 2]))
    [1, 2]
    """
    own = not isinstance(where, Executor)
    executor = _executor(where, mixed_kernels) if own else where
    token = _in_use.set(executor)
    try:
        yield executor
    finally:
        _in_use.reset(token)
        if own:
            executor.close()


def _executor(where: Any, mixed_kernels: bool) -> Executor:
    if type(where).__module__.startswith("distributed."):
        from rankwise.cluster.dask import DaskExecutor

        return DaskExecutor(where, mixed_kernels=mixed_kernels)
    kind, _, rest = str(where).partition(":")
    whole = rest.isascii() and rest.isdecimal()
    if kind == "local" and (rest == "" or (whole and int(rest) > 0)):
        return JoblibExecutor(int(rest or -1), backend="loky", mixed_kernels=mixed_kernels)
    if kind in ("tcp", "tls", "ws", "wss", "ucx") and rest.startswith("//"):
        from rankwise.cluster.dask import DaskExecutor

        return DaskExecutor(str(where), mixed_kernels=mixed_kernels)
    if kind == "ray" and (rest == "" or rest.startswith("//")):
        from rankwise.cluster.ray import RayExecutor

        return RayExecutor(str(where), mixed_kernels=mixed_kernels)
    if kind == "folder" and rest:
        from rankwise.cluster.folder import FolderExecutor

        return FolderExecutor(expanded(rest), mixed_kernels=mixed_kernels)
    raise ClusterError(f"{where!r} is no cluster; {ACCEPTED}")
