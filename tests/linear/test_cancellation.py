"""Near interpolation, where differences lose their digits: every criterion against sums of squares.

These also hold the choices that hang on them: which ridge, which rank, which units.
"""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import oracles
from rankwise.heads.head import VarProHead
from rankwise.linear.class_ridge import RidgeFamily
from rankwise.linear.design import design
from rankwise.linear.gram import accumulate_gram
from rankwise.linear.output_layer import solve_output_layer
from rankwise.linear.pruning import prune
from rankwise.linear.ridge_choice import leave_one_out_errors, penalised_objective, ridge_path
from rankwise.linear.statistics import ClassStatistics, block_statistics

SHAPES = [(20, 50), (50, 20), (20, 20), (21, 20), (20, 21), (60, 300)]


def problem(n, m, seed=0, k=3, dtype="float64"):
    rng = np.random.default_rng([seed, n, m])
    phi = np.hstack([np.tanh(rng.standard_normal((n, m - 1))), np.ones((n, 1))]).astype(dtype)
    return phi, np.eye(k)[rng.integers(k, size=n)]


def labelled(n, d, seed=0, k=4):
    rng = np.random.default_rng([seed, n, d])
    y = np.append(np.arange(k), rng.integers(k, size=n - k))
    return rng.standard_normal((n, d)) + np.eye(k, d)[y], y


def standardised(x, y):
    """Centred, scaled features and centred targets."""
    z = x - x.mean(axis=0)
    tau = np.eye(y.max() + 1)[y]
    return z / z.std(axis=0), tau - tau.mean(axis=0)


# -- generalised cross-validation ------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_gcv_of_the_glue_has_all_its_digits(shape, seed):
    phi, tau = problem(*shape, seed)
    layer = solve_output_layer(lambda b: phi[b], tau, ridge="gcv")
    ridges, errors = zip(*layer.criterion, strict=True)
    expected = oracles.gcv(phi, tau, ridges)
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    assert layer.ridge == ridges[int(np.argmin(expected))]


@pytest.mark.parametrize("shape", [(100, 512), (100, 100), (101, 100), (100, 99), (200, 50)])
def test_gcv_of_a_head_has_all_its_digits(shape):
    x, y = labelled(*shape)
    head = VarProHead(alpha="gcv").fit(x, y)
    ridges, errors = zip(*head.criterion_, strict=True)
    expected = oracles.gcv(*standardised(x, y), ridges, n_free=1)
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    assert head.alpha_ == ridges[int(np.argmin(expected))]


@pytest.mark.parametrize("times", [2, 5])
def test_a_weight_of_samples_that_are_fitted_exactly(times):
    """As many directions as samples, but a larger weight: the residual is still none."""
    x, y = labelled(30, 60)
    family = RidgeFamily(design(block_statistics(x, y, np.full(30, float(times)))))
    ridges = family.path()[::4]
    repeated = standardised(np.repeat(x, times, axis=0), np.repeat(y, times))
    expected = oracles.gcv(*repeated, ridges, n_free=1)
    np.testing.assert_allclose([e for _, e in family.gcv_errors(ridges)], expected, rtol=1e-6)


def test_one_class_of_nearly_all_samples():
    x, y = labelled(4000, 3, k=2)
    y[:] = 0
    y[:2] = 1
    problem = design(block_statistics(x, y))
    tau = np.eye(2)[y] - np.eye(2)[y].mean(axis=0)
    assert problem.gram.targets_squared == pytest.approx(np.sum(tau**2), rel=1e-12)


@pytest.mark.parametrize("shape", [*SHAPES[:-1], (24, 72)])
def test_leave_one_out_near_interpolation_is_n_fits(shape):
    phi, tau = problem(*shape)
    statistics = accumulate_gram(lambda b: phi[b], tau)
    ridges = ridge_path(statistics)[::6]
    found = leave_one_out_errors(statistics, lambda b: phi[b], tau, ridges)
    expected = [oracles.leave_one_out(phi, tau, mu) for mu in ridges]
    np.testing.assert_allclose([e for _, e in found], expected, rtol=1e-5)


# -- statistics that were added and taken out ---------------------------------------------------


