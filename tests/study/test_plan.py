"""Planning: what a design tells and costs, from a pilot; and studies that follow a plan."""

import json

import pytest

from rankwise.errors import RunError
from rankwise.study.design import StudyError
from rankwise.study.infer import ImageNoise
from rankwise.study.plan import digest_of, plan_study, planned_digest, write_plan
from rankwise.study.power import power
from study.made_results import make_results
from study.run_cases import study


@pytest.fixture
def pilot(tmp_path):
    return make_results(tmp_path, data_sets=("mnist",), folds=2, seeds=(1, 2)), tmp_path


def test_the_cheapest_design_that_tells_is_chosen(pilot):
    results, folder = pilot
    found = plan_study(study(), folder, effect=0.03)
    chosen = found["chosen"]
    assert chosen["power"] >= 0.8
    cheaper = [o for o in found["options"] if o["hours"] < chosen["hours"]]
    assert all(o["power"] < 0.8 or o["folds"] * o["seeds"] < 15 for o in cheaper)
    assert found["study"]["folds"] == chosen["folds"]
    assert len(found["study"]["seeds"]) == chosen["seeds"]
    assert found["comparisons"] == len(results["comparisons"])
    # A smaller effect needs more, and one too small can't be told.
    harder = plan_study(study(), folder, effect=0.02)["chosen"]
    assert harder is None or harder["hours"] >= chosen["hours"]
    assert plan_study(study(), folder, effect=1e-5)["chosen"] is None


def test_its_power_is_that_of_the_hardest_comparison(pilot):
    from scipy import stats

    results, folder = pilot
    option = next(
        o
        for o in plan_study(study(), folder, effect=0.01)["options"]
        if (o["folds"], o["seeds"]) == (5, 3)
    )
    found = []
    for c in results["comparisons"]:
        # Two folds show half of their variance, five four fifths; the spread that one of five
        # pilots would exceed.
        wide = c["effect"]["deviation"] * (3 / stats.chi2.ppf(0.2, 3)) ** 0.5
        wide *= (0.8 / 0.5) ** 0.5
        noise = ImageNoise(**c["images"])
        level = 0.04 / len(results["comparisons"])
        found.append(power(0.01, wide, 15, 0.25, level, noise))
    assert option["power"] == pytest.approx(min(found))


def test_costs_are_those_of_the_pilot(pilot):
    results, folder = pilot
    one, two = (
        plan_study(study(retrain=False), folder, effect=0.01, workers=w)["options"][0]
        for w in (1, 2)
    )
    assert one["hours"] == pytest.approx(2 * two["hours"])
    seconds = [c["seconds"] for c in results["cells"]]
    cells = len(results["conditions"]) * one["folds"] * one["seeds"]
    assert one["hours"] == pytest.approx(cells * sum(seconds) / len(seconds) / 3600)


def test_refusals(pilot, tmp_path):
    _, folder = pilot
    with pytest.raises(ValueError, match="effect must be a share of accuracy between 0 and 1"):
        plan_study(study(), folder, effect=2.0)
    with pytest.raises(ValueError, match="power must lie between 0 and 1, got 1"):
        plan_study(study(), folder, effect=0.01, wanted_power=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    make_results(empty, data_sets=("mnist",), finished=0.0)
    with pytest.raises(StudyError, match="has no comparison with two finished folds that differ"):
        plan_study(study(), empty, effect=0.01)


def test_a_study_follows_its_plan_or_is_refused(pilot, tmp_path):
    _, folder = pilot
    design = study(epochs=7)
    found = plan_study(design, folder, effect=0.01)
    digest = write_plan(found, tmp_path / "plan.json")
    assert digest == digest_of(json.loads((tmp_path / "plan.json").read_text()))
    assert len(digest) == 64
    planned = type(design).model_validate(found["study"])
    assert planned_digest(tmp_path / "plan.json", planned) == digest
    with pytest.raises(StudyError, match=r"isn't the planned one \(different: epochs\)"):
        planned_digest(tmp_path / "plan.json", planned.model_copy(update={"epochs": 8}))
    (tmp_path / "other.json").write_text('{"format": 9, "study": {}}')
    with pytest.raises(RunError, match="is no plan; 'rankwise study plan' writes one"):
        planned_digest(tmp_path / "other.json", planned)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RunError, match="is damaged: it isn't JSON"):
        planned_digest(tmp_path / "bad.json", planned)
