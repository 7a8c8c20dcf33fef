"""The shape of a sum: one for a number of leaves, whoever adds up which part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.cluster import Fold
from rankwise.cluster.tree import FAN, chunks, sum_of


def written(a, b):
    return f"({a}+{b})"


def oracle(leaves):
    """Row by row: eight leaves, eight of their sums, and so on; the rest from the right."""
    rest = []
    while len(leaves) >= FAN:
        whole = len(leaves) // FAN * FAN
        rest.append(leaves[whole:])
        sums = []
        for first in range(0, whole, FAN):
            total = leaves[first]
            for leaf in leaves[first + 1 : first + FAN]:
                total = written(total, leaf)
            sums.append(total)
        leaves = sums
    rest.append(leaves)
    total = None
    for row in rest:
        for_row = None
        for leaf in row:
            for_row = leaf if for_row is None else written(for_row, leaf)
        if for_row is not None:
            total = for_row if total is None else written(for_row, total)
    return total


@given(n=st.integers(1, 600), tasks=st.integers(1, 40))
def test_chunks_summed_elsewhere_have_the_shape_of_one_fold(n, tasks):
    leaves = [str(i) for i in range(n)]
    expected = oracle(leaves)
    assert sum_of(leaves, written) == expected
    fold = Fold(written)
    seen = []
    for numbers, level in chunks(n, tasks):
        fold.push(sum_of([leaves[i] for i in numbers], written), level)
        seen += list(numbers)
    assert fold.total() == expected
    assert seen == list(range(n))
    assert len(list(chunks(n, tasks))) >= min(n, tasks)


def test_sums_of_floats_have_one_value_and_few_partial_sums_are_kept():
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(1000)[::-1].clip(0, 12)
    fold = Fold(np.add)
    for value in values:
        fold.push(value)
        assert len(fold._levels) <= 4
    assert fold.total() == sum_of(values, np.add)


def test_nothing_has_no_sum():
    with pytest.raises(ValueError, match="nothing to sum up"):
        Fold(np.add).total()
