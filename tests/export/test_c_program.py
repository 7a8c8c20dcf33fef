"""The C export as a program: compiled, fed with images, and what can go wrong on the way."""

import dataclasses
import subprocess

import numpy as np
import pytest

from export_cases import needs_compiler
from rankwise.errors import MissingDependencyError, RankwiseError
from rankwise.export import to_graph
from rankwise.export.c_source import write_c
from rankwise.export.check import C_FLAGS, run_c
from rankwise.networks.graph import Activate, Dense, Graph, RankOneForms, run
from rankwise.networks.probabilities import probabilities

STRICT = (*C_FLAGS, "-Wconversion")


def compiled(graph, path):
    source = write_c(graph, path)
    program = path.with_suffix("")
    command = ["cc", *STRICT, "-x", "c", f"-D{source.name}_MAIN", path, "-lm"]
    subprocess.run([*command, "-o", program], check=True)
    return program


@needs_compiler
def test_the_program_reads_portable_maps(fitted, tmp_path):
    for kind, magic, maps in (
        ("bilinear", b"P5", "portable grey maps (PGM)"),
        ("colour", b"P6", "portable pixel maps (PPM)"),
    ):
        model, images, _ = fitted(kind)
        program = compiled(to_graph(model), tmp_path / f"{kind}.h")
        files = [magic + b"\n# a comment\n8 8\n255\n" + image.tobytes() for image in images[:3]]
        result = subprocess.run([program], input=b"".join(files), capture_output=True, check=True)
        labels = [line.split("\t")[0] for line in result.stdout.decode().splitlines()]
        assert labels == [str(c) for c in model.predict(images[:3])]
        expected = f"expected {maps}, or with the argument raw bare values of uint8_t; an image is"
        for broken, message in (
            (b"P2\n8 8\n255\n", f"{expected} 8 x 8"),
            (magic + b"\n8 9\n255\n", expected),
            (magic + b"\n8 8\n15\n", expected),
            (files[0][:-1], "an image ends too early"),
        ):
            result = subprocess.run([program], input=broken, capture_output=True, check=False)
            assert result.returncode == 1
            assert message in result.stderr.decode()


@needs_compiler
def test_labels_of_any_kind_are_strings_in_c(all_operations, tmp_path):
    program = compiled(all_operations(), tmp_path / "m.h")
    images = np.random.default_rng(3).integers(0, 256, (40, 6, 7, 2), dtype=np.uint8)
    result = subprocess.run(
        [program, "raw"], input=images.tobytes(), capture_output=True, check=True
    )
    labels = {line.split("\t")[0] for line in result.stdout.decode().splitlines()}
    assert labels <= {"a", 'b"\\?', "ü"}
    assert len(labels) > 1
    # Two channels are no portable map.
    result = subprocess.run([program], input=b"P6", capture_output=True, check=False)
    assert result.returncode == 1
    message = "expected the argument raw, and bare values of uint8_t; an image is 6 x 7 x 2\n"
    assert result.stderr.decode() == message


@needs_compiler
def test_labels_with_tabs_and_line_ends_are_one_field(all_operations, tmp_path):
    graph = all_operations()
    images = np.random.default_rng(3).integers(0, 256, (40, 6, 7, 2), dtype=np.uint8)
    reference = probabilities(run(graph, images), graph.output)
    # The two classes that are found most often have the labels.
    first, second = np.argsort(-np.bincount(reference.argmax(axis=1), minlength=3))[:2]
    assert {first, second} <= set(reference.argmax(axis=1))
    classes = ["d"] * 3
    classes[first], classes[second] = "a\tb\nc", "e\u2028f\x85"
    graph = dataclasses.replace(graph, classes=tuple(classes))
    write_c(graph, tmp_path / "m.h")
    np.testing.assert_allclose(run_c(tmp_path / "m.h", images), reference, atol=2e-5)
    program = compiled(graph, tmp_path / "n.h")
    result = subprocess.run(
        [program, "raw"], input=images.tobytes(), capture_output=True, check=True
    )
    labels = {line.split("\t")[0] for line in result.stdout.decode().split("\n")[:-1]}
    assert {"a b c", "e\u2028f\x85"} <= labels <= {"a b c", "d", "e\u2028f\x85"}


def test_labels_that_are_no_utf_8_are_spelled(all_operations, tmp_path):
    graph = dataclasses.replace(all_operations(), classes=("a", "b", "c\udcff"))
    write_c(graph, tmp_path / "m.h")
    assert r'"c\134udcff"' in (tmp_path / "m.h").read_text(encoding="utf-8")


@needs_compiler
def test_more_images_than_the_program_is_given_at_once(fitted, tmp_path):
    model, images, _ = fitted("floats")
    write_c(to_graph(model), tmp_path / "m.h")
    many = np.concatenate([images] * (600 // len(images) + 1))
    found = run_c(tmp_path / "m.h", many)
    np.testing.assert_allclose(found, model.predict_proba(many), atol=2e-5)


@needs_compiler
def test_windows_of_very_long_rows(tmp_path):
    """Positions beyond 16 bits."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((1, 3, 70_000), np.float32)
    for unit, first in enumerate((0, 40_000, 69_900)):
        vectors[0, unit, first : first + 50] = rng.standard_normal(50)
    forms = RankOneForms((np.ones((1, 3, 1), np.float32), vectors), np.zeros(3, np.float32))
    dense = Dense(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    graph = Graph((1, 70_000), (forms, Activate("tanh"), dense), tuple("abc"), scale=255.0)
    images = rng.integers(0, 256, (6, 1, 70_000), dtype=np.uint8)
    write_c(graph, tmp_path / "m.h")
    reference = probabilities(run(graph, images), graph.output)
    np.testing.assert_allclose(run_c(tmp_path / "m.h", images), reference, atol=2e-5)


@needs_compiler
def test_a_compiler_may_have_arguments(fitted, tmp_path, monkeypatch):
    model, images, _ = fitted("bilinear")
    write_c(to_graph(model), tmp_path / "m.h")
    monkeypatch.setenv("CC", "env cc -O1")
    np.testing.assert_allclose(
        run_c(tmp_path / "m.h", images), model.predict_proba(images), atol=2e-5
    )


def test_a_program_of_another_processor_is_said(tmp_path, monkeypatch):
    """As a cross-compiler makes it: it's there, but can't run here."""
    compiler = tmp_path / "cross"
    script = 'while [ "$1" != -o ]; do shift; done\nprintf x > "$2"\nchmod +x "$2"\n'
    compiler.write_text(f"#!/bin/sh\n{script}")
    compiler.chmod(0o755)
    (tmp_path / "m.h").write_text("")
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(RankwiseError, match="model can't be run: "):
        run_c(tmp_path / "m.h", np.zeros((1, 2, 2), np.uint8))


def test_no_compiler_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(MissingDependencyError, match=r"needs a C compiler \(cc, gcc, clang"):
        run_c(tmp_path / "m.h", np.zeros((1, 2, 2)))


@needs_compiler
def test_a_failing_compiler_is_quoted(tmp_path):
    (tmp_path / "m.h").write_text("this isn't C")
    with pytest.raises(RankwiseError, match="failed: "):
        run_c(tmp_path / "m.h", np.zeros((1, 2, 2)))
