"""Studies that follow a plan: from their first moment, with its design and its images, or not."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest

from rankwise.data import load_images
from rankwise.errors import RunError
from rankwise.study.design import StudyError
from rankwise.study.methods import methods
from rankwise.study.pilots import read_pilot
from rankwise.study.plan import plan_study
from rankwise.study.preregistration import PLAN, as_planned, read_plan
from rankwise.study.reading import study_from
from rankwise.study.report import write_report
from study.run_cases import run


def design(seeds=(1,), **more):
    values = {
        "protocol": "paper",
        "data": {"digits": {"source": "digits", "limit": 60}},
        "models": {"quadratic": {"parameters": {"n_units": 4, "n_subnets": 1, "max_iter": 1}}},
        "arms": ["none", "low-rank"],
        "folds": 2,
        "seeds": list(seeds),
        "degraded": "none",
        "retrain": False,
    }
    return study_from(values | more)


def plan_file(folder, study, name="plan.json", **more):
    path = folder / name
    images = load_images("digits", "all", limit=60)
    plan = {
        "format": PLAN,
        "written": "2026-11-01T08:00:00+0000",
        "study": study.to_json(),
        "fingerprints": {"digits": images.fingerprint},
        "files": {},
        "chosen": {"folds": 2, "seeds": 1},
        "pilot": {"started": None},
    }
    path.write_text(json.dumps(plan | more))
    return path


@pytest.fixture(scope="module")
def unplanned(tmp_path_factory):
    out = tmp_path_factory.mktemp("unplanned") / "out"
    run(design(), out)
    return out


def test_a_plan_stays_with_its_study(tmp_path):
    out, plan = tmp_path / "out", plan_file(tmp_path, design())
    digest = hashlib.sha256(plan.read_bytes()).hexdigest()
    results = run(design(), out, plan=plan)
    kept = {"sha256": digest, "written": "2026-11-01T08:00:00+0000"}
    assert json.loads((out / "study.json").read_text())["plan"] == kept
    assert (results["plan"], results["plan_written"]) == (digest, kept["written"])
    assert results["seeds_after_plan"] == []
    # Neither a run that doesn't name it nor an extension loses it.
    assert run(design(), out)["plan"] == digest
    results = run(design((1, 4, 5)), out, extend=True)
    assert (results["plan"], results["seeds_after_plan"]) == (digest, [4, 5])
    told = f"plan written before, sha256 {digest}; seeds added later, beyond the plan: 4, 5."
    assert told in methods(results)
    page = write_report(out).read_text()
    assert "seeds added after it, beyond the plan: 4, 5" in page
    assert "written 2026-11-01T08:00:00+0000" in page
    assert run(design((1, 4, 5)), out)["seeds_after_plan"] == [4, 5]


def test_a_plan_that_comes_later_is_refused(unplanned, tmp_path):
    out = tmp_path / "posthoc"
    shutil.copytree(unplanned, out)
    claimed = (out / "study.json").read_text()
    started = json.loads(claimed)["started"]
    with pytest.raises(
        RunError,
        match="posthoc was begun without a plan, and none can be made afterwards; choose another "
        "folder, or leave out --plan",
    ):
        run(design(), out, plan=plan_file(tmp_path, design()))
    own = plan_file(tmp_path, design(), "own.json", pilot={"started": started})
    with pytest.raises(
        RunError,
        match="posthoc is the pilot that the plan was made from, or a copy of it; a planned study "
        "needs a folder of its own",
    ):
        run(design(), out, plan=own)
    assert (out / "study.json").read_text() == claimed
    assert json.loads((out / "results.json").read_text())["plan"] is None
    (out / "study.json").write_text(json.dumps(json.loads(claimed) | {"plan": "abc"}))
    with pytest.raises(RunError, match=r"was begun with another plan \(sha256 abc\); choose anoth"):
        run(design(), out, plan=plan_file(tmp_path, design()))
    (out / "study.json").write_text(json.dumps(json.loads(claimed) | {"plan": {"a": 1}}))
    with pytest.raises(RunError, match=r"study\.json is damaged: it has a plan without a digest"):
        run(design(), out)
    # As earlier versions kept it.
    (out / "study.json").write_text(json.dumps(json.loads(claimed) | {"plan": "abc"}))
    assert (run(design(), out)["plan"], run(design(), out)["plan_written"]) == ("abc", None)


def test_other_images_and_designs_than_planned_are_refused(tmp_path):
    plan = plan_file(tmp_path, design())
    images = load_images("digits", "all")
    np.savez(tmp_path / "a.npz", images=255 - images.images, labels=images.labels)
    other = design(data={"digits": {"source": str(tmp_path / "a.npz"), "limit": 60}})
    with pytest.raises(
        StudyError,
        match="the images of 'digits' aren't those that the plan was made for; give the same",
    ):
        run(other, tmp_path / "out", plan=plan)
    with pytest.raises(StudyError, match=r"isn't the planned one \(different: epochs, seeds\)"):
        run(design((2,), epochs=3), tmp_path / "out", plan=plan)
    assert not (tmp_path / "out").exists()


def test_folds_seeds_and_images_are_the_plan_s_where_none_are_named(tmp_path):
    planned = design((8, 9), folds=3)
    plan = read_plan(plan_file(tmp_path, planned))
    file = design(data={"digits": {"source": "elsewhere"}})
    study = as_planned(plan, file)
    assert (study.folds, study.seeds, study.data["digits"].limit) == (3, (8, 9), 60)
    assert study.data["digits"].source == "elsewhere"
    study = as_planned(plan, file, folds=False, seeds=False, limits=False)
    assert study == file


def test_what_is_no_plan_is_refused(tmp_path):
    path = plan_file(tmp_path, design(), format=1)
    with pytest.raises(RunError, match="is no plan that this version reads; 'rankwise study plan'"):
        read_plan(path)
    path = plan_file(tmp_path, design(), chosen=None)
    with pytest.raises(StudyError, match="chose no design, so there is nothing in it to follow"):
        read_plan(path)
    path = plan_file(tmp_path, design(), pilot=3)
    with pytest.raises(RunError, match=r"plan\.json is damaged"):
        read_plan(path)
    path.write_text("{")
    with pytest.raises(RunError, match="is damaged: it isn't JSON"):
        read_plan(path)


def test_an_unfinished_pilot_without_results_is_read(tmp_path):
    pilot = tmp_path / "pilot"
    small = design((1, 2), data={"digits": {"source": "digits", "limit": 100}})
    run(small, pilot)
    (pilot / "results.json").unlink()
    missing = pilot / "cells/digits/quadratic/low-rank/1/seed-2/fold-1"
    shutil.rmtree(missing)
    planned = design((1, 2, 3), data={"digits": {"source": "digits"}}, rope=0.001)
    found = plan_study(planned, pilot, effect=0.5, wanted_power=0.5)
    assert found["pilot"]["images"] == {"digits": 100}
    assert found["study"]["seeds"][0] == 3
    assert found["pilot"]["started"] == json.loads((pilot / "study.json").read_text())["started"]


def test_other_code_than_planned_or_piloted_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module, text = tmp_path / "stains_of_plans.py", "def stained(batch):\n    return batch {} 0.1\n"
    module.write_text(text.format("+"))
    arms = {"none": {}, "own": {"kind": "callable", "function": "stains_of_plans:stained"}}
    study = design(arms=arms, models=["simple-cnn"], epochs=1)
    pilot = tmp_path / "pilot"
    run(study, pilot)
    digests = json.loads((pilot / "study.json").read_text())["files"]
    assert list(digests) == ["arms.own.function"]
    plan = plan_file(tmp_path, study, files=digests)
    assert run(study, tmp_path / "followed", plan=plan)["plan"]
    found = read_pilot(pilot, study)
    assert found.folder == pilot
    module.write_text(text.format("- 2 *"))
    monkeypatch.delitem(sys.modules, "stains_of_plans")
    with pytest.raises(
        StudyError,
        match=r"the code, weights or library of arms\.own\.function aren't those that the plan was "
        "made for; give the same, or plan anew",
    ):
        run(study, tmp_path / "other", plan=plan)
    assert not (tmp_path / "other").exists()
    with pytest.raises(
        StudyError, match=r"different: the code, weights or library of arms\.own\.function\)"
    ):
        read_pilot(pilot, study)
