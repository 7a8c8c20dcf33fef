"""What is special to one source: its layout, and its own ways of being damaged."""

import gzip
import os
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rankwise.data import hub, load_images
from rankwise.errors import DataError, DataWarning


@pytest.fixture
def blobs(make):
    return [make.encode(image) for image in make.pixels()]


class TestFolder:
    def test_nested_and_hidden_files(self, make, tmp_path):
        make.folder(tmp_path, make.pixels(4), [0, 1, 0, 1])
        make.folder(tmp_path / "a", make.pixels(1), [0], names=["patient"])
        for litter in (".DS_Store", "a/.hidden.png", "b/Thumbs.db", "readme.txt"):
            (tmp_path / litter).write_text("x")
        with pytest.warns(DataWarning, match=r"as no images or hidden: a/\.hidden\.png"):
            loaded = load_images(tmp_path, "all")
        assert np.bincount(loaded.labels).tolist() == [3, 2]
        assert "train/a/patient/s0_000.png" in loaded.source_ids
        assert loaded.name == tmp_path.name

    def test_foreign_file_is_reported_or_skipped(self, make, tmp_path):
        make.folder(tmp_path, make.pixels(4), [0, 1, 0, 1])
        (tmp_path / "a/notes.txt").write_text("x")
        with pytest.warns(DataWarning, match=r"left out, as no images or hidden: a/notes\.txt"):
            loaded = load_images(tmp_path, "all")
        assert (len(loaded), loaded.n_skipped) == (4, 0)

    def test_empty_class_folder(self, make, tmp_path):
        make.folder(tmp_path, make.pixels(4), [0, 1, 0, 1])
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"The class folder .*empty has no files; put its"):
            load_images(tmp_path)

    def test_splits(self, make, tmp_path):
        for split in ("train", "val", "test"):
            make.folder(tmp_path / split, make.pixels(6), make.labels(6))
        assert load_images(tmp_path, "validation").split == "validation"
        assert len(load_images(tmp_path, "all")) == 18


