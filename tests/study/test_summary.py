"""Summaries over data sets: effects against plain tests, ranks against published figures."""

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rankwise.study import report
from rankwise.study.conclusions import conclusions
from rankwise.study.ranks_figure import rank_diagram
from rankwise.study.sketches import sketch
from rankwise.study.summary import paule_mandel, random_effects, ranked, summaries
from study.made_results import make_results


def test_equally_sure_effects_are_a_plain_t_test():
    effects = np.array([0.01, 0.03, -0.002, 0.02])
    found = random_effects(effects, np.full(4, 0.004))
    test = stats.ttest_1samp(effects, 0.0)
    assert found.mean == pytest.approx(effects.mean())
    assert found.p_value == pytest.approx(test.pvalue)
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.between**2 == pytest.approx(effects.var(ddof=1) - 0.004**2)
    assert found.predicted[0] < found.low


def test_the_variance_between_is_the_one_that_explains_the_spread():
    rng = np.random.default_rng(0)
    values, variances = rng.normal(0, 0.05, 9), rng.uniform(1e-5, 1e-3, 9)
    between = paule_mandel(values, variances)
    grid = np.linspace(0, 0.02, 200_001)
    weights = 1 / (variances + grid[:, None])
    means = (weights * values).sum(1) / weights.sum(1)
    excess = (weights * (values - means[:, None]) ** 2).sum(1) - 8
    assert between == pytest.approx(grid[np.abs(excess).argmin()], abs=2e-7)
    assert paule_mandel(np.array([0.1, 0.1, 0.1]), np.full(3, 0.01)) == 0


def test_effects_that_agree_by_chance_are_no_surer_than_each():
    found = random_effects([0.01, 0.01, 0.01], [0.02, 0.02, 0.02])
    assert found.standard_error == pytest.approx(0.02 / math.sqrt(3))
    assert found.between == 0


def test_levels_hold_with_few_data_sets():
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        errors = rng.uniform(0.5, 2.0, 4)
        effects = rng.normal(0, 1.0, 4) + errors * rng.standard_normal(4)
        found = random_effects(effects, errors)
        wrong += found.p_value < 0.05
    assert stats.binomtest(wrong, 400, 0.05, alternative="greater").pvalue > 0.01


def test_one_data_set_has_no_summary_and_bad_numbers_are_refused():
    one = random_effects([0.02], [0.01])
    assert one.mean == 0.02
    assert math.isnan(one.low)
    assert all(map(math.isnan, random_effects([0.1, 0.2], [0.1, 0.1]).predicted))
    with pytest.raises(ValueError, match=r"standard errors must be above 0"):
        random_effects([0.1, 0.2], [0.1, 0.0])
    with pytest.raises(ValueError, match=r"must be of one shape \(k,\), got \(2,\)"):
        random_effects([0.1, 0.2], [0.1])


def test_the_critical_difference_is_demsar_s():
    """JMLR 7 (2006), section 3.2.2: 14 data sets, four classifiers, 2.569·√(4·5/(6·14)) = 1.25."""
    rng = np.random.default_rng(1)
    scores = rng.random((14, 4))
    found = ranked(["a", "b", "c", "d"], scores)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    test = stats.friedmanchisquare(*scores.T)
    assert (found.statistic, found.p_value) == (test.statistic, test.pvalue)
    ranks = dict(zip(found.arms, found.mean_ranks, strict=True))
    slow = [1 + np.mean([(row > row[j]).sum() for row in scores]) for j in range(4)]
    assert [ranks[a] for a in "abcd"] == pytest.approx(slow)
    assert list(found.mean_ranks) == sorted(found.mean_ranks)


def test_groups_are_the_longest_runs_that_are_not_parted():
    scores = np.tile([4.0, 3.0, 2.0, 1.0], (14, 1))
    assert ranked(["d", "c", "b", "a"], scores).groups == [(0, 1), (1, 2), (2, 3)]
    assert ranked(["a", "b"], [[1.0, 1.0], [2.0, 2.0]]).groups == [(0, 1)]
    with pytest.raises(ValueError, match=r"scores must be of shape \(N, 2\), got \(2, 3\)"):
        ranked(["a", "b"], np.zeros((2, 3)))


def test_the_diagram_has_every_arm_within_its_frame():
    svg = rank_diagram(["a<b", "b", "c"], [1.2, 2.0, 2.8], 9.0, [(0, 2)], "Arms")
    assert ">a&lt;b</text>" in svg
    assert ">1.20</text>" in svg
    assert "critical difference 9.00, wider than the scale" in svg
    assert svg.count('class="group"') == 1
    numbers = [float(x) for x in re.findall(r'\bx[12]?="([\d.]+)"', svg)]
    assert 0 <= min(numbers) <= max(numbers) <= 360
    with pytest.raises(ValueError, match="ranks need at least two arms"):
        rank_diagram(["a"], [1.0], 1.0, [], "Arms")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over")
    made = make_results(folder, seeds=(1, 2, 3))
    made |= conclusions(made, folder)
    return made, folder


