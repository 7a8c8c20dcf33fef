"""Fewer samples than features, and many classes: shorter ways to the same layer."""

import numpy as np
import pytest

from rankwise import VarProHead
from rankwise.heads import _solving


def wide(n=40, d=90, k=3, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), np.arange(n) % k
    x[:, :k] += 2 * np.eye(k)[y]
    x[:, 5], x[:, 7] = 7.0, x[:, 8]
    return x, y, rng.integers(1, 3, n).astype(float)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit_intercept": False},
        {"standardise": False},
        {"class_weight": "balanced"},
        {"class_weight": {1: 3.0}, "fit_intercept": False},
        {"alpha": 3.0},
        {"alpha": "gcv"},
        {"rank": 7},
        {"block_size": 9},
    ],
)
@pytest.mark.parametrize("zero", [False, True])
def test_on_the_samples_side_the_layer_is_that_of_the_statistics(options, zero):
    x, y, w = wide()
    w[3] = 0.0 if zero else w[3]
    ours = VarProHead(**options).fit(x, y, sample_weight=w)
    theirs = VarProHead(**options).fit([(x, y, w)])  # blocks are never known to be few
    assert ours._statistics is None, "nothing of d² was made"
    np.testing.assert_allclose(ours.outputs(x), theirs.outputs(x), atol=1e-9)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(ours.criterion_, theirs.criterion_, rtol=1e-6)
    assert (ours.chosen_by_, ours.rank_) == (theirs.chosen_by_, theirs.rank_)
    np.testing.assert_allclose(
        ours.leave_one_out_predictions(x, y, w),
        theirs.leave_one_out_predictions(x, y, w),
        atol=1e-6,  # near interpolation 1 − h is a difference of nearly equal numbers
    )
    np.testing.assert_allclose(ours.statistics_.scatter, theirs.statistics_.scatter, atol=1e-10)
    # What comes later goes through the statistics.
    more = wide(200, 90, seed=1)
    both = ours.partial_fit(*more[:2], sample_weight=more[2])
    np.testing.assert_allclose(
        both.outputs(x), theirs.partial_fit(*more[:2], sample_weight=more[2]).outputs(x), atol=1e-8
    )


def test_the_caller_s_samples_may_change_afterwards():
    x, y, _ = wide()
    head = VarProHead().fit(x, y)
    expected = VarProHead().fit(x.copy(), y).statistics_
    x[:] = 0.0
    y[:] = 0
    np.testing.assert_array_equal(head.statistics_.scatter, expected.scatter)
    np.testing.assert_array_equal(head.statistics_.counts, expected.counts)


def test_a_head_that_could_not_be_fitted_is_not_fitted():
    x, y, _ = wide()
    head = VarProHead()
    for features in (x, np.repeat(x, 5, axis=0)):
        with pytest.raises(ValueError, match="only one class is present: found only 1"):
            head.fit(features, np.ones(len(features), dtype=int))
        with pytest.raises(AttributeError, match="isn't fitted"):
            _ = head.coef_
    with pytest.raises(ValueError, match="feature 0 is too large: its variance"):
        head.fit(x * 1e200, y)


def test_with_many_classes_a_few_ridges_are_looked_at_in_full(monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.integers(12, size=900)
    x = rng.standard_normal((900, 20)) + 0.7 * rng.standard_normal((12, 20))[y]
    whole = VarProHead().fit(x, y)
    monkeypatch.setattr(_solving, "_MANY_PRODUCTS", 0)
    for samples in (1, 50, 300):
        monkeypatch.setattr(_solving, "_ROUGH_SAMPLES", samples)
        few = VarProHead().fit(x, y)
        assert few.alpha_ == whole.alpha_
        assert len(few.criterion_) < len(whole.criterion_)
        exact = dict(whole.criterion_)
        for ridge, error in few.criterion_:
            assert error == pytest.approx(exact[ridge], rel=1e-10)
        np.testing.assert_allclose(few.outputs(x), whole.outputs(x), atol=1e-10)
        assert few.temperature_ == pytest.approx(whole.temperature_)
