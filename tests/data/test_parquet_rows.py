"""Parquet files at an address: their images by reference, the same bits as read from a folder."""

import io
import pickle
import shutil

import fsspec
import numpy as np
import pytest
from PIL import Image

import rankwise
from rankwise import QuadraticClassifier
from rankwise.data import parquet_rows
from rankwise.data.decode import Layout
from rankwise.data.parquet_rows import ParquetRows
from rankwise.data.sharding import shard
from rankwise.data.shards import Shards
from rankwise.data.source import Source
from rankwise.errors import DataError, MissingDependencyError

SIZES = {"train-00000-of-00002": 24, "train-00001-of-00002": 16, "test-00000-of-00001": 12}


def written(make, folder, channels=None):
    """Two files of training images in row groups of five, and one of test images."""
    for seed, (name, n) in enumerate(SIZES.items()):
        images = make.pixels(n, channels=channels, seed=seed)
        blobs = [make.encode(image) for image in images]
        names = [f"{name}-{i}.png" for i in range(n)]
        make.parquet(folder / f"{name}.parquet", blobs, make.labels(n), paths=names)
    return folder


def put(folder, address):
    """Copy a folder into a store."""
    fsspec.filesystem("memory").put(str(folder), address, recursive=True)
    return address


@pytest.fixture(scope="module")
def places(make, tmp_path_factory):
    """One set in a folder, at its address, and in two stores: in the folder, and in its `data`."""
    folder = written(make, tmp_path_factory.mktemp("parquet") / "set")
    return {
        "folder": folder,
        "file": f"file://{folder}",
        "store": put(folder, "memory://parquet/set"),
        "data": put(folder, "memory://parquet/inner/data").removesuffix("/data"),
    }


@pytest.fixture
def decodings(monkeypatch):
    """Files and first rows of what is decoded from here on, in a process that has kept nothing."""
    seen, real = [], parquet_rows.decoded

    def counted(file, column, rows, *rest):
        seen.append((file.address, int(rows[0])))
        return real(file, column, rows, *rest)

    monkeypatch.setattr(parquet_rows, "decoded", counted)
    monkeypatch.setattr(parquet_rows, "_kept", parquet_rows._Kept())
    return seen


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize("place", ["file", "store", "data"])
def test_a_set_at_an_address_is_the_one_in_its_folder(places, place, split):
    local, there = (rankwise.load_images(places[p], split) for p in ("folder", place))
    assert isinstance(there.images, ParquetRows)
    assert not isinstance(local.images, ParquetRows)
    np.testing.assert_array_equal(there.images, local.images)
    for name in ("labels", "source_ids", "ids", "class_names", "image_shape", "bits", "notes"):
        np.testing.assert_array_equal(getattr(there, name), getattr(local, name))
    assert there.fingerprint == rankwise.load_images(places["store"], split).fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"size": 4},
        {"channels": 3},
        {"size": (3, 7), "channels": 3},
        {"limit": 9, "seed": 3},
    ],
    ids=str,
)
def test_options_are_those_of_a_folder(places, options):
    local, there = (rankwise.load_images(places[p], **options) for p in ("folder", "store"))
    assert isinstance(there.images, ParquetRows)
    np.testing.assert_array_equal(there.images, local.images)
    np.testing.assert_array_equal(there.labels, local.labels)
    assert there.fingerprint != rankwise.load_images(places["store"]).fingerprint


def test_one_file_is_a_training_part_and_a_part_is_held_out(places, make):
    name = "train-00000-of-00002.parquet"
    for split in ("train", "test"):
        local = rankwise.load_images(places["folder"] / name, split)
        for place in ("file", "store"):
            there = rankwise.load_images(f"{places[place]}/{name}", split)
            assert isinstance(there.images, ParquetRows)
            np.testing.assert_array_equal(there.images, local.images)
            assert there.name == local.name


def test_what_travels_holds_no_pixel(make, tmp_path, decodings):
    images = make.pixels(5000, 4, 4)
    make.parquet(
        tmp_path / "train.parquet",
        [make.encode(image) for image in images],
        make.labels(5000),
        paths=[None] * 5000,
        row_group_size=100,
    )
    found = rankwise.load_images(f"file://{tmp_path}", "all", size=4, channels=1)
    travels = pickle.dumps(found.images)
    assert len(travels) < 2000
    np.testing.assert_array_equal(pickle.loads(travels)[[4999, 7, 0]], images[[4999, 7, 0]])


