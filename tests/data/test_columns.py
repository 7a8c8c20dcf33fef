"""Which columns of parquet hold images and labels, of whatever type; labels are kept exactly."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise.data import ImageSet
from rankwise.data.source import Source
from rankwise.errors import DataError

N = 12
LABELS = [i % 2 for i in range(N)]
CLASS = {"_type": "ClassLabel", "names": ["x", "y"]}
IMAGE = {"_type": "Image"}


@pytest.fixture
def blobs(make):
    return [make.encode(image) for image in make.pixels(N)]


@pytest.fixture
def structs(blobs):
    return [{"bytes": blob, "path": f"{i}.png"} for i, blob in enumerate(blobs)]


@pytest.fixture
def write(tmp_path):
    def write(columns, features=None, name="train.parquet"):
        table = pa.table(columns)
        if features is not None:
            text = features if isinstance(features, str) else {"info": {"features": features}}
            text = text if isinstance(text, str) else json.dumps(text)
            table = table.replace_schema_metadata({"huggingface": text})
        pq.write_table(table, tmp_path / name)
        return tmp_path

    return write


def read(root, **options):
    return Source(root, **options).read("all")


TEXT = ["ab"[i] for i in LABELS]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array(LABELS, pa.int8()), ("0", "1")),
        (pa.array([2**63 + i for i in LABELS], pa.uint64()), (str(2**63), str(2**63 + 1))),
        (pa.array([bool(i) for i in LABELS]), ("False", "True")),
        (pa.array([float(i) for i in LABELS]), ("0", "1")),
        (pa.array(TEXT, pa.large_string()), ("a", "b")),
        (pa.array(TEXT, pa.string_view()), ("a", "b")),
        (pa.array(TEXT).dictionary_encode(), ("a", "b")),
        (pa.array(LABELS).dictionary_encode(), ("0", "1")),
        (pa.array([(".net", "..")[i] for i in LABELS]), ("..", ".net")),
        (pa.array([("01", "1")[i] for i in LABELS]), ("01", "1")),
    ],
)
def test_labels_of_every_type_are_kept_exactly(write, structs, labels, names):
    found = read(write({"image": structs, "label": labels}))
    assert found.class_names == names
    value = labels.to_pylist()
    assert [found.class_names[i] for i in found.labels] == [
        str(int(v)) if isinstance(v, float) else str(v) for v in value
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            pa.array([i + 0.5 for i in LABELS]),
            r"Label 0\.5 of row 0 of column label, split 'train'",
        ),
        (pa.array([1e300 * i for i in LABELS]), r"Label 1e\+300 of row 1 .* isn't an integer"),
        (pa.array([[i] for i in LABELS]), r"no label column among label \(list<element: int64>\)"),
        (pa.array([None] * N), r"no label column among label \(null\); a column"),
        (pa.array(LABELS, pa.timestamp("s")), r"no label column among label \(timestamp"),
        (pa.array(["a\0" if i else "a" for i in LABELS]), "holds a zero character"),
        (pa.array(["caf\u00e9" if i else "cafe\u0301" for i in LABELS]), r"'cafe\\u0301' and 'caf"),
        (pa.array(["a " if i else "a" for i in LABELS]), "in their Unicode form or in blanks"),
    ],
)
def test_labels_that_cannot_be_kept_are_refused(write, structs, labels, message):
    with pytest.raises(DataError, match=message):
        read(write({"image": structs, "label": labels}))


@pytest.mark.parametrize("none", [None, float("nan"), ""])
def test_missing_labels(write, structs, none):
    values = [*("ab" if none == "" else [0.0, 1.0]) * 6]
    values[3] = none
    found = Source(write({"image": structs, "label": values})).read("all", on_error="skip")
    assert len(found) == 11
    assert found.n_classes == 2
    assert found.skipped[0].endswith("it has no label (null)")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([True, False], ("False", "True")),
        ([2**64, 1], ("1", str(2**64))),
        ([2**63, -1], ("-1", str(2**63))),
        ([1.0, 2], ("1", "2")),
        ([b"a", b"\xc3\xa9"], ("a", "\u00e9")),
        (np.array(["b", "a"], dtype=object), ("a", "b")),
        (np.array([2**63, 1], np.uint64), ("1", str(2**63))),
    ],
)
def test_labels_of_arrays(labels, names):
    images = np.zeros((2, 8, 8), np.uint8)
    assert ImageSet.from_arrays(images, labels).class_names == names


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, "a"], "are of the kinds int, str; integers alone or class names alone"),
        ([True, 2], "are of the kinds bool, int; integers alone"),
        ([1.5, 2], r"Label 1\.5 of row 0 .* isn't an integer"),
        ([1e300, 1], r"Label 1e\+300 of row 0"),
        (["a", "a\0"], "holds a zero character"),
        (["a", " "], "Label ' ' of row 1 of 'arrays' is empty"),
        ([b"a", b"\xff"], "are bytes that aren't UTF-8"),
        (np.eye(2), r"have shape \(2, 2\); one label per image.*of one-hot rows take the argmax"),
        ([[1], [1, 2]], "are no array"),
    ],
)
def test_labels_of_arrays_that_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        ImageSet.from_arrays(np.zeros((2, 8, 8), np.uint8), labels)


@pytest.mark.parametrize("kind", [pa.binary, pa.large_binary, pa.binary_view])
def test_bytes_of_every_type(write, blobs, make, kind):
    found = read(write({"image": pa.array(blobs, kind()), "label": LABELS}))
    np.testing.assert_array_equal(found.images, make.pixels(N))


def test_paths_that_are_all_null(write, blobs, make):
    root = write({"image": [{"bytes": b, "path": None} for b in blobs], "label": LABELS})
    assert (
        pq.read_schema(root / "train.parquet").field("image").type.field("path").type == pa.null()
    )
    np.testing.assert_array_equal(read(root).images, make.pixels(N))


def test_images_are_known_by_metadata_content_and_names(write, structs, blobs, make):
    black = [{"bytes": make.encode(np.zeros((6, 5), np.uint8)), "path": "m.png"}] * N
    sums = pa.array([bytes(32)] * N)
    for columns, features in (
        ({"mask": black, "image": structs, "label": LABELS}, None),
        ({"sha256": sums, "file": structs, "label": LABELS}, None),
        ({"sha256": sums, "Image": blobs, "label": LABELS}, None),
        ({"image": black, "scan": structs, "label": LABELS}, {"scan": IMAGE}),
    ):
        assert read(write(columns, features)).images.max() > 0


@pytest.mark.parametrize(
    ("names", "features", "message"),
    [
        (
            ("front", "back"),
            None,
            "has images in the columns front, back; name the one with image_c",
        ),
        (("image", "img"), None, "has images in the columns image, img"),
        (("p", "q"), {"p": IMAGE, "q": IMAGE}, "has images in the columns p, q"),
    ],
)
def test_images_that_cannot_be_told(write, structs, names, features, message):
    root = write({names[0]: structs, names[1]: structs, "label": LABELS}, features)
    with pytest.raises(DataError, match=message):
        read(root)
    assert len(read(root, image_column=names[1])) == N
    with pytest.raises(DataError, match=f"has no column 'x' for image_column; {names[0]}"):
        read(root, image_column="x")


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ({"label": LABELS, "class": TEXT}, None, "label, class"),
        ({"fine": LABELS, "coarse": LABELS}, {"fine": CLASS, "coarse": CLASS}, "fine, coarse"),
        ({"label": LABELS, "kind": LABELS}, {"kind": CLASS}, ("x", "y")),
        ({"label": LABELS, "kind": LABELS}, {"kind": CLASS, "label": CLASS}, ("x", "y")),
        ({"Label": TEXT, "note": TEXT}, None, ("a", "b")),
    ],
)
def test_label_columns(write, structs, columns, features, expected):
    root = write({"image": structs, **columns}, features)
    if isinstance(expected, tuple):
        assert read(root).class_names == expected
        return
    with pytest.raises(DataError, match=f"could hold labels in the columns {expected}; name the o"):
        read(root)
    for name in columns:
        assert len(read(root, label_column=name)) == N


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"image": IMAGE, "label": {"_type": "ClassLabel", "names": "ab"}},
            "that are no list of te",
        ),
        (
            {"image": IMAGE, "label": {"_type": "ClassLabel", "names": ["a", "a"]}},
            "two classes one",
        ),
        ({"image": [1], "label": None}, None),
        ("[" * 100_000 + "]" * 100_000, None),
        ("{", None),
        ('{"info": 3}', None),
    ],
)
def test_odd_metadata(write, structs, features, message):
    root = write({"image": structs, "label": LABELS}, features)
    if message is None:
        assert len(read(root)) == N
    else:
        with pytest.raises(DataError, match=message):
            read(root)


def test_files_of_one_split_that_differ(write, structs):
    write({"image": structs, "label": LABELS}, name="train-00000-of-00002.parquet")
    root = write({"image": structs, "label": TEXT}, name="train-00001-of-00002.parquet")
    with pytest.raises(DataError, match=r"00001-of-00002\.parquet has other columns or types than"):
        read(root)


def test_files_of_one_split_that_name_the_classes_otherwise(write, structs):
    columns = {"image": structs, "label": LABELS}
    for number, names in enumerate((None, ["x", "y"], ["x", "y"])):
        features = None if names is None else {"image": IMAGE, "label": CLASS | {"names": names}}
        root = write(columns, features, f"train-0000{number}-of-00003.parquet")
    assert len(read(root)) == 3 * N
    other = {"image": IMAGE, "label": CLASS | {"names": ["y", "x"]}}
    write(columns, other, "train-00002-of-00003.parquet")
    with pytest.raises(
        DataError,
        match=r"train-00002-of-00003\.parquet has other class names, or another order of them, "
        r"than train-00001-of-00003\.parquet; all files of a split need the same",
    ):
        Source(root)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["00000-of-00002-0123456789abcdef", "00001-of-00002-fedcba9876543210"], None),
        (["00001-of-00002", "00002-of-00002"], None),
        (["0123456789abcdef", "fedcba9876543210"], None),
        (
            ["00000-of-00002-0123456789abcdef", "00000-of-00002-fedcba9876543210"],
            r"has the parquet files train-00000-of-00002-0123456789abcdef\.parquet and "
            r"train-00000-of-00002-fedcba9876543210\.parquet, of one number; one file of each is",
        ),
        (["00000-of-00003", "00002-of-00003"], "has 2 of its 3 parquet files: number 1 is missing"),
        (["00000-of-00002", "00007-of-00002"], "has 2 of its 2 parquet files: number 1 is missing"),
        (["00000-of-00001", "00001-of-00001", "00002-of-00001"], "has 3 of its 1 parquet files"),
        (
            ["00000-of-00002", "00001-of-00003"],
            r"has the parquet files train-00000-of-00002\.parquet and train-00001-of-00003\.parque"
            "t, of two ways to cut it; the files of one are accepted",
        ),
        (
            ["00000-of-00001", "0123456789abcdef"],
            r"train-0123456789abcdef\.parquet, of two ways to cut it",
        ),
    ],
)
def test_each_shard_is_there_once(write, structs, names, message):
    for name in names:
        root = write({"image": structs, "label": LABELS}, None, f"train-{name}.parquet")
    if message is None:
        assert len(read(root)) == 2 * N
    else:
        with pytest.raises(DataError, match=rf"Split 'train' in .*{message}"):
            Source(root)


def test_names_of_splits(write, structs):
    write({"image": structs, "label": LABELS}, name="Training.parquet")
    root = write({"image": structs, "label": LABELS}, name="dev.parquet")
    source = Source(root)
    assert source.reader.own_names == {"train": "Training", "validation": "dev"}
    for name in ("dev", "val", "validation", "test"):
        assert len(source.read(name)) == N
