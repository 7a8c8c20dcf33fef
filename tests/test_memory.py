"""Memory that is freed and kept."""

import subprocess
import sys

import pytest

from rankwise._memory import keep_freed_memory

AGAIN = """
import resource
from rankwise._memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (40 * 2**20)  # above what glibc keeps at most by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if KEEP:
    print(keep_freed_memory())
faults()
print(faults() < 100)
"""


def said(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own settings")
def test_freed_memory_is_there_for_the_next_maps():
    keeps, quick = said(AGAIN.replace("KEEP", "True"))
    assert keeps == quick  # where there is no glibc, both say False
    assert said(AGAIN.replace("KEEP", "False")) == ["False"]


def test_it_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


@pytest.mark.parametrize(("command", "kept"), [("train", [1]), ("evaluate", []), (None, [])])
def test_the_command_that_trains_keeps_it(command, kept, monkeypatch):
    from rankwise import cli

    called = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: called.append(1))
    monkeypatch.setattr(cli, "main", lambda: None)
    monkeypatch.setattr(sys, "argv", ["rankwise", *([command] if command else [])])
    cli.console()
    assert called == kept
