"""``rankwise train`` under torchrun: one process speaks and writes, all train."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cli_cases import call

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def enough_images(path):
    """So many that a batch is cut into two."""
    rng = np.random.default_rng(0)
    labels = np.arange(3200) % 2
    images = rng.normal(80 + 60 * labels[:, None, None], 60, (3200, 8, 8)).clip(0, 255)
    images = images.astype(np.uint8)
    np.savez(
        path, x_train=images[:3000], y_train=labels[:3000],
        x_test=images[3000:], y_test=labels[3000:],
    )  # fmt: skip


def test_two_processes_write_what_one_writes(tmp_path, monkeypatch, capsys):
    enough_images(tmp_path / "images.npz")
    train = ["train", tmp_path / "images.npz", "--preset", "nano", "--max-iter", "2", "--json"]
    done = subprocess.run(
        [sys.executable, *TORCHRUN, "-m", "rankwise", *map(str, train), "--out", "together"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # of one process
    assert report["environment"]["processes"] == 2
    assert done.stderr.count("to train: ") == 1
    assert "have work" not in done.stderr
    together, alone = tmp_path / "together", tmp_path / "alone"
    one = json.loads(call(monkeypatch, capsys, *train, "--out", alone)[0])
    assert sorted(p.name for p in together.iterdir()) == sorted(p.name for p in alone.iterdir())
    name = "model.safetensors"
    assert (together / name).read_bytes() == (alone / name).read_bytes()
    assert report["inductive_accuracy"] == one["inductive_accuracy"]
    # One process goes on from what two have kept.
    (together / "report.json").unlink()
    (together / name).unlink()
    again = json.loads(call(monkeypatch, capsys, *train, "--out", together)[0])
    assert again["resumed_epochs"] == 2
    assert (together / name).read_bytes() == (alone / name).read_bytes()


TRAIN = ["train", "digits", "--out", "out"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["head", "digits", "--out", "out"], "'rankwise head' has no work for several processes"),
        (["study", "run", "out"], "'rankwise study' has no work for several processes, and tor"),
        (TRAIN, "torchrun train a convolutional preset together (wide, accurate, small, tiny, "),
        ([*TRAIN, "--preset", "windowed"], "and 'windowed' is another; name one with --preset"),
        ([*TRAIN, "--backbone", "efficientnet-lite0"], "and none is given"),
        ([*TRAIN, "--preset", "tiny", "--cluster", "ray"], "--cluster and torchrun both share out"),
        ([*TRAIN, "--preset", "tiny", "--max-iter", "1"], "don't reach one another"),
    ],
)
def test_refused_by_the_first_process_alone(arguments, sentence, tmp_path, monkeypatch, capsys):
    from rankwise.cli import _together

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
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


def test_a_world_of_one_is_no_other_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert call(monkeypatch, capsys, "--version")[0]
    _, err = call(monkeypatch, capsys, "evaluate", "nowhere", "digits", expect=1)
    assert "torchrun" not in err
