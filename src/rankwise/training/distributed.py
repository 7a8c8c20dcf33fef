"""Data-parallel joint training: processes that ``torchrun`` starts share out a batch's shards.

Each process holds all parameters and draws the same batches. It computes the gradients of its
own shards, gets those of the others, and adds all of them in the order of the shards. So any number
of processes takes the same steps as one, to the bit on processors of one kind.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from rankwise.errors import RankwiseError, RunError, is_shortage

if TYPE_CHECKING:
    import torch

Part = TypeVar("Part")
Found = TypeVar("Found")

_in_use: ContextVar[bool] = ContextVar("data_parallel", default=False)


class _EndedElsewhereError(RunError):
    """Another process has failed, or is gone."""


@dataclass(frozen=True)
class _Failure:
    """What a process that can't go on sends in the place of a value."""

    rank: int
    sentence: str


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
        If this process wasn't started by ``torchrun`` or its like, or doesn't reach the others.
    """
    import torch.distributed as dist

    # Its functions keep the group that is open when they are first imported, for good. Threads of a
    # group that is kept may abort the interpreter at its end.
    import_module("torch.distributed.nn.functional")
    own = not dist.is_initialized()
    if own:
        if "RANK" not in os.environ:
            raise RunError(
                "this process belongs to no group that trains together; 'torchrun "
                "--nproc-per-node 2 SCRIPT' starts one"
            )
        try:
            dist.init_process_group("gloo")
        except (RuntimeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise RunError(
                f"the processes that were to train together don't reach one another ({reason})"
            ) from error
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
    return _place()[0] == 0


def _place() -> tuple[int, int]:
    """Rank of this process, and how many train together."""
    if not _in_use.get():
        return 0, 1
    import torch.distributed as dist

    return dist.get_rank(), dist.get_world_size()


@contextmanager
def ending_together() -> Iterator[None]:
    """Let an error end all processes: the others get it as theirs when they next wait for this one.

    Surrounds what nobody else's messages are sent in. Outside of `data_parallel` it does nothing.
    """
    try:
        yield
    except _EndedElsewhereError:
        raise
    except Exception as error:
        if _in_use.get():
            plain = isinstance(error, (RankwiseError, ValueError)) and str(error)
            sentence = str(error) if plain else f"{type(error).__name__} {error}".rstrip()
            with suppress(Exception):
                _gathered(_Failure(_place()[0], sentence))
        raise


def n_processes() -> int:
    """How many processes train together."""
    return _place()[1]


def processes_here() -> int:
    """How many of them are on this machine."""
    size = n_processes()
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, min(int(here), size)) if here.isdecimal() else size


def of_first(value: Found) -> Found:
    """What the process of rank 0 gives here, in all of them."""
    return _gathered(value if is_first() else None)[0] if _in_use.get() else value


def _gathered(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    import torch.distributed as dist

    rank, size = _place()
    packed: list[Any] = [None] * size
    try:
        dist.all_gather_object(packed, _packed(value))
    except RuntimeError as error:
        if is_shortage(error):
            raise
        raise _EndedElsewhereError(
            "another of the processes that train together is gone; what is finished is kept where "
            "checkpoints are, and the same command goes on from there"
        ) from error
    every = [pickle.loads(one) for one in packed]
    for other in every:
        if isinstance(other, _Failure) and other.rank != rank:
            raise _EndedElsewhereError(
                f"process {other.rank} of those that train together: {other.sentence}"
            )
    return every


def _packed(value: Any) -> bytes:
    """Pickled, with tensors as numpy has them: torch's own way takes 25 times as long."""
    import torch

    class Pickler(pickle.Pickler):
        def reducer_override(self, found: Any) -> Any:
            if type(found) is not torch.Tensor or found.dtype == torch.bfloat16:
                return NotImplemented
            return torch.from_numpy, (found.detach().numpy(),)

    stream = io.BytesIO()
    Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


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
    rank, size = _place()
    found: list[Any] = [None] * len(parts)
    for other, some in enumerate(_gathered(run(parts[rank::size]))):
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
    every = _gathered(value)
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
