"""What a study concludes as a whole: looks, and arms that were trained too little."""

import numpy as np
import pytest

from rankwise.study.conclusions import conclusions, earlier_looks
from rankwise.study.convergence import convergence
from rankwise.study.outcomes import fold_scores
from study.made_results import make_results

NONE, LOW_RANK = "mnist/simple-cnn/none/10", "mnist/simple-cnn/low-rank/10"
SHAPE = np.array([-1.2, -0.4, 0.1, 0.3, 1.2])


@pytest.fixture
def extended(tmp_path):
    """Three seeds that agree on a harm, then a fourth that is of another mind."""
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3, 4))
    theirs = fold_scores(results, NONE, "test")
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold":
            mean = -0.02 if cell["seed"] < 4 else -0.008
            spread = 0.006 if cell["seed"] < 4 else 0.012
            key = cell["seed"], cell["fold"]
            cell["test_accuracy"] = theirs[key] + mean + spread * SHAPE[cell["fold"]]
    return results | {"look": 2, "looks": [[1, 2, 3], [1, 2, 3, 4]]}, tmp_path


def low_rank(found, role="baseline"):
    return next(c for c in found["comparisons"] if c["condition"] == LOW_RANK and c["role"] == role)


def test_an_earlier_look_is_the_study_without_later_seeds(extended):
    results, _ = extended
    (first,) = earlier_looks(results)
    assert first["look"] == 1
    assert first["study"]["seeds"] == [1, 2, 3]
    assert {cell["seed"] for cell in first["cells"]} == {1, 2, 3}
    assert results["study"]["seeds"] == [1, 2, 3, 4]
    assert earlier_looks(results | {"looks": None}) == []


def test_what_a_look_has_told_is_not_taken_back_by_the_next_level(extended):
    results, folder = extended
    alone = low_rank(conclusions(results | {"looks": None}, folder))
    one = low_rank(conclusions(results, folder))
    assert alone["level"] < alone["corrected_t"]["p_holm"] < 0.04
    assert alone["established"] is None
    assert one["established"] == 1
    assert [look["look"] for look in one["looks"]] == [1, 2]
    first, last = one["looks"]
    assert first["p_holm"] < first["level"] == pytest.approx(0.04)
    assert last == {
        "look": 2,
        "level": one["level"],
        "p_holm": one["corrected_t"]["p_holm"],
        "verdict": one["verdict"],
    }
    assert alone["verdict"] == "cannot tell"
    assert one["verdict"] == "harms"
    assert one["sentence"].endswith("told so at look 1, at its level, and that stands.")


def test_a_look_that_told_the_other_way_tells_nothing_now(extended):
    results, folder = extended
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold" and cell["seed"] == 4:
            cell["test_accuracy"] += 0.2
    assert low_rank(conclusions(results, folder))["established"] is None


def test_an_unfinished_look_establishes_nothing(extended):
    results, folder = extended
    results["cells"] = [
        c for c in results["cells"] if (c["condition"], c["seed"], c["fold"]) != (LOW_RANK, 2, 4)
    ]
    assert low_rank(conclusions(results, folder))["established"] is None


@pytest.mark.parametrize("seeds", [(1,), (1, 2)])
def test_a_look_of_fewer_than_three_seeds_establishes_nothing(extended, seeds):
    results, folder = extended
    one = low_rank(conclusions(results | {"looks": [list(seeds), [1, 2, 3, 4]]}, folder))
    first, _ = one["looks"]
    assert first["p_holm"] < first["level"]
    assert first["verdict"] == "cannot tell"
    assert one["established"] is None
    assert one["verdict"] == "cannot tell"


def test_a_look_of_arms_that_were_not_trained_to_the_end_establishes_nothing(extended):
    """Late in 15 of 15 folds at the first look; of the second's folds fewer than half are."""
    results, folder = extended
    later = [c | {"seed": seed} for c in results["cells"] for seed in (5, 6, 7) if c["seed"] == 4]
    results["cells"] += later
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold" and cell["seed"] < 4:
            cell["best_epoch"] = 10
    results["study"]["seeds"] = [1, 2, 3, 4, 5, 6, 7]
    one = low_rank(conclusions(results | {"looks": [[1, 2, 3], list(range(1, 8))]}, folder))
    first, _ = one["looks"]
    assert first["p_holm"] < first["level"]
    assert (one["established"], one["obstacle"]) == (None, None)


