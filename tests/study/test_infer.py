"""Inference against slow oracles: integration, enumeration, simulation, worked numbers."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from rankwise.study.infer import (
    ImageNoise,
    corrected_t_test,
    correlated_posterior,
    holm,
    image_noise,
    paper_interval,
    paper_rule,
    spent_level,
)
from rankwise.study.mcnemar import mcnemar

FOLDS = st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=20)


def spread_out(values):
    return np.std(values) > 1e-6


# -- the paper's rule -----------------------------------------------------------------------


def test_paper_interval_by_hand():
    # mean 3, squared deviations 4 + 1 + 0 + 1 + 4 = 10, divided by 4: s = √2.5.
    low, high = paper_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - math.sqrt(2.5), 3 + math.sqrt(2.5)))


def test_paper_rule_is_one_sided_and_needs_a_gap():
    low, high = [0.90, 0.91, 0.92], [0.96, 0.97, 0.98]
    assert paper_rule(high, low).rejects
    assert not paper_rule(low, high).rejects
    assert not paper_rule([0.905, 0.915, 0.925], low).rejects
    rule = paper_rule(high, low)
    assert rule.interval == paper_interval(high)
    assert rule.baseline_interval == paper_interval(low)


def test_paper_interval_needs_two_scores():
    with pytest.raises(ValueError, match="an interval needs at least 2 fold scores, not 1"):
        paper_interval([0.9])


# -- corrected resampled t-test -------------------------------------------------------------


def test_corrected_t_by_hand():
    # Differences 1, 2, 3, 4 (%): m = 2.5, s² = 5/3. With r = 1/4 and J = 4 the factor is 1/2, so
    # t = 2.5 / √(5/6); the plain test has √(5/12) below.
    test = corrected_t_test([1, 2, 3, 4], 0.25)
    assert test.mean == 2.5
    assert test.deviation**2 == pytest.approx(5 / 3)
    assert test.standard_error**2 == pytest.approx(5 / 6)
    assert test.statistic == pytest.approx(2.5 / math.sqrt(5 / 6))
    assert test.degrees_of_freedom == 3
    # Student's distribution with 3 degrees of freedom has a closed form.
    t = test.statistic
    cdf = 0.5 + (math.atan(t / math.sqrt(3)) + t / math.sqrt(3) / (1 + t * t / 3)) / math.pi
    assert test.p_value == pytest.approx(2 * (1 - cdf))
    # 3.18245 is the 97.5% point with 3 degrees of freedom in every printed table.
    half = 3.18245 * math.sqrt(5 / 6)
    assert (test.low, test.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-5)


@settings(deadline=None, max_examples=40)
@given(FOLDS.filter(spread_out))
def test_without_correction_it_is_scipy_s_paired_t_test(values):
    found, theirs = corrected_t_test(values, 0.0), stats.ttest_1samp(values, 0)
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


@settings(deadline=None, max_examples=40)
@given(FOLDS.filter(spread_out), st.floats(0.01, 1))
def test_properties_of_the_corrected_test(values, ratio):
    test, plain = corrected_t_test(values, ratio), corrected_t_test(values, 0.0)
    mirrored = corrected_t_test(-np.array(values), ratio)
    assert test.p_value >= plain.p_value
    assert mirrored.p_value == pytest.approx(test.p_value)
    assert (mirrored.low, mirrored.high) == pytest.approx((-test.high, -test.low))
    # The interval at level 1 − p ends at zero.
    if 1e-6 < test.p_value < 0.999:
        at = corrected_t_test(values, ratio, confidence=1 - test.p_value)
        assert min(abs(at.low), abs(at.high)) == pytest.approx(0, abs=1e-9)
    # The correlation floor: repeating the same differences can't go below r s².
    many = corrected_t_test(np.tile(values, 50), ratio)
    assert many.standard_error > math.sqrt(ratio) * many.deviation


def test_degenerate_differences():
    zero = corrected_t_test([0.0] * 5, 0.25)
    assert (zero.mean, zero.deviation, zero.standard_error) == (0, 0, 0)
    assert all(map(math.isnan, (zero.statistic, zero.p_value, zero.low, zero.high)))
    # 0.1 + 0.2 − 0.3 and the like: rounding is no spread.
    equal = corrected_t_test(np.full(5, 0.9) - np.array([0.8, 0.8, 0.8, 0.8, 0.8 + 1e-16]), 0.25)
    assert math.isnan(equal.p_value)
    assert math.isnan(equal.statistic)
    assert equal.mean == pytest.approx(0.1)
    one = corrected_t_test([0.1], 0.25)
    assert one.mean == 0.1
    assert math.isnan(one.p_value)
    assert math.isnan(corrected_t_test([], 0.25).mean)


def test_refusals():
    with pytest.raises(ValueError, match=r"ratio \(n_test / n_train\) must be at least 0, not -1"):
        corrected_t_test([1, 2], -1)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, not 1"):
        corrected_t_test([1, 2], 0.25, confidence=1)
    with pytest.raises(ValueError, match=r"rope must be at least 0, not -0\.1"):
        correlated_posterior([1, 2], 0.25, -0.1)
    with pytest.raises(ValueError, match=r"predictions aren't paired: shapes \(2,\) and \(3,\)"):
        mcnemar([True, False], [True, False, True])


# -- the posterior --------------------------------------------------------------------------


def posterior_by_integration(differences, ratio, rope):
    """Integrate the normal–inverse-gamma posterior (Corani and Benavoli, section 3) over σ².

    With the noninformative prior p(μ, σ²) ∝ 1/σ² and covariance σ²((1 − ρ)I + ρ11ᵀ), all of the
    likelihood written out with the dense matrix.
    """
    x = np.asarray(differences)
    n, rho = len(x), ratio / (1 + ratio)
    matrix = (1 - rho) * np.eye(n) + rho * np.ones((n, n))
    inverse = np.linalg.inv(matrix)
    ones = np.ones(n)

    def density(mu):
        # ∫ σ^{-n-2} exp(−q/(2σ²)) dσ² ∝ q^{−n/2}
        return ((x - mu * ones) @ inverse @ (x - mu * ones)) ** (-n / 2)

    centre, scale = x.mean(), x.std(ddof=1)
    scaled = lambda z: density(centre + z * scale)  # noqa: E731
    edges = [(-rope - centre) / scale, (rope - centre) / scale]
    parts = [
        integrate.quad(scaled, a, b, limit=400)[0]
        for a, b in ((-np.inf, edges[0]), (edges[0], edges[1]), (edges[1], np.inf))
    ]
    return np.array(parts) / sum(parts)


@pytest.mark.parametrize("ratio", [0.25, 1 / 9])
@pytest.mark.parametrize("shift", [-0.01, 0.0, 0.004])
def test_posterior_is_that_of_the_dense_model(ratio, shift):
    differences = np.random.default_rng(3).normal(shift, 0.004, 5)
    found = correlated_posterior(differences, ratio, 0.005)
    expected = posterior_by_integration(differences, ratio, 0.005)
    assert [found.harm, found.equal, found.help] == pytest.approx(list(expected), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(FOLDS.filter(spread_out), st.floats(0, 0.05))
def test_posterior_agrees_with_the_test(values, rope):
    found = correlated_posterior(values, 0.25, rope)
    assert found.harm + found.equal + found.help == pytest.approx(1)
    mirrored = correlated_posterior(-np.array(values), 0.25, rope)
    assert mirrored.harm == pytest.approx(found.help)
    # Without a region the smaller tail is half of the two-sided p (Benavoli et al. 2017).
    none = correlated_posterior(values, 0.25, 0.0)
    p_value = corrected_t_test(values, 0.25).p_value
    assert 2 * min(none.harm, none.help) == pytest.approx(p_value, abs=1e-12)


def test_posterior_of_equal_scores():
    same = correlated_posterior([0.0] * 5, 0.25, 0.005)
    assert all(map(math.isnan, (same.harm, same.equal, same.help)))
    assert math.isnan(correlated_posterior([0.1] * 5, 0.25, 0.005).equal)
    assert math.isnan(correlated_posterior([0.1], 0.25, 0.005).equal)


# -- Holm -----------------------------------------------------------------------------------


def holm_by_closure(p_values):
    """Closed testing: H_i falls at α if every intersection with it falls by Bonferroni."""
    m = len(p_values)
    adjusted = []
    for i in range(m):
        worst = 0.0
        for chosen in product([False, True], repeat=m):
            if chosen[i]:
                inside = [p for p, c in zip(p_values, chosen, strict=True) if c]
                worst = max(worst, min(1.0, len(inside) * min(inside)))
        adjusted.append(worst)
    return adjusted


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closure_of_bonferroni(p_values):
    assert holm(p_values) == pytest.approx(holm_by_closure(p_values))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    # A planned comparison that can't be tested yet counts: 3 · 0.01, then 2 · 0.02.
    found = holm([0.01, math.nan, 0.02])
    assert found[0] == pytest.approx(0.03)
    assert found[2] == pytest.approx(0.04)
    assert math.isnan(found[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(0, 7))
def test_an_interim_report_has_no_smaller_family(p_values, left):
    left = min(left, len(p_values) - 1)
    interim = [p if i != left else math.nan for i, p in enumerate(p_values)]
    final = [p if i != left else 1.0 for i, p in enumerate(p_values)]
    for i, (before, after) in enumerate(zip(holm(interim), holm(final), strict=True)):
        assert i == left or before == pytest.approx(after)


def test_levels_of_looks_add_up_to_at_most_alpha():
    assert spent_level(0.05, 1) == pytest.approx(0.04)
    assert spent_level(0.05, 2) == pytest.approx(0.008)
    assert sum(spent_level(0.05, look) for look in range(1, 40)) <= 0.05 + 1e-12
    with pytest.raises(ValueError, match="look must be at least 1, not 0"):
        spent_level(0.05, 0)


# -- images ---------------------------------------------------------------------------------


def test_image_noise_by_hand():
    # Ten images, two of difference 1: mean 0.2, variance (2 · 0.64 + 8 · 0.04)/9, over 10.
    found = image_noise([1, 1, *[0] * 8], shared=True)
    assert found.variance == pytest.approx(1.6 / 9 / 10)
    assert (found.clusters, found.shared) == (10, True)
    # Both in one source: sums 1.6 and eight times −0.2: 9/8 · (2.56 + 8 · 0.04)/100.
    sources = [0, 0, *range(1, 9)]
    clustered = image_noise([1, 1, *[0] * 8], sources, shared=False)
    assert clustered.variance == pytest.approx(9 / 8 * (2.56 + 0.32) / 100)
    assert clustered.clusters == 9
    assert image_noise([0.5], shared=True) == ImageNoise(0.0, 1, True)
    assert image_noise([1, 0, 1], [7, 7, 7], shared=True).variance == 0
    with pytest.raises(ValueError, match="sources aren't those of the images"):
        image_noise([1, 0], [1], shared=True)


def test_clustered_noise_is_that_of_resampled_sources():
    """The bootstrap over sources, which shares no formula with it."""
    rng = np.random.default_rng(5)
    sources = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    values = rng.standard_normal(60)[sources] + 0.3 * rng.standard_normal(len(sources))
    groups = [values[sources == c] for c in range(60)]
    means = []
    for _ in range(4000):
        drawn = [groups[c] for c in rng.integers(0, 60, 60)]
        means.append(np.concatenate(drawn).mean())
    assert image_noise(values, sources, shared=True).variance == pytest.approx(
        np.var(means), rel=0.12
    )


def test_shared_images_add_their_variance():
    noise = ImageNoise(1.0, 101, True)
    test = corrected_t_test([1, 2, 3, 4], 0.25, noise=noise)
    # (1/4 + 1/4) · 5/3 of the folds, with 3 degrees of freedom; 1 of the images, with 100.
    folds = 5 / 6
    assert test.standard_error == pytest.approx(math.sqrt(folds + 1))
    freedom = (folds + 1) ** 2 / (folds**2 / 3 + 1 / 100)
    assert test.degrees_of_freedom == pytest.approx(freedom)
    assert test.p_value == pytest.approx(2 * stats.t.sf(2.5 / math.sqrt(folds + 1), freedom))


def test_own_images_are_a_floor():
    spread = corrected_t_test([1, 2, 3, 4], 0.25)
    small = corrected_t_test([1, 2, 3, 4], 0.25, noise=ImageNoise(0.1, 50, False))
    assert small == spread
    floored = corrected_t_test([1, 2, 3, 4], 0.25, noise=ImageNoise(4.0, 50, False))
    assert (floored.standard_error, floored.degrees_of_freedom) == (2.0, 49)
    # Three folds that agree to 0.15 points on 400 images each aren't certain to 0.15 points.
    agreeing = [0.0118, 0.0133, 0.0148]
    alone = corrected_t_test(agreeing, 0.5)
    real = corrected_t_test(agreeing, 0.5, noise=ImageNoise(0.021**2 / 3, 1200, False))
    assert alone.p_value < 0.05 < 0.2 < real.p_value
    posterior = correlated_posterior(
        agreeing, 0.5, 0.005, noise=ImageNoise(0.021**2 / 3, 1200, False)
    )
    assert posterior.help < 0.95


def test_without_any_spread_images_tell():
    same = corrected_t_test([0.01] * 5, 0.25, noise=ImageNoise(1e-6, 1000, True))
    assert same.standard_error == pytest.approx(1e-3)
    assert same.p_value < 0.001


def test_intervals_of_another_level():
    test = corrected_t_test([1, 2, 3, 4], 0.25)
    assert test.interval(0.95) == pytest.approx((test.low, test.high))
    wide = test.interval(0.99)
    assert wide[0] < test.low < test.high < wide[1]
    assert all(map(math.isnan, corrected_t_test([1.0, 1.0], 0.25).interval(0.95)))


# -- McNemar --------------------------------------------------------------------------------


def pairs(gained, lost, both=5, neither=3):
    first = [True] * (gained + both) + [False] * (lost + neither)
    second = [False] * gained + [True] * both + [True] * lost + [False] * neither
    return first, second


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (7, 2), (12, 12), (3, 21)])
def test_exact_mcnemar_counts_coin_tosses(gained, lost):
    found = mcnemar(*pairs(gained, lost))
    n = gained + lost
    ways = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(gained - lost))
    assert (found.gained, found.lost, found.method) == (gained, lost, "exact")
    assert found.p_value == pytest.approx(ways / 2**n)


def test_mcnemar_with_many_discordant_pairs():
    # Edwards: (|59 − 33| − 1)² / 92 = 625 / 92.
    found = mcnemar(*pairs(59, 33))
    assert found.method == "chi-square"
    assert found.statistic == pytest.approx(625 / 92)
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(625 / 92 / 2)))
    assert found.p_value == pytest.approx(stats.binomtest(33, 92).pvalue, abs=0.002)
    assert mcnemar(*pairs(13, 13)).p_value == 1


def test_mcnemar_by_source():
    # Sources: gained − lost of 3, −1 and 1: (3 − 1 + 1)² / (9 + 1 + 1).
    first = [True] * 3 + [False] + [True] + [True]
    second = [False] * 3 + [True] + [False] + [True]
    found = mcnemar(first, second, [0, 0, 0, 1, 2, 2])
    assert found.method == "by source"
    assert found.statistic == pytest.approx(9 / 11)
    assert found.p_value == 0.75  # of 8 signs of 3, 1 and 1, six give 3 or more
    often = mcnemar(
        first * 9, second * 9, [s + 3 * i for i in range(9) for s in (0, 0, 0, 1, 2, 2)]
    )
    assert often.p_value == pytest.approx(stats.chi2.sf(often.statistic, 1))
    assert mcnemar(first, second, range(6)).method == "exact"
    assert mcnemar([True, True], [True, True], [0, 0]).p_value == 1


def test_mcnemar_by_source_holds_its_level_where_the_plain_one_does_not():
    rng = np.random.default_rng(2)
    plain = clustered = 0
    for _ in range(400):
        lean = rng.random(40) < 0.5  # A slide favours one of the arms altogether.
        sources = np.repeat(np.arange(40), 8)
        first = lean[sources] ^ (rng.random(320) < 0.1)
        plain += mcnemar(first, ~first).p_value < 0.05
        clustered += mcnemar(first, ~first, sources).p_value < 0.05
    assert plain / 400 > 0.3
    assert clustered / 400 < 0.09


def test_few_sources_are_counted_by_their_signs():
    right, wrong = np.ones(7, bool), np.array([0, 0, 0, 0, 0, 1, 1], bool)
    found = mcnemar(right, wrong, np.array([0, 1, 2, 3, 4, 5, 5]))
    assert found.p_value == 2 * 0.5**5
    # Sources of two sizes, by hand: ±2 ±1 is as far from 0 as 3 in two of four ways, as 1 in all.
    sizes = np.array([0, 0, 1])
    assert mcnemar(np.ones(3, bool), np.zeros(3, bool), sizes).p_value == 0.5
    assert mcnemar([1, 1, 0], [0, 0, 1], sizes).p_value == 1.0
