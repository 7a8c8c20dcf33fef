"""Comparisons of a study's conditions, from its results and predictions."""

import json
import math

import numpy as np
import pytest

from rankwise.study.compare import (
    compare_conditions,
    fold_scores,
    interval_of,
    mcnemar_of,
    retrained,
    validation_noise,
)
from rankwise.study.infer import corrected_t_test, correlated_posterior, holm, paper_rule
from study.made_results import make_results


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return make_results(folder, seeds=(42, 43)), folder


def of(comparisons, condition, role="baseline"):
    return next(c for c in comparisons if c["condition"] == condition and c["role"] == role)


LOW_RANK = "mnist/simple-cnn/low-rank/10"
NONE = "mnist/simple-cnn/none/10"


def set_differences(results, differences):
    """Give low-rank the scores of none, and these differences fold by fold."""
    theirs = fold_scores(results, "mnist/simple-cnn/none/10")
    for cell in results["cells"]:
        if cell["condition"].endswith("low-rank/20") and cell["stage"] == "fold":
            score = theirs[cell["seed"], cell["fold"]] + differences[cell["fold"]]
            cell["validation_accuracy"] = score


def test_who_is_compared_with_whom(made):
    results, folder = made
    found = compare_conditions(results, folder)
    pairs = [(c["arm"], c["baseline_arm"], c["role"]) for c in found if c["data_set"] == "mnist"]
    assert pairs == [
        ("low-rank", "none", "baseline"),
        ("low-rank", "duplicate", "control"),
        ("duplicate", "none", "baseline"),
        ("jpeg", "none", "baseline"),
        ("jpeg", "duplicate", "control"),
    ]
    assert len(found) == 10


def test_every_rule_is_that_of_the_scores(made):
    results, folder = made
    found = compare_conditions(results, folder)
    one = of(found, LOW_RANK)
    ours, theirs = fold_scores(results, LOW_RANK), fold_scores(results, NONE)
    assert ours.keys() == {(seed, fold) for seed in (42, 43) for fold in range(5)}
    differences = [ours[key] - theirs[key] for key in sorted(ours)]
    test = corrected_t_test(differences, 0.25)
    assert (one["pairs"], one["missing"], one["seeds"], one["folds"]) == (10, 0, 2, 5)
    assert one["ratio"] == 0.25
    assert one["correlation"] == pytest.approx(0.2)
    assert one["effect"]["mean"] == pytest.approx(test.mean)
    assert one["effect"]["low"] == pytest.approx(test.low)
    assert one["corrected_t"]["p_value"] == pytest.approx(test.p_value)
    plain = corrected_t_test(differences, 0)
    assert one["plain_t"]["p_value"] == pytest.approx(plain.p_value)
    posterior = correlated_posterior(differences, 0.25, 0.005)
    assert one["bayes"]["harm"] == pytest.approx(posterior.harm)
    rule = paper_rule(list(ours.values()), list(theirs.values()))
    assert one["paper"]["rejects"] == rule.rejects is False
    assert tuple(one["paper"]["interval"]) == pytest.approx(rule.interval)
    assert interval_of(results, LOW_RANK) == pytest.approx(rule.interval)
    assert one["verdict"] == "harms"
    assert one["sentence"].startswith("low-rank harms: −1.")


def test_holm_goes_over_all_comparisons(made):
    results, folder = made
    found = compare_conditions(results, folder)
    expected = holm([c["corrected_t"]["p_value"] for c in found])
    assert [c["corrected_t"]["p_holm"] for c in found] == pytest.approx(expected)


def test_options_reach_the_rules(made):
    results, folder = made
    wide = compare_conditions(results, folder, rope=0.05)
    assert {c["verdict"] for c in wide} == {"no practical difference"}
    assert all(c["bayes"]["rope"] == 0.05 for c in wide)
    asked = {**results, "study": {**results["study"], "rope": 0.05}}
    assert compare_conditions(asked, folder) == wide
    usual = compare_conditions(results, folder)
    assert all(c["bayes"]["rope"] == 0.005 for c in usual)
    strict = compare_conditions(results, folder, alpha=1e-12)
    assert "harms" not in {c["verdict"] for c in strict}
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1, not 0"):
        compare_conditions(results, folder, alpha=0)
    with pytest.raises(ValueError, match="rope must be at least 0, not -1"):
        compare_conditions(results, folder, rope=-1)


def test_published_intervals_are_judged_too(made):
    results, folder = made
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert one["published"] == {
        "interval": [0.986, 0.9886],
        "baseline_interval": [0.989, 0.9914],
        "rejects": False,
    }
    assert of(compare_conditions(results, folder), LOW_RANK, "control")["published"] is None


def test_mcnemar_joins_by_test_index(tmp_path):
    labels = np.array([0, 1, 2, 3, 4, 5])
    right = np.array([True, True, False, True, True, False])
    for name, order, correct in (
        ("a", np.arange(6), right),
        # Another order, one row less: only shared rows are paired.
        ("b", np.array([4, 2, 1, 0, 3]), np.array([True, True, True, False, False])),
    ):
        predicted = np.where(correct, labels[order], 9)
        np.savez(
            tmp_path / f"{name}.npz",
            test_index=order,
            test_labels=labels[order],
            test_predicted=predicted,
        )
    first, second = {42: {"predictions": "a.npz"}}, {42: {"predictions": "b.npz"}}
    found = mcnemar_of(first, second, tmp_path)
    # a: rows 0, 1, 3, 4 right; b: 4, 2, 1 right: a alone 0 and 3, b alone 2.
    assert found["seeds"]["42"]["gained"] == 2
    assert found["seeds"]["42"]["lost"] == 1
    assert found["p_value"] == 1
    assert mcnemar_of(first, {43: second[42]}, tmp_path) is None
    assert mcnemar_of(first, {42: {"predictions": "gone.npz"}}, tmp_path) is None
    assert mcnemar_of(first, {42: {}}, tmp_path) is None
    np.savez(tmp_path / "c.npz", validation_index=order)
    assert mcnemar_of(first, {42: {"predictions": "c.npz"}}, tmp_path) is None


