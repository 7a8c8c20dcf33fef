import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.data import check_no_shared_sources, hold_out_by_source, stratified_limit
from rankwise.errors import DataError

label_lists = st.lists(st.integers(0, 4), min_size=2, max_size=80)
seeds = st.integers(0, 2**31 - 1)


@given(label_lists, st.integers(1, 90), seeds)
def test_limit_keeps_the_proportions(labels, limit, seed):
    labels = np.array(labels)
    rows = stratified_limit(labels, limit, seed)
    assert len(rows) == min(limit, len(labels))
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, stratified_limit(labels, limit, seed))
    classes, counts = np.unique(labels, return_counts=True)
    chosen = np.array([(labels[rows] == c).sum() for c in classes])
    quota = len(rows) * counts / len(labels)
    if limit >= len(classes):
        assert (chosen >= 1).all()
    if (quota >= 1).all():
        assert (np.abs(chosen - quota) < 1).all()


def test_limit_depends_on_the_seed_alone():
    labels = np.arange(100) % 4
    assert not np.array_equal(stratified_limit(labels, 20, 1), stratified_limit(labels, 20, 2))


@pytest.mark.parametrize("limit", [0, -3, 2.5, True, "10"])
def test_limit_must_be_a_positive_number(limit):
    with pytest.raises(DataError, match=r"limit is .*; a positive number of images or None"):
        stratified_limit([0, 1], limit)


@given(label_lists, seeds)
def test_hold_out_of_single_samples(labels, seed):
    labels = np.array(labels)
    rest, held_out = hold_out_by_source(labels, np.arange(len(labels)), seed=seed)
    np.testing.assert_array_equal(np.sort(np.r_[rest, held_out]), np.arange(len(labels)))
    # Every class stays in the larger part, whatever its size.
    assert set(labels[rest]) == set(labels)
    classes, counts = np.unique(labels, return_counts=True)
    for value, count in zip(classes, counts, strict=True):
        assert abs((labels[held_out] == value).sum() - 0.2 * count) <= 1 + 0.2 * len(classes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=4, max_size=80), seeds)
def test_hold_out_never_splits_a_source(samples, seed):
    labels, sources = np.array(samples).T
    if len(np.unique(sources)) < 2:
        return
    rest, held_out = hold_out_by_source(labels, sources, seed=seed)
    assert len(rest)
    assert len(held_out) or len(np.unique(sources)) == len(sources)
    np.testing.assert_array_equal(np.sort(np.r_[rest, held_out]), np.arange(len(labels)))
    check_no_shared_sources(sources[rest], sources[held_out])
    again = hold_out_by_source(labels, sources, seed=seed)
    np.testing.assert_array_equal(held_out, again[1])


def test_hold_out_by_source_is_near_a_fifth_of_each_class():
    random = np.random.default_rng(0)
    sources = random.integers(0, 60, 1200)
    labels = (random.random(1200) < 0.3).astype(int)
    _, held_out = hold_out_by_source(labels, sources, seed=3)
    for value in (0, 1):
        share = (labels[held_out] == value).sum() / (labels == value).sum()
        assert 0.16 < share < 0.24


def test_hold_out_refuses_what_it_cannot_do():
    with pytest.raises(DataError, match="All 3 samples have one source id"):
        hold_out_by_source([0, 1, 0], ["x", "x", "x"])
    with pytest.raises(DataError, match="3 labels and 2 source ids"):
        hold_out_by_source([0, 1, 0], ["x", "y"])
    with pytest.raises(DataError, match=r"fraction is 0\.9; a share above 0 and at most 0.5"):
        hold_out_by_source([0, 1], ["x", "y"], fraction=0.9)


def test_shared_sources_are_named():
    check_no_shared_sources(["a", "a"], ["b"], ["c", "d"])
    with pytest.raises(DataError, match=r"Parts 1 and 3 of a split share 1 source id.*'a'"):
        check_no_shared_sources(["a", "b"], ["c"], ["d", "a"])
