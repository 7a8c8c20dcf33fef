"""Every operation against loops or torch in float64, and the graph of every kind of unit."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.networks import graph as g
from rankwise.networks.probabilities import OUTPUTS, normalise, probabilities
from rankwise.networks.quadratic import QuadraticNetwork, graph_of_units
from rankwise.units.multilinear import make_units


def after(op, x, shape=None):
    """One operation on a batch, through `run`: what comes out is flattened to be the logits."""
    shape = shape or x.shape[1:]
    n_out = int(np.prod(g.output_shape((op,), shape)))
    graph = g.Graph(shape, (op, g.Flatten()), tuple(map(str, range(n_out))))
    return g.run(graph, x).reshape(len(x), *g.output_shape((op,), shape))


def random(rng, *shape):
    return rng.standard_normal(shape)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.integers(1, 2),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_convolve_is_torch_s(seed, groups, stride, padding, kernel):
    rng = np.random.default_rng(seed)
    x = random(rng, 2, 4, 7, 6)
    weight, bias = random(rng, 6, 4 // groups, *kernel), random(rng, 6)
    ours = after(g.Convolve(weight, bias, stride, padding, groups), x)
    tensors = [torch.from_numpy(a) for a in (x, weight, bias)]
    theirs = torch.nn.functional.conv2d(*tensors, stride=stride, padding=padding, groups=groups)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


def test_convolve_forms_are_convolve_with_the_sum_of_products():
    rng = np.random.default_rng(0)
    x = random(rng, 2, 3, 6, 5)
    a, u, v, bias = random(rng, 4, 2, 3), random(rng, 4, 2, 3), random(rng, 4, 2, 2), random(rng, 4)
    weight = np.zeros((4, 3, 3, 2))
    for o, r, c, y, z in product(range(4), range(2), range(3), range(3), range(2)):
        weight[o, c, y, z] += a[o, r, c] * u[o, r, y] * v[o, r, z]
    expected = after(g.Convolve(weight, bias, 2, (1, 0)), x)
    ours = after(g.ConvolveForms(a, u, v, bias, 2, (1, 0)), x)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize(("size", "stride"), [(2, None), ((3, 2), (2, 1)), (2, 3)])
def test_pool_is_torch_s(kind, size, stride):
    x = random(np.random.default_rng(1), 2, 3, 7, 8)
    pool = torch.nn.functional.avg_pool2d if kind == "mean" else torch.nn.functional.max_pool2d
    theirs = pool(torch.from_numpy(x), size, stride)
    np.testing.assert_allclose(after(g.Pool(kind, size, stride), x), theirs.numpy(), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (2, 3, 2, 2), (5,)])
def test_rank_one_forms_are_sums_over_pixels(shape):
    rng = np.random.default_rng(2)
    x = random(rng, 3, *shape)
    op = g.RankOneForms(tuple(random(rng, 2, 4, side) for side in shape), random(rng, 4))
    expected = np.tile(op.bias, (3, 1))
    for n, i, r in product(range(3), range(4), range(2)):
        for pixel in product(*map(range, shape)):
            factors = [f[r, i, p] for f, p in zip(op.factors, pixel, strict=True)]
            expected[n, i] += x[n][pixel] * np.prod(factors)
    np.testing.assert_allclose(after(op, x), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tanh", torch.tanh),
        ("logistic", torch.sigmoid),
        ("relu", torch.relu),
        ("softplus", torch.nn.functional.softplus),
        ("silu", torch.nn.functional.silu),
        ("gelu", torch.nn.functional.gelu),
        ("identity", lambda x: x),
    ],
)
def test_activations_are_torch_s(name, function):
    x = np.linspace(-20, 20, 81).reshape(1, 81)
    theirs = function(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(after(g.Activate(name), x), theirs, rtol=1e-8, atol=1e-8)


def test_small_operations():
    rng = np.random.default_rng(3)
    maps, grey, colour = random(rng, 2, 3, 4, 5), random(rng, 2, 4, 5), random(rng, 2, 4, 5, 3)
    np.testing.assert_array_equal(after(g.Square(), maps), maps**2)
    np.testing.assert_array_equal(after(g.ToMaps(), grey), grey[:, None])
    np.testing.assert_array_equal(after(g.ToMaps(), colour), colour.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(after(g.Flatten(), maps), maps.reshape(2, 60))
    scale, shift = random(rng, 3), random(rng, 3)
    expected = [[maps[n, c] * scale[c] + shift[c] for c in range(3)] for n in range(2)]
    np.testing.assert_allclose(after(g.Affine(scale, shift), maps), expected, atol=1e-15)
    rows, weight, bias = random(rng, 3, 4), random(rng, 4, 2), random(rng, 2)
    expected = [[sum(r * w) + b for w, b in zip(weight.T, bias, strict=True)] for r in rows]
    np.testing.assert_allclose(after(g.Dense(weight, bias), rows), expected, atol=1e-14)


def test_branches():
    rng = np.random.default_rng(4)
    maps = random(rng, 2, 3, 4, 5)
    multiplied = after(g.Multiply((g.Activate("tanh"),), (g.Square(), g.Activate("relu"))), maps)
    np.testing.assert_allclose(multiplied, np.tanh(maps) * maps**2, atol=1e-15)
    added = after(g.Add((g.Activate("tanh"), g.Square()), ()), maps)
    np.testing.assert_allclose(added, np.tanh(maps) ** 2 + maps, atol=1e-15)
    joined = after(g.Concatenate(((g.Square(),), (), (g.Activate("tanh"),))), maps)
    np.testing.assert_allclose(joined, np.concatenate([maps**2, maps, np.tanh(maps)], axis=1))


KINDS = [
    ("symmetric", (5, 5), 1),
    ("symmetric", (3, 3, 3), 2),
    ("bilinear", (4, 6), 1),
    ("bilinear", (4, 6), 3),
    ("colour", (4, 4, 3), 2),
    ("colour-bilinear", (4, 5, 3), 1),
    ("multilinear", (2, 3, 2, 2), 2),
]


@pytest.mark.parametrize(("kind", "shape", "rank"), KINDS)
@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_graph_of_units_computes_what_the_network_computes(kind, shape, rank, activation):
    rng = np.random.default_rng(5)
    units = make_units(kind, shape, rank=rank, activation=activation)
    params, coef = random(rng, units.n_params, 7), random(rng, 8, 3)
    images = rng.integers(0, 256, (9, *shape), dtype=np.uint8)
    network = QuadraticNetwork(units, params, coef, params.size)
    graph = graph_of_units(units, params, coef, ["a", "b", "c"], scale=255.0)
    np.testing.assert_allclose(g.run(graph, images), network.outputs(images), atol=1e-10)
    assert graph.classes == ("a", "b", "c")
    # Vectors that axes share are stored once.
    assert sum(a.size for a in g.arrays_of(graph.ops)) == params.size + coef.size


@pytest.mark.parametrize("output", OUTPUTS)
def test_probabilities(output):
    logits = random(np.random.default_rng(6), 5, 4)
    ours = probabilities(logits, output)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0)
    expected = {
        "sum-to-one": normalise(logits),
        "sigmoid": normalise(logits, squash=True),
        "softmax": torch.softmax(torch.from_numpy(logits), dim=1).numpy(),
    }[output]
    np.testing.assert_allclose(ours, expected, atol=1e-15)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(7)
    units = make_units("bilinear", (4, 5))
    graph = graph_of_units(units, random(rng, 10, 3), random(rng, 4, 2), "ab")
    images = random(rng, 11, 4, 5)
    whole = g.run(graph, images)
    monkeypatch.setattr(g, "_BLOCK_BYTES", 500)
    np.testing.assert_allclose(g.run(graph, images), whole, atol=1e-14)
    assert g.run(graph, images[:0]).shape == (0, 2)


def test_map_weights_changes_each_array_once_and_no_bias():
    rng = np.random.default_rng(8)
    shared = random(rng, 1, 2, 4)
    forms = g.RankOneForms((shared, shared), random(rng, 2))
    seen = []

    def halve(array, axes):
        seen.append((array.shape, axes))
        return array / 2

    ops = g.map_weights(
        (g.Concatenate(((forms,), (forms,))), g.Dense(np.eye(4), np.ones(4))), halve
    )
    first, second = (branch[0] for branch in ops[0].branches)
    assert first.factors[0] is first.factors[1] is second.factors[0]
    np.testing.assert_array_equal(first.factors[0], shared / 2)
    np.testing.assert_array_equal(first.bias, forms.bias)
    np.testing.assert_array_equal(ops[1].weight, np.eye(4) / 2)
    assert seen == [((1, 2, 4), (0, 1)), ((4, 4), (1,))]


WEIGHT, BIAS = np.zeros((2, 3, 2, 2)), np.zeros(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: g.Activate("sine"), "unknown activation 'sine'; accepted: tanh, logistic"),
        (lambda: g.Pool("median", 2), "unknown pooling 'median'; accepted: mean, max"),
        (lambda: g.Pool("max", 0), "size must be one or two numbers of at least 1, got 0"),
        (lambda: g.Convolve(WEIGHT, BIAS, 0), "stride must be one or two numbers of at least 1"),
        (lambda: g.Convolve(WEIGHT, BIAS, 1, -1), "padding must be one or two numbers"),
        (lambda: g.Convolve(WEIGHT, BIAS, groups=3), "groups must divide the 2 output channels"),
        (
            lambda: g.output_shape((g.Convolve(WEIGHT, BIAS),), (2, 5, 5)),
            r"Convolve takes 3 maps, but its input has shape \(2, 5, 5\)",
        ),
        (
            lambda: g.output_shape((g.Pool("max", 4),), (2, 3, 5)),
            r"Pool takes maps of at least 4×4, but its input has shape \(2, 3, 5\)",
        ),
        (
            lambda: g.output_shape((g.ToMaps(),), (2, 3, 5, 1)),
            r"ToMaps takes images \(H, W\) or \(H, W, C\)",
        ),
        (
            lambda: g.output_shape((g.Multiply((), (g.Flatten(),)),), (2, 3)),
            "Multiply takes branches of one shape",
        ),
        (
            lambda: g.Graph((3,), (), ("a", "b")),
            r"the last operation gives shape \(3,\) for 2 classes; it must give \(2,\)",
        ),
        (
            lambda: g.Graph((2,), (), ("a", "b"), output="hard"),
            "unknown output 'hard'; accepted: sum-to-one, sigmoid, softmax",
        ),
        (lambda: g.Graph((2,), (), ("a", "b"), scale=0.0), "scale must be positive, got 0"),
        (
            lambda: g.run(g.Graph((2,), (), ("a", "b")), np.zeros((1, 3))),
            r"the graph takes images of shape \(2,\), got \(3,\)",
        ),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()
