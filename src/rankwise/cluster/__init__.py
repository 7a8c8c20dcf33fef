"""Where tasks run: this process, its machine, a cluster of Dask's or Ray's, or a folder of tasks.

A task is a pure function of what it is given, so it may run anywhere, twice, or again after its
worker has died. Sums have one shape (`rankwise.cluster.tree`), so every engine gives the same bits
as this machine alone, where all of them compute with the same kernels.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from rankwise.cluster.choice import active, cluster, described, elsewhere, engine, on_workers
from rankwise.cluster.executor import Executor
from rankwise.cluster.tree import Fold

__all__ = [
    "Executor",
    "Fold",
    "active",
    "cluster",
    "described",
    "elsewhere",
    "engine",
    "on_workers",
]


class _Room(ModuleType):
    """The room itself, called as the function that opens it is: ``rankwise.cluster("…")``."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return cluster(*args, **options)


sys.modules[__name__].__class__ = _Room
