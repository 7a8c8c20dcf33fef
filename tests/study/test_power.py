"""How much more would tell: against simulation, and straight from the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rankwise.study.power import folds_to_tell, power, repeats_to_tell
from rankwise.study.simulate import detection_rates, simulated_scores

SHAPE = np.array([-1.2, -0.4, 0.1, 0.3, 1.2]) / np.std([-1.2, -0.4, 0.1, 0.3, 1.2], ddof=1)


def test_power_against_simulation():
    rng = np.random.default_rng(0)
    pairs_, ratio, effect, deviation = 5, 0.25, 0.01, 0.006
    rho = ratio / (1 + ratio)
    n = 40_000
    # s² estimates (1 − ρ)σ², so σ is that much larger.
    sigma = deviation / math.sqrt(1 - rho)
    common = rng.standard_normal((n, 1))
    own = rng.standard_normal((n, pairs_))
    x = effect + sigma * (math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
    t = x.mean(1) / (x.std(1, ddof=1) * math.sqrt(1 / pairs_ + ratio))
    found = (np.abs(t) > stats.t.ppf(0.975, pairs_ - 1)).mean()
    assert power(effect, deviation, pairs_, ratio) == pytest.approx(found, abs=0.01)


def test_power_at_its_limits():
    assert power(0.01, 0.01, 1, 0.25) == 0
    assert power(0.0, 0.01, 5, 0.25) == pytest.approx(0.05)
    assert power(0.01, 0.0, 5, 0.25) == 1
    assert power(1.0, 0.001, 1000, 0.25) == pytest.approx(1)
    # At the floor, noncentrality can't pass effect / (s √r), whatever the repetitions.
    limit = stats.norm.sf(1.96 - 1) + stats.norm.cdf(-1.96 - 1)
    assert power(0.5, 1.0, 10**6, 0.25) == pytest.approx(limit, abs=1e-4)


def tells(m, s, n, ratio, rope):
    """Straight from the definition."""
    if n < 2:
        return False
    place = stats.t(n - 1, loc=m, scale=s * math.sqrt(1 / n + ratio))
    harm, better = place.cdf(-rope), place.sf(rope)
    if 1 - harm - better >= 0.95:
        return True
    return max(harm, better) >= 0.95 and power(m, s, n, ratio) >= 0.8


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.004), (0.02, 0.012), (0.009, 0.003)])
def test_repeats_to_tell_is_the_first_that_tells(mean, deviation):
    values = mean + deviation * SHAPE
    found = repeats_to_tell(values, 0.25, 0.005, folds=5)
    expected = next((r for r in range(1, 60) if tells(mean, deviation, 5 * r, 0.25, 0.005)), None)
    assert found == expected
    assert found is not None


def test_below_the_correlation_floor_no_repetition_tells():
    values = 0.006 + 0.01 * SHAPE
    assert repeats_to_tell(values, 0.25, 0.005, folds=5) is None
    # Folds that share nothing have no floor.
    assert repeats_to_tell(values + 0.006, 0.0, 0.005, folds=5) is not None


def test_repeats_to_tell_without_a_spread():
    assert repeats_to_tell([0.1], 0.25, 0.005, folds=5) is None
    assert repeats_to_tell([0.1] * 5, 0.25, 0.005, folds=5) is None
    assert repeats_to_tell([0.1, 0.2], 0.25, 0.005, folds=0) is None


# Too wide for any number of seeds: the floor is 0.5 · 0.012 = 0.006.
WIDE = 0.014 + 0.012 * SHAPE


@pytest.mark.parametrize("noise", [0.0, 1e-5, 2e-5])
@pytest.mark.parametrize("seeds", [1, 3])
def test_folds_to_tell_is_the_first_that_tells(noise, seeds):
    values = np.tile(WIDE, seeds)
    assert repeats_to_tell(values, 0.25, 0.005, folds=5) is None
    found = folds_to_tell(values, 0.005, folds=5, noise=noise, seeds=seeds)

    def deviation(k):
        # Equally correlated folds show (1 − ρ) of their variance; noise goes with 1 / images.
        own = values.var(ddof=1) - noise
        return math.sqrt((own + noise / 5 * k) / (1 - 1 / 5) * (1 - 1 / k))

    mean = values.mean()
    expected = next(
        k for k in range(6, 99) if tells(mean, deviation(k), k * seeds, 1 / (k - 1), 0.005)
    )
    assert found == expected
    assert folds_to_tell(values, 0.005, folds=5, noise=noise, seeds=seeds, most=found - 1) is None
    assert folds_to_tell(values, 0.005, folds=5, noise=1e-4, seeds=seeds) is None


def test_as_many_folds_as_it_says_do_tell_in_simulation():
    """Draw studies with that many folds; nothing but the model of the variance is shared."""
    noise = 2e-5
    found = folds_to_tell(WIDE, 0.005, folds=5, noise=noise)
    rates = {}
    for k in (5, found):
        spread = (0.012**2 - noise + noise * k / 5) / (1 - 1 / 5)
        scores = simulated_scores(
            1500, folds=k, effect=WIDE.mean(), deviation=math.sqrt(spread / 2), seed=k
        )
        rates[k] = detection_rates(*scores, folds=k)["corrected t"].rate
    assert rates[5] < 0.5
    assert rates[found] > 0.77


@settings(deadline=None, max_examples=15)
@given(
    st.floats(-0.03, 0.03), st.floats(0.001, 0.05), st.sampled_from([1, 2, 5]), st.floats(1.0, 9.0)
)
def test_where_noise_is_all_folds_do_nothing_that_seeds_cannot(mean, deviation, seeds, excess):
    values = np.tile(mean + deviation * SHAPE, seeds)
    if repeats_to_tell(values, 0.25, 0.005, folds=5) is None:
        noise = excess * values.var(ddof=1)
        assert folds_to_tell(values, 0.005, folds=5, noise=noise, seeds=seeds) is None


def test_noise_grows_as_validation_parts_shrink():
    """Two fixed classifiers, cut into more and more parts: no training, so all of it is noise."""
    rng = np.random.default_rng(3)
    correct = rng.random((2, 2000, 600)) < 0.8
    per_image = correct[0].astype(float) - correct[1]
    spreads = [
        per_image.reshape(2000, k, -1).mean(axis=2).var(axis=1, ddof=1).mean() for k in (5, 20)
    ]
    assert spreads[1] / spreads[0] == pytest.approx(20 / 5, rel=0.06)
    within = per_image.reshape(2000, 5, -1).var(axis=2, ddof=1).mean() / 120
    assert spreads[0] == pytest.approx(within, rel=0.06)


def test_folds_to_tell_without_a_spread():
    assert folds_to_tell([0.1], 0.005, folds=5, noise=0.0) is None
    assert folds_to_tell([0.1] * 5, 0.005, folds=5, noise=0.0) is None
    assert folds_to_tell([0.1, 0.2], 0.005, folds=1, noise=0.0) is None
    with pytest.raises(ValueError, match="noise must be at least 0, not -1"):
        folds_to_tell(WIDE, 0.005, folds=5, noise=-1)
