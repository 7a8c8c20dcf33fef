"""Factorial designs: contrasts against plain arithmetic, in one family with the comparisons."""

import numpy as np
import pytest

from rankwise.study import StudyError, conditions_of, verdict_sections
from rankwise.study.arms import batch_augmentation, copied_rows, make_copies
from rankwise.study.conclusions import compare_factors, conclusions
from rankwise.study.contrasts import contrasts_of
from rankwise.study.design_parts import Both
from rankwise.study.infer import corrected_t_test, holm
from study.made_results import make_results
from study.run_cases import run, study

pytestmark = pytest.mark.usefixtures("somebody")
TWO = {"low-rank": {"skip_threshold": 0.5}, "jpeg": {"skip_threshold": 0.5}}


def factorial(protocol="sound", arms=TWO, **more):
    return study({"none": {}, **arms}, protocol, factorial=[list(arms)], **more)


def test_both_arms_join_with_their_control():
    found = {c.arm: c for c in conditions_of(factorial())}
    assert list(found) == [
        "none", "low-rank", "jpeg", "low-rank+jpeg", "duplicate", "low-rank+jpeg-unchanged",
    ]  # fmt: skip
    both = found["low-rank+jpeg"]
    assert isinstance(both.options, Both)
    assert both.baseline == found["none"].id
    assert both.control == found["low-rank+jpeg-unchanged"].id
    kinds = [part.kind for part in found["low-rank+jpeg-unchanged"].options.parts]
    assert kinds == ["duplicate", "duplicate"]
    assert [c.arm for c in conditions_of(factorial("paper"))][-1] == "low-rank+jpeg"


def rows(*settings, arms=("low-rank", "jpeg"), data="digits"):
    return [
        {"data": data, "model": "own", "arm": arm} | own
        for arm, own in zip(arms, settings, strict=True)
    ]


def test_both_have_the_settings_that_the_conditions_give_each():
    own = ({"energy": 0.5, "skip_threshold": 0.1}, {"skip_threshold": 0.3})
    other = ({"energy": 0.7}, {})
    data = {name: {"source": "digits", "limit": 80} for name in ("digits", "more")}
    design = factorial(data=data, conditions=rows(*own) + rows(*other, data="more"))
    found = {(c.data_set, c.arm): c.options for c in conditions_of(design)}

    def doses(data_set, arm):
        return [(p.kind, p.energy, p.skip_threshold) for p in found[data_set, arm].parts]

    crossed, plain = "low-rank+jpeg", "low-rank+jpeg-unchanged"
    assert doses("digits", crossed) == [("low-rank", 0.5, 0.1), ("jpeg", 0.975, 0.3)]
    assert doses("more", crossed) == [("low-rank", 0.7, 0.5), ("jpeg", 0.975, 0.5)]
    assert [skip for _, _, skip in doses("digits", plain)] == [0.1, 0.3]
    assert [skip for _, _, skip in doses("more", plain)] == [0.5, 0.5]
    by_id = {c.id: c for c in conditions_of(design)}
    for condition in by_id.values():
        if condition.arm == crossed:
            assert by_id[condition.control].arm == plain
            assert by_id[condition.control].data_set == condition.data_set
            # And results say so.
            kinds = [(p["arm_kind"], p["skip_threshold"]) for p in condition.to_json()["parts"]]
            assert kinds == [(k, skip) for k, _, skip in doses(condition.data_set, crossed)]
    # They are the very images that each arm copies alone.
    assert doses("digits", crossed)[0][1:] == (
        found["digits", "low-rank"].energy,
        found["digits", "low-rank"].skip_threshold,
    )


def test_both_train_for_the_epochs_that_the_conditions_give_each():
    design = factorial("paper", conditions=rows({"epochs": 9}, {"epochs": 4}))
    assert {c.arm: c.epochs for c in conditions_of(design)}["low-rank+jpeg"] == 9


def epochs_of(arms, protocol="paper", **more):
    design = study({"none": {}, **arms}, protocol, factorial=[list(arms)], **more)
    return {c.arm: c.epochs for c in conditions_of(design)}


@pytest.mark.parametrize("protocol", ["paper", "notebook"])
@pytest.mark.parametrize("copies", ["low-rank", "default+low-rank"])
def test_both_train_for_the_doubled_epochs_of_one_of_them(protocol, copies):
    arms = {copies: {}, "blur": {}}
    expected = {"none": 2, copies: 4, "blur": 2, f"{copies}+blur": 4}
    assert epochs_of(arms, protocol) == expected
    assert set(epochs_of(arms, "sound").values()) == {2}
    # Half of an odd number is rounded as each arm's own epochs are.
    assert epochs_of(arms, protocol, epochs=5, epochs_factor=0.3)[f"{copies}+blur"] == 3
    # A row that names its epochs has those, and one that names none the fewest that are named.
    settings = rows({}, {"epochs": 3}, {}, arms=("none", copies, "blur"))
    assert set(epochs_of(arms, protocol, conditions=settings).values()) == {3}


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        (({"epochs": 3}, {"epochs": 6}, {"epochs": 6}), "none for 3, low-rank for 6, jpeg for 6"),
        (({"epochs": 3}, {"epochs": 3}, {"epochs": 2}), "none for 3, low-rank for 3, jpeg for 2"),
    ],
)
def test_epochs_of_which_no_interaction_can_be_told_are_refused(settings, trained):
    arms = ("none", "low-rank", "jpeg")
    message = (
        rf"^digits/own trains {trained} epochs; a factorial design of the two takes one of them "
        r"with the epochs of none, and the other with as many or more$"
    )
    with pytest.raises(StudyError, match=message):
        epochs_of(TWO, conditions=rows(*settings, arms=arms))


