"""Streamed statistics and the ridge solutions made of them, against dense and brute-force ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

import oracles
from rankwise.linear import class_ridge
from rankwise.linear.class_ridge import RidgeFamily, fit_temperature, modelled_temperature
from rankwise.linear.design import class_factors, design
from rankwise.linear.statistics import ClassStatistics, block_statistics


def data(n=60, d=5, k=3, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    x = rng.standard_normal((n, d)) + 1.5 * np.eye(k, d)[y] + offset
    return x, y, rng.integers(1, 4, size=n).astype(float)


def dense(x, y, w, by_class=False):
    """The definition, class by class, in two passes."""
    classes = np.unique(y)
    scatter = []
    for c in classes:
        own, weight = x[y == c], w[y == c]
        centred = own - np.average(own, axis=0, weights=weight)
        scatter.append(sum(a * np.outer(r, r) for a, r in zip(weight, centred, strict=True)))
    means = np.stack([np.average(x[y == c], axis=0, weights=w[y == c]) for c in classes])
    return means, np.stack(scatter) if by_class else np.sum(scatter, axis=0)[None]


def close(a, b, rtol=1e-9):
    np.testing.assert_array_equal(a.classes, b.classes)
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_allclose(a.weights, b.weights, rtol=rtol)
    np.testing.assert_allclose(a.means, b.means, rtol=rtol, atol=1e-10)
    scale = np.abs(b.scatter).max()
    np.testing.assert_allclose(a.scatter, b.scatter, atol=rtol * scale)


def streamed(x, y, w, size, by_class=False):
    total = ClassStatistics.empty(np.unique(y), x.shape[1], by_class=by_class)
    for first in range(0, len(x), size):
        part = slice(first, first + size)
        total = total + block_statistics(x[part], y[part], w[part], by_class=by_class)
    return total


@given(
    n=st.integers(1, 50),
    d=st.integers(1, 6),
    k=st.integers(1, 5),
    size=st.integers(1, 20),
    by_class=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_streamed_merged_and_dense_are_equal(n, d, k, size, by_class, seed):
    x, y, w = data(n, d, k, seed)
    whole = block_statistics(x, y, w, by_class=by_class)
    means, scatter = dense(x, y, w, by_class)
    np.testing.assert_allclose(whole.means, means, atol=1e-12)
    np.testing.assert_allclose(whole.scatter, scatter, atol=1e-10)
    close(streamed(x, y, w, size, by_class), whole)
    half = n // 2
    merged = block_statistics(x[half:], y[half:], w[half:], by_class=by_class)
    if half:
        merged = merged + block_statistics(x[:half], y[:half], w[:half], by_class=by_class)
    close(merged, whole)


@given(cut=st.integers(1, 59), by_class=st.booleans(), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_unlearned_equals_never_seen(cut, by_class, seed):
    x, y, w = data(seed=seed)
    whole = block_statistics(x, y, w, by_class=by_class)
    gone = block_statistics(x[cut:], y[cut:], w[cut:], by_class=by_class)
    empty = ClassStatistics.empty(np.unique(y), x.shape[1], by_class=by_class)
    close(whole - gone, empty + block_statistics(x[:cut], y[:cut], w[:cut], by_class=by_class))


def test_unlearning_everything_leaves_exact_zeros():
    x, y, w = data()
    left = block_statistics(x, y, w) - block_statistics(x, y, w)
    assert left.n_samples == 0
    assert not left.scatter.any()
    assert not left.means.any()
    with pytest.raises(ValueError, match="no samples left"):
        design(left)


def test_a_large_offset_costs_no_digits():
    x, y, w = data(offset=1e7)
    near, _, _ = data()
    far = streamed(x, y, w, 7)
    np.testing.assert_allclose(far.scatter, dense(near, y, w)[1], rtol=0, atol=1e-6)


def test_zero_weights_are_no_samples():
    x, y, w = data()
    w[:10] = 0
    close(block_statistics(x, y, w), block_statistics(x[10:], y[10:], w[10:]))
    assert block_statistics(x, y, w).n_samples == 50


def test_a_class_missing_from_a_block():
    x, y, _ = data()
    first, second = y != 2, y == 2
    merged = block_statistics(x[first], y[first]) + block_statistics(x[second], y[second])
    close(merged, block_statistics(x, y))


def test_labels_may_be_text():
    x, y, _ = data()
    names = np.array(["ant", "bee", "a longer name"])[y]
    split = block_statistics(x[:20], names[:20]) + block_statistics(x[20:], names[20:])
    assert split.classes.tolist() == ["a longer name", "ant", "bee"]
    close(split, block_statistics(x, names))
    with pytest.raises(ValueError, match="text labels and of numbers"):
        block_statistics(x, names) + block_statistics(x, y)


def test_the_torch_path_gives_the_same():
    x, y, w = data()
    for by_class in (False, True):
        other = block_statistics(torch.as_tensor(x), y, w, by_class=by_class)
        close(other, block_statistics(x, y, w, by_class=by_class), rtol=1e-12)
    ours, theirs = RidgeFamily(design(other)), RidgeFamily(design(other))
    args = (y, w, 0.5)
    np.testing.assert_allclose(
        ours.left_out_outputs(ours.rotate(x), *args),
        theirs.left_out_outputs(theirs.rotate(torch.as_tensor(x)), *args),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        ours.left_out_squares(ours.rotate(x), y, w, [0.1, 1.0]),
        theirs.left_out_squares(theirs.rotate(torch.as_tensor(x)), y, w, [0.1, 1.0]),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y + 5), "no sample of class 5 was seen"),
        (lambda x, y: (np.tile(x, (2, 1)), np.tile(y, 2)), "can't be removed"),
        (lambda x, y: (x[:9] + 1e3, y[:9]), "weren't among those seen"),
        (lambda x, y: (x[:, :2], y), "5 features and of 2"),
    ],
)
def test_removal_of_samples_that_were_never_seen(change, message):
    x, y, _ = data()
    seen = block_statistics(x, y)
    with pytest.raises(ValueError, match=message):
        seen - block_statistics(*change(x, y))


def test_removing_more_weight_than_was_seen():
    x, y, w = data()
    with pytest.raises(ValueError, match="weigh more"):
        block_statistics(x, y, w) - block_statistics(x[:50], y[:50], w[:50] * 100)


# -- the solutions --------------------------------------------------------------------------


def dense_solution(x, y, w, ridge, intercept=True, standardise=True):
    """Weighted ridge with a free intercept, by one augmented least-squares solve."""
    tau = np.eye(y.max() + 1)[y]
    total = w.sum()
    mean = w @ x / total
    deviation = np.sqrt(w @ (x - mean) ** 2 / total)
    scale = deviation if standardise else np.ones(x.shape[1])
    root = np.sqrt(w)[:, None]
    if not intercept:
        return oracles.ridge_solution(root * (x / scale), root * tau, ridge).T / scale, 0.0
    z = (x - mean) / scale
    prior = w @ tau / total
    coef = oracles.ridge_solution(root * z, root * (tau - prior), ridge).T / scale
    return coef, prior - coef @ mean


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 2.0])
@pytest.mark.parametrize("eigen", [True, False])
def test_solution_is_the_dense_one(intercept, standardise, ridge, eigen):
    x, y, w = data()
    problem = design(streamed(x, y, w, 9), fit_intercept=intercept, standardise=standardise)
    family = RidgeFamily(problem)
    if eigen:
        assert len(family.values) == 5
    coef, offset, rank, condition = family.solve(ridge)
    expected, expected_offset = dense_solution(x, y, w, ridge, intercept, standardise)
    np.testing.assert_allclose(coef, expected, atol=1e-10)
    np.testing.assert_allclose(offset, expected_offset, atol=1e-10)
    assert rank == 5
    assert condition > 1


def test_class_weights_are_sample_weights():
    x, y, w = data()
    given = {0: 0.5, 2: 3.0}
    factor = np.array([0.5, 1.0, 3.0])[y]
    problem = design(block_statistics(x, y, w, by_class=True), class_weight=given)
    expected = dense_solution(x, y, w * factor, 0.7)
    np.testing.assert_allclose(RidgeFamily(problem).solve(0.7)[0], expected[0], atol=1e-10)
    balanced = class_factors(block_statistics(x, y, w, by_class=True), "balanced")
    mass = balanced * np.bincount(y, w)
    np.testing.assert_allclose(mass, w.sum() / 3)
    statistics = block_statistics(x, y, w)
    for wrong, message in (
        ("balanced", "needs? statistics by class"),
        ("heavy", "None, 'balanced' or a dict"),
        ({7: 1.0}, "names class 7"),
        ({0: -1.0}, "none below 0"),
        ({0: np.nan}, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            design(statistics, class_weight=wrong)


def brute_force(x, y, w, ridge, factors, intercept=True):
    """Outputs for each sample of the fit without one unit of its weight, refitted n times.

    The features are standardised beforehand, by all samples.
    """
    outputs = []
    for j in range(len(y)):
        rest = w.copy()
        rest[j] -= min(1.0, w[j])
        weight = rest * factors[y]
        coef, offset = dense_solution(x, y, weight, ridge, intercept, standardise=False)
        outputs.append(coef @ x[j] + offset)
    return np.array(outputs)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weights", ["none", "repetitions", "fractions"])
@pytest.mark.parametrize("class_weight", [None, {0: 0.3, 1: 2.0}])
def test_leave_one_out_is_brute_force(intercept, weights, class_weight):
    x, y, w = data(40)
    w = {"none": np.ones(40), "repetitions": w, "fractions": w / 4}[weights]
    statistics = block_statistics(x, y, w, by_class=True)
    family = RidgeFamily(
        design(
            statistics,
            class_weight=class_weight,
            fit_intercept=intercept,
            standardise=False,
        )
    )
    factors = class_factors(statistics, class_weight)
    rotated = family.rotate(x)
    ridges = [0.01, 1.0]
    squares = family.left_out_squares(rotated, y, w, ridges)
    for ridge, square in zip(ridges, squares, strict=True):
        outputs = family.left_out_outputs(rotated, y, w, ridge)
        expected = brute_force(x, y, w, ridge, factors, intercept)
        np.testing.assert_allclose(outputs, expected, atol=1e-9)
        residual = np.sum((np.eye(3)[y] - expected) ** 2, axis=1)
        assert square == pytest.approx(np.sum(w * factors[y] * residual))


def test_leave_one_out_with_more_features_than_samples():
    x, y, _ = data(20, 50)
    w = np.ones(20)
    family = RidgeFamily(design(block_statistics(x, y), standardise=False))
    outputs = family.left_out_outputs(family.rotate(x), y, w, 0.5)
    np.testing.assert_allclose(outputs, brute_force(x, y, w, 0.5, np.ones(3)), atol=1e-8)
    coef, offset, *_ = RidgeFamily(design(block_statistics(x, y))).solve(0.5)
    expected = dense_solution(x, y, w, 0.5)
    np.testing.assert_allclose(coef, expected[0], atol=1e-8)
    np.testing.assert_allclose(offset, expected[1], atol=1e-8)


def test_gcv_is_its_definition():
    x, y, w = data()
    family = RidgeFamily(design(block_statistics(x, y, w), standardise=False))
    n = w.sum()
    repeated, labels = np.repeat(x, w.astype(int), axis=0), np.repeat(y, w.astype(int))
    z = repeated - repeated.mean(axis=0)
    for ridge, error in family.gcv_errors([0.1, 5.0]):
        hat = z @ np.linalg.solve(z.T @ z + ridge * np.eye(5), z.T) + 1 / n
        residual = np.eye(3)[labels] - hat @ np.eye(3)[labels]
        expected = np.sum(residual**2) / n / (1 - np.trace(hat) / n) ** 2
        assert error == pytest.approx(expected)
        assert family.shrinkage(ridge) == pytest.approx(1 - np.trace(hat) / n)


def test_duplicate_and_constant_features_change_nothing():
    x, y, w = data()
    plain = RidgeFamily(design(block_statistics(x, y, w)))
    wide = np.hstack([x, x[:, :1], np.full((60, 1), 3e5), np.zeros((60, 1))])
    family = RidgeFamily(design(block_statistics(wide, y, w)))
    assert len(family.values) == 5
    coef, offset, rank, _ = family.solve(0.0)
    expected, expected_offset, *_ = plain.solve(0.0)
    assert rank == 5
    np.testing.assert_allclose(wide @ coef.T + offset, x @ expected.T + expected_offset, atol=1e-8)
    np.testing.assert_array_equal(coef[:, 6:], 0)


def test_ill_conditioned_features():
    x, y, _ = data(200, 12, seed=3)
    x *= np.geomspace(1, 1e8, 12)
    x[:, 1] = x[:, 0] + 1e-5 * x[:, 1]
    coef, offset, *_ = RidgeFamily(design(block_statistics(x, y))).solve(1e-6)
    expected, expected_offset = dense_solution(x, y, np.ones(200), 1e-6)
    np.testing.assert_allclose(
        x @ coef.T + offset, x @ expected.T + expected_offset, atol=1e-5, rtol=0
    )


def test_truncated_rank_is_the_regression_on_leading_components():
    x, y, _ = data()
    z = x - x.mean(axis=0)
    _, _, vt = np.linalg.svd(z, full_matrices=False)
    scores = z @ vt[:2].T
    tau = np.eye(3)[y]
    fitted = scores @ np.linalg.lstsq(scores, tau - tau.mean(axis=0), rcond=None)[0]
    family = RidgeFamily(design(block_statistics(x, y), standardise=False), rank=2)
    coef, offset, rank, _ = family.solve(0.0)
    assert rank == 2
    np.testing.assert_allclose(x @ coef.T + offset, fitted + tau.mean(axis=0), atol=1e-10)
    # Also where one Cholesky would do without truncation.
    assert RidgeFamily(family.design, rank=2).solve(1.0)[2] == 2


def nll(outputs, codes, temperature):
    return -log_softmax(outputs / temperature, axis=1)[np.arange(len(codes)), codes].mean()


def test_temperature_is_the_minimum():
    rng = np.random.default_rng(1)
    codes = rng.integers(3, size=500)
    outputs = np.eye(3)[codes] * 0.4 + 0.3 * rng.standard_normal((500, 3))
    best = fit_temperature(outputs, codes)
    for other in (0.98 * best, 1.02 * best):
        assert nll(outputs, codes, best) < nll(outputs, codes, other)
    assert fit_temperature(np.eye(3)[codes], codes) == 0.01, "separable: the sharpest"
    assert fit_temperature(-np.eye(3)[codes], codes) == 100.0, "always wrong: the flattest"


@pytest.mark.parametrize("by_class", [True, False])
def test_a_modelled_temperature_is_near_the_one_of_the_samples(by_class):
    x, y, _ = data(3000, 6)
    statistics = block_statistics(x, y, by_class=by_class)
    family = RidgeFamily(design(statistics))
    outputs = family.left_out_outputs(family.rotate(x), y, np.ones(3000), 1.0)
    exact = fit_temperature(outputs, y)
    assert modelled_temperature(statistics, family, 1.0) == pytest.approx(exact, rel=0.1)


def test_log_probabilities_are_a_softmax():
    outputs = np.array([[0.0, 1.0], [3.0, -800.0]])
    found = class_ridge.log_probabilities(outputs, 0.5)
    np.testing.assert_allclose(found, log_softmax(outputs / 0.5, axis=1))
