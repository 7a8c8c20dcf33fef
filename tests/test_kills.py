"""Commands that are ended at single file operations end as if nobody had ended them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[1] / "benchmarks" / "kills.py"


@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="file operations are caught as Linux has them")
@pytest.mark.skipif(not shutil.which("cc") and not shutil.which("gcc"), reason="needs a compiler")
def test_ended_commands_go_on_to_the_same_files_and_leave_nothing_over():
    done = subprocess.run(
        [sys.executable, str(KILLS), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    *_, last = done.stdout.splitlines()
    kills, wrong = last.split(" kills, ")
    assert int(kills) >= 20
    assert wrong == "0 not equal to an uninterrupted run"
