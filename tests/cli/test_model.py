"""The command line as a user meets it: in a process of its own, or through its entry point."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cli_cases import CONVOLUTIONAL, FAST, call, cells, class_folders, run
from rankwise.data.decode import Header
from rankwise.plots import save_confusion
from rankwise.runs.use import _changes


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
        "explore.html",
    }


def test_the_same_command_again_is_quick_and_says_so(trained):
    out, report = trained
    stdout, _ = run("train", "digits", "--out", out, *FAST, "--bootstrap")
    assert "This run was complete already; --overwrite trains it again." in stdout
    assert f"{100 * report['inductive_accuracy']:.2f}%" in stdout


@pytest.mark.parametrize("refine", [False, True])
def test_the_table_says_whose_status_it_is(tmp_path, monkeypatch, capsys, refine):
    options = [*FAST, "--limit", "150", *(["--refine", "1"] if refine else [])]
    stdout, _ = call(monkeypatch, capsys, "train", "digits", "--out", tmp_path / "m", *options)
    (line,) = [line for line in stdout.splitlines() if " ended" in line]
    assert ("sub-networks and refinement ended" in line) == refine
    assert (", 1 finished" in line or "start-kept" in line) == refine


def test_outputs_are_squashed_inside_where_asked(tmp_path, monkeypatch, capsys):
    options = [*FAST, "--limit", "150", "--json"]
    call(monkeypatch, capsys, "train", "digits", "--out", tmp_path / "m", *options)
    call(
        monkeypatch, capsys, "train", "digits", "--out", tmp_path / "s", *options, "--squash-inside"
    )
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("m", "s")]
    assert weights[0] != weights[1]
    assert json.loads((tmp_path / "s" / "run.json").read_text())["run"]["parameters"][
        "squash_inside"
    ]


def test_tables_fit_a_terminal(trained, pictures, monkeypatch, capsys):
    out, _ = trained
    for arguments in (
        ["train", "digits", "--out", out, *FAST, "--bootstrap"],
        ["evaluate", out, "digits"],
        ["predict", out, pictures / "zero.png"],
    ):
        stdout, _ = call(monkeypatch, capsys, *arguments)
        tables = [line for line in stdout.splitlines() if line[:1] in "│┌└├┃┏┡"]
        assert tables
        assert max(map(len, tables)) <= 80


def test_training_shows_a_bar_for_each_stage(tmp_path, monkeypatch, capsys):
    arguments = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "200"]
    stdout, stderr = call(monkeypatch, capsys, *arguments)
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
        ["--refine", "1", "--augmentation", "moves+low-rank"],
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


def test_options_of_training_together_and_of_copies(tmp_path, monkeypatch, capsys):
    out = tmp_path / "m"
    options = ("--preset", "tiny", "--limit", "150", "--precision", "bfloat16")
    budget = ("--time-budget", "0.01", "--teacher", "small")
    stdout, told = call(
        monkeypatch, capsys, "train", "digits", "--out", out, *options, *budget, "--json"
    )
    report = json.loads(stdout)
    assert report["precision"] == "bfloat16"
    assert "to train: 4,276 parameters" in told
    assert "as many epochs as fit into 0.01 minutes" in told
    assert "behind a teacher of 18,340 parameters" in told
    plain, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--json")
    copies, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--tta", "shifts", "--json")
    assert (json.loads(plain)["copies"], json.loads(copies)["copies"]) == (1, 3)
    said, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--tta", "shifts")
    assert "3 times the time" in said


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
    arguments = ["evaluate", trained[0], tmp_path / "frames", "--split", "test", "--json"]
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
    assert "subject0-dark_99.png: it isn't an image" in err
    assert "--skip-bad on the command line" in err
    report = json.loads(call(monkeypatch, capsys, *arguments, "--skip-bad")[0])
    skipped = [report[part]["skipped"] for part in ("train", "test")]
    assert [len(lines) for lines in skipped] == [report[p]["n_skipped"] for p in ("train", "test")]
    # The broken image is in one part; the text is no image, and left out.
    assert sorted(len(lines) for lines in skipped) == [0, 1]
    assert any("dark/notes.txt" in note for note in report["train"]["notes"])
    assert sum("subject0-dark_99.png" in line for line in skipped[0] + skipped[1]) == 1
    table, _ = call(monkeypatch, capsys, *arguments[:-1], "--skip-bad")
    assert ["skipped as bad", "1"] in cells(table)
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
    assert ["skipped as bad", "1", ""] in cells(table)  # The text is no image, and left out.


def test_demo(tmp_path, monkeypatch, capsys):
    stdout, stderr = run("demo", "--out", tmp_path / "demo")
    assert "inductive accuracy" in stdout
    assert "bootstrap: transductive accuracy" in stdout
    assert "sub-networks" in stderr
    page = tmp_path / "demo" / "rankwise_model.html"
    assert f"open {page} in a browser" in stdout.replace("\n", " ")
    assert page.read_text(encoding="utf-8").count("</script>") == 3
    again, _ = call(monkeypatch, capsys, "demo", "--out", tmp_path / "demo", "--json")
    assert json.loads(again)["inductive_accuracy"] > 0.95


def test_a_convolutional_preset_from_training_to_prediction(
    tmp_path, pictures, monkeypatch, capsys
):
    out = tmp_path / "m"
    stdout, err = call(monkeypatch, capsys, "train", "digits", "--out", out, *CONVOLUTIONAL)
    assert "epochs" in err
    for row in (
        "units / epochs",
        "output layer",
        "training ended",
        "finished",
        "3,946 / 4,276",
        "flash / RAM",
    ):
        assert row in stdout
    assert max(len(line) for line in stdout.splitlines() if line[0] in "┌│└") <= 80
    report = json.loads((out / "report.json").read_text())
    assert (report["preset"], report["epochs"], report["n_units"]) == ("tiny", 3, 144)
    assert len(report["history"]) == 3
    evaluated, _ = call(monkeypatch, capsys, "evaluate", out, "digits", "--json")
    assert json.loads(evaluated)["accuracy"] == report["inductive_accuracy"]
    predicted, _ = call(monkeypatch, capsys, "predict", out, pictures / "zero.png", "--json")
    (prediction,) = json.loads(predicted)["predictions"]
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    for name in ("units.png", "confusion.png"):
        with Image.open(out / name) as image:
            image.load()


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


def test_prices_are_no_formulae(tmp_path, monkeypatch, capsys):
    """Dollars in the names of classes, which matplotlib would read as mathematics."""
    class_folders(tmp_path / "wares", names=("$5#-$9", "$10-$20"))
    call(monkeypatch, capsys, "train", tmp_path / "wares", "--out", tmp_path / "m", *FAST)
    # As mathematics a name would be set in another font, so it would have other pixels.
    parse = "matplotlib.mathtext.MathTextParser.parse"
    monkeypatch.setattr(parse, lambda *_: pytest.fail("it was read as mathematics"))
    save_confusion(np.eye(2, dtype=int), ("$5#-$9", "$10-$20"), tmp_path / "confusion.png")
    with Image.open(tmp_path / "m" / "confusion.png") as image:
        image.load()


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


@pytest.mark.parametrize(
    ("header", "shape", "changes"),
    [
        (Header(8, 8, True), (8, 8), []),
        (Header(32, 33, True), (8, 8), ["resized to 8×8 (height×width)"]),
        (
            Header(4, 8, False),
            (8, 8),
            ["squeezed to 8×8 (height×width)", "turned from colour to g"],
        ),
        (
            Header(8, 8, True, pages=True),
            (8, 8, 3),
            ["turned from grey to RGB", "read as the first "],
        ),
    ],
)
def test_what_is_done_to_an_image_that_is_unlike_the_models(header, shape, changes):
    found = _changes(header, shape)
    assert len(found) == len(changes)
    assert all(a.startswith(b) for a, b in zip(found, changes, strict=True))
