"""Warnings that point at the line which called the package, however deep inside they arise."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn as the line would that called the package."""
    level, outermost = 1, 1
    frame: FrameType | None = sys._getframe(0)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "rankwise":
            outermost = level
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=outermost + 1)
