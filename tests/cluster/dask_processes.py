"""A scheduler and workers of Dask's as processes of their own, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rankwise

SOURCE = Path(rankwise.__file__).parents[1]


@contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """Bytes that this process sends to Dask's scheduler and workers, one entry a message."""
    from distributed.comm.tcp import TCP

    real, sent = TCP.write, []

    async def write(self: Any, *args: Any, **options: Any) -> int:
        n = await real(self, *args, **options)
        sent.append(n)
        return n

    TCP.write = write
    try:
        yield sent
    finally:
        TCP.write = real


def _address(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class DaskProcesses:
    """A scheduler on loopback, and workers with one thread each, in a folder of their own.

    Parameters
    ----------
    folder : Path
    workers : int
    link : callable, optional
        Gives the port of a link in front of a port: all that others say to a process passes it.
    **environment : str
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        link: Callable[[int], int] | None = None,
        **environment: str,
    ) -> None:
        self.folder, self._link = folder, link
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
            "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        file = folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(file),
        )  # fmt: skip
        while not file.exists():
            assert self.scheduler.poll() is None, self.said("scheduler")
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]
        if link is not None:
            self.address = _address(link(int(self.address.rpartition(":")[2])))
        self.workers = [self.join(f"worker-{number}") for number in range(workers)]

    def join(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        reached = []
        if self._link is not None:
            port = _free_port()
            reached = ["--listen-address", _address(port)]
            reached += ["--contact-address", _address(self._link(port))]
        return self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
            "--name", name, "--local-directory", str(self.folder), *reached, **environment,
        )  # fmt: skip

    def said(self, kind: str) -> str:
        """What a process has printed."""
        return (self.folder / f"{kind}.log").read_text()

    def _start(self, kind: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + kind, *arguments],
                cwd=self.folder,
                env=self.environment | environment,
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        """End all of them."""
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()