def test_a_study_of_two_data_sets_has_a_summary_that_says_how_little_it_is(results):
    made, _ = results
    effects = {(e["arm"], e["baseline_arm"]): e for e in made["summaries"]["effects"]}
    entry = effects["low-rank", "none"]
    items = [c for c in made["comparisons"] if (c["arm"], c["role"]) == ("low-rank", "baseline")]
    assert [row["mean"] for row in entry["rows"]] == [c["effect"]["mean"] for c in items]
    again = random_effects(
        [c["effect"]["mean"] for c in items], [c["corrected_t"]["standard_error"] for c in items]
    )
    assert entry["mean"] == again.mean
    assert [len(row["seeds"]) for row in entry["rows"]] == [3, 3]
    assert np.mean(entry["rows"][0]["seeds"]) == pytest.approx(entry["rows"][0]["mean"])
    assert "2 data sets tell little about others" in entry["note"]
    (ranks,) = made["summaries"]["ranks"]
    assert ranks["arms"][-1] == "low-rank"
    assert "2 data sets are too few for ranks" in ranks["note"]


THREE = ("mnist", "fashion-mnist", "malaria")


@pytest.fixture(scope="module")
def of_three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return make_results(folder, seeds=(1, 2, 3), data_sets=THREE)


def changed(made, name, **changes):
    """Summaries of results, one data set of which is described otherwise."""
    sets = [d | changes if d["name"] == name else d for d in made["data_sets"]]
    return summaries({**made, "data_sets": sets}, made["comparisons"])


def pictures(seed):
    return np.random.default_rng(seed).integers(0, 256, (30, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fingerprint": "that of mnist"}, "the same images as mnist"),
        ({"source": "hub/mnist", "image_shape": [16, 16]}, "the same source as mnist"),
        ({"marks": sketch(pictures(1)[7:9])}, "some of the images of mnist"),
    ],
)
def test_the_same_images_under_two_names_are_one_data_set(of_three, change, words):
    first = {"fingerprint": "that of mnist", "marks": sketch(pictures(1))}
    sets = [of_three["data_sets"][0] | first, *of_three["data_sets"][1:]]
    found = changed({**of_three, "data_sets": sets}, "malaria", **change)
    told = f"Left out: malaria ({words})."
    for entry in found["effects"]:
        assert [row["data_set"] for row in entry["rows"]] == ["mnist", "fashion-mnist"]
        assert entry["note"].startswith(f"{told} 2 data sets tell little")
    (ranks,) = found["ranks"]
    assert ranks["data_sets"] == ["mnist", "fashion-mnist"]
    assert ranks["n"] == 2
    assert ranks["note"].startswith(f"{told} 2 data sets are too few")


def test_images_that_are_others_or_not_told_to_be_the_same_count(of_three):
    for change in ({}, {"marks": sketch(pictures(2))}, {"source": None, "fingerprint": None}):
        found = changed(of_three, "malaria", **change)
        assert {len(entry["rows"]) for entry in found["effects"]} == {3}
        assert "Left out" not in found["effects"][0]["note"]
        assert found["ranks"][0]["n"] == 3


def test_a_data_set_without_an_arm_above_chance_gives_no_ranks(of_three, tmp_path):
    made = copy.deepcopy(of_three)
    for cell in made["cells"]:
        if cell["condition"].startswith("malaria/") and cell["stage"] == "fold":
            cell["test_accuracy"] = 0.12 + 0.001 * cell["fold"]
    (ranks,) = conclusions(unpredicted(made), tmp_path)["summaries"]["ranks"]
    assert ranks["data_sets"] == ["mnist", "fashion-mnist"]
    assert ranks["note"].startswith("Left out: malaria (no arm is above chance). 2 data sets are")
    # One arm alone that is near chance, though trained to its end, has its rank.
    for cell in made["cells"]:
        if cell["condition"].startswith("malaria/simple-cnn/none") and cell["stage"] == "fold":
            cell["test_accuracy"] = 0.9
    (ranks,) = conclusions(unpredicted(made), tmp_path)["summaries"]["ranks"]
    assert ranks["n"] == 3
    assert len(ranks["arms"]) == 4


def left(made, gone):
    """Summaries of results without some cells."""
    some = {**made, "cells": [cell for cell in made["cells"] if not gone(cell)]}
    return conclusions(unpredicted(some), Path("nowhere"))["summaries"]


def unpredicted(made):
    """Results whose cells name no predictions."""
    return {**made, "cells": [cell | {"predictions": ""} for cell in made["cells"]]}


