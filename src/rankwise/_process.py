"""What a process has one of, changed by one thread at a time and put back: generators, filters."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


def _renew() -> None:
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def torch_seeded(seed: int | None = None, *, gpus: bool = False) -> Iterator[None]:
    """Let a block draw from PyTorch's default generator, which is afterwards as it was.

    Other threads that want it wait; they would get each other's numbers.

    Parameters
    ----------
    seed : int, optional
        To start from. Default: the generator goes on.
    gpus : bool
        Keep the generators of all GPUs too; without, a seed is the CPU's alone.
    """
    import torch

    devices = list(range(torch.cuda.device_count())) if gpus else []
    with _LOCK, torch.random.fork_rng(devices=devices):
        if seed is not None:
            (torch if gpus else torch.default_generator).manual_seed(seed)
        yield


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Let a block draw from numpy's global generator, which is afterwards as it was.

    Of this package nothing draws from it; other libraries do.

    Parameters
    ----------
    seed : int
        From 0, below 2³².
    """
    import numpy as np

    with _LOCK:
        state = np.random.get_state()  # noqa: NPY002 - it is put back, not drawn from
        np.random.seed(seed)  # noqa: NPY002 - other code draws from it
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002 - as above


@contextmanager
def ignoring_warnings(
    message: str = "", category: type[Warning] = Warning, module: str = ""
) -> Iterator[None]:
    """Ignore some warnings in a block, as ``warnings.filterwarnings`` would for good."""
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category, module)
        yield
