"""The command line as a user meets it: in a process of its own, or through its entry point."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rankwise.cli import main

FAST = ["--units", "20", "--subnets", "2", "--max-iter", "3", "--workers", "1"]


def run(*arguments, expect=0):
    """Run in a process; give standard output and standard error."""
    result = subprocess.run(
        [sys.executable, "-m", "rankwise", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1"},
    )
    assert result.returncode == expect, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout, result.stderr


def call(monkeypatch, capsys, *arguments, expect=0):
    """The same in this process, for the many options."""
    monkeypatch.setattr(sys, "argv", ["rankwise", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    output = capsys.readouterr()
    assert (stop.value.code or 0) == expect, output.err
    return output.out, output.err


def cells(table):
    """Of a printed table, row by row."""
    rows = [line.strip() for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row[1:-1].split("│")] for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "model"
    stdout, _ = run("train", "digits", "--out", out, *FAST, "--bootstrap", "--json")
    return out, json.loads(stdout)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    bunch = load_digits()
    for name, i in (("zero", 0), ("one", 1)):
        Image.fromarray((bunch.images[i] * 255 / 16).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def test_train_prints_one_json_object(trained):
    out, report = trained
    assert report["inductive_accuracy"] > 0.75
    assert report["train_accuracy"] >= report["inductive_accuracy"] - 0.05
    assert 0 < report["n_parameters_units"] < report["n_parameters_total"]
    assert {"subnets", "glue", "total"} <= set(report["seconds"])
    assert 50 < report["peak_memory_mb"] < 4096
    assert report["status"] in ("converged", "max-iterations")
    assert set(report["bootstrap"]) >= {
        "agreement_with_guesses",
        "transductive_accuracy",
        "ambiguous_fraction",
    }
    assert report["train"]["n_samples"] + report["test"]["n_samples"] == 1797
    names = {p.name for p in out.iterdir()}
    assert names == {
        "run.json",
        "report.json",
        "model.json",
        "model.safetensors",
        "subnets",
        "bootstrap",
        "units.png",
        "confusion.png",
    }


def test_the_same_command_again_is_quick_and_says_so(trained):
    out, report = trained
    stdout, _ = run("train", "digits", "--out", out, *FAST, "--bootstrap")
    assert "This run was complete already; --overwrite trains it again." in stdout
    assert f"{100 * report['inductive_accuracy']:.2f}%" in stdout


def test_tables_fit_a_terminal(trained, pictures):
    out, _ = trained
    for arguments in (
        ["train", "digits", "--out", out, *FAST, "--bootstrap"],
        ["evaluate", out, "digits"],
        ["predict", out, pictures / "zero.png"],
    ):
        stdout, _ = run(*arguments)
        tables = [line for line in stdout.splitlines() if line[:1] in "│┌└├┃┏┡"]
        assert tables
        assert max(map(len, tables)) <= 80


def test_training_shows_a_bar_for_each_stage(tmp_path):
    stdout, stderr = run("train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "200")
    for stage in ("Reading images", "sub-networks", "glue", "predict"):
        assert stage in stderr
    assert "inductive accuracy (test images never seen)" in stdout
    assert "units.png" in stdout


def test_pictures_are_whole(trained):
    out, _ = trained
    for name in ("units.png", "confusion.png"):
        with Image.open(out / name) as image:
            image.load()
            assert min(image.size) > 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_evaluate_gives_the_accuracy_of_the_run(trained, monkeypatch, capsys):
    out, report = trained
    stdout, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--json")
    evaluation = json.loads(stdout)
    assert evaluation["accuracy"] == report["inductive_accuracy"]
    counts = np.array(evaluation["confusion"])
    assert np.trace(counts) / counts.sum() == pytest.approx(evaluation["accuracy"])
    stdout, _ = call(
        monkeypatch,
        capsys,
        "evaluate",
        out,
        "digits",
        "--split",
        "train",
        "--limit",
        "100",
        "--seed",
        "3",
        "--skip-bad",
        "--json",
    )
    assert json.loads(stdout)["n_samples"] == 100


def test_evaluate_holds_out_what_the_run_held_out(tmp_path, monkeypatch, capsys):
    """With a seed of its own, the run's test images are still those that training never saw."""
    arguments = ["train", "digits", "--out", tmp_path / "m", *FAST, "--seed", "7", "--json"]
    report = json.loads(call(monkeypatch, capsys, *arguments)[0])
    again = json.loads(call(monkeypatch, capsys, "evaluate", tmp_path / "m", "digits", "--json")[0])
    assert again["fingerprint"] == report["test"]["fingerprint"]
    assert again["seed"] == 7


