"""Each format, run by the tool it is for, against the numpy reference of the same weights."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from export_cases import KINDS, digits_as, needs_compiler
from rankwise import ImageSet
from rankwise.errors import MissingDependencyError, ModelFileError
from rankwise.estimators.options import classifier_of
from rankwise.export import FORMATS, export_model, to_graph
from rankwise.export.c_source import c_identifier, c_source, write_c
from rankwise.export.check import C_FLAGS, run_c, run_export
from rankwise.export.onnx import IR_VERSION, OPSET, run_onnx, write_onnx
from rankwise.export.quantise import PRECISIONS, quantise
from rankwise.export.weights import fingerprint, read_weights, write_weights
from rankwise.networks.graph import Concatenate, Convolve, Dense, Flatten, Graph, Pool, ToMaps, run
from rankwise.networks.probabilities import OUTPUTS, probabilities

# test_page.py does the same with the page, which takes a browser and seconds.
RUNNERS = [
    pytest.param(name, marks=needs_compiler if name == "c" else ())
    for name in FORMATS
    if name != "html"
]

STRICT = (*C_FLAGS, "-Wconversion")


@pytest.mark.parametrize("file_format", RUNNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_gives_the_model_s_probabilities(fitted, tmp_path, kind, file_format):
    model, images, labels = fitted(kind)
    out = tmp_path / f"model{FORMATS[file_format]}"
    export_model(model, file_format, out)
    exported = run_export(out, file_format, images)
    original = model.predict_proba(images)
    # Rounding of float32 features, times coefficients of up to a hundred.
    np.testing.assert_allclose(exported, original, atol=1e-4)
    # One epoch of convolutional units is just enough for outputs that differ.
    least = 0.0 if kind == "convolutional" else 0.5
    assert np.mean(original.argmax(axis=1) == labels) > least
    assert np.ptp(original, axis=0).max() > 0.01


@pytest.mark.parametrize("file_format", RUNNERS)
@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("kind", ["symmetric", "rank-2", "colour"])
def test_fewer_bits_give_what_the_rounded_weights_give(
    fitted, tmp_path, kind, precision, file_format
):
    model, images, _ = fitted(kind)
    out = tmp_path / f"model{FORMATS[file_format]}"
    graph = to_graph(model)
    export_model(model, file_format, out, precision=precision)
    exported = run_export(out, file_format, images)
    reference = probabilities(run(quantise(graph, precision).rounded(), images), graph.output)
    np.testing.assert_allclose(exported, reference, atol=2e-5)
    assert np.abs(exported - model.predict_proba(images)).max() > 1e-6


@pytest.mark.parametrize("file_format", RUNNERS)
@pytest.mark.parametrize(
    ("precision", "output"), list(zip(PRECISIONS, OUTPUTS, strict=True)), ids=str
)
def test_every_operation_and_every_output(all_operations, tmp_path, file_format, precision, output):
    graph = all_operations(output)
    images = np.random.default_rng(1).integers(0, 256, (20, *graph.image_shape), dtype=np.uint8)
    out = tmp_path / f"model{FORMATS[file_format]}"
    write = {"onnx": write_onnx, "c": write_c, "safetensors": write_weights}[file_format]
    write(graph, out, precision=precision)
    reference = probabilities(run(quantise(graph, precision).rounded(), images), output)
    np.testing.assert_allclose(run_export(out, file_format, images), reference, atol=2e-5)
    assert np.ptp(reference, axis=0).min() > 0.05


def test_int8_of_units_with_outliers(tmp_path):
    graph, images = graph_with_outliers()
    quantised = quantise(graph, "int8")
    assert isinstance(quantised.graph.ops[0], Concatenate)
    reference = probabilities(run(quantised.rounded(), images), graph.output)
    write_onnx(graph, tmp_path / "m.onnx", precision="int8")
    np.testing.assert_allclose(
        run_onnx(tmp_path / "m.onnx", images)["probabilities"], reference, atol=2e-5
    )
    write_weights(graph, tmp_path / "m.safetensors", precision="int8")
    exported = run_export(tmp_path / "m.safetensors", "safetensors", images)
    np.testing.assert_allclose(exported, reference, atol=2e-5)


@needs_compiler
def test_int8_of_units_with_outliers_in_c(tmp_path):
    graph, images = graph_with_outliers()
    quantised = quantise(graph, "int8")
    reference = probabilities(run(quantised.rounded(), images), graph.output)
    source = write_c(graph, tmp_path / "m.h", precision="int8")
    np.testing.assert_allclose(run_c(tmp_path / "m.h", images), reference, atol=2e-5)
    # 12 units and 3 logits: branches write where they are joined.
    assert source.ram_bytes == 4 * 15


def graph_with_outliers():
    from rankwise.networks.quadratic import graph_of_units
    from rankwise.units.multilinear import make_units

    rng = np.random.default_rng(2)
    units = make_units("bilinear", (5, 6))
    params = rng.standard_normal((12, 12)).astype(np.float32)
    params[3, [2, 7]] = 900.0
    coef = rng.standard_normal((13, 3)) / 4
    graph = graph_of_units(units, params, coef, "abc", scale=255.0)
    return graph, rng.integers(0, 256, (30, 5, 6), dtype=np.uint8)


# -- ONNX ---------------------------------------------------------------------------------------


def test_onnx_says_what_it_is(fitted, tmp_path):
    model, images, _ = fitted("bilinear")
    out = tmp_path / "model.onnx"
    export_model(model, "onnx", out, precision="float16")
    file = onnx.load(out)
    assert file.ir_version == IR_VERSION
    assert [o.version for o in file.opset_import] == [OPSET]
    properties = {p.key: p.value for p in file.metadata_props}
    assert json.loads(properties["classes"]) == [str(k) for k in range(10)]
    assert properties["precision"] == "float16"
    assert properties["fingerprint"] == fingerprint(to_graph(model))
    image = file.graph.input[0]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    outputs = run_onnx(out, images)
    np.testing.assert_array_equal(outputs["label"], outputs["logits"].argmax(axis=1))
    np.testing.assert_allclose(outputs["logits"], model.outputs(images), atol=0.02)


def test_onnx_with_a_fixed_batch_pads_the_rest(fitted, tmp_path):
    model, images, _ = fitted("bilinear")
    export_model(model, "onnx", tmp_path / "any.onnx")
    export_model(model, "onnx", tmp_path / "seven.onnx", batch=7)
    any_number = run_onnx(tmp_path / "any.onnx", images[:24], block=10)
    by_seven = run_onnx(tmp_path / "seven.onnx", images[:24])
    for name, value in any_number.items():
        np.testing.assert_allclose(by_seven[name], value, atol=1e-6)
    sides = onnx.load(tmp_path / "seven.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in sides] == [7, 8, 8]
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        export_model(model, "onnx", tmp_path / "none.onnx", batch=0)


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_a_missing_library_is_named(fitted, tmp_path, monkeypatch, library):
    model, images, labels = fitted("bilinear")
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"needs the library {library}: pip install 'rankwise\[onnx\]'"
    # Without onnx nothing is written, without onnxruntime nothing is compared.
    test_images = ImageSet.from_arrays(images, labels) if library == "onnxruntime" else None
    with pytest.raises(MissingDependencyError, match=message):
        export_model(model, "onnx", tmp_path / "m.onnx", images=test_images)


def test_onnx_is_the_same_text_each_time(fitted, tmp_path):
    model, _, _ = fitted("colour")
    for name in ("one.onnx", "two.onnx"):
        export_model(model, "onnx", tmp_path / name, precision="int8")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


# -- C ------------------------------------------------------------------------------------------


def test_c_is_the_same_text_each_time_and_states_its_size(fitted):
    graph = to_graph(fitted("bilinear")[0])
    source = c_source(graph, "digits", precision="int8", provenance="Model x*/ y.")
    assert c_source(graph, "digits", precision="int8", provenance="Model x*/ y.") == source
    text = source.text
    assert " * Model x* / y.\n" in text
    assert f"{source.flash_bytes} bytes of tables (flash), {source.ram_bytes} bytes" in text
    assert "#define digits_PIXELS 64" in text
    assert f"#define digits_SCRATCH {source.ram_bytes // 4}" in text
    assert "malloc" not in text
    assert "@" not in text


def test_c_stores_what_lies_inside_the_windows(fitted):
    model = fitted("bilinear")[0]
    source = c_source(to_graph(model))
    n_units = len(model.network_.coef) - 1
    # First and length of two windows a unit beside the parameters, four bytes each.
    assert source.flash_bytes == 4 * model.n_parameters_total_ + 4 * n_units
    smaller = [c_source(to_graph(model), precision=p).flash_bytes for p in PRECISIONS]
    assert smaller[0] > smaller[1] > smaller[2]


@needs_compiler
def test_c_of_two_models_in_one_program(fitted, tmp_path):
    for name in ("first", "second"):
        write_c(to_graph(fitted("bilinear")[0]), tmp_path / f"{name}.h", precision="float16")
    (tmp_path / "main.c").write_text(
        '#include "first.h"\n#include "second.h"\n'
        "int main(void) { static uint8_t image[first_PIXELS]; float p[first_CLASSES];\n"
        "float scratch[second_SCRATCH];\n"
        "return first_predict(image, p) != second_predict_with(image, p, scratch); }\n"
    )
    command = ["cc", *STRICT, "main.c", "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "main"], check=True)


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_number_changes_its_type_unasked(fitted, tmp_path, kind, precision):
    source = write_c(to_graph(fitted(kind)[0]), tmp_path / "m.h", precision=precision)
    command = ["cc", *STRICT, "-fsyntax-only", "-x", "c", f"-D{source.name}_MAIN"]
    result = subprocess.run(
        [*command, tmp_path / "m.h"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my model-2", "my_model_2"),
        ("2nd", "model_2nd"),
        ("é", "rankwise_model"),
        ("", "rankwise_model"),
    ],
)
def test_names_become_identifiers(text, name):
    assert c_identifier(text) == name


def test_a_name_that_is_none_is_refused(fitted):
    with pytest.raises(ValueError, match="name must be a C identifier, got 'a b'"):
        c_source(to_graph(fitted("bilinear")[0]), "a b")


def test_maps_run_through_row_by_row():
    """Two pixel rows of a 180-pixel photo as floats would be 4 kB, the whole of it 389 kB."""
    convolution = Convolve(np.ones((8, 3, 3, 3)), np.zeros(8), padding=1)
    behind = (Pool("mean", 30), Flatten(), Dense(np.ones((8, 2)), np.zeros(2)))
    ops = (ToMaps(), Pool("mean", 6), convolution, *behind)
    graph = Graph((180, 180, 3), ops, ("a", "b"), scale=255.0)
    row, shrunk, patches, maps = 3 * 180, 3 * 30, 32 * 3 * 3, 8 * 30
    features = 8
    logits = 2
    most = row + shrunk + patches + maps + 8 + features + logits
    assert c_source(graph).ram_bytes <= 4 * most


# -- safetensors ----------------------------------------------------------------------------------


def test_weights_come_back(all_operations, tmp_path):
    graph = all_operations("sigmoid", scale=1.0)
    write_weights(graph, tmp_path / "m.safetensors")
    back = read_weights(tmp_path / "m.safetensors")
    assert fingerprint(back) == fingerprint(graph)
    assert fingerprint(replace(graph, scale=2.0)) != fingerprint(graph)


def test_foreign_and_damaged_weights_are_refused(fitted, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "m.safetensors"
    with pytest.raises(ModelFileError, match="can't be read: No such file"):
        read_weights(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="isn't an exported graph of format rankwise-graph 1"):
        read_weights(path)
    about = {
        "format": "rankwise-graph",
        "format_version": "1",
        "graph": '{"ops": [{"tensor": "t9"}]}',
    }
    save_file({"a": np.zeros(2)}, path, about)
    with pytest.raises(ModelFileError, match="is damaged: KeyError"):
        read_weights(path)


# -- export_model ---------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_said(fitted, tmp_path):
    model = fitted("bilinear")[0]
    for arguments, message in (
        (
            {"file_format": "tflite"},
            "unknown format 'tflite'; accepted: onnx, c, html, safetensors",
        ),
        ({"precision": "int4"}, "unknown precision 'int4'; accepted: float32, float16, int8"),
        ({"file_format": "c", "batch": 2}, "batch is for the format onnx only"),
        ({"out": tmp_path}, "is a folder; give the file to write"),
        ({"model": object()}, "a object can't be exported: a fitted classifier or head"),
    ):
        given = {"model": model, "file_format": "onnx", "out": tmp_path / "m"} | arguments
        with pytest.raises(ValueError, match=message):
            export_model(**given)
    assert not list(tmp_path.iterdir())


def test_anything_with_a_graph_can_be_exported(fitted, tmp_path):
    graph = to_graph(fitted("bilinear")[0])

    class Model:
        def as_graph(self) -> Graph:
            return graph

    report = export_model(Model(), "safetensors", str(tmp_path / "m.safetensors"))
    assert report["fingerprint"] == fingerprint(graph)
    assert report["n_parameters"] == 30 * (8 + 8 + 1) + 31 * 10


def test_the_home_folder_in_the_name_of_an_export(fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    report = export_model(fitted("bilinear")[0], "safetensors", "~/m.safetensors")
    assert report["files"] == [str(tmp_path / "m.safetensors")]
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("file_format", ["onnx", "safetensors"])
def test_grey_images_with_an_axis_for_their_channel_are_compared(file_format, tmp_path):
    images, labels = digits_as("grey")
    model = classifier_of(n_units=20, n_subnets=1, max_iter=2).fit(
        images[:300, ..., None], labels[:300]
    )
    held = ImageSet.from_arrays(images[300:400], labels[300:400])
    out = tmp_path / f"m{FORMATS[file_format]}"
    report = export_model(model, file_format, out, images=held)
    assert report["agreement"] == 1.0
