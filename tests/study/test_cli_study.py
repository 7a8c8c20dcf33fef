"""``rankwise study …`` as typed."""

import hashlib
import json
import sys

import numpy as np
import pytest
from PIL import Image

from rankwise import cli
from rankwise.cli._study_text import print_results
from study.made_results import make_results

STUDY = """\
name = "tiny"
protocol = "paper"
arms = ["none", "low-rank"]
folds = 2
degraded = "none"

[models.quadratic]
parameters = {n_units = 4, n_subnets = 1, max_iter = 1}

[data.digits]
source = "digits"
limit = 100
"""

OWN_SOURCES = (
    "every image counts as a source of its own; where several show one object, patient or slide, "
    "source_pattern finds it in their file names"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY)
    return str(path)


@pytest.fixture
def rankwise(capsys, monkeypatch):
    """Run the command; give exit status, output, and what was said on standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["rankwise", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_run_status_and_report(rankwise, file, tmp_path):
    out = tmp_path / "out"
    code, text, _ = rankwise("study", "run", file, "--out", out, "--workers", 1, "--device", "cpu")
    assert code == 0
    lines = text.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[0] == "digits: reduced: 100 images, drawn by class; the source may have more"
    assert lines[1].split() == ["condition", "validation", "test,", "folds", "re-trained"]
    assert lines[2].startswith("digits/quadratic/none/1 ")
    told = json.loads((out / "results.json").read_text())
    tested = [
        100 * c["test_accuracy"]
        for c in told["cells"]
        if c["condition"] == "digits/quadratic/none/1" and c["stage"] == "fold"
    ]
    assert f" {np.mean(tested):.2f} ± {np.std(tested, ddof=1):.2f}% " in lines[2]
    assert "digits/quadratic/low-rank/1 against none" in lines
    assert any("low-rank" in line and line.startswith("  ") for line in lines)
    assert lines[-1].startswith(f"{out}/results.json; ")
    results = json.loads((out / "results.json").read_text())
    assert results["command"].startswith("rankwise study run ")
    code, text, _ = rankwise("study", "status", out)
    assert code == 0
    assert text.startswith("tiny (paper): 6 of 6 cells done, 0 running, 0 left\n")
    assert "   3 of 3    digits/quadratic/low-rank/1\n" in text
    status = json.loads(rankwise("study", "status", out, "--json")[1])
    assert (status["done"], status["complete"]) == (6, True)
    code, text, _ = rankwise("study", "report", out)
    assert (code, text.strip()) == (0, str(out / "report.html"))
    assert "low-rank" in (out / "report.html").read_text()
    found = json.loads(rankwise("study", "report", out, "--json")[1])
    assert found == {"report": str(out / "report.html")}


def test_options_of_run_take_the_place_of_the_file_s(rankwise, file, tmp_path):
    arguments = ["--data", "digits=digits", "--only", "digits", "--limit", 60, "--folds", 3]
    arguments += ["--epochs-factor", 0.5, "--seeds", "1,2", "--arms", "none,blur"]
    arguments += ["--protocol", "sound", "--rope", 0.02, "--workers", 1, "--json"]
    code, text, _ = rankwise("study", "run", file, "--out", tmp_path / "out", *arguments)
    assert code == 0
    results = json.loads(text)
    study = results["study"]
    assert (study["folds"], study["seeds"], study["protocol"]) == (3, [1, 2], "sound")
    assert (study["data"]["digits"]["limit"], study["epochs_factor"]) == (60, 0.5)
    assert {c["arm"] for c in results["conditions"]} == {"none", "blur", "duplicate"}
    assert len(results["cells"]) == 3 * 2 * (3 + 1)
    assert study["rope"] == 0.02
    assert {c["bayes"]["rope"] for c in results["comparisons"]} == {0.02}
    assert rankwise("study", "report", tmp_path / "out")[0] == 0
    assert "Effect on accuracy" in (tmp_path / "out/report.html").read_text()


def test_seeds_are_added_and_a_plan_is_followed(rankwise, file, tmp_path):
    out, plan = tmp_path / "out", tmp_path / "plan.json"
    begin = ["study", "run", file, "--out", out, "--workers", 1, "--seeds"]
    assert rankwise(*begin, "1,2")[0] == 0
    code, _, err = rankwise(*begin, "1,2,3")
    assert code == 1
    assert "holds this study with fewer seeds; 'rankwise study extend' adds seeds" in " ".join(
        err.split()
    )
    added = rankwise("study", "extend", out, "--seeds", "2,3", "--workers", 1, "--json")
    code, text, err = added
    assert code == 0, err
    results = json.loads(text)
    assert results["study"]["seeds"] == [1, 2, 3]
    assert results["look"] == 2
    assert all(c["level"] == pytest.approx(0.008) for c in results["comparisons"])
    # The same command again is no further look.
    code, again, err = rankwise("study", "extend", out, "--seeds", "2,3", "--workers", 1, "--json")
    assert (code, json.loads(again)["look"]) == (0, 2)
    assert f"{out} has these seeds already: none was added, and no look is counted" in err
    assert "seeds already" not in added[2]
    # The command that began it says how it goes on.
    code, _, err = rankwise(*begin, "1,2")
    assert code == 1
    assert (
        f"{out} holds this study extended by the seeds 3; 'rankwise study extend {out} --seeds 3' "
        "goes on with it"
    ) in " ".join(err.split())
    assert rankwise(*begin, "3,2,1")[0] == 0
    planning = ["study", "plan", file, "--pilot", out, "--effect", 0.3, "--out", plan]
    code, text, err = rankwise(*planning)
    assert code == 0, err
    assert all(len(line) <= 80 for line in text.splitlines())
    assert hashlib.sha256(plan.read_bytes()).hexdigest() in text
    assert "none of the pilot's, whose results are known" in " ".join(text.split())
    small = tmp_path / "small"
    following = ["study", "run", file, "--out", small, "--workers", 1, "--plan", plan, "--json"]
    code, _, err = rankwise(*following, "--seeds", "1")
    assert code == 1
    assert "isn't the planned one (different: seeds)" in " ".join(err.split())
    # Folds, seeds and images are the plan's, and its digest is that of the file.
    made = json.loads(plan.read_text())
    made["study"] |= {"folds": 2, "seeds": [7]}
    plan.write_text(json.dumps(made))
    code, text, err = rankwise(*following)
    assert code == 0, err
    results = json.loads(text)
    assert (results["study"]["folds"], results["study"]["seeds"]) == (2, [7])
    assert results["plan"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    # No plan is overwritten, and a folder is no file.
    content = plan.read_bytes()
    code, text, err = rankwise(*planning)
    assert (code, text, plan.read_bytes()) == (1, "", content)
    assert f"{plan} is there already, and no plan is overwritten; give another --out" in " ".join(
        err.split()
    )
    code, text, err = rankwise(*planning[:-1], tmp_path)
    assert (code, text) == (1, "")
    assert f"{tmp_path} is a folder; --out takes a file's name, such as" in " ".join(err.split())
    plan.unlink()
    # What a plan would rest on is told where there is none.
    code, text, err = rankwise(*planning[:-4], "--effect", 0.0001, "--out", plan, "--json")
    told = json.loads(text)
    assert (code, told["chosen"], told["digest"]) == (1, None, None)
    code, text, err = rankwise(*planning[:-4], "--effect", 0.0001, "--out", plan)
    assert code == 1
    assert text.startswith("folds seeds")
    assert all(f"no verdict on {name}:" in " ".join(text.split()) for name in told["obstacles"])
    assert "no design reaches a power of 80% for 0.01 points (up to" in " ".join(err.split())
    assert not plan.exists()


def test_the_notebook_protocol_warns(rankwise, file, tmp_path):
    code, _, err = rankwise(
        "study", "run", file, "--out", tmp_path / "out", "--protocol", "notebook", "--workers", 1
    )
    assert code == 0
    assert "protocol 'notebook': leaks on purpose; figures flatter" in err


def test_a_preset_with_its_data_elsewhere(rankwise, tmp_path):
    code, text, err = rankwise(
        "study", "run", "experiment-1", "--only", "mnist", "--data", "mnist=digits", "--limit", 60,
        "--epochs-factor", 0.1, "--folds", 2, "--arms", "none", "--out", tmp_path / "out",
        "--workers", 1, "--json",
    )  # fmt: skip
    assert code == 0, err
    results = json.loads(text)
    (condition,) = results["conditions"]
    assert condition["id"] == "mnist/simple-cnn/none/1"
    assert condition["published"]["test_accuracy"] == 0.9919
    notes = results["data_sets"][0]["notes"]
    assert notes == [
        "60 images, drawn by class; the source may have more",
        "0.1 times the epochs",
        "2 folds, the paper has 5",
        "images of 8 × 8 pixels, the paper has 28 × 28",
    ]


def test_what_counts_as_a_source_is_said(rankwise, tmp_path):
    for i in range(24):
        place = tmp_path / "data" / "ab"[i % 2] / f"patient{i // 4}_{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * i).save(place)
    text = STUDY.replace("paper", "sound").replace("limit = 100\n", "").replace("digits", "faces")
    text = text.replace('source = "faces"', f'source = "{tmp_path / "data"}"')
    for name, pattern, said in (
        ("without", "", OWN_SOURCES),
        ("with", "source_pattern = '^(patient[0-9]+)_'\n", "split by source id: 6 sources"),
    ):
        (tmp_path / f"{name}.toml").write_text(text + pattern)
        code, shown, err = rankwise(
            "study", "run", tmp_path / f"{name}.toml", "--out", tmp_path / name, "--workers", 1
        )
        assert code == 0, err
        assert f"faces: {said}" in " ".join(shown.split())


def test_tune(rankwise, file, tmp_path):
    out = tmp_path / "out"
    code, text, _ = rankwise("study", "tune", file, "--out", out, "--trials", 2)
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == "digits/quadratic/low-rank/1"
    assert lines[1].startswith("  best:  energy 0.")
    assert lines[2].startswith("  given: energy 0.9750, skip threshold 0.80: ")
    assert lines[3] == "  2 trials, 0 pruned; the test part wasn't read"
    found = json.loads(rankwise("study", "tune", file, "--out", out, "--trials", 2, "--json")[1])
    assert len(found["searches"][0]["trials"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "experiment-9"], "'experiment-9' is no preset and no file; experiment-1, "),
        (["run", "nowhere.toml"], "nowhere.toml can't be read: No such file or directory"),
        (["run", "experiment-1", "--only", "malaria"], "data set 'malaria' has no source; give "),
        (["run", "experiment-1", "--only", "faces"], "'faces' is no data set here; 'mnist', "),
        (["run", "experiment-1", "--data", "mnist"], "--data 'mnist' isn't NAME=SOURCE, such as"),
        (["run", "experiment-1", "--seeds", "a"], "--seeds 'a' isn't a list of numbers such as"),
        (["run", "experiment-1", "--arms", "no"], "'no' is no arm here; 'none', 'low-rank', "),
        (
            ["run", "experiment-1", "--only", "mnist", "--data", "mnist=nowhere"],
            "data set 'mnist': nowhere doesn't exist; 'digits', a hub id",
        ),
        (["run", "FILE", "--workers", "0"], "workers must be a number from 1, or -1"),
        (["tune", "FILE", "--folds", "1"], "folds is 1; a whole number from 2 to 100 is accepted"),
        (["status"], "holds no study; 'rankwise study run' makes one"),
        (["report"], "has no results.json: run the study first (rankwise study run)"),
    ],
)
def test_mistakes_are_one_sentence(rankwise, file, tmp_path, arguments, message):
    arguments = [file if part == "FILE" else part for part in arguments]
    where = ["--out", tmp_path / "out"] if len(arguments) > 1 else [tmp_path / "out"]
    code, text, err = rankwise("study", *arguments, *where)
    assert (code, text) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["status"], ["extend", "--seeds", "5"]])
def test_a_study_of_another_version_is_one_sentence(rankwise, tmp_path, command):
    claim = {"study": {"data": {"d": {"source": "digits", "colour": 1}}}}
    (tmp_path / "study.json").write_text(json.dumps(claim))
    code, text, err = rankwise("study", command[0], tmp_path, *command[1:])
    assert (code, text) == (1, "")
    place = tmp_path / "study.json"
    assert err == f"error: {place} is damaged: it describes no study of this version\n"


def test_a_wrong_file_is_refused_with_its_line(rankwise, file, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(STUDY.replace("folds = 2", "folds = 1\nfoldss = 2"))
    code, _, err = rankwise("study", "run", path, "--out", tmp_path / "out")
    assert code == 1
    assert f"{path}, line 4: folds is 1; a whole number from 2 to 100 is accepted" in err
    assert f"{path}, line 5: unknown key foldss; name, protocol, data, " in err


def test_what_is_printed_has_robustness_and_what_summaries_leave_out(capsys, tmp_path):
    results = make_results(tmp_path, seeds=(1, 2, 3))
    results["summaries"] = {"effects": [], "notes": ["No mean over data sets: one alone."]}
    print_results(results, tmp_path, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    for item in (*results["comparisons"][:1], *results["robustness"][:1]):
        assert " ".join(item["sentence"].split()) in text
    assert "No mean over data sets: one alone." in text
