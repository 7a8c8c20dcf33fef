"""Sums in a tree whose shape follows from the number of leaves alone.

Floating-point sums depend on their order, so it is fixed here: eight leaves in a row are summed
from left to right, eight such sums again, and so on; what is left over at the end joins from the
lowest level up. Who computes a leaf, and when, changes no bit; and no more sums are kept at a time
than there are levels, one for each factor of eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

FAN = 8
"""Leaves, or sums, that are added up in one row."""


class Fold:
    """The sum of leaves that are given in their order.

    Parameters
    ----------
    add : callable
        ``add(a, b)`` is their sum; neither is used again.

    Examples
    --------
    >>> fold = Fold(lambda a, b: f"({a}+{b})")
    >>> for leaf in "abc":
    ...     fold.push(leaf)
    >>> fold.total()
    '((a+b)+c)'
    """

    def __init__(self, add: Callable[[Any, Any], Any]) -> None:
        self._add = add
        self._levels: list[list[Any]] = []

    def push(self, leaf: Any, level: int = 0) -> None:
        """Add the next leaf or, of a higher level, the sum of the next ``FAN**level`` leaves."""
        while True:
            while level >= len(self._levels):
                self._levels.append([])
            row = self._levels[level]
            row[:] = [self._add(row[0], leaf), row[1] + 1] if row else [leaf, 1]
            if row[1] < FAN:
                return
            leaf = row[0]
            row.clear()
            level += 1

    def total(self) -> Any:
        """The sum.

        Raises
        ------
        ValueError
            If there was no leaf.
        """
        sums = [row[0] for row in self._levels if row]
        if not sums:
            raise ValueError("there is nothing to sum up")
        total = sums[0]
        for higher in sums[1:]:
            total = self._add(higher, total)
        return total


def chunks(n_leaves: int, n_tasks: int) -> Iterator[tuple[range, int]]:
    """Leaves to be summed where they are made, and the level of each sum, for `Fold.push`.

    Parameters
    ----------
    n_leaves : int
    n_tasks : int
        As few chunks as leave at least so many, where there are as many leaves.
    """
    level = 0
    while n_leaves // FAN ** (level + 1) >= n_tasks:
        level += 1
    first = 0
    while first < n_leaves:
        while first + FAN**level > n_leaves:
            level -= 1
        yield range(first, first + FAN**level), level
        first += FAN**level


def sum_of(leaves: Iterable[Any], add: Callable[[Any, Any], Any]) -> Any:
    """The sum of leaves, as `Fold` has it."""
    fold = Fold(add)
    for leaf in leaves:
        fold.push(leaf)
    return fold.total()
