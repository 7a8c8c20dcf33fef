"""Whose folder it is, and that nobody else works there."""

import hashlib
import os
import subprocess
import sys
import time

import pytest

from rankwise._claims import LOCK, checksum, contents, held, locked, refuse_foreign
from rankwise._files import PART, atomic_path, temporary_folder
from rankwise.errors import RunError

DEAD = 2**22 + 1
"""No process has this number: Linux gives none past 2²²."""


def part(folder, owner, name="x.json"):
    path = folder / f"{PART}{owner}-abcdef01-{name}"
    path.write_text("half")
    return path


def mine(number):
    from rankwise._files import _machine

    return f"{_machine()}-{number}"


def test_what_a_killed_process_left_makes_no_folder_foreign(tmp_path):
    refuse_foreign(tmp_path / "new", "run", own=False)
    part(tmp_path, mine(DEAD))
    (tmp_path / LOCK).touch()
    assert contents(tmp_path) == []
    refuse_foreign(tmp_path, "run", own=False)
    (tmp_path / "features").mkdir()
    refuse_foreign(tmp_path, "head", own=False, begun=("features",))
    with pytest.raises(RunError, match="isn't empty and holds no run; choose another folder"):
        refuse_foreign(tmp_path, "run", own=False)
    refuse_foreign(tmp_path, "run", own=True)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file; give a folder to write the study into"):
        refuse_foreign(tmp_path / "file", "study", own=False)


def test_a_writer_clears_what_the_dead_left_and_nothing_else(tmp_path):
    dead = part(tmp_path, mine(DEAD))
    reused = part(tmp_path, mine(os.getpid()), "of an earlier process of this number")
    alive = part(tmp_path, mine(os.getppid()))
    elsewhere = part(tmp_path, f"00000000-{DEAD}", "fresh")
    old = part(tmp_path, f"00000000-{DEAD}", "old")
    os.utime(old, (time.time() - 100_000,) * 2)
    foreign = tmp_path / ".hidden"
    foreign.touch()
    with atomic_path(tmp_path / "outer") as outer, atomic_path(tmp_path / "inner"):
        assert outer.exists(), "of this process, and alive"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {alive.name, elsewhere.name, foreign.name, "outer", "inner"}
    assert not {dead.name, reused.name, old.name} & left
    # Whoever holds the folder knows that nobody else is alive in it.
    with held(tmp_path, "run"):
        assert {p.name for p in tmp_path.iterdir()} == {LOCK, ".hidden", "outer", "inner"}
    assert not (tmp_path / LOCK).exists()


HOLD = """
import sys
from pathlib import Path
from rankwise._claims import held

with held(Path(sys.argv[1]), "run"):
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_two_can_not_work_in_one_folder(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "begun\n"
        with (
            pytest.raises(RunError, match=r"another run is running in .*out; wait until it ends"),
            held(out, "run"),
        ):
            pass
        with locked(out / LOCK) as is_mine:
            assert not is_mine
        other.kill()
    # However it ends, its lock ends with it; the file that is left stops nobody.
    assert (out / LOCK).exists()
    with held(out, "run"):
        pass
    assert not (out / LOCK).exists()


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "a/b", "run"):
        _ = 1 / 0
    assert not (tmp_path / "a").exists()
    with held(tmp_path / "a/b", "run"):
        (tmp_path / "a/b/kept").touch()
    assert (tmp_path / "a/b/kept").exists()


def test_temporary_folders_of_the_dead_are_cleared(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / f"rankwise-tmp-{mine(DEAD)}-x"
    (dead / "below").mkdir(parents=True)
    with temporary_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_a_checksum_is_that_of_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    assert checksum(tmp_path / "x") == hashlib.sha256(b"content").hexdigest()
