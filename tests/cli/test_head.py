"""``rankwise head``, and the other commands on its result."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from cli_cases import FAST, call, class_folders
from rankwise._files import PART
from rankwise.cli.head import _classes
from rankwise.estimators.models import load_model
from rankwise.heads.backbones import SmallResNet, save_backbone
from rankwise.runs.heads import _by_class


def test_a_class_without_test_images_has_no_accuracy():
    found = _by_class(np.array([[3, 1], [0, 0]]), SimpleNamespace(classes_=["a", "b"]))
    assert [row["accuracy"] for row in found.values()] == [0.75, None]
    assert _classes({"accuracy_by_class": found})[1] == ("b", "0", "–")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "small.safetensors"
    options = {"width": 8, "n_features": 64}
    record = {"architecture": "small-resnet", "n_classes": 4, "options": options}
    save_backbone(SmallResNet(4, **options), path, record)
    return path


@pytest.fixture
def options(backbone):
    return ["--backbone", backbone, "--size", 16, "--limit", 300]


def test_head_and_everything_after_it(monkeypatch, capsys, options, tmp_path):
    out = tmp_path / "head"
    text, _ = call(monkeypatch, capsys, "head", "digits", *options, "--out", out, "--json")
    report = json.loads(text)
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["inductive_accuracy"] > 0.7
    assert abs(report["leave_one_out_accuracy"] - report["inductive_accuracy"]) < 0.1
    assert 0 <= report["calibration_error"] < 0.2
    assert report["alpha_chosen_by"] == "loo"
    assert report["n_features"] == 64
    assert report["train"]["n_samples"] == 300
    wrong = report["likely_wrong_labels"]
    assert len(wrong) == min(100, report["n_against_label"])
    assert [w["margin"] for w in wrong] == sorted(w["margin"] for w in wrong)
    assert set(report["seconds"]) == {"load", "features", "head", "total"}
    assert sum(map(sum, report["confusion"])) == report["test"]["n_samples"]
    names = {p.name for p in out.iterdir()}
    assert names == {
        "run.json",
        "report.json",
        "model.json",
        "model.safetensors",
        "backbone.safetensors",
        "features",
        "confusion.png",
        "likely_wrong_labels.png",
        "explore.html",
    }
    assert set(report["accuracy_by_class"]) == set(map(str, range(10)))
    rows = report["accuracy_by_class"].values()
    assert sum(r["n_samples"] * r["accuracy"] for r in rows) == pytest.approx(
        report["inductive_accuracy"] * report["test"]["n_samples"]
    )
    assert sum(b["n_samples"] for b in report["calibration"]) == report["test"]["n_samples"]
    assert all(w["others_say"] != w["label"] for w in wrong)
    assert report["images_per_second"] > 0
    # Again, with another ridge, in the same folder: the features are there.
    table, _ = call(
        monkeypatch, capsys, "head", "digits", *options, "--out", out, "--alpha", "3", "--balanced"
    )
    assert max(len(line) for line in table.splitlines() if str(out) not in line) <= 80
    assert "3 (given)" in table
    assert len(list((out / "features").iterdir())) == 2
    # evaluate holds out what this run held out.
    text, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--json")
    evaluated = json.loads(text)
    again = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert evaluated["accuracy"] == pytest.approx(again["inductive_accuracy"])
    assert evaluated["confusion"] == again["confusion"]
    path = tmp_path / "zero.png"
    pixels = (load_digits().images[0] * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).resize((16, 16)).save(path)
    text, _ = call(monkeypatch, capsys, "predict", out, path, "--json")
    (found,) = json.loads(text)["predictions"]
    assert found["label"] == "0"
    assert sum(found["probabilities"].values()) == pytest.approx(1.0)
    text, _ = call(
        monkeypatch, capsys, "export", out, "--format", "safetensors", "--check", "digits", "--json"
    )
    assert json.loads(text)["agreement"] > 0.99
    assert load_model(out).image_shape_ == (16, 16)


def test_gcv_rank_and_overwrite(monkeypatch, capsys, options, tmp_path):
    arguments = ["head", "digits", *options, "--out", tmp_path, "--alpha", "gcv", "--rank", 20]
    text, _ = call(monkeypatch, capsys, *arguments, "--seed", 3, "--overwrite", "--json")
    report = json.loads(text)
    assert (report["alpha_chosen_by"], report["rank"]) == ("gcv", 20)
    text, _ = call(monkeypatch, capsys, *arguments, "--overwrite", "--json")
    assert len(list((tmp_path / "features").iterdir())) == 2, "those of seed 3 are gone"


def test_what_is_not_accepted(monkeypatch, capsys, options, backbone, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = ["--out", tmp_path / "new"]
    cases = [
        (["head", "digits", *options, "--out", tmp_path / "full"], "holds no head", 1),
        (["head", "digits", *options, "--out", tmp_path / "file"], "is a file", 1),
        (["head", "digits", "--backbone", "none", *out], "unknown backbone 'none'", 1),
        (["head", "digits", *options, *out, "--alpha", "much"], "a number, loo or gcv", 2),
        (["head", "digits", *options, *out, "--alpha", "-1"], "number at least 0", 1),
        (["head", "nowhere", *options, *out], "nowhere", 1),
        (["head", "digits", *out], "--backbone", 2),
    ]
    for arguments, message, status in cases:
        _, error = call(monkeypatch, capsys, *arguments, expect=status)
        assert message in error
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "model.json").write_bytes(b"\xff\xfe\x00")
    _, error = call(
        monkeypatch, capsys, "head", "digits", *options, "--out", tmp_path / "binary", expect=1
    )
    assert "holds no head" in error
    assert (tmp_path / "full" / "notes.txt").exists()
    assert not (tmp_path / "new").exists() or not (tmp_path / "new" / "model.json").exists()


def test_a_folder_of_that_name_is_not_taken_for_a_cache(monkeypatch, capsys, options, tmp_path):
    features = tmp_path / "project" / "features"
    features.mkdir(parents=True)
    (features / "mine.csv").write_text("1,2\n", encoding="utf-8")
    arguments = ["head", "digits", *options, "--out", tmp_path / "project", "--overwrite"]
    _, error = call(monkeypatch, capsys, *arguments, expect=1)
    assert "isn't empty and holds no head" in error
    (tmp_path / "project" / "report.json").write_text("{}", encoding="utf-8")
    _, error = call(monkeypatch, capsys, *arguments[:-1], expect=1)
    assert "isn't empty and holds no head" in error
    assert {p.name for p in (tmp_path / "project").iterdir()} == {"features", "report.json"}
    # What an interrupted head leaves is taken up, what somebody puts there later is kept.
    features = tmp_path / "begun" / "features"
    features.mkdir(parents=True)
    (features / "features-0123.npy").write_bytes(b"")
    (features / f"{PART}00000000-1-x-features-4567.npy").write_bytes(b"")
    arguments[-2] = tmp_path / "begun"
    call(monkeypatch, capsys, *arguments[:-1], "--json")
    (features / "mine.csv").write_text("1,2\n", encoding="utf-8")
    call(monkeypatch, capsys, *arguments, "--json")
    assert (features / "mine.csv").exists()
    assert not (features / "features-0123.npy").exists()


def test_training_over_a_head_leaves_nothing_of_it(monkeypatch, capsys, options, tmp_path):
    out = tmp_path / "m"
    call(monkeypatch, capsys, "head", "digits", *options, "--out", out, "--json")
    for file_format in ("safetensors", "onnx"):
        call(monkeypatch, capsys, "export", out, "--format", file_format, "--no-check")
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    named = ["--out", out / "rankwise_model_shipped.onnx"]
    call(monkeypatch, capsys, "export", out, "--format", "onnx", "--no-check", *named)
    arguments = ["train", "digits", "--out", out, *FAST, "--overwrite", "--json"]
    call(monkeypatch, capsys, *arguments)
    names = {p.name for p in out.iterdir()}
    pictures = {"units.png", "confusion.png", "explore.html"}
    assert names == pictures | {
        "run.json",
        "report.json",
        "model.json",
        "model.safetensors",
        "subnets",
        "notes.txt",
        "rankwise_model_shipped.onnx",
    }
    _, error = call(monkeypatch, capsys, "head", "digits", *options, "--out", out, expect=1)
    assert "isn't empty and holds no head" in error
    assert names == {p.name for p in out.iterdir()}


def test_a_head_stays_until_the_next_one_is_ready(monkeypatch, capsys, options, tmp_path):
    out = tmp_path / "head"
    call(monkeypatch, capsys, "head", "digits", *options, "--out", out, "--json")
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    mistakes = [
        (["--backbone", "nope.safetensors"], "nope.safetensors"),
        (["--alpha", "-1"], "number at least 0"),
        (["--rank", "0"], "rank must be a whole number"),
        (["--loss", "hinge"], "loss must be"),
        (["--device", "tpu"], "device must be"),
        (["--alpha", "gcv", "--loss", "logistic"], "alpha='gcv' is of the squared loss"),
    ]
    for mistake, message in mistakes:
        for more in ([], ["--overwrite"]):
            arguments = ["head", "digits", *options, "--out", out, *mistake, *more]
            _, error = call(monkeypatch, capsys, *arguments, expect=1)
            assert message in error
            assert "Reading images" not in error, "refused before anything is read"
    _, error = call(monkeypatch, capsys, "head", "nowhere", *options, "--out", out, expect=1)
    assert before == {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    assert len(list((out / "features").iterdir())) == 2
    # Damaged features are made again.
    for path in (out / "features").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    text, _ = call(
        monkeypatch,
        capsys,
        "head",
        "digits",
        *options,
        "--out",
        out,
        "--loss",
        "logistic",
        "--json",
    )
    report = json.loads(text)
    assert (report["loss"], report["alpha_chosen_by"]) == ("logistic", "cross-validation")
    assert report["inductive_accuracy"] > 0.7
    assert load_model(out).loss_ == "logistic"


def test_train_with_a_backbone_fits_a_head(monkeypatch, capsys, backbone, tmp_path):
    arguments = ["train", "digits", "--backbone", backbone, "--size", 16, "--limit", 100]
    text, _ = call(monkeypatch, capsys, *arguments, "--out", tmp_path / "head", "--json")
    assert json.loads(text)["alpha_chosen_by"] == "loo"
    assert load_model(tmp_path / "head").n_features_in_ == 64
    _, error = call(
        monkeypatch, capsys, *arguments, "--units", 8, "--preset", "tiny",
        "--out", tmp_path / "other", expect=2,
    )  # fmt: skip
    assert "a last layer, which has no n_units, preset" in error
    assert not (tmp_path / "other").exists()


def test_numbers_of_a_backbone_s_channels(monkeypatch, capsys, options, tmp_path):
    arguments = ["head", "digits", *options, "--out", tmp_path / "h", "--backbone-mean"]
    _, error = call(monkeypatch, capsys, *arguments, "half", expect=2)
    assert "--backbone-mean takes numbers with commas between" in error
    _, error = call(monkeypatch, capsys, *arguments, "0.5,0.5,0.5", expect=1)
    assert "give both or neither" in error
    wrong = ["0.5,0.5", "--backbone-std", "0.5,0.5"]
    _, error = call(monkeypatch, capsys, *arguments, *wrong, expect=1)
    assert "mean has 2 value(s) for 3 channel(s); one for all of them or one for each" in error
    more = ["0.5,0.5,0.5", "--backbone-std", "0.2,0.2,0.2", "--backbone-size", 20]
    more += ["--backbone-power", 0.5]
    call(monkeypatch, capsys, *arguments, *more, "--json")
    preparation = load_model(tmp_path / "h")._backbone().preparation
    assert (preparation.size, preparation.mean) == (20, (0.5, 0.5, 0.5))
    assert preparation.power == 0.5


def test_a_head_s_folder_is_no_part_of_its_source(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "set")
    _, err = call(monkeypatch, capsys, "head", tmp_path / "set", "--out", tmp_path / "set" / "head",
                  "--backbone", "small.safetensors", expect=1)  # fmt: skip
    assert "lies inside the source" in " ".join(err.split())
    assert not (tmp_path / "set" / "head").exists()
