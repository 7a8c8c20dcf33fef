"""Heads of several places as one: statistics in a fixed order, left-out errors that add up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.linear.statistics import ClassStatistics


def digest_of(statistics: ClassStatistics) -> str:
    """SHA-256 of all that the statistics say."""
    digest = hashlib.sha256(f"{statistics.classes.tolist()} {statistics.by_class}".encode())
    for values in (
        statistics.counts,
        statistics.weights,
        statistics.means,
        statistics.scatter,
        statistics.left_by_removal,
    ):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def in_order(parts: Iterable[ClassStatistics]) -> list[ClassStatistics]:
    """Statistics sorted by their digests: one order, whichever they came in."""
    return sorted(parts, key=digest_of)


def total_of(parts: Sequence[ClassStatistics]) -> ClassStatistics:
    """Their sum, pair by pair: to the bit the same for the same parts in the same order."""
    level = list(parts)
    while len(level) > 1:
        pairs = [level[i] + level[i + 1] for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


@dataclass(frozen=True)
class LeftOutErrors:
    """What one shard contributes to the choice of the ridge.

    Attributes
    ----------
    ridges : tuple of float
        Of the merged head.
    squares : tuple of float
        Weighted sums of squared left-out residuals, one a ridge.
    weight : float
        Of the shard's samples.
    """

    ridges: tuple[float, ...]
    squares: tuple[float, ...]
    weight: float


def mean_errors(shards: Sequence[LeftOutErrors]) -> tuple[list[tuple[float, float]], float]:
    """Ridge and mean squared left-out error over all shards, and their weight.

    Sums are rounded once, so their order changes nothing.

    Raises
    ------
    ValueError
        If there are none, or they are of different ridges.
    """
    if not shards:
        raise ValueError("there are no left-out errors to choose a ridge by")
    if any(s.ridges != shards[0].ridges for s in shards):
        raise ValueError(
            "the shards' left-out errors are of different ridges: each must come from the same "
            "merged head"
        )
    weight = math.fsum(s.weight for s in shards)
    sums = [math.fsum(s.squares[i] for s in shards) for i in range(len(shards[0].ridges))]
    return [(r, s / weight) for r, s in zip(shards[0].ridges, sums, strict=True)], weight
