"""Mistakes on the command line: one sentence each, and the exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli_cases import FAST, call, class_folders, run
from rankwise import QuadraticClassifier, load_images, runs
from rankwise.cli import main
from rankwise.errors import DataError


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
        (
            ["train", "digits", "--augmentation", "blur"],
            None,
            "unknown augmentation 'blur'; accepted",
        ),
        (
            ["train", "digits", "--preset", "windowed", "--augmentation", "moves"],
            None,
            "augmentation 'moves' needs training on batches",
        ),
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


def test_an_image_that_is_too_large_to_open(tmp_path, monkeypatch, capsys):
    Image.new("L", (30, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    arguments = ["show", tmp_path / "large.png", "--out", tmp_path / "x.png"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "large.png can't be read as an image: it is too large: over" in err


class OutOfMemoryError(RuntimeError):
    """As PyTorch calls that of a GPU."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
    ],
)
def test_memory_that_is_not_there(tmp_path, monkeypatch, capsys, error):
    def train(*arguments, **options):
        raise error

    monkeypatch.setattr(runs, "train", train)
    _, err = call(monkeypatch, capsys, "train", "digits", "--out", tmp_path / "m", expect=1)
    assert err.startswith("error: not enough memory; less of --units, ")
    assert err.count("\n") == 1


def test_an_error_of_our_own_is_not_hidden(tmp_path, monkeypatch):
    def train(*arguments, **options):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr("sys.argv", ["rankwise", "train", "digits", "--out", str(tmp_path / "m")])
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main()


@pytest.mark.parametrize(
    ("where", "arguments", "kept"),
    [
        ("rankwise.runs.evaluate", ["evaluate", "m", "digits"], ""),
        ("rankwise.runs.predict", ["predict", "m", "a.png"], ""),
        ("rankwise.estimators.models.load_model", ["export", "m", "--format", "c"], ""),
        ("rankwise.lowrank.pictures.draw_image", ["show", "a.png", "--out", "b.png"], ""),
        (
            "rankwise.data.source.Source",
            ["augment", "digits", "m"],
            "; the same command goes on where it stopped",
        ),
        (
            "rankwise.runs.heads.fit_head",
            ["head", "digits", "--backbone", "b", "--out", "m"],
            "; features that are complete are kept",
        ),
        (
            "rankwise.study.run.run_study",
            ["study", "run", "experiment-1", "--only", "mnist", "--out", "m"],
            "; finished cells are kept, and the same command goes on",
        ),
    ],
)
def test_control_c_is_one_line(where, arguments, kept, tmp_path, monkeypatch, capsys):
    def stop(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("a.png")
    monkeypatch.setattr(where, stop)
    out, err = call(monkeypatch, capsys, *arguments, expect=130)
    assert out == ""
    assert err.startswith(f"interrupted{kept}")
    assert err.count("\n") == 1


def test_a_tilde_is_the_home_folder_everywhere(tmp_path, monkeypatch, capsys):
    """Also where no shell expands it: behind an equals sign, or quoted."""
    class_folders(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, capsys, "train", "~/photos", "--out=~/m", *FAST)
    call(monkeypatch, capsys, "evaluate", "~/m", "~/photos")
    call(monkeypatch, capsys, "predict", "~/m", "~/photos/a/0-x.png")
    assert not (tmp_path / "~").exists()
    model = QuadraticClassifier.load("~/m")
    model.save("~/again")
    assert (tmp_path / "again" / "model.json").exists()
    with pytest.raises(DataError, match="doesn't exist"):
        load_images("~/photo")


@pytest.mark.parametrize("size", ["inf", "nan", "0", "-1"])
def test_a_size_of_shards_that_is_none(size, tmp_path, monkeypatch, capsys):
    arguments = ("shard", "digits", tmp_path / "o", "--shard-mib", size)
    _, err = call(monkeypatch, capsys, *arguments, expect=2)
    said = " ".join(err.replace("│", " ").split())
    assert f"--shard-mib takes a number above 0, got {size}" in said
    assert not (tmp_path / "o").exists()


def test_no_workers_to_shard_with(tmp_path, monkeypatch, capsys):
    arguments = ("shard", "digits", tmp_path / "o", "--workers", "0")
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert err == "error: workers must be a number from 1, or -1 for one a core, got 0\n"
    assert not (tmp_path / "o").exists()


def test_every_file_of_a_folder_is_named(trained, pictures, tmp_path, monkeypatch, capsys):
    """Linked folders are read, each once; dead links and empty folders are told."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "there").symlink_to(pictures)
    (folder / "again").symlink_to(folder)
    (folder / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "empty").mkdir()
    out, _ = call(
        monkeypatch, capsys, "predict", trained[0], folder, tmp_path / "empty", "--json", expect=1
    )
    found = {
        part: sorted(Path(entry["file"]).name for entry in entries)
        for part, entries in json.loads(out).items()
    }
    assert found == {"predictions": ["one.png", "zero.png"], "failed": ["dead.png", "empty"]}
