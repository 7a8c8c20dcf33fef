"""The whitening first layer: what it does to patches, and that the network has it everywhere."""

import numpy as np
import pytest
import torch

from rankwise import ConvolutionalClassifier, load_model
from rankwise.networks.graph import run
from rankwise.training.augment import channel_statistics
from rankwise.training.starting import convolutional_module
from rankwise.training.whitening import whitening
from rankwise.units.convolutional import ConvolutionalUnits, Layer


def pictures(n=40, size=10, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    rough = rng.random((n, size, size, channels))
    smooth = (rough + np.roll(rough, 1, axis=1) + np.roll(rough, 1, axis=2)) / 3
    return (smooth * 255).astype(np.uint8)


@pytest.mark.parametrize("shrink", [1, 2])
def test_patches_behind_it_are_uncorrelated_with_unit_deviation(shrink):
    images = pictures()
    center, scale = channel_statistics(images)
    filters = whitening(images, center, scale, shrink=shrink, side=2).astype(np.float64)
    maps = (images / 255.0 - center) / scale
    n, side = 10 // shrink, shrink
    maps = maps.reshape(len(maps), n, side, n, side, 3).mean(axis=(2, 4))
    rows = [
        np.tensordot(filters, image[y : y + 2, x : x + 2].transpose(2, 0, 1), axes=3)
        for image in maps
        for y in range(n - 1)
        for x in range(n - 1)
    ]
    moments = np.mean([np.outer(r, r) for r in rows], axis=0)
    values = 1 / np.square(np.linalg.norm(filters.reshape(len(filters), -1), axis=1))
    # λ / (λ + 5·10⁻⁴) of each axis, and nothing between two.
    np.testing.assert_allclose(moments, np.diag((values - 5e-4) / values), atol=1e-3)


def test_units_that_whiten_have_fewer_places_and_count_their_filters():
    units = ConvolutionalUnits((10, 10, 3), (Layer(5, rank=1, pool=2), Layer(4)), whiten=2)
    assert units.n_whitening == 12
    assert [(s.channels, s.size) for s in units.stages] == [(24, (9, 9)), (5, (4, 4))]
    of_layers = 5 * (24 + 6 + 1) + 4 * (2 * (5 + 6) + 1)
    assert units.n_parameters == of_layers + 12 * 12 + 24 + 6
    with pytest.raises(ValueError, match="whiten must be between 0 and the shorter side of the im"):
        ConvolutionalUnits((1, 9), (Layer(5),), whiten=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_computes_what_was_trained_and_so_do_its_graph_and_its_file(channels, tmp_path):
    images = pictures(60, channels=channels)
    images = images[..., 0] if channels == 1 else images
    labels = np.arange(60) % 3
    model = ConvolutionalClassifier("accurate", n_units=80, epochs=2).fit(images, labels)
    network = model.network_
    assert network.whitening is not None
    assert model.n_parameters_total_ == network.units.n_parameters + network.coef.size
    outputs = model.outputs(images)
    np.testing.assert_allclose(run(model.as_graph(), images), outputs, rtol=1e-4, atol=1e-4)
    model.save(tmp_path)
    np.testing.assert_array_equal(load_model(tmp_path).outputs(images), outputs)
    np.testing.assert_allclose(model.outputs(images[:1]), outputs[:1], rtol=0, atol=1e-10)


def test_its_biases_are_trained_and_its_filters_stay():
    images = pictures(30)
    units = ConvolutionalUnits((10, 10, 3), (Layer(5, rank=1),), whiten=2, activation="gelu")
    module = convolutional_module(units, images, torch.Generator().manual_seed(0))
    maps = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    parameters = dict(module.named_parameters())
    assert "whitening" not in parameters
    module(maps, []).square().sum().backward()
    assert parameters["whitening_bias"].grad.abs().max() > 0
    # Both signs, each behind its bias.
    with torch.no_grad():
        module.whitening_bias.copy_(torch.arange(24.0) / 24)
        inside = (maps - module.center) / module.scale
        found = torch.nn.functional.conv2d(inside, module.whitening)
    network = module.network(np.zeros((6, 2)), softmax=True)
    np.testing.assert_array_equal(network.whitening.both[12:], -network.whitening.both[:12])
    assert found.shape == (30, 12, 9, 9)
    np.testing.assert_allclose(network.whitening.bias, np.arange(24) / 24, rtol=1e-6)
