"""A real scheduler and workers, processes in another folder: the bits of one machine."""

import hashlib

import numpy as np
import pytest

import rankwise
from rankwise import Grow, Prune, QuadraticClassifier, Subnetworks
from rankwise.errors import ClusterError


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def classifier(**options):
    return QuadraticClassifier(
        n_units=48, n_subnets=6, subnets=Subnetworks(samples=200), max_iter=2, **options
    )


@pytest.fixture(scope="module")
def images(digits):
    return np.repeat(digits[0], 3, axis=0), np.repeat(digits[1], 3)


@pytest.fixture(scope="module")
def here(images):
    model = classifier().fit(*images)
    return digest(model.network_.params, model.network_.coef, model.outputs(images[0]))


def test_a_fit_has_the_bits_of_one_machine(dask_processes, images, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with rankwise.cluster(dask_processes.address) as executor:
        model = classifier(checkpoint_dir="kept").fit(*images)
        assert digest(model.network_.params, model.network_.coef, model.outputs(images[0])) == here
        assert sum(executor.kernels.values()) > 6
    # The workers live elsewhere: what is kept is written by the client.
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 6
    assert not (dask_processes.folder / "kept").exists()


@pytest.mark.parametrize("ridge", ["loo", 0.0])
def test_every_pass_of_a_glue_goes_there(dask_processes, images, ridge):
    options = {"ridge": ridge}
    if ridge:
        options |= {"probabilities": "calibrated", "refine": (Grow(2), Prune(3))}
    one = classifier(**options).fit(*images)
    with rankwise.cluster(dask_processes.address) as executor:
        other = classifier(**options).fit(*images)
        assert executor.kernels
    assert digest(one.network_.coef) == digest(other.network_.coef)
    assert one.temperature_ == other.temperature_
    assert one.ridge_ == other.ridge_


def test_a_worker_that_is_killed_costs_time_only_and_a_late_one_gets_work(dask_processes):
    def slow(common, number):
        import os
        import time

        time.sleep(0.1)
        return os.getpid(), float(common[number].sum())

    rows = np.random.default_rng(0).random((24, 5000))
    with rankwise.cluster(dask_processes.address) as executor:
        done = executor.completed(slow, range(24), rows)
        found = dict([next(done)])
        dask_processes.workers.pop(0).kill()
        dask_processes.workers.append(dask_processes.join("late"))
        found |= dict(done)
        assert [found[n][1] for n in range(24)] == [float(row.sum()) for row in rows]
        # The last holder of what is shared, and of the sums so far, goes too.
        done = executor.completed(slow, range(24), rows)
        found = dict([next(done)])
        late = dask_processes.workers[-1].pid
        dask_processes.workers.pop(0).kill()
        dask_processes.workers.append(dask_processes.join("later"))
        found |= dict(done)
        assert [found[n][1] for n in range(24)] == [float(row.sum()) for row in rows]
        assert late in {pid for pid, _ in found.values()}


def test_errors_of_tasks_are_their_own_and_of_systems_name_the_worker(dask_processes):
    def full(number):
        import errno

        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    with rankwise.cluster(dask_processes.address) as executor:
        with pytest.raises(ZeroDivisionError, match=r"by zero\non worker"):
            list(executor.map(lambda number: number // 0, [1]))
        with pytest.raises(ClusterError, match=r"worker .* failed: /tmp/x: No space left.*goes on"):
            list(executor.map(full, [1]))


def test_inside_a_task_nothing_is_handed_on(dask_processes):
    def looks(number):
        import joblib
        import threadpoolctl

        from rankwise.cluster import active, engine

        threads = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        return joblib.effective_n_jobs(-1), active() is None, engine(8).workers, threads

    with rankwise.cluster(dask_processes.address) as executor:
        assert list(executor.map(looks, [0])) == [(1, True, 1, {1})]
    with rankwise.cluster("local:2") as executor:
        assert list(executor.map(looks, [0])) == [(1, True, 1, {1})]


def test_workers_that_differ_are_named_and_refused(dask_processes, monkeypatch):
    with rankwise.cluster(dask_processes.address) as executor:
        executor.code = "rankwise 9.9 (cafe)"
        with pytest.raises(
            ClusterError, match=r"worker .*process \d+ has rankwise .*this is rankwise 9\.9 \(cafe"
        ):
            list(executor.map(abs, [1]))
    monkeypatch.setattr("rankwise.cluster.executor.code_here", lambda: "rankwise 9.9 (cafe)")
    with (
        pytest.raises(ClusterError, match=r"worker tcp://.* has rankwise .*needs the client's ver"),
        rankwise.cluster(dask_processes.address),
    ):
        pass


def test_a_mixture_of_kernels_is_refused_unless_it_is_asked_for(dask_processes):
    with rankwise.cluster(dask_processes.address) as executor:
        executor.kernels["openblas 0 Prescott"] = 1  # as of a worker on another processor
        with pytest.raises(ClusterError, match=r"different BLAS kernels .*mixed_kernels"):
            list(executor.map(abs, [1]))
    with rankwise.cluster(dask_processes.address, mixed_kernels=True) as executor:
        executor.kernels["openblas 0 Prescott"] = 1
        assert list(executor.map(abs, [-1])) == [1]
        assert executor.describe()["kernels"].keys() > {"openblas 0 Prescott"}


def test_an_address_is_checked(monkeypatch):
    monkeypatch.setattr("rankwise.cluster.dask._WAIT", 1)
    with (
        pytest.raises(ClusterError, match=r"'slurm' is no cluster; tcp://HOST:8786 \(Dask"),
        rankwise.cluster("slurm"),
    ):
        pass
    with (
        pytest.raises(ClusterError, match=r"no scheduler of Dask's answers at tcp://127"),
        rankwise.cluster("tcp://127.0.0.1:9"),
    ):
        pass