def test_arms_that_were_not_trained_to_the_end_have_no_rank(tmp_path):
    results = make_results(tmp_path, seeds=(1, 2, 3))
    for cell in results["cells"]:
        if "low-rank" in cell["condition"] and cell["stage"] == "fold":
            cell["best_epoch"] = 10
    (ranks,) = conclusions(results, tmp_path)["summaries"]["ranks"]
    assert "low-rank" not in ranks["arms"]
    assert "none" in ranks["arms"]
    assert ranks["note"].startswith("Left out: low-rank (not trained to the end). ")


def test_one_arm_near_chance_is_what_it_does_and_all_are_too_short_a_training(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    folds = [c for c in results["cells"] if c["stage"] == "fold"]
    for cell in folds:
        if cell["condition"] == LOW_RANK:
            cell["test_accuracy"] = 0.12 + 0.01 * cell["fold"]
    assert not any(row["near_chance"] for row in convergence(results, "test"))
    assert low_rank(conclusions(results, tmp_path))["obstacle"] is None
    for cell in folds:
        cell["test_accuracy"] = 0.12 + 0.01 * cell["fold"]
    assert all(row["near_chance"] for row in convergence(results, "test"))
    assert "near chance" in low_rank(conclusions(results, tmp_path))["obstacle"]


def test_one_epoch_is_no_plateau_but_one_pass_is_all_there_is(tmp_path):
    """The best of one epoch is the last; what has no epochs is trained to its end."""
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3), epochs=1)
    rows = convergence(results, "test")
    assert {(row["late"], row["folds"], row["unfinished"]) for row in rows} == {(15, 15, True)}
    found = conclusions(results, tmp_path)["comparisons"]
    assert {item["verdict"] for item in found} == {"cannot tell"}
    assert all("best in the last tenth of its training" in item["obstacle"] for item in found)
    for model in (
        {"network": "quadratic"},
        {"network": "backbone", "frozen_stage": "closed-form", "unfreeze": 0},
    ):
        results["study"]["models"] = {"simple-cnn": model}
        rows = convergence(results, "test")
        assert {(row["folds"], row["unfinished"]) for row in rows} == {(0, False)}
        assert {c["obstacle"] for c in conclusions(results, tmp_path)["comparisons"]} == {None}


def test_poor_arms_beside_one_that_learned_are_no_short_training(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    for cell in results["cells"]:
        if cell["stage"] == "fold" and cell["condition"] != NONE:
            cell["test_accuracy"] = 0.12 + 0.01 * cell["fold"]
    found = conclusions(results, tmp_path)
    assert low_rank(found, "control")["obstacle"] is None
    assert {item["obstacle"] for item in found["comparisons"]} == {None}


def test_degraded_images_that_are_too_hard_are_no_short_training(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    for cell in results["cells"]:
        if cell["stage"] == "fold":
            cell["degraded"] = {"clean": 0.99, "blur": [0.12 + 0.001 * cell["fold"]] * 5}
    found = conclusions(results, tmp_path)["robustness"]
    assert {(item["pairs"], item["obstacle"]) for item in found} == {(15, None)}


def test_degraded_images_that_nobody_asked_for_are_not_missing(extended):
    results, folder = extended
    for study in ({"degraded": "none"}, {"protocol": "paper"}):
        found = conclusions(results | {"study": results["study"] | study}, folder)
        assert found["robustness"] == []
        assert not [f for f in found["factors"] if f["outcome"] == "degraded"]
        assert found["comparisons"]


def test_no_practical_difference_of_an_earlier_look_is_not_taken_back_silently(extended):
    results, folder = extended
    results["study"]["rope"] = 0.01
    theirs = fold_scores(results, NONE, "test")
    for cell in results["cells"]:
        if cell["condition"] == LOW_RANK and cell["stage"] == "fold":
            spread = 0.001 if cell["seed"] < 4 else 0.04
            key = cell["seed"], cell["fold"]
            cell["test_accuracy"] = theirs[key] + spread * SHAPE[cell["fold"]]
    one = low_rank(conclusions(results, folder))
    first, last = (look["verdict"] for look in one["looks"])
    assert (first, last) == ("no practical difference", "cannot tell")
    assert one["sentence"].endswith(
        " Look 1 told of no practical difference; for that, look 2 needs 99.0% certainty, and has "
        f"{100 * one['bayes']['equal']:.1f}%."
    )