class TestParquet:
    def test_shards_and_data_folder(self, make, tmp_path, blobs):
        labels = make.labels()
        for shard, part in enumerate((slice(0, 7), slice(7, 12))):
            name = f"data/train-0000{shard}-of-00002.parquet"
            make.parquet(tmp_path / name, blobs[part], labels[part])
        loaded = load_images(tmp_path, "all", memory_limit=0)
        np.testing.assert_array_equal(loaded.images, make.pixels())
        few = load_images(tmp_path, "all", limit=5)
        assert np.isin(few.source_ids, loaded.source_ids).all()
        make.parquet(tmp_path / name, [b"x", *blobs[8:]], labels[7:])
        with pytest.raises(DataError, match=r"Row 0 of .*train-00001-of-00002\.parquet \(s0_000"):
            load_images(tmp_path, "all")
        (tmp_path / name).unlink()
        with pytest.raises(DataError, match=r"Split 'train' in .* has 1 of its 2 parquet files"):
            load_images(tmp_path)

    def test_other_splits(self, make, tmp_path, blobs):
        for split in ("train", "extra"):
            make.parquet(tmp_path / f"{split}.parquet", blobs, make.labels())
        assert len(load_images(tmp_path, "extra")) == 12
        with pytest.raises(DataError, match="has no split 'x'; train, extra, test, all are"):
            load_images(tmp_path, "x")

    @pytest.mark.parametrize("values", [[7, 3, 5] * 4, ["dog", "ant", "cat"] * 4])
    def test_labels_without_names(self, make, tmp_path, blobs, values):
        make.parquet(tmp_path / "train.parquet", blobs, values, label="labels", metadata=False)
        loaded = load_images(tmp_path, "all")
        assert loaded.class_names == tuple(str(value) for value in sorted(set(values)))
        assert [loaded.class_names[i] for i in loaded.labels] == [str(value) for value in values]

    def test_columns_found_by_type(self, make, tmp_path, blobs):
        options = {"column": "picture", "label": "fine_label"}
        make.parquet(tmp_path / "train.parquet", blobs, make.labels(), **options)
        assert load_images(tmp_path, "all").class_names == ("a", "b", "c")

    def test_plain_bytes(self, make, tmp_path, blobs):
        table = pa.table({"img": pa.array(blobs, pa.binary()), "label": make.labels()})
        pq.write_table(table, tmp_path / "train.parquet")
        loaded = load_images(tmp_path, "all")
        np.testing.assert_array_equal(loaded.images, make.pixels())
        assert loaded.source_ids[3] == "train/3"
        with pytest.raises(DataError, match="source_pattern needs images with file names"):
            load_images(tmp_path, source_pattern="x")

    def test_paths_in_place_of_bytes(self, make, tmp_path, blobs):
        for i, blob in enumerate(blobs):
            (tmp_path / f"{i}.png").write_bytes(blob)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": None, "path": f"{i}.png"} for i in range(12)]
        table = pa.table({"image": pa.array(rows, kind), "label": make.labels()})
        pq.write_table(table, tmp_path / "train.parquet")
        np.testing.assert_array_equal(load_images(tmp_path, "all").images, make.pixels())
        (tmp_path / "4.png").unlink()
        with pytest.raises(DataError, match=r"Row 4 of .*\(4\.png\): it holds no image \(null\)"):
            load_images(tmp_path, "all")

    def test_repeated_paths_are_not_ids(self, make, tmp_path, blobs):
        make.parquet(tmp_path / "train.parquet", blobs, make.labels(), paths=["x_1.png"] * 12)
        assert load_images(tmp_path, "all").source_ids[3] == "train/3"
        assert set(load_images(tmp_path, "all", source_pattern="x").source_ids) == {"x"}

    def test_null_image_and_null_labels(self, make, tmp_path, blobs):
        blobs[2] = None
        labels = make.labels().tolist()
        labels[4], labels[6] = None, -1
        make.parquet(tmp_path / "train.parquet", blobs, labels)
        with pytest.raises(DataError, match=r"Row 2 of .*train\.parquet: it holds no image \(nul"):
            load_images(tmp_path)
        loaded = load_images(tmp_path, "all", on_error="skip", source_pattern=r"s\d+")
        assert len(loaded) == 9
        assert [line.rpartition(": ")[2] for line in loaded.skipped] == [
            "it holds no image (null)",
            "it has no label (null)",
            "its label is hidden (-1)",
        ]

    def test_labels_out_of_range(self, make, tmp_path, blobs):
        make.parquet(tmp_path / "train.parquet", blobs, [0, 1, 3, *[2] * 9])
        with pytest.raises(DataError, match=r"Label 3 of row 2 of split 'train' of .* is out of"):
            load_images(tmp_path, on_error="skip")

    def test_no_such_columns(self, make, tmp_path, blobs):
        file = tmp_path / "train.parquet"
        pq.write_table(pa.table({"n": [1, 2], "text": ["x", "y"]}), file)
        with pytest.raises(DataError, match=r"no image column among n \(int64\), text \(string\)"):
            load_images(tmp_path)
        make.parquet(file, blobs, make.labels(), label="score", metadata=False)
        with pytest.raises(DataError, match=r"no label column among score \(int64\); a col"):
            load_images(tmp_path)

    def test_splits_that_disagree(self, make, tmp_path, blobs):
        make.parquet(tmp_path / "train.parquet", blobs, make.labels())
        make.parquet(tmp_path / "test.parquet", blobs, make.labels(), names=("b", "a", "c"))
        with pytest.raises(DataError, match="give different class names"):
            load_images(tmp_path)
        make.parquet(tmp_path / "test.parquet", blobs, make.labels(), column="img")
        with pytest.raises(DataError, match=r"Split 'test' of .* has the columns img, label; im"):
            load_images(tmp_path)

    def test_damaged_files(self, make, tmp_path, blobs):
        file = make.parquet(tmp_path / "train.parquet", blobs, make.labels())
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError, match=r"train\.parquet is damaged or truncated"):
            load_images(tmp_path)
        file.write_bytes(b"\xff" * 400 + data[400:])
        with pytest.raises(DataError, match=r"train\.parquet is damaged or truncated"):
            load_images(tmp_path)

    def test_empty_file(self, make, tmp_path):
        file = make.parquet(tmp_path / "train.parquet", [], [])
        with pytest.raises(DataError, match=r"label of .* has class names, and values of type nul"):
            load_images(tmp_path)
        table = pq.read_table(file)
        pq.write_table(table.set_column(1, "label", pa.array([], pa.int64())), file)
        with pytest.raises(DataError, match="has no usable image; at least two classes of images"):
            load_images(tmp_path)


