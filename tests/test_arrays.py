"""A mapped set stays on its disk: what a fit copies is bounded by blocks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise._arrays import Rows, chosen, each_once
from rankwise.estimators.options import classifier_of
from rankwise.training import augment


def test_a_view_is_the_copy_it_spares():
    array = np.random.default_rng(0).integers(0, 256, (20, 3, 4), dtype=np.uint8)
    rows = np.array([2, 3, 5, 7, 11, 13])
    view, copy = Rows(array, rows), array[rows]
    assert (len(view), view.shape, view.dtype) == (6, copy.shape, copy.dtype)
    for key in (slice(1, 4), slice(4, 100), np.array([5, 0, 0])):
        np.testing.assert_array_equal(view[key], copy[key])
    for images in (view, copy):
        some = chosen(images, np.array([4, 1]))
        np.testing.assert_array_equal(some[:2], copy[[4, 1]])


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "tiny", "n_units": 6},
        {"n_units": 2, "n_subnets": 1, "samples_per_subnet": 50, "refine": 1},
    ],
    ids=["convolutional", "refined"],
)
def test_a_fit_copies_blocks_of_a_mapped_set(tmp_path, monkeypatch, options):
    images = np.memmap(tmp_path / "images.u8", np.uint8, "w+", shape=(12_000, 16, 16))
    labels = np.arange(len(images)) % 2
    images[:] = np.random.default_rng(0).integers(0, 50, images.shape)
    images[labels == 1, :8] += 150
    images.flush()
    # The probe for mirror images has a fixed size, here a small one.
    monkeypatch.setattr(augment, "_PROBE_SAMPLES", 300)
    monkeypatch.setattr(augment, "_PROBE_UNITS", 2)
    model = classifier_of(**options, max_iter=1)
    model.fit(images[:400], labels[:400])  # imports and caches
    tracemalloc.start()
    try:
        model.fit(images, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes
    assert model.score(images[:500], labels[:500]) == 1.0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=30), st.randoms()
)
def test_each_different_sample_is_there_once_whatever_the_order(pairs, random):
    def found(pairs):
        values, labels = (np.array(v) for v in zip(*pairs, strict=True))
        images = np.stack([np.full((2, 2), v, dtype=np.float64) for v in values])
        first, of = each_once(images, labels, None)
        kept = list(zip(values[first].tolist(), labels[first].tolist(), strict=True))
        assert [kept[k] for k in of] == list(zip(values, labels, strict=True))
        assert len(set(kept)) == len(kept)
        return kept

    kept = found(pairs)
    shuffled = random.sample(pairs, len(pairs))
    assert found(shuffled) == kept