def test_predict(trained, pictures, monkeypatch, capsys):
    out, _ = trained
    files = [pictures / "zero.png", pictures / "one.png"]
    stdout, _ = call(monkeypatch, capsys, "predict", out, *files, "--json")
    predictions = json.loads(stdout)["predictions"]
    assert [p["label"] for p in predictions] == ["0", "1"]
    for p in predictions:
        assert sum(p["probabilities"].values()) == pytest.approx(1)
        assert p["probability"] == p["probabilities"][p["label"]]


@pytest.mark.parametrize(
    "options",
    [
        ["--preset", "pereyra"],
        ["--preset", "windowed", "--unit", "bilinear"],
        ["--unit", "symmetric", "--rank", "2", "--activation", "logistic", "--whole-image"],
        ["--solver", "lbfgs", "--jacobian", "kaufman", "--ridge", "0.001", "--squash"],
        ["--samples-per-subnet", "60", "--ridge", "loo", "--seed", "1", "--device", "cpu"],
        ["--size", "6", "--grey", "--skip-bad", "--device", "auto"],
        ["--size", "6x7"],
        ["--activation", "relu", "--refine", "1"],
        ["--start", "images", "--grow", "4", "--prune", "0.25"],
        ["--prune", "5", "--refine", "1", "--refine-solver", "gauss-newton"],
        ["--unit", "multilinear"],
        ["--solver", "levenberg-marquardt"],
        ["--solver", "minpack"],
        ["--solver", "gradient-descent"],
        ["--solver", "search"],
    ],
    ids=" ".join,
)
def test_every_option_of_train(options, tmp_path, monkeypatch, capsys):
    arguments = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "150", "--json"]
    stdout, _ = call(monkeypatch, capsys, *arguments, *options)
    report = json.loads(stdout)
    assert report["train"]["n_samples"] == 150
    stored = json.loads((tmp_path / "m" / "run.json").read_text())["run"]
    for flag, key in (("--unit", "unit"), ("--solver", "solver"), ("--jacobian", "jacobian")):
        if flag in options:
            assert stored["parameters"][key] == options[options.index(flag) + 1]
    if "--prune" in options:
        left_out = 6 if "--grow" in options else 5
        assert report["selection"]["pruned"] == left_out
        assert report["n_units"] == 20 + ("--grow" in options) * 4 - left_out
    if "--size" in options:
        assert report["train"]["image_shape"][0] == 6
        evaluated, _ = call(monkeypatch, capsys, "evaluate", tmp_path / "m", "digits", "--json")
        assert json.loads(evaluated)["accuracy"] == report["inductive_accuracy"]