def test_a_row_group_is_decoded_once_when_it_is_asked_for(places, decodings):
    images = rankwise.load_images(places["store"], "train").images
    decodings.clear()  # loading looks at the brightness of the first images
    parquet_rows._kept = parquet_rows._Kept()
    first = f"{places['store']}/train-00000-of-00002.parquet"
    _ = images[[7, 6, 21, 7]], images[5:9], pickle.loads(pickle.dumps(images))[8]
    assert decodings == [(first, 5), (first, 20)]
    _ = images[:], images[:]
    assert len(decodings) == len(set(decodings)) == 5 + 4


def test_what_is_kept_is_bounded(places, decodings, monkeypatch):
    array = np.asarray(rankwise.load_images(places["folder"], "train").images)
    images = rankwise.load_images(places["store"], "train").images
    monkeypatch.setattr(parquet_rows, "KEPT_BYTES", 2 * 5 * 30)  # two groups of five images
    parquet_rows._kept = parquet_rows._Kept()
    decodings.clear()
    _ = images[0], images[5], images[0], images[10], images[0]
    assert [row for _, row in decodings] == [0, 5, 10]  # the one used longest ago has left
    _ = images[5]
    assert len(decodings) == 4
    monkeypatch.setattr(parquet_rows, "KEPT_BYTES", 100)  # no group fits: asked rows alone
    np.testing.assert_array_equal(images[[12, 11, 39, 12]], array[[12, 11, 39, 12]])
    with pytest.warns(UserWarning, match="each pass over them decodes all .* 'rankwise shard'"):
        rankwise.load_images(places["store"], "train")


def test_a_fit_gives_the_same_bits(places):
    local, there = (rankwise.load_images(places[p], "train") for p in ("folder", "store"))
    model = QuadraticClassifier(n_units=4, n_subnets=2, max_iter=1, n_jobs=1)
    one = model.fit(local, local.labels).outputs(local)
    np.testing.assert_array_equal(one, model.fit(there, there.labels).outputs(there))


def test_shards_of_an_address_are_its_images_and_come_first(places, tmp_path, decodings):
    report = shard(places["file"], str(tmp_path / "out"), shard_bytes=300, workers=1)
    assert report["classes"] == ["a", "b", "c"]
    for split in ("train", "test"):
        local = rankwise.load_images(places["folder"], split)
        shards = rankwise.load_images(f"file://{tmp_path}/out", split)
        assert isinstance(shards.images, Shards)
        assert shards.fingerprint == local.fingerprint
    for path in places["folder"].iterdir():
        shutil.copy(path, tmp_path / "out")
    assert isinstance(rankwise.load_images(f"file://{tmp_path}/out").images, Shards)
    assert not decodings


def test_rows_are_read_of_the_groups_that_hold_them(places, monkeypatch):
    opened, groups = [], []
    source = Source(places["store"])
    real = parquet_rows.ParquetFile.batches

    def counted(file, columns, rows):
        opened.append(file.address)
        for first, batch in real(file, columns, rows):
            groups.append(first)
            yield first, batch

    monkeypatch.setattr(parquet_rows.ParquetFile, "batches", counted)
    list(source.reader.read("train", np.array([6, 8, 22])))
    assert [address.rpartition("/")[2] for address in opened] == ["train-00000-of-00002.parquet"]
    assert groups == [5, 20]


def test_bad_images_are_named_when_they_are_decoded_or_skipped(make, tmp_path):
    blobs = [make.encode(image) for image in make.pixels(20)]
    blobs[7] = blobs[7][:40]
    path = make.parquet(tmp_path / "set" / "train.parquet", blobs, make.labels(20))
    place = put(tmp_path / "set", "memory://parquet/bad")
    message = rf"Row 7 of {place}/train\.parquet: it isn't an image, .*on_error='skip' \(--skip-bad"
    with pytest.raises(DataError, match=message):  # since the first ones are looked at
        rankwise.load_images(place, "all")
    images = Source(place).reader.refer(["train"], np.arange(20), Layout(6, 5, None), None)
    _ = images[np.delete(np.arange(20), 7)]  # its neighbours can be had
    with pytest.raises(DataError, match=message):
        _ = images[5:10]
    left = rankwise.load_images(place, "all", on_error="skip")
    local = rankwise.load_images(path, "all", on_error="skip")
    assert left.fingerprint == local.fingerprint
    assert left.n_skipped == 1


