"""Progress bars on standard error: one helper, so that they look alike everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    description: str, total: int | None, *, enabled: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error while the block runs; call the yielded function to advance it.

    Parameters
    ----------
    description : str
        What is under way, a few words.
    total : int or None
        Number of steps, or None where it isn't known.
    enabled : bool
        False gives a function that does nothing.

    Yields
    ------
    advance : callable
        ``advance(steps)`` moves the bar.
    """
    if not enabled:
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Bars of several threads would put each other's standard streams back in the wrong order.
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)
