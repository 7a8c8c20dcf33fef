"""What a cluster gives and costs: the same bits, overhead, bytes, kills, and memory out of core.

Scheduler and workers are processes of their own on loopback; bytes are those that the client writes
to its connections. Images are those of the data set in shards, read by address.

- bits: sub-networks and glue, a head with leave-one-out on shards of features, low-rank copies,
  a small study, on 1 and 2 processes of this machine, Dask with 1, 2 and 3 workers, a folder of
  tasks and, where it is installed, Ray: one digest.
- overhead: 24 sub-networks and their glue on Dask with two workers against two processes of joblib,
  interleaved rounds, the ratio of each round; and the client's bytes against the images'.
- network: the same, where whatever is said to the scheduler or a worker passes a link of 10 ms and
  100 Mbit/s (`relay.py`).
- faults: a worker is ended by SIGKILL at a random moment of a fit on images that the client holds,
  so the only holder of anything may go; another joins; the digest stays.
- constants: CPU seconds of one core for a sub-network, a row of the glue and of a head, the solve,
  and decoding an image; from these, computed and not measured, what 10⁶ to 10⁹ images would take.
- memory: peak anonymous memory of fit, prediction, head and copies by the number of rows, each in a
  process of its own, as commands are.

python benchmarks/cluster.py --data ../shared/data
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "cluster"))

from dask_processes import DaskProcesses, counted_bytes

import rankwise
from cluster_costs import COLUMNS, HEAD, SUBNETS, constants, model_rows
from cluster_memory import memory
from cluster_parts import SEED, network, written
from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    middle,
    say,
    timed,
    write_result,
)
from rankwise import LowRankAugmenter, RandomLowRank, VarProHead
from rankwise.data.shards import open_shards
from rankwise.study import run_study
from rankwise.study.reading import study_from

PARTS = ("constants", "memory", "overhead", "network", "faults", "bits")
BAR_OVERHEAD, BAR_BYTES, BAR_MEMORY = 1.15, 0.01, 1.1


def digest(*arrays: Any) -> str:
    """A few digits that tell results apart to the bit."""
    data = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    return hashlib.sha256(data).hexdigest()[:12]


def jobs(images: str, features: str, quick: bool) -> dict[str, Callable[[], str]]:
    """What every engine does; each gives a digest."""
    pixels, labels = open_shards(images)
    sizes = (4, 10, 200) if quick else (8, 50, 1000)

    def subnetworks() -> str:
        model = network(*sizes).fit(pixels, labels)
        return digest(model.network_.params, model.network_.coef, model.outputs(pixels))

    def head() -> str:
        found = VarProHead().fit_shards(features)
        return digest(found.coef_, found.temperature_, found.alpha_)

    def copies() -> str:
        data = rankwise.load_images(images, "all", limit=400)
        augmenter = LowRankAugmenter(RandomLowRank(p=0.5, seed=SEED))
        return augmenter.augment(data).images.fingerprint[:12]

    def study() -> str:
        design = {
            "data": {"digits": {"source": "digits", "limit": 60 if quick else 300}},
            "models": ["simple-cnn"],
            "arms": ["none", "low-rank"],
            "seeds": [SEED],
            "folds": 2,
            "epochs_factor": 0.03,
            "retrain": False,
        }
        with tempfile.TemporaryDirectory() as folder:
            found = run_study(study_from(design), Path(folder) / "study", device="cpu", workers=1)
        rows = [(c["condition"], c["stage"], c["test_accuracy"], c["test_loss"])
                for c in found["cells"]]  # fmt: skip
        return digest(np.frombuffer(repr(sorted(rows)).encode(), np.uint8))

    return {
        "sub-networks, glue": subnetworks,
        "head, leave one out": head,
        "copies": copies,
        "study": study,
    }


# -- engines ------------------------------------------------------------------------------------


@contextmanager
def dask(workers: int, *, far: bool = False) -> Iterator[DaskProcesses]:
    """Dask's processes; `far` from each other, behind a link each, or not."""
    links: list[subprocess.Popen[str]] = []

    def link(port: int) -> int:
        command = [sys.executable, str(Path(__file__).with_name("relay.py")), str(port)]
        links.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert links[-1].stdout is not None
        return int(links[-1].stdout.readline())

    with tempfile.TemporaryDirectory() as folder:
        processes = DaskProcesses(Path(folder), workers, link if far else None)
        try:
            yield processes
        finally:
            processes.close()
            for process in links:
                process.kill()
                process.communicate()