def test_sixteen_bits_are_those_that_the_whole_set_uses(make, tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (12, 6, 5)).astype(np.uint16)
    blobs = [make.encode(Image.fromarray(image)) for image in deep]
    make.parquet(tmp_path / "set" / "train.parquet", blobs, make.labels(12))
    place = put(tmp_path / "set", "memory://parquet/deep")
    with pytest.warns(UserWarning, match="use 12 of them"):
        local, there = (rankwise.load_images(p, "all") for p in (tmp_path / "set", place))
    np.testing.assert_array_equal(there.images, local.images)
    assert there.bits == local.bits == 12
    with pytest.raises(DataError, match=r"image of 16 bits, and how many .*leave one of them out"):
        rankwise.load_images(place, "all", size=4, channels=1)
    given = {"size": 4, "channels": 1, "bits": 12}
    local, there = (rankwise.load_images(p, "all", **given) for p in (tmp_path / "set", place))
    np.testing.assert_array_equal(there.images, local.images)


def test_a_file_that_has_changed_is_refused(make, tmp_path):
    written(make, tmp_path)
    images = rankwise.load_images(f"file://{tmp_path}", "test").images
    written(make, tmp_path, channels=3)
    other = rankwise.load_images(f"file://{tmp_path}", "test").images
    assert other.shape[1:] == (6, 5, 3)
    parquet_rows._opened.cache_clear()
    parquet_rows._kept = parquet_rows._Kept()
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet has changed since its set"):
        _ = images[0]
    np.testing.assert_array_equal(other, rankwise.load_images(tmp_path, "test").images)


def test_what_is_at_no_address_is_refused_in_one_sentence(places, make, tmp_path):
    accepted = "; at an address, a folder of the hub's parquet files, a parquet file, and shards"
    store = fsspec.filesystem("memory")
    store.pipe("/parquet/other/notes.txt", b"text")
    store.pipe("/parquet/other/mnist/train.parquet", b"PAR1")
    store.pipe("/parquet/short/train-00000-of-00002.parquet", b"PAR1")
    store.pipe("/parquet/damaged/train.parquet", b"PAR1 and no more")
    whole = (places["folder"] / "test-00000-of-00001.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-30])
    (tmp_path / "empty").mkdir()
    for source, message in (
        ("memory://parquet/nothing", f"parquet/nothing doesn't exist{accepted}"),
        ("memory://parquet/nothing.parquet", f"nothing.parquet doesn't exist{accepted}"),
        ("memory://parquet/other/notes.txt", f"notes.txt is a file of another kind{accepted}"),
        ("memory://parquet/other", "but the folders memory://parquet/other/mnist" + accepted),
        ("memory://parquet/short", "has 1 of its 2 parquet files"),
        ("memory://parquet/damaged", "damaged/train.parquet can't be read (Parquet magic bytes"),
        (f"file://{tmp_path}/cut.parquet", "cut.parquet can't be read ("),
        (f"file://{tmp_path}/empty", "empty holds neither parquet files nor shards.json"),
        (f"file://{tmp_path}/no", "other sources on this machine by their path"),
    ):
        with pytest.raises(DataError) as caught:
            rankwise.load_images(source)
        assert message in str(caught.value)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingDependencyError, match="nosuch://x can't be reached"):
        rankwise.load_images("nosuch://x")


def test_a_store_s_own_errors_are_one_sentence(places, monkeypatch):
    class RefusalError(Exception):
        pass

    def refused(*args, **kwargs):
        raise RefusalError("no credentials.\nsee the manual")

    images = rankwise.load_images(places["store"]).images
    parquet_rows._kept = parquet_rows._Kept()
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "open", refused)
    with pytest.raises(DataError, match=r"00002\.parquet can't be read \(no credentials\)\.$"):
        _ = images[0]
    monkeypatch.setattr(memory, "ls", refused)
    with pytest.raises(DataError, match=r"memory://x can't be read \(no credentials\)\.$"):
        rankwise.load_images("memory://x")


def test_bytes_without_a_struct_are_images_too(make, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = make.pixels(12, channels=3)
    blobs = [make.encode(image) for image in images]
    table = pa.table({"png": pa.array(blobs, pa.binary()), "label": list("abc" * 4)})
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=4)
    fsspec.filesystem("memory").pipe("/parquet/bytes.parquet", stream.getvalue())
    found = rankwise.load_images("memory://parquet/bytes.parquet", "all", channels=3)
    np.testing.assert_array_equal(found.images, images)
