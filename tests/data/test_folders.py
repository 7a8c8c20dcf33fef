"""Folders as people have them: what is a part, what a class, what neither, and what is told."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankwise.data.load import Source, read_image
from rankwise.data.parts import part_of
from rankwise.errors import DataError


@pytest.fixture
def plant(tmp_path, make):
    """Write images under the paths given, as ``train/a/`` for two of them; the folder's path."""

    def write(*places, n=2):
        count = 0
        for place in places:
            for i in range(n):
                file = tmp_path / place / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(make.encode(make.pixels(1, seed=count)[0]))
                count += 1
        return tmp_path

    return write


def parts_of(root):
    """Images of each part and class."""
    source = Source(root)
    return {
        split: {name: n for name, n in source.read(split).class_counts.items() if n}
        for split in source.reader.splits
        if split != "train" or source.test_part
    } or source.read("all").class_counts


AB = {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("train", "other", "part"),
    [
        ("train", "test", "test"),
        ("TRAIN", "Test", "test"),
        ("training", "testing", "test"),
        ("Training_Set", "Test_Set", "test"),
        ("seg_train", "seg_test", "test"),
        ("TrainImages", "TestImages", "test"),
        ("train2017", "val2017", "validation"),
        ("train", "valid", "validation"),
        ("train_data", "dev_data", "validation"),
        ("trainval", "test", "test"),
        ("train", "hold-out", "test"),
        ("my pets - train", "my pets - eval", "test"),
        ("data/train", "data/test", "test"),
        ("a folder/more/train", "a folder/more/test", "test"),
        ("train/train", "test/test", "test"),
    ],
)
def test_parts_in_every_usual_spelling(plant, train, other, part):
    root = plant(f"{train}/a", f"{train}/b", f"{other}/a", f"{other}/b")
    assert parts_of(root) == {"train": AB, part: AB}
    assert Source(root).test_part == part
    for name in (part, Path(other).parts[0 if "/" not in train else -1], "test"):
        assert len(Source(root).read(name)) == 4


@pytest.mark.parametrize("name", ["testimony", "invalid", "devil", "training ground", "bus", "1"])
def test_names_of_no_part(name):
    assert part_of(name) is None or part_of(name).rest


def test_three_parts_and_what_each_name_gives(plant):
    root = plant(*(f"{part}/{c}" for part in ("train", "Val", "test") for c in "ab"))
    source = Source(root)
    assert source.reader.splits == ("train", "validation", "test")
    for name in ("val", "Val", "validation", "valid", "dev"):
        assert source.read(name).source_ids[0] == "validation/Val/a/0.png"
    assert len(source.read("all")) == 12


def test_parts_inside_class_folders(plant):
    root = plant("a/train", "a/test", "b/train", "b/test")
    assert parts_of(root) == {"train": AB, "test": AB}


@pytest.mark.parametrize(
    ("places", "classes"),
    [
        (["train", "bus"], {"train": 2, "bus": 2}),
        (["test", "control"], {"test": 2, "control": 2}),
        (["valid", "invalid"], {"valid": 2, "invalid": 2}),
        (["set/a", "set/b"], AB),
        (["a/deep/er", "b"], AB),
        (["a", "b", "__MACOSX/a", "@eaDir", ".cache/x", ".thumbnails"], AB),
        (["Cat", "cat"], {"Cat": 2, "cat": 2}),
    ],
)
def test_classes(plant, places, classes):
    assert parts_of(plant(*places)) == classes