@pytest.mark.parametrize("n", [40, 64, 65, 90])
def test_any_way_to_the_same_samples_chooses_the_same_ridge(n):
    x, y = labelled(n, 64)
    whole = VarProHead(alpha="gcv").fit(x, y)
    parts = VarProHead(alpha="gcv")
    for first in range(0, n, 13):
        parts.partial_fit(x[first : first + 13], y[first : first + 13], classes=np.arange(4))
    half = VarProHead(alpha="gcv").fit(x[: n // 2], y[: n // 2])
    half.merge(VarProHead(alpha="gcv").fit(x[n // 2 :], y[n // 2 :]))
    for other in (parts, half):
        # The ridges are shares of a trace that is summed in another order.
        assert other.alpha_ == pytest.approx(whole.alpha_, rel=1e-9)
        np.testing.assert_allclose(other.outputs(x), whole.outputs(x), atol=1e-7)


@pytest.mark.parametrize("kept", [30, 60, 100, 400])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_unlearned_to_a_few_samples_is_never_having_seen_the_others(kept, offset):
    """What is left is small beside the sums it was taken from; some pixels don't vary any more."""
    x, y = load_digits(return_X_y=True)
    x = x + offset
    head = VarProHead(alpha="gcv").fit(x, y).unlearn(x[kept:], y[kept:])
    fresh = VarProHead(alpha="gcv").fit(x[:kept], y[:kept])
    assert head.rank_ == fresh.rank_
    assert head.alpha_ == pytest.approx(fresh.alpha_, rel=1e-6)
    np.testing.assert_allclose(head.outputs(x), fresh.outputs(x), atol=1e-6)


def test_rounding_of_what_was_taken_out_goes_with_the_statistics():
    x, y = labelled(60, 5)
    seen, gone = block_statistics(x, y), block_statistics(x[20:], y[20:])
    left = seen - gone
    assert not seen.left_by_removal.any()
    assert (left.left_by_removal > 0).all()
    more = left + ClassStatistics.empty(np.arange(6), 5)
    np.testing.assert_array_equal(more.left_by_removal, left.left_by_removal)


# -- the objective that units are selected by -------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ridge", [1e-8, 1e-3, 10.0])
def test_the_objective_is_the_augmented_residual(shape, ridge):
    phi, tau = problem(*shape)
    statistics = accumulate_gram(lambda b: phi[b], tau)
    expected = oracles.penalised_objective(phi, tau, ridge)
    assert penalised_objective(statistics, ridge) == pytest.approx(expected, rel=1e-6)
    some = np.arange(0, shape[1], 2)
    expected = oracles.penalised_objective(phi[:, some], tau, ridge)
    assert penalised_objective(statistics, ridge, some) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(20, 50), (60, 20)])
def test_pruning_stops_at_its_share_of_the_objective(shape):
    phi, tau = problem(*shape)
    ridge, tolerance = 1e-5, 0.5
    result = prune(accumulate_gram(lambda b: phi[b], tau), ridge, tolerance=tolerance)
    before = oracles.penalised_objective(phi, tau, ridge)
    columns = [*result.kept, shape[1] - 1]
    after = oracles.penalised_objective(phi[:, columns], tau, ridge)
    assert len(result.order) > 0
    assert before < after <= (1 + tolerance) * before * (1 + 1e-6)


# -- rank and condition -----------------------------------------------------------------------


def deficient(n, m=40, rank=20, dtype="float32", seed=0):
    rng = np.random.default_rng([seed, n])
    left, right = (rng.standard_normal(s).astype(dtype) for s in ((n, rank), (rank, m)))
    return left @ right, np.eye(3)[rng.integers(3, size=n)]


def leading_solution(phi, tau, ridge, rank=20):
    """Ridge solution in the leading singular vectors."""
    u, s, vt = np.linalg.svd(phi.astype(np.float64), full_matrices=False)
    u, s, vt = u[:, :rank], s[:rank, None], vt[:rank]
    return vt.T @ (s / (s**2 + ridge) * (u.T @ tau))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [30, 100, 5000])
@pytest.mark.parametrize("ridge", [0.0, 1e-10])
@pytest.mark.parametrize("method", ["gram", "tsqr", "auto"])
def test_rounding_of_the_features_is_no_rank(dtype, n, ridge, method):
    phi, tau = deficient(n, dtype=dtype)
    layer = solve_output_layer(lambda b: phi[b], tau, ridge=ridge, method=method)
    expected = leading_solution(phi, tau, ridge)
    assert layer.rank == 20
    np.testing.assert_allclose(layer.coef, expected, rtol=1e-6, atol=1e-9)


def test_products_in_float32_are_no_rank_either(monkeypatch):
    monkeypatch.setattr("rankwise.linear.gram._CHEAP", 0)
    phi, tau = deficient(3000)
    statistics = accumulate_gram(lambda b: phi[b], tau)
    assert statistics.eps == np.finfo("float32").eps
    for ridge in (0.0, 1e-10):
        layer = solve_output_layer(lambda b: phi[b], tau, ridge=ridge, method="gram")
        assert layer.rank == 20
        assert np.abs(layer.coef).max() < 0.1
    layer = solve_output_layer(lambda b: phi[b], tau, ridge="gcv")
    expected = oracles.gcv(phi.astype(float), tau, [r for r, _ in layer.criterion])
    np.testing.assert_allclose([e for _, e in layer.criterion], expected, rtol=1e-2)


@pytest.mark.parametrize("alpha", [0.0, 1e-10])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_rounding_of_a_heads_features_is_no_rank(alpha, offset):
    phi, tau = deficient(400)
    head = VarProHead(alpha).fit(phi + np.float32(offset), tau.argmax(axis=1))
    assert head.rank_ == 20
    z, centred = standardised((phi + np.float32(offset)).astype(float), tau.argmax(axis=1))
    expected = z @ np.linalg.pinv(z, rcond=1e-5) @ centred + tau.mean(axis=0)
    np.testing.assert_allclose(head.outputs(phi + np.float32(offset)), expected, atol=1e-5)


@pytest.mark.parametrize("ridge", [1e-14, 1e-10, 1e-6, 1e-2])
def test_a_small_ridge_on_dependent_features(ridge):
    phi, tau = deficient(200, dtype="float64")
    phi = phi * np.geomspace(1, 10, 40)
    layer = solve_output_layer(lambda b: phi[b], tau, ridge=ridge)
    expected = leading_solution(phi, tau, ridge)
    np.testing.assert_allclose(layer.coef, expected, atol=1e-5 * np.abs(expected).max())
