"""What of a time budget is kept for the work behind the training, and what too short ones tell.

Work is timed on a few images, in the threads and in the parts that it will have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil
from typing import Any

from rankwise._arrays import BLOCK, blocks, part_rows
from rankwise._threads import thread_pool
from rankwise.networks.convolutional import OUTPUT_BLOCK

MARGIN = 1.3
"""How many times the time that was measured is kept."""

_SOME, _TIMES = 128, 3


def least_seconds(task: Callable[[], object], now: Callable[[], float]) -> float:
    """The shortest of a few times that a task took: others had the processor in the longer ones.

    Parameters
    ----------
    task : callable
    now : callable
        Seconds since whenever.
    """
    found = []
    for _ in range(_TIMES):
        begin = now()
        task()
        found.append(now() - begin)
    return min(found)


def seconds_behind(
    features: Any,
    n_trained: int,
    n_validated: int,
    *,
    passes: int = 1,
    choices: int = 2,
    threads: int = 1,
    now: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds to keep for the glue and the choice of the output layer.

    Parameters
    ----------
    features : callable
        Of a slice of the training images, as `ConvolutionalNetwork.features` gives it.
    n_trained, n_validated : int
        Images of the glue, and of the validation part.
    passes : int
        How often the glue looks at all its images: behind the first time by whole blocks.
    choices : int
        How often the validation part is looked at.
    threads : int
        A part of the images in each, on one core.
    now : callable
        Seconds since whenever.
    """
    some = min(n_trained, _SOME)
    with thread_pool(threads) as pool:

        def in_each(rows: int) -> None:
            list(pool.map(features, [slice(0, rows)] * threads))

        in_each(min(some, 2))  # the first call of anything is slow
        seconds = least_seconds(lambda: in_each(some), now)
    size = getattr(features, "row_bytes", 0)
    parts, outputs = part_rows(size), part_rows(size, OUTPUT_BLOCK)
    rows = sum(_in_turn(b.stop - b.start, parts, threads) for b in blocks(n_trained))
    rows += (passes - 1) * _in_turn(n_trained, BLOCK, threads)
    rows += choices * _in_turn(n_validated, outputs, threads)
    return MARGIN * seconds * rows / some


def _in_turn(n: int, size: int, threads: int) -> int:
    """Images that one thread computes, where each takes so many at a time."""
    return min(n, size * ceil(ceil(n / size) / threads))


def too_short(budget: float, needs: float, *, of_teacher: bool, taken: float | None = None) -> str:
    """What to say where a time budget ended the first epoch, or was less than it takes.

    Parameters
    ----------
    budget : float
        Seconds, of the teacher its share.
    needs : float
        Seconds that one epoch takes, with what is before and behind it.
    of_teacher : bool
        Whether it was the teacher's.
    taken : float, optional
        Seconds of the budget that a teacher took.
    """
    epoch = f"a fit of one epoch takes about {_said(needs)} here"
    if of_teacher:
        return (
            f"the teacher's share of the time budget is {_said(budget)}, and {epoch}, so that "
            "it has hardly been trained; more minutes, or a smaller teacher, are needed"
        )
    if taken is None:
        return (
            f"the time budget is {_said(budget)}, and {epoch}, so that the units have hardly "
            "been trained; more minutes, or a smaller preset, are needed"
        )
    return (
        f"the time budget is {_said(budget)}, of which the teacher took {taken:.3g}, and "
        f"{epoch}, so that the units have hardly been trained; more minutes, or a smaller teacher, "
        "are needed"
    )


def _said(seconds: float) -> str:
    number = f"{seconds:.3g}"
    return f"{number} second{'s' * (number != '1')}"
