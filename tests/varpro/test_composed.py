"""Problems made of others: derivatives against differences, matrices against dense Jacobians."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import oracles
from rankwise.varpro import FunctionModel, SeparableModel, VariableProjection
from rankwise.varpro.bounded import solve_within
from rankwise.varpro.parameters import slope_of_tie

X = np.linspace(0.0, 3.0, 25)
WAVES = (
    SeparableModel(["rate", "frequency"])
    .term(lambda x, rate, frequency: np.exp(-rate * x) * np.cos(frequency * x))
    .term(lambda x, rate, frequency: np.exp(-rate * x) * np.sin(frequency * x))
    .term(lambda x, rate: np.exp(-rate * x))
    .constant()
)
START = np.array([0.7, 2.0])


def targets(k=1, seed=0):
    rng = np.random.default_rng(seed)
    phi = WAVES.at(X)
    phi.prepare(np.array([0.5, 2.5]))
    coef = rng.uniform(-1.0, 2.0, (4, k))
    return phi.features(np.array([0.5, 2.5])) @ coef + 0.3 * rng.standard_normal((len(X), k))


def sigma(*shape):
    return np.random.default_rng(1).uniform(0.5, 2.0, shape)


def covariance():
    a = np.random.default_rng(2).standard_normal((len(X), 40))
    return a @ a.T / 40


OTHER = SeparableModel(["frequency", "width"]).term(
    lambda x, frequency, width: np.exp(-(((x - frequency) / width) ** 2))
)
CASES = {
    "plain": {},
    "three right-hand sides": {"k": 3},
    "ridge": {"k": 2, "ridge": 0.3},
    "sigma": {"k": 2, "sigma": sigma(25)},
    "sigma by column": {"k": 3, "sigma": sigma(25, 3)},
    "covariance": {"k": 2, "covariance": covariance()},
    "not negative": {"k": 4, "linear_bounds": (0.0, np.inf)},
    "box": {"k": 4, "linear_bounds": (-0.2, 0.5)},
    "not negative, sigma by column": {
        "k": 3,
        "sigma": sigma(25, 3),
        "linear_bounds": (0.0, np.inf),
    },
    "not negative, ridge": {"k": 3, "ridge": 0.2, "linear_bounds": (0.0, np.inf)},
    "one fixed": {"linear_bounds": ([-np.inf, 0.7, -np.inf, 0.0], [np.inf, 0.7, np.inf, np.inf])},
    "fixed": {"k": 2, "fixed": ["frequency"]},
    "tied": {"k": 2, "tied": {"frequency": lambda rate: 3.0 * rate**0.5}},
    "many, streamed": {"k": 130},
    "two data sets": {"several": True},
    "two data sets, bounds, tied": {
        "several": True,
        "linear_bounds": [(0.0, np.inf), (0.0, 0.2)],
        "tied": {"width": lambda rate, frequency: rate + 0.1 * frequency},
    },
}


def problem(case, jacobian="golub-pereyra"):
    options = dict(case)
    k, several = options.pop("k", 1), options.pop("several", False)
    basis, y, start = WAVES.at(X), targets(k), START
    if several:
        other = np.linspace(0.0, 5.0, 17)
        basis = [basis, OTHER.at(other)]
        y = [y, np.exp(-((other - 2.2) ** 2)) + 0.1 * np.random.default_rng(3).standard_normal(17)]
        start = {"rate": 0.7, "frequency": 2.0, "width": 0.9}
    projection = VariableProjection(jacobian=jacobian, ridge=options.pop("ridge", 0.0))
    spec = projection.specify(basis, y, start, **options)
    return spec.problem(), spec.space.start[spec.space.free]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_jacobian_is_that_of_the_residual_vector(case):
    """Also where linear parameters are at bounds: the exact derivative on the active set."""
    it, theta = problem(case)
    expected = oracles.finite_differences(it.residual, theta)
    np.testing.assert_allclose(it.dense_jacobian(theta), expected, atol=2e-7)
    r = it.residual(theta)
    assert it.objective(theta) == pytest.approx(0.5 * r @ r, rel=1e-12)


@pytest.mark.parametrize("jacobian", ["golub-pereyra", "kaufman"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradient_and_matrix_are_those_of_the_dense_jacobian(case, jacobian):
    it, theta = problem(case, jacobian)
    dense, r = it.dense_jacobian(theta), it.residual(theta)
    g, matrix = it.linearise(theta)
    np.testing.assert_allclose(g, dense.T @ r, atol=1e-9)
    np.testing.assert_allclose(it.gradient(theta), g, atol=1e-9)
    np.testing.assert_allclose(np.triu(matrix), np.triu(dense.T @ dense), atol=1e-8)


@given(seed=st.integers(0, 2**31), m=st.integers(1, 5), box=st.booleans())
@settings(max_examples=25, deadline=None)
def test_least_squares_within_bounds_is_scipys(seed, m, box):
    rng = np.random.default_rng(seed)
    a, c = rng.standard_normal((7, m)), rng.standard_normal((7, 6))
    lower = np.zeros((m, 6)) - rng.uniform(0, 0.3, (m, 6)) * box
    upper = np.where(box, lower + rng.uniform(0.05, 1.0, (m, 6)), np.inf)
    found, state = solve_within(a, c, lower, upper)
    for k in range(6):
        expected = optimize.lsq_linear(a, c[:, k], (lower[:, k], upper[:, k]), tol=1e-14).x
        np.testing.assert_allclose(found[:, k], expected, atol=2e-6)
    at = np.where(state < 0, lower, np.where(state > 0, upper, found))
    np.testing.assert_array_equal(at, found)


def test_collinear_columns_within_bounds_end_too():
    a = np.ones((6, 4))
    c = np.arange(12.0).reshape(6, 2) - 3.0
    found, _ = solve_within(a, c, np.zeros((4, 2)), np.full((4, 2), np.inf))
    assert (found >= 0).all()
    np.testing.assert_allclose(a @ found, np.maximum(c.mean(axis=0), 0.0) + 0 * c, atol=1e-12)


def fit(*args, **options):
    return VariableProjection().fit(*args, **options)


def test_many_right_hand_sides_are_streamed_exactly():
    """As many as rows stand in for all: same parameters, coefficients and standard errors."""
    y = targets(150)
    streamed = fit(WAVES.at(X), y, START)
    assert streamed.spec.data[0].streamed
    whole = fit(WAVES.at(X), y, START, sigma=np.ones(y.shape))
    np.testing.assert_allclose(streamed.params, whole.params, rtol=1e-7)
    np.testing.assert_allclose(streamed.coef, whole.coef, atol=1e-7)
    np.testing.assert_allclose(streamed.stderr, whole.stderr, rtol=1e-6)
    np.testing.assert_allclose(streamed.coef_stderr, whole.coef_stderr, rtol=1e-6)
    assert streamed.objective == pytest.approx(whole.objective, rel=1e-10)
    assert streamed.dof == whole.dof == 150 * 25 - 150 * 4 - 2


def test_integer_weights_are_repeated_rows():
    y, weights = targets(), np.arange(25) % 3
    repeated = np.repeat(np.arange(25), weights)
    weighted = fit(WAVES.at(X), y, START, weights=weights)
    alike = fit(WAVES.at(X[repeated]), y[repeated], START)
    np.testing.assert_allclose(weighted.params, alike.params, rtol=1e-7)
    np.testing.assert_allclose(weighted.coef, alike.coef, rtol=1e-6)


def test_a_diagonal_covariance_is_sigma():
    y, s = targets(), sigma(25)
    one = fit(WAVES.at(X), y, START, sigma=s, absolute_sigma=True)
    other = fit(WAVES.at(X), y, START, covariance=np.diag(s**2), absolute_sigma=True)
    np.testing.assert_allclose(one.covariance(), other.covariance(), rtol=1e-6)
    assert one.aic == pytest.approx(other.aic)


def test_data_sets_share_what_has_one_name():
    """Two halves of one data set, each with amplitudes of its own, are one with twice as many."""
    y = targets()
    first, second = slice(0, 12), slice(12, None)
    shared = fit([WAVES.at(X[first]), WAVES.at(X[second])], [y[first], y[second]], START)

    def columns(x, rate, frequency):
        phi = (
            np.exp(-rate * x) * np.cos(frequency * x),
            np.exp(-rate * x) * np.sin(frequency * x),
            np.exp(-rate * x),
            np.ones(25),
        )
        early = np.arange(25) < 12
        return (*(early * c for c in phi), *(~early * c for c in phi))

    whole = fit(FunctionModel(columns).at(X), y, START)
    # Ten parameters of 25 points are known poorly, so their errors are the measure.
    assert shared.objective == pytest.approx(whole.objective, rel=1e-8)
    away = np.concatenate(
        [shared.params - whole.params, *(shared.coef - whole.coef.reshape(2, 4, 1))[..., 0]]
    )
    errors = np.concatenate([whole.stderr, whole.coef_stderr[:, 0]])
    assert (np.abs(away) < 1e-3 * errors).all()
    np.testing.assert_allclose(shared.stderr, whole.stderr, rtol=1e-2)
    np.testing.assert_allclose(np.concatenate(shared.coef_stderr), whole.coef_stderr, rtol=1e-2)
    assert shared.dof == whole.dof


BELL = FunctionModel(lambda x, c, w: np.exp(-(((x - c) / w) ** 2)))
BELL_X = np.linspace(0, 1, 40)
BELL_Y = 3 * np.exp(-(((BELL_X - 0.4) / 0.3) ** 2))


@pytest.mark.parametrize("solver", ["levenberg-marquardt", "trust-region", "lbfgs", "search"])
def test_bounds_are_kept_and_the_rest_is_the_best(solver):
    """The minimum inside bounds that leave the centre out: the centre at its bound."""
    seen = []

    class Watched(FunctionModel):
        def columns(self, x, params):
            if not np.iscomplexobj(params):
                seen.append(np.array(params))
            return super().columns(x, params)

    model = Watched(lambda x, c, w: np.exp(-(((x - c) / w) ** 2)), derivatives=bell_slope)
    bounds = ([0.45, 0.05], [0.9, 2.0])
    result = VariableProjection(solver, max_iterations=500).fit(
        model.at(BELL_X), BELL_Y, [0.6, 0.5], bounds=bounds
    )
    assert all((bounds[0] <= p).all() and (p <= bounds[1]).all() for p in np.array(seen))
    alone = optimize.minimize_scalar(
        lambda w: float(
            VariableProjection(max_iterations=0).fit(BELL.at(BELL_X), BELL_Y, [0.45, w]).objective
        ),
        bounds=(0.05, 2.0),
        options={"xatol": 1e-9},
    )
    tolerance = 1e-6 if solver in ("levenberg-marquardt", "trust-region") else 1e-2
    assert result.objective == pytest.approx(alone.fun, rel=tolerance)
    np.testing.assert_allclose(result.params, [0.45, alone.x], rtol=1e-2)
    if solver == "levenberg-marquardt":
        assert result.status == "converged"
        assert np.isnan(result.stderr[0])
        assert np.isfinite(result.stderr[1])


def bell_slope(x, c, w):
    f = np.exp(-(((x - c) / w) ** 2))
    return 2 * (x - c) / w**2 * f, 2 * (x - c) ** 2 / w**3 * f


@pytest.mark.parametrize("solver", ["minpack", "gradient-descent"])
def test_solvers_that_keep_no_bounds_refuse_them(solver):
    with pytest.raises(ValueError, match=f"solver '{solver}' can't keep bounds; accepted with"):
        VariableProjection(solver).fit(
            BELL.at(BELL_X), BELL_Y, [0.6, 0.5], bounds=([0.45, 0.05], [0.9, 2.0])
        )


def test_bounds_that_do_not_bind_change_nothing():
    free = fit(BELL.at(BELL_X), BELL_Y, [0.6, 0.5])
    inside = fit(BELL.at(BELL_X), BELL_Y, [0.6, 0.5], bounds={"c": (0.0, 1.0), "w": (0, None)})
    np.testing.assert_allclose(inside.params, free.params, rtol=1e-9)


def test_fixed_and_tied_parameters():
    held = fit(BELL.at(BELL_X), BELL_Y, {"c": 0.5, "w": 0.3}, fixed=["c"])
    assert held.values["c"] == 0.5
    assert np.isnan(held.stderr[0])
    tied = fit(BELL.at(BELL_X), BELL_Y, {"c": 0.5}, tied={"w": lambda c: 0.75 * c})
    np.testing.assert_allclose(tied.params, [0.4, 0.3], rtol=1e-7)
    equal = fit(WAVES.at(X), targets(), {"rate": 1.0}, tied={"frequency": "rate"})
    assert equal.params[0] == equal.params[1]
    nothing = fit(BELL.at(BELL_X), BELL_Y, [0.4, 0.3], fixed=["c", "w"])
    assert (nothing.status, nothing.n_iterations) == ("converged", 0)
    assert nothing.coef[0, 0] == pytest.approx(3.0)


TIES = {
    "abs": (lambda c: 0.75 * abs(c), lambda c: 0.75 * c),
    "math": (lambda c: 0.3 * math.sqrt(c / 0.4), lambda c: 0.3 * np.sqrt(c / 0.4)),
    "takes no complex numbers": (lambda c: np.hypot(c, 0.1), lambda c: np.sqrt(c**2 + 0.01)),
    "real part": (lambda c: 0.3 + np.real(c) - 0.4, lambda c: c - 0.1),
    "overflows beside": (lambda c: 0.75 * c + 0 * math.exp(710 * c), lambda c: 0.75 * c),
}


@pytest.mark.parametrize("case", TIES)
def test_a_tie_that_takes_no_complex_numbers_is_fitted_by_differences(case):
    """As one of numpy's functions that is the same on the real line, without a warning."""
    rough, smooth = TIES[case]
    y = BELL_Y + 0.01 * np.random.default_rng(0).standard_normal(40)
    expected = fit(BELL.at(BELL_X), y, {"c": 0.5}, tied={"w": smooth})
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        before = np.geterr()
        found = fit(BELL.at(BELL_X), y, {"c": 0.5}, tied={"w": rough})
        assert np.geterr() == before
    assert found.status == expected.status == "converged"
    np.testing.assert_allclose(found.params, expected.params, rtol=1e-7)
    np.testing.assert_allclose(found.stderr, expected.stderr, rtol=1e-6)


