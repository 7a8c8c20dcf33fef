"""Solvers × problems with known minima: NIST's certified values, MINPACK, odd starts."""

import warnings

import numpy as np
import pytest
import strd
import torch

from rankwise.varpro import FunctionModel, VariableProjection
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
from rankwise.varpro.solvers.result import check_budget, check_tolerance

# NIST's starts that lead elsewhere; the status doesn't claim a minimum there.
LOST = {("MGH10", 0, "levenberg-marquardt"), ("MGH10", 0, "minpack")}
MISRA = FunctionBasis(
    lambda b: 1 - np.exp(-b[0] * strd.problem("Misra1a").x)[:, None],
    lambda b: (
        strd.problem("Misra1a").x[:, None] * np.exp(-b[0] * strd.problem("Misra1a").x)[:, None]
    ),
    np.array([0]),
)
MISRA_Y = strd.problem("Misra1a").y
MISRA_START = [1e-4]
MISRA_RSS = strd.problem("Misra1a").rss


def fit(problem, start, **options):
    return VariableProjection(**({"max_iterations": 1000} | options)).fit(
        problem.model.at(problem.x),
        problem.y,
        problem.nonlinear(problem.starts[start]),
        linear_bounds=problem.linear_bounds,
    )


def fit_misra(start=MISRA_START, **options):
    return VariableProjection(**options).fit(MISRA, MISRA_Y, start)


@pytest.mark.parametrize("name", strd.NAMES)
def test_the_data_are_nists(name):
    """At the certified parameters they leave the certified residual sum of squares."""
    problem = strd.problem(name)
    residual = problem.y - problem.full(problem.x, problem.certified)
    # Eleven digits of the parameters leave few of Lanczos' tiny residuals.
    rel = {"Lanczos1": 1e9, "Lanczos2": 1.0, "Lanczos3": 1e-3}.get(name, 1e-5)
    assert residual @ residual == pytest.approx(problem.rss, rel=rel)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", strd.NAMES)
def test_levenberg_marquardt_finds_the_certified_minimum(name, start):
    """NIST certifies eleven digits; six of parameters and of standard errors are asked for."""
    problem = strd.problem(name)
    found = fit(problem, start)
    if (name, start, "levenberg-marquardt") in LOST:
        assert found.status == "stalled"
        return
    assert found.status == "converged"
    values, errors = problem.found(found)
    assert strd.digits(values, problem.certified) >= 6
    # Lanczos1's residuals, 1e-13, are differences of doubles near 1: two digits of them are left.
    assert strd.digits(errors, problem.deviations) >= (1.5 if name == "Lanczos1" else 6)


@pytest.mark.parametrize("solver", ["minpack", "trust-region"])
@pytest.mark.parametrize("name", ["Misra1b", "Lanczos3", "Gauss2", "MGH10", "ENSO", "Roszman1"])
def test_scipys_solvers_find_the_same(name, solver):
    """From the start that NIST calls near."""
    problem = strd.problem(name)
    assert strd.digits(problem.found(fit(problem, 1, solver=solver))[0], problem.certified) >= 5


@pytest.mark.parametrize("name", ["Misra1a", "Gauss1", "ENSO", "Lanczos3", "Roszman1"])
def test_kaufmans_matrix_finds_the_same(name):
    problem = strd.problem(name)
    found = problem.found(fit(problem, 1, jacobian="kaufman"))[0]
    assert strd.digits(found, problem.certified) >= 5


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

    solver = LevenbergMarquardt(StoppingRule(100, 1e-14), damping, solve)
    result = fit_misra(solver=solver)
    assert calls
    assert 2 * result.objective == pytest.approx(MISRA_RSS, rel=1e-6)


def test_outcomes_are_data():
    spent = fit_misra(max_iterations=1)
    assert spent.status == "max-iterations"
    assert spent.n_iterations == len(spent.history) == 1
    assert not spent.converged
    done = fit_misra([5.5015643181e-04])
    assert done.status == "converged"
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
    timid = MarquardtDamping(initial=1e6, decrease=1e5)
    result = fit_misra(solver=LevenbergMarquardt(StoppingRule(60, 1e-4), timid))
    start = fit_misra(max_iterations=0)
    assert result.history[0]["objective"] > (1 - 1e-4) * start.objective, "the first was small"
    assert 2 * result.objective == pytest.approx(MISRA_RSS, rel=1e-3)


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


