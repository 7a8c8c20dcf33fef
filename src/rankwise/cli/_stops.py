"""Ctrl-C, SIGTERM and SIGHUP end a command with one line; nothing stays in temporary folders."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import FrameType
from typing import ParamSpec, TypeVar

import typer

from rankwise.cli._output import say

P = ParamSpec("P")
R = TypeVar("R")

_ended_by = signal.SIGINT


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Take SIGTERM and SIGHUP for Ctrl-C, where they would end the process without a word.

    Whoever has ignored one of them, as nohup does, keeps it ignored.
    """
    taken = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _ended_by
    _ended_by = signal.Signals(number)
    raise KeyboardInterrupt


def interrupted(what_is_kept: str = "") -> typer.Exit:
    """Say that a command was interrupted; give the exit that a shell expects: 130 after Ctrl-C."""
    with suppress(OSError):  # the terminal may be gone, which is what SIGHUP says
        say(f"interrupted{what_is_kept}", err=True)
    return typer.Exit(128 + _ended_by)


def stoppable(command: Callable[P, R], what_is_kept: str = "") -> Callable[P, R]:
    """A command that says that it was interrupted, and what is kept of its work."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise interrupted(what_is_kept) from None

    return run