class TestHub:
    def test_hub_and_local_parquet_agree(self, make, tmp_path, monkeypatch, blobs):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        folder = tmp_path / "set"
        for split in ("train", "test"):
            make.parquet(folder / f"{split}-00000-of-00001.parquet", blobs, make.labels())
        # `datasets` reads a local folder in the way it reads a downloaded one.
        reader = hub.hub_reader(str(folder))
        monkeypatch.setattr(hub, "hub_reader", lambda name, image, label: reader)
        remote, local = load_images("owner/set", limit=7), load_images(folder, limit=7)
        assert remote.fingerprint == local.fingerprint
        assert remote.source_ids.tolist() == local.source_ids.tolist()
        assert reader.splits == ("train", "test")
        assert reader.describe("test", 3) == f"Row 3 of {folder} (test) (s1_003.png)"

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (
                "RepositoryNotFoundError",
                r"The hub has no open data set 'owner/none', and no local f",
            ),
            (
                "OSError",
                r"The hub can't be reached for 'owner/none', and no .*; a local folder with",
            ),
        ],
    )
    def test_the_hub_is_asked_once_and_not_for_long(self, monkeypatch, error, message):
        import datasets
        import huggingface_hub

        def refuse(self, name, timeout):
            assert timeout <= 5
            if error == "OSError":
                raise OSError("Name or service not known")
            kind = huggingface_hub.errors.RepositoryNotFoundError
            raise kind.__new__(kind)

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        monkeypatch.setattr(datasets, "load_dataset", lambda name: pytest.fail("asked again"))
        with pytest.raises(DataError, match=message):
            load_images("owner/none")

    def test_a_mistyped_path_is_not_looked_up(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photos" / "cats").mkdir(parents=True)
        monkeypatch.setattr(hub, "hub_reader", lambda *_: pytest.fail("looked up"))
        with pytest.raises(
            DataError, match=r"photos/cat doesn't exist \(photos/cats does\), and is"
        ):
            load_images("photos/cat")

    def test_offline(self, tmp_path):
        code = "import rankwise; rankwise.load_images('owner/none')"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        last = run.stderr.strip().splitlines()[-1]
        assert "The hub can't be reached for 'owner/none', and no local folder has that" in last
        assert last.endswith("a local folder with the data set's parquet files works as well.")

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            ("DatasetNotFoundError", "The hub has no open data set 'owner/none'"),
            ("DatasetGenerationError", r"The hub's data set 'owner/none' can't be loaded \(why\)"),
        ],
    )
    def test_other_refusals(self, monkeypatch, error, message):
        import datasets

        monkeypatch.setattr(hub, "_check_reachable", lambda name: None)

        def refuse(name):
            raise getattr(datasets.exceptions, error)("why\nand more")

        monkeypatch.setattr(datasets, "load_dataset", refuse)
        with pytest.raises(DataError, match=message):
            load_images("owner/none")


class TestIdx:
    def test_colour_and_other_names(self, make, tmp_path):
        images = make.pixels(4, channels=3)
        (tmp_path / "train-images.idx4-ubyte").write_bytes(make.idx_bytes(images))
        (tmp_path / "train-labels.idx1-ubyte").write_bytes(make.idx_bytes(make.labels(4, 2)))
        np.testing.assert_array_equal(load_images(tmp_path, "all").images, images)

    def test_classes_over_both_splits(self, make, tmp_path):
        make.idx(tmp_path, make.pixels(4), [1, 2, 5, 1])
        make.idx(tmp_path, make.pixels(4), [5, 2, 5, 2], "t10k")
        test = load_images(tmp_path, "test")
        assert test.class_names == ("1", "2", "5")
        assert test.labels.tolist() == [2, 1, 2, 1]

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: data[:-5], "is truncated: its header promises 120 bytes, 115 follow"),
            (lambda data: data + b"1", "is too long: its header promises 120 bytes, 121 follow"),
            (lambda data: data[:9], "is truncated: it ends within its header"),
            (lambda data: b"PK" + data[2:], "isn't an IDX file: it starts with 504b0803"),
            (lambda data: b"", "isn't an IDX file: it starts with nothing"),
            (lambda data: b"\0\0\x0d" + data[3:], "holds values of IDX type 0x0d; 0x08"),
            (lambda data: b"\0\0\x08\x01\0\0\0\x04abcd", r"have shape \(4,\); \(n, height"),
        ],
    )
    def test_damaged_images(self, make, tmp_path, spoil, message):
        make.idx(tmp_path, make.pixels(4), [0, 1, 0, 1])
        file = tmp_path / "train-images-idx3-ubyte"
        file.write_bytes(spoil(file.read_bytes()))
        with pytest.raises(DataError, match=rf"train-images-idx3-ubyte {message}"):
            load_images(tmp_path)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (
                lambda data: gzip.compress(gzip.decompress(data)[:-5]),
                "ends before image 3 of the 4",
            ),
            (
                lambda data: gzip.compress(gzip.decompress(data) + b"1"),
                "is too long: bytes follow its 4",
            ),
            (lambda data: data[:-20], "is damaged or truncated"),
            (lambda data: data[:40] + b"\xff" * 30 + data[70:], "is damaged or truncated"),
            (lambda data: b"not gzipped", "is damaged or truncated"),
        ],
    )
    def test_damaged_gzip(self, make, tmp_path, spoil, message):
        make.idx(tmp_path, make.pixels(4), [0, 1, 0, 1], packed=True)
        file = tmp_path / "train-images-idx3-ubyte.gz"
        file.write_bytes(spoil(file.read_bytes()))
        with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz .*{message}"):
            load_images(tmp_path, "all")

    def test_labels_that_do_not_fit(self, make, tmp_path):
        make.idx(tmp_path, make.pixels(4), [0, 1, 0])
        with pytest.raises(DataError, match="with train-labels-idx1-ubyte has 4 images and 3 lab"):
            load_images(tmp_path)
        file = tmp_path / "train-labels-idx1-ubyte"
        file.write_bytes(make.idx_bytes(make.pixels(4)))
        with pytest.raises(DataError, match="has 3 dimensions; one, of labels, is accepted"):
            load_images(tmp_path)
        file.write_bytes(make.idx_bytes(make.labels(4))[:-1])
        with pytest.raises(DataError, match="train-labels-idx1-ubyte is truncated"):
            load_images(tmp_path)
        file.unlink()
        with pytest.raises(DataError, match="train-images-idx3-ubyte has no companion file with t"):
            load_images(tmp_path)

    def test_damaged_gzipped_labels(self, make, tmp_path):
        make.idx(tmp_path, make.pixels(4), [0, 1, 0, 1], packed=True)
        file = tmp_path / "train-labels-idx1-ubyte.gz"
        file.write_bytes(file.read_bytes()[:-6])
        with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is damaged or truncat"):
            load_images(tmp_path)