def test_slopes_of_ties_are_exact_where_they_can_be():
    """Not differences where a function is analytic; those of a kink don't agree with themselves."""
    assert slope_of_tie(np.exp, [np.float64(0.7)], 0) == (np.exp(0.7), True)
    assert slope_of_tie(lambda a: 1e20 + a, [np.float64(1.0)], 0) == (1.0, True)
    assert slope_of_tie(lambda a: 1e-30 * a, [np.float64(1e-9)], 0) == (1e-30, True)
    for a in (-2.0, 3e-9, 4e12):
        slope, told = slope_of_tie(lambda a: 3 * abs(a), [np.float64(a)], 0)
        assert told
        assert slope == pytest.approx(3 * np.sign(a), rel=1e-9)
    kink = 1.0 + 1e-6
    bent = lambda a: a if np.real(a) > kink else kink + 0 * a  # noqa: E731
    assert slope_of_tie(bent, [np.float64(1.0)], 0) == (0.0, True)
    assert slope_of_tie(lambda a: max(a, 0.1), [np.float64(0.05)], 0) == (0.0, True)
    assert slope_of_tie(np.conj, [np.float64(0.7)], 0)[0] == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(ValueError, match="w is tied by a function that gives no complex numbers"):
        fit(BELL.at(BELL_X), BELL_Y, {"c": 0.0}, tied={"w": lambda c: 0.1 + math.sqrt(c)})
    # Of a fixed parameter no slope is needed.
    held = {"fixed": ["c"], "tied": {"w": lambda c: 0.3 + math.sqrt(c)}}
    assert fit(BELL.at(BELL_X), BELL_Y, {"c": 0.0}, **held).values == {"c": 0.0, "w": 0.3}


