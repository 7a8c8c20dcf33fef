"""The script that runs large studies in turns: what it carries from one turn to the next."""

import importlib
import tarfile
from pathlib import Path

import pytest

from study.run_cases import run, study

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu_study")


@pytest.mark.usefixtures("somebody")
def test_finished_cells_travel_and_the_study_goes_on_from_them(script, tmp_path):
    design = study(["none", "blur"], epochs=1, degraded="none")
    results = run(design, tmp_path / "first")
    lost = sorted((tmp_path / "first").rglob("result.json"))[:2]
    for path in lost:
        path.unlink()  # as if the time had been over
    assert script.pack(tmp_path / "first", tmp_path / "kept.tar.gz") == len(results["cells"]) - 2
    with tarfile.open(tmp_path / "kept.tar.gz") as tar:
        names = tar.getnames()
    assert "study.json" in names
    assert not [name for name in names if "training" in name or name.endswith(".safetensors")]
    script.unpack(tmp_path / "kept.tar.gz", tmp_path / "second")
    assert script.cells_done(tmp_path / "second") == len(results["cells"]) - 2
    told = script.report("s", tmp_path / "second", 2, 10.0, stopped=True)
    assert (told["cells"], told["done"], told["more_turns"]) == (6, 4, 1)
    again = run(design, tmp_path / "second")
    assert [c["test_accuracy"] for c in again["cells"]] == [
        c["test_accuracy"] for c in results["cells"]
    ]
    assert script.report("s", tmp_path / "second", 4, 10.0, stopped=False)["more_turns"] == 0


def test_a_command_is_stopped_when_its_time_is_over(script):
    import sys

    sleeping = "import time; time.sleep(60)"
    assert script.run([sys.executable, "-c", sleeping], 2.0)
    assert not script.run([sys.executable, "-c", "pass"], 60)
    with pytest.raises(SystemExit, match="the study ended with 3; what is finished stays"):
        script.run([sys.executable, "-c", "raise SystemExit(3)"], 60)


def test_every_study_has_its_command(script):
    import argparse

    from rankwise.study import read_study

    for name in script.NAMES:
        args = argparse.Namespace(study=name, quick=False, data="d", device="cuda", workers=4)
        words = script.command(args, Path("runs") / name)
        assert words[-6:] == ["--out", f"runs/{name}", "--device", "cuda", "--workers", "4"]
    design = read_study(ROOT / "benchmarks/designs/vgg16.toml")
    assert design.models["vgg16"].is_transfer
