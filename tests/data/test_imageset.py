import gc
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rankwise.data import ImageSet, imageset, storage
from rankwise.data.fingerprint import fingerprint
from rankwise.errors import DataError


def test_from_arrays_derives_the_classes(make):
    images = make.pixels(4)
    made = ImageSet.from_arrays(images, ["dog", "cat", "dog", "cat"], name="pets")
    assert made.class_names == ("cat", "dog")
    assert made.labels.tolist() == [1, 0, 1, 0]
    assert made.labels.dtype == np.int64
    assert made.image_shape == (6, 5)
    assert (len(made), made.n_classes, made.n_skipped, made.split) == (4, 2, 0, "all")
    assert made.source_ids.tolist() == ["0", "1", "2", "3"]
    assert made.images is images
    assert repr(made) == "<ImageSet 'pets' (all): 4 images of 6×5, 2 classes>"
    assert ImageSet.from_arrays(images, [7.0, 3.0, 7.0, 3.0]).class_names == ("3", "7")


def test_from_arrays_with_class_names(make):
    names = ("ant", "bee", "cow")
    by_position = ImageSet.from_arrays(make.pixels(3), [2, 0, 2], names, ["x", "y", "x"])
    by_name = ImageSet.from_arrays(make.pixels(3), ["cow", "ant", "cow"], names)
    assert by_position.labels.tolist() == by_name.labels.tolist() == [2, 0, 2]
    assert by_position.source_ids.tolist() == ["x", "y", "x"]
    assert by_position.fingerprint == by_name.fingerprint


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["nan", "None", "a"], ["nan", "None", "a"]),
        (np.array([1.5, 2, 3], np.float32), ["1.5", "2.0", "3.0"]),
        (pd.Series([7, 7, 8]), ["7", "7", "8"]),
    ],
)
def test_source_ids_are_text(make, ids, expected):
    made = ImageSet.from_arrays(make.pixels(3), [b"b", b"a", b"b"], source_ids=ids)
    assert made.source_ids.tolist() == expected
    assert made.class_names == ("a", "b")


def test_one_channel_is_grey(make):
    images = make.pixels(4)
    flat = ImageSet.from_arrays(images, [0, 1, 0, 1])
    assert ImageSet.from_arrays(images[..., None], [0, 1, 0, 1]).fingerprint == flat.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 6, 5))}, "The images of 'arrays' have type float64; uint8"),
        ({"images": np.zeros((4, 6), np.uint8)}, r"have shape \(4, 6\); \(n, height, width\)"),
        ({"labels": [0, 1, 0]}, "'arrays' has 4 images and 3 labels"),
        ({"labels": [0, 1, np.nan, 1]}, "Label nan of row 2 of 'arrays' isn't an integer"),
        ({"labels": [0, 1, 0.5, 1]}, "Label 0.5 of row 2 of 'arrays' isn't an integer"),
        ({"labels": [None, 1, 0, 1]}, "Label None of row 0 of 'arrays' is none"),
        ({"labels": [[0, 1]] * 4}, r"The labels of 'arrays' have shape \(4, 2\)"),
        ({"labels": [1, 1, 1, 1]}, r"images of one class only \('1'\)"),
        ({"class_names": ["x"]}, r"class names of 'arrays' are \['x'\]; two or more"),
        ({"class_names": ["x", "x"]}, "two or more different names"),
        (
            {"labels": [0, 1, 2, 5], "class_names": ["x", "y", "z"]},
            "Label 5 of row 3 of 'arrays' is out of range; 0 to 2 are accepted",
        ),
        (
            {"labels": ["x", "q", "x", "y"], "class_names": ["x", "y"]},
            "Label 'q' of row 1 of 'arrays' isn't a class; x, y are accepted",
        ),
        ({"source_ids": ["a"]}, r"source_ids of 'arrays' have shape \(1,\)"),
        (
            {"source_ids": ["a", None, None, "b"]},
            r"source id of row 1 of 'arrays' is missing \(None",
        ),
        (
            {"source_ids": ["a", "b", "c", np.nan]},
            r"source id of row 3 of .* is missing \(nan\); an",
        ),
        (
            {"source_ids": [1, 2, np.nan, np.nan]},
            r"source id of row 2 of 'arrays' is missing \(nan",
        ),
        ({"source_ids": np.array([1, np.nan, 2, 3])}, r"row 1 of 'arrays' is missing \(nan\)"),
        ({"source_ids": pd.array(["a", None, "b", "c"])}, r"row 1 of .* is missing \(<NA>\)"),
        (
            {"class_names": ["", "x"]},
            r"are \['', 'x'\]; two or more different names, none of them b",
        ),
        ({"class_names": ["x", " "]}, "none of them blank or with a zero character, are accepted"),
        (
            {"class_names": ["x", "y\0"]},
            "none of them blank or with a zero character, are accepted",
        ),
        (
            {"class_names": ["x", "x "]},
            "two classes that differ in their Unicode form or in blanks",
        ),
        ({"labels": np.array([b"", b"a", b"b", b"a"])}, "Label '' of row 0 of 'arrays' is empty"),
        ({"images": np.zeros((0, 6, 5), np.uint8), "labels": []}, "'arrays' has no images"),
    ],
)
def test_from_arrays_refuses(make, change, message):
    with pytest.raises(DataError, match=message):
        ImageSet.from_arrays(**({"images": make.pixels(4), "labels": [0, 1, 0, 1]} | change))


