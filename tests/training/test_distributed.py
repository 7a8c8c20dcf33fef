"""Two processes of torchrun's train what one trains."""

import os
import subprocess
import sys

import numpy as np
import pytest

from rankwise import ConvolutionalClassifier
from rankwise.errors import RunError
from rankwise.training.distributed import (
    check_same,
    data_parallel,
    ending_together,
    is_first,
    of_first,
    processes_here,
    shared_out,
)

SCRIPT = """
import itertools
import sys
from pathlib import Path
import torch
from sklearn.datasets import load_digits
from rankwise import ConvolutionalClassifier
from rankwise.errors import RunError
from rankwise.training.augment import Augmentation, channel_statistics
from rankwise.training.distributed import data_parallel, ending_together, of_first, shared_out
from rankwise.training.joint import JointTraining
from rankwise.training.joint_plan import JointPlan
from rankwise.training.modules import ConvolutionalModule
from rankwise.training.steps import Clock
from rankwise.units.convolutional import ConvolutionalUnits, Layer

def say(*words):
    # In one piece: both processes write into one pipe.
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()


X, y = load_digits(return_X_y=True)
X = X[:400].reshape(-1, 8, 8)
with data_parallel() as rank:
    say(rank, shared_out(lambda some: [(n, rank) for n in some], range(5)))
    model = ConvolutionalClassifier("tiny", epochs=2, random_state=1)
    model.fit(X, y[:400], checkpoint_dir="kept")
    model.save(f"model-{rank}.safetensors")
    try:
        ConvolutionalClassifier("tiny", epochs=1, random_state=rank).fit(X, y[:400])
    except RunError as error:
        say("refused", error)
    try:
        ConvolutionalClassifier("tiny", epochs=1).fit(X + rank, y[:400])
    except RunError as error:
        say("refused", error)
    budget = ConvolutionalClassifier("tiny", time_budget=0.02).fit(X, y[:400])
    say("budget", [entry["learning_rate"] for entry in budget.history_])
    # By the clock of the first there will be many epochs, by its own the second would have few.
    moves = {"augmentation": Augmentation(), "long": Augmentation(shift=0.2, erase=0.5)}
    plan = JointPlan(epochs=90, batch_size=50, time_budget=1.0, **moves)
    units = ConvolutionalUnits((8, 8), (Layer(4, pool=2),))
    start = torch.Generator().manual_seed(0)
    training = JointTraining(ConvolutionalModule(units, *channel_statistics(X), start), plan, 10)
    readings, found = itertools.count(0.0, (0.01, 1.0)[rank]), []
    training._clock = Clock(20.0, now=lambda: next(readings))
    note = lambda entry: found.append(training.moves == plan.long)
    training.fit(X[:100], y[:100], after_epoch=note)
    say("moves", found)
    try:
        with ending_together():
            if rank == 1:
                raise ValueError("no images here")
            of_first(None)
    except (RunError, ValueError) as error:
        say(rank, "ended:", error)

# A thread that is left may abort the interpreter at its end.
names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
say("left", [name for name in names if "gloo" in name])
"""


def test_two_processes_train_what_one_trains(tmp_path, digits):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "script.py"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shares = [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]
    for rank in (0, 1):
        assert f"{rank} {shares}" in done.stdout
    assert done.stdout.count("refused the processes that train together differ in data") == 4
    budgets = [line for line in done.stdout.splitlines() if line.startswith("budget")]
    assert len(budgets) == 2
    assert done.stdout.count("left []") == 2
    assert budgets[0] == budgets[1]
    moves = [line for line in done.stdout.splitlines() if line.startswith("moves")]
    assert len(moves) == 2
    assert moves == [f"moves {[False] + 89 * [True]}"] * 2
    assert "0 ended: process 1 of those that train together: no images here\n" in done.stdout
    assert "1 ended: no images here\n" in done.stdout
    first, second = (
        ConvolutionalClassifier.load(tmp_path / f"model-{rank}.safetensors") for rank in (0, 1)
    )
    images, labels = digits
    images, labels = images[:400] / 255 * 16, labels[:400]
    np.testing.assert_array_equal(first.outputs(images), second.outputs(images))
    one = ConvolutionalClassifier("tiny", epochs=2, random_state=1)
    one.fit(np.round(images), labels)
    np.testing.assert_allclose(first.outputs(images), one.outputs(images), rtol=1e-4, atol=1e-4)
    # One process goes on from what two have kept: there is nothing left to do.
    kept = list((tmp_path / "kept").glob("*.safetensors"))
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    again = ConvolutionalClassifier("tiny", epochs=2, random_state=1)
    again.fit(np.round(images), labels, checkpoint_dir=tmp_path / "kept")
    assert kept[0].stat().st_mtime_ns == written


def test_alone_everything_is_this_process_s(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # of processes that don't train together
    with (
        pytest.raises(RunError, match=r"belongs to no group .* 'torchrun --nproc-per-node 2 SCR"),
        data_parallel(),
    ):
        pass
    assert shared_out(list, (1, 2)) == [1, 2]
    assert is_first()
    check_same("anything", object())
    assert of_first(3) == 3
    assert processes_here() == 1
    with pytest.raises(ZeroDivisionError), ending_together():
        _ = 1 // 0
