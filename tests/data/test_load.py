"""What holds for every source: splits, limits, skipping, fingerprints, memory."""

import importlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rankwise
from rankwise.data import ImageSet, check_no_shared_sources, load_images, pixels
from rankwise.data.source import Source
from rankwise.errors import DataError, DataWarning

SOURCES = ["folder", "parquet", "idx", "idx.gz", "npz"]


@pytest.fixture
def source(make, tmp_path):
    """Write one set of images (a fifth of them in a test split, if asked) in any layout."""

    def write(kind, test=False, channels=None, n=12):
        images, labels = make.pixels(n, channels=channels), make.labels(n)
        # A folder lists its samples class by class, so all sources hold them in that order.
        order = np.argsort(labels, kind="stable")
        images, labels = images[order], labels[order]
        root = tmp_path / kind
        if kind == "folder":
            make.folder(root / "train" if test else root, images, labels)
            if test:
                make.folder(root / "test", images[::2], labels[::2])
        elif kind == "parquet":
            for split, part in (("train", slice(None)), ("test", slice(None, None, 2)))[: 1 + test]:
                blobs = [make.encode(image) for image in images[part]]
                make.parquet(root / f"{split}-00000-of-00001.parquet", blobs, labels[part])
        elif kind.startswith("idx"):
            make.idx(root, images, labels, packed=kind == "idx.gz")
            if test:
                make.idx(root, images[::2], labels[::2], "t10k", packed=kind == "idx.gz")
        else:
            root = tmp_path / "set.npz"
            names = ("x_train", "y_train", "x_test", "y_test")
            parts = (images, labels, images[::2], labels[::2])
            np.savez_compressed(root, **dict(list(zip(names, parts, strict=True))[: 2 + 2 * test]))
        return root, images, labels

    return write


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_images(source, kind):
    path, images, labels = source(kind)
    loaded = load_images(path, "all")
    np.testing.assert_array_equal(loaded.images, images)
    assert loaded.images.dtype == np.uint8
    np.testing.assert_array_equal(loaded.labels, labels)
    names = ("0", "1", "2") if kind in ("idx", "idx.gz", "npz") else ("a", "b", "c")
    assert loaded.class_names == names
    assert loaded.fingerprint == ImageSet.from_arrays(images, labels, names).fingerprint
    assert len(set(loaded.source_ids)) == len(loaded)
    assert (loaded.split, loaded.skipped) == ("all", ())


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("options", [{}, {"limit": 5}, {"size": (4, 3)}])
def test_memory_map_equals_memory(source, monkeypatch, kind, options):
    path, _, _ = source(kind, channels=None if kind.startswith("idx") else 3)
    # Small blocks: the result must not depend on where they end.
    for name, rows in (("arrays", 5), ("fingerprint", 2), ("parquet_file", 3)):
        module = importlib.import_module(f"rankwise.data.{name}")
        monkeypatch.setattr(module, "block_rows", lambda size, rows=rows: rows)
    mapped = load_images(path, memory_limit=50, **options)
    monkeypatch.undo()
    held = load_images(path, **options)
    assert isinstance(mapped.images, np.memmap)
    assert not isinstance(held.images, np.memmap)
    np.testing.assert_array_equal(mapped.images, held.images)
    assert mapped.fingerprint == held.fingerprint
    np.testing.assert_array_equal(mapped.source_ids, held.source_ids)


@pytest.mark.parametrize("kind", SOURCES)
def test_own_test_split_is_used(source, kind):
    path, images, _ = source(kind, test=True)
    assert len(load_images(path)) == 12
    np.testing.assert_array_equal(load_images(path, "test").images, images[::2])
    whole = load_images(path, "all")
    assert len(whole) == 18
    assert len(set(whole.source_ids)) == 18
    chosen = load_images(path, "all", limit=9)
    assert np.isin(chosen.source_ids, whole.source_ids).all()
    np.testing.assert_array_equal(
        chosen.images, whole.images[np.isin(whole.source_ids, chosen.source_ids)]
    )


