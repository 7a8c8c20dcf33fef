"""What commands other than `train` tell of the images that they read."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from cli_cases import FAST, call, class_folders


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told") / "photos"
    class_folders(folder)
    return folder


def test_evaluate_tells_what_it_brought_to_the_models_images(photos, tmp_path, monkeypatch, capsys):
    call(monkeypatch, capsys, "train", photos, "--out", tmp_path / "m", *FAST)
    other = tmp_path / "other"
    class_folders(other)
    with Image.open(other / "a" / "0-x.png") as image:
        image.resize((16, 16)).convert("RGB").save(other / "a" / "0-x.png")
    with Image.open(other / "b" / "0-x.png") as image:
        image.resize((24, 8)).save(other / "b" / "0-x.png")
    for split in ([], ["--split", "all"]):
        _, err = call(monkeypatch, capsys, "evaluate", tmp_path / "m", other, *split)
        for change in (
            "1 of the source's 24 images resized to 8×8 (height×width), which the model takes",
            "1 of the source's 24 images squeezed to 8×8 (height×width), which the model takes",
            "1 of the source's 24 images turned from colour to grey, which the model takes",
        ):
            assert f"note: {change}\n" in err
    for command in (
        ("export", tmp_path / "m", "--format", "safetensors", "--check", other),
        ("explore", tmp_path / "m", other, "--out", tmp_path / "page.html"),
    ):
        _, err = call(monkeypatch, capsys, *command)
        assert "note: 1 of the source's 24 images resized to 8×8 (height×width)" in err
    _, err = call(monkeypatch, capsys, "evaluate", tmp_path / "m", photos)
    assert "note" not in err


def test_augment_tells_classes_parts_and_sizes(photos, tmp_path, monkeypatch, capsys):
    arguments = ["--skip-threshold", "0.5"]
    _, err = call(monkeypatch, capsys, "augment", photos, tmp_path / "o", *arguments)
    assert "2 classes: a " in err
    assert "images: 19, but for a fifth, held out by the seed to test on, since" in err
    _, err = call(
        monkeypatch, capsys, "augment", photos, tmp_path / "all", *arguments, "--split", "all"
    )
    assert "images: 24, all of the source\n" in err
    parts = tmp_path / "parts"
    for name in ("Training", "Testing"):
        class_folders(parts / name)
    Image.new("L", (5, 6), 9).save(parts / "Training" / "a" / "0-x.png")
    _, err = call(monkeypatch, capsys, "augment", parts, tmp_path / "p", *arguments)
    assert "images: 24 of the train part (Training)\n" in err
    assert "not used: test (Testing); --split names another part\n" in err
    assert "note: images of 2 sizes keep their own; --size brings them to one\n" in err


def test_shard_tells_classes_and_the_size_that_it_chose(photos, tmp_path, monkeypatch, capsys):
    mixed = tmp_path / "mixed"
    class_folders(mixed)
    Image.new("L", (9, 20), 9).save(mixed / "a" / "0-x.png")
    out, err = call(monkeypatch, capsys, "shard", mixed, tmp_path / "o", "--workers", "1")
    assert "images in 1 file\n" in out
    assert "2 classes: a, b; images: 8×8\n" in err
    assert "note: images of 2 sizes, 8×8 to 20×9 pixels (height×width), are all resized" in err


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_augment_refuses_a_name_that_its_files_cannot_hold(tmp_path, monkeypatch, capsys):
    source = tmp_path / "s"
    class_folders(source)
    try:
        os.rename(os.fsencode(source / "b"), os.fsencode(source) + b"/\xff")
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    _, err = call(monkeypatch, capsys, "augment", source, tmp_path / "o", expect=1)
    assert "the name of the class '\\udcff' isn't UTF-8" in err
    assert not (tmp_path / "o").exists()


def show(monkeypatch, capsys, image, out):
    return json.loads(call(monkeypatch, capsys, "show", image, "--out", out, "--json")[0])


def test_show_keeps_the_contrast_that_training_keeps(tmp_path, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    drawing = np.zeros((8, 8, 4), np.uint8)
    drawing[..., 3] = pixels
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(pixels.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(drawing).save(tmp_path / "alpha.png")
    found = {
        name: show(monkeypatch, capsys, tmp_path / f"{name}.png", tmp_path / f"{name}.html")
        for name in ("plain", "deep", "alpha")
    }
    assert found["deep"]["singular_values"] == found["plain"]["singular_values"]
    assert found["alpha"]["singular_values"][0][1] > 100
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:60])
    arguments = ["--out", tmp_path / "x.html"]
    for name, reason in (("cut", "it is truncated"), ("none", "it can't be read (No such file)")):
        _, err = call(monkeypatch, capsys, "show", tmp_path / f"{name}.png", *arguments, expect=1)
        assert err.startswith("error: ")
        assert f"{name}.png can't be" in err
        assert reason in err


def test_show_of_a_folder_passes_over_litter_and_names_dead_links(
    photos, tmp_path, monkeypatch, capsys
):
    source = tmp_path / "s"
    class_folders(source)
    (source / "__MACOSX").mkdir()
    (source / "__MACOSX" / "x.png").write_bytes(b"no image")
    (source / "a" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    arguments = ["show", source, "--out", tmp_path / "x.html", "--limit", "40"]
    out, err = call(monkeypatch, capsys, *arguments)
    assert "24 images" in out
    assert "dead.png is left out: its link leads nowhere" in err


def test_show_leaves_out_what_it_cannot_read_where_asked(photos, tmp_path, monkeypatch, capsys):
    source = tmp_path / "source"
    class_folders(source)
    (source / "a" / "0-x.png").write_bytes(b"no image")
    arguments = ["show", source, "--out", tmp_path / "x.html", "--limit", "40"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert err.endswith("as an image: it isn't an image, or its beginning is damaged\n")
    out, err = call(monkeypatch, capsys, *arguments, "--skip-bad")
    assert "23 images" in out
    assert err.startswith(f"skipped {source / 'a' / '0-x.png'} can't be read as an image")
    only = tmp_path / "only"
    only.mkdir()
    (only / "a.png").write_bytes(b"no image")
    arguments = ["show", only, "--out", tmp_path / "y.html", "--skip-bad"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert f"error: {only}: no image of the 1 files can be read\n" in err
    arguments = ["show", source / "b" / "0-x.png", "--out", tmp_path / "z.png", "--skip-bad"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "--skip-bad is for a set of images" in err
