"""Every example runs, and prints what its docstring promises; some as users would run them."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))

# One BLAS thread, as the suite runs on all cores; nothing may be fetched.
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONIOENCODING": "utf-8",
}

PROMISES = {
    "bootstrap_honestly": (
        r"inductive accuracy +0\.[789]\d+ .*\n"
        r"agreement with guesses +(1\.0+|0\.9\d+) .*\n"
        r"transductive accuracy +0\.[789]\d+ "
    ),
    "compare_jacobians": (
        r"iteration +kaufman +golub-pereyra\n(?: +\d+ +\d+\.\d\d +\d+\.\d\d\n){12}$"
    ),
    "confidence_bands": (
        r"converged after \d+ iterations(?:.*\n)+rate +0\.[89]\d+ (?:.*\n)+"
        r"at 2\.5 between 0\.6\d+ and 0\.7\d+\n(?:.*\n)+"
        r"95% bands held the truth 9[3-7]\.\d% of the time"
    ),
    "convolutional_units": (
        r"augmentation  accuracy  parameters  output layer\n"
        r"none +0\.9\d+ +\d,\d+  (glue|trained)\nmoves +0\.9\d+ +\d,\d+  (glue|trained)\n"
    ),
    "export_to_c": (
        r"precision +flash +RAM +accuracy\n"
        r"float32 +7,\d+ +440 +0\.9\d+\nfloat16 +4,\d+ +440 +0\.9\d+\nint8 +2,\d+ +440 +0\.9\d+"
    ),
    "fit_exponentials": (
        r"converged after \d+ iterations, rank 3 of 3\n(?:.*\n)+"
        r"rate 1 +0\.50 +0\.(49|50|51)\d\n"
        r"rate 2 +3\.00 +(2\.[89]|3\.[012])\d+\n"
    ),
    "fit_within_bounds": (
        r"free +slow +0\.[78]\d+  fast +1[345]\.\d+  rss \S+  converged\n"
        r"bounds +slow +0\.[78]\d+  fast 12\.000  rss \S+  converged\n"
        r"tied +slow +(0\.[78]\d)\d  fast +\d\.\d+  rss \S+  converged\n"
    ),
    "last_layer": (r"ridge \S+ by loo, test accuracy 0\.9\d+\n(2\d|30) of the 30 most suspicious"),
    "low_rank_copies": (
        r" 0\.800 +0\.1\d+\n 0\.900 +0\.0\d+\n 0\.975 +0\.01\d+\n 1\.000 +0\.0000\n"
        r"\d+ images, \d+ copies\nevery copy has the source id of its original: True"
    ),
    "nonnegative_amplitudes": (
        r"any sign +rates 0\.[34]\d+ 0\.[89]\d+  smallest amplitude -0\.\d+  error .*\n"
        r"not negative  rates 0\.[34]\d+ 0\.[89]\d+  smallest amplitude  0\.000  error of"
    ),
    "sklearn_pipeline": r"(?:0\.\d+  \S+, (?:bilinear|symmetric)\n){4}best .*: 0\.9[3-9]\d\d",
    "train_digits": (
        r"test accuracy: 0\.9[5-9]\d\d\nsaved: model\.json, model\.safetensors\n"
        r"loaded model predicts the same: True"
    ),
}


# The others run in this process, which has the libraries loaded.
OF_THEIR_OWN = ("confidence_bands", "train_digits")


def test_every_example_has_a_promise():
    assert {path.stem for path in EXAMPLES} == set(PROMISES)


def python(folder, *arguments):
    """What Python prints when it is run so in a folder; it must succeed."""
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=ENVIRONMENT,
        cwd=folder,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, tmp_path, monkeypatch, capsys):
    if path.stem in OF_THEIR_OWN:
        printed = python(tmp_path, str(path)).stdout
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path)])
        monkeypatch.syspath_prepend(str(path.parent))
        runpy.run_path(str(path), run_name="__main__")
        printed = capsys.readouterr().out
    assert re.search(PROMISES[path.stem], printed), printed
    assert not any(tmp_path.iterdir()), "an example left files behind"
    if path.stem == "compare_jacobians":
        rows = [line.split()[1:] for line in printed.splitlines()[1:]]
        for column in zip(*rows, strict=True):
            objective = [float(value) for value in column]
            assert objective == sorted(objective, reverse=True)
            assert objective[-1] < 0.8 * objective[0]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_short_and_says_what_it_shows(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 40
    assert len(ast.get_docstring(ast.parse(source)) or "") > 40


def test_the_study_of_the_digits(tmp_path):
    """A study file, which the command reads; offline, and nothing left outside its folder."""
    path = EXAMPLES[0].with_name("study_digits.toml")
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 40
    assert source.startswith("# ")
    command = ["study", "run", str(path), "--out", "out", "--workers", "1", "--device", "cpu"]
    result = python(tmp_path, "-m", "rankwise", *command)
    for arm in ("none", "low-rank", "jpeg", "duplicate"):
        found = re.search(rf"digits/quadratic/{arm}/1 .* (\d\d\.\d\d)%\n", result.stdout)
        assert float(found[1]) > 70
    assert "digits/quadratic/low-rank/1 against duplicate\n  " in result.stdout
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
