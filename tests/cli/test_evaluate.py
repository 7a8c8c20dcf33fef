"""A trained model on sources other than the one it saw, or on that one after a change."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cli_cases import FAST, call, class_folders
from rankwise.heads.head import VarProHead


def trained_on(source, out, monkeypatch, capsys, *options):
    arguments = ["train", source, "--out", out, *FAST, *options, "--json"]
    return json.loads(call(monkeypatch, capsys, *arguments)[0])


CHANGED = "gives other test images than the run held out"


def test_a_source_that_has_changed_is_noticed(tmp_path, monkeypatch, capsys):
    """Another hold-out of it would hold images that the run trained on."""
    photos, out = tmp_path / "photos", tmp_path / "m"
    class_folders(photos, per_class=30)
    report = trained_on(photos, out, monkeypatch, capsys)
    evaluate = ["evaluate", out, photos, "--json"]
    evaluation = json.loads(call(monkeypatch, capsys, *evaluate)[0])
    assert evaluation["fingerprint"] == report["test"]["fingerprint"]
    few = json.loads(call(monkeypatch, capsys, *evaluate, "--limit", "4")[0])
    assert few["n_samples"] == 4
    # Another seed is another hold-out; other splits are what they are called.
    _, err = call(monkeypatch, capsys, *evaluate, "--seed", "7", expect=1)
    assert CHANGED in err
    call(monkeypatch, capsys, *evaluate, "--seed", "7", "--split", "all")
    shutil.copytree(photos, tmp_path / "copy")
    call(monkeypatch, capsys, "evaluate", out, tmp_path / "copy")
    shutil.copy(photos / "a" / "0-x.png", photos / "a" / "00-x.png")
    monkeypatch.chdir(tmp_path)
    for name in (photos, "photos", "photos/"):
        _, err = call(monkeypatch, capsys, "evaluate", out, name, expect=1)
        assert CHANGED in err
    text, _ = call(monkeypatch, capsys, "export", out, "--format", "safetensors")
    assert f"not compared with the model: {photos} {CHANGED}" in text


def test_what_was_skipped_is_said_with_a_limit_too(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "s", per_class=30)
    (tmp_path / "s" / "a" / "broken.png").write_bytes(b"no image")
    trained_on(tmp_path / "s", tmp_path / "m", monkeypatch, capsys, "--skip-bad")
    arguments = ["evaluate", tmp_path / "m", tmp_path / "s", "--skip-bad", "--json"]
    found = [
        json.loads(call(monkeypatch, capsys, *arguments, *limit)[0])
        for limit in ([], ["--limit", "4"])
    ]
    # Twelve are held out, the broken one among them.
    assert [e["n_samples"] for e in found] == [11, 4]
    assert [e["skipped"] for e in found] == [found[0]["skipped"]] * 2
    assert sum("broken.png" in line for line in found[0]["skipped"]) == found[0]["n_skipped"]


def test_a_test_split_of_its_own_may_change(tmp_path, monkeypatch, capsys):
    for part in ("train", "test"):
        class_folders(tmp_path / "s" / part)
    trained_on(tmp_path / "s", tmp_path / "m", monkeypatch, capsys)
    (tmp_path / "s" / "test" / "a" / "0-x.png").unlink()
    text, _ = call(monkeypatch, capsys, "evaluate", tmp_path / "m", tmp_path / "s", "--json")
    assert json.loads(text)["n_samples"] == 23


def test_the_pattern_of_the_run_is_for_its_own_images(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "photos", per_class=30)
    out = tmp_path / "m"
    report = trained_on(
        tmp_path / "photos", out, monkeypatch, capsys, "--source-pattern", r"^(\d+)-"
    )
    # The same files elsewhere: the pattern holds, and so the same images are held out.
    shutil.copytree(tmp_path / "photos", tmp_path / "moved")
    text, _ = call(monkeypatch, capsys, "evaluate", out, tmp_path / "moved", "--json")
    assert json.loads(text)["fingerprint"] == report["test"]["fingerprint"]
    # Arrays have no names, and other files have other ones.
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images, labels=np.array(["a", "b"] * 15))
    given = ["export", out, "--format", "safetensors", "--json"]
    for source in ("other.npz", "renamed"):
        if source == "renamed":
            (tmp_path / "photos" / "a" / "0-x.png").rename(tmp_path / "photos" / "a" / "no.png")
            (tmp_path / "photos").rename(tmp_path / "renamed")
        for seed in ([], ["--seed", "3"]):
            call(monkeypatch, capsys, "evaluate", out, tmp_path / source, *seed)
        text, _ = call(monkeypatch, capsys, *given, "--check", tmp_path / source)
        assert json.loads(text)["n_images"] == (30 if source == "other.npz" else 60)
    arguments = ["evaluate", out, tmp_path / "other.npz", "--source-pattern", "a"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "source_pattern needs images with file names" in err


def test_a_class_with_a_name_but_no_image(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)

    def part(labels):
        labels = np.array(labels)
        images = rng.normal(60 + 60 * labels[:, None, None], 20, (len(labels), 8, 8))
        return images.clip(0, 255).astype(np.uint8), labels

    parts = {"train": [0, 1] * 15, "val": [0, 1], "test": [0, 1] * 5}
    arrays, unknown = {}, {}
    for name, labels in parts.items():
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = part(labels)
    unknown["val_images"], unknown["val_labels"] = part([0, 1, 2])
    np.savez(tmp_path / "s.npz", **arrays)
    np.savez(tmp_path / "more.npz", **arrays | unknown)
    out = tmp_path / "m"
    arguments = ["train", tmp_path / "more.npz", "--out", tmp_path / "no"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "classes in validation images only, not in training: 2" in err
    report = trained_on(tmp_path / "s.npz", out, monkeypatch, capsys)
    text, _ = call(monkeypatch, capsys, "evaluate", out, tmp_path / "s.npz", "--json")
    assert json.loads(text)["accuracy"] == report["inductive_accuracy"]
    text, _ = call(monkeypatch, capsys, "export", out, "--format", "safetensors", "--json")
    assert json.loads(text)["accuracy_original"] == report["inductive_accuracy"]
    _, err = call(
        monkeypatch,
        capsys,
        "evaluate",
        out,
        tmp_path / "more.npz",
        "--split",
        "validation",
        expect=1,
    )
    assert "classes that the model doesn't know: 2" in err


@pytest.mark.parametrize("colours", [3, None])
def test_images_are_converted_to_the_model_s_kind(tmp_path, monkeypatch, capsys, colours):
    """A model of colour images on grey ones, or the other way round, as ``predict`` does it."""
    rng = np.random.default_rng(0)
    for place, channels in (("photos", colours), ("others", 3 if colours is None else None)):
        for level, name in enumerate("ab"):
            (tmp_path / place / name).mkdir(parents=True)
            for i in range(20):
                shape = (8, 8) if channels is None else (8, 8, channels)
                pixels = rng.normal(60 + 80 * level, 20, shape).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / place / name / f"{i}.png")
    out, others = tmp_path / "m", tmp_path / "others"
    trained_on(tmp_path / "photos", out, monkeypatch, capsys)
    arguments = ["evaluate", out, others, "--split", "all", "--json"]
    evaluation = json.loads(call(monkeypatch, capsys, *arguments)[0])
    files = sorted(others.rglob("*.png"))
    text, _ = call(monkeypatch, capsys, "predict", out, *files, "--json")
    right = [
        p["label"] == f.parent.name
        for p, f in zip(json.loads(text)["predictions"], files, strict=True)
    ]
    assert evaluation["accuracy"] == np.mean(right) > 0.8
    given = ["export", out, "--format", "safetensors", "--check", others, "--json"]
    assert json.loads(call(monkeypatch, capsys, *given)[0])["agreement"] == 1.0


def test_a_head_of_features_takes_no_images(tmp_path, monkeypatch, capsys, pictures):
    rng = np.random.default_rng(0)
    VarProHead().fit(rng.standard_normal((60, 5)), np.arange(60) % 3).save(tmp_path / "h")
    for arguments in (
        ["predict", tmp_path / "h", pictures / "one.png"],
        ["evaluate", tmp_path / "h", "digits"],
        ["export", tmp_path / "h", "--format", "safetensors", "--check", "digits"],
    ):
        _, err = call(monkeypatch, capsys, *arguments, expect=1)
        assert "holds a head of 5 features with the classes 0" in err
