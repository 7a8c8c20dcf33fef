"""`Executor`: what every engine offers, and what becomes of its tasks' outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rankwise.cluster.tasks import Outcome, Task, code_here, summed
from rankwise.cluster.tree import Fold, chunks
from rankwise.errors import ClusterError, RankwiseError

TRIES = 3
"""Times that a task is tried whose worker says that its system failed."""

Advance = Callable[[int], object]


def _nothing(steps: int) -> None:
    """No bar."""


def _only(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


class Executor(ABC):
    """Carries out the tasks of a job: ``f(item)``, or ``f(common, item)``, for each item.

    Tasks are functions of what they are given alone. What they share (`common`) travels once, and
    large arrays in it once for all jobs of an executor. A worker that dies costs time only.

    Attributes
    ----------
    address : str
        Which engine this is, as `rankwise.cluster` takes it.
    remote : bool
        Whether tasks run in processes that may share neither disk nor memory with this one.
    kernels : Counter
        BLAS kernels of the tasks so far.
    """

    address = ""
    remote = True

    def __init__(self, *, mixed_kernels: bool = False) -> None:
        self.mixed_kernels = mixed_kernels
        self.kernels: Counter[str] = Counter()
        self.code = code_here()

    @property
    @abstractmethod
    def workers(self) -> int:
        """Tasks at a time, now."""

    def on_workers(self, what: str) -> str:
        """What is under way and on how many workers now, for a progress bar."""
        return f"{what} on {self.workers} worker{'' if self.workers == 1 else 's'}"

    @abstractmethod
    def outcomes(
        self, task: Task, items: Sequence[Any], common: Any, *, stay: bool = False
    ) -> Iterator[tuple[int, Outcome]]:
        """Number and outcome of each item, as they come; some are tried again by `completed`."""

    def same(self, array: np.ndarray, made: Callable[..., Any], parts: Sequence[Any]) -> None:  # noqa: B027
        """Tell that `array` is ``made(*parts)``, of values that stayed: it needn't travel then.

        Parameters
        ----------
        array : array
            The client's own.
        made : callable
            Gives it to the bit wherever it is called; anything that cloudpickle takes.
        parts : sequence
            Values of tasks that stayed, or arrays that were told before; else nothing happens.
        """

    def close(self) -> None:  # noqa: B027  most hold nothing
        """Let go of what is held for this executor's jobs."""

    def completed(
        self,
        f: Callable[..., Any],
        items: Sequence[Any],
        common: Any = None,
        *,
        stay: bool = False,
    ) -> Iterator[tuple[int, Any]]:
        """Number and value of each item, as they come.

        Parameters
        ----------
        f : callable
            ``f(item)`` or, with `common`, ``f(common, item)``; anything that cloudpickle takes.
        items : sequence
        common : object, optional
        stay : bool, default=False
            Values stay with their workers as well while the client keeps them; see `same`.

        Raises
        ------
        ClusterError
            If the engine fails for good, or workers differ.
        Exception
            What a task raised.
        """
        task, shared = (_only, f) if common is None else (f, common)
        left: Sequence[int] = range(len(items))
        tries = 1
        while left:
            again = []
            some = items if tries == 1 else [items[n] for n in left]
            for place, outcome in self.outcomes(task, some, shared, stay=stay):
                if self.remote and isinstance(outcome.error, OSError) and tries < TRIES:
                    again.append(left[place])
                    continue
                yield left[place], self.value(outcome)
            left, tries = sorted(again), tries + 1

    def map(self, f: Callable[..., Any], items: Sequence[Any], common: Any = None) -> Iterator[Any]:
        """Value of each item, in their order; parameters as for `completed`."""
        kept: dict[int, Any] = {}
        next_one = 0
        for number, value in self.completed(f, items, common):
            kept[number] = value
            while next_one in kept:
                yield kept.pop(next_one)
                next_one += 1

    def tree(
        self,
        f: Callable[..., Any],
        items: Sequence[Any],
        add: Callable[[Any, Any], Any],
        common: Any = None,
        advance: Advance = _nothing,
    ) -> Any:
        """The sum of the values of all items, in the one order of `rankwise.cluster.tree`.

        Parameters
        ----------
        f, items, common
            As for `completed`; each item is a leaf.
        add : callable
            ``add(a, b)``, a sum; neither is used again.
        advance : callable
            Told the number of leaves just summed.
        """
        task, shared = (_only, f) if common is None else (f, common)
        parts = list(chunks(len(items), 2 * self.workers))
        fold = Fold(add)
        chunked = [[items[number] for number in leaves] for leaves, _ in parts]
        values = self.map(summed, chunked, (task, shared, add))
        for (leaves, level), value in zip(parts, values, strict=True):
            fold.push(value, level)
            advance(len(leaves))
        return fold.total()

    def value(self, outcome: Outcome) -> Any:
        """What a task gave.

        Raises
        ------
        ClusterError
            If it was computed with another BLAS kernel than tasks before, unless that is wanted;
            or if the worker's system failed, which then is named.
        Exception
            What the task raised.
        """
        if outcome.error is not None:
            raise named(outcome) if self.remote else outcome.error
        self.kernels.update(outcome.kernels)
        if len(self.kernels) > 1 and not self.mixed_kernels and self.remote:
            raise ClusterError(
                f"the workers compute with different BLAS kernels ({'; '.join(self.kernels)}), so "
                "the result would depend on who computes what; workers on processors of one kind "
                "are accepted, OPENBLAS_CORETYPE=Haswell for all, or mixed_kernels "
                "(--mixed-kernels), which keeps the digits that all agree on"
            )
        return outcome.value

    def describe(self) -> dict[str, Any]:
        """For a report: which engine, how many workers now, and with which kernels it computed."""
        return {"address": self.address, "workers": self.workers, "kernels": dict(self.kernels)}


def named(outcome: Outcome) -> Exception:
    """The error of a task as the client raises it: with its worker where that matters."""
    error = outcome.error
    assert error is not None
    if isinstance(error, RankwiseError):
        return error
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return ClusterError(f"worker {outcome.worker} failed: {what}; {GOES_ON}")
    error.add_note(f"on worker {outcome.worker}:\n{outcome.trace}")
    return error


GOES_ON = "what is finished is kept, and the same command goes on from there"
