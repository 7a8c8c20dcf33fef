"""The functional: matrices against a dense Jacobian, that against finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from rankwise.units.basis import UnitBasis
from rankwise.units.multilinear import make_units
from rankwise.varpro.functional import dense_jacobian, linearise, project
from rankwise.varpro.problem import SeparableProblem


def make_problem(
    kind="bilinear",
    shape=(4, 5),
    jacobian="golub-pereyra",
    ridge=0.0,
    n=40,
    n_units=4,
    seed=0,
    active_fraction=1.0,
    **units_options,
):
    rng = np.random.default_rng(seed)
    units = make_units(kind, shape, **units_options)
    images = rng.standard_normal((n, *shape))
    params = 0.5 * rng.standard_normal((units.n_params, n_units))
    active = rng.random(params.shape) < active_fraction
    targets = np.eye(3)[rng.integers(3, size=n)]
    basis = UnitBasis(units, images, params, None if active.all() else active)
    problem = SeparableProblem(basis, targets, jacobian=jacobian, ridge=ridge, rcond=1e-12)
    return problem, basis.pack(params)


CASES = [
    {},
    {"ridge": 0.3},
    {"kind": "symmetric", "shape": (5, 5)},
    {"kind": "symmetric", "shape": (5, 5), "activation": "logistic", "ridge": 0.1},
    {"kind": "colour", "shape": (4, 4, 3), "rank": 2, "ridge": 0.1},
    {"active_fraction": 0.4, "ridge": 0.05},
]


@pytest.mark.parametrize("case", CASES)
def test_jacobian_is_that_of_the_residual_vector(case):
    problem, theta = make_problem(**case)
    expected = oracles.finite_differences(problem.residual, theta)
    np.testing.assert_allclose(problem.dense_jacobian(theta), expected, atol=5e-8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("jacobian", ["kaufman", "golub-pereyra"])
def test_jacobian_is_the_textbook_formula(case, jacobian):
    problem, theta = make_problem(jacobian=jacobian, **case)
    phi = problem.basis.features(theta)
    ((_, d),) = problem.basis.derivative_blocks(theta)
    expected = oracles.dense_jacobian(
        phi,
        d,
        problem.basis.owner,
        problem.targets,
        golub_pereyra=jacobian == "golub-pereyra",
        ridge=problem.ridge,
    )
    np.testing.assert_allclose(problem.dense_jacobian(theta), expected, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("jacobian", ["kaufman", "golub-pereyra"])
def test_gauss_newton_is_the_square_of_the_dense_jacobian(case, jacobian):
    problem, theta = make_problem(jacobian=jacobian, **case)
    _, matrix = problem.linearise(theta)
    dense = problem.dense_jacobian(theta)
    np.testing.assert_allclose(np.triu(matrix), np.triu(dense.T @ dense), atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_that_of_autograd(case):
    problem, theta = make_problem(**case)
    basis, units = problem.basis, problem.basis.units
    flat = torch.as_tensor(basis._flat)
    full = torch.as_tensor(basis.unpack(theta)).requires_grad_()
    phi = units.features(flat, full)
    phi = torch.cat([phi, torch.ones_like(phi[:, :1])], dim=1)
    tau = torch.as_tensor(problem.targets)
    gram = phi.T @ phi + problem.ridge * torch.eye(phi.shape[1], dtype=torch.float64)
    coef = torch.linalg.solve(gram, phi.T @ tau)
    loss = 0.5 * ((tau - phi @ coef) ** 2).sum() + 0.5 * problem.ridge * (coef**2).sum()
    loss.backward()
    assert problem.objective(theta) == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(problem.gradient(theta), basis.pack(full.grad.numpy()), atol=1e-9)


@given(seed=st.integers(0, 2**31), ridge=st.sampled_from([0.0, 1e-3, 1.0]))
@settings(max_examples=30, deadline=None)
def test_gradient_and_jacobians_agree(seed, ridge):
    """Jᵀr is the exact gradient for Golub–Pereyra *and* for Kaufman: the dropped term is ⟂ r."""
    for jacobian in ("kaufman", "golub-pereyra"):
        problem, theta = make_problem(seed=seed, ridge=ridge, jacobian=jacobian)
        g = problem.dense_jacobian(theta).T @ problem.residual(theta)
        np.testing.assert_allclose(problem.gradient(theta), g, atol=1e-9)


@pytest.mark.parametrize("rank", [3, 5])
def test_residual_and_projector_use_the_same_rank(rank):
    """On a rank-deficient Φ everything follows from one truncated pseudo-inverse."""
    rng = np.random.default_rng(0)
    phi = rng.standard_normal((30, rank)) @ rng.standard_normal((rank, 6))
    tau = rng.standard_normal((30, 2))
    d = rng.standard_normal((30, 12))
    owner = np.tile(np.arange(6), 2)
    projection = project(phi, tau, rcond=1e-10)
    assert int(projection.rank) == rank
    complement = np.eye(30) - phi @ np.linalg.pinv(phi)
    np.testing.assert_allclose(projection.residual, complement @ tau, atol=1e-10)
    np.testing.assert_allclose(projection.coef, np.linalg.pinv(phi) @ tau, atol=1e-10)
    for jacobian in ("kaufman", "golub-pereyra"):
        expected = oracles.dense_jacobian(
            phi, d, owner, tau, golub_pereyra=jacobian == "golub-pereyra"
        )
        np.testing.assert_allclose(
            dense_jacobian(projection, phi, d, owner, jacobian), expected, atol=1e-9
        )
        _, matrix = linearise(projection, [(slice(None), d)], owner, jacobian)
        np.testing.assert_allclose(np.triu(matrix), np.triu(expected.T @ expected), atol=1e-8)


def test_truncation_of_nearly_dependent_columns():
    """Singular values under rcond·s₁ count as zero in the rank, the residual and the condition."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((20, 3)))
    phi = u * [1.0, 1e-2, 1e-9]
    tau = rng.standard_normal((20, 1))
    kept = project(phi, tau, rcond=1e-6)
    assert int(kept.rank) == 2
    assert float(kept.condition) == pytest.approx(100.0)
    np.testing.assert_allclose(kept.residual, tau - u[:, :2] @ (u[:, :2].T @ tau), atol=1e-12)
    assert int(project(phi, tau, rcond=1e-12).rank) == 3


