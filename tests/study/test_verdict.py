"""Verdicts: what each needs, and what it says."""

import math

import numpy as np
import pytest

from rankwise.study.infer import Posterior, corrected_t_test, correlated_posterior
from rankwise.study.verdict import VERDICTS, Control, Evidence, sentence, verdict

SHAPE = np.array([-1.2, -0.4, 0.1, 0.3, 1.2]) / np.std([-1.2, -0.4, 0.1, 0.3, 1.2], ddof=1)


def evidence(mean=0.0, deviation=0.001, **changes):
    values = mean + deviation * SHAPE
    test = corrected_t_test(values, 0.25)
    folds, seeds = changes.get("folds", 5), changes.get("seeds", 3)
    made = {
        "test": test,
        "p_adjusted": test.p_value,
        "posterior": correlated_posterior(values, 0.25, 0.005),
        "rope": 0.005,
        "seeds": 3,
        "seeds_to_tell": 5,
        "folds": 5,
        "folds_to_tell": None,
        "pairs": 5,
        "finished_seeds": seeds if folds >= 5 else 0,
    }
    return Evidence(**(made | changes))


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (0.02, 0.001, "helps"),
        (-0.02, 0.001, "harms"),
        (0.0, 0.001, "no practical difference"),
        (0.0, 0.02, "cannot tell"),
        (0.02, 0.02, "cannot tell"),
        # Beyond chance, but across the edge of the region.
        (0.0055, 0.001, "cannot tell"),
        # Beyond chance, and within the region.
        (0.003, 0.0005, "no practical difference"),
    ],
)
def test_each_verdict(mean, deviation, expected):
    assert verdict(evidence(mean, deviation)) == expected
    assert expected in VERDICTS


def test_holm_can_take_a_verdict_away():
    assert verdict(evidence(0.02, 0.001, p_adjusted=0.06)) == "cannot tell"
    assert verdict(evidence(0.02, 0.001, p_adjusted=0.06, alpha=0.1)) == "helps"


def test_posterior_can_take_a_verdict_away():
    assert verdict(evidence(0.02, posterior=Posterior(0.0, 0.06, 0.94))) == "cannot tell"
    assert verdict(evidence(0.02, posterior=Posterior(*[math.nan] * 3))) == "cannot tell"


def test_sentences():
    said = sentence(evidence(-0.0123, 0.001), "low-rank", "none")
    assert said.startswith(
        "low-rank harms: −1.23 points of test accuracy against none (95% interval −1."
    )
    assert sentence(evidence(0.02), "a", "b").startswith("a helps: +2.00 points")
    said = sentence(evidence(0.0), "a", "b")
    assert "a makes no practical difference: +0.00 points" in said
    assert said.endswith("certain within ±0.5 points.")


def test_sentence_says_how_many_more():
    said = sentence(evidence(0.0, 0.02, seeds_to_tell=6), "a", "b")
    assert said.startswith("Cannot tell whether a matters: +0.00 points")
    assert "About 3 more seeds (all folds repeated) would tell in four of five such studies" in said
    assert "About 1 more seed (all" in sentence(evidence(0.0, 0.02, seeds_to_tell=4), "a", "b")
    said = sentence(evidence(0.0, 0.02, seeds_to_tell=None), "a", "b")
    assert said.endswith(
        "No number of further seeds would tell at this mean and spread: folds share their "
        "training images."
    )
    for known, words in (
        (True, "images. Many more images, with more seeds, would."),
        (False, "images. Nor would more images: trainings differ by too much."),
    ):
        open_ = evidence(0.0, 0.02, seeds_to_tell=None, images_would_tell=known)
        assert sentence(open_, "a", "b").endswith(words)
    said = sentence(evidence(0.0, 0.02, seeds_to_tell=None, folds_to_tell=14), "a", "b")
    assert said.endswith(
        "folds share their training images. About 14 folds instead of 5 would, if the mean stays "
        "and the spread grows only by what smaller validation parts add."
    )
    said = sentence(evidence(0.0, 0.02, folds_to_tell=14), "a", "b")
    assert "14 folds" not in said


def test_sentence_of_a_small_but_certain_effect():
    said = sentence(evidence(0.0055, 0.001), "a", "b")
    assert "It is better beyond chance, but perhaps by less than 0.5 points." in said
    assert "It is worse beyond chance" in sentence(evidence(-0.0055, 0.001), "a", "b")


@pytest.mark.parametrize("difference", [0.0, 0.01])
def test_without_spread_nothing_can_be_told(difference):
    same = [difference] * 5
    test, mass = corrected_t_test(same, 0.25), correlated_posterior(same, 0.25, 0.005)
    made = evidence(test=test, p_adjusted=math.nan, posterior=mass)
    assert verdict(made) == "cannot tell"
    said = sentence(made, "a", "b")
    assert said.startswith("Cannot tell whether a matters: all 5 pairs of folds ")
    assert ("scored the same as b, which leaves no spread" in said) == (difference == 0)
    assert "certain" not in said


def test_sentences_of_unfinished_studies():
    assert sentence(evidence(pairs=0), "a", "b") == (
        "No fold of a and b is finished yet: nothing can be said."
    )
    one = corrected_t_test([0.01], 0.25)
    nothing = Posterior(*[math.nan] * 3)
    said = sentence(evidence(test=one, posterior=nothing, pairs=1), "a", "b")
    assert said.startswith("One pair of folds alone (+1.00 points for a against b) shows no spread")
    same = corrected_t_test([0.01] * 3, 0.25)
    said = sentence(evidence(test=same, posterior=nothing, pairs=3), "a", "b")
    assert said == (
        "Cannot tell whether a matters: all 3 pairs of folds differ from b by the same +1.00 "
        "points, which leaves no spread to judge by. More folds, seeds or images would show one."
    )
    said = sentence(evidence(0.02, missing=2), "a", "b")
    assert said.endswith("Preliminary: 2 pairs of folds missing.")
    assert sentence(evidence(0.02, missing=1), "a", "b").endswith("1 pair of folds missing.")


