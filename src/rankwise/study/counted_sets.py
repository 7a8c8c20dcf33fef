"""Which data sets a summary over data sets counts, and what is said of those that it leaves out.

A summary takes data sets for independent. The same images under two names, at two sizes, say, are
one data set: the first of them counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rankwise.study.sketches import ONE_SOURCE, SAME, SHARED, relation

Record = dict[str, Any]

_WORDS = {
    SAME: "the same images as {}",
    ONE_SOURCE: "the same source as {}",
    SHARED: "some of the images of {}",
}


class Repeats:
    """Data sets of a study that hold images of another.

    Parameters
    ----------
    data_sets : sequence of dict
        As ``results.json`` has them.
    """

    def __init__(self, data_sets: Sequence[Record]) -> None:
        self._words: dict[frozenset[str], str] = {}
        for i, second in enumerate(data_sets):
            for first in data_sets[:i]:
                words = _WORDS.get(relation(first, second))
                if words is not None:
                    self._words[frozenset((first["name"], second["name"]))] = words

    def among(self, names: Iterable[str]) -> dict[str, str]:
        """Of some data sets those that hold images of one before them, and in words of which."""
        kept: list[str] = []
        found = {}
        for name in names:
            known = (other for other in kept if frozenset((other, name)) in self._words)
            earlier = next(known, None)
            if earlier is None:
                kept.append(name)
            else:
                found[name] = self._words[frozenset((earlier, name))].format(earlier)
        return found


def left_out(reasons: Mapping[str, str]) -> str:
    """What is left out, with the reasons, as a sentence; empty where nothing is.

    >>> left_out({"a": "too few", "b": "too few", "c": "late"})
    'Left out: a, b (too few); c (late).'
    """
    if not reasons:
        return ""
    names = {
        reason: ", ".join(name for name, own in reasons.items() if own == reason)
        for reason in reasons.values()
    }
    return f"Left out: {'; '.join(f'{own} ({reason})' for reason, own in names.items())}."
