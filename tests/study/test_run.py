"""Studies from beginning to end: cells, folders, interruptions, failures."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from filelock import FileLock

from rankwise.data import load_images
from rankwise.errors import DataError, MissingDependencyError, ModelFileError, RunError
from rankwise.lowrank import LowRankAugmenter, RandomLowRank
from rankwise.lowrank.export import augment_files
from rankwise.study import StudyError, conditions_of, run_study, study_status
from rankwise.study.cells import cells_of, run_cell
from rankwise.study.reading import study_from
from rankwise.study.run import claim, load_data
from rankwise.study.status import read_results

SOMEBODY = '''
import os, signal
import torch
from torch import nn

calls = 0


def make(image_shape, n_classes, width=4):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, width, 3)
            self.head = nn.Linear(width, n_classes)
            self.n_features = width

        def features(self, x):
            return torch.relu(self.convolution(x)).mean(dim=(2, 3))

        def forward(self, x):
            return self.head(self.features(x))

    return Network()


def scores_of_three(image_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def too_deep(image_shape, n_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten(), nn.Linear(4, n_classes))


def no_network(image_shape, n_classes):
    return 3


def deadly(batch):
    """Ends the process at the update that DEADLY_UPDATE names."""
    global calls
    calls += len(batch) > 2
    if str(calls) == os.environ.get("DEADLY_UPDATE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return batch + 0.1 * torch.randn_like(batch)


def broken(image_shape, n_classes, width):
    raise KeyError("nothing there")


def failing(batch):
    if len(batch) > 2 and os.path.exists(os.environ.get("FAIL", "")):
        raise OSError("the disk is full\\nand more")
    return batch
'''


@pytest.fixture(autouse=True)
def somebody(tmp_path_factory, monkeypatch):
    """A user's own module of networks and arms."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "somebody_s_own.py").write_text(SOMEBODY)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("somebody_s_own", None)


def study(arms=("none",), protocol="paper", **more):
    values = {
        "protocol": protocol,
        "data": {"digits": {"source": "digits", "limit": 80}},
        "models": {"own": {"network": "somebody_s_own:make"}},
        "arms": arms if isinstance(arms, dict) else list(arms),
        "epochs": 2,
        "folds": 2,
        "batch_size": 16,
        "degraded": "none",
    }
    return study_from(values | more)


def run(design, out, **options):
    return run_study(design, out, **({"workers": 1, "device": "cpu"} | options))


def timeless(value):
    """Without what a second run may measure differently."""
    if isinstance(value, dict):
        hidden = ("seconds", "train_seconds", "started", "finished", "environment", "workers")
        return {k: timeless(v) for k, v in value.items() if k not in hidden}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def predictions(out):
    found = {}
    for path in sorted(out.rglob("predictions.npz")):
        with np.load(path) as stored:
            found[str(path.relative_to(out))] = {k: stored[k].tolist() for k in stored}
    return found


@pytest.fixture(scope="module")
def paper_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own-once")
    (folder / "somebody_s_own.py").write_text(SOMEBODY)
    sys.path.insert(0, str(folder))
    try:
        out = tmp_path_factory.mktemp("paper") / "out"
        run(study(["none", "low-rank", "matched"], degraded="retrain"), out, command="the command")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("somebody_s_own", None)
    return out