def test_subset_keeps_source_ids(make):
    whole = ImageSet.from_arrays(make.pixels(6), [0, 1, 2, 0, 1, 2], source_ids=list("abcdef"))
    part = whole.subset([4, -6, 4])
    np.testing.assert_array_equal(part.images, whole.images[[4, 0, 4]])
    assert part.labels.tolist() == [1, 0, 1]
    assert part.source_ids.tolist() == ["e", "a", "e"]
    assert part.class_names == whole.class_names
    assert part.fingerprint != whole.fingerprint
    assert whole.subset(np.arange(6)).fingerprint == whole.fingerprint
    assert whole.subset(whole.labels == 2).source_ids.tolist() == ["c", "f"]
    assert len(whole.subset([])) == 0


@pytest.mark.parametrize("indices", [[6], [-7], [0.5], [[0, 1]], [True, False]])
def test_subset_refuses_other_indices(make, indices):
    whole = ImageSet.from_arrays(make.pixels(6), [0, 1, 2, 0, 1, 2])
    with pytest.raises(DataError, match="indices must be"):
        whole.subset(indices)


def test_a_large_subset_is_memory_mapped(make, monkeypatch):
    whole = ImageSet.from_arrays(make.pixels(6), [0, 1, 2, 0, 1, 2])
    monkeypatch.setattr(imageset, "MEMORY_LIMIT", 10)
    part = whole.subset([5, 3])
    assert isinstance(part.images, np.memmap)
    np.testing.assert_array_equal(part.images, whole.images[[5, 3]])


def test_fingerprint_sees_pixels_labels_shape_and_names(make):
    images, labels = make.pixels(4, 6, 6), np.array([0, 1, 0, 1])
    base = fingerprint(images, labels, ("a", "b"))
    other = images.copy()
    other[3, 5, 5] ^= 1
    variants = [
        fingerprint(other, labels, ("a", "b")),
        fingerprint(images.reshape(4, 4, 9), labels, ("a", "b")),
        fingerprint(images, 1 - labels, ("a", "b")),
        fingerprint(images, labels, ("a", "c")),
    ]
    assert len({base, *variants}) == 5
    assert fingerprint(np.asfortranarray(images), labels.astype(np.int32), ["a", "b"]) == base


def test_mapped_file_goes_with_the_array():
    array = storage.allocate((4, 3), memory_limit=5)
    path = Path(array.filename)
    array[:] = 7
    view = array[1:]
    del array
    gc.collect()
    assert path.exists()
    assert pickle.loads(pickle.dumps(view)).tolist() == [[7] * 3] * 3
    del view
    gc.collect()
    assert not path.exists()


def test_full_disk_is_said_before(monkeypatch):
    room = SimpleNamespace(free=11)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: room)
    with pytest.raises(DataError, match=r"decoded images take 0 MiB and .* has less room"):
        storage.allocate((4, 3), memory_limit=5)