def colour_folders(folder):
    """Two classes that differ in colour alone."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(25):
            pixels = rng.normal(colour, 20, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}-{name}.png")


@pytest.mark.parametrize("unit", ["colour", "colour-bilinear", "multilinear"])
def test_units_of_colour_images(unit, tmp_path, monkeypatch, capsys):
    colour_folders(tmp_path / "photos")
    arguments = [tmp_path / "photos", "--out", tmp_path / "m", "--unit", unit, *FAST, "--json"]
    report = json.loads(call(monkeypatch, capsys, "train", *arguments)[0])
    assert report["run"]["parameters"]["unit"] == unit
    assert report["train"]["image_shape"] == [8, 8, 3]
    assert report["inductive_accuracy"] > 0.9
    description = json.loads((tmp_path / "m" / "model.json").read_text())
    shared = {"colour": [0, 0, 1]}.get(unit, [0, 1, 2])
    assert description["units"]["vector_of_axis"] == shared


def test_evaluate_takes_a_source_pattern(trained, tmp_path, monkeypatch, capsys):
    """Three frames of each subject: with the pattern, a subject is held out as a whole."""
    bunch = load_digits()
    for i in range(60):
        folder = tmp_path / "frames" / str(bunch.target[i])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (bunch.images[i] * 255 / 16).astype(np.uint8)
        for frame in "abc":
            Image.fromarray(pixels).save(folder / f"subject{i}_{frame}.png")
    arguments = ["evaluate", trained[0], tmp_path / "frames", "--json"]
    plain = json.loads(call(monkeypatch, capsys, *arguments)[0])
    grouped = json.loads(call(monkeypatch, capsys, *arguments, "--source-pattern", "^(.*)_")[0])
    assert grouped["fingerprint"] != plain["fingerprint"]
    counts = np.array(grouped["confusion"])
    assert (counts % 3 == 0).all(), "frames of one subject are alike, and so are their labels"
    assert (np.array(plain["confusion"]) % 3 != 0).any()
    _, err = call(monkeypatch, capsys, *arguments, "--source-pattern", "(", expect=1)
    assert "source_pattern" in err


def test_a_folder_of_photographs_with_bad_files_and_sources(tmp_path, monkeypatch, capsys):
    """Two classes, three frames of each subject: no subject is on both sides of the hold-out."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(30):
            pixels = rng.normal(level, 30, (12, 10, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"subject{i // 3}-{name}_{i}.png")
    (tmp_path / "photos" / "dark" / "subject0-dark_99.png").write_bytes(b"broken")
    (tmp_path / "photos" / "dark" / "notes.txt").write_text("not an image")
    arguments = [
        "train",
        tmp_path / "photos",
        "--out",
        tmp_path / "m",
        *FAST,
        "--source-pattern",
        "^(.*)_",
        "--grey",
        "--size",
        "8",
        "--json",
    ]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "notes.txt" in err
    assert "--skip-bad on the command line" in err
    report = json.loads(call(monkeypatch, capsys, *arguments, "--skip-bad")[0])
    skipped = [report[part]["skipped"] for part in ("train", "test")]
    assert [len(lines) for lines in skipped] == [report[p]["n_skipped"] for p in ("train", "test")]
    # The broken image is in one part; the text belongs to none.
    assert sorted(len(lines) for lines in skipped) == [1, 2]
    assert sum("subject0-dark_99.png" in line for line in skipped[0] + skipped[1]) == 1
    table, _ = call(monkeypatch, capsys, *arguments[:-1], "--skip-bad")
    assert ["skipped as bad", "2"] in cells(table)
    assert report["test"]["n_samples"] % 3 == 0
    assert report["train"]["image_shape"] == [8, 8]
    assert report["inductive_accuracy"] > 0.9
    stdout, _ = call(
        monkeypatch,
        capsys,
        "evaluate",
        tmp_path / "m",
        tmp_path / "photos",
        "--skip-bad",
        "--json",
    )
    evaluated = json.loads(stdout)
    assert evaluated["accuracy"] == report["inductive_accuracy"]
    assert evaluated["n_skipped"] == len(evaluated["skipped"]) == len(skipped[1])
    table, _ = call(
        monkeypatch,
        capsys,
        "evaluate",
        tmp_path / "m",
        tmp_path / "photos",
        "--skip-bad",
        "--split",
        "all",
    )
    assert ["skipped as bad", "2", ""] in cells(table)


def test_demo(tmp_path):
    stdout, stderr = run("demo", "--out", tmp_path / "demo")
    assert "inductive accuracy" in stdout
    assert "bootstrap: transductive accuracy" in stdout
    assert "sub-networks" in stderr
    again, _ = run("demo", "--out", tmp_path / "demo", "--json")
    assert json.loads(again)["inductive_accuracy"] > 0.95


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, capsys):
    """Ctrl-C during the third of five sub-networks, then the same command."""
    from rankwise.varpro import subnetworks

    arguments = ["train", "digits", "--units", "50", "--subnets", "5", "--max-iter", "3"]
    arguments += ["--workers", "1", "--limit", "200", "--json"]
    original, calls = subnetworks.train_subnet, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(subnetworks, "train_subnet", interrupted)
        _, err = call(patch, capsys, *arguments, "--out", tmp_path / "a", expect=130)
    assert "interrupted: 2 finished sub-networks are kept in" in err
    assert not (tmp_path / "a" / "report.json").exists()
    resumed = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "a")[0])
    assert resumed["resumed_subnets"] == 2
    kept = json.loads((tmp_path / "a" / "subnets" / "seconds.json").read_text())
    assert resumed["seconds"]["earlier"] == kept["earlier"] > 0
    assert resumed["seconds"]["subnets"] >= kept["earlier"] + kept["now"]
    assert resumed["seconds"]["total"] > resumed["seconds"]["subnets"]
    table, _ = call(monkeypatch, capsys, *arguments[:-1], "--out", tmp_path / "a")
    assert "of these, before interruptions" in table
    whole = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "b")[0])
    assert whole["resumed_subnets"] == 0
    assert whole["seconds"]["earlier"] == 0
    assert resumed["inductive_accuracy"] == whole["inductive_accuracy"]
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_control_c_with_two_workers_then_the_same_command(tmp_path):
    """A real SIGINT to parent and workers, as a terminal sends it, once one part is finished."""
    arguments = ["train", "digits", "--units", "160", "--subnets", "8", "--max-iter", "40"]
    arguments += ["--seed", "3", "--workers", "2", "--json"]
    command = [sys.executable, "-m", "rankwise", *arguments, "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not list((tmp_path / "a" / "subnets").glob("[0-9]*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert out == ""
    assert "finished sub-networks are kept in" in err
    assert "Traceback" not in err
    n_kept = len(list((tmp_path / "a" / "subnets").glob("[0-9]*.safetensors")))
    assert 1 <= n_kept < 8
    assert not (tmp_path / "a" / "report.json").exists()
    resumed = json.loads(run(*arguments, "--out", tmp_path / "a")[0])
    assert resumed["resumed_subnets"] == n_kept
    whole = json.loads(run(*arguments, "--out", tmp_path / "b")[0])
    assert resumed["inductive_accuracy"] == whole["inductive_accuracy"]
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


CONVOLUTIONAL = ["--preset", "tiny", "--max-iter", "3", "--workers", "1", "--limit", "300"]


def test_a_convolutional_preset_from_training_to_prediction(
    tmp_path, pictures, monkeypatch, capsys
):
    out = tmp_path / "m"
    stdout, err = call(monkeypatch, capsys, "train", "digits", "--out", out, *CONVOLUTIONAL)
    assert "epochs" in err
    for row in ("units / epochs", "output layer", "training ended", "finished", "4,582 / 4,912"):
        assert row in stdout
    assert max(len(line) for line in stdout.splitlines() if line[0] in "┌│└") <= 80
    report = json.loads((out / "report.json").read_text())
    assert (report["preset"], report["epochs"], report["n_units"]) == ("tiny", 3, 92)
    assert len(report["history"]) == 3
    evaluated, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--json")
    assert json.loads(evaluated)["accuracy"] == report["inductive_accuracy"]
    predicted, _ = call(monkeypatch, capsys, "predict", out, pictures / "zero.png", "--json")
    (prediction,) = json.loads(predicted)["predictions"]
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    for name in ("units.png", "confusion.png"):
        with Image.open(out / name) as image:
            image.load()


def test_interrupted_epochs_are_kept(tmp_path, monkeypatch, capsys):
    """Ctrl-C during the third of three epochs, then the same command."""
    from rankwise.varpro.joint import JointTraining

    arguments = ["train", "digits", *CONVOLUTIONAL, "--json"]
    original, calls = JointTraining._epoch, []

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(JointTraining, "_epoch", interrupted)
        _, err = call(patch, capsys, *arguments, "--out", tmp_path / "a", expect=130)
    assert "interrupted: 2 finished epochs are kept in" in err
    resumed = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "a")[0])
    assert resumed["resumed_epochs"] == 2
    earlier = sum(entry["seconds"] for entry in resumed["history"][:2])
    assert resumed["seconds"]["earlier"] == pytest.approx(earlier)
    assert resumed["seconds"]["joint"] > sum(entry["seconds"] for entry in resumed["history"])
    whole = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "b")[0])
    assert whole["resumed_epochs"] == 0
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_run_in_the_folder_is_refused(trained, monkeypatch, capsys):
    out, _ = trained
    _, err = call(monkeypatch, capsys, "train", "digits", "--out", out, "--seed", "7", expect=1)
    assert "holds another run (different: parameters, seed" in err
    assert "--overwrite" in err


