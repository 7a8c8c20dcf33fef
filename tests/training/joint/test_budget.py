"""Trainings in a time budget: when they end, and what is told where it is too short."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from joint_cases import training
from rankwise import ConvolutionalClassifier
from rankwise._arrays import each_once
from rankwise.estimators import convolutional as estimator
from rankwise.lowrank import RandomLowRank
from rankwise.training import convolutional_fitting, joint
from rankwise.training.joint import JointTraining
from rankwise.training.steps import Clock


def test_a_time_budget_ends_the_training_in_the_middle_of_an_epoch(digits):
    images, labels = digits
    seconds = iter(range(1000))
    run = training(images, epochs=50, batch_size=60, time_budget=1.0)
    rates, set_rate = [], run.set_rate
    run.set_rate = lambda done: rates.append(done) or set_rate(done)
    run._clock = Clock(40.0, now=lambda: float(next(seconds)))
    result = run.fit(images[:600], labels[:600], validation=(images[600:700], labels[600:700]))
    assert result.status == "finished"
    # Ten updates an epoch, a second each; what validation takes is kept of the forty.
    assert 3 <= len(result.history) <= 4
    assert 25 < len(rates) < 40
    assert rates == sorted(rates)
    assert rates[-1] > 0.9, "the schedule ends with the budget"


def test_reading_the_images_counts_in_a_time_budget(digits, monkeypatch):
    seconds = [0.0]

    def slow(*given):
        seconds[0] += 100.0
        return each_once(*given)

    monkeypatch.setattr(estimator, "each_once", slow)
    for module in (estimator, convolutional_fitting):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    model = ConvolutionalClassifier("nano", time_budget=1)
    with pytest.warns(ConvergenceWarning, match="the time budget is 60 seconds, and a fit of one"):
        model.fit(digits[0][:100], digits[1][:100])
    assert model.seconds_["total"] == 100.0


def counting(step=1.0):
    """A clock that moves on by as much each time it is read."""
    readings = itertools.count(0.0, step)
    return lambda: next(readings)


def test_what_is_kept_of_a_budget_shortens_the_end_of_the_schedule(digits):
    images, labels = digits
    rates = []
    for spent in (0.0, 20.0):
        run = training(images, epochs=50, time_budget=1.0)
        done, set_rate = [], run.set_rate
        run.set_rate = lambda share, done=done, kept=set_rate: done.append(share) or kept(share)
        run._clock = Clock(40.0, now=counting())
        run.fit(images[:600], labels[:600], spent=spent)
        rates.append(done)
    whole, half = rates
    assert max(whole[0], half[0]) < 0.1, "it begins at its beginning"
    assert min(whole[-1], half[-1]) > 0.9
    assert len(half) < 0.6 * len(whole)


def test_what_is_behind_is_timed_again_and_the_shorter_time_kept(digits):
    """Where others had the processor the first time, half of a budget was left unused."""
    images, labels = digits
    updates = []
    for times in ((0.0, 0.0), (30.0, 30.0), (30.0, 0.0), (0.0, 30.0)):
        run = training(images, epochs=50, time_budget=1.0)
        done, set_rate = [], run.set_rate
        run.set_rate = lambda share, done=done, kept=set_rate: done.append(share) or kept(share)
        run._clock = Clock(40.0, now=counting(0.5))
        told = iter(times)
        run.fit(images[:600], labels[:600], behind=lambda told=told: next(told))
        assert done[-1] > 0.9
        assert next(told, None) is None, "twice"
        updates.append(len(done))
    quiet, busy, busy_first, busy_later = updates
    assert busy < 0.4 * quiet
    assert busy_first > 0.8 * quiet
    assert busy_later == quiet
    # Without a budget nothing is timed.
    training(images, epochs=1).fit(images[:120], labels[:120], behind=lambda: 1 / 0)


def test_a_budget_that_is_over_stays_over(digits, tmp_path):
    """A finished fit is repeated from its checkpoint, not gone on with, however fast it is now."""
    images, labels = digits
    results = []
    for _ in range(2):
        run = training(images, epochs=50, time_budget=1.0)
        run._clock = Clock(30.0, now=counting(1.0 if not results else 0.001))
        path = tmp_path / "joint.safetensors"
        results.append(run.fit(images[:600], labels[:600], checkpoint=path))
    first, again = results
    assert 1 < len(first.history) == len(again.history) == again.resumed < 50
    np.testing.assert_array_equal(again.coef, first.coef)


def test_a_budget_that_is_over_after_a_stop_stays_over(digits, tmp_path):
    images, labels = digits
    path = tmp_path / "joint.safetensors"

    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    run = training(images, epochs=5, time_budget=1e6)
    with pytest.raises(KeyboardInterrupt):
        run.fit(images[:120], labels[:120], checkpoint=path, after_epoch=stop)
    for budget in (1e-9, 1e6):
        run = training(images, epochs=5, time_budget=budget)
        assert len(run.fit(images[:120], labels[:120], checkpoint=path).history) == 2


@pytest.mark.parametrize(("budget", "cut"), [(7.0, True), (2.0, True), (1000.0, False)])
def test_a_budget_under_one_epoch_says_what_one_takes(digits, monkeypatch, tmp_path, budget, cut):
    images, labels = digits
    run = training(images, epochs=2, time_budget=1.0)
    run._clock = Clock(budget, now=counting())
    shares, set_rate = [], run.set_rate
    run.set_rate = lambda done: shares.append(done) or set_rate(done)
    monkeypatch.setattr(joint, "time", SimpleNamespace(perf_counter=counting()))
    path = tmp_path / "joint.safetensors"
    result = run.fit(images[:600], labels[:600], checkpoint=path)
    # A second before, ten updates of a second, and a second around each of those there were.
    n = len(shares) if budget > 2 else 1
    assert result.needs == (1 + 10 + n + 1 if cut else None)
    assert (n < 10) == cut
    again = training(images, epochs=2, time_budget=1.0)
    again._clock = Clock(budget, now=counting())
    assert again.fit(images[:600], labels[:600], checkpoint=path).needs == result.needs


@pytest.mark.parametrize(("budget", "n"), [(13.5, 5), (5.0, 1)])
def test_the_first_update_is_slow_and_the_others_are_not(digits, monkeypatch, budget, n):
    images, labels = digits
    run, update, passed = training(images, epochs=2, time_budget=1.0), JointTraining.update, [0.0]
    monkeypatch.setattr(joint, "time", SimpleNamespace(perf_counter=lambda: passed[0]))
    run._clock = Clock(budget, now=lambda: passed[0])
    calls = []

    def slow(*given, **options):
        passed[0] += 1.0 if calls else 10.0
        calls.append(1)
        return update(run, *given, **options)

    run.update = slow
    # Ten updates, the first of ten seconds; where it is the only one, another is timed.
    assert run.fit(images[:600], labels[:600]).needs == 10 + 9
    assert len(calls) == n + (n == 1)


@pytest.mark.parametrize("plan", [{}, {"extra": RandomLowRank(seed=0)}], ids=["moves", "copies"])
def test_the_update_that_only_tells_the_time_changes_nothing(digits, plan):
    images, labels = digits
    results = []
    for timed in (True, False):
        run = training(images, epochs=5, time_budget=1e-9, **plan)
        if not timed:
            run._needed = lambda *_: 1.0
        results.append(run.fit(images[:300], labels[:300]))
        results.append(run.outputs(images[:40]))
    assert results[0].needs != results[2].needs == 1.0
    np.testing.assert_array_equal(results[0].coef, results[2].coef)
    np.testing.assert_array_equal(results[1], results[3])


def test_one_update_longer_than_the_budget_is_told_too(digits):
    images, labels = digits
    run = training(images, epochs=5, batch_size=300, time_budget=1e-9)
    assert run.fit(images[:300], labels[:300]).needs > 1e-9


@pytest.mark.parametrize(("budget", "spent"), [(1e-9, 0.0), (1e6, 1e6)])
def test_a_budget_that_is_used_up_gives_one_step(digits, budget, spent):
    images, labels = digits
    run = training(images, epochs=5, time_budget=budget)
    result = run.fit(images[:300], labels[:300], spent=spent)
    assert len(result.history) == 1
    assert np.isfinite(result.coef).all()


def test_time_that_went_by_before_counts(digits, tmp_path):
    images, labels = digits
    path = tmp_path / "joint.safetensors"
    run = training(images, epochs=2, time_budget=1e6)
    before = run.fit(images[:120], labels[:120], checkpoint=path)
    run = training(images, epochs=2, time_budget=1e6)
    run._clock = Clock(sum(e["seconds"] for e in before.history) / 2)
    again = run.fit(images[:120], labels[:120], checkpoint=path)
    assert len(again.history) == again.resumed == 2
