"""Faces and statistics: against scipy's curve_fit on the full model, and against refitting."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn.utils.estimator_checks import parametrize_with_checks

from rankwise import SeparableRegressor, VariableProjection, curve_fit_separable
from rankwise.varpro import CurveFit, FunctionBasis, FunctionModel, SeparableModel, specification

X = np.linspace(0.0, 4.0, 60)
RNG = np.random.default_rng(0)
SIGMA = RNG.uniform(0.02, 0.1, 60)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + SIGMA * RNG.standard_normal(60)


def columns(x, k):
    return np.exp(-k * x), np.ones_like(x)


def full(x, k, a, b):
    return a * np.exp(-k * x) + b


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("kind", ["none", "sigma", "covariance"])
def test_curve_fit_has_scipys_conventions(kind, absolute):
    covariance = np.diag(SIGMA**2) + 0.001 * np.exp(-np.abs(np.subtract.outer(X, X)))
    sigma = {"none": None, "sigma": SIGMA, "covariance": covariance}[kind]
    popt, pcov = curve_fit_separable(columns, X, Y, [1.0], sigma=sigma, absolute_sigma=absolute)
    expected, cov = optimize.curve_fit(
        full, X, Y, [1.3, 2.0, 0.5], sigma=sigma, absolute_sigma=absolute, ftol=1e-14, xtol=1e-14
    )
    if kind == "none" and absolute:
        cov /= cov[0, 0] / pcov[0, 0]  # scipy takes no sigma for sigma=1 only since 1.9
    np.testing.assert_allclose(popt, expected, rtol=1e-6)
    np.testing.assert_allclose(pcov, cov, rtol=2e-4)


def test_curve_fit_takes_bounds_losses_and_gives_the_fit():
    popt, pcov, fit = curve_fit_separable(
        columns,
        X,
        Y,
        [2.0],
        bounds=([1.6], [3.0]),
        linear_bounds=([0.0, 0.0], [np.inf, 0.2]),
        loss="soft_l1",
        full_output=True,
    )
    assert popt[0] == 1.6
    assert popt[2] == 0.2
    assert not pcov[0].any()
    assert not pcov[2].any()
    assert isinstance(fit, CurveFit)
    starred = curve_fit_separable(lambda x, *k: np.exp(-k[0] * x), X, Y, [1.0])[0]
    assert len(starred) == 2
    with pytest.raises(ValueError, match=r"y must have shape \(n,\), got \(60, 2\)"):
        curve_fit_separable(columns, X, np.stack([Y, Y], 1), [1.0])
    with pytest.raises(RuntimeError, match="the fit ended as non-finite after 0 iterations"):
        curve_fit_separable(lambda x, k: np.log(-k * x - 1), X, Y, [1.0])


def test_the_curve_side_never_loads_torch():
    code = (
        "import numpy as np\n"
        "from rankwise import VariableProjection, SeparableRegressor, curve_fit_separable\n"
        "from rankwise.varpro import SeparableModel\n"
        "x = np.linspace(0, 4, 50); y = 2 * np.exp(-x) + 1\n"
        "f = lambda x, k: (np.exp(-k * x), 1.0)\n"
        "curve_fit_separable(f, x, y, [2.0])\n"
        "SeparableRegressor(f, [2.0]).fit(x[:, None], y)\n"
        "model = SeparableModel(['k']).term(lambda x, k: np.exp(-k * x)).constant()\n"
        "fit = VariableProjection().fit(model.at(x), y, [2.0])\n"
        "fit.summary(); fit.profile('k'); fit.bootstrap(3)\n"
        "VariableProjection().fit_each(model.at(x), np.stack([y, y], 1), [2.0])\n"
        "import sys; assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class SeparableMean:
    """A function whose name holds no address: tests have the same names in every process."""

    def __repr__(self):
        return "separable_mean"

    def __call__(self, x, k):
        every = x[:, None] if x.ndim == 1 else x
        return np.exp(-(((every[:, 0] - k) / 3.0) ** 2)), *every.T, 1.0


@parametrize_with_checks([SeparableRegressor(SeparableMean(), [0.5])])
def test_the_regressor_is_one_of_scikit_learns(estimator, check):
    check(estimator)


def test_the_regressor_fits_predicts_and_scores():
    model = SeparableRegressor(columns, [1.0], linear_bounds=(0.0, np.inf))
    assert model.fit(X[:, None], Y, sample_weight=1 / SIGMA**2) is model
    popt, _ = curve_fit_separable(columns, X, Y, [1.0], sigma=SIGMA)
    np.testing.assert_allclose([*model.params_, *model.coef_], popt, rtol=1e-7)
    assert model.score(X[:, None], Y) > 0.97
    assert model.predict(X[:3, None]).shape == (3,)
    both = SeparableRegressor(columns, [1.0]).fit(X[:, None], np.stack([Y, 2 * Y], 1))
    assert both.predict(X[:3, None]).shape == (3, 2)
    with pytest.raises(ValueError, match="isn't finite at the start"):
        SeparableRegressor(lambda x, k: np.log(k * x - 9), [1.0]).fit(X[:, None], Y)


# -- models -------------------------------------------------------------------------------------

SLOPE = {
    "complex-step": columns,
    "finite-differences": columns,
    "torch": lambda x, k: (torch.exp(-k * x), torch.ones_like(x)),
}


@pytest.mark.parametrize("kind", [*SLOPE, "own"])
def test_every_kind_of_derivative_gives_the_same_fit(kind):
    if kind == "own":
        model = FunctionModel(columns, derivatives=lambda x, k: [(-x * np.exp(-k * x), 0.0)])
    else:
        model = FunctionModel(SLOPE[kind], derivatives=kind)
    basis = model.at(X)
    fit = VariableProjection().fit(basis, Y, [1.0])
    expected = curve_fit_separable(columns, X, Y, [1.0])[0]
    np.testing.assert_allclose([*fit.params, *fit.coef[:, 0]], expected, rtol=1e-8)
    assert basis.check_derivatives([0.7]) < 1e-6


def test_two_parameters_in_torch_and_by_complex_steps():
    def bell(xp):
        return lambda x, c, w: (xp.exp(-(((x - c) / w) ** 2)), xp.cos(c * w * x))

    params = np.array([0.4, 0.7])
    found = []
    for model in (
        FunctionModel(bell(torch), derivatives="torch"),
        FunctionModel(bell(np)),
        FunctionModel(bell(np), derivatives="finite-differences"),
    ):
        basis = model.at(X)
        basis.prepare(params)
        found.append(next(iter(basis.derivative_blocks(params)))[1])
    np.testing.assert_allclose(found[0], found[1], atol=1e-13)
    np.testing.assert_allclose(found[2], found[1], atol=1e-8)


MODEL = SeparableModel(["k"]).term(lambda x, k: np.exp(-k * x)).constant()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FunctionModel(3), TypeError, "a model needs a function"),
        (lambda: FunctionModel(columns, derivatives="jax"), ValueError, "unknown derivatives"),
        (lambda: FunctionModel(lambda x, *k: x), ValueError, "pass their names as parameters="),
        (lambda: FunctionModel(columns, ["a b"]), ValueError, "must be names such as 'rate'"),
        (lambda: FunctionModel(columns, "k"), ValueError, "must be a list of names"),
        (lambda: SeparableModel(["a", "a"]), ValueError, "different names, twice: a"),
        (lambda: MODEL.term(lambda x, z: x), ValueError, "depends on z; the model's parameters"),
        (lambda: MODEL.term(None), TypeError, "a term needs a function"),
        (
            lambda: MODEL.term(lambda x, k: x, derivatives={}),
            ValueError,
            "derivatives are given in none; the term needs one in each of k",
        ),
        (
            lambda: MODEL.term(lambda x, k: x, derivatives={"k": 1}),
            TypeError,
            "the derivative in k must be a function",
        ),
        (lambda: SeparableModel(["k"]).at(X), ValueError, "the model has no terms"),
        (
            lambda: SeparableModel(["k", "z"]).term(lambda x, k: x).at(X),
            ValueError,
            "no term depends on z; leave it out",
        ),
        (lambda: MODEL.at([1.0, np.nan]), ValueError, "x must be finite"),
        (lambda: MODEL.at([1j]), ValueError, "x must be real numbers of shape"),
        (lambda: FunctionBasis(3, None, [0]), TypeError, "phi must be a function"),
        (lambda: FunctionBasis(np.sin, np.cos, [-1]), ValueError, "owner must be a list of whole"),
        (lambda: FunctionBasis(np.sin, np.cos, None), ValueError, "owner must be a list of whole"),
        (lambda: FunctionBasis(np.sin, np.cos, [0.5]), ValueError, "owner must be a list of whole"),
        (
            lambda: FunctionBasis(np.sin, np.cos, [0], [0, 1]),
            ValueError,
            "owner has 1 entries and parameter 2",
        ),
    ],
)
def test_a_bad_model_is_refused_before_anything_runs(make, error, message):
    with pytest.raises(error, match=message):
        make()


def fit(basis=None, y=Y, start=(1.0,), **options):
    projection = VariableProjection(**options.pop("projection", {}))
    return projection.fit(MODEL.at(X) if basis is None else basis, y, start, **options)


BASIS = FunctionBasis(
    lambda b: np.exp(-b[0] * X)[:, None], lambda b: (-X * np.exp(-b[0] * X))[:, None], [0]
)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit(MODEL), TypeError, r"call .at\(x\) of the model; got SeparableModel"),
        (lambda: fit(3), TypeError, "basis must have features, derivative_blocks and owner"),
        (lambda: fit(y=None), ValueError, "targets must be real numbers, got NoneType"),
        (lambda: fit(y=Y + 1j), ValueError, "targets are complex, and fits are real; stack"),
        (lambda: fit(y=[[1.0], [2.0, 3.0]]), ValueError, "targets must be real numbers"),
        (lambda: fit(y=Y[:-1]), ValueError, "targets have 59 rows, the basis has 60"),
        (lambda: fit(y=np.zeros((60, 0))), ValueError, r"targets must have shape \(n,\) or"),
        (lambda: fit(start=None), ValueError, "start must be a list of real numbers, got None"),
        (lambda: fit(start=[1j]), ValueError, "start must be real, got complex numbers"),
        (lambda: fit(start={"z": 1.0}), ValueError, "start names 'z'; the model's parameters are"),
        (lambda: fit(start={}), ValueError, "start has no value for k"),
        (lambda: fit(weights=-np.ones(60)), ValueError, "weights must be at least 0"),
        (lambda: fit(sigma=np.zeros(60)), ValueError, "sigma must be above 0"),
        (lambda: fit(sigma="big"), ValueError, "sigma must be real numbers, got str"),
        (lambda: fit(sigma=np.ones(3)), ValueError, r"sigma must have shape \(60,\) or \(60, 1\)"),
        (lambda: fit(sigma=SIGMA, weights=SIGMA), ValueError, "give one of weights, sigma and"),
        (lambda: fit(covariance=np.eye(3)), ValueError, r"covariance must have shape \(60, 60\)"),
        (lambda: fit(covariance=-np.eye(60)), ValueError, "covariance must be positive definite"),
        (
            lambda: fit(covariance=np.triu(np.ones((60, 60)))),
            ValueError,
            "covariance must be symmetric",
        ),
        (lambda: fit(bounds=(2.0, 3.0)), ValueError, "the start of k, 1, is outside its bounds"),
        (lambda: fit(bounds=(3.0, 2.0)), ValueError, "are in the wrong order"),
        (lambda: fit(bounds=(1.0, 1.0)), ValueError, "k has equal bounds; name it in fixed"),
        (lambda: fit(bounds=5), ValueError, r"bounds must be \(lower, upper\)"),
        (lambda: fit(bounds={"z": (0, 1)}), ValueError, "bounds names 'z'; the model's"),
        (lambda: fit(fixed=["z"]), ValueError, "fixed names 'z'; the model's parameters are k"),
        (lambda: fit(tied={"k": "z"}), ValueError, "k is tied to 'z'; the model's parameters"),
        (lambda: fit(tied={"k": 3}), ValueError, "k must be tied to a name or a function"),
        (lambda: fit(tied={"k": "k"}), ValueError, "k is tied to k, which is tied itself"),
        (lambda: fit(fixed=["k"], tied={"k": "k"}), ValueError, "can't be both fixed and tied"),
        (lambda: fit(linear_bounds=(1, 0)), ValueError, "a lower linear bound is above its upper"),
        (lambda: fit(linear_bounds=3), ValueError, r"linear_bounds must be \(lower, upper\)"),
        (lambda: fit([MODEL.at(X)], Y), ValueError, "1 bases need a list of 1 targets"),
        (lambda: fit([], []), ValueError, "a list of data sets must have at least one"),
        (
            lambda: fit([MODEL.at(X)], [Y], sigma=SIGMA),
            ValueError,
            "sigma must be a list of 1, one for each data set",
        ),
        (
            lambda: fit(FunctionModel(lambda x, k: np.abs(k) ** 3 * x).at(X)),
            ValueError,
            "the derivative of column 0 in k differs from finite differences",
        ),
        (
            lambda: fit(
                SeparableModel(["k"])
                .term(lambda x, k: np.exp(-k * x), derivatives={"k": lambda x, k: x})
                .at(X)
            ),
            ValueError,
            "the derivative of column 0 in k differs",
        ),
        (
            lambda: fit(FunctionModel(lambda x, k: np.hypot(k, x)).at(X)),
            ValueError,
            "can't be evaluated at complex parameters",
        ),
        (
            lambda: fit(FunctionModel(lambda x, k: np.ones(7)).at(X)),
            ValueError,
            r"the model must give columns of shape \(60, m\)",
        ),
        (
            lambda: fit(FunctionModel(lambda x, k: (x, np.ones(7))).at(X)),
            ValueError,
            "the model's columns must each have 60 rows",
        ),
        (
            lambda: fit(FunctionModel(lambda x, k: np.exp(1j * k * x)).at(X)),
            ValueError,
            "the model gave complex numbers, and fits are real",
        ),
        (
            lambda: fit(FunctionBasis(BASIS.phi, BASIS.dphi, [1])),
            ValueError,
            "owner names column 1, and the basis has columns 0 to 0",
        ),
        (
            lambda: fit(FunctionBasis(BASIS.phi, BASIS.dphi, [0, 0]), start=[1.0, 1.0]),
            ValueError,
            "the basis gives 1 columns of derivatives, its owner has 2 entries",
        ),
        (
            lambda: fit(FunctionBasis(lambda b: X, BASIS.dphi, [0])),
            ValueError,
            r"phi must give an array of shape \(n, m\), got shape \(60,\)",
        ),
        (
            lambda: fit(FunctionBasis(lambda b: None, BASIS.dphi, [0])),
            ValueError,
            r"phi must give",
        ),
        (lambda: fit(projection={"solver": 3}), ValueError, "solver must be a name or an object"),
        (lambda: fit(projection={"loss": "l1"}), ValueError, "unknown loss 'l1'; accepted: linear"),
        (lambda: fit(projection={"f_scale": 0.0}), ValueError, "f_scale must be a number above 0"),
        (lambda: fit(projection={"f_scale": True}), ValueError, "f_scale must be a number above 0"),
        (lambda: fit(projection={"rcond": 2.0}), ValueError, "rcond must be at least 0 and below"),
        (
            lambda: fit(projection={"loss": "huber", "ridge": 1.0}),
            ValueError,
            "a robust loss can't be combined with a ridge",
        ),
        (
            lambda: VariableProjection().fit_each(BASIS, Y, [1.0]),
            TypeError,
            "many fits at once need a model at its x",
        ),
        (
            lambda: VariableProjection("minpack").fit_each(MODEL.at(X), Y, [1.0]),
            ValueError,
            "many fits at once are for solver 'levenberg-marquardt'",
        ),
        (
            lambda: VariableProjection(ridge=1.0).fit_each(MODEL.at(X), Y, [1.0]),
            ValueError,
            "fit_each takes no ridge, no robust loss and no squash",
        ),
        (
            lambda: VariableProjection().fit_each(MODEL.at(X), Y, np.ones((3, 1))),
            ValueError,
            r"start must have shape \(1,\) or \(1, 1\)",
        ),
        (
            lambda: VariableProjection().fit(BASIS, Y, np.ones((2, 1)), bounds=(0, 1)),
            ValueError,
            "a batch of starts takes no weights",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- statistics ---------------------------------------------------------------------------------


def numerical_jacobian(fit):
    """Of all fitted values in all parameters, by differences of the full model."""
    both = np.array([*fit.params, *fit.coef[:, 0]])
    return np.stack(
        [
            (full(X, *(both + h)) - full(X, *(both - h))) / (2 * h.max())
            for h in 1e-6 * np.eye(len(both))
        ],
        axis=1,
    )


def test_bands_are_those_of_the_full_jacobian():
    result = fit(sigma=SIGMA)
    j = numerical_jacobian(result) / SIGMA[:, None]
    residual = result.residuals()[:, 0] / SIGMA
    variance = residual @ residual / 57
    cov = variance * np.linalg.inv(j.T @ j)
    np.testing.assert_allclose(result.covariance(), cov, rtol=1e-5)
    assert result.variance == pytest.approx(variance)
    rows = numerical_jacobian(result)
    error = np.sqrt(np.einsum("ij,jk,ik->i", rows, cov, rows))
    t = stats.t.ppf(0.95, 57)
    band = result.confidence_band(level=0.9)
    np.testing.assert_allclose(band.upper - band.fit, t * error, rtol=1e-5)
    np.testing.assert_allclose(band.fit, result.predict()[:, 0])
    wide = result.confidence_band(level=0.9, simultaneous=True)
    scheffe = np.sqrt(3 * stats.f.ppf(0.9, 3, 57))
    np.testing.assert_allclose(wide.upper - wide.fit, scheffe * error, rtol=1e-5)
    further = result.prediction_band(level=0.9)
    noise = np.sqrt(error**2 + variance * SIGMA**2)
    np.testing.assert_allclose(further.upper - further.fit, t * noise, rtol=1e-5)
    elsewhere = result.prediction_band([5.0], sigma=0.1)
    assert elsewhere.lower[0] < full(5.0, *result.params, *result.coef[:, 0]) < elsewhere.upper[0]
    with pytest.raises(ValueError, match="the fit was weighted: pass the sigma"):
        result.prediction_band([5.0])
    np.testing.assert_allclose(np.diag(result.correlation()), 1.0)


def test_information_criteria_are_those_of_the_likelihood():
    result = fit(sigma=SIGMA, absolute_sigma=True)
    density = stats.norm.logpdf(Y, result.predict()[:, 0], SIGMA).sum()
    assert result.aic == pytest.approx(2 * 3 - 2 * density)
    assert result.bic == pytest.approx(np.log(60) * 3 - 2 * density)
    plain = fit()
    deviation = np.sqrt(plain.rss / 60)
    density = stats.norm.logpdf(Y, plain.predict()[:, 0], deviation).sum()
    assert plain.aic == pytest.approx(2 * 4 - 2 * density)
    assert plain.aicc == pytest.approx(plain.aic + 2 * 4 * 5 / 55)
    ridged = fit(projection={"ridge": 10.0})
    assert 57 < ridged.dof < 59


def test_a_profile_ends_where_the_likelihood_has_fallen():
    result = fit()
    interval = result.profile("k", level=0.9)
    rise = stats.t.ppf(0.95, 57) ** 2 * result.variance
    for end in (interval.lower, interval.upper):
        held = fit(start=[end], fixed=["k"])
        assert held.rss - result.rss == pytest.approx(rise, rel=1e-3)
    linear = result.profile(0, level=0.9)
    half = stats.t.ppf(0.95, 57) * result.coef_stderr[0, 0]
    np.testing.assert_allclose(linear.upper - linear.estimate, half, rtol=0.1)
    assert result.profile(1).lower < result.coef[1, 0] < result.profile(1).upper
    bounded = fit(bounds=(result.params[0] - 1e-3, 9.0), start=result.params)
    assert bounded.profile("k").lower == result.params[0] - 1e-3
    with pytest.raises(ValueError, match="no parameter 'z'"):
        result.profile("z")
    with pytest.raises(ValueError, match="no linear parameter 7"):
        result.profile(7)
    with pytest.raises(ValueError, match="k is fixed or tied"):
        fit(fixed=["k"]).profile("k")


def test_a_profile_is_of_a_name_or_a_whole_number_of_any_type():
    both = fit(y=np.stack([Y, 2 * Y], 1))
    expected = both.profile(0, column=1)
    assert expected.estimate == both.coef[0, 1]
    assert both.profile(np.int64(0), column=1) == expected
    with pytest.raises(ValueError, match="there are 2 right-hand sides; pass column=0 to 1"):
        both.profile(np.int64(0))
    for wrong in (0.0, None, [0]):
        with pytest.raises(ValueError, match="parameter must be the name of a nonlinear parameter"):
            both.profile(wrong, column=1)


@pytest.mark.parametrize("kind", ["residuals", "wild", "pairs"])
def test_the_bootstrap_agrees_with_the_covariance(kind):
    result = fit(sigma=SIGMA)
    drawn = result.bootstrap(40, kind=kind, seed=3)
    assert drawn.n_failed == 0
    assert drawn.params.shape == (40, 1)
    np.testing.assert_allclose(drawn.stderr, result.stderr, rtol=0.45)
    lower, upper = drawn.interval(0.9)
    assert lower < result.params < upper
    assert drawn.coef_interval()[0].shape == (2, 1)
    again = result.bootstrap(5, kind=kind, seed=3)
    np.testing.assert_array_equal(again.params, drawn.params[:5])
    with pytest.raises(ValueError, match="unknown kind 'jackknife'; accepted: residuals"):
        result.bootstrap(5, kind="jackknife")
    with pytest.raises(ValueError, match="n must be a whole number of at least 2"):
        result.bootstrap(1)


def test_residuals_are_drawn_from_rows_with_weights_or_refused():
    y = np.stack([Y, 2 * Y], 1)
    odd = np.arange(60) % 2 == 1
    result = fit(y=y, weights=np.stack([odd, ~odd], 1).astype(float))
    with pytest.raises(ValueError, match="kind='residuals' draws rows whose weights are all above"):
        result.bootstrap(5)
    assert result.bootstrap(3, kind="wild").params.shape == (3, 1)
    assert result.bootstrap(3, kind="pairs").params.shape == (3, 1)


def test_a_fit_keeps_targets_of_its_own():
    y = Y.copy()
    result = fit(y=y)
    residuals = result.residuals().copy()
    y[:] = 0.0
    np.testing.assert_array_equal(result.residuals(), residuals)
    np.testing.assert_array_equal(result.residuals(), (Y - result.predict()[:, 0])[:, None])


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.uint8, Fraction])
def test_a_losses_scale_is_a_number_of_any_type(kind):
    options = {"loss": "huber", "max_iterations": 20}
    found = fit(y=20 * Y, projection=options | {"f_scale": kind(2)})
    expected = fit(y=20 * Y, projection=options | {"f_scale": 2.0})
    np.testing.assert_array_equal(found.params, expected.params)
    assert found.objective == expected.objective


def test_what_the_data_do_not_determine_is_infinite():
    twice = FunctionModel(lambda x, a, b: np.exp(-(a + b) * x))
    result = VariableProjection().fit(twice.at(X), Y, [0.5, 0.7])
    assert np.isinf(result.stderr).all()
    saturated = VariableProjection().fit(MODEL.at(X[:3]), Y[:3], [1.0])
    assert saturated.dof == 0
    assert np.isnan(saturated.stderr).all()


def test_multistart_reports_the_minima():
    wave = SeparableModel(["f"]).term(lambda x, f: np.sin(f * x)).term(lambda x, f: np.cos(f * x))
    y = np.sin(5.0 * X) + 0.1 * RNG.standard_normal(60)
    projection = VariableProjection()
    found = projection.fit_multistart(wave.at(X), y, [1.0], bounds=(0.5, 9.0), n_starts=8)
    assert found.best.params[0] == pytest.approx(5.0, abs=0.05)
    assert len(found.minima) > 1
    assert found.best.objective == found.minima[0].objective < found.minima[1].objective
    counted = sum(len(m.starts) for m in found.minima) + found.n_failed
    assert counted == len(found.starts) == 9
    assert found.report().startswith("9 starts, ")
    assert max(map(len, found.report().splitlines())) <= 80
    same = projection.fit_multistart(wave.at(X), y, [1.0], bounds=(0.5, 9.0), n_starts=8)
    np.testing.assert_array_equal(same.starts, found.starts)
    given = projection.fit_multistart(wave.at(X), y, [1.0], starts=[[4.8], [5.2]])
    assert given.minima[0].objective == pytest.approx(found.best.objective)
    for options, message in (
        ({}, "starts are drawn within bounds, and f has none"),
        ({"bounds": (0.0, 9.0), "scale": "log"}, "scale='log' needs bounds above 0"),
        ({"bounds": (0.5, 9.0), "scale": "square"}, "unknown scale 'square'"),
        ({"bounds": (0.5, 9.0), "n_starts": 0}, "n_starts must be a whole number"),
        ({"starts": [[1.0, 2.0]]}, r"starts must be finite, of shape \(n, 1\)"),
        ({"bounds": (0.5, 9.0), "starts": [[20.0]]}, "a start is outside the bounds"),
    ):
        with pytest.raises(ValueError, match=message):
            projection.fit_multistart(wave.at(X), y, [1.0], **options)


def test_starts_keep_what_is_fixed():
    model = FunctionModel(lambda x, a, b: (np.exp(-a * x), np.exp(-b * x)))
    options = {"fixed": ["b"], "starts": [[0.5, 2.0], [3.0, 2.0]]}
    found = VariableProjection().fit_multistart(model.at(X), Y, [1.0, 2.0], **options)
    assert all(m.params[1] == 2.0 for m in found.minima)
    options["starts"][1][1] = 5.0
    with pytest.raises(ValueError, match="starts must keep b, which is fixed at 2, got 5"):
        VariableProjection().fit_multistart(model.at(X), Y, [1.0, 2.0], **options)


def test_the_summary_fits_a_terminal():
    long = SeparableModel(["a_parameter_with_quite_a_long_name", "k"])
    long = long.term(lambda x, a, k: np.exp(-k * (x - a)), long.names)
    long = long.constant()
    start = {"a_parameter_with_quite_a_long_name": 0.0, "k": 1.0}
    result = VariableProjection().fit(
        long.at(X), Y, start, fixed=[long.names[0]], linear_bounds=([0, 0], [np.inf, 0.1])
    )
    lines = result.summary().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("converged after")
    assert "60 observations, 2 parameters, 58 degrees of freedom" in lines
    assert any("fixed" in line for line in lines)
    assert any("column 1" in line and "at bound" in line for line in lines)
    assert str(result) == result.summary()
    assert repr(result).startswith("CurveFit(a_parameter")
    absolute = fit(sigma=SIGMA, absolute_sigma=True).summary()
    assert "chi-squared" in absolute


def test_the_plot_shows_data_fit_band_and_residuals():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = fit().plot()
    upper, lower = figure.axes
    assert [t.get_text() for t in upper.get_legend().get_texts()] == ["95% band", "fit", "data"]
    assert lower.get_ylabel() == "residual"
    own = plt.subplots(2, 1)
    assert fit().plot(axes=own[1]) is own[0]
    plt.close("all")


def test_which_right_hand_side_is_asked_for():
    result = fit(y=np.stack([Y, 2 * Y], 1))
    with pytest.raises(ValueError, match="there are 2 right-hand sides; pass column=0 to 1"):
        result.covariance()
    with pytest.raises(ValueError, match="no right-hand side 5; there are 2"):
        result.confidence_band(column=5)
    np.testing.assert_allclose(result.coef[:, 1], 2 * result.coef[:, 0], rtol=1e-9)
    several = fit([MODEL.at(X), MODEL.at(X)], [Y, Y])
    with pytest.raises(ValueError, match="there are 2 data sets; pass dataset=0 to 1"):
        several.summary()
    with pytest.raises(ValueError, match="no data set 2; there are 2"):
        several.predict(dataset=2)
    assert several.profile("k").lower < several.params[0]
    with pytest.raises(ValueError, match="other x need a model: fit FunctionModel"):
        fit(BASIS).predict([1.0])


def test_many_fits_at_once_of_a_model_in_torch():
    x, rates = np.linspace(0, 4, 30), np.array([0.5, 1.0, 2.0])
    y = 2.0 * np.exp(-rates * x[:, None]) + 0.5
    model = FunctionModel(lambda x, k: (torch.exp(-k * x), torch.ones_like(x)), derivatives="torch")
    found = VariableProjection().fit_each(model.at(x), y, [0.8])
    assert found.converged.all()
    np.testing.assert_allclose(found.params[:, 0], rates, rtol=1e-6)
    np.testing.assert_allclose(found.coef, [[2.0, 0.5]] * 3, rtol=1e-5)


def test_steps_and_evaluations_of_a_robust_fit_are_all_that_were_made(monkeypatch):
    x = np.linspace(0, 4, 40)
    y = 2 * np.exp(-0.7 * x) + 0.3 + 0.05 * np.sin(40 * x)
    y[5] += 4
    model = SeparableModel(["k"]).term(lambda x, k: np.exp(-k * x)).constant()
    made = []
    minimise = specification.minimise

    def counted(solver, problem, start):
        outcome = minimise(solver, problem, start)
        made.append((outcome.n_iterations, problem.n_evaluations))
        return outcome

    monkeypatch.setattr(specification, "minimise", counted)
    fit = VariableProjection(loss="huber", f_scale=0.05).fit(model.at(x), y, [1.0])
    assert len(made) > 1
    assert (fit.n_iterations, fit.n_evaluations) == tuple(np.sum(made, axis=0))


def test_a_robust_fit_weighs_what_a_covariance_has_whitened():
    x, y = np.arange(5.0), np.array([0, 0, 0, 0, 10.0])
    model = FunctionModel(lambda x, k: np.exp(-k * x))
    fits = [
        VariableProjection(loss="huber").fit(model.at(x), y, [0.0], fixed=["k"], **given)
        for given in ({"covariance": np.eye(5)}, {"sigma": np.ones(5)})
    ]
    for fit in fits:
        np.testing.assert_allclose(np.ravel(fit.coef), 0.25, rtol=1e-5)  # 4a = ψ(10 − a) = 1
    rng = np.random.default_rng(0)
    root = np.tril(rng.normal(size=(5, 5))) / 3 + np.eye(5)
    whitened = np.linalg.solve(root, np.ones(5)), np.linalg.solve(root, y)
    fit = VariableProjection(loss="cauchy").fit(
        model.at(x), y, [0.0], fixed=["k"], covariance=root @ root.T
    )
    (a,) = np.ravel(fit.coef)
    around = a + np.linspace(-1e-3, 1e-3, 21)
    losses = [0.5 * np.log1p((whitened[1] - b * whitened[0]) ** 2).sum() for b in around]
    assert abs(np.argmin(losses) - 10) <= 1
    with pytest.raises(ValueError, match="a robust loss with a covariance takes one right-hand"):
        VariableProjection(loss="huber").fit(
            model.at(x), np.stack([y, y], 1), [0.0], fixed=["k"], covariance=np.eye(5)
        )


def test_rows_without_weight_have_no_say_in_robust_errors():
    y = np.array([1.5, 0.5, 1.5, 0.5])
    model = FunctionModel(lambda x, k: np.exp(-k * x))
    errors = []
    for more in (0, 4):
        x, weights = np.zeros(4 + more), np.r_[np.ones(4), np.zeros(more)]
        fit = VariableProjection(loss="cauchy").fit(
            model.at(x), np.r_[y, np.ones(more)], [0.0], fixed=["k"], weights=weights
        )
        errors.append(float(np.ravel(fit.coef_stderr)[0]))
    np.testing.assert_allclose(errors[1], errors[0], rtol=1e-8)


@pytest.mark.parametrize("solver", ["levenberg-marquardt", "trust-region"])
def test_every_solver_s_bound_is_a_bound(solver):
    rng = np.random.default_rng(1)
    x = np.linspace(0, 4, 60)
    y = np.exp(-0.2 * x) + 0.01 * rng.normal(size=60)
    fit = VariableProjection(solver=solver).fit(
        FunctionModel(lambda x, k: np.exp(-k * x)).at(x), y, [1.0], bounds={"k": (0.5, 3.0)}
    )
    assert np.isnan(fit.stderr[0])
    assert "at bound" in str(fit.summary())


def test_columns_without_bounds_are_never_at_one():
    x = np.arange(3.0)
    model = SeparableModel(["k"]).term(lambda x, k: np.exp(-k * x)).constant()
    fit = VariableProjection().fit(model.at(x), [1.0, 0.6, 0.4], [0.5])  # nothing is left over
    assert "at bound" not in str(fit.summary())


def test_a_band_of_all_points_counts_no_tied_parameter():
    x = np.linspace(0, 4, 50)
    y = 2 * np.exp(-0.7 * x) + 0.01 * np.random.default_rng(0).normal(size=50)
    model = FunctionModel(lambda x, a, b: np.exp(-(a + b) * x / 3))
    fit = VariableProjection().fit(
        model.at(x), y, {"a": 0.5, "b": 1.0}, tied={"b": lambda a: 2 * a}
    )
    one, whole = fit.confidence_band(), fit.confidence_band(simultaneous=True)
    ratio = (whole.upper - whole.fit) / (one.upper - one.fit)
    expected = np.sqrt(2 * stats.f.ppf(0.95, 2, 48)) / stats.t.ppf(0.975, 48)
    np.testing.assert_allclose(ratio, expected, rtol=1e-6)