@pytest.mark.parametrize("loss", ["huber", "soft_l1", "cauchy", "arctan"])
def test_robust_losses_are_scipys(loss):
    rng = np.random.default_rng(0)
    y = BELL_Y + 0.05 * rng.standard_normal(40)
    y[[3, 17, 30]] += [2.0, -1.5, 3.0]
    result = VariableProjection(loss=loss, f_scale=0.1).fit(BELL.at(BELL_X), y, [0.5, 0.4])
    full = optimize.least_squares(
        lambda p: p[2] * np.exp(-(((BELL_X - p[0]) / p[1]) ** 2)) - y,
        [0.41, 0.31, 2.9],
        loss=loss,
        f_scale=0.1,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    assert result.status == "converged"
    np.testing.assert_allclose([*result.params, result.coef[0, 0]], full.x, rtol=2e-4)
    assert result.objective == pytest.approx(full.cost, rel=1e-6)
    plain = fit(BELL.at(BELL_X), y, [0.5, 0.4])
    assert abs(result.params[0] - 0.4) < abs(plain.params[0] - 0.4)
    assert (result.stderr < plain.stderr).all()
    objectives = [e["objective"] for e in result.history]
    assert objectives == sorted(objectives, reverse=True)


def test_each_right_hand_side_by_itself():
    rng = np.random.default_rng(0)
    model = SeparableModel(["k"]).term(lambda x, k: np.exp(-k * x)).constant()
    rates = rng.uniform(0.5, 3.0, 9)
    y = 2 * np.exp(-np.outer(X, rates)) + 0.3 + 0.01 * rng.standard_normal((25, 9))
    weights = rng.uniform(0.5, 2.0, (25, 9))
    many = VariableProjection().fit_each(model.at(X), y, [1.0], weights=weights)
    assert many.converged.all()
    for i in range(9):
        one = fit(model.at(X), y[:, i], [1.0], weights=weights[:, i])
        np.testing.assert_allclose(many.params[i], one.params, rtol=1e-6)
        np.testing.assert_allclose(many.coef[i], one.coef[:, 0], rtol=1e-6)
        np.testing.assert_allclose(many.stderr[i], one.stderr, rtol=1e-4)
        assert many.objective[i] == pytest.approx(one.objective, rel=1e-9)
    bounded = VariableProjection().fit_each(model.at(X), y, [1.0], bounds=(0.9, 2.0))
    assert ((bounded.params >= 0.9) & (bounded.params <= 2.0)).all()
    low = rates < 0.85
    np.testing.assert_array_equal(bounded.params[low], 0.9)
    assert np.isnan(bounded.stderr[low]).all()


@pytest.mark.parametrize("by_column", [False, True])
def test_rows_of_weight_zero_are_no_observations_of_each(by_column):
    """As of the rows that have a weight, and as `fit` counts them."""
    model = SeparableModel(["k"]).term(lambda x, k: np.exp(-k * x)).constant()
    y = np.exp(-np.outer(X, [0.7, 1.9])) + 0.01 * np.random.default_rng(0).standard_normal((25, 2))
    kept = np.stack([np.arange(25) % 2 == 0, np.arange(25) % (3 if by_column else 2) == 0], 1)
    weights = kept.astype(float) if by_column else kept[:, 0].astype(float)
    many = VariableProjection().fit_each(model.at(X), y, [1.0], weights=weights)
    for i in range(2):
        rows = kept[:, i]
        one = fit(model.at(X), y[:, i], [1.0], weights=rows.astype(float))
        alone = fit(model.at(X[rows]), y[rows, i], [1.0])
        dropped = VariableProjection().fit_each(model.at(X[rows]), y[rows, i], [1.0])
        for expected in (one.stderr, alone.stderr, dropped.stderr[0]):
            np.testing.assert_allclose(many.stderr[i], expected, rtol=1e-6)


def test_chunks_and_rounds_change_nothing(monkeypatch):
    from rankwise.varpro import many as module

    rng = np.random.default_rng(0)
    model = SeparableModel(["k1", "k2"]).term(lambda x, k: np.exp(-k * x), ["k1"])
    model = model.term(lambda x, k: np.exp(-k * x), ["k2"])
    y = np.exp(-np.outer(X, rng.uniform(0.2, 0.5, 8))) + np.exp(-np.outer(X, np.full(8, 4.0)))
    whole = VariableProjection().fit_each(model.at(X), y, [0.1, 9.0])
    monkeypatch.setattr(module, "_ENTRIES", 130)
    monkeypatch.setattr(module, "_FIRST_ROUND", 3)
    done = []
    parts = VariableProjection().fit_each(model.at(X), y, [0.1, 9.0], advance=done.append)
    assert sum(done) == 8
    assert parts.converged.all()
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-6)
