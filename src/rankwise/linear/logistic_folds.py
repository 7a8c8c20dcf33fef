"""Which part of the data a sample is held out in: by what it is, not by where it stands.

So equal samples are held out together, a sample of weight 2 is two samples, and neither order,
blocks nor a loader that shuffles change anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rankwise.linear.statistics import to_numpy

N_FOLDS = 5
"""Parts; five, the common choice."""

_ENOUGH = 800
"""Held-out samples that say which ridge is best: no further part is held out beyond."""

_COLUMNS = 16


class Folds:
    """The parts of some samples.

    Parameters
    ----------
    variance : array of shape (d,)
        Of the features: those that vary most, for their mean, tell samples apart.

    Attributes
    ----------
    n_samples : int
        Seen by `add`.
    """

    def __init__(self, variance: Float[np.ndarray, "d"]) -> None:
        order = np.argsort(-variance, kind="stable")[:_COLUMNS]
        self._columns = np.sort(order)
        rng = np.random.default_rng(0)
        self._factors = rng.integers(2**63, size=len(order), dtype=np.uint64) * 2 + 1

    def of(self, x: Any) -> Int[np.ndarray, "n"]:
        """Parts of a block of samples, from 0 to 4."""
        # As float32, whatever they came as: a block's type must not part equal samples.
        some = np.ascontiguousarray(to_numpy(x[:, self._columns]), dtype=np.float32) + 0.0
        bits = some.view(np.uint32).astype(np.uint64)
        found = (bits * self._factors).sum(axis=1, dtype=np.uint64)
        found ^= found >> np.uint64(29)
        found *= np.uint64(0xBF58476D1CE4E5B9)
        return ((found >> np.uint64(33)) % np.uint64(N_FOLDS)).astype(np.int8)


def folds_needed(n_samples: int) -> int:
    """How many of the parts are held out, one after another."""
    return int(np.clip(-(-_ENOUGH * N_FOLDS // max(n_samples, 1)), 1, N_FOLDS))


def usable_folds(by_fold: Float[np.ndarray, "folds K"], most: int) -> list[int]:
    """Parts that can be held out: not empty, and every class of theirs is also elsewhere.

    Parameters
    ----------
    by_fold : array of shape (5, K)
        Weight of each class in each part.
    most : int
    """
    total = by_fold.sum(axis=0)
    # Differences of sums that are equal to rounding are no samples.
    rest = (total - by_fold) > 1e-9 * total.sum()
    fits = ((by_fold > 0) <= rest).all(axis=1) & (by_fold.sum(axis=1) > 0)
    return np.flatnonzero(fits)[:most].tolist()
