"""Folders as people have them: what is a part, what a class, what neither, and what is told."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankwise.data import load_images
from rankwise.data.load import read_image
from rankwise.data.parts import part_of
from rankwise.data.source import Source
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
        ("entrenamiento", "prueba", "test"),
        ("Entra\u00eenement", "validation", "validation"),
        ("Trainingsdaten", "Testdaten", "test"),
        ("\u8bad\u7ec3\u96c6", "\u6d4b\u8bd5\u96c6", "test"),
        ("Training", "PrivateTest", "test"),
        ("Training", "PublicTest", "validation"),
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
        (["images"], r"2 images in the folders images, and no label for them; a folder of images"),
        (["images", "masks"], r"holds the folders images, masks, whose names say what their files"),
        (
            ["train_a", "train_b", "test_a"],
            r"holds test_a, train_a, train_b: whether they are part",
        ),
        (["fold1/a", "fold1/b", "fold2/a", "fold2/b"], r"fold1, fold2 of .* all hold the folders "),
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
        (["train/a", "train/b", "val/images"], "left out: the folder val (2 images, in no class"),
        (["a/x", "a/y", "b/z"], "those inside, such as a/x, count as part of theirs"),
        (["a/x", "a/y", "b/x", "b/y"], "a, b of "),
    ],
)
def test_what_is_left_out_is_told(plant, places, note):
    loaded = Source(plant(*places)).read("all")
    assert set(loaded.class_names) == {"a", "b"}
    assert any(note in line for line in loaded.notes), loaded.notes


def test_only_a_validation_part(plant):
    source = Source(plant("val/a", "val/b"))
    with pytest.raises(DataError, match=r"has no training part, only validation \(val\); name the"):
        source.read("train")
    assert source.read("validation").class_counts == AB


def test_one_image_of_each_class_cannot_be_held_out(plant):
    source = Source(plant("a", "b", "c", n=1))
    with pytest.raises(
        DataError, match=r"one image of each class \(3 in all\), so none can be held"
    ):
        source.read("train")


def test_classes_that_differ_in_capitals_are_told(plant):
    (note,) = Source(plant("Cat", "cat", "A", "a")).read("all").notes
    assert note.startswith("'Cat' and 'cat' differ in capitals only")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("data.zip", "unpack it, and name the folder"),
        ("x.npy", r"save its images, \(n, height, width\) or"),
        ("fer.csv", r"fer\.csv holds pixels by its looks: save its images"),
        ("d.jsonl", "save it as a CSV file of file and label"),
        ("data_batch_1", r"save its images, \(n, height, width\) or"),
        ("train-images-idx3-ubyte", "it is one file of several; name its folder"),
        ("a.png", "it is one image; name the folder that holds its set"),
    ],
)
def test_files_of_other_kinds_and_what_to_do_with_them(tmp_path, name, remedy):
    file = tmp_path / name
    text = "emotion,pixels,Usage\n" + f"0,{' '.join('7' * 64)},Training\n" * 3
    file.write_bytes(b"\x80\x03" if name == "data_batch_1" else text.encode())
    with pytest.raises(DataError, match=remedy):
        Source(file)
    if "one" not in remedy:
        with pytest.raises(DataError, match=f"holds no image, parquet or IDX file; .*{remedy}"):
            Source(tmp_path)


def test_files_beside_the_classes_are_told(plant):
    root = plant("a", "b")
    for name in ("classes.json", "README.txt", "LICENSE", "Thumbs.db"):
        (root / name).write_text("x")
    assert Source(root).read("all").notes == ("not read: classes.json",)


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


def test_links_in_a_circle_lead_nowhere(plant):
    root = plant("a", "b")
    (root / "a" / "self").symlink_to("self")
    (root / "b" / "x.png").symlink_to("y.png")
    (root / "b" / "y.png").symlink_to("x.png")
    with pytest.raises(
        DataError, match=r"a/self: its link leads nowhere \(self isn't there\) \(and 2"
    ):
        Source(root).read("all")
    loaded = Source(root).read("all", on_error="skip")
    assert loaded.class_counts == {"a": 2, "b": 2}
    assert len(loaded.skipped) == 3


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


def test_parts_that_hold_the_same_folders_are_of_sets_not_of_classes(make, tmp_path):
    for fold in ("fold1", "fold2"):
        for part in ("train", "test"):
            make.folder(tmp_path / fold / part, make.pixels(6), make.labels(6))
    with pytest.raises(DataError, match="whether fold1 is a class or a set of its own can't be"):
        load_images(tmp_path)
    assert len(load_images(tmp_path / "fold1", "test")) == 6
