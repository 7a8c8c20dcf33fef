"""A real scheduler and workers, processes in another folder: the bits of one machine."""

import gc
import hashlib
import json
import re
from pathlib import Path

import joblib
import numpy as np
import pytest
from dask_processes import counted_bytes
from distributed.comm import CommClosedError
from PIL import Image
from threadpoolctl import threadpool_limits

import rankwise
from cli_cases import FAST, call
from rankwise import (
    Grow,
    LowRankAugmenter,
    Prune,
    QuadraticClassifier,
    RandomLowRank,
    Subnetworks,
    VarProHead,
)
from rankwise._arrays import Rows
from rankwise.cluster import engine
from rankwise.data.sharding import shard
from rankwise.data.shards import ShardWriter
from rankwise.errors import ClusterError
from rankwise.estimators._arguments import thread_count
from rankwise.study import run_study
from rankwise.study.reading import study_from
from study.run_cases import MINIMAL


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


def test_a_fit_has_the_bits_of_one_machine(
    dask_processes, images, here, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    with rankwise.cluster(dask_processes.address) as executor:
        model = classifier(verbose=1).fit(*images, checkpoint_dir="kept")
        bars = capsys.readouterr().err
        for what, steps in (("sub-networks", "6/6"), ("glue", f"{len(images[0])}/")):
            # The second one may join while the first is at work.
            assert re.search(rf"{what} on [12] workers? .* {steps}", bars)
        assert digest(model.network_.params, model.network_.coef, model.outputs(images[0])) == here
        assert sum(executor.kernels.values()) > 6
    # The workers live elsewhere: what is kept is written by the client.
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 6
    assert not (dask_processes.folder / "kept").exists()


def test_images_in_shards_never_pass_through_the_client(dask_processes, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6000, 28, 28), dtype=np.uint8)
    labels = np.arange(len(images)) % 10
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    shard(str(tmp_path / "a.npz"), str(tmp_path / "shards"), shard_bytes=2**20, workers=1)
    shards = rankwise.load_images(str(tmp_path / "shards"), "all")
    one = classifier().fit(images, labels)
    with counted_bytes() as sent, rankwise.cluster(dask_processes.address):
        other = classifier().fit(shards, labels)
        outputs = other.outputs(shards)
    assert sum(sent) < 100_000 < images.nbytes / 40
    assert digest(other.network_.coef, outputs) == digest(one.network_.coef, one.outputs(images))


def test_what_workers_have_made_is_not_sent_back_to_them(dask_processes):
    def made(number):
        return np.random.default_rng(number).integers(0, 1000, 50_000)

    def side_by_side(*parts):
        return np.concatenate(parts)

    def summed(common, number):
        return number + int(common.sum())

    with counted_bytes() as sent, rankwise.cluster(dask_processes.address) as executor:
        parts = [part for _, part in sorted(executor.completed(made, range(3), stay=True))]
        whole = side_by_side(*parts)
        executor.same(whole, side_by_side, parts)
        expected = [number + int(whole.sum()) for number in range(4)]
        assert list(executor.map(summed, range(4), whole)) == expected
        assert sum(sent) < whole.nbytes / 40
        executor._held[id(whole)].cancel()  # as where all that held it have died
        assert list(executor.map(summed, range(4), whole)) == expected
        assert sum(sent) > whole.nbytes
        names = {id(array) for array in (*parts, whole)}
        assert names <= set(executor._held)
        del parts, whole
        gc.collect()
        assert not names & set(executor._held)


