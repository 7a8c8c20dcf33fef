"""Maps that run through the C program row by row, against numpy, whatever their sizes."""

import shutil
import subprocess

import numpy as np
import pytest

from export_cases import needs_compiler
from rankwise.export.c_source import c_source, write_c
from rankwise.export.check import run_c
from rankwise.export.quantise import quantise
from rankwise.networks import graph as g
from rankwise.networks.probabilities import probabilities

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
DIALECTS = [
    ("gcc", "c", "c99"),
    ("gcc", "c", "c17"),
    ("g++", "c++", "c++17"),
    ("clang", "c", "c99"),
    ("clang", "c", "c17"),
    ("clang++", "c++", "c++17"),
]


def random_operation(rng, shape):
    """An operation that fits maps of a shape, with sizes at random."""
    channels, *sides = shape

    def r(*size):
        return (rng.standard_normal(size) / 2).astype(np.float32)

    def pair(least, most):
        return tuple(int(n) for n in rng.integers(least, most + 1, 2))

    kind = rng.choice(["forms", "forms", "dense", "pool", "affine", "activate", "branches"])
    padding, stride = pair(0, 3), pair(1, 2)
    kernel = [
        int(rng.integers(1, min(5, n + 2 * p) + 1)) for n, p in zip(sides, padding, strict=True)
    ]
    if kind == "forms":
        maps, rank = int(rng.integers(1, 9)), int(rng.integers(1, 4))
        vectors = (r(maps, rank, n) for n in (channels, *kernel))
        return g.ConvolveForms(*vectors, r(maps), stride, padding)
    if kind == "dense":
        groups = int(rng.choice([n for n in (1, 2, 3, channels) if channels % n == 0]))
        maps = groups * int(rng.integers(1, 4))
        return g.Convolve(r(maps, channels // groups, *kernel), r(maps), stride, padding, groups)
    if kind == "pool":
        size = tuple(int(rng.integers(1, min(3, n) + 1)) for n in sides)
        return g.Pool(str(rng.choice(["mean", "max"])), size, pair(1, 3))
    if kind == "affine":
        return g.Affine(r(channels), r(channels))
    if kind == "activate":
        return g.Activate(str(rng.choice(["relu", "tanh", "silu"])))
    inner = (g.Convolve(r(channels, channels, 3, 3), r(channels), 1, 1), g.Activate("tanh"))
    drawn = rng.random()
    if drawn < 0.5:
        return g.Multiply(inner, (g.Affine(r(channels), r(channels)),))
    if drawn < 0.75:
        return g.Add(inner, ())
    return g.Concatenate(((), inner, (g.Square(),)))


def random_graph(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(5, 12, 2)) + ((3,) if seed % 2 else ())
    ops = [g.ToMaps()]
    for _ in range(4):
        ops.append(random_operation(rng, g.output_shape(ops, shape)))
        # Values stay of one size, so that one tolerance fits all.
        ops.append(g.Activate("tanh"))
    ops.append(g.Flatten())
    n = g.output_shape(ops, shape)[0]
    images = rng.integers(0, 256, (6, *shape), dtype=np.uint8)
    weight = rng.standard_normal((n, 3)).astype(np.float32)

    def graph(weight, bias):
        dense = g.Dense(weight, bias)
        return g.Graph(shape, (*ops, dense), tuple("abc"), 255.0, "softmax")

    # Logits around 0 that differ by about 1 between images.
    logits = g.run(graph(weight, np.zeros(3)), images)
    spread = np.float32(max(logits.std(axis=0).max(), 1e-3))
    return graph(weight / spread, -logits.mean(axis=0) / spread), images


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("seed", range(8))
def test_random_chains_are_numpy_s(tmp_path, seed, precision):
    graph, images = random_graph(seed)
    write_c(graph, tmp_path / "m.h", precision=precision)
    reference = probabilities(g.run(quantise(graph, precision).rounded(), images), "softmax")
    # Tables hold products of rounded vectors in float32.
    np.testing.assert_allclose(run_c(tmp_path / "m.h", images), reference, atol=5e-5)
    assert np.ptp(reference, axis=0).max() > 0.2


@needs_compiler
@pytest.mark.parametrize(
    "filters",
    [
        [(1, 1), (1, 0)],
        [(1, 1), (1, 0), (1, 0)],
        [(2, 2), (1, 0)],
        [(3, 1), (1, 1), (2, 1)],
        [(3, 3), (1, 0), (3, 1)],
    ],
    ids=str,
)
def test_padding_beyond_a_filter_loses_no_row(tmp_path, filters):
    """What comes out of rows of zeros alone is handed on before the first row is read."""
    rng = np.random.default_rng(0)
    ops, channels = [g.ToMaps()], 1
    for maps, (side, padding) in enumerate(filters, 2):
        weight = rng.standard_normal((maps, channels, side, side)).astype(np.float32)
        bias = rng.standard_normal(maps).astype(np.float32)
        ops.append(g.Convolve(weight, bias, 1, padding))
        channels = maps
    n = int(np.prod(g.output_shape(ops, (6, 6))))
    dense = g.Dense(rng.standard_normal((n, 3)).astype(np.float32) / 30, np.zeros(3, np.float32))
    graph = g.Graph((6, 6), (*ops, g.Flatten(), dense), tuple("abc"), 255.0, "softmax")
    images = rng.integers(0, 256, (6, 6, 6), dtype=np.uint8)
    write_c(graph, tmp_path / "m.h")
    reference = probabilities(g.run(graph, images), "softmax")
    np.testing.assert_allclose(run_c(tmp_path / "m.h", images), reference, atol=5e-5)


@pytest.mark.parametrize(("compiler", "language", "standard"), DIALECTS)
def test_no_compiler_has_a_complaint(all_operations, tmp_path, compiler, language, standard):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} isn't installed")
    graphs = {"every": all_operations(), "chain": random_graph(1)[0]}
    lines = []
    for name, graph in graphs.items():
        for precision in ("float32", "float16"):
            path = tmp_path / f"{name}_{precision}.h"
            write_c(graph, path, precision=precision)
            lines.append(f'#include "{path.name}"\n')
    (tmp_path / "main.c").write_text("".join([*lines, "int main(void) { return 0; }\n"]))
    command = [compiler, "-x", language, f"-std={standard}", *WARNINGS, "-fsyntax-only"]
    # A header that is only included leaves its functions unused.
    subprocess.run([*command, "-Wno-unused-function", str(tmp_path / "main.c")], check=True)
    program = str(tmp_path / "chain_float32.h")
    subprocess.run([*command, "-Dchain_float32_MAIN", program], check=True)


def test_forms_take_less_memory_than_their_maps():
    """Three layers of 14 × 14 maps: no map as a whole, no filter."""
    rng = np.random.default_rng(0)

    def forms(maps, channels):
        sizes = (channels, 3, 3)
        return g.ConvolveForms(*(rng.random((maps, 2, n)) for n in sizes), np.zeros(maps), 1, 1)

    ops = (g.ToMaps(), forms(16, 1), forms(32, 16), forms(32, 32), g.Pool("mean", 14), g.Flatten())
    graph = g.Graph((14, 14), (*ops, g.Dense(np.ones((32, 2)), np.zeros(2))), ("a", "b"), 255.0)
    one_map = 4 * 14 * 14 * 32
    assert c_source(graph).ram_bytes < 0.75 * one_map
