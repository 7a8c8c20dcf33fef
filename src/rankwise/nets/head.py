"""Where `solve_head` was before heads had a room of their own: `rankwise.heads.head`.

Scripts that name this place go on working. It imports nothing until it is asked, and no room of
the package asks it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("VarProHead", "load_head", "solve_head"):
        return getattr(import_module("rankwise.heads.head"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