@pytest.mark.parametrize("unit", [2.0**-300, 1.0, 2.0**300])
def test_levenberg_marquardt_on_a_batch_is_the_members_one_by_one(unit):
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
    batch = VariableProjection(**fit_options).fit(Batch(), unit * torch.as_tensor(y), starts)
    assert np.isfinite([e["gradient_norm"] for e in batch.history]).all()
    assert max(batch.history[0]["gradient_norm"]) > 0
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
        (lambda: VariableProjection(ridge=-1.0), "ridge must be at least 0 and finite, got -1.0"),
        (
            lambda: VariableProjection().fit(MISRA, [np.nan] * 14, [1.0]),
            "targets must be finite",
        ),
        (
            lambda: VariableProjection().fit(MISRA, MISRA_Y, [np.inf]),
            "start must be finite",
        ),
        (
            lambda: VariableProjection().fit(MISRA, MISRA_Y, [1.0, 2.0]),
            "start has 2 parameters, the basis has 1",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_problem_does_not_evaluate_a_point_twice():
    problem = SeparableProblem(MISRA, MISRA_Y[:, None], jacobian="kaufman", ridge=0.0, rcond=1e-12)
    theta = np.array([1e-4])
    problem.objective(theta)
    problem.linearise(theta)
    problem.residual(theta)
    assert problem.n_evaluations == 1


DECAY_T = np.linspace(0, 5, 200)


def decay(unit):
    """Two exponentials whose time is counted in a unit."""
    t = DECAY_T * unit
    return FunctionBasis(
        lambda r: np.exp(-np.outer(t, r)),
        lambda r: -t[:, None] * np.exp(-np.outer(t, r)),
        np.arange(2),
    )


@pytest.mark.parametrize("solver", ["levenberg-marquardt", "minpack", "trust-region"])
@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1.0, 1e9])
def test_no_unit_of_a_parameter_matters(solver, unit):
    y = 2 * np.exp(-0.5 * DECAY_T) + np.exp(-3 * DECAY_T)
    result = VariableProjection(solver).fit(decay(unit), y, np.array([0.1, 5.0]) / unit)
    assert result.status == "converged"
    np.testing.assert_allclose(np.asarray(result.params) * unit, [0.5, 3.0], rtol=1e-6)


@pytest.mark.parametrize("units", [(1e-9, 1e9), (1e12, 1e-3)])
def test_nor_do_units_that_differ(units):
    """A bell's centre and width in units eighteen orders apart, and its height in others still."""
    x = np.linspace(0, 1, 60)
    model = FunctionModel(
        lambda x, c, w: np.exp(-(((x - c * units[0]) / (w * units[1])) ** 2)) * 1e-20
    )
    start = np.array([0.5, 0.4]) / units
    for y_unit in (1e-30, 1.0, 1e30):
        y = 3 * np.exp(-(((x - 0.4) / 0.3) ** 2)) * y_unit
        result = VariableProjection().fit(model.at(x), y, start)
        assert result.status == "converged"
        np.testing.assert_allclose(result.params * units, [0.4, 0.3], rtol=1e-7)
        assert result.coef[0, 0] == pytest.approx(3e20 * y_unit, rel=1e-7)


