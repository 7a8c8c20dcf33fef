"""Gauss–Newton by conjugate gradients against the dense matrix of the functional."""

import numpy as np
import pytest
import torch

from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units
from rankwise.varpro.functional import linearise, project
from rankwise.varpro.newton import Linearisation, refine_newton


def setup(activation="tanh", kind="bilinear", rank=1, shape=(6, 6)):
    rng = np.random.default_rng(0)
    images, labels = rng.random((40, *shape)), rng.integers(3, size=40)
    units = make_units(kind, shape, rank=rank, activation=activation)
    params, active = random_units(units, 4, images, Start(window=(0.5, 0.9)), rng)
    return units, params, active, images, np.eye(3)[labels]


def features_of(units, images):
    flat = torch.from_numpy(np.ascontiguousarray(units.flatten(images)))
    return lambda params: units.features(flat, params)


@pytest.mark.parametrize(
    ("kind", "activation", "rank"),
    [("bilinear", "tanh", 1), ("symmetric", "silu", 1), ("bilinear", "softplus", 2)],
)
def test_products_equal_the_dense_matrix(kind, activation, rank):
    units, params, active, images, targets = setup(activation, kind, rank)
    ridge = 0.7
    at = Linearisation(
        features_of(units, images),
        torch.from_numpy(params),
        torch.from_numpy(active),
        torch.from_numpy(targets),
        ridge,
    )
    positions = np.flatnonzero(active)
    phi, d = units.derivatives(units.views(images), params, positions)
    projection = project(np.hstack([phi, np.ones((40, 1))]), targets, ridge=ridge, rcond=1e-10)
    owner = positions % 4
    gradient, matrix = linearise(projection, [(slice(0, 40), d)], owner, "golub-pereyra")
    matrix = np.triu(matrix) + np.triu(matrix, 1).T  # the upper triangle is the meaningful one
    assert at.objective == pytest.approx(float(projection.objective))
    np.testing.assert_allclose(at.gradient.numpy()[active], gradient, atol=1e-9)
    direction = np.random.default_rng(1).standard_normal(params.shape)
    found = at.product(torch.from_numpy(direction)).numpy()
    np.testing.assert_allclose(found[active], matrix @ direction[active], rtol=1e-6, atol=1e-8)
    assert not found[~active].any()


def test_the_objective_falls_and_fixed_parameters_stay():
    units, params, active, images, targets = setup()
    result = refine_newton(features_of(units, images), params, active, targets, iterations=6)
    assert result.objectives[-1] < 0.8 * result.objectives[0]
    assert all(b < a for a, b in zip(result.objectives, result.objectives[1:], strict=False))
    np.testing.assert_array_equal(result.params[~active], params[~active])
    assert result.status == "max-iterations"
    assert result.n_products >= 6
    again = refine_newton(features_of(units, images), params, active, targets, iterations=6)
    np.testing.assert_array_equal(result.params, again.params)


def test_it_says_when_it_has_converged():
    units, params, active, images, targets = setup()
    loose = refine_newton(features_of(units, images), params, active, targets, tolerance=0.9)
    assert (loose.status, len(loose.objectives)) == ("converged", 2)
    blank = refine_newton(features_of(units, np.zeros_like(images)), params, active, targets)
    assert blank.status == "converged"
    np.testing.assert_allclose(blank.params[:-1], params[:-1], atol=1e-9)
