"""Studies from beginning to end: cells, folders, interruptions, failures."""

import csv
import json
import sys

import numpy as np
import pytest

from rankwise.data import load_images
from rankwise.errors import DataError, MissingDependencyError
from rankwise.lowrank import LowRankAugmenter, RandomLowRank
from rankwise.lowrank.export import augment_files
from rankwise.study import StudyError, study_status
from rankwise.study.results import paired_starts, read_results
from rankwise.study.tables import report_tables
from study.run_cases import SOMEBODY, run, study, timeless

pytestmark = pytest.mark.usefixtures("somebody")


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
    assert results["tables"] == json.loads(json.dumps(report_tables(results)))
    assert [row["folds"] for row in results["tables"]["accuracies"]] == [2, 2, 2]
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
        {"data_set": "digits", "arm": "low-rank", "file": "gallery/digits/low-rank.png"}
    ]
    assert (paper_out / "gallery/digits/low-rank.png").stat().st_size > 1000


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
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 4), np.uint8)
    np.savez(tmp_path / "four.npz", images=pixels, labels=np.arange(60) % 2)
    four = {"four": {"source": str(tmp_path / "four.npz")}}
    with pytest.raises(
        DataError,
        match=r"^data set 'four' has images of shape \(8, 8, 4\), and only grey and RGB ones can "
        "be degraded; grey = true for that data set, or degraded = 'none', is accepted$",
    ):
        run(study(data=four, models=["simple-cnn"], degraded="all"), tmp_path / "out")
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
    few = {"quadratic": {"parameters": {"n_units": 10, "n_subnets": 1, "max_iter": 1}}}
    design = study(models=few, data=data, retrain=False, epochs_factor=0.5)
    (found,) = run(design, tmp_path / "out")["data_sets"]
    assert found["reduced"]
    assert found["reductions"] == found["notes"][:1] == ["0.5 times the epochs"]
    assert found["n_images"] == 1797


def test_arms_begin_with_the_same_weights(tmp_path):
    results = run(study(["none", "low-rank"], seeds=[1, 2], retrain=False), tmp_path / "out")
    starts = {}
    for cell in results["cells"]:
        starts.setdefault(cell["seed"], set()).add(cell["start"])
    assert [len(found) for found in starts.values()] == [1, 1]
    assert len(set.union(*starts.values())) == 2
    assert results["paired_starts"] is True
    cells = [dict(cell) for cell in results["cells"]]
    cells[0]["start"] = "another"
    assert paired_starts({**results, "cells": cells}) is False
    assert paired_starts({**results, "cells": []}) is None
