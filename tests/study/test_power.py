"""How much more would tell: against simulation, and straight from the definitions."""

import math

import numpy as np
import pytest
from scipy import stats

from rankwise.study.infer import ImageNoise, corrected_t_test, correlated_posterior
from rankwise.study.power import (
    Pilot,
    assurance,
    chance_to_help,
    chance_to_tell,
    folds_to_tell,
    images_would_tell,
    repeats_to_tell,
    with_images,
)
from rankwise.study.verdict import Evidence, verdict

SHAPE = np.array([-1.2, -0.4, 0.1, 0.3, 1.2]) / np.std([-1.2, -0.4, 0.1, 0.3, 1.2], ddof=1)


def drawn(rng, n, effect, deviation, pairs, ratio, noise=None):
    """Differences of many studies, correlated as the corrected tests assume."""
    rho = ratio / (1 + ratio)
    # s² estimates (1 − ρ)σ², so σ is that much larger.
    sigma = deviation / math.sqrt(1 - rho)
    common, own = rng.standard_normal((n, 1)), rng.standard_normal((n, pairs))
    x = effect + sigma * (math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
    if noise is not None:
        x = x + math.sqrt(noise.variance) * rng.standard_normal((n, 1))
    return x


def told(values, ratio, rope, alpha=0.05, noise=None):
    """Whether one study ends in a verdict, straight from the rules."""
    mass = correlated_posterior(values, ratio, rope, noise=noise)
    if mass.equal >= 0.95:
        return True
    test = corrected_t_test(values, ratio, noise=noise)
    return test.p_value < alpha and max(mass.help, mass.harm) >= 0.95


def helps(values, ratio, rope, alpha, noise=None, control=None):
    """Whether a study's verdict is ``helps``, by the verdict itself."""
    evidence = Evidence(
        test=corrected_t_test(values, ratio, noise=noise),
        p_adjusted=corrected_t_test(values, ratio, noise=noise).p_value,
        posterior=correlated_posterior(values, ratio, rope, noise=noise),
        rope=rope,
        seeds=3,
        seeds_to_tell=None,
        folds=5,
        folds_to_tell=None,
        pairs=len(values),
        finished_seeds=3,
        alpha=alpha,
        copies=None if control is None else "changed",
        control=control,
    )
    return verdict(evidence) == "helps"


@pytest.mark.parametrize(
    ("effect", "alpha", "noise"),
    [
        (0.015, 0.01, None),
        (0.013, 0.05, ImageNoise(4e-6, 2000, True)),
        (0.012, 0.05, ImageNoise(6e-6, 900, False)),
    ],
)
def test_the_chance_to_help_is_that_of_simulated_verdicts(effect, alpha, noise):
    rng = np.random.default_rng(5)
    # Own images are part of the spread between folds; shared ones move all of them.
    x = drawn(rng, 800, effect, 0.006, 15, 0.25, noise if noise and noise.shared else None)
    found = np.mean([helps(values, 0.25, 0.005, alpha, noise) for values in x])
    expected = chance_to_help(effect, 0.006, 15, 0.25, 0.005, alpha=alpha, noise=noise)
    assert expected == pytest.approx(found, abs=0.04)
    assert 0.3 < expected < 0.95


def test_the_chance_to_help_at_its_limits():
    assert chance_to_help(0.01, 0.01, 1, 0.25, 0.0) == 0
    assert chance_to_help(0.01, 0.0, 15, 0.25, 0.0) == 0
    assert chance_to_help(1.0, 0.001, 1000, 0.25, 0.0) == pytest.approx(1)
    # One side of the test, where there is no effect and no region.
    assert chance_to_help(0.0, 0.01, 15, 0.25, 0.0, alpha=0.05) == pytest.approx(0.025, abs=0.002)
    # What the region takes from the effect; an effect within it is hardly ever found.
    narrow = chance_to_help(0.02, 0.012, 15, 0.25, 0.0, alpha=0.05)
    assert chance_to_help(0.02, 0.012, 15, 0.25, 0.01, alpha=0.05) < narrow - 0.1
    assert chance_to_help(0.01, 0.002, 10**5, 0.25, 0.01, alpha=0.05) == pytest.approx(
        0.05, abs=1e-3
    )


@pytest.mark.parametrize(
    ("effect", "deviation", "seeds"),
    [(0.0, 0.004, 1), (0.0, 0.004, 6), (0.02, 0.012, 3), (0.009, 0.003, 2), (0.006, 0.01, 3)],
)
@pytest.mark.parametrize("noise", [None, ImageNoise(4e-6, 2000, True)])
def test_the_chance_to_tell_is_that_of_simulated_studies(effect, deviation, seeds, noise):
    x = drawn(np.random.default_rng(7), 500, effect, deviation, 5 * seeds, 0.25, noise)
    share = np.mean([told(values, 0.25, 0.005, noise=noise) for values in x])
    found = chance_to_tell([effect], [deviation], 5 * seeds, 0.25, 0.005, noise=noise)[0]
    # The equivalence part takes the spread as known.
    assert found == pytest.approx(share, abs=0.12)


def test_the_chance_to_tell_at_its_limits():
    assert chance_to_tell([0.1], [0.01], 1, 0.25, 0.005)[0] == 0
    assert chance_to_tell([0.1, 0.0], [0.0, 0.0], 5, 0.25, 0.005).tolist() == [1, 1]


def test_assurance_averages_over_what_may_be_true():
    pilot = Pilot(0.01 + 0.004 * SHAPE, 0.25, 5)
    means, spreads = pilot.possible()
    assert np.mean(means) == pytest.approx(0.01)
    # The middle of the spreads is about the one seen; they are as wide as χ² of 4 makes them.
    assert np.median(spreads) == pytest.approx(0.004 * math.sqrt(4 / stats.chi2.median(4)))
    hopeful = chance_to_tell([0.01], [0.004], 15, 0.25, 0.005)[0]
    honest = assurance(pilot, lambda m, s: chance_to_tell(m, s, 15, 0.25, 0.005))
    assert honest < hopeful - 0.05


def test_the_advice_tells_as_often_as_it_says():
    """Truths as the pilot leaves them; each is run as a new study with the number advised."""
    rng = np.random.default_rng(11)
    pilot = Pilot(0.013 + 0.004 * SHAPE, 0.25, 5)
    advised = repeats_to_tell(pilot, 0.005)
    assert advised is not None
    assert advised > 1
    outcomes = []
    for _ in range(400):
        deviation = 0.004 * math.sqrt(4 / rng.chisquare(4))
        effect = 0.013 + deviation * math.sqrt(0.45) * rng.standard_normal()
        values = drawn(rng, 1, effect, deviation, 5 * advised, 0.25)[0]
        outcomes.append(told(values, 0.25, 0.005))
    # The advice that takes the pilot for the truth tells in fewer: it needs 80% at the mean alone.
    assert np.mean(outcomes) == pytest.approx(0.8, abs=0.08)


def test_repeats_to_tell_is_the_first_that_tells():
    pilot = Pilot(np.tile(0.015 + 0.004 * SHAPE, 2), 0.25, 5)
    found = repeats_to_tell(pilot, 0.005)

    def chance(repeats):
        return assurance(
            pilot, lambda m, s: chance_to_tell(m, s, 5 * repeats, 0.25, 0.005, alpha=0.05)
        )

    assert found is not None
    assert chance(found) >= 0.8
    assert found == 1 or chance(found - 1) < 0.8


def test_below_the_floors_no_repetition_tells():
    values = 0.006 + 0.01 * SHAPE
    assert repeats_to_tell(Pilot(values, 0.25, 5), 0.005) is None
    sure = Pilot(0.03 + 0.002 * SHAPE, 0.25, 5)
    assert repeats_to_tell(sure, 0.005) is not None
    few_images = Pilot(sure.differences, 0.25, 5, ImageNoise(0.03**2, 100, True))
    assert repeats_to_tell(few_images, 0.005) is None


def test_repeats_to_tell_without_a_spread():
    assert repeats_to_tell(Pilot(np.array([0.1]), 0.25, 5), 0.005) is None
    assert repeats_to_tell(Pilot(np.full(5, 0.1), 0.25, 5), 0.005) is None
    assert repeats_to_tell(Pilot(np.array([0.1, 0.2]), 0.25, 0), 0.005) is None


# Too wide for any number of seeds.
WIDE = 0.014 + 0.006 * SHAPE


@pytest.mark.parametrize("noise", [ImageNoise(1e-7, 900, True), ImageNoise(1e-7, 900, False)])
def test_folds_to_tell_is_the_first_that_tells(noise):
    pilot = Pilot(np.tile(WIDE, 3), 0.25, 5, noise)
    found = folds_to_tell(pilot, 0.005, seeds=3)
    assert 5 < found <= 50

    def chance(k):
        # Equally correlated folds show (1 − 1/k) of their variance; own images go with their part.
        def of(means, spreads):
            own = 0.0 if noise.shared else noise.variance
            square = (spreads**2 - 5 * own + k * own) * (1 - 1 / k) / (1 - 1 / 5)
            return chance_to_tell(
                means, np.sqrt(square), 3 * k, 1 / (k - 1), 0.005, alpha=0.05, noise=noise
            )

        return assurance(pilot, of)

    assert chance(found) >= 0.8
    assert found == 6 or chance(found - 1) < 0.8
    assert folds_to_tell(pilot, 0.005, seeds=3, most=found - 1) is None


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
    noise = ImageNoise(0.0, 10, True)
    assert folds_to_tell(Pilot(np.array([0.1]), 0.25, 5, noise), 0.005) is None
    assert folds_to_tell(Pilot(np.full(5, 0.1), 0.25, 5, noise), 0.005) is None
    assert folds_to_tell(Pilot(WIDE, 0.25, 5), 0.005) is None
    assert folds_to_tell(Pilot(np.array([0.1, 0.2]), 0.25, 1, noise), 0.005) is None


def test_more_images_have_less_noise():
    assert with_images(None, 4) is None
    assert with_images(ImageNoise(8e-6, 300, True), 4) == ImageNoise(2e-6, 1200, True)


@pytest.mark.parametrize("shared", [True, False])
def test_more_images_tell_only_where_the_images_are_what_varies(shared):
    values = np.resize([-1.2, -0.4, 0.1, 0.3, 1.2], 15)
    spread = 0.002 * values / values.std(ddof=1)
    effect = 0.004
    noisy = ImageNoise(3e-6 / (1 if shared else 5), 1000, shared)
    wide = 4e-6 if shared else 0.9 * (0.002**2) / 5
    loud = ImageNoise(wide, 1000, shared)
    assert images_would_tell(Pilot(effect + spread, 0.25, 5, loud), 0.0005) is True
    # Trainings that differ by ten times as much, on images that hardly count.
    quiet = Pilot(effect + 10 * spread, 0.25, 5, noisy)
    assert repeats_to_tell(quiet, 0.0005) is None
    assert images_would_tell(quiet, 0.0005) is False
    assert images_would_tell(Pilot(effect + spread, 0.25, 5), 0.0005) is None


def test_a_verdict_of_no_difference_needs_the_certainty_that_is_asked_for():
    often = chance_to_tell(0.0, 0.0028, 40, 0.25, 0.005)
    surer = chance_to_tell(0.0, 0.0028, 40, 0.25, 0.005, certainty=0.99)
    assert surer[0] < often[0]
    beyond = [
        chance_to_tell(0.1, 0.0028, 40, 0.25, 0.005, certainty=level)[0] for level in (0.95, 0.99)
    ]
    assert beyond[0] == pytest.approx(beyond[1])  # help and harm ask for what they asked for