@contextmanager
def address_of(engine: str) -> Iterator[str]:
    """An address of an engine that runs: ``local:2``, ``dask:3``, ``folder:8`` or ``ray``."""
    kind, _, number = engine.partition(":")
    if kind == "dask":
        with dask(int(number)) as processes:
            yield processes.address
    elif kind == "folder":
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "rankwise", "work", folder, "--idle", "600"]
            started = [
                subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                for _ in range(int(number))
            ]
            try:
                yield f"folder:{folder}"
            finally:
                for process in started:
                    process.kill()
                    process.wait()
    else:
        yield engine


def bits(images: str, features: str, quick: bool) -> list[dict[str, Any]]:
    """Digests of every job on every engine."""
    engines = ["local:1", "local:2", "dask:1", "dask:2", "dask:3", "folder:8"]
    if quick:
        engines = ["local:1", "local:2", "dask:2", "folder:2"]
    if find_spec("ray"):
        engines.append("ray")
    rows = []
    for engine in engines:
        with address_of(engine) as address, rankwise.cluster(address):
            for job, run in jobs(images, features, quick).items():
                seconds, found = timed(run)
                rows.append({"engine": engine, "job": job, "digest": found, "seconds": seconds})
        say(f"{engine}: {[r['digest'] for r in rows if r['engine'] == engine]}")
    return rows


def overhead(images: str, quick: bool, *, far: bool = False) -> dict[str, Any]:
    """Seconds of joblib and of Dask with as many processes, round by round, and bytes."""
    pixels, labels = open_shards(images)
    model = network(4, 10, 200) if quick else network(24, 50, 1000)
    seconds: dict[str, list[float]] = {"joblib": [], "dask": []}
    found, sent = {}, 0
    with dask(2, far=far) as processes:
        addresses = {"joblib": "local:2", "dask": processes.address}
        for number in range(2 if quick else 3):
            order = list(addresses)[:: 1 if number % 2 else -1]
            for name in order:
                with counted_bytes() as each, rankwise.cluster(addresses[name]):
                    took, _ = timed(lambda: model.fit(pixels, labels))
                found[name] = digest(model.network_.coef)
                if number:  # the first round warms up
                    seconds[name].append(took)
                    sent = sum(each) if name == "dask" else sent
            say(f"overhead, round {number}: {seconds}")
    assert found["joblib"] == found["dask"], "not the same work"
    ratios = [d / j for d, j in zip(seconds["dask"], seconds["joblib"], strict=True)]
    return {"seconds": seconds, "ratios": ratios, "sent": sent, "images": pixels.nbytes}


def faults(images: str, quick: bool) -> dict[str, Any]:
    """Fits of which each loses a worker at a random moment."""
    pixels, labels = open_shards(images)
    held = pixels[:]
    model = network(6, 10, 200) if quick else network(12, 25, 1000)
    expected = digest(model.fit(held, labels).network_.coef)
    rng = np.random.default_rng(SEED)
    right, seconds = 0, []
    with dask(2) as processes, rankwise.cluster(processes.address):
        model.fit(held, labels)  # workers import what they need
        usual, _ = timed(lambda: model.fit(held, labels))
        for run in range(2 if quick else 20):
            moment = float(rng.uniform(0, usual))

            def end_one(moment: float = moment, run: int = run) -> None:
                time.sleep(moment)
                processes.workers.pop(0).kill()
                processes.workers.append(processes.join(f"late-{run}"))

            killer = threading.Thread(target=end_one)
            killer.start()
            took, _ = timed(lambda: model.fit(held, labels))
            killer.join()
            right += digest(model.network_.coef) == expected
            seconds.append(took)
            say(f"kill {run} at {moment:.1f} s: {right} right")
    return {"runs": len(seconds), "right": right, "usual": usual, "seconds": seconds}


# -- tables -------------------------------------------------------------------------------------


