"""Killed, failed and shared runs of a study, and the folders that are refused."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from rankwise._files import PART, _machine, write_json
from rankwise.errors import RunError
from rankwise.heads.backbones import SmallResNet, save_backbone
from rankwise.study import conditions_of, study_status
from rankwise.study.cells import cells_of, run_cell
from rankwise.study.claim import claim
from rankwise.study.design import StudyError
from rankwise.study.remote import keep, run_away
from rankwise.study.report import write_report
from rankwise.study.results import read_results, write_results
from rankwise.study.run import load_data
from rankwise.study.status import current_results
from study.run_cases import predictions, run, study, timeless

pytestmark = pytest.mark.usefixtures("somebody")

QUADRATIC = {"quadratic": {"parameters": {"n_units": 4, "n_subnets": 1, "max_iter": 1}}}
QUICK = study(models=QUADRATIC, retrain=False)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("once") / "out"
    run(QUICK, folder)
    return folder


@pytest.fixture
def finished(once, tmp_path):
    """A folder that holds a finished run of `QUICK`."""
    return shutil.copytree(once, tmp_path / "finished")


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, somebody):
    design = study({"noise": {"kind": "callable", "function": "somebody_s_own:deadly"}}, epochs=3)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, json\n"
        "from rankwise.study import run_study\n"
        "from rankwise.study.reading import study_from\n"
        "study = study_from(json.loads(sys.argv[1]))\n"
        "run_study(study, sys.argv[2], workers=1, device='cpu')\n"
    )
    values = design.model_dump(mode="json", exclude_unset=True)
    path = os.pathsep.join(filter(None, (str(somebody), os.environ.get("PYTHONPATH"))))
    # Two updates an epoch: the tenth is in the second epoch of the second fold.
    killed = subprocess.run(
        [sys.executable, str(script), json.dumps(values), str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": path, "DEADLY_UPDATE": "10"},
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    status = study_status(tmp_path / "killed")
    assert (status["done"], status["running"], status["left"]) == (1, 0, 2)
    assert status["seconds_left"] > 0
    assert not status["complete"]
    place = tmp_path / "killed/cells/digits/own/noise/3/seed-42/fold-1"
    assert (place / "training").is_dir()
    assert not (tmp_path / "killed/results.json").exists()
    # A report of what there is, which leaves the rest to the next run.
    html = write_report(tmp_path / "killed").read_text(encoding="utf-8")
    assert "<strong>Not finished:</strong> 1 of 3 cells are done." in html
    preliminary = read_results(tmp_path / "killed")
    assert (preliminary["finished"], preliminary["device"]) == (None, "cpu")
    assert preliminary["data_sets"][0]["n_train"] == 32
    assert preliminary["tables"]["missing"]["done"] == 1
    assert not study_status(tmp_path / "killed")["complete"]
    resumed = run(design, tmp_path / "killed")
    whole = run(design, tmp_path / "whole")
    assert timeless(resumed) == timeless(whole)
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "whole")
    assert study_status(tmp_path / "killed")["complete"]


class Elsewhere:
    """An executor of other machines that has nothing to do."""

    remote = True

    def completed(self, task, items, common):
        assert not items
        return iter(())


@pytest.mark.parametrize("remote", [False, True])
def test_a_kill_right_after_a_cells_last_word_leaves_nothing_over(finished, monkeypatch, remote):
    place = next(finished.glob("cells/**/result.json")).parent
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = place / f"{PART}{_machine()}-{dead.pid}-0"
    left.mkdir()
    if remote:
        monkeypatch.setattr("rankwise.study.run.engine", lambda workers: Elsewhere())
    run(QUICK, finished)
    assert not left.exists()


def test_a_loss_that_is_no_number_is_one_of_a_cell_that_is_done(finished):
    path = next(finished.glob("cells/**/result.json"))
    before = path.read_text()
    write_json(path, json.loads(before) | {"test_loss": float("nan")})
    try:
        status = study_status(finished)
    finally:
        path.write_text(before)
    assert status["left"] == 0


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_record_is_named(finished, content):
    (finished / "results.json").unlink()
    (finished / "record.json").write_text(content)
    with pytest.raises(RunError, match=r"record\.json is damaged: it .*; the command that runs"):
        current_results(finished)
    run(QUICK, finished)
    assert current_results(finished)["finished"]


@pytest.mark.parametrize("rules", [None, 0])
def test_verdicts_of_other_rules_are_made_anew(finished, rules):
    stored = current_results(finished)
    write_results(stored | {"tables": "old", "rules": rules}, finished)
    assert current_results(finished)["tables"] == read_results(finished)["tables"] != "old"
    write_results(stored | {"tables": "as they are"}, finished)
    assert current_results(finished)["tables"] == "as they are"
    write_results(stored, finished)


def test_a_report_beside_a_run_is_up_to_date_and_the_run_has_the_last_word(tmp_path, monkeypatch):
    """One is written after every cell, as if somebody looked at a running study."""
    from rankwise.study import run as running

    reports = []

    def looked_at(study, cell, images, out, **options):
        outcome = run_cell(study, cell, images, out, **options)
        html = write_report(out).read_text(encoding="utf-8")
        reports.append(("Not finished" in html, len(read_results(out)["cells"])))
        return outcome

    monkeypatch.setattr(running, "run_cell", looked_at)
    design = study(["none", "low-rank"], epochs=1)
    results = run(design, tmp_path / "seen")
    assert reports == [(True, n) for n in range(1, 6)] + [(False, 6)]
    assert read_results(tmp_path / "seen")["gallery"] == results["gallery"] != []
    monkeypatch.undo()
    before = (tmp_path / "seen/results.json").read_bytes()
    write_report(tmp_path / "seen")
    assert (tmp_path / "seen/results.json").read_bytes() == before
    # Results of fewer cells, as after a failure, are brought up to date; their gallery stays.
    stale = results | {"cells": results["cells"][:2], "finished": None}
    (tmp_path / "seen/results.json").write_text(json.dumps(stale))
    write_report(tmp_path / "seen")
    again = read_results(tmp_path / "seen")
    assert timeless(again) == timeless(json.loads(before))
    assert again["finished"] is not None


def test_two_workers_give_the_numbers_of_one(tmp_path):
    design = study(["low-rank"], models=["simple-cnn"], epochs=1, retrain=False)
    one = run(design, tmp_path / "one")
    two = run(design, tmp_path / "two", workers=2)
    assert timeless(one) == timeless(two)
    assert predictions(tmp_path / "one") == predictions(tmp_path / "two")


def test_a_killed_worker_is_one_sentence_and_what_is_done_is_kept(tmp_path, monkeypatch):
    from joblib.externals.loky import get_reusable_executor

    arms = {"none": {}, "noise": {"kind": "callable", "function": "somebody_s_own:deadly"}}
    design = study(arms, epochs=3, retrain=False)
    get_reusable_executor().shutdown()  # Workers know the environment that they began in.
    monkeypatch.setenv("DEADLY_UPDATE", "5")
    with pytest.raises(RunError) as caught:
        run(design, tmp_path / "out", workers=2)
    kept = read_results(tmp_path / "out")
    done = study_status(tmp_path / "out")["done"]
    assert len(kept["cells"]) == done < 4
    assert str(caught.value) == (
        "one of 2 workers was ended from outside, as the system does when memory runs out; "
        f"{done} of 4 cells are done and kept, and the same command with fewer --workers goes on "
        "with the rest"
    )
    monkeypatch.delenv("DEADLY_UPDATE")
    resumed = run(design, tmp_path / "out")
    assert timeless(resumed["cells"]) == timeless(run(design, tmp_path / "whole")["cells"])


def test_a_failed_cell_leaves_the_others_and_is_run_again(tmp_path, monkeypatch):
    arms = {"bad": {"kind": "callable", "function": "somebody_s_own:failing"}, "none": {}}
    design = study(arms, epochs=1)
    flag = tmp_path / "fail"
    flag.touch()
    monkeypatch.setenv("FAIL", str(flag))
    with pytest.raises(RunError) as caught:
        run(design, tmp_path / "out")
    place = "cells/digits/own/bad/1/seed-42/fold-0"
    assert str(caught.value) == (
        f"3 of 6 cells failed; the first is {place}: OSError: the disk is full; the same command "
        "runs them again"
    )
    status = study_status(tmp_path / "out")
    assert (status["done"], status["failed"], status["left"]) == (3, 2, 3)
    assert status["failures"][place] == "OSError: the disk is full"
    html = write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "<li>digits/own/bad/1: 2 cells: OSError: the disk is full</li>" in html
    assert "Nothing can be said yet (2 folds, 1 seed). Not compared, as cells failed: bad." in html
    assert "Not compared: cells failed (OSError: the disk is full)." in html
    flag.unlink()
    results = run(design, tmp_path / "out")
    assert "Cells failed" not in write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert len(results["cells"]) == 6
    assert study_status(tmp_path / "out")["failed"] == 0


def test_a_report_beside_an_extension_says_how_far_it_is(finished):
    more = QUICK.model_copy(update={"seeds": (42, 43)})
    conditions = conditions_of(more)
    images = load_data(more, conditions)

    def words():
        html = write_report(finished).read_text(encoding="utf-8")
        return " ".join(html.split())

    assert "extension" not in words()
    # Stopped before its first cell: the finished study is there as it was.
    claim(more, images, finished, extend=True)
    text = words()
    assert (
        "<strong>An extension to 2 seeds is under way:</strong> 2 of 4 cells are done. What "
        "follows is of the 1 seed before it." in text
    )
    assert read_results(finished)["finished"]
    # Stopped after one.
    left = [cell for cell in cells_of(more, conditions) if cell.seed == 43]
    assert run_cell(more, left[0], images["digits"], finished) == "done"
    text = words()
    under_way = "<strong>Not finished:</strong> an extension to 2 seeds is under way; 3 of 4 cells"
    assert under_way in text
    assert "before it" not in text
    run(more, finished, extend=True)
    assert "under way" not in words()


def test_a_cell_that_another_run_holds_is_waited_for(tmp_path):
    design = study(models=QUADRATIC, retrain=False)
    conditions = conditions_of(design)
    cells = cells_of(design, conditions)
    out = tmp_path / "out"
    images = load_data(design, conditions)
    claim(design, images, out)
    assert run_cell(design, cells[1], images["digits"], out) == "done"
    held = out / cells[0].place / "lock"
    held.parent.mkdir(parents=True)
    # Another process's lock, as far as the file is concerned.
    lock = FileLock(held, thread_local=False)
    lock.acquire()
    assert run_cell(design, cells[0], images["digits"], out) == "busy"
    status = study_status(out)
    assert (status["done"], status["running"], status["left"]) == (1, 1, 0)
    timer = threading.Timer(1.0, lock.release)
    timer.start()
    results = run(design, out)
    timer.join()
    assert len(results["cells"]) == 2
    assert study_status(out)["running"] == 0


def test_a_folder_of_an_earlier_version_is_gone_on_with(finished):
    stored = json.loads((finished / "study.json").read_text())
    del stored["study"]["relative_rope"]  # A key that it didn't have yet.
    del stored["looks"]
    (finished / "study.json").write_text(json.dumps(stored))
    assert len(run(QUICK, finished)["cells"]) == 2
    with pytest.raises(RunError, match=r"holds another study \(different: rope\); choose another"):
        run(QUICK.model_copy(update={"rope": 0.01}), finished)
    stored["study"]["unknown"] = 1
    (finished / "study.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match=r"holds another study \(different: relative_rope\)"):
        run(QUICK, finished)


@pytest.mark.parametrize("change", ["2 + batch", "batch + add", "helper(batch)"])
def test_a_folder_keeps_to_the_code_of_functions(tmp_path, monkeypatch, change):
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "kept_to_code.py"
    top = "from somebody_s_own import make\nadd = 1\ndef helper(batch):\n    return batch\n"
    design = study({"own": {"kind": "callable", "function": "kept_to_code:change"}})
    images = load_data(design, conditions_of(design))

    def claimed(text):
        source.write_text(top + f"def change(batch):\n    return {text}\n")
        importlib.invalidate_caches()
        sys.modules.pop("kept_to_code", None)
        return claim(design, images, tmp_path / "out")

    started = claimed("1 + batch")
    assert claimed("1 + batch") == started
    with pytest.raises(RunError, match=r"\(different: the code of arms.own.function\)"):
        claimed(change)


def test_a_folder_keeps_to_the_code_of_the_package(tmp_path, monkeypatch):
    design = study()
    images = load_data(design, conditions_of(design))
    claim(design, images, tmp_path)
    monkeypatch.setattr("rankwise.study.claim.code_of_package", lambda *names: "other")
    with pytest.raises(RunError, match=r"\(different: code\)"):
        claim(design, images, tmp_path)


def test_a_function_that_cannot_be_told_from_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "with_a_lock.py").write_text(
        "import threading\nlock = threading.Lock()\ndef change(batch):\n    lock.acquire()\n"
    )
    design = study({"own": {"kind": "callable", "function": "with_a_lock:change"}})
    with pytest.raises(StudyError, match=r"with_a_lock:change can't be told .* is a _thread.lock"):
        claim(design, load_data(design, conditions_of(design)), tmp_path / "out")


def test_a_folder_keeps_to_its_files_of_weights(tmp_path):
    def weights(seed, name):
        torch.manual_seed(seed)
        options = {"width": 4, "n_features": 8}
        record = {"architecture": "small-resnet", "n_classes": 5, "options": options}
        save_backbone(SmallResNet(5, **options), tmp_path / name, record)

    def on(name):
        place = str(tmp_path / name)
        model = {"network": "backbone", "backbone": place, "frozen_epochs": 1, "unfreeze": 2}
        return study(models={"own": model, "quadratic": {}}, epochs=1, retrain=False)

    weights(0, "a.safetensors")
    design, images = on("a.safetensors"), {}
    first = claim(design, images, tmp_path / "out")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "same.safetensors")
    assert claim(on("same.safetensors"), images, tmp_path / "out") == first
    weights(1, "a.safetensors")
    other = on("a.safetensors")
    with pytest.raises(
        RunError, match=r"another study \(different: the file of models\.own\.backbone\); choose"
    ):
        claim(other, images, tmp_path / "out")
    # Earlier versions kept names of files alone.
    stored = json.loads((tmp_path / "out/study.json").read_text())
    del stored["files"], stored["device"]
    (tmp_path / "out/study.json").write_text(json.dumps(stored))
    assert claim(other, images, tmp_path / "out") == first
    with pytest.raises(RunError, match=r"another study \(different: models\); choose"):
        claim(on("same.safetensors"), images, tmp_path / "out")


def test_a_folder_does_not_keep_to_the_order_of_seeds(tmp_path):
    first = claim(QUICK.model_copy(update={"seeds": (3, 1, 2)}), {}, tmp_path)
    for seeds in ((1, 2, 3), (2, 3, 1)):
        assert claim(QUICK.model_copy(update={"seeds": seeds}), {}, tmp_path) == first
        assert claim(QUICK.model_copy(update={"seeds": seeds}), {}, tmp_path, extend=True) == first
    message = (
        rf"^{tmp_path} holds this study with more seeds \(3,1,2\); give all of them, or choose"
    )
    with pytest.raises(RunError, match=message):
        claim(QUICK.model_copy(update={"seeds": (2, 1)}), {}, tmp_path)
    with pytest.raises(RunError, match=r"another study \(different: seeds\); choose another"):
        claim(QUICK.model_copy(update={"seeds": (1, 2, 4)}), {}, tmp_path)
    assert (
        claim(QUICK.model_copy(update={"seeds": (4, 1, 2, 3)}), {}, tmp_path, extend=True).look == 2
    )


def test_a_folder_keeps_to_its_kind_of_device(finished, tmp_path):
    results = current_results(finished)
    assert [cell["device"] for cell in results["cells"]] == ["cpu", "cpu"]
    assert results["devices"] == ["cpu"]
    images = load_data(QUICK, conditions_of(QUICK))
    with pytest.raises(RunError) as caught:
        claim(QUICK, images, finished, "cuda:1")
    assert str(caught.value) == (
        f"{finished} was begun on cpu, whose numbers differ from those of cuda; go on with "
        "--device cpu, or choose another folder"
    )
    claim(QUICK, images, tmp_path / "other", "cuda:0")
    claim(QUICK, images, tmp_path / "other", "cuda:1")


def test_folders_that_are_refused(finished, tmp_path):
    other = study(models=QUADRATIC, retrain=False, seeds=[1])
    with pytest.raises(RunError, match=r"holds another study \(different: seeds\); choose another"):
        run(other, finished)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(RunError, match="isn't empty and holds no study"):
        run(QUICK, tmp_path / "full")
    with pytest.raises(RunError, match="is a file; give a folder"):
        run(QUICK, tmp_path / "full/file")
    # A temporary file is all that a run killed at its very beginning leaves.
    (tmp_path / "begun").mkdir()
    (tmp_path / f"begun/{PART}00000000-1-x1-study.json").touch()
    (tmp_path / "begun/.lock").touch()
    assert run(QUICK, tmp_path / "begun")["cells"]
    (finished / "study.json").write_text("{")
    with pytest.raises(RunError, match=r"study\.json is damaged: it isn't JSON"):
        run(QUICK, finished)
    (finished / "study.json").write_text("[]")
    with pytest.raises(RunError, match="is damaged or foreign"):
        study_status(finished)
    (finished / "study.json").write_text('{"study": {}}')
    with pytest.raises(RunError, match="describes no study"):
        study_status(finished)
    with pytest.raises(RunError, match="holds no study; 'rankwise study run' makes one"):
        study_status(tmp_path / "nowhere")


def test_a_cell_from_elsewhere_brings_what_is_its_own(tmp_path):
    """Neither the degraded images of all cells nor what an interrupted one goes on from."""
    design = study(models=QUADRATIC, degraded="all", retrain=False)
    condition, *_ = conditions_of(design)
    images = load_data(design, [condition])[condition.data_set]
    cell = next(cell for cell in cells_of(design, [condition]) if cell.fold is not None)
    options = {"best_epochs": (), "device": "cpu", "tensorboard": False}
    _, files = run_away(design, cell, images, **options)
    assert {Path(name).parent.as_posix() for name in files} == {cell.place}
    (tmp_path / cell.place).mkdir(parents=True)
    (tmp_path / cell.place / "failure.json").touch()  # of an earlier try
    keep(files, tmp_path, cell)
    assert not (tmp_path / cell.place / "failure.json").exists()
    here = tmp_path / "here"
    run_cell(design, cell, images, here, **options)
    (there,) = (json.loads(files[name]) for name in files if name.endswith("result.json"))
    assert timeless([there]) == timeless(
        [json.loads((here / cell.place / "result.json").read_text())]
    )
