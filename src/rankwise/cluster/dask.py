"""A scheduler of Dask's and its workers."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from rankwise.cluster.executor import GOES_ON, Advance, Executor, _nothing, _only
from rankwise.cluster.tasks import Outcome, Task, added, carry_out, derived, pack, summed
from rankwise.cluster.tree import Fold, chunks
from rankwise.errors import ClusterError, MissingDependencyError, RankwiseError

_WAIT = 30.0
"""Seconds for a scheduler to answer, and for a first worker to join."""

_LOSSES = 10
"""Times that what the tasks share may be lost before the cluster is given up."""

_TRIES, _PAUSE = 5, 0.5
"""To give the workers an array, and seconds between two of them."""

_CODE = (
    "__import__('rankwise.cluster.tasks', fromlist=['code_here']).code_here()"  # evaluated there
)


class DaskExecutor(Executor):
    """Tasks on a cluster of Dask's.

    Parameters
    ----------
    where : str or dask.distributed.Client
    mixed_kernels : bool
    """

    def __init__(self, where: Any, *, mixed_kernels: bool = False) -> None:
        super().__init__(mixed_kernels=mixed_kernels)
        try:
            import distributed
        except ImportError as error:
            raise MissingDependencyError(
                f"{where} is a scheduler of Dask's: pip install 'rankwise[dask]'"
            ) from error
        self._own = isinstance(where, str)
        self._client = where
        if self._own:
            try:
                self._client = distributed.Client(where, timeout=_WAIT, set_as_default=False)
            except (OSError, ValueError) as error:
                reason = str(error).split("\n")[0]
                raise ClusterError(
                    f"no scheduler of Dask's answers at {where} ({reason}); 'dask scheduler' "
                    "starts one and prints its address"
                ) from error
        self.address = where if self._own else str(self._client.scheduler.address)
        self._held: dict[int, Any] = {}
        try:
            self._check_workers()
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Threads of all workers, now."""
        with suppress(Exception):
            return max(1, sum(self._client.nthreads().values()))
        return 1

    def close(self) -> None:
        """Let go of the arrays that workers hold and, where it was opened here, of the client."""
        self._held.clear()
        if self._own:
            with suppress(Exception):
                self._client.close(timeout=5)

    def outcomes(
        self, task: Task, items: Sequence[Any], common: Any, *, stay: bool = False
    ) -> Iterator[tuple[int, Outcome]]:
        """As `Executor` says: a window of tasks is under way, which grows with the workers."""
        from distributed import as_completed

        job, arrays = pack(task, common)
        waiting = list(range(len(items)))[::-1]
        numbers: dict[Any, tuple[int, int]] = {}
        losses = 0
        with self._told():
            shared = self._shared(arrays)
            done = as_completed(loop=self._client.loop)
            while waiting or numbers:
                while waiting and len(numbers) < max(32, 4 * self.workers):
                    number = waiting.pop()
                    future = self._submit(carry_out, self.code, job, items[number], "", *shared)
                    numbers[future] = number, losses
                    done.add(future)
                future = next(done)
                number, before = numbers.pop(future)
                outcome = self._outcome(future)
                if stay and outcome is not None and outcome.error is None:
                    self._hold(outcome.value, future)
                del future
                if outcome is not None:
                    yield number, outcome
                    continue
                waiting.append(number)
                if before == losses:  # else it is of an earlier loss
                    losses += 1
                    self._check_losses(losses)
                    shared = self._shared(arrays, again=True)

    def tree(
        self,
        f: Callable[..., Any],
        items: Sequence[Any],
        add: Callable[[Any, Any], Any],
        common: Any = None,
        advance: Advance = _nothing,
    ) -> Any:
        """As `Executor` says. Partial sums move between workers; the client gets the last one."""
        from distributed import as_completed

        task, own = (_only, f) if common is None else (f, common)
        job, arrays = pack(summed, (task, own, add))
        losses = advanced = 0
        while True:
            with self._told():
                shared = self._shared(arrays, again=losses > 0)
                parts = list(chunks(len(items), 2 * self.workers))
                plus = partial(self._submit, added, add)
                fold = Fold(plus)
                leaves = {}
                for numbers, level in parts:
                    some = [items[n] for n in numbers]
                    leaf = self._submit(carry_out, self.code, job, some, "", *shared)
                    leaves[leaf] = len(numbers)
                    fold.push(leaf, level)
                total = fold.total()
                del fold, leaf
                done = as_completed(list(leaves), loop=self._client.loop)
                lost = False
                for leaf in done:
                    lost = lost or leaf.status in ("cancelled", "lost")
                    steps = leaves.pop(leaf)
                    del leaf  # else its sum stays with a worker
                    advance(max(0, min(steps, len(items) - advanced)))
                    advanced += steps
                outcome = None if lost else self._outcome(total)
            if outcome is not None:
                return self.value(outcome)
            losses += 1
            self._check_losses(losses)

    def same(self, array: np.ndarray, made: Callable[..., Any], parts: Sequence[Any]) -> None:
        """As `Executor` says. Where what it is made of is lost, the client sends the array."""
        held = [self._held.get(id(part)) for part in parts]
        if None not in held and id(array) not in self._held:
            with self._told():
                self._hold(array, self._submit(derived, made, *held))

    # -- the cluster --------------------------------------------------------------------------

    def _submit(self, function: Any, *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False)

    def _outcome(self, future: Any) -> Outcome | None:
        """Of a future that is done; None where what it needs was lost."""
        from distributed import KilledWorker

        if future.status in ("cancelled", "lost"):
            self._check_scheduler()
            return None
        try:
            found = future.result()
        except KilledWorker as error:
            raise ClusterError(
                f"{error.allowed_failures + 1} workers died of one task, the last one at "
                f"{getattr(error.last_worker, 'address', error.last_worker)}, as they do when "
                f"memory runs out; workers with more of it or with fewer threads may do; {GOES_ON}"
            ) from error
        except ModuleNotFoundError as error:
            raise ClusterError(
                f"a worker at {self.address} can't import {error.name}; every worker needs "
                f"{self.code}"
            ) from error
        except Exception as error:
            if type(error).__name__ in ("CancelledError", "FutureCancelledError"):
                self._check_scheduler()
                return None
            raise
        return found

    def _shared(self, arrays: list[np.ndarray], *, again: bool = False) -> list[Any]:
        """The arrays as futures, each sent once."""
        found = []
        for array in arrays:
            key = id(array)
            kept = self._held.get(key)
            if kept is None or again:
                plain = np.asarray(array)  # of a mapped file, its values
                kept = self._sent(plain)
                self._hold(array, kept)
            found.append(kept)
        return found

    def _sent(self, array: np.ndarray) -> Any:
        """An array as a future; a worker that ends while it is given one costs another try."""
        tries = 0
        while True:
            try:
                return self._client.scatter(array, hash=False, direct=False)
            except OSError:  # of a connection that closed: the scheduler's, for the worker's sake
                self._check_scheduler()
                tries += 1
                if tries == _TRIES:
                    raise
                time.sleep(_PAUSE)

    def _hold(self, thing: Any, future: Any) -> None:
        """Let workers keep a thing as long as the client does."""
        key = id(thing)
        if key not in self._held:
            weakref.finalize(thing, self._held.pop, key, None)
        self._held[key] = future

    def _check_workers(self) -> None:
        """Refuse workers without this very package, by name."""
        end = time.monotonic() + _WAIT
        while not self._client.nthreads():
            if time.monotonic() > end:
                raise ClusterError(
                    f"no worker has joined the scheduler at {self.address}; 'dask worker "
                    f"{self.address}' on each machine starts one"
                )
            time.sleep(0.2)
        found = self._client.run(eval, _CODE, on_error="return")
        for worker, code in sorted(found.items()):
            if isinstance(code, Exception):
                raise ClusterError(
                    f"worker {worker} has no rankwise that can be imported ({code}); every worker "
                    f"needs {self.code}"
                )
            if code != self.code:
                raise ClusterError(
                    f"worker {worker} has {code}, and this is {self.code}; every worker needs the "
                    "client's version"
                )

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise ClusterError(f"the scheduler at {self.address} is gone; {GOES_ON}")

    def _check_losses(self, losses: int) -> None:
        self._check_scheduler()
        if losses > _LOSSES:
            raise ClusterError(
                f"the cluster at {self.address} has lost what its tasks share {losses} times; "
                f"{GOES_ON}"
            )

    def _told(self) -> _Told:
        return _Told(self)


class _Told:
    """Turns what Dask raises when it breaks into one sentence."""

    def __init__(self, executor: DaskExecutor) -> None:
        self._executor = executor

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None or isinstance(error, (RankwiseError, GeneratorExit)):
            return
        module = type(error).__module__.split(".")[0]
        broken = self._executor._client.status != "running"
        if isinstance(error, Exception) and (broken or module in ("distributed", "tornado")):
            self._executor._check_scheduler()
            raise ClusterError(
                f"the cluster at {self._executor.address} failed "
                f"({str(error).split(chr(10))[0] or type(error).__name__}); {GOES_ON}"
            ) from error
