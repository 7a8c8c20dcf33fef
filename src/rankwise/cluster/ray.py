"""A cluster of Ray's, or Ray on this machine."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from rankwise.cluster.executor import GOES_ON, Advance, Executor, _nothing, _only
from rankwise.cluster.tasks import Outcome, Task, added, carry_out, pack, summed
from rankwise.cluster.tree import Fold, chunks
from rankwise.errors import ClusterError, MissingDependencyError, RankwiseError

_RETRIES = 5
"""Times that Ray itself repeats a task whose worker has died."""


class RayExecutor(Executor):
    """Tasks on Ray.

    Parameters
    ----------
    address : str
        ``"ray://HOST:10001"``, or ``"ray"``: a cluster that this machine belongs to, else its own
        processes.
    mixed_kernels : bool
    """

    def __init__(self, address: str, *, mixed_kernels: bool = False) -> None:
        super().__init__(mixed_kernels=mixed_kernels)
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError(
                f"{address} is a cluster of Ray's: pip install 'rankwise[ray]'"
            ) from error
        self._ray, self.address = ray, address
        self._held: dict[int, Any] = {}
        self._own = not ray.is_initialized()
        if self._own:
            where = {"address": address} if "://" in address else {}
            try:
                ray.init(
                    **where,
                    include_dashboard=False if not where else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = str(error).split("\n")[0]
                raise ClusterError(
                    f"no cluster of Ray's answers at {address} ({reason})"
                ) from error
        self._carry_out = ray.remote(max_retries=_RETRIES, num_cpus=1)(carry_out)
        self._added = ray.remote(max_retries=_RETRIES, num_cpus=1)(added)

    @property
    def workers(self) -> int:
        """Processors of the cluster, now."""
        with suppress(Exception):
            return max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return 1

    def close(self) -> None:
        """Let go of the arrays and, where Ray was started here, of Ray."""
        self._held.clear()
        if self._own:
            self._ray.shutdown()

    def outcomes(
        self, task: Task, items: Sequence[Any], common: Any, *, stay: bool = False
    ) -> Iterator[tuple[int, Outcome]]:
        """As `Executor` says: a window of tasks is under way, which grows with the workers."""
        job, arrays = pack(task, common)
        waiting = list(range(len(items)))[::-1]
        numbers: dict[Any, int] = {}
        with self._told():
            shared = [self._kept(array) for array in arrays]
            while waiting or numbers:
                while waiting and len(numbers) < max(32, 4 * self.workers):
                    number = waiting.pop()
                    task_of = self._carry_out.remote(self.code, job, items[number], "", *shared)
                    numbers[task_of] = number
                (done,), _ = self._ray.wait(list(numbers), num_returns=1)
                yield numbers.pop(done), self._ray.get(done)

    def tree(
        self,
        f: Callable[..., Any],
        items: Sequence[Any],
        add: Callable[[Any, Any], Any],
        common: Any = None,
        advance: Advance = _nothing,
    ) -> Any:
        """As `Executor` says. Partial sums move between workers; the client gets the last one."""
        task, own = (_only, f) if common is None else (f, common)
        job, arrays = pack(summed, (task, own, add))
        with self._told():
            shared = [self._kept(array) for array in arrays]
            fold, leaves = Fold(partial(self._added.remote, add)), {}
            for numbers, level in chunks(len(items), 2 * self.workers):
                some = [items[n] for n in numbers]
                leaf = self._carry_out.remote(self.code, job, some, "", *shared)
                leaves[leaf] = len(numbers)
                fold.push(leaf, level)
            total = fold.total()
            del fold, leaf
            while leaves:
                (done,), _ = self._ray.wait(list(leaves), num_returns=1)
                advance(leaves.pop(done))
                del done
            return self.value(self._ray.get(total))

    def _kept(self, array: np.ndarray) -> Any:
        """An array in Ray's store, put there once."""
        key = id(array)
        if key not in self._held:
            self._held[key] = self._ray.put(np.asarray(array))
            weakref.finalize(array, self._held.pop, key, None)
        return self._held[key]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what Ray raises when it breaks into one sentence."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, RankwiseError):
                raise cause from error
            reason = str(error).strip().split("\n")[0]
            raise ClusterError(
                f"the cluster at {self.address} failed ({reason}); {GOES_ON}"
            ) from error
