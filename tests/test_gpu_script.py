"""The script for a GPU: its quick form, on the CPU, with no library that it doesn't ask for."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"

# What a machine with only torch, numpy, scipy and scikit-learn lacks of our dependencies.
ABSENT = (
    "array_api_compat",
    "beartype",
    "datasets",
    "jaxtyping",
    "kornia",
    "lightning",
    "matplotlib",
    "pandas",
    "PIL",
    "psutil",
    "pyarrow",
    "pydantic",
    "rich",
    "safetensors",
    "torchmetrics",
    "typer",
)
WITHOUT = f"""
import runpy, sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {ABSENT!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
sys.path = [place for place in sys.path if not place.endswith("/src")]
sys.argv = sys.argv[1:]
sys.path.insert(0, {str(SCRIPT.parent)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, str(SCRIPT), *options],
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_its_quick_form_agrees_with_the_cpu_without_other_libraries(tmp_path):
    done = run("--device", "cpu:torch", "--quick", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    assert found["stood_in_for"] == ["jaxtyping", "array-api-compat"]
    parts = found["parts"]
    assert set(parts) == {
        "batched sub-networks",
        "joint training",
        "low-rank copies",
        "head",
        "features",
        "networks",
    }
    assert "lightning" in parts.pop("networks")["sizes"]["not run for want of"]
    for name, part in parts.items():
        assert part["agrees"] is True, name
        assert len(part["differences"]) >= 2, name
        assert any(key.startswith(("ours", "12×12: ours")) for key in part["seconds"]), name
        assert any("rival" in key for key in part["seconds"]), name
        assert any("CPU" in key for key in part["seconds"]), name
    assert "src/rankwise/training/batched.py" in found["code"]


def test_networks_train_as_on_the_cpu(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = importlib.import_module("gpu")
    clock = script.Clock(torch.device("cpu"), 60)
    part = script.networks("cpu:torch", True, clock).report()
    assert part["agrees"] is True
    assert part["differences"]["train_loss"]["found"] == 0
    assert set(part["seconds"]) == {"CPU", "ours", "rival: a plain loop, nothing validated"}


def test_what_is_not_begun_in_time_is_named_and_no_gpu_is_one_sentence():
    done = run("--device", "cpu:torch", "--quick", "--limit", "0")
    assert done.returncode == 0, done.stderr
    assert {p["skipped"] for p in json.loads(done.stdout)["parts"].values()} == {"0 s were over"}
    if not torch.cuda.is_available():
        done = run("--quick")
        assert done.returncode == 1
        assert done.stderr == ("PyTorch finds no GPU here; --device cpu:torch runs the same code\n")
