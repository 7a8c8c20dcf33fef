"""`VarProHead(loss="logistic")`: a softmax layer by further passes over the same samples."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from head_cases import Stream
from rankwise import VarProHead
from rankwise.heads.head import load_head
from rankwise.linear.class_logistic import logistic_path
from rankwise.linear.logistic_folds import Folds, folds_needed, usable_folds


@parametrize_with_checks([VarProHead(loss="logistic")])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x, y


def two_classes(n=80, d=5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return rng.standard_normal((n, d)) + 0.8 * y[:, None] * np.eye(d)[0], y


def centred(outputs):
    """A softmax doesn't see what all classes share."""
    return outputs - outputs.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_given_ridge_is_scikit_learns(digits, k, intercept):
    x, y = (part[digits[1] < k] for part in digits)
    x = StandardScaler().fit_transform(x) + 0.3
    ours = VarProHead(
        20.0, loss="logistic", standardise=False, fit_intercept=intercept, max_passes=500
    ).fit(x, y)
    # With two classes scikit-learn's has one vector; two, ±w/2, have half its penalty.
    strength = 20.0 / 2 if k == 2 else 20.0
    theirs = LogisticRegression(
        C=1 / strength, tol=1e-8, max_iter=5000, fit_intercept=intercept
    ).fit(x, y)
    np.testing.assert_allclose(
        log_softmax(ours.outputs(x), axis=1), theirs.predict_log_proba(x), atol=0.02
    )
    assert (ours.loss_, ours.chosen_by_, ours.criterion_) == ("logistic", "given", [])
    assert ours.n_passes_ > 3


@pytest.mark.parametrize("weighted", [False, True])
def test_left_out_outputs_are_near_refitting(weighted):
    x, y = two_classes()
    w = 1.0 + np.arange(len(y)) % 2 if weighted else np.ones(len(y))
    make = lambda: VarProHead(3.0, loss="logistic", standardise=False, max_passes=300)  # noqa: E731
    head = make().fit(x, y, sample_weight=w)
    found = centred(head.leave_one_out_predictions(x, y, sample_weight=w))
    fitted = centred(head.outputs(x))
    refitted = np.empty_like(found)
    for j in range(len(y)):
        less = w.copy()
        less[j] -= 1.0
        refitted[j] = centred(make().fit(x, y, sample_weight=less).outputs(x[j : j + 1]))[0]
    # To first order, so what is left of the change is small, not zero.
    wrong, before = (np.abs(a - refitted) for a in (found, fitted))
    assert wrong.mean() < 0.15 * before.mean(), (wrong.mean(), before.mean())
    assert wrong.max() < 0.4 * before.max(), (wrong.max(), before.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(60, 8, 2), (60, 8, 3), (40, 70, 2), (40, 70, 3), (90, 60, 3)]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_objective_is_that_of_scikit_learns_minimum(n, d, k, dtype, streamed):
    rng = np.random.default_rng(n + d + k)
    y = np.arange(n) % k
    x = (rng.standard_normal((n, d)) + np.eye(d)[y] + 0.5).astype(dtype)
    mu = 4.0
    source = [(x[:30], y[:30]), (x[30:], y[30:])] if streamed else x
    ours = VarProHead(mu, loss="logistic", standardise=False).fit(source, None if streamed else y)
    theirs = LogisticRegression(C=(2 if k == 2 else 1) / mu, tol=1e-10, max_iter=10_000).fit(
        x.astype(float), y
    )
    coef, intercept = theirs.coef_, theirs.intercept_
    if k == 2:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.append(-intercept, intercept) / 2

    def objective(coef, intercept):
        outputs = x.astype(float) @ coef.T + intercept
        loss = -log_softmax(outputs, axis=1)[np.arange(n), y].sum()
        return loss + 0.5 * mu * np.sum(coef**2)

    least = objective(coef, intercept)
    found = objective(ours.coef_, ours.intercept_)
    assert least - 1e-9 * n <= found <= least + (1e-5 if dtype == "float32" else 1e-6) * n


@pytest.mark.parametrize("n", [60, 2000])
def test_the_criterion_is_the_loss_on_held_out_parts(n):
    x, y = two_classes(n, 8)
    alphas = [0.3, 3.0, 30.0, 1000.0]
    head = VarProHead(loss="logistic", standardise=False, alphas=alphas).fit(x, y)
    parts = Folds(x.var(axis=0)).of(x)
    by_fold = np.array([np.bincount(y[parts == p], minlength=2) for p in range(5)], float)
    chosen = usable_folds(by_fold, folds_needed(n))
    losses = []
    for alpha in alphas:
        total, weight = 0.0, 0
        for part in chosen:
            held = parts == part
            model = LogisticRegression(C=2 / alpha, tol=1e-8, max_iter=5000)
            found = model.fit(x[~held], y[~held]).predict_log_proba(x[held])
            total -= found[np.arange(held.sum()), y[held]].sum()
            weight += held.sum()
        losses.append(total / weight)
    assert [a for a, _ in head.criterion_] == alphas
    np.testing.assert_allclose([e for _, e in head.criterion_], losses, rtol=0.01)
    assert head.alpha_ == alphas[int(np.argmin(losses))]
    assert head.chosen_by_ == "cross-validation"


def test_of_many_ridges_the_best_is_found_without_trying_all(digits):
    x, y = digits[0][:300], digits[1][:300]
    head = VarProHead(loss="logistic").fit(x, y)
    tried = dict(head.criterion_)
    assert 4 <= len(tried) < 13
    path = logistic_path(300.0 * int(np.sum(x.var(axis=0) > 0)))
    every = {r: dict(VarProHead(loss="logistic", alphas=[r]).fit(x, y).criterion_)[r] for r in path}
    assert head.alpha_ == pytest.approx(min(every, key=lambda r: every[r]))


