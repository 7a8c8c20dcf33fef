"""Ids and labels of many samples: what they take in memory, and that they are plain arrays."""

import gc
import pickle
import tempfile
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankwise
from rankwise import LowRankAugmenter, RandomLowRank
from rankwise.data import ids as ids_module
from rankwise.data import storage
from rankwise.data.ids import numbered, repeated
from rankwise.data.shards import ShardWriter
from rankwise.lowrank import _copies as copies_module
from rankwise.lowrank import augmenter as augmenter_module

COLUMNS = ("labels", "source_ids", "image_ids")


def written(place, n):
    """Shards of small images, under ids such as a set of some size has."""
    rng = np.random.default_rng(0)
    writer = ShardWriter(str(place), "many", ["even", "odd"])
    files = [writer.write("train", 0, 1, rng.integers(0, 256, (n, 4, 4), dtype=np.uint8))]
    writer.add("train", files, np.arange(n) % 2, np.char.add("scan-", np.arange(n).astype(str)))
    writer.finish()
    return str(place)


@pytest.fixture
def mapped(monkeypatch, tmp_path):
    """Columns of more than 16 KiB are mapped, from files in this folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(storage, "COLUMN_LIMIT", 2**14)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def taken(run):
    """What a call gives, and the bytes that this process allocated and keeps for it, or had."""
    gc.collect()
    tracemalloc.start()
    try:
        found = run()
        gc.collect()
        return found, *tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_bytes_a_row_of_shards_and_of_their_copies(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(copies_module, "_BLOCK_BYTES", 2**14)
    monkeypatch.setattr(augmenter_module, "_MEMORY", 0)
    augmenter = LowRankAugmenter(RandomLowRank(p=0.2, seed=1))
    places = {n: written(tmp_path / str(n), n) for n in (20_000, 60_000)}
    images = rankwise.load_images(places[20_000])
    augmenter.augment(images.subset(np.arange(100)))  # what is imported counts once
    held, peaks = {}, {}
    for n, place in places.items():
        images, *loading = taken(lambda place=place: rankwise.load_images(place))
        _, *copying = taken(lambda images=images: augmenter.augment(images))
        held[n], peaks[n] = np.transpose([loading, copying])
    kept, most = ((found[60_000] - found[20_000]) / 40_000 for found in (held, peaks))
    assert (kept < [4, 8]).all()  # numbers of rows; the log of a fifth of them
    assert (most < [24, 24]).all()


def test_columns_are_plain_arrays_whose_files_go_with_them(mapped, tmp_path):
    place = written(tmp_path / "set", 12_000)
    images = rankwise.load_images(place, "all")
    again = pickle.loads(pickle.dumps(images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "COLUMN_LIMIT", 2**30)
        held = rankwise.load_images(place, "all")
    for name in COLUMNS:
        values = getattr(images, name)
        assert type(values) is np.ndarray
        assert isinstance(values.base, np.memmap)
        for other in (again, held):
            np.testing.assert_array_equal(values, getattr(other, name))
    some = images.subset(np.arange(9_000)[::-1])
    assert isinstance(some.source_ids.base, np.memmap)
    assert some.source_ids[0] == "scan-8999"
    last = some.source_ids[-1:]
    del images, some, values
    gc.collect()
    assert last.tolist() == ["scan-0"]
    del last
    gc.collect()
    assert not list(mapped.iterdir())


def test_without_room_for_a_file_columns_are_in_memory(mapped, monkeypatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: SimpleNamespace(free=11))
    values = numbered(10_000)
    assert values.base is None
    assert values[[0, 9, 10, -1]].tolist() == ["0", "9", "10", "9999"]


@given(st.lists(st.text(st.sampled_from("ab"), max_size=3), max_size=12), st.booleans())
def test_repeated_ids_are_those_that_numpy_counts_twice(names, collide):
    ids = np.array(names, dtype=str)
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            patch.setattr(ids_module, "_hashes", lambda ids: np.zeros(len(ids), np.int64))
        rows = repeated(ids)
    assert rows.tolist() == [row for row, name in enumerate(names) if names.count(name) > 1]
    codes = np.unique(ids, return_inverse=True)[1]
    np.testing.assert_array_equal(repeated(codes), rows)