def test_classes_called_like_parts_inside_a_part(plant):
    root = plant("train/test", "train/cat", "test/test", "test/cat")
    assert parts_of(root) == {"train": {"cat": 2, "test": 2}, "test": {"cat": 2, "test": 2}}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["train", "test"], r"4 images in the folders test, train, and no label for them"),
        (["test", "val"], r"4 images in the folders test, val, and no label for them"),
        (["train/a", "train/b", "c/a", "c/b"], r"holds train beside c: whether it is a part of a"),
        (["train", "val", "bus"], r"holds train, val beside bus: whether they are parts of a set"),
        (["train/a", "train/b", "val/a", "valid/a"], r"holds val, valid, which are all names of a"),
        (["x_train/a", "y_train/a"], r"holds x_train, y_train, which are all names of a train pa"),
        (["train", "test/a", "test/b"], r"train holds images, and test beside it folders: which"),
        (["a/train", "a/test", "b/train", "b/test", "c"], r"a/test, and others without, such as c"),
        (["a", "b", ".net"], r"\.net holds images, and its name begins with a dot"),
        (["a"], r"has images of one class only \('a'\)"),
        (["."], r"2 images in the folder itself, and no label for them; a folder of images for"),
        (["caf\u00e9", "cafe\u0301"], r"'cafe\\u0301' and 'caf\\xe9'; rename one"),
        (["train/caf\u00e9", "train/b", "test/cafe\u0301", "test/b"], r"in their Unicode form"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(plant, places, message):
    with pytest.raises(DataError, match=message):
        Source(plant(*places)).read("all")


@pytest.mark.parametrize(
    ("places", "note"),
    [
        (["train/a", "train/b", "test/a", "test/b", "extra/a"], "left out: the folder extra (2 im"),
        (["train/a", "train/b", "pred"], "left out: the folder pred (2 images), no part of the"),
        (["train/a", "train/b", "test"], "left out: the folder test (2 images, in no class folde"),
        (["a", "b", "."], "left out: 0.png, 1.png in "),
    ],
)
def test_what_is_left_out_is_told(plant, places, note):
    loaded = Source(plant(*places)).read("all")
    assert set(loaded.class_names) == {"a", "b"}
    assert any(note in line for line in loaded.notes), loaded.notes


def test_files_are_told_by_content(plant, make):
    root = plant("a", "b", n=4)
    for old, new in (("0.png", "noending"), ("1.png", "photo.JPG"), ("2.png", "x.dat")):
        (root / "a" / old).rename(root / "a" / new)
    (root / "a" / "notes.md").write_text("x")
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "a" / "._3.png").write_bytes(b"\0\5\x16\7")
    (root / "b" / "table.json").write_text("{}")
    loaded = Source(root).read("all")
    assert loaded.class_counts == {"a": 4, "b": 4}
    assert loaded.notes == (
        "left out, as no images or hidden: a/notes.md",
        "left out, as no images or hidden: b/table.json",
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"text", "it isn't an image, or its beginning is damaged"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "it is of the kind HEIC, which isn't read; save it as"),
        (b"<svg xmlns='x'/>", "it is of the kind SVG, which isn't read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "of the kind EPS"),
    ],
)
def test_a_file_with_the_ending_of_an_image_is_never_passed_over(plant, data, reason):
    root = plant("a", "b")
    (root / "a" / "x.png").write_bytes(data)
    with pytest.raises(DataError, match=rf"a/x\.png: .*{reason}"):
        Source(root).read("all")
    loaded = Source(root).read("all", on_error="skip")
    assert (len(loaded), len(loaded.skipped)) == (4, 1)
    with pytest.raises(DataError, match=rf"x\.png can't be used: .*{reason}"):
        read_image(root / "a" / "x.png", image_shape=(4, 4))


def test_links(plant, tmp_path_factory):
    root, elsewhere = plant("a", "b"), tmp_path_factory.mktemp("elsewhere")
    for i in range(3):
        Image.fromarray(np.full((6, 5), i, np.uint8)).save(elsewhere / f"{i}.png")
    (root / "a" / "more").symlink_to(elsewhere)
    (root / "b" / "loop").symlink_to(root)
    loaded = Source(root).read("all")
    assert loaded.class_counts == {"a": 5, "b": 2}
    assert loaded.notes == (f"{root}/b/loop is a link to {root}, which is read already",)
    for i in range(2):
        (root / "b" / f"dead{i}.jpg").symlink_to("/nowhere/x.jpg")
    with pytest.raises(
        DataError, match=r"dead0\.jpg: its link leads nowhere \(/nowhere/x\.jpg isn.*and 1 more"
    ):
        Source(root).read("all")
    assert len(Source(root).read("all", on_error="skip").skipped) == 2
    (root / "c").symlink_to(root / "gone")
    with pytest.raises(DataError, match="c is a link that leads nowhere"):
        Source(root / "c")


def test_a_linked_test_part_is_the_training_part(plant):
    root = plant("train/a", "train/b", n=8)
    (root / "test").symlink_to(root / "train")
    source = Source(root)
    assert source.test_part is None
    assert any("test is a link to" in note for note in source.reader.notes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are Unix")
def test_a_pipe_is_named_and_never_waited_for(plant):
    root = plant("a", "b")
    os.mkfifo(root / "a" / "p.png")
    os.mkfifo(root / "a" / "q")
    with pytest.raises(DataError, match=r"p\.png: it isn't a file but a pipe or a device"):
        Source(root).read("all")
    with pytest.raises(DataError, match=r"p\.png can't be used: it can't be read \(it isn't a fi"):
        read_image(root / "a" / "p.png", image_shape=(4, 4))


def test_folders_too_deep(plant, monkeypatch):
    monkeypatch.setattr("rankwise.data.tree.DEPTH", 3)
    assert len(Source(plant("a/b/c", "b")).read("all")) == 4
    with pytest.raises(DataError, match="a/b/c/d lies over 3 folders deep"):
        Source(plant("a/b/c/d"))