def tables_of(found: dict[str, Any]) -> list[Table]:
    tables = []
    if "constants" in found:
        known = found["constants"]
        lines = [(name, f"{1e6 * value:,.0f}") for name, value in known.items()]
        tables.append(Table("CPU time of one core, microseconds", ("", "us"), lines))
        columns = ("", "network", "most of it", "GB of sums", "head")
        title = (
            f"Computed, not measured: {SUBNETS} sub-networks, {COLUMNS} columns; a head of {HEAD}"
        )
        tables.append(Table(title, columns, model_rows(known)))
    if "bits" in found:
        rows = found["bits"]
        names = list(dict.fromkeys(r["job"] for r in rows))
        lines = [
            (engine, *(next(_cell(r) for r in rows if (r["engine"], r["job"]) == (engine, job))
                       for job in names))
            for engine in dict.fromkeys(r["engine"] for r in rows)
        ]  # fmt: skip
        tables.append(Table("Digest (seconds) on each engine", ("", *names), lines))
    for part, where in (("overhead", ""), ("network", ", over 10 ms and 100 Mbit/s")):
        if part not in found:
            continue
        o = found[part]
        share = 100 * o["sent"] / o["images"]
        lines = [
            ("joblib, 2 processes, s", middle(o["seconds"]["joblib"], 2), ""),
            ("Dask, 2 workers, s", middle(o["seconds"]["dask"], 2), ""),
            ("ratio of each round", middle(o["ratios"], 3), f"{BAR_OVERHEAD}"),
            ("client's bytes / images', %", f"{share:.2f}", f"{100 * BAR_BYTES:g}"),
        ]
        title = f"Sub-networks and glue, images in shards{where}"
        tables.append(Table(title, ("", "", "bar"), lines))
    if "faults" in found:
        f = found["faults"]
        lines = [
            ("runs with the same bits", f"{f['right']} of {f['runs']}"),
            ("seconds, undisturbed", f"{f['usual']:.1f}"),
            ("seconds, a worker killed", middle(f["seconds"], 1)),
        ]
        tables.append(Table("A worker of two ended by SIGKILL", ("", ""), lines))
    if "memory" in found:
        names = list(found["memory"][0]["mb"])
        lines = [
            (f"{r['n']:,} rows", *(f"{r['mb'][k]:.0f}" for k in names)) for r in found["memory"]
        ]
        first, last = found["memory"][0]["mb"], found["memory"][-1]["mb"]
        lines.append(("last / first", *(f"{last[k] / first[k]:.2f}" for k in names)))
        title = f"Peak anonymous memory, MB (bar: {BAR_MEMORY})"
        tables.append(Table(title, ("", *names), lines))
    return tables


def _cell(row: dict[str, Any]) -> str:
    return f"{row['digest']} ({row['seconds']:.1f})"


def main() -> None:
    """Measure, print, record."""
    parser = argument_parser(__doc__, "cluster", seeds=None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    train, _ = data_sets(args)
    n = len(train) if args.quick else 20_000
    rng = np.random.default_rng(SEED)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = written(
            Path(folder) / "images", train.images[:n], train.labels[:n], train.n_classes, 2048
        )
        d, m = (20, 6000) if args.quick else (128, 40_000)
        codes = np.arange(m) % 4
        rows = rng.normal(size=(m, d)).astype(np.float32) + np.eye(4, d, dtype=np.float32)[codes]
        features = written(Path(folder) / "features", rows, codes, 4, 4096)
        for part in args.parts:
            found[part] = {
                "constants": lambda: constants(images, args.quick),
                "bits": lambda: bits(images, features, args.quick),
                "overhead": lambda: overhead(images, args.quick),
                "network": lambda: overhead(images, args.quick, far=True),
                "faults": lambda: faults(images, args.quick),
                "memory": lambda: memory(args.quick),
            }[part]()
            for table in tables_of({part: found[part]}):
                print(table.text(), end="\n\n")
            record(args, found, describe(train))  # what is measured is kept


def record(args: Any, found: dict[str, Any], data: Any) -> None:
    """Write what has been measured so far."""
    notes = [
        "Scheduler, workers and client on one machine, over loopback; BLAS on one thread in each "
        "task. Other programs on the machine show in the times, not in CPU seconds.",
    ]
    if "bits" in found:
        each: dict[str, set[str]] = {}
        for r in found["bits"]:
            each.setdefault(r["job"], set()).add(r["digest"])
        same = all(len(v) == 1 for v in each.values())
        notes.append(f"All engines give one digest a job: {'yes' if same else 'NO'}.")
    if "constants" in found:
        notes.append(
            "Constants at other sizes are scaled: a row of the glue and of a head by columns "
            "squared, the solve by columns cubed. The model assumes links of 1 Gbit/s, sums of "
            "eight in a row at each level, workers that read their own shards, one core each."
        )
    if "overhead" in found:
        ratio = median(found["overhead"]["ratios"])
        notes.append(f"Overhead {ratio:.2f}; bar {BAR_OVERHEAD}.")
    known = {"data": data, "parts": list(found)}
    title = "Clusters: memory by rows" if list(found) == ["memory"] else "Clusters"
    write_result(args, title, tables_of(found), found, known, notes)


if __name__ == "__main__":
    main()
