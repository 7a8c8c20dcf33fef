"""Images by reference: the same images as their source's, read by rows, wherever they lie."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import rankwise
from cli_cases import class_folders
from rankwise import QuadraticClassifier, VarProHead
from rankwise.data.sharding import shard
from rankwise.data.shards import Shards, ShardWriter, open_shards
from rankwise.errors import DataError


@pytest.fixture(scope="module")
def digits_twice(tmp_path_factory):
    """Digits as they are, and their shards in a folder and in a store."""
    folder = tmp_path_factory.mktemp("shards") / "digits"
    for place in (str(folder), "memory://shards/digits"):
        shard("digits", place, shard_bytes=64 * 300, workers=1)
    return folder, rankwise.load_images("digits", "all")


@pytest.mark.parametrize("split", ["train", "test", "all"])
@pytest.mark.parametrize("place", ["folder", "store"])
def test_a_set_of_shards_is_its_source(digits_twice, place, split):
    where = str(digits_twice[0]) if place == "folder" else "memory://shards/digits"
    source, shards = (rankwise.load_images(s, split) for s in ("digits", where))
    assert isinstance(shards.images, Shards)
    np.testing.assert_array_equal(shards.images, source.images)
    for name in ("labels", "source_ids", "class_names", "fingerprint", "image_shape", "name"):
        np.testing.assert_array_equal(getattr(shards, name), getattr(source, name))
    assert len(pickle.dumps(shards.images)) < 6000  # addresses, and rows in two bytes each


@given(data=st.data())
@pytest.mark.parametrize("place", ["folder", "store"])
def test_rows_are_those_of_an_array(digits_twice, place, data):
    where = str(digits_twice[0]) if place == "folder" else "memory://shards/digits"
    array = digits_twice[1].images
    shards = rankwise.load_images(where, "all").images
    rows = st.integers(-len(array), len(array) - 1)
    chosen = np.array(data.draw(st.lists(rows, max_size=20)), dtype=np.int64)
    np.testing.assert_array_equal(shards[chosen], array[chosen])
    some = shards.chosen(chosen)
    np.testing.assert_array_equal(some, array[chosen])
    bounds = [data.draw(st.none() | rows) for _ in range(2)]
    np.testing.assert_array_equal(some[slice(*bounds)], array[chosen][slice(*bounds)])
    mask = np.arange(len(chosen)) % 2 == 0
    np.testing.assert_array_equal(some[mask], array[chosen][mask])
    if len(chosen):
        np.testing.assert_array_equal(some[-1], array[chosen][-1])
        np.testing.assert_array_equal(list(some), array[chosen])
    with pytest.raises(IndexError, match="go from 0 to"):
        _ = some[np.array([len(chosen)])]


def test_models_take_them_block_by_block(digits_twice):
    folder, source = digits_twice
    shards = rankwise.load_images(str(folder), "all")
    model = QuadraticClassifier(n_units=8, n_subnets=1, max_iter=1)
    one = model.fit(source, source.labels).outputs(source)
    other = model.fit(shards, source.labels, sample_weight=np.ones(len(source))).outputs(shards)
    np.testing.assert_array_equal(one, other)
    weights = (np.arange(len(source)) % 3).astype(float)
    one = model.fit(source, source.labels, weights).outputs(source)
    np.testing.assert_array_equal(one, model.fit(shards, source.labels, weights).outputs(shards))
    with pytest.raises(ValueError, match=r"shape \(8, 8\).*fitted on \(4, 4\)"):
        model.fit(source.images[:, :4, :4], source.labels).outputs(shards)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(shards, source.labels[:5])


def test_a_fit_on_shards_forgets_the_columns_of_a_table(digits_twice):
    pandas = pytest.importorskip("pandas")
    folder, source = digits_twice
    table = pandas.DataFrame(source.images[:60].reshape(60, 64)).add_prefix("p")
    model = QuadraticClassifier(n_units=8, n_subnets=1, max_iter=1).fit(table, source.labels[:60])
    assert len(model.feature_names_in_) == 64
    shards = rankwise.load_images(str(folder), "all")
    model.fit(shards, shards.labels)
    assert not hasattr(model, "feature_names_in_")


def test_bad_images_are_left_out_and_mixed_sizes_brought_together(tmp_path):
    class_folders(tmp_path / "images")
    Image.fromarray(np.zeros((9, 5), np.uint8)).save(tmp_path / "images" / "a" / "odd.png")
    (tmp_path / "images" / "b" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    report = shard(
        str(tmp_path / "images"), str(tmp_path / "out"), on_error="skip", workers=1, shard_bytes=512
    )
    assert "bad.png" in report["skipped"][0]
    options = {"split": "all", "on_error": "skip"}
    with pytest.warns(UserWarning, match="2 sizes"):
        source = rankwise.load_images(tmp_path / "images", **options)
    shards = rankwise.load_images(tmp_path / "out", "all")
    assert source.fingerprint == shards.fingerprint
    with pytest.raises(DataError, match=r"bad\.png"):
        shard(str(tmp_path / "images"), str(tmp_path / "other"), workers=1)
    with pytest.raises(DataError, match="isn't empty; a new folder"):
        shard("digits", str(tmp_path / "out"), workers=1)
    small = rankwise.load_images(tmp_path / "out", "all", size=4)
    assert small.images.shape[1:] == (4, 4)  # not by reference


def test_a_split_without_images_is_one(make, tmp_path):
    for part, n in (("train", 4), ("test", 2)):
        make.folder(tmp_path / "images" / part, make.pixels(n), make.labels(n, 2))
    for file in (tmp_path / "images/test").rglob("*.png"):
        file.write_bytes(b"\x89PNG\r\n\x1a\nno")
    shard(str(tmp_path / "images"), str(tmp_path / "out"), on_error="skip", workers=1)
    record = json.loads((tmp_path / "out/shards.json").read_text())
    assert record["splits"]["test"]["files"] == []
    for split in ("train", "all"):
        source = rankwise.load_images(tmp_path / "images", split, on_error="skip")
        assert rankwise.load_images(tmp_path / "out", split).fingerprint == source.fingerprint
    empty = rankwise.load_images(tmp_path / "out", "test").images
    assert empty[:].shape == empty.shape == (0, 6, 5)
    assert len(open_shards(str(tmp_path / "out"), "test")[1]) == 0


def test_damage_is_named(digits_twice, tmp_path):
    def copied():
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        shard("digits", str(place), shard_bytes=64 * 900, workers=1)
        return place

    place = copied()
    (place / "train-00001-of-00002.npy").unlink()
    with pytest.raises(DataError, match=r"train-00001-of-00002\.npy can't be read .*shard again"):
        _ = rankwise.load_images(place, "all").images[:]
    place = copied()
    np.save(place / "train-00001-of-00002.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"holds uint8 of shape \(3, 8, 8\), where uint8 of shape"):
        _ = rankwise.load_images(place, "all").images[:]
    for change, message in (
        ({"kind": "other 2"}, "is 'other 2', and 'rankwise shards 1' is read"),
        ({"splits": 3}, r"shards\.json is damaged"),
        ({"classes": ["a"]}, "out of range"),
    ):
        place = copied()
        record = json.loads((place / "shards.json").read_text()) | change
        (place / "shards.json").write_text(json.dumps(record))
        with pytest.raises(DataError, match=message):
            rankwise.load_images(place, "all")
    place = copied()
    np.save(place / "train-labels.npy", np.zeros(3, np.int8))
    with pytest.raises(DataError, match=r"train-labels\.npy and shards\.json are of different"):
        rankwise.load_images(place, "all")
    (place / "train-labels.npy").write_bytes(b"no")
    with pytest.raises(DataError, match=r"train-labels\.npy is damaged"):
        rankwise.load_images(place, "all")
    with pytest.raises(DataError, match=r"memory://nothing doesn't exist; at an address, .*shards"):
        rankwise.load_images("memory://nothing", "all")


def test_several_folders_are_one_set(tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    codes = np.arange(60) % 2
    features[:, 0] += codes
    for i, rows in enumerate((slice(0, 25), slice(25, 60))):
        writer = ShardWriter(str(tmp_path / str(i)), "f", ["no", "yes"])
        files = [writer.write("train", 0, 1, features[rows])]
        writer.add("train", files, codes[rows], codes[rows].astype(str))
        writer.finish()
    places = [str(tmp_path / "0"), str(tmp_path / "1")]
    rows, names = open_shards(places)
    np.testing.assert_array_equal(rows, features)
    np.testing.assert_array_equal(names, np.array(["no", "yes"])[codes])
    one = VarProHead().fit(features, names)
    np.testing.assert_array_equal(VarProHead().fit_shards(places).coef_, one.coef_)
    with pytest.raises(DataError, match="has no split 'test'; train are accepted"):
        VarProHead().fit_shards(places, split="test")
    with pytest.raises(DataError, match="no shards were given"):
        VarProHead().fit_shards([])
    writer = ShardWriter(str(tmp_path / "2"), "f", ["no", "yes"])
    writer.add("train", [writer.write("train", 0, 1, features[:, :3])], codes, codes.astype(str))
    writer.finish()
    with pytest.raises(DataError, match=r"holds float32 of shape \(3,\), and"):
        VarProHead().fit_shards([*places, str(tmp_path / "2")])


def test_a_record_that_is_cut_off_is_named(digits_twice, tmp_path):
    (tmp_path / "shards.json").write_text('{"kind": ')
    with pytest.raises(
        DataError, match=r"shards\.json is damaged \(it isn't JSON\); 'rankwise shard"
    ):
        rankwise.load_images(tmp_path)
