"""CSV files of files and labels, beside the images or as the source itself."""

from unicodedata import normalize

import numpy as np
import pytest

from rankwise.data import load_images
from rankwise.data.source import Source
from rankwise.errors import DataError

ROWS = [(f"{i:03}.png", "ab"[i % 2]) for i in range(8)]


@pytest.fixture
def images(tmp_path, make):
    def write(place="images", n=8):
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (folder / f"{i:03}.png").write_bytes(make.encode(make.pixels(1, seed=i)[0]))
        return tmp_path

    return write


def text_of(rows, header="file,label", separator=","):
    lines = [header] if header else []
    return "\n".join([*lines, *(separator.join(map(str, row)) for row in rows)]) + "\n"


def counts(source, **options):
    return Source(source, **options).read("all").class_counts


@pytest.mark.parametrize("place", ["images", "."])
@pytest.mark.parametrize(
    "data",
    [
        text_of(ROWS).encode(),
        text_of(ROWS).encode("utf-8-sig"),
        text_of(ROWS).encode("utf-16"),
        text_of(ROWS, header=None).encode(),
        text_of(ROWS, "image;class", ";").encode(),
        text_of(ROWS, "path\ttarget", "\t").encode(),
        text_of([(name[:-4], label) for name, label in ROWS], "id,breed").encode(),
        text_of([(f"../input/x/{name}", label) for name, label in ROWS]).encode(),
        text_of([(f"C:\\x\\{name}", f" {label}") for name, label in ROWS]).encode(),
        text_of([(7 * i, label, name) for i, (name, label) in enumerate(ROWS)], "w,ClassId,Path")
        .replace("\n", "\r\n")
        .encode(),
        text_of([(n, i % 2, c) for i, (n, c) in enumerate(ROWS)], "f,label,class").encode(),
    ],
)
def test_labels_of_a_table(images, place, data):
    root = images(place)
    (root / "labels.csv").write_bytes(data)
    for source in (root, root / "labels.csv"):
        assert counts(source) == {"a": 4, "b": 4}
    (note,) = Source(root).read("all").notes
    assert note.split(", column ")[0] == f"labels: from {root / 'labels.csv'}"


def test_a_column_of_parts(images):
    root = images()
    rows = [(*row, "Train" if i < 6 else "TEST") for i, row in enumerate(ROWS)]
    (root / "labels.csv").write_text(text_of(rows, "file,label,split"))
    source = Source(root)
    assert [len(source.read(split)) for split in ("train", "test")] == [6, 2]


@pytest.mark.parametrize("inside", [False, True])
def test_a_table_for_each_part(images, inside):
    images("train")
    root = images("test", 4)
    for part, rows in (("train", ROWS), ("test", ROWS[:4])):
        name = f"{part}/metadata.csv" if inside else f"{part}.csv"
        (root / name).write_text(text_of(rows, "file_name,label"))
    (root / "sample_submission.csv").write_text(text_of([(name, "a") for name, _ in ROWS]))
    source = Source(root)
    assert [len(source.read(split)) for split in ("train", "test")] == [8, 4]
    assert source.read("train").source_ids[0] == "train/train/000.png"


