"""What the parts of `cluster.py` share: a network of sub-networks, and rows written as shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rankwise import QuadraticClassifier, Subnetworks
from rankwise.data.shards import ShardWriter

SEED = 42


def written(place: Path, rows: np.ndarray, codes: np.ndarray, n_classes: int, size: int) -> str:
    """Rows as shards of so many; gives their address."""
    writer = ShardWriter(str(place), place.name, [str(k) for k in range(n_classes)])
    starts = range(0, len(rows), size)
    files = [
        writer.write("train", i, len(starts), np.asarray(rows[s : s + size]))
        for i, s in enumerate(starts)
    ]
    writer.add("train", files, codes, np.arange(len(codes)).astype(str))
    writer.finish()
    return str(place)


def network(subnets: int, units: int, samples: int) -> QuadraticClassifier:
    return QuadraticClassifier(
        n_subnets=subnets,
        n_units=subnets * units,
        subnets=Subnetworks(samples=samples),
        max_iter=5,
        random_state=SEED,
    )
