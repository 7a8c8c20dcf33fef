"""Ctrl-C ends a command with one line and exit status 130."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")


def stoppable(command: Callable[P, R], what_is_kept: str = "") -> Callable[P, R]:
    """A command that says that it was interrupted, and what is kept of its work."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo(f"interrupted{what_is_kept}", err=True)
            raise typer.Exit(130) from None

    return run
