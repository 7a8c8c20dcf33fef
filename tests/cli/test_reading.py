"""What commands tell about the images that they read, and which part is for what."""

import json

import numpy as np
import pytest
from PIL import Image

from cli_cases import FAST, call, class_folders
from rankwise.data.source import Source

CONVOLUTIONAL = ["--preset", "tiny", "--max-iter", "2", "--workers", "1"]


def parts(folder, *names, per_class=12):
    for i, name in enumerate(names):
        class_folders(folder / name, per_class=per_class + i)
        for file in (folder / name).rglob("*.png"):  # no image in two parts
            pixels = np.asarray(Image.open(file)) ^ np.uint8(i)
            Image.fromarray(pixels).save(file)


def test_classes_sizes_and_parts_are_told(tmp_path, monkeypatch, capsys):
    parts(tmp_path / "s", "Train", "Test")
    _, err = call(monkeypatch, capsys, "train", tmp_path / "s", "--out", tmp_path / "m", *FAST)
    assert "2 classes (training/test images): a 12/13, b 12/13" in err
    assert "images: 8×8, 24 to train on, 26 to test on: the test part (Test)" in err
    assert "warning" not in err.replace("warning: t", "")


def test_a_validation_part_without_a_test_part_is_tested_on(tmp_path, monkeypatch, capsys):
    parts(tmp_path / "s", "train", "val")
    arguments = ["train", tmp_path / "s", "--out", tmp_path / "m", *FAST, "--json"]
    out, err = call(monkeypatch, capsys, *arguments)
    report = json.loads(out)
    assert (report["train"]["n_samples"], report["test"]["n_samples"]) == (24, 26)
    assert "the validation part (val), since there is no test part; nothing is chosen by it" in err
    out, err = call(monkeypatch, capsys, "evaluate", tmp_path / "m", tmp_path / "s", "--json")
    assert json.loads(out)["fingerprint"] == report["test"]["fingerprint"]
    call(monkeypatch, capsys, "evaluate", tmp_path / "m", tmp_path / "s", "--split", "val")


def test_a_validation_part_beside_a_test_part_chooses(tmp_path, monkeypatch, capsys):
    parts(tmp_path / "s", "train", "valid", "test")
    arguments = ["train", tmp_path / "s", "--out", tmp_path / "m", *CONVOLUTIONAL, "--json"]
    out, err = call(monkeypatch, capsys, *arguments)
    report = json.loads(out)
    counts = [report[part]["n_samples"] for part in ("train", "validation", "test")]
    assert counts == [24, 26, 28]
    assert "26 images of the validation part (valid) are left to choose epochs" in err
    assert all(e["validation_accuracy"] is not None for e in report["history"])
    out, _ = call(monkeypatch, capsys, *arguments)
    assert json.loads(out)["already_complete"]
    # Sub-networks choose nothing by them.
    _, err = call(
        monkeypatch,
        capsys,
        "train",
        tmp_path / "s",
        "--out",
        tmp_path / "n",
        "--preset",
        "windowed",
        *FAST,
    )
    assert "not used: the validation part (valid); evaluate --split validation scores it" in err


def test_a_test_part_that_repeats_training_images_is_told(tmp_path, monkeypatch, capsys):
    parts(tmp_path / "s", "train", "test")
    again = (tmp_path / "s" / "train" / "a" / "0-x.png").read_bytes()
    (tmp_path / "s" / "test" / "a" / "again.png").write_bytes(again)
    _, err = call(monkeypatch, capsys, "train", tmp_path / "s", "--out", tmp_path / "m", *FAST)
    assert "warning: 1 of 27 test images repeat training images (the same pixels), such as" in err
    # Any other source is compared with the images that the run was trained on as well.
    call(monkeypatch, capsys, "evaluate", tmp_path / "m", tmp_path / "s" / "train")
    _, err = call(monkeypatch, capsys, "evaluate", tmp_path / "m", tmp_path / "s" / "train")
    assert "scored: all images, since this isn't the source of the run" in err
    assert "warning: 24 of these 24 images are training images of the run" in err


def test_evaluate_knows_a_source_by_place_and_content(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "a" / "photos", per_class=30)
    monkeypatch.chdir(tmp_path / "a")
    out, _ = call(monkeypatch, capsys, "train", "photos", "--out", "m", *FAST, "--json")
    held_out = json.loads(out)["test"]["fingerprint"]
    monkeypatch.chdir(tmp_path)
    out, err = call(monkeypatch, capsys, "evaluate", "a/m", "a/photos", "--json")
    assert json.loads(out)["fingerprint"] == held_out
    assert "scored: the run's own source, the test images (a fifth held out by the seed)" in err
    (tmp_path / "a" / "photos").rename(tmp_path / "moved")
    out, err = call(monkeypatch, capsys, "evaluate", "a/m", "moved", "--json")
    assert json.loads(out)["fingerprint"] == held_out
    assert "scored: a copy of the run's source, the images that it held out" in err
    # A folder of the name that the run's source had is another one.
    parts(tmp_path / "b", "photos", "x")
    monkeypatch.chdir(tmp_path / "b")
    out, err = call(monkeypatch, capsys, "evaluate", "../a/m", "photos", "--json")
    assert json.loads(out)["n_samples"] == 24
    assert "scored: all images, since this isn't the source of the run" in err


def test_channels_and_columns_on_the_command_line(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "s")
    arguments = ["train", tmp_path / "s", "--out", tmp_path / "m", *FAST, "--json"]
    out, _ = call(monkeypatch, capsys, *arguments, "--channels", "3")
    assert json.loads(out)["train"]["image_shape"] == [8, 8, 3]
    _, err = call(monkeypatch, capsys, *arguments, "--channels", "3", "--grey", expect=2)
    assert "--grey is --channels 1, and --channels 3 is given too" in err
    rows = [f"s/{c}/{i}-x.png,{c},{i % 2}" for c in "ab" for i in range(12)]
    (tmp_path / "l.csv").write_text("\n".join(["file,x,y", *rows]))
    arguments[1] = tmp_path / "l.csv"
    out, _ = call(monkeypatch, capsys, *arguments, "--label-column", "x", "--overwrite")
    assert json.loads(out)["train"]["class_counts"].keys() == {"a", "b"}


@pytest.mark.parametrize("file_format", ["parquet", "folder"])
def test_augment_keeps_sizes(tmp_path, monkeypatch, capsys, file_format):
    rng = np.random.default_rng(0)
    sizes = [(8, 9), (12, 7), (20, 20)]
    for i in range(24):
        folder = tmp_path / "s" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, sizes[i % 3], dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    arguments = ["augment", tmp_path / "s", tmp_path / "o", "--format", file_format, "--json"]
    out, _ = call(monkeypatch, capsys, *arguments, "--split", "all", "--skip-threshold", "0")
    summary = json.loads(out)
    assert (summary["originals"], summary["copies"]) == (24, 24)
    source = Source(tmp_path / "o")
    assert source.survey().sizes == dict.fromkeys(sizes, 16)
    for part in source.read_by_size("all"):
        # As if each size had been augmented alone.
        ids, counts = np.unique(part.source_ids, return_counts=True)
        assert (len(ids), set(counts)) == (8, {2})
    assert not any((tmp_path / "o").glob(".*"))
    again, _ = call(monkeypatch, capsys, *arguments, "--split", "all", "--skip-threshold", "0")
    assert json.loads(again) == summary