def control(mean, deviation=0.001):
    made = evidence(mean, deviation)
    return Control(made.test, verdict(made))


def test_fewer_than_five_folds_or_three_seeds_make_no_verdict():
    for few in ({"seeds": 2}, {"folds": 4}):
        made = evidence(0.02, **few)
        assert verdict(made) == "cannot tell"
        said = sentence(made, "a", "b")
        assert said.startswith("Cannot tell whether a matters: +2.00 points of test accuracy")
        assert "The numbers say that it helps, but 5 pairs of folds, " in said
        assert said.endswith("can agree by chance: a verdict needs 5 folds and 3 seeds.")
    assert "2 seeds with 5 of them, can agree" in sentence(evidence(0.02, seeds=2), "a", "b")
    assert "no seed with 5 of them, can agree" in sentence(evidence(0.02, folds=4), "a", "b")
    few = evidence(0.0, seeds=1)
    assert verdict(few) == "cannot tell"
    assert "The numbers say that it makes no difference, but" in sentence(few, "a", "b")


def test_folds_and_seeds_count_once_they_are_finished():
    # Five folds and three seeds are planned; two folds of one seed are there.
    made = evidence(0.02, finished_seeds=0, pairs=2, missing=13)
    assert verdict(made) == "cannot tell"
    said = sentence(made, "a", "b")
    assert "but 2 pairs of folds, no seed with 5 of them, can agree by chance" in said
    assert said.endswith(" Preliminary: 13 pairs of folds missing.")


def test_too_few_folds_are_not_answered_by_seeds():
    said = sentence(evidence(0.0, 0.02, folds=3, seeds_to_tell=None), "a", "b")
    assert said.endswith(
        " 3 folds are too few for a verdict, whatever the number of seeds: it needs a study of "
        "5 folds and 3 seeds."
    )


def test_what_an_earlier_look_has_told_stands():
    made = evidence(0.02, p_adjusted=0.004, alpha=0.0016)
    assert verdict(made) == "cannot tell"
    stands = evidence(0.02, p_adjusted=0.004, alpha=0.0016, established=1)
    assert verdict(stands) == "helps"
    assert sentence(stands, "a", "b").endswith(
        ". The test told so at look 1, at its level, and that stands."
    )
    now = evidence(0.02, p_adjusted=0.001, alpha=0.0016, established=1)
    assert "look 1" not in sentence(now, "a", "b")
    # Only the test's part: the posterior has all images and seeds that there are now.
    assert verdict(evidence(0.0055, 0.001, p_adjusted=1.0, established=1)) == "cannot tell"


def test_later_looks_need_more_certainty_of_no_difference():
    likely = Posterior(0.01, 0.97, 0.02)
    assert verdict(evidence(0.0, posterior=likely)) == "no practical difference"
    assert verdict(evidence(0.0, posterior=likely, certainty=0.99)) == "cannot tell"


def test_an_effect_of_the_augmentation_beats_unchanged_copies():
    both = evidence(0.02, copies="changed", control=control(0.018))
    assert verdict(both) == "helps"
    said = sentence(both, "low-rank", "none")
    assert said.endswith("), and +1.80 points against unchanged copies.")
    for mean, direction, word in ((0.02, "copies help", "Copies help"), (-0.02, "copies harm", "")):
        alone = evidence(mean, copies="changed", control=control(0.0))
        assert verdict(alone) == direction
        said = sentence(alone, "low-rank", "none")
        assert said.startswith(word or "Copies harm")
        assert "nothing shows that low-rank does more than unchanged copies" in said
        assert "unchanged copies, +0.00 points against them (−" in said
    # Against unchanged copies the other way is no support either.
    other = evidence(0.02, copies="changed", control=control(-0.02))
    assert verdict(other) == "copies help"


def test_copies_without_a_control_are_no_effect_of_the_augmentation():
    alone = evidence(0.02, copies="changed")
    assert verdict(alone) == "copies help"
    assert "more than unchanged copies, which this study doesn't have: +2.00 points" in sentence(
        alone, "low-rank", "none"
    )
    unchanged = evidence(-0.02, copies="unchanged")
    assert verdict(unchanged) == "copies harm"
    assert sentence(unchanged, "duplicate", "none").startswith("Copies harm: −2.00 points")


def test_what_contradicts_stands_in_the_same_sentence():
    against = ("on degraded test images −2.20 points (−3.00 to −1.40)",)
    said = sentence(evidence(0.02, contradictions=against), "a", "none")
    assert said.startswith("a helps: +2.00 points")
    assert said.endswith("; but on degraded test images −2.20 points (−3.00 to −1.40).")
    for mean in (0.0, 0.0055):
        assert against[0] in sentence(evidence(mean, contradictions=against), "a", "none")


def test_an_obstacle_comes_before_any_verdict():
    made = evidence(0.02, obstacle="both arms are near chance after 6 updates: train longer")
    assert verdict(made) == "cannot tell"
    assert sentence(made, "a", "none") == (
        "Cannot tell whether a matters: both arms are near chance after 6 updates: train longer."
    )


def test_an_interval_in_a_sentence_ends_where_accuracies_do():
    wide = evidence(0.08, 1.0)
    assert wide.test.low < -1
    assert "(95% interval −100 to +100)" in sentence(wide, "low-rank", "none")
