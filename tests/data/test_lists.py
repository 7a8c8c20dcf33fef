"""Lists of files, with labels or parts, as data sets of researchers have them."""

import pytest

from rankwise.data.source import Source
from rankwise.errors import DataError

NAMES = [f"{c}/{i}" for c in ("cat", "dog") for i in range(6)]


@pytest.fixture
def classes(tmp_path, make):
    """Class folders in ``images``."""
    for i, name in enumerate(NAMES):
        file = tmp_path / f"images/{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make.encode(make.pixels(1, seed=i)[0]))
    return tmp_path


@pytest.fixture
def flat(tmp_path, make):
    """Six images, some with blanks in their names."""
    for i in range(6):
        file = tmp_path / f"img/{'my cat ' * (i % 2)}{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make.encode(make.pixels(1, seed=i)[0]))
    return tmp_path


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("separator", [" ", "\t", ",", "  "])
@pytest.mark.parametrize("header", [None, "file{}label"])
def test_files_and_labels(flat, separator, header):
    named = sorted((flat / "img").iterdir(), key=lambda path: path.stem[-1])
    lines = [f"img/{path.name}{separator}{i % 3}" for i, path in enumerate(named)]
    write(flat / "labels.txt", ([header.format(separator)] if header else []) + lines)
    for source in (flat, flat / "labels.txt"):
        assert Source(source).read("all").class_counts == {"0": 2, "1": 2, "2": 2}


def test_a_list_for_each_part(flat):
    named = sorted((flat / "img").iterdir(), key=lambda path: path.stem[-1])
    lines = [f"{path.name} {i % 2}" for i, path in enumerate(named)]
    write(flat / "train.txt", lines[:4])
    write(flat / "test.txt", lines[4:])
    write(flat / "README.txt", ["Cats, and", "what they, like, eat", '"'])
    source = Source(flat)
    assert [len(source.read(part)) for part in ("train", "test")] == [4, 2]


def test_a_text_that_is_no_list(flat):
    write(flat / "notes.txt", ["cats, and", "what they, like, eat", "1 2 3"])
    message = "6 images in the folders img, and no label for them; no columns of files and labels"
    for source in (flat, flat / "notes.txt"):
        with pytest.raises(DataError, match=message):
            Source(source)
    write(flat / "notes.txt", [f"img/{i}.jpg {i}" for i in range(6)])
    with pytest.raises(
        DataError, match=r"notes\.txt names img/0\.jpg, which isn't among the images"
    ):
        Source(flat)


@pytest.mark.parametrize("folder", ["meta", "ImageSets/Main", "."])
def test_parts_of_class_folders(classes, folder):
    write(classes / folder / "train.txt", NAMES[:4] + NAMES[6:10])
    write(classes / folder / "test.txt", [NAMES[4], NAMES[10], "cat/99"])
    source = Source(classes)
    train, test = source.read("train"), source.read("test")
    assert (train.class_counts, test.class_counts) == ({"cat": 4, "dog": 4}, {"cat": 1, "dog": 1})
    assert any(line.startswith("parts: from ") and "train.txt" in line for line in train.notes)
    assert any("left out: 2 images in none of them, such as " in line for line in train.notes)
    assert any("left out: cat/99 (line 3 of " in line for line in train.notes)


def test_what_no_list_names_is_trained_on(classes):
    write(classes / "testing_list.txt", [f"{name}.png" for name in (NAMES[0], NAMES[6])])
    write(classes / "validation_list.txt", [f"{NAMES[1]}.png", f"{NAMES[7]}.png"])
    source = Source(classes)
    counts = [len(source.read(part)) for part in ("train", "validation", "test")]
    assert counts == [8, 2, 2]


def test_a_column_of_parts_beside_class_folders(classes):
    rows = [f"{n}.png,{n[:3]},{'test' if n[-1] > '3' else 'train'}" for n in NAMES]
    write(classes / "data.csv", ["filepaths,labels,data set", *rows])
    source = Source(classes)
    assert [len(source.read(part)) for part in ("train", "test")] == [8, 4]


def test_folders_that_are_parts_stay_so(tmp_path, make):
    names = [f"{part}/{c}/{n}" for part in ("train", "test") for c in "ab" for n in "12"]
    for i, name in enumerate(names):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make.encode(make.pixels(1, seed=i)[0]))
    write(tmp_path / "val.txt", ["train/a/1", "train/b/1"])
    source = Source(tmp_path)
    assert source.reader.splits == ("train", "test")
    assert "not read: val.txt" in source.read("train").notes


def test_a_file_in_two_lists_is_refused(classes):
    write(classes / "train.txt", NAMES[:8])
    write(classes / "test.txt", NAMES[7:])
    with pytest.raises(DataError, match=r"dog/1\.png is of the (test|train) part by line 1 of "):
        Source(classes)


def test_a_split_by_number(classes):
    write(classes / "images.txt", [f"{i} {name}.png" for i, name in enumerate(NAMES, start=1)])
    write(classes / "train_test_split.txt", [f"{i} {i % 3 > 0:d}" for i in range(1, 13)])
    write(classes / "image_class_labels.txt", [f"{i} {1 + (i > 6)}" for i in range(1, 13)])
    source = Source(classes)
    assert [len(source.read(part)) for part in ("train", "test")] == [8, 4]
    notes = source.read("train").notes
    assert f"parts: from {classes / 'train_test_split.txt'}" in notes
    assert "not read: image_class_labels.txt, images.txt" in notes


def test_labels_of_a_part_without_class_folders(classes, make):
    (classes / "images").rename(classes / "train")
    lines = []
    for i in range(4):
        file = classes / f"val/images/val_{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make.encode(make.pixels(1, seed=20 + i)[0]))
        lines.append(f"val_{i}.png\t{'cat' if i else 'dog'}\t0\t{i}\t62\t44")
    write(classes / "val/val_annotations.txt", lines)
    assert Source(classes).read("validation").class_counts == {"cat": 3, "dog": 1}
