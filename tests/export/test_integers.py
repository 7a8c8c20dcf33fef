"""Networks in whole numbers: the C program is its numpy reference, and little is lost."""

import re
import shutil
import subprocess
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import rankwise
from export_cases import needs_compiler
from rankwise.export import export_model, to_graph
from rankwise.export.c_source import c_integer_source, write_c
from rankwise.export.check import C_FLAGS
from rankwise.export.integers import is_integral, run_integers, to_integers
from rankwise.networks import graph as g
from rankwise.networks.probabilities import OUTPUTS, probabilities

# Undefined behaviour, such as an overflow, ends the program; compiled at -O0, which is quicker.
UNDEFINED = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
STRICT = (*C_FLAGS, "-Wconversion", *UNDEFINED, "-O0")


def random_chain(seed, output="softmax", activation="relu", *, skips=False):
    """Layers of random sizes, units that don't come in fours among them.

    With `skips` there is a first layer of dense filters, and what comes into a layer is added to
    what it makes of it.
    """
    rng = np.random.default_rng(seed)
    channels = (1, 3)[seed % 2]
    shrink = 1 + seed % 3
    shape = tuple(int(n) * shrink for n in rng.integers(7, 12, 2)) + ((3,) if seed % 2 else ())

    def r(*size):
        return rng.standard_normal(size).astype(np.float32)

    ops = [g.ToMaps()]
    if shrink > 1:
        ops.append(g.Pool("mean", shrink))
    ops.append(g.Affine(np.full(channels, 3.0), -3 * rng.random(channels)))
    if skips:
        dense = g.Convolve(r(6, channels, 2, 3) / 3, r(6) / 4, padding=seed % 2)
        ops += [dense, g.Activate(activation)]
        channels = 6
    for i in range(3):
        maps, rank = int(rng.integers(3, 14)), int(rng.integers(1, 4))
        side = (5, 3, 1)[(i + seed) % 3]
        scale = 1 / np.sqrt(channels * side)
        vectors = (r(maps, rank, channels) * scale, r(maps, rank, side), r(maps, rank, side))
        ops.append(g.ConvolveForms(*vectors, r(maps) / 4, padding=side // 2))
        if i == seed % 3:
            ops.append(g.Pool("max", 2))
        ops.append(g.Activate(activation))
        channels = maps
        if skips and i < 2:
            side = (3, 1, 5)[i + seed % 2]
            vectors = [r(maps, 2, n) / np.sqrt(n) for n in (maps, side, side)]
            forms = g.ConvolveForms(*vectors, r(maps) / 4, padding=side // 2)
            ops.append(g.Add((forms, g.Activate(activation)), ()))
    sides = g.output_shape(ops, shape)[1:]
    ops += [g.Pool("mean", tuple(max(1, n // 2) for n in sides)), g.Flatten()]
    n = g.output_shape(ops, shape)[0]
    dense = g.Dense(r(n, 3) / n, r(3) / 4)
    graph = g.Graph(shape, (*ops, dense), ("a", "b", "c"), 255.0, output)
    return graph, rng.integers(0, 256, (12, *shape), dtype=np.uint8)


def ran(path, images, flags=STRICT, libraries=()):
    """What the program prints, without the mathematics library."""
    program = path.with_suffix("")
    name = path.stem
    command = ["cc", *flags, f"-D{name}_MAIN", "-x", "c", str(path), "-x", "none", *libraries]
    subprocess.run([*command, "-o", str(program)], check=True)
    done = subprocess.run([program, "raw"], input=images.tobytes(), capture_output=True, check=True)
    rows = [line.split("\t")[1:] for line in done.stdout.decode().splitlines()]
    return np.array(rows, dtype=float)


@needs_compiler
@pytest.mark.parametrize(
    ("seed", "precision", "activation", "skips"),
    [
        *product(range(6), ["int8", "int4"], ["relu"], [False]),
        (0, "int8", "gelu", True),
        (1, "int8", "gelu", True),
        (2, "int4", "gelu", True),
        (3, "int8", "relu", True),
        (4, "int8", "tanh", True),
        (5, "int4", "tanh", False),
    ],
)
def test_the_program_is_its_reference(tmp_path, seed, precision, activation, skips):
    output = OUTPUTS[seed % 3]
    graph, images = random_chain(seed, output, activation, skips=skips)
    network = to_integers(graph, images, precision)
    write_c(network, tmp_path / "m.h")
    # The brightest and the darkest image are where sums are largest.
    shape = graph.image_shape
    edges = np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)])
    images = np.concatenate([images, edges])
    reference = probabilities(run_integers(network, images), output)
    np.testing.assert_allclose(ran(tmp_path / "m.h", images), reference, atol=1e-6)
    assert np.ptp(reference, axis=0).max() > 1e-3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_whole_numbers_are_close_to_the_network(seed, activation):
    graph, images = random_chain(seed, activation=activation, skips=activation != "relu")
    logits = g.run(graph, images)
    found = run_integers(to_integers(graph, images), images)
    assert np.abs(found - logits).max() < 0.1 * np.ptp(logits)
    coarse = run_integers(to_integers(graph, images, "int4"), images)
    assert np.abs(found - logits).mean() < np.abs(coarse - logits).mean()


def test_more_levels_lose_less_layer_by_layer():
    """Rounding is to the nearest: each weight errs by half a step of those that share it."""
    graph, images = random_chain(2)
    network = to_integers(graph, images)
    forms = [op for op in graph.ops if isinstance(op, g.ConvolveForms)]
    for layer, op in zip(network.layers[1:], forms[1:], strict=True):
        a = np.moveaxis(op.channel.astype(float), 0, 2)
        steps = np.abs(a).max(axis=1, keepdims=True) / 127
        assert (np.abs(layer.mixing * steps - a) <= 0.5001 * steps).all()


def test_only_whole_numbers_and_no_library():
    text = c_integer_source(to_integers(*random_chain(1)), "m").text
    functions = text[text.index("static void m_") : text.index("/* exp(x)")]
    assert "float" not in functions
    assert "math.h" not in text
    assert "malloc" not in text
    assert "@" not in text


@needs_compiler
@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize(
    ("compiler", "language", "standard"),
    [
        ("gcc", "c", "c17"),
        ("g++", "c++", "c++17"),
        ("clang", "c", "c99"),
        ("clang++", "c++", "c++17"),
    ],
)
def test_no_compiler_has_a_complaint(tmp_path, compiler, language, standard, precision):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} isn't installed")
    path = tmp_path / "m.h"
    write_c(to_integers(*random_chain(3), precision), path)
    command = [compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Wconversion"]
    command += ["-pedantic", "-Werror", "-fsyntax-only", "-Dm_MAIN", str(path)]
    subprocess.run(command, check=True)


def test_the_shipped_small_network_in_whole_numbers():
    model = rankwise.load("mnist-small")
    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    sizes = {}
    for precision in ("int8", "int4"):
        network = to_integers(to_graph(model), images, precision)
        source = c_integer_source(network)
        assert source.flash_bytes == network.table_bytes
        sizes[precision] = source.flash_bytes / model.n_parameters_total_
        assert source.ram_bytes < 23_936  # of the same network in floats
    assert sizes["int8"] < 1.1
    assert sizes["int4"] < 0.65


def test_what_cannot_be_whole_numbers_is_said(fitted, tmp_path):
    windowed, _, _ = fitted("bilinear")
    message = "int4 is for convolutional networks; int8 stores"
    with pytest.raises(ValueError, match=message):
        export_model(windowed, "c", tmp_path / "m.h", precision="int4")
    report = export_model(windowed, "c", tmp_path / "m.h", precision="int8")
    assert report["integers_only"] is False
    model, images, _ = fitted("convolutional")
    with pytest.raises(ValueError, match="int8 as C computes in whole numbers, and needs training"):
        export_model(model, "c", tmp_path / "m.h", precision="int8")
    with pytest.raises(ValueError, match="calibration needs at least one image"):
        export_model(model, "c", tmp_path / "m.h", precision="int8", calibration=images[:0])
    report = export_model(model, "c", tmp_path / "m.h", precision="int8", calibration=images)
    assert report["integers_only"] is True
    with pytest.raises(ValueError, match="only convolutional networks are"):
        to_integers(to_graph(windowed), images)


@pytest.mark.parametrize("seed", [0, 1])
def test_calibration_is_of_the_images_that_the_network_takes(seed):
    graph, images = random_chain(seed)
    network = to_integers(graph, images)
    for same in (images.astype(int), images.astype(np.float32)):
        found = run_integers(to_integers(graph, same), images)
        np.testing.assert_array_equal(found, run_integers(network, images))
    shape = re.escape(str(graph.image_shape))
    for given, message in (
        (images / 255, "float64 values from 0 to 1; pixels in whole numbers, 0 to 255, are"),
        (images / 255 > 0.5, "calibration has type bool; pixels 0 to 255 are accepted"),
        (images.astype(int) - 9, "calibration has int64 values from -9 to"),
        (images + 0.5, "calibration has float64 values from 0.5 to"),
        (np.full(images.shape, np.nan), "calibration has float64 values from nan to nan"),
        (images[:, :5], rf"calibration has images of shape \(5, .*; the network takes {shape}$"),
        (np.repeat(images[..., None], 3, axis=-1), f"the network takes {shape}$"),
        (images[0], f"the network takes {shape}$"),
    ):
        with pytest.raises(ValueError, match=message):
            to_integers(graph, given)


def test_what_counts_as_a_chain():
    graph, _ = random_chain(0)
    assert is_integral(graph)
    ops = graph.ops
    with_skips = random_chain(0, activation="gelu", skips=True)[0]
    assert is_integral(with_skips)
    both = [g.Add(op.left, op.left) if isinstance(op, g.Add) else op for op in with_skips.ops]
    assert not is_integral(replace(with_skips, ops=tuple(both)))
    for changed in (
        tuple(g.Pool("max", op.size) if op is ops[-3] else op for op in ops),
        (*ops[:-1], g.Activate("relu"), ops[-1]),
    ):
        assert not is_integral(g.Graph(graph.image_shape, changed, graph.classes, 255.0))
    assert not is_integral(replace(graph, scale=1.0))
