"""What tests of the command line share: calling it, and small sources for it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

FAST = ["--units", "20", "--subnets", "2", "--max-iter", "3", "--workers", "1"]
CONVOLUTIONAL = ["--preset", "tiny", "--max-iter", "3", "--workers", "1", "--limit", "300"]


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
    # Not above: conftest.py takes `run` from here, before it has rankwise's annotations checked.
    from rankwise.cli import main

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["rankwise", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    output = capsys.readouterr()
    assert (stop.value.code or 0) == expect, output.err
    assert "Traceback" not in output.err
    return output.out, output.err


def cells(table):
    """Of a printed table, row by row."""
    rows = [line.strip() for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row[1:-1].split("│")] for row in rows]


def class_folders(folder, per_class=12, names=("a", "b")):
    """Small noisy images, a folder for each class, told apart by their brightness."""
    rng = np.random.default_rng(0)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.normal(60 + 80 * level, 20, (8, 8)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}-x.png")
