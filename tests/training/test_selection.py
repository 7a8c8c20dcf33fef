"""Pruning and growing against solving anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from rankwise.linear.gram import accumulate_gram
from rankwise.linear.growing import choose_units
from rankwise.linear.pruning import prune


def problem(n=60, m=8, k=3, seed=0):
    rng = np.random.default_rng(seed)
    features = np.hstack([rng.standard_normal((n, m)), np.ones((n, 1))])
    return features, rng.standard_normal((n, k))


def objective(features, targets, ridge):
    damped = features.T @ features + ridge * np.eye(features.shape[1])
    coef = np.linalg.solve(damped, features.T @ targets)
    return np.sum((targets - features @ coef) ** 2) + ridge * np.sum(coef**2), coef


def gram(features, targets):
    return accumulate_gram(lambda block: features[block], targets)


def choose(features, candidates, targets, n_units, ridge):
    together = np.hstack([candidates, features])
    columns = np.arange(candidates.shape[1])
    return choose_units(gram(together, targets), columns, n_units, ridge=ridge)


def test_both_give_the_same_bits_whatever_threads_blas_has():
    features, targets = problem(900, 600)
    statistics = gram(features, targets)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            pruned = prune(statistics, 1e-3, n_units=590, tolerance=0.5)
            gains = choose_units(statistics, np.arange(200), 9, ridge=1e-3)[1]
            found.append(np.concatenate([pruned.coef.ravel(), pruned.cost, gains]))
    np.testing.assert_array_equal(*found)


@given(st.integers(0, 50), st.integers(1, 7), st.sampled_from([1e-3, 0.5, 20.0]))
@settings(max_examples=30, deadline=None)
def test_each_pruned_unit_costs_what_solving_anew_says(seed, n_units, ridge):
    features, targets = problem(seed=seed)
    result = prune(gram(features, targets), ridge, n_units=n_units)
    assert len(result.kept) == n_units
    assert sorted([*result.kept, *result.order]) == list(range(8))
    left = list(range(9))
    for unit, cost in zip(result.order, result.cost, strict=True):
        now, _ = objective(features[:, left], targets, ridge)
        costs = {
            i: objective(features[:, [j for j in left if j != i]], targets, ridge)[0] - now
            for i in left[:-1]
        }
        assert cost == pytest.approx(costs[unit], rel=1e-6)
        assert costs[unit] <= min(costs.values()) * (1 + 1e-9)
        left.remove(unit)
    np.testing.assert_allclose(
        result.coef, objective(features[:, left], targets, ridge)[1], rtol=1e-6, atol=1e-9
    )


def test_a_copy_of_a_unit_is_not_needed():
    features, targets = problem()
    doubled = np.hstack([features[:, :3], features])
    result = prune(gram(doubled, targets), 1e-6, tolerance=1e-4)
    assert len(result.kept) == 8
    assert {i % 3 for i in result.order} == {0, 1, 2}


def test_pruning_by_tolerance_stays_within_it():
    features, targets = problem(n=40, m=20)
    start, _ = objective(features, targets, 1.0)
    result = prune(gram(features, targets), 1.0, tolerance=0.2)
    assert 0 < len(result.order) < 20
    after, _ = objective(features[:, [*result.kept, 20]], targets, 1.0)
    assert after - start == pytest.approx(result.cost.sum(), rel=1e-6)
    assert after <= 1.2 * start
    none = prune(gram(features, targets), 1.0, tolerance=0.0)
    assert len(none.kept) == 20


@given(st.integers(0, 50), st.integers(1, 4), st.sampled_from([1e-3, 0.5, 20.0]))
@settings(max_examples=30, deadline=None)
def test_each_added_unit_gains_what_solving_anew_says(seed, n_units, ridge):
    features, targets = problem(m=3, seed=seed)
    candidates = np.random.default_rng(seed + 1).standard_normal((60, 6))
    chosen, gains = choose(features, candidates, targets, n_units, ridge)
    assert len(set(chosen)) == n_units
    have = features
    for unit, gain in zip(chosen, gains, strict=True):
        before, _ = objective(have, targets, ridge)
        after = [
            objective(np.hstack([have, candidates[:, [i]]]), targets, ridge)[0] for i in range(6)
        ]
        assert gain == pytest.approx(before - after[unit], rel=1e-6, abs=1e-9)
        left = [after[i] for i in range(6) if i not in chosen[: list(chosen).index(unit)]]
        assert after[unit] <= min(left) + 1e-9 * before
        have = np.hstack([have, candidates[:, [unit]]])


def test_a_candidate_that_is_there_already_gains_nothing():
    features, targets = problem(m=3)
    candidates = np.hstack([features[:, :1], np.random.default_rng(1).standard_normal((60, 1))])
    chosen, gains = choose(features, candidates, targets, 2, 1e-9)
    assert chosen.tolist() == [1, 0]
    assert gains[1] < 1e-6 * gains[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: prune(s, 1.0), "needs n_units or tolerance"),
        (lambda s: prune(s, 1.0, n_units=9), "n_units must be between 1 and 8, got 9"),
        (lambda s: prune(s, 0.0, n_units=2), "pruning needs a ridge above 0, got 0.0"),
    ],
)
def test_what_pruning_does_not_accept(call, message):
    with pytest.raises(ValueError, match=message):
        call(gram(*problem()))


def test_what_growing_does_not_accept():
    features, targets = problem()
    with pytest.raises(ValueError, match="between 1 and the 2 candidates, got 3"):
        choose(features, features[:, :2], targets, 3, 1.0)
    with pytest.raises(ValueError, match=r"growing needs a ridge above 0, got 0\.0"):
        choose(features, features[:, :2], targets, 1, 0.0)