@pytest.mark.parametrize("y_unit", [1e-20, 1.0, 1e20])
def test_an_exact_fit_has_converged(y_unit):
    """Nothing is left to lower: that is a minimum, not a stall."""
    y = (2 * np.exp(-0.5 * DECAY_T) + np.exp(-3 * DECAY_T)) * y_unit
    result = VariableProjection().fit(decay(1.0), y, [0.1, 5.0])
    assert result.status == "converged"
    assert result.objective < 1e-27 * y_unit**2
    zero = VariableProjection().fit(decay(1.0), np.zeros(200), [0.1, 5.0])
    assert (zero.status, zero.n_iterations) == ("converged", 0)
    exact = VariableProjection().fit(decay(1.0), y, [0.5, 3.0])
    assert (exact.status, exact.n_iterations) == ("converged", 0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("power", [-300, 300])
def test_a_power_of_two_of_the_targets_changes_no_digit(solver, power):
    """Though fourth powers of what a solver multiplies are no numbers then."""
    x = np.linspace(0, 1, 60)
    basis = FunctionModel(lambda x, c, w: (np.exp(-(((x - c) / w) ** 2)), 1.0)).at(x)
    y = 3 * np.exp(-(((x - 0.4) / 0.3) ** 2)) + 0.1 * np.cos(40 * x)
    projection = VariableProjection(solver, ftol=1e-12, max_iterations=500)
    expected = projection.fit(basis, y, [0.5, 0.4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = projection.fit(basis, np.ldexp(y, power), [0.5, 0.4])
        found.summary()
    assert (found.status, found.n_iterations) == (expected.status, expected.n_iterations)
    np.testing.assert_array_equal(found.params, expected.params)
    np.testing.assert_array_equal(found.stderr, expected.stderr)
    for name in ("coef", "coef_stderr"):
        expected_one = np.ldexp(getattr(expected, name), power)
        np.testing.assert_array_equal(getattr(found, name), expected_one)
    np.testing.assert_array_equal(found.residuals(), np.ldexp(expected.residuals(), power))
    assert found.objective == np.ldexp(expected.objective, 2 * power)
    last = [one.history[-1]["objective"] for one in (found, expected)]
    assert last[0] == np.ldexp(last[1], 2 * power)


@pytest.mark.parametrize("options", [{"bounds": (0.5, 9.0)}, {"linear_bounds": (0, np.inf)}, {}])
def test_nor_within_bounds_or_of_each_right_hand_side(options):
    model = FunctionModel(lambda t, k: (np.exp(-k * t), 1.0)).at(DECAY_T)
    y = 2 * np.exp(-0.7 * DECAY_T) + 1e-3 * np.sin(DECAY_T**2)
    expected = VariableProjection().fit(model, y, [1.0], **options)
    for power in (-300, 300):
        found = VariableProjection().fit(model, np.ldexp(y, power), [1.0], **options)
        np.testing.assert_array_equal(found.params, expected.params)
    several = np.stack([np.ldexp(y, -300), y, np.ldexp(y, 300)], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each = VariableProjection().fit_each(model, several, [1.0])
    assert each.converged.all()
    np.testing.assert_array_equal(each.params[[0, 2]], each.params[[1, 1]])
    np.testing.assert_array_equal(each.stderr[[0, 2]], each.stderr[[1, 1]])
    np.testing.assert_array_equal(each.coef[2], np.ldexp(each.coef[1], 300))
    assert each.objective[0] == np.ldexp(each.objective[1], -600)
    np.testing.assert_allclose(each.params[1], VariableProjection().fit(model, y, [1.0]).params)


@pytest.mark.parametrize("size", [1e-170, 1e-140, 1e140, 1e160])
def test_targets_whose_squares_are_no_numbers_are_refused(size):
    model = FunctionModel(lambda t, k: np.exp(-k * t)).at(DECAY_T)
    y = np.exp(-DECAY_T)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (
            lambda: VariableProjection().fit(model, size * y, [2.0]),
            lambda: VariableProjection().fit_each(model, np.stack([y, size * y], 1), [2.0]),
        ):
            with pytest.raises(ValueError, match="and fits need 1e-270 to 1e\\+270; count the"):
                call()
        sigma = np.full(200, 1e-2 * size)
        if 1e-145 < size < 1e145:
            weighted = VariableProjection().fit(model, size * y, [2.0], sigma=sigma)
            assert weighted.params[0] == pytest.approx(1.0)
        else:
            with pytest.raises(ValueError, match="the largest root of a weight is 1e"):
                VariableProjection().fit(model, size * y, [2.0], sigma=sigma)


def test_atol_ends_a_fit_that_is_good_enough():
    y = 2 * np.exp(-0.5 * DECAY_T) + np.exp(-3 * DECAY_T)
    loose = VariableProjection(atol=1e-4).fit(decay(1.0), y, [0.1, 5.0])
    assert loose.status == "converged"
    assert 1e-20 < loose.objective <= 1e-4 * 0.5 * y @ y
    with pytest.raises(ValueError, match="atol is for 'levenberg-marquardt'"):
        VariableProjection("minpack", atol=1e-4).fit(decay(1.0), y, [0.1, 5.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StoppingRule(max_iterations=-5), "max_iterations must be a whole number"),
        (lambda: check_budget("patience", 2.5), "patience must be a whole number"),
        (lambda: check_tolerance("gtol", "small"), "gtol must be a finite number"),
        (lambda: StoppingRule(ftol=-1e-3), "ftol must be a finite number of at least 0"),
        (lambda: StoppingRule(atol=np.nan), "atol must be a finite number of at least 0"),
        (lambda: make_solver("minpack", max_iterations=-1), "max_iterations must be a whole"),
        (lambda: make_solver("trust-region", ftol=np.inf), "ftol must be a finite number"),
        (lambda: make_solver("gradient-descent", max_iterations=True), "max_iterations must be"),
        (lambda: make_solver("search", max_iterations=-1), "max_evaluations must be a whole"),
    ],
)
def test_bad_budgets_and_tolerances(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_ill_conditioned_step_comes_from_a_qr_factorisation():
    """Two parameters that hardly differ: Cholesky of JᵀJ loses what QR of J keeps."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((30, 2))
    a[:, 1] = a[:, 0] + 1e-6 * a[:, 1]
    r = rng.standard_normal(30)

    class Linear:
        """``½‖r + aθ‖²``, a solver's view."""

        n_evaluations, n_residuals, scale = 0, 30, 0.5 * r @ r
        qr = 0

        def objective(self, p):
            return np.float64(0.5 * np.sum((r + a @ p) ** 2))

        def linearise(self, p):
            return a.T @ (r + a @ p), a.T @ a

        def gradient(self, p):
            return a.T @ (r + a @ p)

        def residual(self, p):
            return r + a @ p

        def dense_jacobian(self, p):
            self.qr += 1
            return a

    q, _ = np.linalg.qr(a)
    least = 0.5 * np.sum((r - q @ (q.T @ r)) ** 2)
    problem = Linear()
    outcome = LevenbergMarquardt().minimise(problem, np.zeros(2))
    assert problem.qr > 0
    assert outcome.objective == pytest.approx(least, rel=1e-9)
    never = Linear()
    LevenbergMarquardt(qr_below=0.0).minimise(never, np.zeros(2))
    assert never.qr == 0