def test_results_hold_every_cell(paper_out):
    results = read_results(paper_out)
    assert results["format"] == 1
    assert results["command"] == "the command"
    assert results["study"]["folds"] == 2
    assert results["environment"]["torch"]
    assert [c["id"] for c in results["conditions"]] == [
        "digits/own/none/2",
        "digits/own/low-rank/4",
        "digits/own/matched/4",
    ]
    assert {c["n_parameters"] for c in results["conditions"]} == {4 * 9 + 4 + 4 * 10 + 10}
    assert len(results["cells"]) == 3 * 3
    (data,) = results["data_sets"]
    assert (data["n_train"], data["n_validation"], data["n_test"]) == (32, 32, 16)
    assert data["reduced"]
    assert "80 images" in data["notes"][0]
    assert data["image_shape"] == [8, 8]
    for cell in results["cells"]:
        assert cell["status"] == "done"
        assert len(cell["history"]) == cell["epochs"]
        assert cell["history"][0]["epoch"] == 1
        if cell["stage"] == "fold":
            accuracies = [entry["validation_accuracy"] for entry in cell["history"]]
            assert cell["validation_accuracy"] == pytest.approx(max(accuracies))
            assert accuracies[cell["best_epoch"] - 1] == max(accuracies)
            assert cell["degraded"] is None
        else:
            assert cell["validation_accuracy"] is None
            assert cell["n_train"] == 64
            assert set(cell["degraded"]) == {"clean", "svd", "jpeg", "downscale", "blur", "noise"}
            assert cell["degraded"]["clean"] == cell["test_accuracy"]
    assert len(results["leaks"]) == 9
    for entry in results["leaks"]:
        assert sum(v for k, v in entry.items() if k.endswith(("_test", "_validation"))) == 0
    assert {c["condition"] for c in results["comparisons"]} == {
        "digits/own/low-rank/4",
        "digits/own/matched/4",
    }
    assert results["gallery"] == [
        {"data_set": "digits", "arm": "low-rank", "file": "gallery/digits-low-rank.png"}
    ]
    assert (paper_out / "gallery/digits-low-rank.png").stat().st_size > 1000


def test_retraining_runs_for_the_epochs_of_equation_5(paper_out):
    results = read_results(paper_out)
    for condition in results["conditions"]:
        cells = [c for c in results["cells"] if c["condition"] == condition["id"]]
        best = [c["best_epoch"] for c in cells if c["stage"] == "fold"]
        (again,) = [c for c in cells if c["stage"] == "retrain"]
        assert again["epochs"] == max(1, round(sum(best) / 2 * 1.2))
        assert len(again["history"]) == again["epochs"]


def test_predictions_give_the_accuracies(paper_out):
    for cell in read_results(paper_out)["cells"]:
        with np.load(paper_out / cell["predictions"]) as stored:
            right = stored["test_predicted"] == stored["test_labels"]
            assert right.mean() == pytest.approx(cell["test_accuracy"])
            assert len(stored["test_index"]) == len(right) == 16
            if cell["stage"] == "fold":
                right = stored["validation_predicted"] == stored["validation_labels"]
                assert right.mean() == pytest.approx(cell["validation_accuracy"])
                assert len(stored["validation_index"]) == 32
            else:
                assert len(stored["validation_index"]) == 0


