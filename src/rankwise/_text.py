"""Text for a terminal: what names of files and classes hold steers nothing."""

from __future__ import annotations

import re

# Control characters, and those that turn the direction of writing: a name may hold them.
_UNSEEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_UNSEEN}]")
_CONTROL_OR_BREAK = re.compile(f"[{_UNSEEN}\t\n]")


def plain(text: str, *, lines: bool = False) -> str:
    r"""Text in which control characters are spelled, such as ``\x1b``.

    Parameters
    ----------
    text : str
        Anything; names of files and classes may hold what steers a terminal.
    lines : bool
        Keep tabs and line breaks. By default they are spelled too.
    """
    pattern = _CONTROL if lines else _CONTROL_OR_BREAK
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def spelled(text: str) -> str:
    r"""Text that fonts and files in UTF-8 take: what isn't UTF-8 in a name becomes ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