def test_a_table_for_a_test_part_beside_class_folders(images):
    images("Train/0")
    images("Train/1")
    root = images("Test", 4)
    rows = [(5, i % 2, f"Test/{i:03}.png") for i in range(4)]
    (root / "Test.csv").write_text(text_of(rows, "Width,ClassId,Path"))
    test = Source(root).read("test")
    assert test.class_counts == {"0": 2, "1": 2}
    assert test.source_ids[0] == "test/Test/000.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (text_of(ROWS).replace("000.png,a", "000.png"), r"Line 2 of .*csv has 1 cells, most lines"),
        (text_of([*ROWS, ("001.png", "a")]), r"001\.png is 'b' \(train\) by line 3 .* and 'a'"),
        (text_of([(n, 1, 2 * i) for i, (n, _) in enumerate(ROWS)], "f,x,z"), "in the columns x, z"),
        (text_of([(n, n, c) for n, c in ROWS], "u,v,label"), "names files in the columns u, v; wh"),
        (
            text_of([(n, i + 0.5) for i, (n, _) in enumerate(ROWS)]),
            r"Label 0\.5 in line 2 of ",
        ),
        (
            text_of([(n, "" if n == "003.png" else c) for n, c in ROWS]),
            "line 5 of .* gives it no",
        ),
        (text_of([(n, c + " " * (n < "004")) for n, c in ROWS]), "differ in their Unicode form or"),
        ('file,label\n"000.png', r"Line 2 of .* can't be read \(unexpected end of data\)"),
        ("a,b,c\n" + text_of(ROWS, None), r"Line 1 of .*csv has 3 cells, most lines have 2"),
        ("file,label\n000.png,a\0\n", "isn't a table: it holds bytes of value zero"),
        (
            "name,label\nx,y\n",
            "for them; no columns of files and labels in labels.csv",
        ),
        ("", "for them; no columns of files and labels in labels.csv"),
    ],
)
def test_what_is_refused(images, text, message):
    root = images()
    (root / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        Source(root).read("all")


def test_other_encodings_and_several_tables(images):
    root = images()
    (root / "labels.csv").write_bytes("file,label\n000.png,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv isn't in UTF-8 \(byte 22\), and other enc"):
        Source(root)
    for name in ("labels.csv", "more.csv"):
        (root / name).write_text(text_of(ROWS))
    with pytest.raises(DataError, match=r"several tables of labels, labels\.csv, more\.csv; name"):
        Source(root)


def test_the_label_column_can_be_named(images):
    root = images()
    rows = [(name, i % 4, label) for i, (name, label) in enumerate(ROWS)]
    (root / "labels.csv").write_text(text_of(rows, "file,fine,coarse"))
    assert counts(root, label_column="coarse") == {"a": 4, "b": 4}
    assert len(counts(root, label_column="fine")) == 4
    with pytest.raises(DataError, match="has no column 'x' of labels; fine, coarse are there"):
        Source(root, label_column="x")


@pytest.mark.parametrize(
    ("rows", "header", "expected", "note"),
    [
        (
            [(n, int(c == "a"), f"{c == 'b':d}.0") for n, c in ROWS],
            "image,NV,MEL",
            {"NV": 4, "MEL": 4},
            "the one of NV, MEL that is 1",
        ),
        ([(n, f"{i % 2}.0") for i, (n, _) in enumerate(ROWS)], "f,label", {"0": 4, "1": 4}, ""),
        ([(n, c, c + c) for n, c in ROWS], "id,dx,diagnosis", {"a": 4, "b": 4}, "column dx"),
        (
            [(n, "a|b" if n == "000.png" else c) for n, c in ROWS],
            "image,label",
            {"a": 3, "b": 4, "a|b": 1},
            "the label 'a|b' holds several by its looks",
        ),
    ],
)
def test_labels_that_need_a_word(images, rows, header, expected, note):
    root = images()
    (root / "labels.csv").write_text(text_of(rows, header))
    found = Source(root).read("all")
    assert found.class_counts == expected
    assert note in "; ".join(found.notes)


def test_one_hot_columns_among_others_are_not_guessed(images):
    root = images()
    rows = [(n, int(c == "a"), int(c == "b"), i) for i, (n, c) in enumerate(ROWS)]
    (root / "labels.csv").write_text(text_of(rows, "file,male,female,age"))
    with pytest.raises(DataError, match="could hold labels in the columns female, age; name"):
        Source(root)


def test_a_file_named_twice_is_no_other_column(images):
    root = images()
    rows = [("000.png", "a"), ("000.png", "b"), ("000.png", "b"), ("001.png", "b")]
    (root / "labels.csv").write_text(text_of(rows))
    with pytest.raises(DataError, match=r"000\.png is 'a' \(train\) by line 2 of .* and 'b'"):
        Source(root)


def test_names_of_other_files(images):
    root = images()
    (root / "labels.csv").write_text(text_of([(f"{i:03}.jpg", "a") for i in range(8)]))
    with pytest.raises(DataError, match=r"csv names 000\.jpg, which isn't among the images; a fo"):
        Source(root)


def test_what_has_no_line_or_no_file_is_told(images):
    root = images()
    (root / "labels.csv").write_text(text_of([*ROWS[:6], ("gone.png", "a"), ("lost.png", "b")]))
    notes = Source(root).read("all").notes
    assert any("gone.png (line 8 of" in n and "and 1 more of its files" in n for n in notes)
    assert any("left out: 2 images without a line in the table" in n for n in notes)


def test_a_table_that_says_other_labels_than_the_folders(images):
    images("cat")
    root = images("dog")
    (root / "labels.csv").write_text(text_of([("cat/000.png", "dog"), ("cat/001.png", "cat")]))
    with pytest.raises(DataError, match=r"cat/000\.png is 'cat' by its folder and 'dog' by .*csv;"):
        Source(root)
    same = [(f"{c}/{i:03}.png", k) for k, c in enumerate(("cat", "dog")) for i in range(8)]
    (root / "labels.csv").write_text(text_of(same))  # numbers of the same classes
    assert counts(root) == {"cat": 8, "dog": 8}


@pytest.mark.parametrize("named", ["b/0.png", "images/b/0.png", "../x/b/0.png", "empty/0.png"])
def test_a_missing_file_of_a_folder_that_is_there_is_none_of_another(images, named):
    root = images("images/a", 1)
    images("images/b/c", 1)
    (root / "images/empty").mkdir()
    for i, place in enumerate(("a", "b", "b/c")):
        source = root / "images/a/000.png"
        (root / f"images/{place}/{i}.png").write_bytes(source.read_bytes())
    rows = [("a/000.png", "cat"), ("b/1.png", "dog"), ("c/2.png", "dog"), (named, "dog")]
    (root / "labels.csv").write_text(text_of(rows))
    found = Source(root / "labels.csv").read("all")
    assert found.class_counts == {"cat": 1, "dog": 2}
    assert any(f"left out: {named} (line 5 of" in n and "not among" in n for n in found.notes)


def test_a_file_below_the_folder_of_a_line_is_found_and_so_is_one_of_no_folder_there(images):
    root = images("images/b/c", 4)
    names = ["b/000.png", "images/001.png", "elsewhere/002.png", "elsewhere/c/003.png"]
    (root / "labels.csv").write_text(text_of([(n, "ab"[i % 2]) for i, n in enumerate(names)]))
    assert counts(root) == {"a": 2, "b": 2}


def test_nan_is_no_label_among_numbers(images):
    root = images()
    rows = [(name, ["0", "1", "nan", " NaN"][i % 4]) for i, (name, _) in enumerate(ROWS)]
    (root / "labels.csv").write_text(text_of(rows))
    with pytest.raises(DataError, match=r"002\.png: line 4 of .*labels\.csv gives it no label"):
        Source(root).read("all")
    found = Source(root).read("all", on_error="skip")
    assert found.class_counts == {"0": 2, "1": 2}
    assert len(found.skipped) == 4
    (root / "labels.csv").write_text(text_of(rows).replace(",0", ",cat").replace(",1", ",dog"))
    assert counts(root) == {"cat": 2, "dog": 2, "nan": 2, "NaN": 2}


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_unicode_form(images, on_disk, in_table):
    root, folders = images("images/a"), ("b", "\u00e9")
    for i, (name, _) in enumerate(ROWS):
        folder = root / "images" / normalize(on_disk, folders[i % 2])
        folder.mkdir(exist_ok=True)
        (root / "images/a" / name).rename(folder / normalize(on_disk, f"\u00e9{i // 2}.png"))
    (root / "images/a").rmdir()
    rows = [(f"{folders[i % 2]}/\u00e9{i // 2}.png", c) for i, (_, c) in enumerate(ROWS)]
    (root / "labels.csv").write_text(normalize(in_table, text_of(rows)))
    assert counts(root / "labels.csv") == {"a": 4, "b": 4}


def test_names_in_two_unicode_forms(images):
    root = images("images/a", 2)
    for i, form in enumerate(("NFC", "NFD")):
        old = root / f"images/a/00{i}.png"
        old.rename(root / "images/a" / normalize(form, "\u00e9\u1e69.png"))
    both = [(normalize(form, "\u00e9\u1e69.png"), form) for form in ("NFC", "NFD")]
    (root / "labels.csv").write_text(text_of(both))
    assert counts(root) == {"NFC": 1, "NFD": 1}
    (root / "labels.csv").write_text(text_of([*both, ("e\u0301\u1e69.png", "NFC")]))
    with pytest.raises(DataError, match=r"Line 4 of .* names .*, which could be .* or .*; a path"):
        Source(root)


def test_blank_labels_are_no_class(make, tmp_path):
    images = make.pixels(12)
    make.folder(tmp_path / "train", images, make.labels(12))
    (tmp_path / "test").mkdir()
    lines = ["file,label"]
    for i, name in enumerate(["a", "", "c", "a"]):
        (tmp_path / "test" / f"t{i}.png").write_bytes(make.encode(images[i]))
        lines.append(f"t{i}.png,{name}")
    (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="its label is empty"):
        load_images(tmp_path, "test")
    found = load_images(tmp_path, "test", on_error="skip")
    assert np.asarray(found.class_names)[found.labels].tolist() == ["a", "c", "a"]
    assert "its label is empty" in found.skipped[0]


def test_rows_of_no_part_are_left_out_and_told(make, tmp_path):
    lines = ["file,label,split"]
    for i, image in enumerate(make.pixels(12)):
        (tmp_path / f"i{i:02}.png").write_bytes(make.encode(image))
        part = "hidden" if i > 9 else "test" if i % 3 == 0 else "train"
        lines.append(f"i{i:02}.png,{'ab'[i % 2]},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    assert len(load_images(tmp_path / "labels.csv", "train")) == 6
    test = load_images(tmp_path / "labels.csv", "test")
    assert len(test) == 4
    assert any("left out: 2 rows of" in n and "whose split is 'hidden'" in n for n in test.notes)


def test_a_place_is_no_label(make, tmp_path):
    lines = ["file,x,y,species"]
    for i, image in enumerate(make.pixels(12)):
        (tmp_path / f"i{i:02}.png").write_bytes(make.encode(image))
        lines.append(f"i{i:02}.png,{i},{i % 2},{'ab'[i % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="could hold labels in the columns x, y, species; name the"):
        load_images(tmp_path / "labels.csv", "all")
