"""Simulated studies: the correlation they promise, and the levels that follow from it."""

import numpy as np
import pytest
from scipy import stats

from rankwise.study.simulate import (
    RULES,
    Rate,
    detection_rates,
    family_error_rates,
    learner_scores,
    simulated_family,
    simulated_scores,
)


def test_simulated_scores_have_their_correlation():
    first, second = simulated_scores(20_000, deviation=0.002, shared=0.01)
    differences = first - second
    assert differences.shape == (20_000, 5)
    assert differences.std() == pytest.approx(0.002 * np.sqrt(2), rel=0.03)
    assert np.corrcoef(differences[:, 0], differences[:, 3])[0, 1] == pytest.approx(0.2, abs=0.03)
    # What both arms share is in the scores and not in their differences.
    assert first.std() == pytest.approx(np.hypot(0.01, 0.002), rel=0.03)
    assert simulated_scores(9, seeds=3, folds=4)[0].shape == (9, 12)
    moved, _ = simulated_scores(9, effect=0.5)
    assert moved == pytest.approx(simulated_scores(9)[0] + 0.5)
    independent = np.subtract(*simulated_scores(20_000, correlation=0.0))
    assert np.corrcoef(independent[:, 0], independent[:, 1])[0, 1] == pytest.approx(0, abs=0.03)


def test_twice_the_epochs_flatter_the_alternative():
    first, second = simulated_scores(4000, epochs=(20, 10), wobble=0.01)
    # Expected maxima of 20 and of 10 standard normals: 1.8675 and 1.5388.
    assert (first - second).mean() == pytest.approx(0.01 * (1.8675 - 1.5388), abs=2e-4)


def test_the_corrected_test_holds_its_level_and_the_plain_one_does_not():
    scores = simulated_scores(600, seed=1)
    rates = detection_rates(*scores, folds=5)
    assert rates.keys() == {*RULES, "no practical difference"}
    assert rates["corrected t"].interval[0] < 0.05 < rates["corrected t"].interval[1]
    assert rates["paired t"].interval[0] > 0.05
    assert rates["verdict"].rate <= rates["corrected t"].rate
    assert rates["paper's rule"].rate < 0.05


def test_the_posterior_alone_and_the_test_alone_find_more_than_the_verdict():
    """With more noise than the region is wide, either finds differences that aren't there."""
    scores = simulated_scores(500, seeds=3, deviation=0.02, seed=3)
    rates = detection_rates(*scores, folds=5)
    assert 0 < rates["posterior"].rate < 0.1
    assert 0 < rates["verdict"].rate <= min(rates["posterior"].rate, rates["corrected t"].rate)
    # Beyond zero alone, 95% on either side is a one-sided test at 5%, twice.
    nothing = detection_rates(*scores, folds=5, rope=0.0)
    assert nothing["posterior"].rate > rates["posterior"].rate
    assert nothing["posterior"].interval[0] < 0.10 < nothing["posterior"].interval[1]


def test_a_family_shares_its_baseline():
    arms, baseline = simulated_family(20_000, n_arms=3)
    assert [arm.shape for arm in arms] == [(20_000, 5)] * 3
    first, second = (arm - baseline for arm in arms[:2])
    # Half of a difference's variance is the baseline's.
    assert np.corrcoef(first[:, 0], second[:, 0])[0, 1] == pytest.approx(0.5, abs=0.03)
    one, other = simulated_scores(9)
    (alone,), base = simulated_family(9, n_arms=1)
    assert (alone == one).all()
    assert (base == other).all()


def test_holm_holds_the_level_of_a_family_and_single_tests_do_not():
    rates = family_error_rates(*simulated_family(250, n_arms=5, seeds=3, deviation=0.02), folds=5)
    assert rates.keys() == {"corrected t", "Holm", "verdict"}
    assert rates["corrected t"].interval[0] > 0.1
    assert rates["Holm"].interval[0] < 0.05
    assert 0 < rates["verdict"].rate <= rates["Holm"].rate
    # A family of one is a single test.
    arms, baseline = simulated_family(100, n_arms=1, seeds=3)
    alone = family_error_rates(arms, baseline, folds=5)
    single = detection_rates(arms[0], baseline, folds=5)
    assert alone["Holm"] == alone["corrected t"] == single["corrected t"]
    # One arm that truly helps is found in every study.
    sure = family_error_rates([arms[0] + 0.05, arms[0]], baseline, folds=5)
    assert sure["verdict"].rate == 1


def test_rules_find_an_effect_and_the_paper_s_no_harm():
    helped = detection_rates(*simulated_scores(60, seeds=3, effect=0.02), folds=5)
    harmed = detection_rates(*simulated_scores(60, seeds=3, effect=-0.02), folds=5)
    assert helped["verdict"].rate == harmed["verdict"].rate == 1
    assert helped["paper's rule"].rate == 1
    assert harmed["paper's rule"].rate == 0
    assert helped["no practical difference"].rate == 0


def test_few_folds_or_seeds_never_make_a_verdict():
    for folds, seeds in ((2, 3), (3, 3), (5, 1), (5, 2)):
        scores = simulated_scores(40, folds=folds, seeds=seeds, effect=0.02)
        rates = detection_rates(*scores, folds=folds)
        assert rates["verdict"].rate == 0
        assert rates["corrected t"].rate > 0.5


def test_rates_have_exact_intervals():
    low, high = Rate(7, 200).interval
    assert stats.binom.sf(6, 200, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 200, high) == pytest.approx(0.025)
    assert Rate(7, 200).rate == 0.035
    assert Rate(0, 10).interval[0] == 0
    assert Rate(10, 10).interval[1] == 1


def test_the_real_learner_learns_and_its_arms_are_alike():
    first, second = learner_scores(6, n_images=200, n_features=60)
    assert first.shape == (6, 5)
    assert 0.75 < first.mean() < 0.99
    assert (first != second).any()
    assert abs(first.mean() - second.mean()) < 0.05
    again, _ = learner_scores(6, n_images=200, n_features=60)
    assert (again == first).all()


def test_one_start_for_all_folds_makes_differences_alike():
    def between_share(fixed):
        options = {"seeds": 3, "n_images": 200, "n_features": 20, "fixed_start": fixed}
        d = np.subtract(*learner_scores(12, **options))
        return d.mean(axis=1).var() / d.var()

    assert between_share(True) > between_share(False)
