"""What a seed may be, said once for every command and class that takes one."""

from __future__ import annotations

from operator import index
from typing import Any


def checked_seed(seed: Any) -> int | None:
    """The seed as an int; None stays None.

    Raises
    ------
    ValueError
        For a negative number, a boolean, and what is no whole number.
    """
    if seed is None:
        return None
    try:
        number = -1 if isinstance(seed, bool) else index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"seed is {seed!r}; a whole number from 0 is accepted")
    return number
