"""A folder of tasks, worked off by processes that know nothing but its path."""

import os
import subprocess
import sys

import numpy as np
import pytest

import rankwise
from rankwise.errors import ClusterError


def worker(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "rankwise", "work", str(folder), "--idle", "20"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=folder.parent,
        stdout=subprocess.DEVNULL,
    )


def test_a_file_is_no_folder_of_tasks(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(ClusterError, match="can't be a folder of tasks, as there is a file at"),
            rankwise.cluster(f"folder:{path}"),
        ):
            pass


def test_any_number_of_processes_work_off_a_folder(tmp_path):
    def slow(common, number):
        import os
        import time

        time.sleep(0.05)
        return os.getpid(), common[number].sum()

    def seventh(number):
        return number // (number - 7)

    rows = np.random.default_rng(0).random((40, 3000))
    folder = tmp_path / "tasks"
    folder.mkdir()
    processes = [worker(folder), worker(folder)]
    try:
        with rankwise.cluster(f"folder:{folder}") as executor:
            done = executor.completed(slow, range(40), rows)
            found = dict([next(done) for _ in range(5)])
            killed = next(p for p in processes if p.pid in {pid for pid, _ in found.values()})
            killed.kill()  # with a task in its hands
            found |= dict(done)
            assert [found[n][1] for n in range(40)] == [row.sum() for row in rows]
            total = executor.tree(lambda c, n: c[n], range(40), np.add, rows)
            with rankwise.cluster("local:1") as here:
                expected = here.tree(lambda c, n: c[n], range(40), np.add, rows)
            np.testing.assert_array_equal(total, expected)
            with pytest.raises(ZeroDivisionError, match=r"by zero\non worker"):
                list(executor.map(seventh, [8, 7]))
            assert list(executor.map(abs, [])) == []
            assert executor.on_workers("copies") == "copies in a folder"  # nobody knows how many
        assert not list(folder.iterdir())
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    from rankwise.cluster.folder import work

    with pytest.raises(ClusterError, match=r"no folder; the PATH of --cluster folder:PATH"):
        work(tmp_path / "nothing")
    assert work(tmp_path, idle=0.0) == 0


def test_a_task_that_cannot_be_read_or_a_result_that_cannot_be_kept_is_an_error(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    process = worker(folder)
    try:
        with rankwise.cluster(f"folder:{folder}") as executor:
            with pytest.raises((TypeError, ClusterError), match=r"pickle|generator"):
                list(executor.completed(lambda n: (i for i in range(n)), [3]))
            with pytest.raises((ModuleNotFoundError, ClusterError), match="nowhere"):
                list(executor.completed(lambda item: item, [Unreadable()]))
            assert list(executor.map(lambda n: n + 1, [1, 2])) == [2, 3]
    finally:
        process.kill()
        process.wait()


class Unreadable:
    """What a worker can't read, as of another version."""

    def __reduce__(self):
        return __import__, ("nowhere",)
