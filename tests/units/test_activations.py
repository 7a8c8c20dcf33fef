"""Activations: slopes against differences, on arrays and tensors alike."""

import re

import numpy as np
import pytest
import torch
from scipy import special
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


def spelled(text, x):
    """A spelling in C or JavaScript, read as Python: the functions of the two, and ``? :``."""
    text = re.sub(r"(\d)f\b", r"\1", text).replace("Math.SQRT2", "2**0.5")
    text = re.sub(r"\b(?:Math\.)?(tanh|exp|log1p|erf)f?\(", r"\1(", text)
    choice = re.fullmatch(r"\(?(x > [\d.]+) \? (.*) : (.*?)\)?", text)
    if choice and choice[2].count("(") == choice[2].count(")"):
        branches = [part + ")" * (part.count("(") - part.count(")")) for part in choice.groups()]
        text = "where({}, {}, {})".format(*branches)
    known = {"tanh": np.tanh, "exp": np.exp, "log1p": np.log1p, "erf": special.erf}
    return eval(text, {"__builtins__": {}}, known | {"where": np.where, "x": x})


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_export_spells_the_same_value(name):
    sigma, q = ACTIVATIONS[name], np.linspace(-6, 6, 101)
    expected = sigma.value(q)
    for text in (sigma.c, sigma.js):
        np.testing.assert_allclose(spelled(text, q), expected, rtol=1e-6, atol=1e-12)
    nodes = {
        "Tanh": np.tanh, "Sigmoid": special.expit, "Relu": lambda v: np.maximum(v, 0),
        "Softplus": lambda v: np.logaddexp(v, 0), "Erf": special.erf, "Mul": np.multiply,
        "Add": np.add,
    }  # fmt: skip
    made = []
    for kind, *inputs in sigma.onnx:
        values = [q if i == "x" else made[i] if isinstance(i, int) else i for i in inputs]
        made.append(nodes[kind](*values))
    np.testing.assert_allclose(made[-1], expected, rtol=1e-9, atol=1e-12)
