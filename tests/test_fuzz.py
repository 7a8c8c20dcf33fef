"""Hundreds of spoilt inputs end well or in one clear sentence; `benchmarks/fuzz.py` has more."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="inputs run in forks, their memory is measured")
def test_spoilt_inputs_end_well_or_in_one_sentence():
    done = subprocess.run(
        [sys.executable, str(FUZZ), "--inputs", "500"],
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "500 inputs" in done.stdout
