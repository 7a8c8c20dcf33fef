"""Tasks as files in a folder, which any number of processes that see it work off.

No scheduler is needed, so it suits a batch system: ``srun rankwise work PATH``. A job is a folder
``job-…`` with ``job`` (what its tasks share), large arrays as ``….npy``, which are mapped, and
``….task``. Whoever takes a task holds a lock on it, which the system releases when a process ends,
in whatever way; its outcome is written whole or not at all. The client reads the outcomes and
removes the job. Files are pickles: whoever may write there may run code, as on any cluster.
"""

from __future__ import annotations

import pickle
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._claims import locked
from rankwise._files import atomic_path
from rankwise.cluster.executor import Executor
from rankwise.cluster.tasks import Outcome, Task, carry_out, failed, pack
from rankwise.errors import ClusterError, is_shortage

_POLL = 0.05
_PARTS = 64
"""Chunks that a sum is cut into where it isn't known how many will work."""


class FolderExecutor(Executor):
    """Tasks in a folder, for ``rankwise work``; this process waits for their outcomes.

    Parameters
    ----------
    folder : Path
        On a disk that all workers see.
    mixed_kernels : bool

    Raises
    ------
    ClusterError
        If a file stands where the folder would be.
    """

    def __init__(self, folder: Path, *, mixed_kernels: bool = False) -> None:
        super().__init__(mixed_kernels=mixed_kernels)
        self.folder = folder.absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ClusterError(
                f"{folder} can't be a folder of tasks, as there is a file at or above it; the path "
                "of a folder is accepted"
            ) from error
        self.address = f"folder:{folder}"
        self._arrays: dict[int, Path] = {}
        self._jobs: list[Path] = []

    @property
    def workers(self) -> int:
        """As many as a sum is cut for."""
        return _PARTS // 2

    def on_workers(self, what: str) -> str:
        """What is under way: how many work in a folder isn't known."""
        return f"{what} in a folder"

    def close(self) -> None:
        """Remove what this executor's jobs have left: a worker may have looked in meanwhile."""
        for job in self._jobs:
            shutil.rmtree(job, ignore_errors=True)
        for path in self._arrays.values():
            path.unlink(missing_ok=True)
        self._arrays.clear()

    def outcomes(
        self, task: Task, items: Sequence[Any], common: Any, *, stay: bool = False
    ) -> Iterator[tuple[int, Outcome]]:
        """As `Executor` says."""
        if not len(items):
            return
        packed, arrays = pack(task, common)
        names = [self._kept(array) for array in arrays]
        job = self.folder / f"job-{time.time_ns():020d}-{secrets.token_hex(4)}"
        self._jobs.append(job)
        try:
            for number, item in enumerate(items):
                _write(job / f"{number:08d}.task", item)
            _write(job / "job", (self.code, packed, names))  # last: the tasks are there then
            waiting = set(range(len(items)))
            while waiting:
                found = [n for n in sorted(waiting) if (job / f"{n:08d}.done").exists()]
                for number in found:
                    waiting.remove(number)
                    yield number, _read(job / f"{number:08d}.done")
                if not found:
                    time.sleep(_POLL)
        finally:
            with suppress(OSError):
                (job / "job").unlink()  # first: nobody takes a task of it now
            shutil.rmtree(job, ignore_errors=True)

    def _kept(self, array: np.ndarray) -> str:
        """The name of an array's file, written once."""
        key = id(array)
        if key not in self._arrays:
            path = self.folder / f"array-{secrets.token_hex(8)}.npy"
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.asarray(array), allow_pickle=False)
            self._arrays[key] = path
            weakref.finalize(array, _forget, self._arrays, key)
        return self._arrays[key].name


def _forget(arrays: dict[int, Path], key: int) -> None:
    path = arrays.pop(key, None)
    if path is not None:
        with suppress(OSError):
            path.unlink()


def work(folder: Path, *, idle: float | None = None) -> int:
    """Work off the tasks of a folder; gives their number.

    Parameters
    ----------
    folder : Path
    idle : float, optional
        Seconds without a task after which this ends.

    Raises
    ------
    ClusterError
        If it isn't a folder.
    """
    if not folder.is_dir():
        raise ClusterError(f"{folder} is no folder; the PATH of --cluster folder:PATH is accepted")
    done, last = 0, time.monotonic()
    while idle is None or time.monotonic() - last < idle:
        if _one_task(folder):
            done, last = done + 1, time.monotonic()
        else:
            time.sleep(_POLL)
    return done


def _one_task(folder: Path) -> bool:
    """Take a task that nobody has; of the oldest job first. False where there is none."""
    for job in sorted(folder.glob("job-*")):
        if not (job / "job").exists():
            continue
        for task in sorted(job.glob("*.task")):
            outcome = task.with_suffix(".done")
            if outcome.exists() or not (job / "job").exists():
                continue
            with suppress(FileNotFoundError), locked(task.with_suffix(".lock")) as mine:
                # Of a job that its client has given up there is nothing left to do.
                if not mine or outcome.exists() or not task.exists():
                    continue
                code, packed, names = _read(job / "job")
                arrays = [_mapped(folder / name) for name in names]
                try:
                    item = _read(task)
                except Exception as error:  # of another version, say: its check comes too late
                    found = failed(error)
                else:
                    found = carry_out(code, packed, item, "", *arrays)
                if job.exists():
                    try:
                        _write(outcome, found)
                    except Exception as error:
                        if is_shortage(error):
                            raise
                        _write(outcome, failed(error))
                return True
    return False


@lru_cache(maxsize=64)
def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _write(path: Path, value: Any) -> None:
    import cloudpickle

    with atomic_path(path) as temporary:
        temporary.write_bytes(cloudpickle.dumps(value))


def _read(path: Path) -> Any:
    return pickle.loads(path.read_bytes())