def test_arrays_blocks_and_devices_give_the_same(digits):
    x, y = digits
    whole = VarProHead(10.0, loss="logistic").fit(x, y)
    pairs = [(x[i : i + 100], y[i : i + 100]) for i in range(0, len(x), 100)]
    for other in (
        VarProHead(10.0, loss="logistic").fit(pairs),
        VarProHead(10.0, loss="logistic", block_size=77).fit(x, y),
        VarProHead(10.0, loss="logistic", device="cpu:torch").fit(x, y),
        VarProHead(10.0, loss="logistic", alphas=[1.0]).fit(x, y),
    ):
        np.testing.assert_allclose(other.outputs(x), whole.outputs(x), atol=1e-6)
        assert other.temperature_ == pytest.approx(whole.temperature_, rel=1e-6)
    # Another ridge in the same passes changes nothing.
    alone = VarProHead(loss="logistic", alphas=[20.0]).fit(x, y)
    both = VarProHead(loss="logistic", alphas=[20.0, 1e4]).fit(x, y)
    assert both.alpha_ == 20.0
    np.testing.assert_allclose(alone.outputs(x), both.outputs(x), atol=1e-8)


@pytest.mark.parametrize("class_weight", [None, {1: 3.0}])
def test_weights_are_repetitions(digits, class_weight):
    x, y = (part[digits[1] < 3] for part in digits)
    w = np.arange(len(y)) % 3
    options = {"loss": "logistic", "class_weight": class_weight, "max_passes": 300}
    weighted = VarProHead(5.0, **options).fit(x, y, sample_weight=w)
    repeated = VarProHead(5.0, **options).fit(np.repeat(x, w, axis=0), np.repeat(y, w))
    np.testing.assert_allclose(weighted.outputs(x), repeated.outputs(x), atol=1e-6)


def test_it_classifies_better_than_squares_and_is_calibrated(digits):
    x, y = digits
    squared = VarProHead().fit(x[:1200], y[:1200])
    head = VarProHead(loss="logistic").fit(x[:1200], y[:1200])
    assert head.score(x[1200:], y[1200:]) >= squared.score(x[1200:], y[1200:]) + 0.01
    rows = np.arange(597)
    assert -head.predict_log_proba(x[1200:])[rows, y[1200:]].mean() < 0.4
    assert 0.3 < head.temperature_ < 3
    _, margins = head.likely_wrong_labels(x[:1200], y[:1200])
    assert 0.9 < np.mean(margins > 0) < 1
    truncated = VarProHead(loss="logistic", rank=20).fit(x[:1200], y[:1200])
    assert truncated.rank_ == 20
    assert truncated.score(x[1200:], y[1200:]) > 0.8


def test_where_samples_can_not_be_seen_again_the_loss_is_squared(digits):
    x, y = digits
    with pytest.warns(UserWarning, match="read only once, and loss='logistic'"):
        head = VarProHead(loss="logistic").fit(iter([(x, y)]))
    assert (head.loss_, head.chosen_by_, head.n_passes_) == ("squared", "gcv", 0)
    head = VarProHead(5.0, loss="logistic").fit(x, y)
    assert head.loss_ == "logistic"
    head.unlearn(x[:10], y[:10])
    assert head.loss_ == "squared"
    squared = VarProHead(5.0).fit(x[10:], y[10:])
    np.testing.assert_allclose(head.outputs(x), squared.outputs(x), atol=1e-9)


def test_memory_does_not_grow_with_the_samples():
    peaks = []
    for n in (4_000, 4_000, 20_000):
        tracemalloc.start()
        VarProHead(loss="logistic").fit(Stream(n, distance=0.2))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_too_few_passes_are_told(digits):
    with pytest.warns(ConvergenceWarning, match="hasn't reached its minimum in 3 passes"):
        head = VarProHead(0.1, loss="logistic", max_passes=3).fit(*digits)
    assert head.score(*digits) > 0.9, "the best so far is no worse than the squared start"


def test_separable_and_constant_features():
    y = np.arange(40) % 2
    x = np.stack([y * 2.0 - 1.0, np.ones(40)], axis=1)
    head = VarProHead(loss="logistic").fit(x, y)
    assert head.score(x, y) == 1.0
    assert np.isfinite(head.coef_).all()
    nothing = VarProHead(loss="logistic").fit(np.ones((40, 3)), y)
    np.testing.assert_allclose(nothing.predict_proba(np.ones((2, 3))), 0.5)


def test_saved_and_loaded_is_the_same(digits, tmp_path):
    x, y = digits
    head = VarProHead(loss="logistic", max_passes=70).fit(x, y)
    head.save(tmp_path)
    loaded = load_head(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(x), head.predict_proba(x))
    np.testing.assert_allclose(
        loaded.leave_one_out_predictions(x, y), head.leave_one_out_predictions(x, y), atol=1e-9
    )
    assert (loaded.loss_, loaded.max_passes) == ("logistic", 70)
    with torch.no_grad():
        outputs = loaded.to_linear()(torch.as_tensor(x).float()).numpy()
    np.testing.assert_allclose(outputs, head.outputs(x), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "loss must be 'squared' or 'logistic', got 'hinge'"),
        ({"loss": "logistic", "alpha": "gcv"}, "'logistic' takes 'loo', a number"),
        ({"max_passes": 0}, "max_passes must be a whole number, at least 1, got 0"),
    ],
)
def test_options_that_are_not_accepted(digits, options, message):
    with pytest.raises(ValueError, match=message):
        VarProHead(**options).fit(*digits)
