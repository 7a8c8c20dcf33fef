"""Data-parallel joint training: processes that ``torchrun`` starts share out a batch's shards.

Each process holds all parameters and draws the same batches. It computes the gradients of its
own shards, gets those of the others, and adds all of them in the order of the shards. So any number
of processes takes the same steps as one, to the bit on processors of one kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from rankwise.errors import RunError

Part = TypeVar("Part")
Found = TypeVar("Found")

_in_use: ContextVar[bool] = ContextVar("data_parallel", default=False)


@contextmanager
def data_parallel() -> Iterator[int]:
    """Let the processes of ``torchrun`` train one convolutional model together, on CPUs.

    All of them make the same calls on the same data; what they end with is the same. They talk
    through torch's process group (gloo): the given one, or one that is opened here.

    Yields
    ------
    int
        The rank of this process; the one of rank 0 prints and saves.

    Raises
    ------
    RunError
        If this process wasn't started by ``torchrun`` or its like.
    """
    own = not dist.is_initialized()
    if own:
        if "RANK" not in os.environ:
            raise RunError(
                "this process belongs to no group that trains together; 'torchrun "
                "--nproc-per-node 2 SCRIPT' starts one"
            )
        dist.init_process_group("gloo")
    token = _in_use.set(True)
    try:
        yield dist.get_rank()
    finally:
        _in_use.reset(token)
        if own:
            dist.destroy_process_group()


def is_parallel() -> bool:
    """Whether `data_parallel` surrounds this."""
    return _in_use.get()


def is_first() -> bool:
    """Whether this process writes what is kept: alone, or the one of rank 0."""
    return not _in_use.get() or dist.get_rank() == 0


def shared_out(run: Callable[[Sequence[Part]], list[Found]], parts: Sequence[Part]) -> list[Found]:
    """What `run` gives for all parts, in their order; each process runs some of them.

    Parameters
    ----------
    run : callable
        Of parts; what it gives for each must not depend on the others.
    parts : sequence
    """
    if not _in_use.get():
        return run(parts)
    rank, size = dist.get_rank(), dist.get_world_size()
    every: list[Any] = [None] * size
    dist.all_gather_object(every, run(parts[rank::size]))
    found: list[Any] = [None] * len(parts)
    for other, some in enumerate(every):
        found[other::size] = some
    return found


def check_same(what: str, value: Any) -> None:
    """Refuse to go on where processes differ in something.

    Raises
    ------
    RunError
        Naming it.
    """
    if not _in_use.get():
        return
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, value)
    if any(other != every[0] for other in every):
        raise RunError(
            f"the processes that train together differ in {what}; the same data, options, "
            "checkpoints (on a disk that all see) and processors of one kind are accepted"
        )


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """A few digits that tell parameters apart to the bit."""
    from hashlib import sha256

    found = sha256()
    for tensor in tensors.values():
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()[:16]
