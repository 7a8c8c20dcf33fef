"""A loader read in the caller's order, where results are positions."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from rankwise.heads.feature_blocks import OwnDraws, to_array


def in_callers_order(X: Any) -> Any:
    """The same samples in an order that means something outside this pass.

    A `DataLoader` that shuffles its data set is read in the order of the data set; what draws
    samples, or gives them in another order each time, is refused.

    Raises
    ------
    ValueError
    """
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

    if not isinstance(X, DataLoader):
        return X if hasattr(X, "__next__") else _steady(X)
    sampler = X.sampler if X.batch_sampler is None else getattr(X.batch_sampler, "sampler", None)
    plain = X.batch_sampler is None or type(X.batch_sampler) is BatchSampler
    if plain and isinstance(sampler, SequentialSampler):
        return X
    whole = (
        plain
        and isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(X.dataset)  # type: ignore[arg-type] # RandomSampler needs it
    )
    if whole:
        return DataLoader(
            X.dataset,
            batch_size=X.batch_size,
            num_workers=X.num_workers,
            collate_fn=X.collate_fn,
            worker_init_fn=X.worker_init_fn,
        )
    return _steady(X)


def _steady(X: Any) -> Any:
    """`X`, if two looks at it give the same samples in the same order."""
    draws = OwnDraws()
    if _digest(draws.read(X)) != _digest(draws.read(X)):
        raise ValueError(
            "the iterable gives its samples in another order each time, so positions in it mean "
            "nothing afterwards; give arrays, a DataLoader without shuffle or sampler, or a list "
            "of blocks"
        )
    return X


def _digest(X: Any) -> str:
    digest = hashlib.sha256()
    for item in X:
        parts = item if isinstance(item, (tuple, list)) else (item,)
        for part in parts:
            array = np.ascontiguousarray(to_array(part))
            digest.update(str(array.tolist()).encode() if array.dtype == object else array.data)
    return digest.hexdigest()
