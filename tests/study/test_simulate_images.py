"""Studies simulated image by image: equal arms, and a score that one of them flatters."""

import numpy as np
import pytest

from rankwise.study.simulate import detection_rates
from rankwise.study.simulate_images import simulated_images


@pytest.fixture(scope="module")
def found():
    return simulated_images(60, flips=(0.27, 0.01), epochs=20, n_images=200, accuracy=0.85)


def test_a_wobbling_curve_flatters_the_score_that_chose_the_epoch_and_no_other(found):
    validation, test = found["validation"], found["test"]
    assert validation.alternative.shape == test.baseline.shape == (60, 15)
    flattered = (validation.alternative - validation.baseline).mean()
    assert flattered > 0.01
    assert abs((test.alternative - test.baseline).mean()) < 0.005
    assert test.alternative.mean() == pytest.approx(0.85, abs=0.01)


def test_levels_hold_on_the_test_part(found):
    rates = {
        name: detection_rates(
            made.alternative, made.baseline, folds=5, rope=0.0, noises=made.noises
        )["corrected t"]
        for name, made in found.items()
    }
    assert rates["validation"].interval[0] > 0.05
    assert rates["test"].interval[0] < 0.05


def test_the_noise_is_that_of_the_images():
    """Studies on other images differ by at least what the noise of one says."""
    made = simulated_images(150, folds=2, seeds=1, epochs=2, n_images=100, accuracy=0.8)["test"]
    assert all(noise.shared and noise.clusters == 100 for noise in made.noises)
    of_studies = (made.alternative - made.baseline).mean(axis=1).var()
    assert np.mean([noise.variance for noise in made.noises]) == pytest.approx(of_studies, rel=0.35)


def test_the_same_seed_gives_the_same_studies_and_shares_have_bounds():
    one, other = (simulated_images(3, seeds=1, n_images=50)["test"] for _ in range(2))
    np.testing.assert_array_equal(one.alternative, other.alternative)
    with pytest.raises(ValueError, match=r"flips must lie between 0 and 0\.3, got \(0\.5, 0\.1\)"):
        simulated_images(1, flips=(0.5, 0.1))
