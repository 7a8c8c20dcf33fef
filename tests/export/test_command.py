"""``rankwise export`` as a user meets it."""

import json
import sys

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits

from export_cases import needs_compiler
from rankwise import QuadraticClassifier, load_images
from rankwise.cli import main
from rankwise.export import FORMATS
from rankwise.export.quantise import PRECISIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    train = load_images("digits", limit=400)
    model = QuadraticClassifier(n_units=30, n_subnets=1, max_iter=2)
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


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "file_format", [pytest.param(f, marks=needs_compiler if f == "c" else ()) for f in FORMATS]
)
def test_report_of_a_checked_export(folder, call, file_format, precision):
    given = ["--format", file_format, "--precision", precision, "--check", "digits", "--json"]
    report = json.loads(call(folder, *given))
    suffix = "" if precision == "float32" else f"_{precision}"
    out = folder / f"rankwise_model{suffix}{FORMATS[file_format]}"
    assert report["files"] == [str(out)]
    assert report["bytes"] == out.stat().st_size
    assert report["format"] == file_format
    assert report["precision"] == precision
    assert report["check"] == "digits"
    model, test = QuadraticClassifier.load(folder), load_images("digits", split="test")
    names = np.asarray(test.class_names)[test.labels]
    assert report["n_images"] == len(test)
    assert report["n_parameters"] == model.n_parameters_total_
    assert report["accuracy_original"] == pytest.approx(model.score(test.images, names))
    loss = report["accuracy_original"] - report["accuracy_exported"]
    assert abs(loss) <= {"float32": 0.0, "float16": 0.01, "int8": 0.05}[precision]
    assert report["agreement"] >= 1 - {"float32": 0.0, "float16": 0.01, "int8": 0.1}[precision]
    assert (report["max_abs_difference"] < 1e-5) == (precision == "float32")
    assert ("ram_bytes" in report) == (file_format == "c")


def test_without_a_check_nothing_is_compared(folder, call, tmp_path):
    out = tmp_path / "elsewhere" / "watch.h"
    text = call(folder, "--format", "c", "--out", out)
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
        (["--format", "tflite"], "unknown format 'tflite'; accepted: onnx, c, safetensors"),
        (["--format", "c", "--precision", "int2"], "unknown precision 'int2'; accepted: float32"),
        (["--format", "c", "--batch", "3"], "batch is for the format onnx only"),
        (["--format", "c", "--out", "."], "is a folder; give the file to write"),
        (["--format", "c", "--check", "no-such-source"], "no-such-source"),
    ],
)
def test_mistakes_are_one_sentence(folder, call, arguments, message):
    error = call(folder, *arguments, expect=1)
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


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
