"""Both ways to slide forms against loops, and what chooses between them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.networks.sliding import mixes_first, slid
from rankwise.units.convolutional import ConvolutionalUnits, Layer, LayerWeights


def loops(x, channel, row, column, bias, padding):
    """Place by place, form by form, in float64."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    (maps, rank, _), kh, kw = channel.shape, row.shape[2], column.shape[2]
    high, wide = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    out = np.zeros((len(x), maps, high, wide)) + bias[:, None, None]
    for n, o, r in np.ndindex(len(x), maps, rank):
        for i, j in np.ndindex(high, wide):
            patch = x[n, :, i : i + kh, j : j + kw]
            out[n, o, i, j] += channel[o, r] @ (row[o, r] @ patch @ column[o, r])
    return out


@settings(max_examples=15)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from([(3, 3), (1, 5)]),
    st.integers(5, 6), st.integers(0, 99),
)  # fmt: skip
def test_both_ways_are_the_sum_over_forms(channels, maps, rank, sides, size, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, channels, size, 5))
    vectors = [rng.standard_normal((maps, rank, n)) for n in (channels, *sides)]
    bias = rng.standard_normal(maps)
    padding = (sides[0] // 2, sides[1] // 2)
    expected = loops(x, *vectors, bias, padding)
    tensors = [torch.from_numpy(a) for a in (x, *vectors, bias)]
    for mixed in (True, False):
        found = slid(*tensors, padding=padding, mixed=mixed)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_the_same_both_ways():
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64, requires_grad=True)

    parts = [draw(3, 4, 6, 6), draw(5, 2, 4), draw(5, 2, 3), draw(5, 2, 3)]
    gradients = [
        torch.autograd.grad(slid(*parts, padding=(1, 1), mixed=mixed).sin().sum(), parts)
        for mixed in (True, False)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("channels", "rank", "sides", "precision", "mixed"),
    [
        (7, 1, (3, 3), "float32", False),
        (8, 1, (3, 3), "float32", True),
        (32, 1, (5, 5), "float32", True),
        (32, 1, (7, 7), "float32", False),
        (64, 2, (3, 3), "float32", False),
        (128, 2, (3, 3), "float32", True),
        (256, 3, (3, 3), "float32", False),
        (16, 1, (3, 3), "bfloat16", False),
        (24, 1, (3, 3), "bfloat16", True),
        (256, 1, (5, 5), "bfloat16", False),
        (256, 2, (3, 3), "bfloat16", False),
        (256, 1, (3, 3), "float64", False),
    ],
)
def test_the_way_follows_the_measurements(channels, rank, sides, precision, mixed):
    assert mixes_first(channels, rank, sides, precision) == mixed


def mixing_network():
    rng = np.random.default_rng(1)
    units = ConvolutionalUnits((12, 12), (Layer(32, 5, 2, 2), Layer(34, rank=1), Layer(8, rank=1)))
    layers = tuple(
        LayerWeights(
            *(
                rng.standard_normal((s.maps, s.rank, n)).astype(np.float32) / 5
                for n in (s.channels, *s.sides)
            ),
            rng.standard_normal(s.maps).astype(np.float32),
        )
        for s in units.stages
    )
    coef = rng.standard_normal((units.n_features + 1, 3))
    one = np.ones(1, np.float32)
    return ConvolutionalNetwork(units, layers, one, one, coef, softmax=True)


def test_a_network_that_mixes_first_gives_the_same_however_many_are_asked_for():
    network = mixing_network()
    assert network.ways() == [False, True, True]
    images = np.random.default_rng(0).random((70, 12, 12)).astype(np.float32)
    whole = network.outputs(images)
    for part in (slice(0, 1), slice(3, 5), slice(10, 47)):
        # Mixing is a matrix product in float32, whose sums some processors order by its rows.
        np.testing.assert_allclose(network.outputs(images[part]), whole[part], rtol=0, atol=1e-6)


def test_a_network_that_mixes_first_is_its_graph():
    from rankwise.networks.graph import run

    network = mixing_network()
    images = np.random.default_rng(0).random((9, 12, 12)).astype(np.float32)
    expected = run(network.as_graph("abc"), images)
    np.testing.assert_allclose(network.outputs(images), expected, rtol=1e-4, atol=1e-4)
