"""Units: every kind against a sum over pixels, derivatives against finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from rankwise.units.multilinear import Units, make_units

KINDS = [
    ("symmetric", (5, 5)),
    ("symmetric", (4, 4, 4)),
    ("bilinear", (4, 6)),
    ("bilinear", (4, 5, 3)),
    ("colour", (4, 4, 3)),
    ("colour-bilinear", (4, 5, 3)),
    ("multilinear", (7,)),
    ("multilinear", (3, 2, 4, 2)),
]


def make(kind, shape, rank=1, activation="tanh", n=6, n_units=3, seed=0):
    rng = np.random.default_rng(seed)
    units = make_units(kind, shape, rank=rank, activation=activation)
    images = rng.standard_normal((n, *shape))
    params = 0.5 * rng.standard_normal((units.n_params, n_units))
    return units, images, params


@pytest.mark.parametrize(("kind", "shape"), KINDS)
@pytest.mark.parametrize("rank", [1, 2])
def test_scalarize_is_the_sum_over_pixels(kind, shape, rank):
    units, images, params = make(kind, shape, rank)
    q = units.scalarize(units.flatten(images), params)
    np.testing.assert_allclose(q, oracles.unit_forms(units, params, images), atol=1e-12)


@pytest.mark.parametrize(("kind", "shape"), KINDS)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_derivatives_are_those_of_the_features(kind, shape, rank, activation):
    units, images, params = make(kind, shape, rank, activation)
    flat = units.flatten(images)

    def features(vector):
        return units.features(flat, vector.reshape(params.shape))

    whole = oracles.finite_differences(features, params.ravel())  # (n, I, P)
    phi, d = units.derivatives(units.views(images), params)
    np.testing.assert_allclose(phi, features(params.ravel()), atol=1e-12)
    owner = np.tile(np.arange(params.shape[1]), units.n_params)
    for column, unit in enumerate(owner):
        np.testing.assert_allclose(d[:, column], whole[:, unit, column], atol=2e-8)
        others = np.delete(whole[:, :, column], unit, axis=1)
        assert np.all(others == 0.0), "a unit's parameter moved another unit's feature"


@pytest.mark.parametrize("rank", [1, 2])
def test_active_derivatives_are_columns_of_all(rank):
    units, images, params = make("colour", (4, 4, 3), rank)
    rng = np.random.default_rng(1)
    active = np.flatnonzero(rng.random(params.size) < 0.4)
    _, everything = units.derivatives(units.views(images), params)
    _, some = units.derivatives(units.views(images), params, active)
    np.testing.assert_array_equal(some, everything[:, active])


@pytest.mark.parametrize(("kind", "shape"), KINDS)
def test_torch_and_batches_give_the_same(kind, shape):
    units, images, params = make(kind, shape, rank=2)
    other = params[:, ::-1].copy()
    stacked_images = torch.as_tensor(np.stack([images, images]))
    stacked = torch.as_tensor(np.stack([params, other]))
    phi, d = units.derivatives(units.views(stacked_images), stacked)
    features = units.features(units.flatten(stacked_images), stacked)
    for i, p in enumerate((params, other)):
        expected_phi, expected_d = units.derivatives(units.views(images), p)
        np.testing.assert_allclose(phi[i].numpy(), expected_phi, atol=1e-12)
        np.testing.assert_allclose(d[i].numpy(), expected_d, atol=1e-12)
        np.testing.assert_allclose(features[i].numpy(), expected_phi, atol=1e-12)


@given(seed=st.integers(0, 2**31), side=st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_a_symmetric_unit_cannot_tell_an_image_from_its_transpose(seed, side):
    units, images, params = make("symmetric", (side, side), seed=seed)
    flat, flipped = units.flatten(images), units.flatten(images.transpose(0, 2, 1))
    np.testing.assert_allclose(
        units.features(flat, params), units.features(flipped, params), atol=1e-12
    )


def test_symmetric_units_see_406_of_784_dimensions():
    units = make_units("symmetric", (28, 28))
    assert units.flatten(np.zeros((2, 28, 28))).shape == (2, 406)


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("symmetric", (28, 28), 29),  # paper, section 6.1: 5200 × 29 = 150,800
        ("colour", (32, 32, 3), 36),  # paper, section 6.2
        ("bilinear", (28, 28), 57),
        ("symmetric", (9, 9, 9), 10),  # paper, section 7: one vector for equal dimensions
        ("multilinear", (3, 4, 5), 13),  # paper, section 7: the sum of the dimensions
    ],
)
def test_parameters_of_a_unit(kind, shape, expected):
    assert make_units(kind, shape).n_params == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_units("cubic", (4, 4)), "unknown unit 'cubic'; accepted: symmetric"),
        (lambda: make_units("symmetric", (4, 5)), "needs square images, got 4×5; use a bilinear"),
        (lambda: make_units("colour", (4, 4)), "needs colour images"),
        (lambda: make_units("bilinear", (4, 4), rank=0), "rank must be at least 1, got 0"),
        (
            lambda: make_units("bilinear", (4, 4), activation="cosine"),
            "unknown activation 'cosine'; accepted: tanh, logistic",
        ),
        (lambda: Units((4, 5), (0, 0)), "can't share a vector"),
        (lambda: Units((4, 5), (0,)), "differ"),
    ],
)
def test_errors_say_what_is_accepted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
