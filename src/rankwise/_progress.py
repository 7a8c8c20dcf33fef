"""Progress bars on standard error: one helper, so that they look alike everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FRESH = 2.0
"""Seconds for which a description that changes is shown as it is."""


class Bar:
    """What `progress_bar` yields: call it to advance, tell it what the last step came to."""

    def __init__(
        self,
        advance: Callable[[int], object] = lambda steps: None,
        note: Callable[[int, str], object] = lambda done, text: None,
    ) -> None:
        self._advance, self._note, self._done = advance, note, 0

    def __call__(self, steps: int) -> None:
        """Move on by so many steps."""
        self._done += steps
        self._advance(steps)

    def note(self, text: str) -> None:
        """Show a few words beside the bar; where there is no terminal, a line of their own."""
        self._note(self._done, text)


@contextmanager
def progress_bar(
    description: str | Callable[[], str],
    total: int | None,
    *,
    enabled: bool = True,
    notes: bool = False,
    unit: str | None = None,
) -> Iterator[Bar]:
    """Show a bar on standard error while the block runs; call what it yields to advance it.

    Parameters
    ----------
    description : str or callable
        What is under way, a few words; or what gives them anew while the bar moves.
    total : int or None
        Number of steps, or None where it isn't known.
    enabled : bool
        False gives a function that does nothing.
    notes : bool
        Leave room for `Bar.note`.
    unit : str, optional
        What a step is, such as ``"images"``: then the steps a second are shown.

    Yields
    ------
    Bar
    """
    if not enabled:
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s")

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=8 if notes else 24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    if unit is not None:
        columns.append(Speed())
    if notes:
        columns[0] = TextColumn("{task.description}")
        columns.append(TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress:
        said = description if callable(description) else lambda: str(description)
        task, seen = progress.add_task(said(), total=total, note=""), time.monotonic()

        def advance(steps: int) -> None:
            nonlocal seen
            progress.advance(task, steps)
            if callable(description) and time.monotonic() - seen > _FRESH:
                progress.update(task, description=said())
                seen = time.monotonic()

        def note(done: int, text: str) -> None:
            if console.is_terminal:
                progress.update(task, note=text)
            else:
                whole = "" if total is None else f"/{total}"
                console.print(f"{said()} {done}{whole}: {text}", highlight=False, markup=False)

        yield Bar(advance, note)