def test_batches_are_the_problems_one_by_one():
    rng = np.random.default_rng(0)
    phi, tau = rng.standard_normal((3, 20, 5)), rng.standard_normal((3, 20, 2))
    d, owner = rng.standard_normal((3, 20, 10)), np.tile(np.arange(5), 2)
    batch = project(torch.as_tensor(phi), torch.as_tensor(tau), ridge=0.1, rcond=1e-12)
    g, matrix = linearise(batch, [(slice(None), torch.as_tensor(d))], owner, "golub-pereyra")
    for i in range(3):
        one = project(phi[i], tau[i], ridge=0.1, rcond=1e-12)
        g1, matrix1 = linearise(one, [(slice(None), d[i])], owner, "golub-pereyra")
        np.testing.assert_allclose(batch.objective[i].item(), one.objective, rtol=1e-12)
        np.testing.assert_allclose(g[i].numpy(), g1, atol=1e-10)
        np.testing.assert_allclose(
            np.triu(matrix[i].numpy()),
            np.triu(matrix1),
            atol=1e-10,
        )


def test_float32_products_stay_close_to_float64():
    problem, theta = make_problem(n=200, n_units=6)
    ((rows, d),) = problem.basis.derivative_blocks(theta)
    projection, owner = problem.project(theta), problem.basis.owner
    _, exact = linearise(projection, [(rows, d)], owner, "golub-pereyra")
    g, rounded = linearise(projection, [(rows, d.astype(np.float32))], owner, "golub-pereyra")
    assert rounded.dtype == np.float32
    assert g.dtype == np.float64
    np.testing.assert_allclose(
        np.triu(rounded), np.triu(exact), atol=1e-5 * np.abs(np.triu(exact)).max()
    )


@pytest.mark.parametrize("block", [1, 7, 40])
def test_any_number_of_blocks_gives_the_same(block, monkeypatch):
    from rankwise.units import basis as module

    whole, theta = make_problem(active_fraction=0.5, ridge=0.1)
    g, matrix = whole.linearise(theta)
    monkeypatch.setattr(module, "BLOCK", block)
    parts, _ = make_problem(active_fraction=0.5, ridge=0.1)
    g_parts, matrix_parts = parts.linearise(theta)
    assert len(list(parts.basis.derivative_blocks(theta))) == -(-40 // block)
    np.testing.assert_allclose(g_parts, g, atol=1e-12)
    np.testing.assert_allclose(np.triu(matrix_parts), np.triu(matrix), atol=1e-12)
    np.testing.assert_allclose(parts.gradient(theta), g, atol=1e-12)
    np.testing.assert_allclose(parts.dense_jacobian(theta), whole.dense_jacobian(theta))


def test_unknown_jacobian():
    problem, theta = make_problem(jacobian="newton")
    with pytest.raises(ValueError, match="unknown jacobian 'newton'; accepted: kaufman, golub"):
        problem.linearise(theta)
