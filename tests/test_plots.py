"""Pictures of units: what they say, and where images have the largest form."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.plots import linear_parts, save_confusion, save_labelled, save_units, strongest_places
from rankwise.units.convolutional import (
    ConvolutionalUnits,
    Layer,
    LayerWeights,
    Whitening,
    compose,
)


def network_of(shape, shrink=1):
    rng = np.random.default_rng(0)
    channels = shape[2] if len(shape) == 3 else 1
    units = ConvolutionalUnits(shape, (Layer(3, 3, 2, 2),), shrink=shrink)
    arrays = [rng.normal(size=s) for s in ((3, 2, channels), (3, 2, 3), (3, 2, 3), (3,))]
    layer = LayerWeights(*(a.astype(np.float32) for a in arrays))
    one = np.ones(channels, np.float32)
    coef = rng.normal(size=(units.n_features + 1, 2))
    return ConvolutionalNetwork(units, (layer,), 0.5 * one, one, coef, softmax=True)


def test_places_are_those_of_the_largest_form(tmp_path):
    network = network_of((12, 10, 3), shrink=2)
    images = np.random.default_rng(1).integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
    found = strongest_places(network, images, [2, 0])
    w = network.layers[0]
    filters = compose(w.channel, w.row, w.column)
    small = images.reshape(20, 6, 2, 5, 2, 3).mean(axis=(2, 4)) / 255 - 0.5
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for unit, (place, (x, y, width, height)) in zip([2, 0], found, strict=True):
        best, at = -np.inf, None
        for n in range(20):
            for i in range(6):
                for j in range(5):
                    patch = np.moveaxis(padded[n, i : i + 3, j : j + 3], -1, 0)
                    q = float((filters[unit] * patch).sum())
                    best, at = max((best, at), (q, (n, i, j)))
        n, i, j = at
        top, left = max(0, 2 * (i - 1)), max(0, 2 * (j - 1))
        inside = images[n, top : min(12, 2 * (i + 2)), left : min(10, 2 * (j + 2))]
        np.testing.assert_array_equal(place[y : y + height, x : x + width], inside)
    for some in (images, None, images[:0]):
        save_units(network, tmp_path / "u.png", images=some)
        with Image.open(tmp_path / "u.png") as picture:
            assert picture.width > 300


def whitened_network(shape=(9, 8, 3)):
    rng = np.random.default_rng(2)
    units = ConvolutionalUnits(shape, (Layer(3, 3, 1, 2),), activation="gelu", whiten=2)
    arrays = [rng.normal(size=s) for s in ((3, 1, 24), (3, 1, 3), (3, 1, 3), (3,))]
    layer = LayerWeights(*(a.astype(np.float32) for a in arrays))
    filters = rng.normal(size=(12, 3, 2, 2)).astype(np.float32)
    coef = rng.normal(size=(units.n_features + 1, 2))
    whitening = Whitening(filters, np.zeros(24, np.float32))
    center, scale = np.full(3, 0.5, np.float32), np.ones(3, np.float32)
    return ConvolutionalNetwork(units, (layer,), center, scale, coef, True, whitening)


def forms_behind_whitening(network, maps):
    """``q`` of the first layer of maps ``(n, C, H, W)``, in float64."""
    w, layer = network.whitening, network.layers[0]
    answers = F.gelu(F.conv2d(maps, torch.tensor(w.both).double()))
    filters = torch.tensor(compose(layer.channel, layer.row, layer.column)).double()
    return F.conv2d(answers, filters, padding=1)


def test_a_form_behind_whitening_is_drawn_as_the_gradient_at_the_mean_image():
    network = whitened_network()
    maps = torch.zeros((1, 3, 9, 8), dtype=torch.float64, requires_grad=True)
    for unit, picture in zip((2, 0), linear_parts(network, [2, 0]), strict=True):
        q = forms_behind_whitening(network, maps)[0, unit, 4, 3]
        (gradient,) = torch.autograd.grad(q, maps)
        expected = gradient[0].sum(dim=0)[3:7, 2:6].numpy()
        assert abs(expected).sum() == pytest.approx(float(gradient[0].sum(dim=0).abs().sum()))
        np.testing.assert_allclose(picture, expected, rtol=1e-5, atol=1e-5)


def test_places_behind_whitening_are_those_of_the_largest_form(tmp_path):
    network = whitened_network()
    images = np.random.default_rng(3).integers(0, 256, (20, 9, 8, 3), dtype=np.uint8)
    maps = torch.tensor(images).double().permute(0, 3, 1, 2) / 255 - 0.5
    for unit, (place, (x, y, width, height)) in zip(
        (1, 2), strongest_places(network, images, [1, 2]), strict=True
    ):
        q = forms_behind_whitening(network, maps)[:, unit]
        n, i, j = np.unravel_index(int(q.argmax()), q.shape)
        inside = images[n, max(0, i - 1) : i + 3, max(0, j - 1) : j + 3]
        np.testing.assert_array_equal(place[y : y + height, x : x + width], inside)
    save_units(network, tmp_path / "u.png", images=images)
    with Image.open(tmp_path / "u.png") as picture:
        assert picture.width > 300


def test_right_and_wrong_are_told_apart_by_their_colour(tmp_path):
    save_confusion(np.array([[90, 10], [40, 60]]), ["a", "\udcff"], tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("RGB")).astype(int)
    flat = pixels.reshape(-1, 3)
    blue = (flat[:, 2] > flat[:, 0] + 40).sum()
    orange = (flat[:, 0] > flat[:, 2] + 40).sum()
    assert blue > 2000
    assert orange > 2000


def test_names_that_are_no_utf_8_are_spelled(tmp_path):
    images = np.zeros((2, 8, 8), np.uint8)
    for title, name in (("\udcff", "a.png"), (r"\udcff", "b.png")):
        save_labelled(images, ["x", title], tmp_path / name)
    same = [np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png")]
    np.testing.assert_array_equal(*same)
