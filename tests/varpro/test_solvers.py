"""Solvers × problems with known minima: NIST's certified values, MINPACK, odd starts."""

import numpy as np
import pytest
import torch
from nist import CERTIFIED

from rankwise.varpro import VariableProjection
from rankwise.varpro.problem import FunctionBasis, SeparableProblem
from rankwise.varpro.solvers import (
    SOLVERS,
    LevenbergMarquardt,
    MarquardtDamping,
    NielsenDamping,
    Search,
    StoppingRule,
    cholesky_solve,
    make_solver,
)

CASES = [(p, start) for p in CERTIFIED for start in p.starts]
NAMES = [f"{p.name}-{i}" for p in CERTIFIED for i in range(len(p.starts))]


def fit(problem, start, **options):
    options = {"ftol": 1e-14, "max_iterations": 500} | options
    return VariableProjection(**options).fit(problem.basis, problem.y, list(start))


def assert_certified(problem, result):
    """NIST certifies eleven digits; six of the residual sum and four of the rest are asked for."""
    assert 2 * result.objective == pytest.approx(problem.rss, rel=1e-6)
    params, coef = problem.in_order(result.params, result.coef[:, 0])
    np.testing.assert_allclose(params, problem.params, rtol=1e-4)
    np.testing.assert_allclose(coef, problem.coef, rtol=1e-4)


@pytest.mark.parametrize("problem", CERTIFIED, ids=lambda p: p.name)
def test_the_data_are_nists(problem):
    """At the certified parameters they leave the certified residual sum of squares."""
    residual = problem.y - problem.basis.phi(np.array(problem.params)) @ np.array(problem.coef)
    # Eleven digits of the parameters leave four of Lanczos3's tiny residuals.
    assert residual @ residual == pytest.approx(
        problem.rss, rel=1e-9 if problem.rss > 1e-5 else 1e-3
    )


@pytest.mark.parametrize(("problem", "start"), CASES, ids=NAMES)
@pytest.mark.parametrize("jacobian", ["golub-pereyra", "kaufman"])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # steps that are tried, and rejected
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_levenberg_marquardt_finds_the_certified_minimum(problem, start, jacobian):
    result = fit(problem, start, jacobian=jacobian)
    assert result.status in ("converged", "stalled")  # to the last digit, no step improves
    if (problem.name, start[0], jacobian) == ("MGH17", 1.0, "kaufman"):
        # From afar Kaufman's step goes elsewhere, and the status doesn't claim a minimum.
        assert result.status == "stalled"
        assert result.objective > 100 * problem.rss
        return
    assert_certified(problem, result)


@pytest.mark.parametrize(("problem", "start"), CASES, ids=NAMES)
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_minpack_finds_the_same(problem, start):
    result = fit(problem, start, solver="minpack", ftol=1e-12)
    assert_certified(problem, result)


@pytest.mark.parametrize("solver", ["lbfgs", "gradient-descent", "search"])
def test_the_other_solvers_on_a_scaled_problem(solver):
    """One bell on [0, 1]: parameters of order one, as the units' are."""
    x = np.linspace(0, 1, 60)
    basis = FunctionBasis(
        lambda b: np.exp(-(((x - b[0]) / b[1]) ** 2))[:, None],
        lambda b: np.stack(
            [
                2 * (x - b[0]) / b[1] ** 2 * np.exp(-(((x - b[0]) / b[1]) ** 2)),
                2 * (x - b[0]) ** 2 / b[1] ** 3 * np.exp(-(((x - b[0]) / b[1]) ** 2)),
            ],
            axis=1,
        ),
        np.array([0, 0]),
    )
    y = 3 * np.exp(-(((x - 0.4) / 0.3) ** 2))
    result = VariableProjection(solver, ftol=1e-12, max_iterations=2000).fit(basis, y, [0.5, 0.4])
    np.testing.assert_allclose(result.params, [0.4, 0.3], rtol=1e-3)
    assert result.coef[0, 0] == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("damping", [MarquardtDamping(), NielsenDamping()])
def test_every_part_of_levenberg_marquardt_can_be_replaced(damping):
    calls = []

    def solve(matrix, diagonal, rhs):
        calls.append(len(rhs))
        upper = np.triu(matrix)
        full = upper + np.triu(matrix, 1).T + np.diag(diagonal)
        return np.linalg.solve(full, rhs), np.asarray(True)

    problem = CERTIFIED[0]
    solver = LevenbergMarquardt(StoppingRule(100, 1e-14), damping, solve)
    result = VariableProjection(solver).fit(problem.basis, problem.y, problem.starts[0])
    assert calls
    assert 2 * result.objective == pytest.approx(problem.rss, rel=1e-6)


