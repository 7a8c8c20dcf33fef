"""Why a model says what it says: maps that add up to its outputs."""

import numpy as np
import pytest

from export_cases import KINDS, digits_as
from rankwise.estimators.options import classifier_of
from rankwise.explore.reasons import LARGEST, explains, occlusion, reasons
from rankwise.explore.seen import outputs_of
from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.units.convolutional import ConvolutionalUnits, Layer, LayerWeights


def fitted(kind, n=120, **more):
    layout, options = KINDS[kind]
    images, labels = digits_as(layout)
    options = dict(options)
    preset = options.pop("preset", None)
    if preset is None:
        options |= {"n_units": 24, "n_subnets": 2, "max_iter": 2}
    model = classifier_of(preset, **(options | more), random_state=0)
    return model.fit(images[:n], labels[:n]), images[n : n + 9]


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "multilinear"])
def test_maps_and_bias_add_up_to_the_outputs(kind):
    model, images = fitted(kind)
    pairs = np.stack([np.arange(9) % 10, (np.arange(9) + 3) % 10], axis=1)
    found = reasons(model, images, pairs)
    expected = model.outputs(images)
    scale = np.abs(found.maps).sum(axis=(2, 3)).max()
    total = found.bias + found.maps.sum(axis=(2, 3))
    np.testing.assert_allclose(total, expected, atol=1e-5 * max(scale, 1.0))
    differences = found.unit_parts[..., 0] - found.unit_parts[..., 1]
    np.testing.assert_allclose(found.unit_maps.sum(axis=(2, 3)), differences, atol=1e-9)
    assert (np.diff(np.abs(differences), axis=1) <= 1e-9).all()
    np.testing.assert_allclose(outputs_of(model, images), expected, atol=1e-5 * max(scale, 1.0))


def test_a_unit_lies_where_it_looks_and_nowhere_else():
    model, images = fitted("bilinear", window=(0.3, 0.4))
    images = images.copy()
    images[:, 4:] = 0
    found = reasons(model, images, np.tile([0, 1], (9, 1)), n_units=24)
    network = model.network_
    order, pictures = network.forms(24)
    looks = np.zeros((24, 8, 8), bool)
    looks[order] = np.abs(pictures) > 0
    outside = ~looks[found.units]
    assert np.abs(found.unit_maps[outside]).max() == 0.0


def test_an_image_without_light_is_shared_out_too():
    model, images = fitted("bilinear")
    dark = np.zeros_like(images[:2])
    found = reasons(model, dark, np.tile([0, 1], (2, 1)))
    np.testing.assert_allclose(
        found.bias + found.maps.sum(axis=(2, 3)), model.outputs(dark), atol=1e-5
    )


class Given:
    """A model of a network that nobody fitted."""

    def __init__(self, network):
        self.network_ = network

    def _validated_predict(self, images):
        return images


@pytest.mark.parametrize(("size", "grid"), [((40, 23), 3), ((9, 30), 1), ((6, 6), 6)])
def test_cells_that_leave_places_over_and_maps_that_are_too_large(size, grid):
    rng = np.random.default_rng(0)
    units = ConvolutionalUnits((*size, 3), (Layer(4, 3, 2, 1),), grid=grid, activation="tanh")
    stage = units.stages[0]
    arrays = [rng.normal(size=s) for s in ((4, 2, 3), (4, 2, 3), (4, 2, 3), (4,))]
    layer = LayerWeights(*(a.astype(np.float32) for a in arrays))
    coef = rng.normal(size=(units.n_features + 1, 5))
    one = np.ones(3, np.float32)
    network = ConvolutionalNetwork(units, (layer,), 0.5 * one, one, coef, softmax=True)
    images = rng.integers(0, 256, (7, *size, 3), dtype=np.uint8)
    found = reasons(Given(network), images, np.tile([4, 0], (7, 1)))
    assert found.maps.shape[:2] == (7, 5)
    assert all(s <= max(LARGEST, 1) for s in found.maps.shape[2:])
    assert stage.out == size
    np.testing.assert_allclose(
        found.bias + found.maps.sum(axis=(2, 3)), network.outputs(images), atol=1e-6
    )


def test_other_models_have_no_exact_reasons():
    assert not explains(object())
    assert not explains(fitted("multilinear")[0])
    assert explains(fitted("bilinear")[0])


def test_occlusion_is_what_covering_takes():
    model, images = fitted("bilinear")
    pairs = np.array([[0, 1], [2, 3]])
    found = occlusion(model, images[:2], pairs, grid=4)
    assert found.shape == (2, 4, 4)
    # Cell (1, 2) of 2 × 2 pixels, half a pixel more on every side, rounded.
    covered = images[:2].copy()
    for one in covered:
        one[2:4, 4:6] = np.uint8(round(float(one.mean())))
    wider = images[:2].copy()
    for one in wider:
        one[round(1.5) : round(4.5), round(3.5) : round(6.5)] = np.uint8(round(float(one.mean())))
    outputs, after = outputs_of(model, images[:2]), outputs_of(model, wider)
    for i, (a, b) in enumerate(pairs):
        expected = outputs[i, a] - outputs[i, b] - after[i, a] + after[i, b]
        assert found[i, 1, 2] == pytest.approx(expected, abs=1e-6)
