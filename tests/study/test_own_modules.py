"""Somebody's own modules, found by the real console script wherever it's called."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli_cases import call
from rankwise.cli.study import importable
from rankwise.study import StudyError
from rankwise.study.arms import find_callable

STUDY = """\
protocol = "paper"
models = ["own_nets:linear"]
folds = 2
epochs = 1
retrain = false
degraded = "none"

[arms.shifted]
kind = "callable"
function = "own_arms:shifted"
use = "copies"

[data.digits]
source = "digits"
limit = 60
"""
NETS = """\
from torch import nn


def linear(image_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))
"""
ARMS = """\
import numpy as np


def shifted(images, random):
    return np.roll(images, 1, axis=2)
"""


@pytest.fixture
def folders(tmp_path):
    """A study with its network beside it, and another folder with its arm."""
    study, current = tmp_path / "study", tmp_path / "current"
    study.mkdir()
    current.mkdir()
    (study / "own.toml").write_text(STUDY)
    (study / "own_nets.py").write_text(NETS)
    (current / "own_arms.py").write_text(ARMS)
    return study, current


def test_they_are_found_beside_the_file_and_in_the_current_folder(folders, tmp_path):
    """By the installed command, which has no current folder on its path, unlike ``python -m``."""
    study, current = folders
    script = shutil.which("rankwise", path=str(Path(sys.executable).parent))
    assert script, "rankwise isn't installed beside this Python"
    # With two workers, cells run in processes of joblib's.
    options = ("--out", str(tmp_path / "out"), "--workers", "2", "--device", "cpu")
    ended = subprocess.run(
        [script, "study", "run", str(study / "own.toml"), *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=current,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [c["n_copies"] > 0 for c in results["cells"]] == [True, True]
    assert (results["workers"], results["conditions"][0]["n_parameters"]) == (2, 650)


def test_the_path_is_left_as_it_was(folders, monkeypatch):
    study, current = folders
    monkeypatch.chdir(current)
    before = list(sys.path)
    with importable(str(study / "own.toml")):
        assert sys.path == [*before, str(study), str(current)]
        assert find_callable("own_arms:shifted").__module__ == "own_arms"
    assert sys.path == before
    message = (
        "own_arms:shifted can't be imported: No module named 'own_arms'; a module on Python's path "
        "is accepted (for `rankwise study` also one in the current folder, or beside the study "
        "file that it is given)"
    )
    sys.modules.pop("own_arms")
    with pytest.raises(StudyError, match=re.escape(message)):
        find_callable("own_arms:shifted")
    monkeypatch.setattr(sys, "path", [str(current), *before])
    with importable("experiment-1"):
        assert sys.path == [str(current), *before]


def test_a_study_of_own_functions_is_extended(folders, tmp_path, monkeypatch, capsys):
    study, current = folders
    shutil.copy(current / "own_arms.py", study)
    monkeypatch.chdir(study)
    out = tmp_path / "out"
    options = ("--workers", 1, "--device", "cpu", "--json")
    call(monkeypatch, capsys, "study", "run", "own.toml", "--out", out, *options)
    for name in ("own_nets", "own_arms"):
        sys.modules.pop(name)
    before = list(sys.path)
    extend = ("study", "extend", out, "--seeds", "43", *options)
    text, _ = call(monkeypatch, capsys, *extend)
    assert json.loads(text)["study"]["seeds"] == [42, 43]
    assert sys.path == before
    for name in ("own_nets", "own_arms"):
        sys.modules.pop(name)
    # Elsewhere they aren't found, and the sentence says where they would be.
    monkeypatch.chdir(tmp_path)
    _, error = call(monkeypatch, capsys, *extend, expect=1)
    assert "also one in the current folder, or beside the study file" in " ".join(error.split())


def test_the_path_is_left_as_it_was_after_an_error(folders):
    before = list(sys.path)
    with pytest.raises(StudyError, match="own_nets:conv: the module own_nets has no conv "):
        fail(folders[0])
    sys.modules.pop("own_nets")
    assert sys.path == before


def fail(folder):
    with importable(str(folder / "own.toml")):
        find_callable("own_nets:conv")