@pytest.mark.parametrize("kind", [*SOURCES, "digits"])
def test_missing_test_split_is_held_out(source, kind):
    path = kind if kind == "digits" else source(kind, n=30)[0]
    parts = {split: load_images(path, split) for split in ("train", "test", "all")}
    n = len(parts["all"])
    assert len(parts["test"]) == round(0.2 * n)
    assert len(parts["train"]) + len(parts["test"]) == n
    check_no_shared_sources(parts["train"].source_ids, parts["test"].source_ids)
    assert np.bincount(parts["test"].labels).min() >= n // 5 // parts["all"].n_classes - 1
    again = load_images(path, "test")
    assert again.fingerprint == parts["test"].fingerprint
    assert load_images(path, "test", seed=1).fingerprint != again.fingerprint
    # The hold-out comes before the limit: a limited training set shares nothing with the test set.
    few = load_images(path, "train", limit=6, seed=42)
    check_no_shared_sources(few.source_ids, parts["test"].source_ids)
    assert np.isin(few.source_ids, parts["train"].source_ids).all()


def test_digits_are_scaled():
    from sklearn.datasets import load_digits

    loaded = load_images("digits", "all")
    assert loaded.name == "digits"
    assert loaded.images.shape == (1797, 8, 8)
    assert (loaded.images.min(), loaded.images.max()) == (0, 255)
    np.testing.assert_allclose(loaded.images / 255, load_digits().images / 16, atol=0.5 / 255)
    np.testing.assert_array_equal(loaded.labels, load_digits().target)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_source_pattern_keeps_sources_together(source, kind):
    path, _, _ = source(kind, n=60)
    parts = {s: load_images(path, s, source_pattern=r"^([^_]+)_") for s in ("train", "test")}
    assert set(parts["train"].source_ids[:2]) < {f"s{i}" for i in range(30)}
    check_no_shared_sources(parts["train"].source_ids, parts["test"].source_ids)
    whole = load_images(path, "all", source_pattern=r"s\d+")
    assert len(set(whole.source_ids)) == 30


