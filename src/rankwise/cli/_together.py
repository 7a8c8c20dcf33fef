"""Under ``torchrun``: several processes train one model, and one of them speaks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from rankwise.errors import RunError

_LONGEST = 10.0
"""Seconds."""
_BY_SIGNAL = 128
"""Exit statuses from here on say which signal has ended a process."""


def rank_here() -> int | None:
    """Rank of this process among those of ``torchrun``; None where it is the only one.

    Schedulers set the same two variables for processes that know nothing of one another; only
    ``torchrun`` sets the third.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return int(rank) if rank.isdecimal() and size.isdecimal() and int(size) > 1 else None


def refuse_several(command: str) -> None:
    """Refuse, under ``torchrun``, what several processes would each do on their own.

    Parameters
    ----------
    command : str
        With the option that makes it so, as it would be typed.

    Raises
    ------
    RunError
    """
    if rank_here() is not None:
        raise RunError(
            f"'rankwise {command}' has no work for several processes, and torchrun has started "
            f"{os.environ['WORLD_SIZE']}; run it without torchrun"
        )


@contextmanager
def one_speaks() -> Iterator[None]:
    """Keep this process quiet unless it is the first, and let the first be heard out.

    torchrun ends all processes as soon as one has failed. So one that fails waits until it is
    ended, while the first says why.
    """
    if not rank_here():
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        try:
            yield
        except KeyboardInterrupt:  # outside of any command
            raise SystemExit(_BY_SIGNAL + signal.SIGINT) from None
        except SystemExit as end:
            if isinstance(end.code, int) and 0 < end.code < _BY_SIGNAL:
                _wait_to_be_ended(end.code)
            raise


def _wait_to_be_ended(code: int) -> None:
    """Wait for a signal that ends processes, and end with a code instead; not for ever."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            # At once: nothing of this process is left to tidy up.
            signal.signal(getattr(signal, name), lambda number, frame: os._exit(code))
    time.sleep(_LONGEST)