def test_a_head_on_shards_of_features_takes_both_looks_there(dask_processes, tmp_path):
    rng = np.random.default_rng(1)
    codes = np.arange(9000) % 3
    features = rng.normal(size=(9000, 40)).astype(np.float32) + np.eye(3, 40)[codes]
    features = features.astype(np.float32)
    writer = ShardWriter(str(tmp_path), "features", ["a", "b", "c"])
    files = [writer.write("train", i, 5, features[2000 * i : 2000 * i + 2000]) for i in range(5)]
    writer.add("train", files, codes, codes.astype(str))
    writer.finish()
    names = np.array(["a", "b", "c"])[codes]
    one = VarProHead().fit(features, names)
    with rankwise.cluster(dask_processes.address) as executor:
        other = VarProHead().fit_shards(str(tmp_path), executor)
        assert sum(executor.kernels.values()) == 6  # three blocks, looked at twice
    assert digest(one.coef_, one.intercept_) == digest(other.coef_, other.intercept_)
    assert (one.temperature_, one.chosen_by_) == (other.temperature_, "loo")
    with threadpool_limits(1):
        assert digest(one.coef_) == digest(VarProHead().fit(features, names).coef_)


def test_copies_are_kept_by_the_client(dask_processes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = rankwise.load_images("digits", limit=200)
    augmenter = LowRankAugmenter(RandomLowRank(p=0.5, seed=1))
    here = augmenter.augment(digits)
    with rankwise.cluster(dask_processes.address):
        there = augmenter.augment(digits, cache="copies")
    assert there.images.fingerprint == here.images.fingerprint
    assert list((tmp_path / "copies").glob("copies-*.npz"))
    again = augmenter.augment(digits, cache="copies")
    assert again.images.fingerprint == here.images.fingerprint


def test_a_study_in_a_relative_folder_has_all_its_cells(dask_processes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"digits": {"source": "digits", "limit": 60}}
    given = {"folds": 2, "seeds": [1], "batch_size": 32, "retrain": False}
    given["arms"] = ["none", "duplicate"]
    plan = {**MINIMAL, **given, "data": data, "epochs_factor": 0.03}
    results = {}
    for place, where in (("here", "local:1"), ("there", dask_processes.address)):
        with rankwise.cluster(where):
            results[place] = run_study(study_from(plan), place, device="cpu")
    cells = [
        [(c["condition"], c["stage"], c["test_accuracy"], c["test_loss"]) for c in r["cells"]]
        for r in results.values()
    ]
    assert cells[0] == cells[1]
    assert len(cells[1]) == 4
    assert results["there"]["cluster"]["kernels"]
    here, there = (
        sorted(p.relative_to(place).as_posix() for p in Path(place).rglob("*") if p.is_file())
        for place in results
    )
    assert here == there
    assert not (dask_processes.folder / "there").exists()


def test_commands_take_an_address(dask_processes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = ["--cluster", dask_processes.address, "--json"]
    call(monkeypatch, capsys, "shard", "digits", "shards", "--workers", "1")
    for place, more in (("here", ["--json"]), ("there", where)):
        fast = [*FAST, "--limit", "300", *more]
        call(monkeypatch, capsys, "train", "shards", "--out", place, *fast)
    reports = [json.loads((tmp_path / p / "report.json").read_text()) for p in ("here", "there")]
    assert reports[0]["model"] == reports[1]["model"]
    assert reports[0]["train"]["fingerprint"] == reports[1]["train"]["fingerprint"]
    assert reports[1]["environment"]["cluster"]["address"] == dask_processes.address
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(tmp_path / "one.png")
    out, _ = call(monkeypatch, capsys, "predict", "there", "one.png", *where)
    assert len(json.loads(out)["predictions"]) == 1
    call(monkeypatch, capsys, "augment", "shards", "copies", "--limit", "50", *where)
    assert (tmp_path / "copies" / "augment.json").exists()
    _, err = call(monkeypatch, capsys, "augment", "shards", "x", "--cluster", "slurm", expect=1)
    assert "error: 'slurm' is no cluster; tcp://HOST:8786" in err
    _, err = call(monkeypatch, capsys, "augment", "shards", "x", "--mixed-kernels", expect=2)
    assert "--mixed-kernels is for --cluster" in err


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


def test_a_connection_that_closes_while_an_array_is_sent_costs_another_try(
    dask_processes, images, here, monkeypatch
):
    """So it does where a worker ends in that moment; seen in one of twenty."""
    monkeypatch.setattr("rankwise.cluster.dask._PAUSE", 0.0)
    with rankwise.cluster(dask_processes.address) as executor:
        real, left = executor._client.scatter, [2]

        def scatter(*args, **options):
            if left[0]:
                left[0] -= 1
                raise CommClosedError("in <TCP (closed) ConnectionPool.scatter>: Stream is closed")
            return real(*args, **options)

        monkeypatch.setattr(executor._client, "scatter", scatter)
        model = classifier().fit(*images)
        assert digest(model.network_.params, model.network_.coef, model.outputs(images[0])) == here
        left[0] = 99
        with pytest.raises(ClusterError, match="the same command goes on from there"):
            classifier().fit(*images)


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


def test_a_scheduler_that_dies_is_one_sentence_and_the_same_command_goes_on(
    dask_processes, tmp_path, monkeypatch, capsys
):
    from dask_processes import DaskProcesses

    from rankwise.training import subnetworks

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dask").mkdir()
    other = DaskProcesses(tmp_path / "dask", workers=1)
    write, written = subnetworks.write_subnet, []

    def write_and_end(*args):
        write(*args)
        written.append(args[1])
        other.scheduler.kill()

    # More sub-networks than are under way at a time: some aren't trained yet when it dies.
    fast = ["--units", "66", "--subnets", "33", "--max-iter", "1", "--limit", "200", "--json"]
    command = ["train", "digits", "--out", "run", *fast]
    try:
        monkeypatch.setattr(subnetworks, "write_subnet", write_and_end)
        _, err = call(monkeypatch, capsys, *command, "--cluster", other.address, expect=1)
    finally:
        other.close()
    sentence = f"error: the scheduler at {other.address} is gone; what is finished is kept, and"
    assert sentence in " ".join(err.split())
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert 1 <= len(kept) == len(written) < 33
    again = []
    monkeypatch.setattr(
        subnetworks, "write_subnet", lambda *args: (write(*args), again.append(args[1]))
    )
    out, _ = call(monkeypatch, capsys, *command, "--cluster", dask_processes.address)
    assert sorted(written + again) == list(range(33))
    monkeypatch.setattr(subnetworks, "write_subnet", write)
    whole, _ = call(monkeypatch, capsys, "train", "digits", "--out", "whole", *fast)
    assert json.loads(out)["model"] == json.loads(whole)["model"]


def test_errors_of_tasks_are_their_own_and_of_systems_name_the_worker(dask_processes):
    def full(number):
        import errno

        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    with rankwise.cluster(dask_processes.address) as executor:
        with pytest.raises(ZeroDivisionError, match=r"by zero\non worker"):
            list(executor.map(lambda number: number // 0, [1]))
        with pytest.raises(ClusterError, match=r"worker .* failed: /tmp/x: No space left.*goes on"):
            list(executor.map(full, [1]))


def test_joblib_s_own_back_end_keeps_working(dask_processes, images, here, tmp_path, monkeypatch):
    from distributed import Client

    monkeypatch.chdir(tmp_path)
    with (
        counted_bytes() as sent,
        Client(dask_processes.address, set_as_default=True),
        joblib.parallel_config("dask"),
    ):
        assert engine(2).remote
        model = classifier(n_jobs=2).fit(*images, checkpoint_dir="kept")
        assert thread_count(2) == 2  # of this machine, whatever the cluster has
    assert digest(model.network_.params, model.network_.coef, model.outputs(images[0])) == here
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 6
    assert sum(sent) < 2 * images[0].nbytes  # once, not with each of six tasks


def test_views_and_sets_of_images_have_the_size_that_dask_asks_for(images):
    from sys import getsizeof

    rows = np.arange(len(images[0]))
    assert getsizeof(Rows(images[0], rows)) > images[0].nbytes
    assert getsizeof(rankwise.ImageSet.from_arrays(*images)) > images[0].nbytes


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
