"""Memory that joint training of convolutional units takes, told before any of it is."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from rankwise._memory import available_memory
from rankwise.networks.sliding import mixes_first
from rankwise.training.precision import resolve_precision

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


def trained_values(units: ConvolutionalUnits) -> int:
    """Parameters of units that joint training changes."""
    return sum(stage.n_parameters for stage in units.stages) + 2 * units.n_whitening


def kept_of_parameters(units: ConvolutionalUnits, optimiser: str) -> int:
    """Float32 numbers that trained parameters come to between two batches.

    They themselves, those of the best epoch, their last gradients, and what the optimisers keep of
    each: AdamW two moments, Muon one.
    """
    by_muon = sum(stage.maps * stage.rank * stage.channels for stage in units.stages)
    return 5 * trained_values(units) - (by_muon if optimiser == "muon" else 0)


def composed_values(units: ConvolutionalUnits, precision: str) -> int:
    """Numbers of the filters that one shard composes and keeps until its gradient is there."""
    return sum(
        stage.maps * stage.channels * prod(stage.sides)
        for stage in units.stages
        if not mixes_first(stage.channels, stage.rank, stage.sides, precision)
    )


def check_room(units: ConvolutionalUnits, plan: JointPlan, n_samples: int, workers: int) -> None:
    """Refuse a training that memory has no room for, before any of it is taken.

    Shards of a batch are computed at a time, one a worker. The estimate is from below: what is
    only held for a moment isn't counted, nor the output layer.

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
    precision = resolve_precision(plan.precision)
    size = 4 if precision == "float32" else 2
    largest = max(stage.maps * prod(stage.size) for stage in units.stages)
    filters = -(-at_a_time // shard) * composed_values(units, precision)
    needed = 4 * kept_of_parameters(units, plan.optimiser) + max(
        (at_a_time * kept_values(units) + filters) * size,
        # Without gradients, in validation, about a whole batch is computed at a time.
        4 * n * largest,
        4 * -(-n // shard) * trained_values(units),  # gradients, shard by shard
    )
    free = available_memory()
    if needed > free:
        raise ValueError(
            f"training {units.n_units:,} convolutional units on images of "
            f"{'×'.join(map(str, units.shape))} needs {needed / 2**30:,.1f} GiB of memory or more, "
            f"and {free / 2**30:,.1f} GiB are free; smaller images, fewer units or fewer workers "
            "need less"
        )
