"""``rankwise train`` under torchrun: one process speaks and writes, all train."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cli_cases import call

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
MODEL = "model.safetensors"
OPTIONS = ["--preset", "nano", "--max-iter", "2"]
ENDED = """
import os, signal, threading, time
from pathlib import Path
from rankwise.cli import main

def end():
    while not Path("out/subnets/joint.safetensors").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1":
    threading.Thread(target=end, daemon=True).start()
main()
"""


def together(folder, *arguments):
    """Run what torchrun starts in two processes."""
    return subprocess.run(
        [sys.executable, *TORCHRUN, *map(str, arguments)],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """So many images that a batch is cut into two."""
    rng = np.random.default_rng(0)
    labels = np.arange(3200) % 2
    images = rng.normal(80 + 60 * labels[:, None, None], 60, (3200, 8, 8)).clip(0, 255)
    images = images.astype(np.uint8)
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(
        path, x_train=images[:3000], y_train=labels[:3000],
        x_test=images[3000:], y_test=labels[3000:],
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def alone(source):
    """The folder that one process writes."""
    from rankwise.runs import TrainingRun, train

    run = TrainingRun(str(source), preset="nano", parameters={"max_iter": 2})
    train(run, source.parent / "alone")
    return source.parent / "alone"


def test_two_processes_write_what_one_writes(source, alone, tmp_path):
    out = tmp_path / "out"
    done = together(
        tmp_path, "-m", "rankwise", "train", source, *OPTIONS, "--json", "--out", out
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # of one process
    assert report["environment"]["processes"] == 2
    assert done.stderr.count("to train: ") == 1
    assert "has work for" not in done.stderr
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in alone.iterdir())
    assert (out / MODEL).read_bytes() == (alone / MODEL).read_bytes()
    one = json.loads((alone / "report.json").read_text())
    assert report["inductive_accuracy"] == one["inductive_accuracy"]


def test_a_killed_process_ends_all_and_one_goes_on(source, alone, tmp_path, monkeypatch, capsys):
    (tmp_path / "script.py").write_text(ENDED, encoding="utf-8")
    out = tmp_path / "out"
    done = together(tmp_path, "script.py", "train", source, *OPTIONS, "--out", "out")
    assert done.returncode == 1
    # torchrun's signal may come first.
    assert (
        "train together is gone" in done.stderr or "interrupted: 1 finished epochs" in done.stderr
    )
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == ["run.json", "subnets"]
    train = ["train", source, *OPTIONS, "--out", out, "--json"]
    assert json.loads(call(monkeypatch, capsys, *train)[0])["resumed_epochs"] == 1
    assert (out / MODEL).read_bytes() == (alone / MODEL).read_bytes()


TRAIN = ["train", "digits", "--out", "out"]
TINY = [*TRAIN, "--preset", "tiny"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["head", "digits", "--out", "out"], "'rankwise head' has no work for several processes"),
        (["study", "run", "out"], "'rankwise study' has no work for several processes, and tor"),
        ([*TRAIN, "--backbone", "efficientnet-lite0"], "'rankwise train --backbone' has no work"),
        ([*TINY, "--cluster", "ray"], "'rankwise train --cluster' has no work for several proc"),
        (TRAIN, "train a convolutional preset together (wide, accurate, small, tiny, nano), and "),
        (TRAIN, "and none is named; name one with --preset, or train in one process"),
        ([*TRAIN, "--preset", "windowed"], "and 'windowed' is another; name one with --preset"),
        ([*TINY, "--device", "cuda"], "on CPUs, and device 'cuda' is another; leave --device out"),
        ([*TINY, "--max-iter", "1"], "don't reach one another"),
    ],
)
def test_refused_by_the_first_process_alone(arguments, sentence, tmp_path, monkeypatch, capsys):
    from rankwise.cli import _together

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
    waited = []
    monkeypatch.setattr(_together, "_wait_to_be_ended", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert call(monkeypatch, capsys, *arguments, expect=1) == ("", "")
    assert waited == [1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"},
        {"RANK": "1", "WORLD_SIZE": "2"},  # a scheduler's
    ],
)
def test_a_process_that_trains_with_no_other(variables, monkeypatch, capsys):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert call(monkeypatch, capsys, "--version")[0]
    _, err = call(monkeypatch, capsys, "evaluate", "nowhere", "digits", expect=1)
    assert "nowhere" in err
    assert "torchrun" not in err
