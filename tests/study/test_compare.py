"""Comparisons of a study's conditions, from its results and predictions."""

import copy
import json
import math

import numpy as np
import pytest

from rankwise.study.compare import compare_conditions, interval_of, region
from rankwise.study.convergence import convergence
from rankwise.study.infer import (
    corrected_t_test,
    correlated_posterior,
    holm,
    paper_rule,
    spent_level,
)
from rankwise.study.mcnemar import mcnemar_of
from rankwise.study.outcomes import fold_scores, noise_between, retrained
from rankwise.study.power import Pilot, repeats_to_tell
from study.made_results import make_results


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return make_results(folder, seeds=(42, 43, 44)), folder


def of(comparisons, condition, role="baseline"):
    return next(c for c in comparisons if c["condition"] == condition and c["role"] == role)


LOW_RANK = "mnist/simple-cnn/low-rank/10"
NONE = "mnist/simple-cnn/none/10"


def set_differences(results, differences):
    """Give low-rank the scores of none, and these differences fold by fold."""
    theirs = fold_scores(results, "mnist/simple-cnn/none/10", "validation")
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
    ours, theirs = (fold_scores(results, c, "test") for c in (LOW_RANK, NONE))
    assert ours.keys() == {(seed, fold) for seed in (42, 43, 44) for fold in range(5)}
    differences = [ours[key] - theirs[key] for key in sorted(ours)]
    noise = noise_between(results, LOW_RANK, NONE, "test", folder)
    assert noise.shared
    assert noise.clusters == 1200
    test = corrected_t_test(differences, 0.25, noise=noise)
    assert one["outcome"] == "test"
    assert one["differences"] == pytest.approx(differences)
    assert (one["pairs"], one["missing"], one["seeds"], one["folds"]) == (15, 0, 3, 5)
    assert one["ratio"] == 0.25
    assert one["correlation"] == pytest.approx(0.2)
    assert one["effect"]["mean"] == pytest.approx(test.mean)
    assert one["effect"]["low"] == pytest.approx(test.low)
    assert one["effect"]["simultaneous_low"] == pytest.approx(test.interval(1 - 0.04 / 10)[0])
    assert one["corrected_t"]["p_value"] == pytest.approx(test.p_value)
    assert one["images"]["variance"] == pytest.approx(noise.variance)
    plain = corrected_t_test(differences, 0)
    assert one["plain_t"]["p_value"] == pytest.approx(plain.p_value)
    posterior = correlated_posterior(differences, 0.25, 0.005, noise=noise)
    assert one["bayes"]["harm"] == pytest.approx(posterior.harm)
    rule = paper_rule(list(ours.values()), list(theirs.values()))
    assert one["paper"]["rejects"] == rule.rejects is False
    assert tuple(one["paper"]["interval"]) == pytest.approx(rule.interval)
    best = fold_scores(results, LOW_RANK, "validation")
    assert interval_of(results, LOW_RANK) == pytest.approx(
        paper_rule(list(best.values()), [0, 0]).interval
    )
    assert one["verdict"] == "harms"
    assert one["sentence"].startswith("low-rank harms: −1.")


