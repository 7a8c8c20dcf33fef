"""The validation part of the training images: what chooses epochs and output layers."""

from __future__ import annotations

import numpy as np

_SHARE, _MOST, _FEWEST = 10, 3000, 200


def validation_split(
    encoded: np.ndarray,
    seed: int,
    groups: np.ndarray | None = None,
    given: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on, both increasing; drawn with the seed.

    A tenth is held out, at most 3000 rows; none of fewer than 200. A class whose images would
    all be held out keeps its first to train on. Rows of one group stay on one side; where every
    group has more than a tenth, the smallest one is held out, if it has at most a third. Where
    rows are `given`, a bool array of shape (n,), they are the validation part.
    """
    if given is not None:
        return np.flatnonzero(~given), np.flatnonzero(given)
    n = len(encoded)
    rows = np.arange(n)
    if n < _FEWEST:
        return rows, rows[:0]
    n_held = min(n // _SHARE, _MOST)
    drawn = np.random.default_rng([seed, 4]).permutation(n)
    of = rows if groups is None else np.unique(groups, return_inverse=True)[1]
    # Whole groups, in the order in which their first rows are drawn, where there is room for one.
    turns = np.full(n, n)
    np.minimum.at(turns, of[drawn], rows)
    sizes = np.bincount(of, minlength=n)
    held_groups, room = [], n_held
    for group in np.argsort(turns, kind="stable")[: int(of.max()) + 1].tolist():
        if sizes[group] <= room:
            held_groups.append(group)
            room -= sizes[group]
    if not held_groups:
        smallest = int(np.argmin(sizes[: int(of.max()) + 1]))
        held_groups = [smallest] if sizes[smallest] <= n // 3 else []
    held = np.isin(of, held_groups)
    for label in np.setdiff1d(encoded, encoded[~held]):
        held[of == of[np.flatnonzero(encoded == label)[0]]] = False
    return rows[~held], rows[held]