def test_mcnemar_over_seeds_takes_the_largest(made):
    results, folder = made
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert one["mcnemar"]["seeds"].keys() == {"42", "43"}
    values = [test["p_value"] for test in one["mcnemar"]["seeds"].values()]
    assert one["mcnemar"]["p_value"] == max(values)
    ours, theirs = retrained(results, LOW_RANK), retrained(results, NONE)
    expected = np.mean([ours[s]["test_accuracy"] for s in ours])
    assert one["test"]["accuracy"] == pytest.approx(expected)
    difference = expected - np.mean([theirs[s]["test_accuracy"] for s in theirs])
    assert one["test"]["difference"] == pytest.approx(difference)


def test_what_is_written_is_json_without_nan(made):
    results, folder = made
    text = json.dumps(compare_conditions(results, folder), allow_nan=False)
    assert "NaN" not in text


@pytest.mark.parametrize("kept", [0, 1, 2, 4])
def test_an_unfinished_study_is_compared_as_far_as_it_goes(tmp_path, kept):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    low_rank = "mnist/simple-cnn/low-rank/20"
    results["cells"] = [
        c
        for c in results["cells"]
        if c["condition"] != low_rank or (c["stage"] == "fold" and c["fold"] < kept)
    ]
    (one,) = compare_conditions(results, tmp_path)
    assert (one["pairs"], one["missing"]) == (kept, 5 - kept)
    assert one["test"] is None
    assert one["mcnemar"] is None
    assert (one["paper"] is None) == (kept < 2)
    assert (one["effect"]["low"] is None) == (kept < 2)
    json.dumps(one, allow_nan=False)
    if kept < 2:
        assert one["verdict"] == "cannot tell"
        assert interval_of(results, low_rank) is None
    else:
        assert f"{5 - kept} pair" in one["sentence"]


def test_cells_that_failed_do_not_count(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    for cell in results["cells"]:
        cell["status"] = "failed"
    (one,) = compare_conditions(results, tmp_path)
    assert one["pairs"] == 0
    assert one["sentence"].startswith("No fold of low-rank and none is finished yet")


def test_seeds_to_tell_counts_the_family(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    differences = 0.02 + 0.013 * np.array([-1.2, -0.4, 0.1, 0.3, 1.2])
    set_differences(results, differences)
    (one,) = compare_conditions(results, tmp_path)
    assert one["verdict"] == "cannot tell"
    assert one["seeds_to_tell"] > 1
    assert f"About {one['seeds_to_tell'] - 1} more seed" in one["sentence"]
    assert not math.isnan(one["corrected_t"]["p_holm"])


def predict_folds(results, folder, *, n=400, discordant=1):
    """Validation predictions of the folds: the arms disagree on so many images of each."""
    for cell in results["cells"]:
        if cell["stage"] == "fold":
            correct = np.ones(n, bool)
            if "/none/" in cell["condition"]:
                correct[:discordant] = False
            path = folder / cell["predictions"]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(
                path,
                validation_index=np.arange(n) + 1000 * cell["fold"],
                validation_labels=np.zeros(n, int),
                validation_predicted=np.where(correct, 0, 1),
            )


def test_validation_noise_by_hand(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    arms = "mnist/simple-cnn/low-rank/20", "mnist/simple-cnn/none/10"
    assert validation_noise(results, *arms, tmp_path) is None
    predict_folds(results, tmp_path, n=10, discordant=2)
    # Differences of the images: two of 1, eight of 0: mean 0.2, variance (2 · 0.64 + 8 · 0.04)/9.
    assert validation_noise(results, *arms, tmp_path) == pytest.approx(1.6 / 9 / 10)
    half = [c for c in results["cells"] if c["fold"] == 0 or "none" in c["condition"]]
    assert validation_noise(results | {"cells": half}, *arms, tmp_path) == pytest.approx(1.6 / 90)
    cell = next(c for c in results["cells"] if c["condition"] == arms[0])
    with np.load(tmp_path / cell["predictions"]) as stored:
        other = dict(stored) | {"validation_index": stored["validation_index"][::-1]}
    np.savez(tmp_path / cell["predictions"], **other)
    assert validation_noise(results, *arms, tmp_path) is None


def test_folds_are_named_where_no_seeds_would_tell(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    differences = 0.014 + 0.012 * np.array([-1.2, -0.4, 0.1, 0.3, 1.2])
    set_differences(results, differences)
    (unknown,) = compare_conditions(results, tmp_path)
    assert unknown["seeds_to_tell"] is None
    assert unknown["folds_to_tell"] is None
    assert unknown["sentence"].endswith("folds share their training images. More images would.")
    predict_folds(results, tmp_path)
    (one,) = compare_conditions(results, tmp_path)
    assert 5 < one["folds_to_tell"] <= 50
    assert f"About {one['folds_to_tell']} folds instead of 5 would" in one["sentence"]
    # Never more than the data can be cut into.
    results["data_sets"][0]["most_folds"] = one["folds_to_tell"] - 1
    (none,) = compare_conditions(results, tmp_path)
    assert none["folds_to_tell"] is None