def test_an_arm_in_two_conditions_is_in_no_factorial_design(results):
    arms = ("none", "none", "low-rank", "jpeg")
    settings = ({"epochs": 2}, {"epochs": 8}, {"epochs": 4}, {"epochs": 2})
    message = (
        r"^digits/own has the arm 'none' in several conditions, digits/own/none/2 and "
        r"digits/own/none/8; a factorial design takes one of each arm$"
    )
    with pytest.raises(StudyError, match=message):
        epochs_of(TWO, conditions=rows(*settings, arms=arms))
    made, folder = results
    again = next(c for c in made["conditions"] if c["arm"] == "jpeg")
    twice = {**made, "conditions": [*made["conditions"], again | {"id": "mnist/simple-cnn/jpeg/9"}]}
    with pytest.raises(StudyError, match=r"has the arm 'jpeg' in several conditions, .*/jpeg/9; "):
        contrasts_of(twice, folder, "test")


def test_an_arm_of_two_settings_is_in_no_factorial_design():
    arms = ("low-rank", "low-rank", "jpeg")
    settings = ({"energy": 0.5, "epochs": 2}, {"energy": 0.7, "epochs": 4}, {})
    design = factorial("paper", conditions=rows(*settings, arms=arms))
    message = (
        r"^digits/own has the arm 'low-rank' with energy 0\.5 and with energy 0\.7; a factorial "
        r"design takes one setting of an arm there$"
    )
    with pytest.raises(StudyError, match=message):
        conditions_of(design)