@pytest.mark.parametrize("name", ["run.json", "report.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_record_is_named(trained, tmp_path, monkeypatch, capsys, name, content):
    import shutil

    shutil.copytree(trained[0], tmp_path / "m")
    (tmp_path / "m" / name).write_text(content)
    arguments = ["train", "digits", "--out", tmp_path / "m", *FAST, "--bootstrap"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert f"{name} is damaged" in err
    if name == "run.json":
        _, err = call(monkeypatch, capsys, "evaluate", tmp_path / "m", "digits", expect=1)
        assert f"{name} is damaged" in err


def test_a_record_that_lacks_something_is_named(trained, tmp_path, monkeypatch, capsys):
    import shutil

    place = tmp_path / "m"
    shutil.copytree(trained[0], place)
    run = (place / "run.json").read_text()
    (place / "report.json").write_text('{"run": {}}')
    arguments = ["train", "digits", "--out", place, *FAST, "--bootstrap"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "report.json is damaged: it lacks inductive_accuracy, seconds" in err
    (place / "run.json").write_text('{"run": {}}')
    _, err = call(monkeypatch, capsys, "evaluate", place, "digits", expect=1)
    assert "run.json is damaged: its run has no seed or reading" in err
    (place / "run.json").write_text(run)
    # A run whose model is gone isn't complete: it is made again.
    (place / "model.safetensors").unlink()
    stdout, _ = call(monkeypatch, capsys, *arguments, "--json")
    assert not json.loads(stdout).get("already_complete")
    assert (place / "model.safetensors").exists()


def test_the_demo_leaves_another_run_alone(trained, monkeypatch, capsys):
    _, err = call(monkeypatch, capsys, "demo", "--out", trained[0], expect=1)
    assert "holds another run" in err


def class_folders(folder, per_class=12, names=("a", "b")):
    rng = np.random.default_rng(0)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.normal(60 + 80 * level, 20, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}-x.png")


def test_no_source_is_on_both_sides_of_explicit_splits(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "s" / "train")
    class_folders(tmp_path / "s" / "test")
    arguments = ["train", tmp_path / "s", "--out", tmp_path / "m", *FAST]
    _, err = call(monkeypatch, capsys, *arguments, "--source-pattern", r"^(\d+)", expect=1)
    assert "error:" in err
    assert "source" in err
    call(monkeypatch, capsys, *arguments, "--json")


def test_classes_of_the_splits(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "more" / "train")
    class_folders(tmp_path / "more" / "test", names=("a", "b", "c"))
    _, err = call(
        monkeypatch, capsys, "train", tmp_path / "more", "--out", tmp_path / "x", *FAST, expect=1
    )
    assert "classes in test images only, not in training: c" in err
    class_folders(tmp_path / "one" / "train")
    class_folders(tmp_path / "one" / "test", names=("a",))
    stdout, _ = call(
        monkeypatch, capsys, "train", tmp_path / "one", "--out", tmp_path / "m", *FAST, "--json"
    )
    assert json.loads(stdout)["test"]["n_samples"] == 12


def test_names_in_brackets_and_foreign_scripts_are_printed(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "my photos [old]", names=("[red]é", "狗"))
    arguments = [tmp_path / "my photos [old]", "--out", tmp_path / "m"]
    _, err = call(monkeypatch, capsys, "train", *arguments, *FAST)
    assert "Warning" not in err
    file = tmp_path / "my photos [old]" / "狗" / "0-x.png"
    stdout, _ = call(monkeypatch, capsys, "predict", tmp_path / "m", file)
    assert "[old]" in "".join(stdout.split())
    stdout, _ = call(monkeypatch, capsys, "evaluate", tmp_path / "m", arguments[0])
    assert "[red]é" in stdout


def test_memory_that_is_not_there(tmp_path, monkeypatch, capsys):
    from rankwise import runs

    def train(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(runs, "train", train)
    _, err = call(monkeypatch, capsys, "train", "digits", "--out", tmp_path / "m", expect=1)
    assert "error: not enough memory; use fewer --units" in err


def test_a_source_spelled_differently_is_the_same_run(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, capsys, "train", "photos/", "--out", "m", *FAST, "--json")
    stdout, _ = call(
        monkeypatch, capsys, "train", tmp_path / "photos", "--out", "m", *FAST, "--json"
    )
    assert json.loads(stdout)["already_complete"]
    _, err = call(monkeypatch, capsys, "train", "photos", "--out", "photos/m", *FAST, expect=1)
    assert "lies inside the source photos" in err


def test_overwrite_discards_a_run(tmp_path, monkeypatch, capsys):
    base = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "100", "--json"]
    call(monkeypatch, capsys, *base)
    stdout, _ = call(monkeypatch, capsys, *base, "--seed", "7", "--overwrite")
    assert json.loads(stdout)["run"]["seed"] == 7
    assert json.loads(stdout)["resumed_subnets"] == 0


def test_bootstrap_can_be_asked_for_later(tmp_path, monkeypatch, capsys):
    base = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "100", "--json"]
    first = json.loads(call(monkeypatch, capsys, *base)[0])
    second = json.loads(call(monkeypatch, capsys, *base, "--bootstrap")[0])
    assert second["inductive_accuracy"] == first["inductive_accuracy"]
    assert second["resumed_subnets"] == 2
    assert "bootstrap" in second
    assert second["seconds"] == first["seconds"], "what the training took"
    assert second["bootstrap"]["seconds"] > 0
    assert second["peak_memory_mb"] >= first["peak_memory_mb"]


def test_bootstrap_without_a_preset_trains_subnetworks(tmp_path, monkeypatch, capsys):
    """Images so many and so large that the default has none."""
    rng = np.random.default_rng(0)
    labels = np.arange(2600) % 2
    images = rng.integers(0, 100, (2600, 16, 16), dtype=np.uint8)
    images[labels == 1, :8] += 100
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    train = ["train", tmp_path / "x.npz", "--max-iter", "1", "--workers", "1", "--json"]
    report = json.loads(
        call(monkeypatch, capsys, *train, "--out", tmp_path / "b", "--bootstrap")[0]
    )
    assert (report["preset"], report["n_subnets"]) == (None, 4)
    assert report["bootstrap"]["transductive_accuracy"] > 0.9
    plain = json.loads(call(monkeypatch, capsys, *train, "--out", tmp_path / "s")[0])
    assert (plain["preset"], plain["n_subnets"]) == ("small", 0)
    _, err = call(monkeypatch, capsys, *train, "--out", tmp_path / "s", "--bootstrap", expect=1)
    assert "holds this run with preset 'small', the default for these images" in err
    _, err = call(monkeypatch, capsys, *train, "--out", tmp_path / "b", expect=1)
    assert "holds another run (different: parameters)" in err


def folder_with_a_file(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "photo.jpg").write_bytes(b"precious")
    return tmp_path / "m"


def a_file(tmp_path):
    (tmp_path / "m").write_text("x")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("arguments", "make", "message"),
    [
        (["train", "nonsense"], None, "hub id"),
        (["train", "digits", "--preset", "best"], None, "unknown preset 'best'"),
        (["train", "digits", "--unit", "cubic"], None, "unknown unit 'cubic'"),
        (["train", "digits", "--solver", "adam"], None, "unknown solver 'adam'"),
        (["train", "digits", "--jacobian", "exact"], None, "unknown jacobian 'exact'"),
        (["train", "digits", "--device", "tpu"], None, "device must be 'auto', 'cpu' or 'cuda'"),
        (["train", "digits", "--units", "7", "--subnets", "2"], None, "multiple of n_subnets"),
        (["train", "digits", "--workers", "0"], None, "workers must be a number of processes"),
        (["train", "digits", "--max-iter", "-3"], None, "max_iter must be a whole number"),
        (["train", "digits", "--ridge", "-1"], None, "got -1.0"),
        (["train", "digits", "--preset", "tiny", "--solver", "lbfgs"], None, "takes no solver"),
        (["train", "nonsense", "--preset", "tiny", "--bootstrap"], None, "needs sub-networks"),
        (["train", "digits", "--refine", "-1"], None, "refine must be a whole number at least 0"),
        (["train", "digits", "--prune", "1.5"], None, "or a share under 1, got 1.5"),
        (["train", "digits", "--preset", "tiny", "--grow", "3"], None, "takes no grow"),
        (["train", "digits"], folder_with_a_file, "isn't empty and holds no run"),
        (["train", "digits", "--overwrite"], folder_with_a_file, "isn't empty and holds no run"),
        (["train", "digits"], a_file, "is a file; give a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_of_train_are_one_sentence(arguments, make, message, tmp_path, monkeypatch, capsys):
    out = make(tmp_path) if make else tmp_path / "m"
    _, err = call(monkeypatch, capsys, *arguments, "--out", out, expect=1)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
    if make is folder_with_a_file:
        assert (out / "photo.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ridge", "big"], "--ridge takes a number, gcv or loo, got 'big'"),
        (["--prune", "half"], "--prune takes a whole number of units or a share under 1"),
        (["--size", "0"], "--size takes N or HxW"),
        (["--size", "1x2x3"], "--size takes N or HxW"),
    ],
)
def test_usage_errors(arguments, message, tmp_path, monkeypatch, capsys):
    _, err = call(
        monkeypatch, capsys, "train", "digits", "--out", tmp_path / "m", *arguments, expect=2
    )
    assert message in " ".join(err.replace("│", " ").split())


def test_errors_of_evaluate_and_predict(trained, pictures, tmp_path, monkeypatch, capsys):
    out, _ = trained
    np.savez(
        tmp_path / "cats.npz",
        images=np.random.default_rng(0).integers(0, 255, (20, 8, 8), dtype=np.uint8),
        labels=np.array(["cat", "dog"])[np.arange(20) % 2],
    )
    _, err = call(monkeypatch, capsys, "evaluate", out, tmp_path / "cats.npz", expect=1)
    assert "has classes that the model doesn't know: cat, dog; it was trained on 0, 1, 2" in err
    _, err = call(monkeypatch, capsys, "evaluate", tmp_path, "digits", expect=1)
    assert "model.json can't be read: No such file" in err
    (tmp_path / "broken.png").write_bytes(b"not an image")
    _, err = call(monkeypatch, capsys, "predict", out, tmp_path / "broken.png", expect=1)
    assert "broken.png" in err
    _, err = call(monkeypatch, capsys, "predict", out, tmp_path / "none.png", expect=1)
    assert "none.png" in err


def test_version_and_help():
    import rankwise

    assert run("--version")[0].strip() == rankwise.__version__
    stdout, _ = run("--help")
    for command in ("demo", "train", "evaluate", "predict"):
        assert command in stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "digits", "--out", "x", "--seed", "-1"],
        ["evaluate", "x", "digits", "--seed", "-1"],
        ["head", "digits", "--backbone", "x", "--out", "x", "--seed", "-1"],
        ["augment", "digits", "x", "--seed", "-1"],
        ["show", "x.png", "--out", "y.png", "--seed", "-1"],
        ["study", "run", "experiment-1", "--out", "x", "--seeds", "1,-1"],
        ["study", "tune", "experiment-1", "--out", "x", "--seeds=-1"],
    ],
)
def test_a_negative_seed_is_one_sentence_everywhere(arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    out, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert out == ""
    assert err == "error: seed is -1; a whole number from 0 is accepted\n"
    assert not list(tmp_path.iterdir())