def test_a_cell_s_folder(paper_out):
    place = paper_out / "cells/digits/own/low-rank/4/seed-42/fold-1"
    assert sorted(p.name for p in place.iterdir()) == [
        "cell.json",
        "history.csv",
        "lock",
        "predictions.npz",
        "result.json",
    ]
    with (place / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    result = json.loads((place / "result.json").read_text())
    assert float(rows[2]["validation_loss"]) == result["history"][2]["validation_loss"]
    assert json.loads((place / "cell.json").read_text())["arm"]["energy"] == 0.975
    assert (place.parent / "retrain/weights.safetensors").exists()


def test_updates_grow_with_copies_and_a_matched_arm_has_as_many(paper_out):
    results = read_results(paper_out)
    cells = {(c["condition"].split("/")[2], c["fold"]): c for c in results["cells"]}
    plain, low_rank, matched = (cells[arm, 0] for arm in ("none", "low-rank", "matched"))
    assert (plain["n_copies"], matched["n_copies"]) == (0, 0)
    assert low_rank["n_copies"] > 1
    assert plain["n_updates"] == 2 * 2
    assert low_rank["n_updates"] == matched["n_updates"] == 4 * 3


def test_a_second_run_does_nothing_anew(paper_out):
    before = {p: p.stat().st_mtime_ns for p in paper_out.rglob("result.json")}
    first = read_results(paper_out)
    design = study(["none", "low-rank", "matched"], degraded="retrain")
    again = run(design, paper_out, command="the command")
    assert {p: p.stat().st_mtime_ns for p in paper_out.rglob("result.json")} == before
    assert timeless(again) == timeless(first)
    assert again["started"] == first["started"]


def test_status_of_a_complete_study(paper_out):
    status = study_status(paper_out)
    assert (status["cells"], status["done"], status["running"], status["left"]) == (9, 9, 0, 0)
    assert status["complete"]
    assert status["seconds_left"] == 0
    assert status["conditions"][1] == {
        "id": "digits/own/low-rank/4",
        "cells": 3,
        "done": 3,
        "running": 0,
    }


# -- the sound protocol ---------------------------------------------------------------------


def test_the_sound_protocol_levels_updates_and_shares_nothing(tmp_path):
    results = run(study(["low-rank"], protocol="sound", degraded=None), tmp_path / "out")
    assert {c["arm"] for c in results["conditions"]} == {"none", "low-rank", "duplicate"}
    folds = [c for c in results["cells"] if c["stage"] == "fold"]
    assert len({c["n_updates"] for c in folds}) == 1
    assert len({c["n_updates"] for c in results["cells"] if c["stage"] == "retrain"}) == 1
    assert all(len(c["degraded"]["svd"]) == 5 for c in results["cells"])
    for entry in results["leaks"]:
        assert [v for k, v in entry.items() if k not in ("condition", "seed", "fold")] == [0] * 5
    roles = {(c["arm"], c["baseline_arm"]) for c in results["comparisons"]}
    assert roles == {("low-rank", "none"), ("low-rank", "duplicate"), ("duplicate", "none")}


def test_the_notebook_protocol_leaks_and_says_so(tmp_path):
    design = study({"low-rank": {"skip_threshold": 0.2}}, protocol="notebook")
    results = run(design, tmp_path / "out")
    folds = [e for e in results["leaks"] if e["fold"] is not None]
    assert all(e["copies_of_validation_in_train"] > 0 for e in folds)
    (again,) = [e for e in results["leaks"] if e["fold"] is None]
    assert again["train_test"] == 16
    assert any("leaks on purpose" in note for note in results["data_sets"][0]["notes"])
    best = [c["best_epoch"] for c in results["cells"] if c["stage"] == "fold"]
    (cell,) = [c for c in results["cells"] if c["stage"] == "retrain"]
    assert cell["epochs"] == max(1, int((sum(best) / 2 - 1) * 1.2))


@pytest.mark.parametrize("file_format", ["parquet", "folder"])
def test_copies_are_never_parted_from_their_originals(tmp_path, file_format):
    images = load_images("digits", limit=80)
    augmenter = LowRankAugmenter(RandomLowRank(0.8, p=0.5, seed=1))
    augment_files(images, augmenter, tmp_path / "more", file_format)
    data = {"more": {"source": str(tmp_path / "more")}}
    for protocol in ("paper", "notebook"):
        out = tmp_path / protocol
        with pytest.raises(
            DataError,
            match=f"^data set 'more' holds copies beside their originals, and protocol "
            f"'{protocol}' would part them; protocol 'sound' keeps them together, or give the "
            "originals alone$",
        ):
            run(study(protocol=protocol, data=data), out)
        assert not out.exists()
    results = run(study(protocol="sound", data=data), tmp_path / "sound")
    for cell in results["leaks"]:
        assert cell["train_validation"] == cell["train_test"] == cell["validation_test"] == 0


# -- interruptions --------------------------------------------------------------------------


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
    # Two updates an epoch: the tenth is in the second epoch of the second fold.
    killed = subprocess.run(
        [sys.executable, str(script), json.dumps(values), str(tmp_path / "killed")],
        env=os.environ | {"PYTHONPATH": str(somebody), "DEADLY_UPDATE": "10"},
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
    with pytest.raises(RunError, match=r"results\.json isn't there yet"):
        read_results(tmp_path / "killed")
    resumed = run(design, tmp_path / "killed")
    whole = run(design, tmp_path / "whole")
    assert timeless(resumed) == timeless(whole)
    assert predictions(tmp_path / "killed") == predictions(tmp_path / "whole")
    assert study_status(tmp_path / "killed")["complete"]


def test_two_workers_give_the_numbers_of_one(tmp_path):
    design = study(["low-rank"], models=["simple-cnn"], epochs=1, retrain=False)
    one = run(design, tmp_path / "one")
    two = run(design, tmp_path / "two", workers=2)
    assert timeless(one) == timeless(two)
    assert predictions(tmp_path / "one") == predictions(tmp_path / "two")


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
    flag.unlink()
    results = run(design, tmp_path / "out")
    assert len(results["cells"]) == 6
    assert study_status(tmp_path / "out")["failed"] == 0


@pytest.mark.timeout(60)
def test_a_cell_that_another_run_holds_is_waited_for(tmp_path):
    design = study(models=["quadratic"], retrain=False)
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


def test_folders_that_are_refused(tmp_path):
    design = study(models=["quadratic"], retrain=False)
    run(design, tmp_path / "out")
    other = study(models=["quadratic"], retrain=False, seeds=[1])
    with pytest.raises(RunError, match=r"holds another study \(different: seeds\); choose another"):
        run(other, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(RunError, match="isn't empty and holds no study"):
        run(design, tmp_path / "full")
    with pytest.raises(RunError, match="is a file; give a folder"):
        run(design, tmp_path / "full/file")
    # A temporary file is all that a run killed at its very beginning leaves.
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/.study.json.x1.json").touch()
    (tmp_path / "begun/.lock").touch()
    assert run(design, tmp_path / "begun")["cells"]
    (tmp_path / "out/study.json").write_text("{")
    with pytest.raises(RunError, match=r"study\.json is damaged: it isn't JSON"):
        run(design, tmp_path / "out")
    (tmp_path / "out/study.json").write_text("[]")
    with pytest.raises(RunError, match="is damaged or foreign"):
        study_status(tmp_path / "out")
    (tmp_path / "out/study.json").write_text('{"study": {}}')
    with pytest.raises(RunError, match="describes no study"):
        study_status(tmp_path / "out")
    with pytest.raises(RunError, match="holds no study; 'rankwise study run' makes one"):
        study_status(tmp_path / "nowhere")


# -- models ---------------------------------------------------------------------------------


def test_the_quadratic_classifier_as_a_model(tmp_path):
    models = {"quadratic": {"parameters": {"n_units": 20, "n_subnets": 2, "max_iter": 3}}}
    results = run(study(["none", "low-rank"], protocol="sound", models=models), tmp_path / "out")
    assert [c["epochs"] for c in results["conditions"]] == [1, 1, 1]
    for cell in results["cells"]:
        assert len(cell["history"]) == 1
        assert cell["test_accuracy"] > 0.2
        assert np.isfinite(cell["test_loss"])
    assert results["conditions"][0]["n_parameters"] > 200
    retrained = tmp_path / "out/cells/digits/quadratic/none/1/seed-42/retrain"
    from rankwise import QuadraticClassifier

    assert QuadraticClassifier.load(retrained).n_parameters_total_ > 200


def test_fine_tuning_trains_in_two_stages(tmp_path):
    models = {
        "own": {
            "network": "somebody_s_own:make",
            "parameters": {"width": 6},
            "transfer": True,
            "frozen_epochs": 3,
            "unfreeze": 1,
        }
    }
    for protocol in ("paper", "notebook"):
        design = study(["low-rank"], protocol=protocol, models=models, retrain=False, epochs=1)
        results = run(design, tmp_path / protocol)
        cell = results["cells"][0]
        # SVD arms train twice as long; the history is that of the second stage.
        assert [entry["epoch"] for entry in cell["history"]] == [1, 2]
        assert cell["history"][0]["learning_rate"] == pytest.approx(1e-5)
        steps = cell["history"][0]["n_updates"]
        frozen = cell["n_updates"] - 2 * steps
        # The notebook's first stage sees all folds, so it takes more updates.
        assert frozen == 3 * steps if protocol == "paper" else frozen > 3 * steps


def test_a_pre_trained_backbone_under_a_new_head(tmp_path):
    import torch

    from rankwise.nets.backbones import SmallResNet, save_backbone

    torch.manual_seed(0)
    path = tmp_path / "own.safetensors"
    options = {"width": 4, "n_features": 8}
    record = {"architecture": "small-resnet", "n_classes": 5, "options": options}
    save_backbone(SmallResNet(5, **options), path, record)
    model = {"network": "backbone", "backbone": str(path), "frozen_epochs": 1, "unfreeze": 2}
    design = study(models={"own": model}, epochs=1)
    results = run(design, tmp_path / "out")
    assert len(results["cells"]) == 3
    # The new head replaces the old one: 8 features and 10 classes.
    old = sum(p.numel() for p in SmallResNet(5, **options).parameters())
    assert results["conditions"][0]["n_parameters"] == old - (8 * 5 + 5) + (8 * 10 + 10)
    # The head in one pass in place of the frozen epoch: its updates are missing, nothing else.
    solved = run(
        study(models={"own": model | {"frozen_stage": "closed-form"}}, epochs=1), tmp_path / "one"
    )
    for slow, fast in zip(results["cells"], solved["cells"], strict=True):
        assert fast["n_updates"] == fast["history"][-1]["n_updates"] == slow["n_updates"] // 2
        assert fast["history"] != slow["history"]
    with pytest.raises(StudyError, match="can't be fine-tuned: "):
        run(study(models={"own": model | {"unfreeze": 99}}), tmp_path / "deep")
    path.unlink()
    with pytest.raises(ModelFileError, match="there is no such file"):
        run(design, tmp_path / "other")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "somebody_s_own:scores_of_three",
            r"gives scores of shape \(2, 3\) for two images; \(2, 10",
        ),
        ("somebody_s_own:too_deep", r"can't take images of shape \(8, 8\): "),
        ("somebody_s_own:no_network", "gave int; a torch.nn.Module is needed"),
        ("somebody_s_own:nothing", "the module somebody_s_own has no nothing"),
        ("somebody_s_own:broken", r"called as \(\(8, 8\), 10\): TypeError: broken\(\) missing 1"),
    ],
)
def test_networks_that_are_refused_early(tmp_path, network, message):
    with pytest.raises(StudyError, match=message):
        run(study(models={"own": {"network": network}}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("network", "parameters", "message"),
    [
        ("somebody_s_own:broken", {"width": 3}, r"10, width=3\): KeyError: 'nothing there'"),
        ("quadratic", {"unitz": 3}, "has no 'unitz'; .*n_units.* are accepted as its parameters"),
        ("quadratic", {"n_units": "x"}, "n_units must be a whole number at least 1, got 'x'"),
        ("quadratic", {"preset": "huge"}, "unknown preset 'huge'; accepted: "),
        ("quadratic", {"preset": "small", "jacobian": "kaufman"}, "jacobian"),
    ],
)
def test_parameters_that_are_refused_early(tmp_path, network, parameters, message):
    models = {"own": {"network": network, "parameters": parameters}}
    with pytest.raises(StudyError, match=message):
        run(study(models=models), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_timm_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rankwise\[timm\]'"):
        run(study(models=["timm:resnet18"]), tmp_path / "out")


def test_a_timm_model(tmp_path, monkeypatch):
    """A stand-in for timm shows that name, classes and channels are handed on."""
    import types

    import torch

    asked = {}

    def create_model(name, **options):
        asked.update(options, name=name)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, options["num_classes"]))

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    results = run(study(models=["timm:some.net"], retrain=False, epochs=1), tmp_path / "out")
    assert asked == {"name": "some.net", "num_classes": 10, "in_chans": 1, "pretrained": False}
    assert results["conditions"][0]["model"] == "some.net"


