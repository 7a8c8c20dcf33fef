"""Memory that joint training of convolutional units takes, told before any of it is."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from rankwise._memory import available_memory

if TYPE_CHECKING:
    from rankwise.training.joint_plan import JointPlan
    from rankwise.units.convolutional import ConvolutionalUnits


def kept_values(units: ConvolutionalUnits) -> int:
    """Numbers that one image leaves in memory until its gradient is there, at least.

    Of each layer the forms, the maps behind the pooling, normalised and activated, and where the
    pooling found its values; and the image itself.
    """
    found = 2 * units.channels * prod(length // units.shrink for length in units.shape[:2])
    if units.whiten:
        found += units.stages[0].channels * prod(units.stages[0].size)
    for stage in units.stages:
        before, behind = prod(stage.size), prod(stage.out)
        found += stage.maps * (2 * behind + (before + behind if max(stage.pool) > 1 else before))
    return found


def check_room(units: ConvolutionalUnits, plan: JointPlan, n_samples: int, workers: int) -> None:
    """Refuse a training that memory has no room for, before any of it is taken.

    Shards of a batch are computed at a time, one a worker. The estimate is from below: what is
    only held for a moment isn't counted.

    Parameters
    ----------
    units : ConvolutionalUnits
    plan : JointPlan
    n_samples : int
        Of the training images.
    workers : int
        Threads.

    Raises
    ------
    ValueError
        Naming what is needed, what is free and what needs less.
    """
    n = min(n_samples, plan.batch_size)
    shard = plan.shard_size(n)
    at_a_time = min(n, shard * max(1, workers))
    size = 4 if plan.precision == "float32" else 2
    largest = max(stage.maps * prod(stage.size) for stage in units.stages)
    # The output layer's start is computed without gradients, and from a whole batch at a time.
    needed = max(at_a_time * kept_values(units) * size, 4 * n * largest)
    free = available_memory()
    if needed > free:
        raise ValueError(
            f"training {units.n_units:,} convolutional units on images of "
            f"{'×'.join(map(str, units.shape))} needs {needed / 2**30:,.1f} GiB of memory or more, "
            f"and {free / 2**30:,.1f} GiB are free; smaller images, fewer units or fewer workers "
            "need less"
        )