class TestNpz:
    @pytest.mark.parametrize(
        ("images", "labels"),
        [
            ("images", "labels"),
            ("X", "y"),
            ("x_train", "y_train"),
            ("train_images", "train_labels"),
        ],
    )
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_keys(self, make, tmp_path, images, labels, save):
        save(
            tmp_path / "x.npz", **{images: make.pixels(4)[..., None], labels: [[0], [1], [1], [0]]}
        )
        loaded = load_images(tmp_path / "x.npz", "all")
        np.testing.assert_array_equal(loaded.images, make.pixels(4))
        assert loaded.labels.tolist() == [0, 1, 1, 0]
        assert loaded.name == "x"

    def test_text_labels(self, make, tmp_path):
        np.savez(tmp_path / "x.npz", x=make.pixels(4), y=["b", "a", "b", "a"])
        assert load_images(tmp_path / "x.npz", "all").class_names == ("a", "b")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"a": [1], "b": [2]}, r"x\.npz holds a, b; images and labels, x and y, x_train"),
            ({"x": np.zeros((4, 3, 3)), "y": [0, 1] * 2}, "have type float64; uint8, 0 to 255"),
            ({"x": np.zeros((4, 9), np.uint8), "y": [0, 1] * 2}, r"have shape \(4, 9\)"),
            ({"x": np.zeros((4, 3, 3), np.uint8), "y": [0, 1]}, "has 4 images and 2 labels"),
            (
                {"x": np.zeros((4, 3, 3), np.uint8, order="F"), "y": [0, 1] * 2},
                "stored column by column; save it again after numpy.ascontiguousarray",
            ),
            (
                {"x": np.zeros((2, 3, 3), np.uint8), "y": np.array([0, None])},
                r"y\.npy of .*x\.npz holds Python objects, which aren't read since",
            ),
        ],
    )
    def test_wrong_contents(self, tmp_path, arrays, message):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(DataError, match=message):
            load_images(tmp_path / "x.npz")

    def test_damaged_archives(self, make, tmp_path):
        path = tmp_path / "x.npz"
        np.savez_compressed(path, images=make.pixels(40, 20, 20), labels=make.labels(40))
        data = path.read_bytes()
        for spoiled in (data[:-100], b"text", data[:3000] + b"\xff" * 400 + data[3400:]):
            path.write_bytes(spoiled)
            with pytest.raises(
                DataError,
                match=r"x\.npz is damaged or truncated",
            ):
                load_images(path)

    def test_members_that_are_no_arrays(self, make, tmp_path):
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"text, not an array")
            archive.writestr("y.npy", b"text, not an array")
        with pytest.raises(DataError, match=r"x\.npy of .*x\.npz isn't a numpy array"):
            load_images(path)

    def test_member_shorter_than_its_header(self, make, tmp_path):
        path = tmp_path / "x.npz"
        np.save(tmp_path / "x.npy", make.pixels(4))
        np.save(tmp_path / "y.npy", [0, 1, 0, 1])
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-3])
            archive.write(tmp_path / "y.npy", "y.npy")
        with pytest.raises(DataError, match=r"x\.npy of .*x\.npz is truncated"):
            load_images(path, "all")


def test_a_damaged_record_of_an_augmentation_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 2, 2), np.uint8), labels=[0, 1, 0, 1])
    for label in ("a", "b"):
        (tmp_path / "d" / label).mkdir(parents=True)
    (tmp_path / "d" / "augment.json").write_text("{}")
    for label in ("a", "b"):
        for i in range(3):
            Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / "d" / label / f"{i}.png")
    with pytest.raises(DataError, match=r"augment\.json is damaged: it lacks source_pattern: it"):
        load_images(tmp_path / "d")