def test_both_have_the_copies_of_each_and_change_batches_in_turn():
    import torch

    from rankwise.data import load_images
    from rankwise.study.design_parts import Arm

    images = load_images("digits", limit=60, seed=1)
    parts = (Arm(kind="jpeg", skip_threshold=0.5), Arm(kind="blur", skip_threshold=0.2))
    rows, copies = make_copies(Both(parts=parts), images, 3)
    each = [make_copies(part, images, 3) for part in parts]
    np.testing.assert_array_equal(rows, np.sort(np.concatenate([r for r, _ in each])))
    np.testing.assert_array_equal(copied_rows(Both(parts=parts), images, 3), rows)
    found = sorted(image.tobytes() for image in copies)
    assert found == sorted(image.tobytes() for _, made in each for image in made)
    flying = Arm(kind="callable", function="somebody_s_own:failing")
    assert batch_augmentation(Both(parts=parts)) is None
    twice = batch_augmentation(Both(parts=(Arm(kind="default"), flying)))
    alone = batch_augmentation(Both(parts=(Arm(kind="default"), parts[0])))
    batch = torch.rand(4, 1, 8, 8) * 2 - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = twice(batch)
        torch.manual_seed(0)
        torch.testing.assert_close(first, alone(batch))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Made-up scores of four arms, the last one as if it were both of the others."""
    folder = tmp_path_factory.mktemp("factors")
    made = make_results(folder, data_sets=("mnist",), seeds=(1, 2, 3))
    made["study"]["factorial"] = [["low-rank", "jpeg"]]
    for item in (*made["conditions"], *made["cells"]):
        key = "id" if "id" in item else "condition"
        item[key] = item[key].replace("duplicate", "low-rank+jpeg")
    for condition in made["conditions"]:
        condition["arm"] = condition["arm"].replace("duplicate", "low-rank+jpeg")
        condition["arm_kind"] = condition["arm_kind"].replace("duplicate", "both")
        condition["control"] = None
    return made, folder


def scores(results, arm):
    cells = [c for c in results["cells"] if c["condition"].split("/")[2] == arm]
    return np.array([c["test_accuracy"] for c in cells if c["stage"] == "fold"])


def test_contrasts_are_those_of_the_four_means(results):
    made, folder = results
    none, a, b, both = (scores(made, n) for n in ("none", "low-rank", "jpeg", "low-rank+jpeg"))
    main_a, main_b, interaction = contrasts_of(made, folder, "test")
    np.testing.assert_allclose(main_a.differences, ((a - none) + (both - b)) / 2)
    np.testing.assert_allclose(main_b.differences, ((b - none) + (both - a)) / 2)
    np.testing.assert_allclose(interaction.differences, (both - b) - (a - none))
    assert [c.arm for c in (main_a, main_b, interaction)] == ["low-rank", "jpeg", "low-rank+jpeg"]
    test = corrected_t_test(interaction.differences, 1 / 4, noise=interaction.noise)
    assert interaction.test == test
    assert interaction.noise.shared
    plain = corrected_t_test(interaction.differences, 1 / 4)
    assert test.standard_error > plain.standard_error


def test_contrasts_and_comparisons_are_one_family(results):
    made, folder = results
    found = conclusions(made, folder)
    own = [f for f in found["factors"] if f["outcome"] == "test"]
    items = found["comparisons"] + own
    adjusted = holm([item["corrected_t"]["p_value"] for item in items])
    assert [item["corrected_t"]["p_holm"] for item in items] == pytest.approx(adjusted)
    # −1.2 points of low-rank alone, taken back by both together.
    low_rank, _, interaction = own
    assert low_rank["effect"]["mean"] == pytest.approx(-0.0069, abs=0.002)
    assert interaction["verdict"] == "cannot tell" or interaction["effect"]["mean"] > 0
    assert low_rank["sentence"].startswith(
        "Main effect of low-rank, with and without jpeg, on test accuracy: −"
    )
    assert interaction["sentence"].startswith("Interaction of low-rank and jpeg on test accuracy: ")
    assert {f["outcome"] for f in found["factors"]} == {"test", "degraded"}
    # What each look told of them stands in the table of looks.
    looks = {"look": 2, "looks": [made["study"]["seeds"][:-1], made["study"]["seeds"]]}
    later = conclusions(made | looks, folder)
    assert [[look["look"] for look in f["looks"]] for f in later["factors"]] == [[1, 2]] * 6
    shown = verdict_sections.looks({**made, **later})
    assert "low-rank × jpeg" in {row["name"] for row in shown}
    assert "low-rank, main effect" in {row["name"] for row in shown}


def test_verdicts_of_contrasts_have_names_of_their_own(results):
    made, folder = results
    contrasts = contrasts_of(made, folder, "test", rope=0.0001)
    words = [f["verdict"] for f in compare_factors(made, contrasts, [], outcome="test")]
    assert words[0] == "lowers it, as unchanged copies may"
    plain = {**made, "conditions": [c | {"copies": None} for c in made["conditions"]]}
    words = [f["verdict"] for f in compare_factors(plain, contrasts, [], outcome="test")]
    assert words[0] == "lowers it"
    assert words[2] in ("less together than apart", "more together than apart", "cannot tell")
    few = {**made, "study": made["study"] | {"seeds": [1]}}
    few["cells"] = [c for c in made["cells"] if c["seed"] == 1]
    contrasts = contrasts_of(few, folder, "test", rope=0.0001)
    assert {f["plain_verdict"] for f in compare_factors(few, contrasts, [], outcome="test")} == {
        "cannot tell"
    }


def test_unfinished_contrasts_count_in_the_family(results):
    made, folder = results
    left = [c for c in made["cells"] if "low-rank+jpeg" not in c["condition"]]
    found = conclusions({**made, "cells": left}, folder)
    factors = [f for f in found["factors"] if f["outcome"] == "test"]
    assert [f["pairs"] for f in factors] == [0, 0, 0]
    assert factors[0]["sentence"].endswith("no fold of all four arms is finished yet.")
    whole = [c["corrected_t"]["p_value"] for c in found["comparisons"]]
    none = float("nan")
    adjusted = holm([none if p is None else p for p in whole] + [none] * 3)
    kept = [c["corrected_t"]["p_holm"] for c in found["comparisons"]]
    assert [p for p in kept if p is not None] == pytest.approx(
        [p for p in adjusted if not np.isnan(p)]
    )


@pytest.mark.parametrize(
    ("arms", "pair", "message"),
    [
        (["none", "jpeg"], ["jpeg", "blur"], r"factorial\[0\] names 'blur'; 'none', 'jpeg' are"),
        (["none", "jpeg"], ["jpeg", "none"], r"names 'none', which changes no image; other arms"),
        (["none", "jpeg"], ["jpeg", "jpeg"], r"names 'jpeg' twice; two arms are accepted"),
        (["none", "jpeg"], ["jpeg"], r"factorial is .*; pairs of the study's arms, such as"),
    ],
)
def test_what_is_no_pair_is_refused(arms, pair, message):
    with pytest.raises(StudyError, match=message):
        study(arms, factorial=[pair])


def test_a_factorial_study_runs_and_its_report_shows_it(tmp_path):
    from rankwise.study.report import write_report

    arms = {"jpeg": {"skip_threshold": 0.5}, "default": {}}
    design = factorial(arms=arms, epochs=1, retrain=False)
    results = run(design, tmp_path / "out")
    assert [f["arm"] for f in results["factors"]][:3] == ["jpeg", "default", "jpeg+default"]
    page = write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "Two arms at once" in page
    assert "Interaction of jpeg and default on test accuracy" in page
