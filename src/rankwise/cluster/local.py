"""Processes of the machine at hand, or whatever back end joblib has been told to use."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from rankwise.cluster.executor import Executor
from rankwise.cluster.tasks import Outcome, Task, alone, carry_out, kernel, pack

_MAPPED = 2**20
"""Bytes of what tasks share from which joblib gives it to its processes as a mapped file."""

_LOCAL = ("SequentialBackend", "LokyBackend", "MultiprocessingBackend", "ThreadingBackend")


class JoblibExecutor(Executor):
    """joblib's processes; its own back ends apply, as ``joblib.parallel_config("dask")`` sets them.

    Parameters
    ----------
    n_jobs : int
        As joblib counts them.
    backend : str, optional
        Default: the one that is set, which is joblib's own processes.
    """

    def __init__(
        self, n_jobs: int = 1, *, backend: str | None = None, mixed_kernels: bool = False
    ) -> None:
        super().__init__(mixed_kernels=mixed_kernels)
        from joblib import effective_n_jobs
        from joblib.parallel import get_active_backend

        self._backend, self._n_jobs = backend, n_jobs
        with self._configured():
            found = get_active_backend()[0]
            self._workers = int(effective_n_jobs(n_jobs))
        self._as_they_come = bool(found.supports_return_generator)
        self.remote = type(found).__name__ not in _LOCAL
        self.address = type(found).__name__ if self.remote else f"local:{self._workers}"

    def _configured(self) -> Any:
        from joblib import parallel_config

        return nullcontext() if self._backend is None else parallel_config(self._backend)

    @property
    def workers(self) -> int:
        """Processes."""
        return self._workers

    def outcomes(
        self, task: Task, items: Sequence[Any], common: Any, *, stay: bool = False
    ) -> Iterator[tuple[int, Outcome]]:
        """As `Executor` says."""
        from joblib import Parallel, delayed

        if self._workers == 1 and not self.remote:
            for number, item in enumerate(items):
                with alone():
                    value = task(common, item)
                yield number, Outcome(value, Counter([kernel()]))
            return
        options: dict[str, Any] = {"return_as": "list"}
        if self._as_they_come:  # joblib's back end for Ray gives nothing before all are done
            options["return_as"] = "generator_unordered"
        packed, arrays = pack(task, common)
        job: Any = packed
        if self.remote:
            # All at once: a worker that joins later gets work then.
            options |= {"pre_dispatch": "all", "batch_size": 1}
        else:
            if sum(array.nbytes for array in arrays) < _MAPPED:
                # Each item's own arrays go through pipes: as files they would be written once each.
                options["max_nbytes"] = None
            job, arrays = (task, common), []
        with self._configured():
            done = Parallel(n_jobs=self._n_jobs, **options)(
                delayed(_numbered)(
                    os.getpid(), self.code if self.remote else "", job, number, item, *arrays
                )
                for number, item in enumerate(items)
            )
        yield from done


def _numbered(
    caller: int, code: str, job: Any, number: int, item: Any, *arrays: np.ndarray
) -> tuple[int, Outcome]:
    if os.getpid() != caller:
        _may_grow()
        _leave_ctrl_c_to_the_caller()
    return number, carry_out(code, job, item, "", *arrays)


def _leave_ctrl_c_to_the_caller() -> None:
    """Ignore the SIGINT that a terminal sends to all: joblib ends its processes with the caller.

    Between two tasks it would end in a traceback.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _may_grow() -> None:
    """Keep this process of joblib's from ending itself once it has grown by 300 MB.

    That takes no more than importing torch. Where all processes end so at once, nobody takes the
    tasks that wait, and nobody says so (joblib 1.5, loky 3.6).
    """
    loky = sys.modules.get("joblib.externals.loky.process_executor")
    if loky is not None:
        loky._MAX_MEMORY_LEAK_SIZE = sys.maxsize  # type: ignore[attr-defined]
