"""Planning: what a design tells and costs, from a pilot of made numbers."""

import hashlib
import json
import math
import shutil

import numpy as np
import pytest
from scipy import stats

from rankwise.data import load_images
from rankwise.errors import RunError
from rankwise.study.conditions import conditions_of
from rankwise.study.design import StudyError
from rankwise.study.infer import ImageNoise, corrected_t_test, correlated_posterior
from rankwise.study.pilots import Rates, Spread, read_pilot
from rankwise.study.plan import plan_study
from rankwise.study.planned_power import Asked, chance
from rankwise.study.power import chance_to_help
from rankwise.study.preregistration import write_plan
from rankwise.study.reading import study_from
from rankwise.study.verdict import Control
from study.made_results import make_results
from study.test_power import helps

ARMS = {"none": {}, "low-rank": {}, "jpeg": {}}


def design(**more):
    values = {
        "data": {"mnist": {"source": "digits", "limit": 200}},
        "models": ["simple-cnn"],
        "arms": ARMS,
        "epochs": 10,
        "rope": 0.0,
        "retrain": False,
    }
    return study_from(values | more)


def all_images(**more):
    return design(data={"mnist": {"source": "digits"}}, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pilot of 200 digits in two folds with two seeds."""
    folder = tmp_path_factory.mktemp("pilot")
    results = make_results(folder, data_sets=("mnist",), folds=2, seeds=(42, 43))
    results["study"] = design(folds=2, seeds=[42, 43]).to_json()
    images = load_images("digits", "all", limit=200)
    results["data_sets"][0] |= {"fingerprint": images.fingerprint, "n_images": 200}
    results["cells"] = [
        c | {"epochs": 10, "n_train": 80, "train_seconds": 20.0, "seconds": 30.0}
        for c in results["cells"]
        if c["stage"] == "fold"
    ]
    (folder / "results.json").write_text(json.dumps(results))
    return folder, results


@pytest.fixture
def other_pilot(made, tmp_path):
    """The same results as those of another study."""

    def of(**more):
        results = made[1] | {"study": design(folds=2, seeds=[42, 43], **more).to_json()}
        shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
        (tmp_path / "results.json").write_text(json.dumps(results))
        return tmp_path

    return of


def test_only_designs_that_can_give_a_verdict_are_options(made):
    found = plan_study(design(), made[0], effect=0.02)
    chosen = found["chosen"]
    assert chosen["power"] >= 0.8
    assert all(o["folds"] >= 5 and o["seeds"] >= 3 for o in found["options"])
    assert {o["folds"] for o in found["options"]} == {5, 10}
    assert all(o["power"] < 0.8 for o in found["options"] if o["hours"] < chosen["hours"])
    harder = plan_study(design(), made[0], effect=0.012)
    cheaper = [o for o in harder["options"] if o["hours"] < harder["chosen"]["hours"]]
    assert cheaper
    assert all(o["power"] < 0.8 for o in cheaper)
    assert found["study"]["folds"] == chosen["folds"]
    # A smaller effect needs more, and one too small can't be told.
    assert plan_study(design(), made[0], effect=0.002)["chosen"] is None
    powers = [
        next(o["power"] for o in plan_study(design(), made[0], effect=e)["options"])
        for e in (0.008, 0.012)
    ]
    assert powers[0] < powers[1]


def test_seeds_are_not_those_of_the_pilot(made):
    assert plan_study(design(), made[0], effect=0.02)["study"]["seeds"][:2] == [44, 45]
    seeds = plan_study(design(seeds=[7, 42, 9]), made[0], effect=0.02)["study"]["seeds"]
    assert seeds[:3] == [7, 9, 44]


def test_its_power_is_that_of_the_hardest_arm_and_its_control(made):
    folder, results = made
    option = plan_study(design(), folder, effect=0.01)["options"][0]
    assert (option["folds"], option["seeds"]) == (5, 3)
    n_comparisons = len(results["comparisons"])
    assert n_comparisons == 5
    missed = {}
    for c in results["comparisons"]:
        # Two folds show half of their variance, five four fifths; the spread that one of five
        # pilots would exceed.
        wide = c["effect"]["deviation"] * (3 / stats.chi2.ppf(0.2, 3)) ** 0.5
        wide *= (0.8 / 0.5) ** 0.5
        noise = ImageNoise(**c["images"])
        power = chance_to_help(0.01, wide, 15, 0.25, 0.0, alpha=0.04 / n_comparisons, noise=noise)
        missed[c["arm"]] = missed.get(c["arm"], 0) + 1 - power
    # Unchanged copies are the control: nobody asks what they do.
    assert option["power"] == pytest.approx(1 - max(missed["low-rank"], missed["jpeg"]))
    assert 0 < option["power"] < 1


def test_nobody_asks_what_unchanged_copies_do(made, other_pilot):
    named = design(arms=ARMS | {"duplicate": {}})
    first = [plan_study(s, made[0], effect=0.01)["options"][0] for s in (design(), named)]
    assert first[0]["power"] == first[1]["power"]
    # Alone they are what is asked.
    alone = ["none", "duplicate"]
    copies = plan_study(design(arms=alone), other_pilot(arms=alone), effect=0.01)
    assert list(copies["pilot"]["deviations"]) == [
        "mnist/simple-cnn/duplicate/10 against mnist/simple-cnn/none/10"
    ]


def test_an_arm_and_its_control_against_simulated_verdicts():
    """Scores of an arm, its baseline and its control, the arm's in both differences."""
    rng = np.random.default_rng(2)
    common, own = rng.standard_normal((500, 1, 3)), rng.standard_normal((500, 15, 3))
    deviation = 0.004
    scores = deviation / math.sqrt(2) * (0.5 * common + own)
    scores[..., 0] += 0.011
    found = []
    for ours, none, copies in np.moveaxis(scores, 2, 1):
        test = corrected_t_test(ours - copies, 0.25)
        better = helps(ours - copies, 0.25, 0.003, 0.01)
        control = Control(test, "helps" if better else "cannot tell")
        found.append(helps(ours - none, 0.25, 0.003, 0.01, control=control))
    alone = chance_to_help(0.011, deviation, 15, 0.25, 0.003, alpha=0.01)
    assert correlated_posterior(scores[0, :, 0], 0.25, 0.0).help == pytest.approx(1, abs=0.2)
    # Below what is found, but by no more than the dependence of both makes.
    bound = max(0, 2 * alone - 1)
    assert bound - 0.05 < np.mean(found) < bound + 0.15
    assert np.mean(found) < alone + 0.03


def test_the_region_counts_in_the_power(made):
    folder, _ = made
    option = plan_study(design(rope=0.015), folder, effect=0.02)["options"][0]
    assert option["power"] < plan_study(design(), folder, effect=0.02)["options"][0]["power"] - 0.1
    # A tenth of the baseline's error where the study names no region.
    relative = design(rope=None)
    region = plan_study(relative, folder, effect=0.02)["region"]
    assert region == pytest.approx(0.1 * 0.012, abs=2e-4)


def test_a_plan_without_a_design_is_not_written(made, tmp_path):
    found = plan_study(design(rope=0.03), made[0], effect=0.02)
    assert found["chosen"] is None
    with pytest.raises(
        StudyError,
        match=r"no design reaches a power of 80% for 2 points \(up to \d+%\), so no plan was "
        r"written; .* the region of practical equivalence, ±3 points, is never told",
    ):
        write_plan(found, tmp_path / "plan.json")
    assert not (tmp_path / "plan.json").exists()


def test_the_digest_is_that_of_the_file(made, tmp_path):
    path = tmp_path / "plan.json"
    digest = write_plan(plan_study(design(), made[0], effect=0.02), path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_family_is_that_of_the_planned_study(made):
    folder, results = made
    own = plan_study(design(), folder, effect=0.01)
    assert (own["comparisons"], own["contrasts"]) == (len(results["comparisons"]), 0)
    assert own["assumed"] == []
    more = design(arms=ARMS | {"blur": {}}, factorial=[("low-rank", "blur")])
    found = plan_study(more, folder, effect=0.01)
    # Against none: low-rank, jpeg, blur, both, copies, both's copies; four against copies.
    assert (found["comparisons"], found["contrasts"]) == (10, 3)
    prefix = "mnist/simple-cnn"
    assert f"{prefix}/blur/10 against {prefix}/none/10" in found["assumed"]
    assert f"{prefix}/low-rank/10 against {prefix}/none/10" not in found["assumed"]
    # What the pilot doesn't show is taken to be as hard as the hardest that it shows.
    assert found["options"][0]["power"] < own["options"][0]["power"]
    assert found["options"][0]["hours"] == pytest.approx(own["options"][0]["hours"] * 7 / 4)


def test_power_of_main_effects_and_interactions_is_told(made, tmp_path):
    folder, results = made
    crossed = design(factorial=[("low-rank", "jpeg")])
    name = "mnist/simple-cnn"
    names = [f"{name}: main effect of low-rank", f"{name}: main effect of jpeg"]
    names.append(f"{name}: interaction of low-rank and jpeg")
    # A pilot without the arm of both shows none of them.
    assert plan_study(crossed, folder, effect=0.05)["contrast_power"] == dict.fromkeys(names)
    assert plan_study(design(), folder, effect=0.05)["contrast_power"] == {}
    # One with it: scores of the arm of both that add up, and vary by fold.
    both = next(c for c in conditions_of(crossed) if c.arm == "low-rank+jpeg")
    by_arm = {
        arm: [c for c in results["cells"] if c["condition"] == f"{name}/{arm}/10"]
        for arm in ("none", "low-rank", "jpeg")
    }
    shift = [0.004, -0.003, 0.001, -0.002]
    cells = [
        jpeg | {"condition": both.id, "test_accuracy": jpeg["test_accuracy"] + shift[i]}
        for i, jpeg in enumerate(by_arm["jpeg"])
    ]
    pilot = results | {
        "study": design(folds=2, seeds=[42, 43], factorial=[("low-rank", "jpeg")]).to_json(),
        "conditions": [*results["conditions"], both.to_json()],
        "cells": [*results["cells"], *cells],
    }
    for cell in results["cells"]:
        target = tmp_path / cell["predictions"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((folder / cell["predictions"]).read_bytes())
    (tmp_path / "results.json").write_text(json.dumps(pilot))
    found = plan_study(crossed, tmp_path, effect=0.05)
    assert list(found["contrast_power"]) == names
    scores = {arm: np.array([c["test_accuracy"] for c in own]) for arm, own in by_arm.items()}
    scores["both"] = np.array([c["test_accuracy"] for c in cells])
    interaction = scores["both"] - scores["jpeg"] - scores["low-rank"] + scores["none"]
    seen = {c.name: c.spread for c in read_pilot(tmp_path, crossed).contrasts()}
    assert seen[names[2]].deviation == pytest.approx(interaction.std(ddof=1))
    main = (scores["both"] - scores["jpeg"] + scores["low-rank"] - scores["none"]) / 2
    assert seen[names[0]].deviation == pytest.approx(main.std(ddof=1))
    chosen = found["chosen"]
    family = found["comparisons"] + found["contrasts"]
    alone = Asked("mnist", [[seen[names[2]]]])
    more = {"mnist": chosen["images"]["mnist"] / 200}
    expected = chance(alone, 0.05, chosen["folds"], chosen["seeds"], 0.04 / family, more)
    assert found["contrast_power"][names[2]] == pytest.approx(expected)
    assert found["contrast_power"][names[2]] < found["contrast_power"][names[0]] <= 1


def test_costs_are_the_pilot_s_scaled(made):
    folder, results = made

    def first(study, workers=1):
        return plan_study(study, folder, effect=0.02, workers=workers)["options"][0]

    own = first(design())
    # 20 seconds of training 80 images; five folds train 128 of 160.
    fold = 20 * 128 / 80 + 10
    assert (own["folds"], own["seeds"], own["images"]) == (5, 3, {"mnist": 200})
    assert own["hours"] == pytest.approx(4 * 15 * fold / 3600)
    assert first(design(), workers=2)["hours"] == pytest.approx(own["hours"] / 2)
    longer = first(design(epochs=100))
    assert longer["hours"] == pytest.approx(4 * 15 * (10 * (fold - 10) + 10) / 3600)
    # The re-training has all 160, for the mean best epoch: seven of ten here.
    both = first(design(retrain=True))
    assert both["hours"] == pytest.approx((4 * 15 * fold + 4 * 3 * (0.7 * 40 + 10)) / 3600)
    assert both["disk"] > own["disk"] + 4 * 3 * 4 * 101_770 * 0.99
    sizes = [(folder / c["predictions"]).stat().st_size for c in results["cells"]]
    assert own["disk"] == pytest.approx(4 * 15 * np.mean(sizes), rel=1e-6)


def test_a_plateau_bounds_the_epochs():
    rates = Rates(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, best=0.5, plateau=8.0)
    until = design(epochs=30, patience=3, folds=5)
    assert rates.cell(until, 30, 100, fold=True)[0] == pytest.approx(8 * 64)
    assert rates.cell(design(epochs=30, folds=5), 30, 100, fold=True)[0] == pytest.approx(30 * 64)


def test_images_are_planned(made):
    folder, results = made
    found = plan_study(all_images(), folder, effect=0.02)
    assert {o["images"]["mnist"] for o in found["options"]} == {200, 400, 800, 1600, 1797}
    assert found["chosen"]["images"] == {"mnist": 200}
    planned = found["study"]["data"]["mnist"]["limit"]
    assert planned == 200
    assert found["fingerprints"] == {"mnist": results["data_sets"][0]["fingerprint"]}
    at = {o["images"]["mnist"]: o for o in found["options"] if (o["folds"], o["seeds"]) == (5, 3)}
    assert at[1797]["hours"] / at[200]["hours"] == pytest.approx(1797 / 200)
    # A smaller effect is told by more images, of which the plan has the fingerprint too.
    for effect, number, limit in ((0.007, 1600, 1600), (0.006, 1797, None)):
        found = plan_study(all_images(), folder, effect=effect)
        assert found["chosen"]["images"] == {"mnist": number}
        assert all(
            o["power"] < 0.8 for o in found["options"] if o["hours"] < found["chosen"]["hours"]
        )
        assert found["study"]["data"]["mnist"]["limit"] == limit
        images = load_images("digits", "all", limit=limit)
        assert found["fingerprints"] == {"mnist": images.fingerprint}


def test_images_of_several_data_sets(made, tmp_path):
    data = {"mnist": {"source": "digits", "limit": 200}, "other": {"source": "digits"}}
    results = make_results(tmp_path, data_sets=("mnist", "fashion-mnist"), folds=2, seeds=(42, 43))
    text = json.dumps(results).replace("fashion-mnist/", "other/")
    results = json.loads(text.replace('"fashion-mnist"', '"other"'))
    (tmp_path / "cells" / "fashion-mnist").rename(tmp_path / "cells" / "other")
    small = {name: {"source": "digits", "limit": n} for name, n in (("mnist", 200), ("other", 600))}
    results["study"] = design(data=small, folds=2, seeds=[42, 43]).to_json()
    for entry, n in zip(results["data_sets"], (200, 600), strict=True):
        images = load_images("digits", "all", limit=n)
        entry |= {"fingerprint": images.fingerprint, "n_images": n}
    results["cells"] = [c | {"epochs": 10, "n_train": 80} for c in results["cells"]]
    (tmp_path / "fashion-mnist").mkdir(exist_ok=True)
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = plan_study(design(data=data), tmp_path, effect=0.03)
    amounts = {tuple(o["images"].values()) for o in found["options"]}
    assert amounts == {(200, 600), (200, 1200), (200, 1797)}
    assert (found["comparisons"], len(found["assumed"])) == (10, 0)


@pytest.mark.parametrize("shared", [True, False])
def test_more_images_leave_the_trainings_spread(shared):
    spread = Spread(4, 2, 0.01, ImageNoise(1e-5, 100, shared), 0.0)
    (few, noise), (many, less) = spread.under(2, 1.0), spread.under(2, 4.0)
    assert noise == spread.noise
    assert less == ImageNoise(2.5e-6, 400, shared)
    # Only where each fold has images of its own are they part of the spread: K·V of it.
    assert few**2 - many**2 == pytest.approx(0.0 if shared else 2 * 1e-5 * 0.75)
    asked = Asked("mnist", [[spread]])
    assert chance(asked, 0.05, 5, 5, 0.01, {"mnist": 4.0}) > chance(
        asked, 0.05, 5, 5, 0.01, {"mnist": 1.0}
    )


def test_what_is_no_pilot_of_it_is_refused(made):
    folder, _ = made
    for study, different in (
        (design(models={"simple-cnn": {"learning_rate": 0.01}}), "models.simple-cnn"),
        (design(models=["resnet25"]), "models.simple-cnn"),
        (design(data={"other": {"source": "digits"}}), "data.mnist"),
        (design(data={"mnist": {"source": "digits", "size": 12}}), "data.mnist"),
        (design(protocol="paper"), "protocol, degraded"),
        (design(arms={"none": {}, "low-rank": {"energy": 0.9}}), "arms.low-rank, arms.jpeg"),
        (design(batch_size=16, degraded="none"), "batch_size, degraded"),
        (design(patience=3, reserve=0.1), "reserve, patience"),
    ):
        with pytest.raises(StudyError) as refused:
            plan_study(study, folder, effect=0.02)
        assert str(refused.value) == (
            f"the pilot {folder} is no part of the study (different: {different}); a pilot is the "
            "study with fewer folds, seeds, images, epochs or arms"
        )
    rows = [{"data": "mnist", "model": "simple-cnn", "arm": a} for a in ("none", "low-rank")]
    with pytest.raises(StudyError, match=r"has conditions that the study lacks: .*/jpeg/10; a "):
        plan_study(design(conditions=rows), folder, effect=0.02)
    with pytest.raises(StudyError, match=r"the pilot has 200 images of 'mnist' and the study 100;"):
        plan_study(design(data={"mnist": {"source": "digits", "limit": 100}}), folder, effect=0.02)


def test_images_of_another_source_are_refused(made, tmp_path):
    images = load_images("digits", "all")
    np.savez(tmp_path / "a.npz", images=255 - images.images, labels=images.labels)
    source = str(tmp_path / "a.npz")
    with pytest.raises(
        StudyError, match=r"the pilot's images of 'mnist' aren't those that .*a.npz"
    ):
        plan_study(design(data={"mnist": {"source": source, "limit": 200}}), made[0], effect=0.02)


def test_a_part_of_the_study_that_the_pilot_lacks(made):
    both = design(models=["simple-cnn", "resnet25"])
    with pytest.raises(
        StudyError,
        match="has no comparison with two finished folds that differ on mnist/resnet25; run at",
    ):
        plan_study(both, made[0], effect=0.02)
    lacking = next(c for c in conditions_of(both) if c.model == "resnet25")
    with pytest.raises(StudyError, match="has no finished fold of mnist/resnet25; run it there"):
        read_pilot(made[0], both).rates(lacking)


def test_refusals(made, other_pilot, tmp_path):
    folder, _ = made
    with pytest.raises(ValueError, match="effect must be a share of accuracy between 0 and 1"):
        plan_study(design(), folder, effect=2.0)
    with pytest.raises(ValueError, match="power must lie between 0 and 1, got 1"):
        plan_study(design(), folder, effect=0.01, wanted_power=1)
    one = {"arms": ["none"], "protocol": "paper"}
    alone = other_pilot(**one)
    with pytest.raises(StudyError, match="compares no arms: there is nothing to plan"):
        plan_study(design(**one), alone, effect=0.01)
    tiny = {"mnist": {"source": "digits", "limit": 200, "source_pattern": None}}
    with pytest.raises(RunError, match=r"has no results\.json: run the study first"):
        plan_study(design(data=tiny), tmp_path / "nowhere", effect=0.01)


def test_what_keeps_the_pilot_from_a_verdict_is_told(made, tmp_path):
    results = json.loads(json.dumps(made[1]))
    results["comparisons"][0]["obstacle"] = "both arms are near chance"
    assert plan_study(design(), made[0], effect=0.02)["obstacles"] == {}
    for path in made[0].glob("cells"):
        (tmp_path / "cells").symlink_to(path)
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = plan_study(design(), tmp_path, effect=0.02)
    assert found["obstacles"] == {"mnist/simple-cnn/low-rank/10": "both arms are near chance"}


def test_what_keeps_the_pilot_from_a_verdict_keeps_the_planned_study_from_it(made, tmp_path):
    results = json.loads(json.dumps(made[1]))
    results["comparisons"][0]["obstacle"] = "both arms are near chance"
    (tmp_path / "cells").symlink_to(made[0] / "cells")
    (tmp_path / "results.json").write_text(json.dumps(results))
    arm = "mnist/simple-cnn/low-rank/10"
    found = plan_study(design(), tmp_path, effect=0.02)
    assert found["standing"] == {arm: "both arms are near chance"}
    assert (found["chosen"], {o["power"] for o in found["options"]}) == (None, {0.0})
    assert {o["seeds"] for o in found["options"]} == {3}
    with pytest.raises(
        StudyError,
        match=rf"no design has a verdict on {arm}, since the pilot has none on {arm} \(both arms "
        r"are near chance\) and the study isn't to train for longer; no plan was written: give the "
        "study more epochs than the pilot had, or leave the arm out with --arms",
    ):
        write_plan(found, tmp_path / "plan.json")
    assert not (tmp_path / "plan.json").exists()
    # More epochs are what it asks for.
    longer = plan_study(design(epochs=20), tmp_path, effect=0.02)
    assert longer["standing"] == {}
    assert longer["chosen"]["power"] >= 0.8
    assert longer["obstacles"] == found["obstacles"]


def test_a_pair_of_arms_has_the_study_s_order(other_pilot):
    pilot = other_pilot(factorial=[("jpeg", "low-rank")])
    with pytest.raises(
        StudyError, match=r"different: factorial: the same pair in another order\); a pilot is the"
    ):
        plan_study(design(factorial=[("low-rank", "jpeg")]), pilot, effect=0.05)