def test_data_sets_that_are_not_finished_are_named_and_give_no_p(of_three):
    few = "fewer than 3 finished seeds of 5 folds"
    # One fold of one seed is missing of an arm: not three whole seeds of it are there.
    gone = ("malaria/simple-cnn/jpeg/10", 2, 4)
    found = left(of_three, lambda c: (c["condition"], c["seed"], c["fold"]) == gone)
    entries = {(e["arm"], e["baseline_arm"]): e for e in found["effects"]}
    assert [row["data_set"] for row in entries["jpeg", "none"]["rows"]] == list(THREE[:2])
    assert entries["jpeg", "none"]["note"].startswith(f"Left out: malaria ({few}). 2 data sets ")
    assert [row["data_set"] for row in entries["low-rank", "none"]["rows"]] == list(THREE)
    (ranks,) = found["ranks"]
    assert (ranks["n"], "jpeg" in ranks["arms"]) == (3, False)
    assert ranks["note"].startswith(f"Left out: jpeg ({few}). ")
    assert found["notes"] == []
    # Nothing of a data set is finished.
    found = left(of_three, lambda c: c["condition"].startswith("malaria"))
    assert found["ranks"][0]["data_sets"] == list(THREE[:2])
    for entry in (*found["effects"], *found["ranks"]):
        assert entry["note"].startswith(f"Left out: malaria ({few}). ")
    # One seed tells nothing at all, and it is said.
    found = left(of_three, lambda c: c["seed"] > 1)
    assert (found["effects"], found["ranks"]) == ([], [])
    assert found["notes"] == [
        "simple-cnn: no mean over data sets of low-rank against none, low-rank against duplicate, "
        "duplicate against none, jpeg against none, jpeg against duplicate. "
        f"Left out: mnist, fashion-mnist, malaria ({few}).",
        "simple-cnn: no ranks of arms over data sets. "
        f"Left out: mnist, fashion-mnist, malaria ({few}).",
    ]


def test_effects_with_an_obstacle_or_without_a_spread_are_named(of_three):
    made = copy.deepcopy(of_three)
    for cell in made["cells"]:
        if cell["stage"] == "fold" and cell["condition"] == "malaria/simple-cnn/jpeg/10":
            cell["best_epoch"] = 10
    found = left(made, lambda c: False)
    entry = next(e for e in found["effects"] if e["arm"] == "jpeg")
    assert entry["note"].startswith(
        "Left out: malaria (in 15 of 15 folds jpeg was best in the last"
    )
    flat = copy.deepcopy(of_three)
    for item in flat["comparisons"]:
        if item["data_set"] == "malaria":
            item["corrected_t"]["standard_error"] = 0.0
    (note,) = {e["note"] for e in summaries(flat, flat["comparisons"])["effects"]}
    assert note.startswith("Left out: malaria (no spread to judge by). ")


def test_arms_that_are_not_on_every_data_set_have_no_rank(of_three):
    own = [c for c in of_three["conditions"] if c["id"] != "malaria/simple-cnn/jpeg/10"]
    found = summaries({**of_three, "conditions": own}, of_three["comparisons"])
    assert found["ranks"][0]["note"].startswith("Left out: jpeg (not on every data set). ")


def test_the_report_says_why_there_is_no_summary(tmp_path):
    made = make_results(tmp_path, seeds=(1,))
    page = report.render({k: v for k, v in made.items() if k != "comparisons"}, tmp_path)
    assert "Over data sets" in page
    assert "simple-cnn: no ranks of arms over data sets. Left out: mnist, fashion-mnist (" in page
    assert "outside the one that the verdicts share" not in page


def test_the_report_shows_them(results):
    made, folder = results
    page = report.render({k: v for k, v in made.items() if k != "comparisons"}, folder)
    assert "Over data sets" in page
    assert page.count("mean over data sets: ") >= 1
    assert "Nemenyi" in page
    assert "critical difference" in page
    assert "a level of 5% of its own, outside the one that the verdicts share" in page


def test_two_conditions_of_a_data_set_are_not_two_data_sets(of_three):
    made = copy.deepcopy(of_three)
    for part in (made["comparisons"], made["conditions"], made["cells"]):
        for item in part:
            for key, value in item.items():
                if isinstance(value, str) and value.startswith("malaria/"):
                    item[key] = value.replace("malaria/", "mnist/") + "0"
            if item.get("data_set") == "malaria":
                item["data_set"] = "mnist"
            if "id" in item and item["id"].startswith("malaria/"):
                item["id"] = item["id"].replace("malaria/", "mnist/") + "0"
    found = left(made, lambda c: False)
    assert (found["effects"], found["ranks"]) == ([], [])
    assert all("mnist (trained under several conditions)" in note for note in found["notes"])
