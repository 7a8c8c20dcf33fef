"""The parts of a convolutional network that are computed in whole numbers, read from its graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise.networks.graph import (
    Activate,
    Add,
    Affine,
    Convolve,
    ConvolveForms,
    Dense,
    Flatten,
    Graph,
    Op,
    Pool,
    ToMaps,
)

_MOST_CHANNELS = 4
"""Of an image: its first layer works on patches."""


@dataclass(frozen=True)
class Stage:
    """One layer of units.

    Attributes
    ----------
    channel, row, column : arrays of shape (units, r, C), (units, r, rows), (units, r, columns)
        Of a dense filter each column is a form of its own: `patch` then holds what `channel` and
        `row` would, and `column` picks.
    patch : array of shape (units, r, rows·C), or None
    bias : array of shape (units,)
    padding, pool : (int, int)
    ops : tuple of operations
        Up to the activation.
    activation : str
    skip : bool
        What comes in is added.
    """

    channel: np.ndarray
    row: np.ndarray
    column: np.ndarray
    patch: np.ndarray | None
    bias: np.ndarray
    padding: tuple[int, int]
    pool: tuple[int, int]
    ops: tuple[Op, ...]
    activation: str
    skip: bool = False


@dataclass(frozen=True)
class Chain:
    """A whole network: images averaged over squares, normalised (`head`), layers, means, output."""

    head: tuple[Op, ...]
    shrink: int
    affine: Affine
    stages: tuple[Stage, ...]
    cell: tuple[int, int]
    dense: Dense


def chain_of(graph: Graph) -> Chain | None:
    """A graph as a chain; None where it is none that whole numbers are for."""
    ops: list[Op] = list(graph.ops)
    if graph.scale != 255.0 or len(graph.image_shape) not in (2, 3):
        return None
    channels = 1 if len(graph.image_shape) == 2 else graph.image_shape[2]
    if len(ops) < 6 or not isinstance(ops[0], ToMaps) or channels > _MOST_CHANNELS:
        return None
    i, shrink = 1, 1
    first = ops[i]
    if isinstance(first, Pool):
        if first.kind != "mean" or first.size != first.stride or len(set(pair(first.size))) > 1:
            return None
        shrink, i = pair(first.size)[0], i + 1
    affine = ops[i]
    if not isinstance(affine, Affine) or not (affine.scale > 0).all():
        return None
    i += 1
    head = tuple(ops[:i])
    stages: list[Stage] = []
    while i < len(ops) - 3:
        op = ops[i]
        if isinstance(op, Add):
            stage, used = _stage(op.left, dense=False, skip=True)
            # What comes in has to be there still, row by row, and as large as what goes out.
            if op.right or not stages or used != len(op.left) or not _keeps_size(stage):
                return None
            used = 1
        else:
            stage, used = _stage(ops[i:-3], dense=not stages)
        if stage is None:
            return None
        stages.append(stage)
        i += used
    mean, flatten, dense = ops[-3:]
    fits = isinstance(mean, Pool) and mean.kind == "mean" and mean.size == mean.stride
    if not (stages and fits and isinstance(flatten, Flatten) and isinstance(dense, Dense)):
        return None
    assert isinstance(mean, Pool)
    return Chain(head, shrink, affine, tuple(stages), pair(mean.size), dense)


def _stage(ops: Any, *, dense: bool, skip: bool = False) -> tuple[Stage | None, int]:
    """The layer that operations begin with, and how many of them it is."""
    nothing = None, 0
    if not ops or not isinstance(ops[0], ConvolveForms | Convolve):
        return nothing
    op, pool, used = ops[0], (1, 1), 1
    if pair(op.stride) != (1, 1):
        return nothing
    if len(ops) > used and isinstance(ops[used], Pool):
        one = ops[used]
        if one.kind != "max" or one.size != one.stride:
            return nothing
        pool, used = pair(one.size), used + 1
    if len(ops) <= used or not isinstance(ops[used], Activate):
        return nothing
    common: dict[str, Any] = {
        "bias": op.bias,
        "padding": pair(op.padding),
        "pool": pool,
        "ops": tuple(ops[:used]),
        "activation": ops[used].name,
        "skip": skip,
    }
    if isinstance(op, ConvolveForms):
        return Stage(op.channel, op.row, op.column, None, **common), used + 1
    if not dense or op.groups != 1:
        return nothing
    units, channels, height, width = op.weight.shape
    patch = np.transpose(op.weight, (0, 3, 2, 1)).reshape(units, width, height * channels)
    picked = np.broadcast_to(np.eye(width), (units, width, width))
    zeros = np.zeros((units, width, channels)), np.zeros((units, width, height))
    return Stage(*zeros, picked, patch, **common), used + 1


def _keeps_size(stage: Stage | None) -> bool:
    """Whether as many rows and columns come out as went in, and as many channels."""
    if stage is None or stage.pool != (1, 1):
        return False
    sides = stage.row.shape[2], stage.column.shape[2]
    same = all(2 * p + 1 == side for p, side in zip(stage.padding, sides, strict=True))
    return same and stage.channel.shape[0] == stage.channel.shape[2]


def pair(value: Any) -> tuple[int, int]:
    """Rows and columns, as whole numbers."""
    return int(value[0]), int(value[1])