def test_outcomes_are_data():
    problem = CERTIFIED[0]
    spent = fit(problem, problem.starts[0], max_iterations=1)
    assert spent.status == "max-iterations"
    assert spent.n_iterations == len(spent.history) == 1
    assert not spent.converged
    done = fit(problem, problem.params)
    assert done.status in ("converged", "stalled")
    assert done.rank == 1
    assert done.condition == 1.0
    assert set(spent.history[0]) == {"objective", "damping", "gradient_norm", "accepted"}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_that_cannot_be_evaluated_ends_in_a_status(solver):
    basis = FunctionBasis(
        lambda b: np.full((5, 1), np.nan), lambda b: np.full((5, 1), np.nan), np.array([0])
    )
    result = VariableProjection(solver).fit(basis, np.arange(5.0), [1.0])
    assert result.status == "non-finite"
    np.testing.assert_array_equal(result.params, [1.0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_constant_objective_ends_in_a_status(solver):
    """A saturated unit: its feature doesn't move, whatever the parameter."""
    basis = FunctionBasis(lambda b: np.ones((5, 1)), lambda b: np.zeros((5, 1)), np.array([0]))
    result = VariableProjection(solver).fit(basis, np.arange(5.0), [1.0])
    assert result.status in ("converged", "stalled", "max-iterations")
    assert result.objective == pytest.approx(5.0)


def test_one_small_step_is_not_convergence():
    """A step may be small because the damping is large; two in a row aren't."""
    problem = CERTIFIED[0]
    timid = MarquardtDamping(initial=1e6, decrease=1e5)
    result = VariableProjection(LevenbergMarquardt(StoppingRule(60, 1e-4), timid)).fit(
        problem.basis, problem.y, problem.starts[0]
    )
    start = VariableProjection(max_iterations=0).fit(problem.basis, problem.y, problem.starts[0])
    assert result.history[0]["objective"] > (1 - 1e-4) * start.objective, "the first was small"
    assert 2 * result.objective == pytest.approx(problem.rss, rel=1e-3)


def test_steps_that_never_improve_end_as_stalled():
    """A derivative of the wrong sign: every step is uphill."""
    x = np.linspace(0, 1, 20)
    basis = FunctionBasis(
        lambda b: np.exp(-b[0] * x)[:, None],
        lambda b: (x * np.exp(-b[0] * x))[:, None],
        np.array([0]),
    )
    y = np.exp(-2 * x)
    for solver, budget in (
        ("levenberg-marquardt", 200),
        ("levenberg-marquardt", 8),
        ("gradient-descent", 200),
    ):
        result = VariableProjection(solver, max_iterations=budget).fit(basis, y, [1.0])
        assert result.status == "stalled"
        np.testing.assert_allclose(result.params, [1.0])


def test_levenberg_marquardt_on_a_batch_is_the_members_one_by_one():
    x = np.linspace(0, 2, 30)
    rates = np.array([0.5, 1.5, 3.0])
    y = np.exp(-rates[:, None] * x)[..., None]

    class Batch:
        owner = np.array([0])

        def features(self, p):
            return torch.exp(-p[..., None, :] * torch.as_tensor(x)[:, None])

        def derivative_blocks(self, p):
            yield slice(None), -torch.as_tensor(x)[:, None] * self.features(p)

    starts = torch.ones(3, 1, dtype=torch.float64)
    fit_options = {"ftol": 1e-12, "max_iterations": 40}
    batch = VariableProjection(**fit_options).fit(Batch(), torch.as_tensor(y), starts)
    for i in range(3):
        basis = FunctionBasis(
            lambda b: np.exp(-b[0] * x)[:, None],
            lambda b: (-x * np.exp(-b[0] * x))[:, None],
            np.array([0]),
        )
        one = VariableProjection(**fit_options).fit(basis, y[i], [1.0])
        np.testing.assert_allclose(batch.params[i].numpy(), one.params, rtol=1e-9)
        assert batch.status[i] == one.status


def test_cholesky_solve_reads_the_upper_triangle_and_says_when_it_fails():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 4))
    matrix, rhs = a.T @ a, rng.standard_normal(4)
    expected = np.linalg.solve(matrix + np.eye(4), rhs)
    upper = np.triu(matrix) + np.tril(np.full((4, 4), 1e9), -1)
    for convert in (np.asarray, torch.as_tensor):
        x, worked = cholesky_solve(convert(upper), convert(np.ones(4)), convert(rhs))
        np.testing.assert_allclose(np.asarray(x), expected)
        assert bool(worked)
        x, worked = cholesky_solve(convert(-np.eye(4)), convert(np.zeros(4)), convert(rhs))
        assert not bool(worked)
        np.testing.assert_array_equal(np.asarray(x), np.zeros(4))


def test_make_solver_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="unknown solver 'adam'; accepted: levenberg-marquardt"):
        make_solver("adam")


def test_make_solver_passes_budget_and_tolerance():
    assert make_solver("search", max_iterations=7) == Search(max_evaluations=7)
    assert make_solver("levenberg-marquardt", ftol=0.5).stopping.ftol == 0.5


def test_minpack_needs_as_many_residuals_as_parameters():
    basis = FunctionBasis(
        lambda b: np.ones((1, 1)) * b.sum(), lambda b: np.ones((1, 2)), np.array([0, 0])
    )
    with pytest.raises(ValueError, match="'minpack' needs at least as many residuals"):
        VariableProjection("minpack").fit(basis, [1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VariableProjection(jacobian="exact"), "unknown jacobian 'exact'"),
        (lambda: VariableProjection(ridge=-1.0), "ridge must be at least 0, got -1.0"),
        (
            lambda: VariableProjection().fit(CERTIFIED[0].basis, [np.nan] * 14, [1.0]),
            "targets must be finite",
        ),
        (
            lambda: VariableProjection().fit(CERTIFIED[0].basis, CERTIFIED[0].y, [np.inf]),
            "start must be finite",
        ),
        (
            lambda: VariableProjection().fit(CERTIFIED[0].basis, CERTIFIED[0].y, [1.0, 2.0]),
            "start has 2 parameters, the basis has 1",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_problem_does_not_evaluate_a_point_twice():
    problem = SeparableProblem(
        CERTIFIED[0].basis, CERTIFIED[0].y[:, None], jacobian="kaufman", ridge=0.0, rcond=1e-12
    )
    theta = np.array([1e-4])
    problem.objective(theta)
    problem.linearise(theta)
    problem.residual(theta)
    assert problem.n_evaluations == 1