# -- refusals and extras --------------------------------------------------------------------


def test_data_that_are_refused(tmp_path):
    with pytest.raises(StudyError, match="'digits' has no source; give --data digits=SOURCE"):
        run(study(data={"digits": {}}), tmp_path / "out")
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"data set 'digits': .*nowhere doesn't exist.*--data digits="
    ):
        run(study(data={"digits": {"source": nowhere}}), tmp_path / "out")
    with pytest.raises(DataError, match="data set 'digits': 90 folds need as many"):
        run(study(folds=90), tmp_path / "out")
    with pytest.raises(ValueError, match="workers must be a number from 1"):
        run(study(), tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_tensorboard_on_request(tmp_path, monkeypatch):
    run(study(retrain=False, epochs=1), tmp_path / "out", tensorboard=True)
    place = tmp_path / "out/tensorboard/cells/digits/own/none/1/seed-42/fold-0"
    assert any(p.name.startswith("events.out.tfevents") for p in place.iterdir())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rankwise\[tensorboard\]'"):
        run(study(), tmp_path / "other", tensorboard=True)


def test_a_reduced_study_says_how(tmp_path):
    data = {"digits": {"source": "digits"}}
    design = study(models=["quadratic"], data=data, retrain=False, epochs_factor=0.5)
    (found,) = run(design, tmp_path / "out")["data_sets"]
    assert found["reduced"]
    assert found["reductions"] == found["notes"][:1] == ["0.5 times the epochs"]
    assert found["n_images"] == 1797