@pytest.mark.parametrize("kind", ["strings", "integers", "dictionary", "floats"])
def test_the_column_source_id_gives_the_ids(source, kind):
    path, _, _ = source("parquet", n=60)
    (file,) = path.glob("*.parquet")
    ids = pa.array([row // 2 for row in range(58)] + [None, None])
    if kind != "integers":
        ids = ids.cast(pa.float64() if kind == "floats" else pa.string())
    table = pq.read_table(file)
    column = ids.dictionary_encode() if kind == "dictionary" else ids
    pq.write_table(table.append_column("source_id", column), file)
    found = load_images(path, "all")
    if kind == "floats":  # no ids
        assert len(set(found.source_ids)) == 60
        assert not found.holds_copies
        return
    assert found.source_ids[:58].tolist() == [str(i // 2) for i in range(58)]
    assert found.source_ids[58] != found.source_ids[59]
    assert found.holds_copies
    train, test = load_images(path, "train"), load_images(path, "test")
    check_no_shared_sources(train.source_ids, test.source_ids)


def test_source_pattern_with_a_slash_sees_folders(source):
    path, _, _ = source("folder")
    loaded = load_images(path, "all", source_pattern=r"^(\w+)/")
    assert loaded.source_ids.tolist() == [loaded.class_names[label] for label in loaded.labels]


def test_source_pattern_errors(source):
    path, _, _ = source("folder")
    with pytest.raises(DataError, match=r"s0_000\.png doesn't match source_pattern '\^x'"):
        load_images(path, source_pattern="^x")
    with pytest.raises(DataError, match=r"source_pattern '\(' isn't a regular expression"):
        load_images(path, source_pattern="(")
    with pytest.raises(DataError, match=r"those of digits \(train\) have none"):
        load_images("digits", source_pattern="x")


@pytest.mark.parametrize("kind", SOURCES)
def test_limit_is_stratified_seeded_and_in_order(source, kind):
    path, _, _ = source(kind, n=30)
    whole = load_images(path, "all")
    few = load_images(path, "all", limit=9, seed=5)
    assert np.bincount(few.labels).tolist() == [3, 3, 3]
    rows = np.flatnonzero(np.isin(whole.source_ids, few.source_ids))
    np.testing.assert_array_equal(few.images, whole.images[rows])
    np.testing.assert_array_equal(few.source_ids, whole.source_ids[rows])
    assert load_images(path, "all", limit=9, seed=5).fingerprint == few.fingerprint
    assert load_images(path, "all", limit=9, seed=6).fingerprint != few.fingerprint
    assert load_images(path, "all", limit=99).fingerprint == whole.fingerprint
    assert len(load_images(path, "all", limit=1)) == 1
    with pytest.raises(DataError, match="limit is 0"):
        load_images(path, limit=0)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_limit_decodes_only_what_it_needs(source, monkeypatch, kind):
    path, _, _ = source(kind, n=30)
    opened = []
    real = pixels.open_image
    monkeypatch.setattr(pixels, "open_image", lambda image: opened.append(1) or real(image))
    load_images(path, "all", limit=4)
    assert len(opened) == 4


@pytest.mark.parametrize("kind", SOURCES)
def test_unknown_split_lists_those_found(source, kind):
    path, _, _ = source(kind, test=True)
    with pytest.raises(DataError, match=r"has no split 'dev'; train, test, all are accepted"):
        load_images(path, "dev")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "nowhere",
            r"nowhere doesn't exist; 'digits', a hub id .*, shards .* s3://… are accepted",
        ),
        ("../a/b/c", "doesn't exist; 'digits'"),
        ("~nosuchuser/b/c", "~nosuchuser/b/c doesn't exist; 'digits'"),
        (__file__, "is a file of another kind; 'digits'"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(DataError, match=message):
        load_images(source)


@pytest.mark.parametrize("source", ["x" * 300, "a/" * 4000 + "b"])
def test_a_source_that_no_file_can_be_called(source):
    with pytest.raises(
        DataError, match=r"of \d+ characters, is no name that a file can have; 'digi"
    ):
        load_images(source)


def test_empty_folders(tmp_path):
    with pytest.raises(DataError, match=r"The folder .* is empty; a folder of images for each cl"):
        load_images(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no image, parquet or IDX file; a folder of images"):
        load_images(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_bad_images_raise_or_are_skipped(make, tmp_path, kind):
    images, labels = make.pixels(12, 30, 30), np.sort(make.labels())
    blobs = [make.encode(image) for image in images]
    blobs[0] = b"some text"
    blobs[5] = blobs[5][:300]
    blobs[7] = b""
    if kind == "folder":
        for i, blob in enumerate(blobs):
            file = tmp_path / "abc"[labels[i]] / f"{i:02}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(blob)
    else:
        paths = [f"{i:02}.png" for i in range(12)]
        make.parquet(tmp_path / "train.parquet", blobs, labels, paths=paths)
    with pytest.raises(
        DataError, match=r"00\.png\)?: it isn't an image.*pass on_error='skip' \(--skip-bad"
    ):
        load_images(tmp_path, "all")
    loaded = load_images(tmp_path, "all", on_error="skip")
    good = [i for i in range(12) if i not in (0, 5, 7)]
    np.testing.assert_array_equal(loaded.images, images[good])
    np.testing.assert_array_equal(loaded.labels, labels[good])
    assert [source.rpartition("/")[2][:2] for source in loaded.source_ids] == [
        f"{i:02}" for i in good
    ]
    assert loaded.n_skipped == 3
    assert "3 skipped" in repr(loaded)
    reasons = ["it isn't an image", "it is truncated", "it is empty"]
    for line, number, reason in zip(loaded.skipped, ("00", "05", "07"), reasons, strict=True):
        assert f"{number}.png" in line
        assert reason in line
    mapped = load_images(tmp_path, "all", on_error="skip", memory_limit=10)
    assert mapped.fingerprint == loaded.fingerprint


def test_no_image_can_be_read(make, tmp_path):
    make.parquet(tmp_path / "train.parquet", [b"x"] * 4, [0, 1, 2, 0])
    with pytest.raises(DataError, match=r"None of the images of .* can be read; Row 0 of .*: it"):
        load_images(tmp_path, "all", on_error="skip")


def test_skipping_must_leave_two_classes(make, tmp_path):
    blobs = [b"x" if label == 1 else make.encode(make.pixels(1)[0]) for label in (0, 1, 0, 1)]
    make.parquet(tmp_path / "train.parquet", blobs, [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"\(all\) has images of one class only \('a'\)"):
        load_images(tmp_path, "all", on_error="skip")


@pytest.mark.parametrize("kind", ["folder", "parquet"])
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(6, 5)] * 6, (6, 5)),
        ([(6, 5)] * 4 + [(7, 5)] * 2, (6, 5)),  # most of them
        ([(40, 60), (42, 60), (38, 57), (80, 120), (20, 30), (60, 90)], (41, 60)),  # proportion
        ([(40, 60), (60, 40), (30, 30), (20, 90), (50, 80), (70, 30)], (35, 35)),
        ([(400, 600), (600, 400), (300, 300), (200, 900), (500, 800), (700, 300)], (128, 128)),
        ([(400, 600), (800, 1200), (200, 300), (404, 606), (100, 150), (300, 450)], (85, 128)),
    ],
)
def test_mixed_sizes_are_brought_to_one_that_is_told(make, tmp_path, kind, sizes, expected):
    images = [make.pixels(1, *size)[0] for size in sizes]
    if kind == "folder":
        make.folder(tmp_path, images, np.sort(make.labels(6)))
    else:
        make.parquet(tmp_path / "train.parquet", [make.encode(i) for i in images], make.labels(6))
    for on_error in ("raise", "skip"):
        loaded = Source(tmp_path).read("all", on_error=on_error)
        assert loaded.image_shape == expected
        told = [n for n in loaded.notes if f"are all resized to {expected[0]}×{expected[1]}" in n]
        assert len(told) == (len(set(sizes)) > 1)
    given = Source(tmp_path).read("all", size=(6, 5))
    assert given.images.shape == (6, 6, 5)
    assert given.notes == ()


def test_sizes_are_chosen_by_the_training_part(make, tmp_path):
    make.folder(tmp_path / "train", make.pixels(4), [0, 1, 0, 1])
    make.folder(tmp_path / "test", make.pixels(20, 9, 9), [0, 1] * 10)
    with pytest.warns(DataWarning, match=r"images of 2 sizes, 6×5 to 9×9 pixels .* to 6×5; --size"):
        assert load_images(tmp_path, "test").image_shape == (6, 5)


def test_mixed_sizes_of_array_splits(make, tmp_path):
    make.idx(tmp_path, make.pixels(4), [0, 1, 0, 1])
    make.idx(tmp_path, make.pixels(4, 7), [0, 1, 0, 1], "t10k")
    with pytest.warns(DataWarning, match="are all resized to 6×5"):
        assert load_images(tmp_path, "test").image_shape == (6, 5)
    assert load_images(tmp_path, "test", size=4).image_shape == (4, 4)


@pytest.mark.parametrize("kind", SOURCES)
def test_one_class_only(make, tmp_path, kind):
    images, ones = make.pixels(4), np.ones(4, int)
    path = tmp_path / "x.npz"
    if kind == "npz":
        np.savez(path, images=images, labels=ones)
    else:
        path = tmp_path
        blobs = [make.encode(image) for image in images]
        {
            "folder": lambda: make.folder(tmp_path, images, ones),
            "parquet": lambda: make.parquet(tmp_path / "train.parquet", blobs, ones),
            "idx": lambda: make.idx(tmp_path, images, ones),
            "idx.gz": lambda: make.idx(tmp_path, images, ones, packed=True),
        }[kind]()
    with pytest.raises(DataError, match=r"has images of one class only \('[1b]'\); at least two"):
        load_images(path, "all")


def test_hold_out_of_one_class_is_refused(make, tmp_path):
    make.folder(tmp_path, make.pixels(4), [0, 0, 0, 1])
    with pytest.raises(DataError, match=r"\(test\) has images of one class only \('a'\)"):
        load_images(tmp_path, "test")


def test_on_error_is_checked():
    with pytest.raises(DataError, match="on_error is 'ignore'; 'raise' or 'skip' is accepted"):
        load_images("digits", on_error="ignore")


@pytest.mark.parametrize("seed", [-1, 1.5, True, "x"])
def test_seed_is_checked(seed):
    with pytest.raises(DataError, match=rf"seed is {seed!r}; a whole number from 0 is accepted\."):
        load_images("digits", seed=seed)


def test_progress_goes_to_standard_error(source, capsys):
    load_images(source("folder")[0], progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Reading images" in captured.err


def test_import_is_light():
    code = (
        "import sys, rankwise.data; "
        "heavy = {'torch', 'pyarrow', 'datasets', 'PIL', 'sklearn', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert rankwise.load_images is load_images


@pytest.mark.parametrize("source", [None, 7, ["digits"], ""])
def test_a_source_that_names_nothing(source):
    with pytest.raises(
        DataError, match=r"The source is (of type (NoneType|int|list)|''); 'digits', a hub id"
    ):
        load_images(source)


def test_a_hold_out_needs_a_seed():
    with pytest.raises(DataError, match="seed is None, which would hold out other images at each"):
        load_images("digits", seed=None)


def test_absolute_paths_are_left_out_of_a_table_and_of_links(make, tmp_path):
    make.folder(tmp_path / "there", make.pixels(12), make.labels(12))
    folder = tmp_path / "linked"
    for path in sorted((tmp_path / "there").rglob("*.png")):
        link = folder / path.relative_to(tmp_path / "there")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*.png"))]
    (folder / "labels.csv").write_text(
        "file,label\n" + "".join(f"{name},{name[0]}\n" for name in names)
    )
    around = tmp_path / "there" / ".." / "there"
    for source in (folder / "labels.csv", folder, tmp_path / "there", around):
        root = source.parent if source.is_file() else source
        every = load_images(source, "train")
        out = str(root / every.ids[0])
        assert every.ids[0] not in load_images(source, "train", without=[out]).ids


def test_one_grey_channel_is_grey(make, tmp_path):
    (tmp_path / "a.png").write_bytes(make.encode(make.pixels(1)[0]))
    grey = rankwise.data.read_image(tmp_path / "a.png", image_shape=(6, 5))
    found = rankwise.data.read_image(tmp_path / "a.png", image_shape=(6, 5, 1))
    np.testing.assert_array_equal(found, grey[..., None])


def test_parquet_files_of_one_set_by_its_name(make, tmp_path):
    for part, n in (("train", 12), ("test", 6)):
        blobs = [make.encode(image) for image in make.pixels(n)]
        make.parquet(tmp_path / "set" / f"mnist_{part}.parquet", blobs, make.labels(n))
    assert len(load_images(tmp_path / "set", "train")) == 12
    assert len(load_images(tmp_path / "set", "test")) == 6


def test_a_test_part_without_labels_is_no_part(make, tmp_path):
    for part, labels in (("train", make.labels(12)), ("test", [-1] * 6)):
        blobs = [make.encode(image) for image in make.pixels(len(labels))]
        make.parquet(tmp_path / "set" / f"{part}.parquet", blobs, labels)
    with pytest.raises(DataError, match="has no usable image; the first: "):
        load_images(tmp_path / "set", "test", on_error="skip")
