"""What each sample of a source derives from: its source id, and who says so."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from rankwise._files import expanded
from rankwise._reading import read_json_object
from rankwise.data.samples import Samples
from rankwise.errors import DataError

AUGMENT_RECORD = "augment.json"
"""Written by ``rankwise augment`` beside its images."""


def split_sources(
    samples: Samples, source: str | os.PathLike[str], pattern: str | None, usable: NDArray[np.int64]
) -> tuple[NDArray[np.str_], bool]:
    """Source ids, and whether the data themselves told them.

    The column ``source_id`` knows best, then the file names of copies, then the record beside
    them. A pattern comes before all three, but can't part what are known to be copies.
    """
    declared, named = samples.declared_sources(), samples.sources_of_copies()
    if pattern is None:
        for told in (declared, named):
            if told is not None:
                return told, True
        left = _pattern_left_by_augment(source)
        return samples.source_ids(left, usable), left is not None
    ids = samples.source_ids(pattern, usable)
    copies_of = declared if samples.logged_copies() else named
    return (ids, False) if copies_of is None else (_together(ids, copies_of, pattern), True)


def _together(ids: NDArray[np.str_], copies_of: NDArray[np.str_], pattern: str) -> NDArray[np.str_]:
    """`ids`, if all copies of an original share one."""
    pairs = {(source, own) for source, own in zip(copies_of.tolist(), ids.tolist(), strict=True)}
    if len(pairs) > len(np.unique(copies_of)):
        raise DataError(
            f"source_pattern {pattern!r} gives an original and its copies different ids; one that "
            "keeps them together is accepted, or none: then the data tell."
        )
    return ids


def _pattern_left_by_augment(source: str | os.PathLike[str]) -> str | None:
    """The source pattern in the record that ``rankwise augment`` leaves beside its images."""
    record = expanded(source) / AUGMENT_RECORD
    if not record.is_file():
        return None
    remedy = (
        ": it should name the source pattern of the copies beside it; give source_pattern, or "
        "augment again."
    )
    found = read_json_object(record, error=DataError, hint=remedy, needs=("source_pattern",))
    return str(found["source_pattern"])
