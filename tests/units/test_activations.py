"""Activations: slopes against differences, on arrays and tensors alike."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from rankwise.units.activations import ACTIVATIONS

Q = np.linspace(-6, 6, 41) + 0.05  # away from the kink of ReLU


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_slopes_equal_difference_quotients(name):
    sigma = ACTIVATIONS[name]
    value, slope = sigma.value_and_slope(Q)
    np.testing.assert_array_equal(value, sigma.value(Q))
    expected = (sigma.value(Q + 1e-6) - sigma.value(Q - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, expected, atol=1e-8)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_tensors_get_what_arrays_get(name):
    value, slope = ACTIVATIONS[name].value_and_slope(Q)
    tensors = ACTIVATIONS[name].value_and_slope(torch.from_numpy(Q))
    np.testing.assert_allclose(tensors[0].numpy(), value, atol=1e-12)
    np.testing.assert_allclose(tensors[1].numpy(), slope, atol=1e-12)
    assert ACTIVATIONS[name].value(Q.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tanh", np.tanh(Q)),
        ("logistic", 1 / (1 + np.exp(-Q))),
        ("relu", np.maximum(Q, 0)),
        ("softplus", np.log(1 + np.exp(Q))),
        ("silu", Q / (1 + np.exp(-Q))),
        ("gelu", Q * 0.5 * (1 + erf(Q / np.sqrt(2)))),
    ],
)
def test_values_are_what_their_names_say(name, expected):
    np.testing.assert_allclose(ACTIVATIONS[name].value(Q), expected, rtol=1e-9, atol=1e-12)


def test_nothing_overflows():
    for sigma in ACTIVATIONS.values():
        with np.errstate(over="raise", invalid="raise"):
            value, slope = sigma.value_and_slope(np.array([-1e4, 1e4]))
        assert np.isfinite(value).all()
        assert np.isfinite(slope).all()
