"""What a command prints: never fails on a character, and never obeys one that came from a file."""

from __future__ import annotations

import codecs
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from rankwise._text import plain

_SPELLED = {"→": "->", "–": "-", "−": "-", "…": "...", "±": "+-", "×": "x", "•": "*", "⚠": "!"}


def prepare_streams() -> None:
    """Let standard output and error spell what their encoding hasn't, such as an arrow."""
    codecs.register_error("rankwise-spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="rankwise-spelled")


def say(text: str, *, err: bool = False) -> None:
    """Print lines, `plain`."""
    typer.echo(plain(text, lines=True), err=err)


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """What the package warns of is one line, ``warning: …``; no line of code stands beside it."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                say(f"warning: {message}", err=True)
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = []
    for character in error.object[error.start : error.end]:
        spelled = _SPELLED.get(character)
        if spelled is None:
            letters = unicodedata.normalize("NFKD", character)
            spelled = letters.encode("ascii", "ignore").decode("ascii")
        written.append(spelled or character.encode("unicode_escape").decode("ascii"))
    return "".join(written), error.end
