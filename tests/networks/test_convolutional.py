"""Convolutional units against slow loops, and the network's other faces."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.networks.convolutional import ConvolutionalNetwork, as_maps, channels_last
from rankwise.networks.graph import run
from rankwise.networks.probabilities import expected_calibration_error, log_probabilities
from rankwise.units.activations import ACTIVATIONS
from rankwise.units.convolutional import ConvolutionalUnits, Layer, LayerWeights, compose

LAYERS = (Layer(3, side=3, rank=2, pool=2), Layer(4, side=5, rank=1))


def random_network(shape, layers=LAYERS, *, seed=0, softmax=False, **options):
    rng = np.random.default_rng(seed)
    units = ConvolutionalUnits(shape, layers, **options)
    weights = tuple(
        LayerWeights(
            *(
                rng.standard_normal((s.maps, s.rank, n)).astype(np.float32)
                for n in (s.channels, *s.sides)
            ),
            rng.standard_normal(s.maps).astype(np.float32),
        )
        for s in units.stages
    )
    center, scale = rng.random(units.channels), 0.5 + rng.random(units.channels)
    coef = rng.standard_normal((units.n_features + 1, 3))
    return ConvolutionalNetwork(
        units, weights, center.astype(np.float32), scale.astype(np.float32), coef, softmax
    )


def test_images_that_are_mapped_read_only_become_maps_without_a_warning():
    images = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    images.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            maps = as_maps(images)
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(maps[:, 0], images)


def slow_outputs(network, images):
    """Loops over images, maps, places, ranks and pixels, in float64."""
    units, result = network.units, []
    for image in images.astype(float):
        maps = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        n = units.shrink
        if n > 1:
            rows, columns = maps.shape[1] // n, maps.shape[2] // n
            maps = np.array(
                [
                    [
                        [m[y * n : y * n + n, x * n : x * n + n].mean() for x in range(columns)]
                        for y in range(rows)
                    ]
                    for m in maps
                ]
            )
        maps = (maps - network.center[:, None, None]) / network.scale[:, None, None]
        for stage, w in zip(units.stages, network.layers, strict=True):
            before = maps
            (py, px), (ky, kx) = stage.padding, stage.sides
            padded = np.pad(maps, ((0, 0), (py, py), (px, px)))
            height, width = maps.shape[1:]
            q = np.zeros((stage.maps, height, width))
            for o in range(stage.maps):
                for y in range(height):
                    for x in range(width):
                        patch = padded[:, y : y + ky, x : x + kx]
                        for r in range(stage.rank):
                            # The form itself: Σ_c a_c · uᵀ P_c v.
                            forms = [w.row[o, r] @ p @ w.column[o, r] for p in patch]
                            q[o, y, x] += w.channel[o, r] @ np.array(forms)
                q[o] += w.bias[o]
            (a, b), (rows, columns) = stage.pool, stage.out
            maps = np.array(
                [
                    [
                        [m[y * a : y * a + a, x * b : x * b + b].max() for x in range(columns)]
                        for y in range(rows)
                    ]
                    for m in q
                ]
            )
            maps = ACTIVATIONS[units.activation].value(maps)
            if stage.skip:
                maps = maps + before
        a, b = units.cell
        features = [
            m[y : y + a, x : x + b].mean()
            for m in maps
            for y in range(0, maps.shape[1] - a + 1, a)
            for x in range(0, maps.shape[2] - b + 1, b)
        ]
        result.append(np.array([*features, 1.0]) @ network.coef)
    return np.array(result)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 8), {}),
        ((7, 9), {"grid": 2}),
        ((9, 8, 3), {"activation": "tanh"}),
        ((12, 13), {"shrink": 2, "activation": "gelu"}),
        ((1, 12), {}),
        ((8, 8, 2), {"grid": 3, "activation": "silu"}),
        ((8, 7, 3), {"layers": (Layer(3, pool=2), Layer(3, rank=1, skip=True), Layer(2))}),
    ],
    ids=str,
)
def test_outputs_equal_slow_loops_and_the_graph(shape, options):
    network = random_network(shape, **options)
    images = np.random.default_rng(1).random((3, *shape), dtype=np.float32)
    expected = slow_outputs(network, images)
    np.testing.assert_allclose(network.outputs(images), expected, rtol=1e-4, atol=1e-4)
    graph = network.as_graph(["a", "b", "c"])
    np.testing.assert_allclose(run(graph, images), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Layer(3), Layer(4, skip=True)), "has as many maps as come in, 3, got 4"),
        ((Layer(2, skip=True),), "has as many maps as come in, 1, got 2"),
    ],
)
def test_a_skip_needs_as_many_maps_as_come_in(layers, message):
    with pytest.raises(ValueError, match=message):
        ConvolutionalUnits((8, 8), layers).stages  # noqa: B018  computed when asked for
    with pytest.raises(ValueError, match="a layer with a skip has no pool, got pool 2"):
        Layer(3, pool=2, skip=True)


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 3]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_composed_filters_are_sums_of_outer_products(maps, rank, channels, rows, columns):
    rng = np.random.default_rng(0)
    a, u, v = (rng.standard_normal((maps, rank, n)) for n in (channels, rows, columns))
    expected = np.einsum("ori,orh,orw->oihw", a, u, v)
    np.testing.assert_allclose(compose(a, u, v), expected, atol=1e-12)
    tensors = compose(*(torch.from_numpy(t) for t in (a, u, v)))
    np.testing.assert_allclose(tensors.numpy(), expected, atol=1e-12)
    unfolded = expected.transpose(0, 2, 3, 1).reshape(maps, rows * columns, channels)
    assert np.linalg.matrix_rank(unfolded).max() <= rank


def test_uint8_images_are_divided_by_255():
    network = random_network((8, 8))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    np.testing.assert_allclose(
        network.outputs(images), network.outputs(images.astype(np.float32) / 255), atol=1e-5
    )
    graph = network.as_graph("abc", scale=255.0)
    np.testing.assert_allclose(run(graph, images), network.outputs(images), atol=1e-4)


def test_any_number_of_workers_gives_the_same_bits():
    network = random_network((8, 8))
    images = np.random.default_rng(0).random((600, 8, 8), dtype=np.float32)
    np.testing.assert_array_equal(network.outputs(images), network.outputs(images, workers=3))
    assert network.outputs(images[:0]).shape == (0, 3)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1), (8, 8), (28, 28), (12, 9, 3)])
@pytest.mark.parametrize("workers", [1, 2])
def test_outputs_do_not_depend_on_how_many_images_are_asked_for(shape, workers):
    net = random_network(shape, seed=3)
    images = np.random.default_rng(4).random((300, *shape)).astype(np.float32)
    together = net.outputs(images, workers=workers)
    for size in (1, 2, 7, 150):
        some = range(0, min(300, 12 * size), size)
        apart = np.concatenate([net.outputs(images[i : i + size], workers=workers) for i in some])
        np.testing.assert_allclose(apart, together[: len(apart)], rtol=0, atol=1e-10)


def test_parameters_are_counted_one_by_one():
    network = random_network((8, 8, 2))
    stored = sum(a.size for w in network.layers for a in (w.channel, w.row, w.column, w.bias))
    assert network.n_parameters_units == stored + network.center.size + network.scale.size
    assert network.n_parameters_total == network.n_parameters_units + network.coef.size
    assert network.n_units == 7


def test_probabilities_of_logits_and_of_the_glue():
    outputs = np.random.default_rng(0).standard_normal((5, 3))
    for softmax in (True, False):
        network = random_network((8, 8), softmax=softmax)
        probabilities = np.exp(log_probabilities(outputs, network.own_probabilities))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        np.testing.assert_array_equal(probabilities.argmax(axis=1), outputs.argmax(axis=1))
        assert network.as_graph("abc").output == ("softmax" if softmax else "sum-to-one")
    softmax = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_probabilities(outputs, "softmax")), softmax)
    np.testing.assert_allclose(np.exp(log_probabilities(outputs * 3, "calibrated", 3.0)), softmax)
    network = random_network((8, 8))
    assert network.as_graph("abc", probabilities="sigmoid").output == "sigmoid"
    graph = network.as_graph("abc", probabilities="calibrated", temperature=2.0)
    assert graph.output == "softmax"
    np.testing.assert_allclose(graph.ops[-1].weight * 2, network.coef[:-1], rtol=1e-6)


def test_the_calibration_error_is_the_mean_gap_between_confidence_and_being_right():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    # 0.9 twice and right once; 0.6 and right; 0.7 and wrong: three bins of fifteen.
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(0 - 0.7)) / 4
    found = expected_calibration_error(probabilities, np.array([0, 1, 0, 0]))
    assert found == pytest.approx(expected)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


def test_pictures_are_of_the_largest_filters():
    network = random_network((8, 8))
    order, pictures = network.forms(2)
    assert pictures.shape == (2, 3, 3)
    norms = [np.linalg.norm(p) for p in network.forms(3)[1]]
    assert norms == sorted(norms, reverse=True)
    assert len(set(order)) == 2


def test_small_images_are_neither_padded_nor_pooled_away():
    units = ConvolutionalUnits((1, 6), (Layer(2, side=5, pool=2),) * 4)
    assert [s.sides for s in units.stages] == [(1, 5), (1, 5), (1, 1), (1, 1)]
    assert units.stages[-1].out == (1, 1)
    assert units.n_features == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer(0), "maps of a layer must be a whole number, at least 1, got 0"),
        (lambda: Layer(3, side=4), "side of a layer must be odd, got 4"),
        (lambda: Layer(3, rank=0), "rank of a layer must be a whole number, at least 1, got 0"),
        (lambda: ConvolutionalUnits((5,), LAYERS), "need images (height, width)"),
        (lambda: ConvolutionalUnits((5, 5), ()), "at least one layer, got none"),
        (lambda: ConvolutionalUnits((5, 5), LAYERS, shrink=6), "between 1 and the shorter side 5"),
        (
            lambda: ConvolutionalUnits((5, 5), LAYERS, activation="sine"),
            "unknown activation 'sine'; accepted: tanh, logistic, relu",
        ),
    ],
)
def test_what_is_not_accepted(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)], ids=["grey", "one", "colour"])
def test_what_is_computed_from_maps_has_its_channels_last_in_memory(shape):
    # Of one channel, torch takes contiguous maps for channels first, and pools six times as slowly.
    maps = as_maps(np.random.default_rng(0).random((4, *shape)))
    laid = channels_last(maps)
    assert torch.equal(laid, maps)
    assert laid.data_ptr() == maps.data_ptr() or shape[2:] == (3,)
    slid = torch.nn.functional.conv2d(laid, torch.ones(6, maps.shape[1], 3, 3))
    assert slid.is_contiguous(memory_format=torch.channels_last)
    assert not slid.is_contiguous()
