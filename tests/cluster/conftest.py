import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `dask_processes`, for tests and benchmarks


@pytest.fixture(scope="session")
def dask_processes(tmp_path_factory):
    """A scheduler with two workers, processes in another folder than the tests."""
    pytest.importorskip("distributed")
    from dask_processes import DaskProcesses

    processes = DaskProcesses(tmp_path_factory.mktemp("dask"))
    yield processes
    processes.close()