def test_the_paper_s_protocol_compares_best_validation_accuracies(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    (one,) = compare_conditions(results, tmp_path)
    assert one["outcome"] == "validation"
    ours = fold_scores(results, "mnist/simple-cnn/low-rank/20", "validation")
    theirs = fold_scores(results, "mnist/simple-cnn/none/10", "validation")
    assert one["effect"]["mean"] == pytest.approx(
        np.mean(list(ours.values())) - np.mean(list(theirs.values()))
    )
    with pytest.raises(ValueError, match="unknown outcome 'loss'; accepted: test, validation, deg"):
        compare_conditions(results, tmp_path, outcome="loss")


def test_an_arm_whose_validation_wobbles_more_is_not_better_for_it(made):
    """Equal arms; the maxima over a wobbling curve are larger, the test accuracies aren't."""
    results, folder = made
    results = json.loads(json.dumps(results))
    level = fold_scores(results, NONE, "test")
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold":
            key = cell["seed"], cell["fold"]
            cell["test_accuracy"] = level[key] + 1e-4 * ((key[1] % 2) - 0.5)
            cell["validation_accuracy"] += 0.02
    by_best = of(compare_conditions(results, folder, outcome="validation"), LOW_RANK)
    assert by_best["effect"]["mean"] > 0.005
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert abs(one["effect"]["mean"]) < 1e-4
    assert one["verdict"] == "no practical difference"


def test_robustness_has_verdicts_and_contradicts(made):
    results, folder = made
    robust = compare_conditions(results, folder, outcome="degraded")
    one = of(robust, LOW_RANK)
    assert one["outcome"] == "degraded"
    assert "of accuracy on degraded test images against none" in one["sentence"]
    assert one["effect"]["low"] > 0  # Made so: low-rank copies gain on degraded images.
    plain = of(compare_conditions(results, folder), LOW_RANK)
    assert "but on degraded" not in plain["sentence"]
    beside = of(compare_conditions(results, folder, beside=robust), LOW_RANK)
    assert beside["verdict"] == "harms"
    assert "; but on degraded test images +" in beside["sentence"]
    # The same sign contradicts nothing, unless accuracy makes no practical difference.
    gains = [item | {"verdict": "helps"} for item in robust]
    wide = [item | {"effect": item["effect"] | {"high": 1.5}} for item in robust]
    assert "to +100)" in of(compare_conditions(results, folder, beside=wide), LOW_RANK)["sentence"]
    results = copy.deepcopy(results)
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold":
            cell["test_accuracy"] += 0.012 + 0.004
    agreed = of(compare_conditions(results, folder, beside=gains), LOW_RANK)
    assert agreed["effect"]["mean"] > 0
    assert agreed["verdict"] == "cannot tell"
    assert "but on degraded" not in agreed["sentence"]
    results["study"]["rope"] = 0.05
    equal = of(compare_conditions(results, folder, beside=gains), LOW_RANK)
    assert equal["verdict"] == "no practical difference"
    assert "; but on degraded test images +" in equal["sentence"]


def test_the_region_is_a_tenth_of_the_baseline_s_error(made):
    results, folder = made
    assert region({"rope": 0.02}, [0.9]) == 0.02
    assert region({"rope": None}, [0.98, 0.96]) == pytest.approx(0.003)
    assert region({"relative_rope": 0.2}, [0.75]) == pytest.approx(0.05)
    assert region({}, []) == 0.005
    free = {**results, "study": {**results["study"], "rope": None}}
    one = of(compare_conditions(free, folder), LOW_RANK)
    theirs = list(fold_scores(results, NONE, "test").values())
    assert one["bayes"]["rope"] == pytest.approx(0.1 * (1 - np.mean(theirs)))


def test_a_second_look_has_a_smaller_level(made):
    results, folder = made
    first = of(compare_conditions(results, folder), LOW_RANK)
    second = of(compare_conditions({**results, "look": 2}, folder), LOW_RANK)
    assert (first["look"], first["level"]) == (1, pytest.approx(0.04))
    assert (second["look"], second["level"]) == (2, pytest.approx(0.008))
    assert second["effect"]["simultaneous_low"] < first["effect"]["simultaneous_low"]


def test_short_trainings_allow_no_verdict(made):
    results, folder = made
    results = json.loads(json.dumps(results))
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold":
            cell["best_epoch"] = 10
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert one["verdict"] == "cannot tell"
    assert one["obstacle"].startswith("in 15 of 15 folds low-rank was best in the last tenth of")
    # Patience that has stopped nothing says nothing.
    results["study"]["patience"] = 3
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert one["obstacle"].startswith("in 15 of 15 folds")
    # Nor does one that has stopped a training at its best.
    planned = next(c for c in results["conditions"] if c["id"] == LOW_RANK)
    planned["epochs"] = 1 + max(len(c["history"]) for c in results["cells"])
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert one["obstacle"].endswith(
        "or set a longer patience to train every arm to its own plateau"
    )
    # Stopped at a plateau, so after its best epoch, it was trained to its end.
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold":
            cell["best_epoch"] = 7
    assert of(compare_conditions(results, folder), LOW_RANK)["obstacle"] is None
    for cell in results["cells"]:
        cell["test_accuracy"] = 0.15
    one = of(compare_conditions(results, folder), LOW_RANK)
    assert one["sentence"].startswith(
        "Cannot tell whether low-rank matters: both arms are near chance after 3500 updates: train"
    )


@pytest.mark.parametrize(
    ("patience", "epochs", "least"),
    [(1, 60, 5), (4, 60, 5), (5, 60, None), (1, 20, 2), (1, 10, None)],
)
def test_a_patience_that_a_wobble_ends_is_no_plateau(tmp_path, patience, epochs, least):
    """Stopped after 10 epochs of `epochs`, the best of them being the seventh."""
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(42, 43, 44))
    results["study"]["patience"] = patience
    for condition in results["conditions"]:
        condition["epochs"] = epochs
    one = of(compare_conditions(results, tmp_path), LOW_RANK)
    rows = convergence(results, "test")
    assert {row["unfinished"] for row in rows} == {least is not None}
    assert {row["least_patience"] for row in rows} == {least}
    if least is None:
        assert (one["obstacle"], one["verdict"]) == (None, "harms")
    else:
        assert one["verdict"] == "cannot tell"
        assert one["obstacle"] == (
            f"in 15 of 15 folds low-rank was stopped by a patience of {patience}, too short to "
            f"tell a plateau from a wobble in {epochs} epochs, or was best in the last tenth of "
            f"its training: set patience to {least} or more"
        )


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
    assert one["mcnemar"]["seeds"].keys() == {"42", "43", "44"}
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


