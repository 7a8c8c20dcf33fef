"""``rankwise export`` as a user meets it."""

import json
import shutil
import sys

import numpy as np
import onnx
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from browser import needs_browser
from cli_cases import class_folders
from export_cases import needs_compiler
from rankwise import ConvolutionalClassifier, load_images, load_model, runs
from rankwise.cli import main
from rankwise.estimators.options import classifier_of
from rankwise.export import FORMATS, export_model
from rankwise.export.quantise import PRECISIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    train = load_images("digits", limit=400)
    model = classifier_of(n_units=30, n_subnets=1, max_iter=2)
    model.fit(train.images, np.asarray(train.class_names)[train.labels]).save(out)
    return out


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments, expect=0):
        monkeypatch.setattr(sys, "argv", ["rankwise", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        output = capsys.readouterr()
        assert (stop.value.code or 0) == expect, output.err
        return output.out if expect == 0 else output.err

    return run


def test_an_export_of_a_model_that_averages_over_copies_takes_each_image_once(
    tmp_path, monkeypatch, capsys
):
    digits = load_digits()
    images, labels = digits.images[:100], digits.target[:100]
    model = ConvolutionalClassifier("nano", epochs=1, tta="shifts").fit(images, labels)
    model.save(tmp_path)
    out = tmp_path / "model.onnx"
    given = ["rankwise", "export", str(tmp_path), "--format", "onnx", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*given, "--no-check"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "note: the model averages over copies of each image (tta='shifts'); the export, and what "
        "it is compared with, take each image once" in told
    )
    names = [node.op_type for node in onnx.load(out).graph.node]
    model.set_params(tta=None)
    export_model(model, "onnx", tmp_path / "alone.onnx")
    assert names == [node.op_type for node in onnx.load(tmp_path / "alone.onnx").graph.node]


TOOLS = {"c": needs_compiler, "html": needs_browser}
CHECKED = [
    pytest.param(f, p, marks=TOOLS.get(f, ()))
    for f in FORMATS
    for p in PRECISIONS
    if f != "html" or p == "int8"  # a browser takes seconds to start
]


@pytest.mark.parametrize(("file_format", "precision"), CHECKED)
def test_report_of_a_checked_export(folder, call, tmp_path, file_format, precision):
    test = load_images("digits", split="test")
    names = np.asarray(test.class_names)[test.labels]
    source = tmp_path / "test.npz"
    np.savez(source, images=test.images, labels=names)
    given = ["--format", file_format, "--precision", precision, "--check", source, "--json"]
    report = json.loads(call(folder, *given))
    suffix = "" if precision == "float32" else f"_{precision}"
    out = folder / f"rankwise_model{suffix}{FORMATS[file_format]}"
    assert report["files"] == [str(out)]
    assert report["bytes"] == out.stat().st_size
    assert report["format"] == file_format
    assert report["precision"] == precision
    assert report["check"] == str(source)
    model = load_model(folder)
    assert report["n_images"] == len(test)
    assert report["n_parameters"] == model.n_parameters_total_
    assert report["accuracy_original"] == pytest.approx(model.score(test.images, names))
    loss = report["accuracy_original"] - report["accuracy_exported"]
    assert abs(loss) <= {"float32": 0.0, "float16": 0.01, "int8": 0.05}[precision]
    assert report["agreement"] >= 1 - {"float32": 0.0, "float16": 0.01, "int8": 0.1}[precision]
    assert (report["max_abs_difference"] < 1e-5) == (precision == "float32")
    assert ("ram_bytes" in report) == (file_format == "c")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, which says what its test images are."""
    out = tmp_path_factory.mktemp("run")
    parameters = {"n_units": 30, "n_subnets": 1, "max_iter": 2}
    runs.train(runs.TrainingRun("digits", parameters=parameters, limit=400), out, workers=1)
    return out


def test_a_run_is_compared_on_its_own_test_images(run, call, tmp_path):
    given = ["--format", "safetensors", "--precision", "int8", "--out", tmp_path / "m"]
    text = call(run, *given)
    assert "int8 weights\n" in text
    assert "test images of digits: accuracy " in text
    report = json.loads(call(run, *given, "--json"))
    assert report["check"] == "digits"
    assert report["not_compared"] is None
    known = json.loads((run / "report.json").read_text())
    assert report["accuracy_original"] == known["inductive_accuracy"]
    assert report["n_images"] == known["test"]["n_samples"]
    assert "accuracy" not in call(run, *given, "--no-check")
    assert json.loads(call(run, *given, "--no-check", "--json"))["check"] is None
    assert "exclude each other" in call(run, *given, "--no-check", "--check", "digits", expect=2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [("no-such-source", "no-such-source"), (3, "run.json is damaged: its run has no source")],
)
def test_what_hinders_the_comparison_is_said(run, call, tmp_path, source, reason):
    place = tmp_path / "m"
    shutil.copytree(run, place)
    record = json.loads((place / "run.json").read_text())
    record["run"]["source"] = source
    (place / "run.json").write_text(json.dumps(record))
    text = call(place, "--format", "safetensors")
    assert (place / "rankwise_model.safetensors").exists()
    assert "not compared with the model: " in text
    assert reason in text


def test_without_a_compiler_the_header_is_there(run, call, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    text = call(run, "--format", "c", "--out", tmp_path / "a.h")
    assert "not compared with the model: checking a C export needs a C compiler" in text
    assert (tmp_path / "a.h").exists()
    given = ["--format", "c", "--out", tmp_path / "b.h", "--check", "digits"]
    assert "needs a C compiler" in call(run, *given, expect=1)
    assert (tmp_path / "b.h").exists()


def test_the_test_images_are_those_that_the_run_could_read(tmp_path, call):
    """A run with --skip-bad is compared on what it could read."""
    rng = np.random.default_rng(0)
    for level, name in enumerate("ab"):
        place = tmp_path / "photos" / name
        place.mkdir(parents=True)
        for i in range(20):
            pixels = rng.normal(60 + 80 * level, 20, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
        (place / "broken.png").write_bytes(b"no image")
    out = tmp_path / "run"
    asked = runs.TrainingRun(
        str(tmp_path / "photos"),
        parameters={"n_units": 4, "n_subnets": 1, "max_iter": 1},
        reading={"on_error": "skip"},
    )
    known = runs.train(asked, out, workers=1)
    report = json.loads(call(out, "--format", "safetensors", "--json"))
    assert report["not_compared"] is None
    assert report["n_images"] == known["test"]["n_samples"]
    assert report["accuracy_original"] == known["inductive_accuracy"]


def test_scales_of_whole_numbers_are_of_images_that_the_run_could_read(tmp_path, call):
    folder = tmp_path / "photos"
    class_folders(folder, per_class=20)
    for name in "ab":
        (folder / name / "broken.png").write_bytes(b"no image")
    out, reading = tmp_path / "run", {"on_error": "skip"}
    asked = runs.TrainingRun(
        str(folder), preset="nano", parameters={"max_iter": 1}, reading=reading
    )
    runs.train(asked, out, workers=1)
    text = call(out, "--format", "c", "--precision", "int8", "--no-check")
    assert "rankwise_model_int8.h" in text.replace("\n", "")


def test_an_exported_file_is_no_model_folder(run, call, tmp_path):
    out = tmp_path / "m.safetensors"
    call(run, "--format", "safetensors", "--out", out, "--no-check")
    error = call(out, "--format", "c", expect=1)
    assert f"{out} is a file; give the folder of a trained model" in error


def test_without_a_run_nothing_is_compared(folder, call, tmp_path):
    out = tmp_path / "elsewhere" / "watch.h"
    text = call(folder, "--format", "c", "--out", out)
    assert "not compared with the model: " in text
    assert "holds no run that says its test images; name their source" in text
    assert text.startswith(f"{out}: {out.stat().st_size:,} bytes, ")
    assert "of weights (flash), 160 bytes of scratch (RAM)" in text
    assert "accuracy" not in text
    assert "int watch_predict(const uint8_t *image" in out.read_text()
    assert "accuracy_original" not in json.loads(call(folder, "--format", "c", "--json"))


def test_the_loss_is_printed(folder, call, tmp_path):
    out = tmp_path / "m.onnx"
    given = ["--format", "onnx", "--precision", "float16", "--check", "digits", "--out", out]
    text = call(folder, *given, "--batch", 1)
    assert "float16 weights" in text
    assert "test images of digits: accuracy " in text
    assert " points); largest difference of a probability " in text
    sides = onnx.load(out).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in sides] == [1, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "unknown format 'tflite'; accepted: onnx, c, html, safetensors"),
        (["--format", "c", "--precision", "int2"], "unknown precision 'int2'; accepted: float32"),
        (["--format", "c", "--batch", "3"], "batch is for the format onnx only"),
        (["--format", "c", "--out", "."], "is a folder; give the file to write"),
        (
            ["--format", "c", "--out", "e.txt"],
            "e.txt isn't the name of a c file, which ends in .h or .hh or .hpp or .c or .inc; "
            "choose another name",
        ),
        (["--format", "c", "--check", "no-such-source"], "no-such-source"),
    ],
)
def test_mistakes_are_one_sentence(folder, call, arguments, message):
    error = call(folder, *arguments, expect=1)
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "run.json", "report.json"])
def test_an_export_never_replaces_the_model(run, call, monkeypatch, name):
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    monkeypatch.chdir(run)
    for out in (run / name, name):
        error = call(run, "--format", "safetensors", "--out", out, expect=1)
        assert f"{out} belongs to the model itself; choose another file" in error
    assert before == {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def test_a_folder_without_a_model_is_said(call, tmp_path):
    assert "model.json can't be read" in call(tmp_path, "--format", "c", expect=1)


def test_classes_that_the_model_does_not_know(folder, call, tmp_path):
    bunch = load_digits()
    np.savez(
        tmp_path / "letters.npz",
        images=(bunch.images[:60] * 15).astype(np.uint8),
        labels=np.array([f"letter {i % 3}" for i in range(60)]),
    )
    given = ["--format", "safetensors", "--out", tmp_path / "m", "--check"]
    error = call(folder, *given, tmp_path / "letters.npz", expect=1)
    assert "classes that the model doesn't know: letter 0, letter 1, letter 2" in error