def test_a_verdict_needs_finished_folds_and_seeds_not_planned_ones(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(42, 43, 44))
    whole = of(compare_conditions(results, tmp_path), LOW_RANK)
    assert (whole["verdict"], whole["finished_seeds"]) == ("harms", 3)
    results["cells"] = [
        c
        for c in results["cells"]
        if c["condition"] != LOW_RANK or c["seed"] == 42 or c["fold"] not in (None, 0)
    ]
    one = of(compare_conditions(results, tmp_path), LOW_RANK)
    assert one["corrected_t"]["p_holm"] < one["level"]
    assert (one["verdict"], one["finished_seeds"], one["missing"]) == ("cannot tell", 1, 2)
    assert "13 pairs of folds, 1 seed with 5 of them, can agree by chance" in one["sentence"]


def test_the_advice_is_for_the_next_look_and_for_a_verdict(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    set_differences(results, 0.013 + 0.004 * np.array([-1.2, -0.4, 0.1, 0.3, 1.2]))
    (one,) = compare_conditions(results, tmp_path)
    pilot = Pilot(np.array(one["differences"]), 0.25, 5, None)
    alone = repeats_to_tell(pilot, one["bayes"]["rope"], alpha=spent_level(0.05, 2))
    assert one["seeds_to_tell"] == max(3, alone)
    three = make_results(tmp_path, data_sets=("mnist",), protocol="paper", folds=3)
    (one,) = compare_conditions(three, tmp_path)
    assert one["seeds_to_tell"] is None
    assert one["finished_seeds"] == 0
    assert one["verdict"] == "cannot tell"
    assert "but 3 pairs of folds, no seed with 5 of them, can agree by chance" in one["sentence"]


def test_cells_that_failed_do_not_count(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    for cell in results["cells"]:
        cell["status"] = "failed"
    (one,) = compare_conditions(results, tmp_path)
    assert one["pairs"] == 0
    assert one["sentence"].startswith("No fold of low-rank and none is finished yet")


def test_seeds_to_tell_counts_the_family(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    differences = 0.013 + 0.004 * np.array([-1.2, -0.4, 0.1, 0.3, 1.2])
    set_differences(results, differences)
    (one,) = compare_conditions(results, tmp_path)
    assert one["verdict"] == "cannot tell"
    assert one["seeds_to_tell"] > 1
    assert "a verdict needs 5 folds and 3 seeds" in one["sentence"]
    assert not math.isnan(one["corrected_t"]["p_holm"])
    set_differences(results, differences - 0.004)
    (one,) = compare_conditions(results, tmp_path)
    assert one["seeds_to_tell"] is None
    assert "No number of further seeds would tell at this mean and spread" in one["sentence"]


def predict_folds(results, folder, *, n=400, discordant=1):
    """Validation predictions of the folds: the arms disagree on so many images of each."""
    for cell in results["cells"]:
        if cell["stage"] == "fold":
            correct = np.ones(n, bool)
            if "/none/" in cell["condition"]:
                correct[:discordant] = False
            place = f"cells/{cell['condition']}/seed-{cell['seed']}/fold-{cell['fold']}"
            cell["predictions"] = f"{place}/predictions.npz"
            path = folder / cell["predictions"]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(
                path,
                validation_index=np.arange(n) + 1000 * cell["fold"],
                validation_source=np.arange(n) // 2 + 1000 * cell["fold"],
                validation_labels=np.zeros(n, int),
                validation_predicted=np.where(correct, 0, 1),
            )


def test_noise_of_own_images_by_hand(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    arms = "mnist/simple-cnn/low-rank/20", "mnist/simple-cnn/none/10"
    assert noise_between(results, *arms, "validation", tmp_path) is None
    predict_folds(results, tmp_path, n=10, discordant=2)
    found = noise_between(results, *arms, "validation", tmp_path)
    # 50 images, mean 0.2; of each fold one source of two with sum 1.6, and four with −0.4:
    # 25/24 · 5 · (2.56 + 4 · 0.16) / 50².
    assert found.variance == pytest.approx(25 / 24 * 5 * 3.2 / 2500)
    assert (found.clusters, found.shared) == (25, False)
    cell = next(c for c in results["cells"] if c["condition"] == arms[0])
    with np.load(tmp_path / cell["predictions"]) as stored:
        other = dict(stored) | {"validation_index": stored["validation_index"][::-1]}
    np.savez(tmp_path / cell["predictions"], **other)
    assert noise_between(results, *arms, "validation", tmp_path) is None


def test_few_images_take_a_certain_difference_away(tmp_path):
    """Three folds within 0.15 points, each on 400 images, aren't certain to 0.15 points."""
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    set_differences(results, 0.0133 + 0.0015 * np.array([-1, -0.5, 0, 0.5, 1]))
    (sure,) = compare_conditions(results, tmp_path)
    assert sure["corrected_t"]["p_value"] < 0.01
    predict_folds(results, tmp_path, n=60, discordant=30)
    (one,) = compare_conditions(results, tmp_path)
    assert one["corrected_t"]["p_value"] > 5 * sure["corrected_t"]["p_value"]
    assert one["effect"]["high"] - one["effect"]["low"] > 0.05


def test_folds_are_named_where_no_seeds_would_tell(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper", seeds=(1, 2, 3))
    set_differences(results, 0.010 + 0.0065 * np.array([-1.2, -0.4, 0.1, 0.3, 1.2]))
    (unknown,) = compare_conditions(results, tmp_path)
    assert unknown["folds_to_tell"] is None
    predict_folds(results, tmp_path, n=1200)
    (one,) = compare_conditions(results, tmp_path)
    assert (one["verdict"], one["seeds_to_tell"]) == ("cannot tell", None)
    assert 5 < one["folds_to_tell"] <= 50
    assert f"About {one['folds_to_tell']} folds instead of 5 would" in one["sentence"]
    # Never more than the data can be cut into.
    results["data_sets"][0]["most_folds"] = one["folds_to_tell"] - 1
    (none,) = compare_conditions(results, tmp_path)
    assert none["folds_to_tell"] is None
