"""What a cluster gives and costs: the same bits, overhead, bytes, kills, and memory out of core.

Scheduler and workers are processes of their own on loopback; bytes are those that the client writes
to its connections. Images are those of the data set in shards, read by address.

- bits: sub-networks and glue, a head with leave-one-out on shards of features, low-rank copies, on
  1 and 2 processes of this machine, Dask with 1, 2 and 3 workers, a folder of tasks and, where it
  is installed, Ray: one digest.
- overhead: 24 sub-networks and their glue on Dask with two workers against two processes of joblib,
  interleaved rounds, the ratio of each round; and the client's bytes against the images'.
- faults: a worker is ended by SIGKILL at a random moment of a fit on images that the client holds,
  so the only holder of anything may go; another joins; the digest stays.
- constants: CPU seconds of one core for a sub-network, a row of the glue and of a head, the solve,
  and decoding an image; from these, computed and not measured, what 10⁶ to 10⁹ images would take.
- memory: peak anonymous memory of fit, prediction, head and copies by the number of rows.

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
from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    in_fresh_process,
    middle,
    say,
    timed,
    write_result,
)
from rankwise import LowRankAugmenter, QuadraticClassifier, RandomLowRank, Subnetworks, VarProHead
from rankwise.data.shards import ShardWriter, open_shards

PARTS = ("constants", "memory", "overhead", "faults", "bits")
BAR_OVERHEAD, BAR_BYTES, BAR_MEMORY = 1.15, 0.01, 1.1
SEED = 42


def written(place: Path, rows: np.ndarray, codes: np.ndarray, n_classes: int, size: int) -> str:
    """Rows as shards of so many; gives their address."""
    writer = ShardWriter(str(place), place.name, [str(k) for k in range(n_classes)])
    starts = range(0, len(rows), size)
    files = [
        writer.write("train", i, len(starts), np.asarray(rows[s : s + size]))
        for i, s in enumerate(starts)
    ]
    writer.add("train", files, codes, np.arange(len(codes)).astype(str))
    writer.finish()
    return str(place)


def digest(*arrays: Any) -> str:
    """A few digits that tell results apart to the bit."""
    data = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    return hashlib.sha256(data).hexdigest()[:12]


def network(subnets: int, units: int, samples: int) -> QuadraticClassifier:
    return QuadraticClassifier(
        n_subnets=subnets,
        n_units=subnets * units,
        subnets=Subnetworks(samples=samples),
        max_iter=5,
        random_state=SEED,
    )


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

    return {"sub-networks, glue": subnetworks, "head, leave one out": head, "copies": copies}


# -- engines ------------------------------------------------------------------------------------


@contextmanager
def dask(workers: int) -> Iterator[DaskProcesses]:
    with tempfile.TemporaryDirectory() as folder:
        processes = DaskProcesses(Path(folder), workers)
        try:
            yield processes
        finally:
            processes.close()


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


def overhead(images: str, quick: bool) -> dict[str, Any]:
    """Seconds of joblib and of Dask with as many processes, round by round, and bytes."""
    pixels, labels = open_shards(images)
    model = network(4, 10, 200) if quick else network(24, 50, 1000)
    seconds: dict[str, list[float]] = {"joblib": [], "dask": []}
    found, sent = {}, 0
    with dask(2) as processes:
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


# -- a cost model ------------------------------------------------------------------------------

COLUMNS, SUBNETS, HEAD = 5201, 104, 512
"""The paper's network, and a backbone's features."""
NETWORK_BYTES = 125e6
"""A second, on a link of 1 Gbit/s: assumed, not measured."""


def constants(images: str, quick: bool) -> dict[str, float]:
    """CPU seconds of one core."""
    from io import BytesIO

    from PIL import Image

    from rankwise.data.decode import layout_of, open_image, to_array
    from rankwise.linear.gram import accumulate_gram
    from rankwise.linear.output_layer import solve_gram
    from rankwise.linear.statistics import block_statistics

    pixels, labels = open_shards(images)
    units, samples = (10, 200) if quick else (50, 2000)
    m, n = (200, 2048) if quick else (1201, 8192)
    rng = np.random.default_rng(SEED)
    phi = rng.standard_normal((n, m), dtype=np.float32)
    targets = np.eye(10)[np.arange(n) % 10]
    model = network(1, units, samples)
    model.fit(pixels, labels)
    subnet = _cpu(lambda: model.fit(pixels.chosen(np.arange(samples)), labels[:samples]))
    row = _cpu(lambda: accumulate_gram(lambda b: phi[b], targets)) / n
    statistics = accumulate_gram(lambda b: phi[b], targets)
    solve = _cpu(lambda: solve_gram(statistics))
    rows = phi[:, : min(m, HEAD)]
    head = _cpu(lambda: block_statistics(rows, np.arange(n) % 10)) / n
    buffer = BytesIO()
    Image.fromarray(pixels[0]).save(buffer, "PNG")
    layout, encoded = layout_of(pixels.row_shape), buffer.getvalue()
    decode = _cpu(lambda: [to_array(open_image(encoded), layout, None) for _ in range(500)]) / 500
    return {
        "sub-network": subnet,
        "glue, a row": row * (COLUMNS / m) ** 2,
        "solve": solve * (COLUMNS / m) ** 3,
        "head, a row and pass": head * (HEAD / rows.shape[1]) ** 2,
        "decode, an image": decode,
    }


def _cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of this process, the least of three: other programs don't count."""
    found = []
    for _ in range(3):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def costs(known: dict[str, float], n: float, workers: int) -> dict[str, float]:
    """Seconds of each step for so many images on so many workers, by the model."""
    square = 8.0 * COLUMNS**2
    leaves = min(2 * workers, max(1, n / 4096))
    levels = np.ceil(np.log(max(leaves, 1.0)) / np.log(8)) if workers > 1 else 0
    return {
        "decoding": n * known["decode, an image"] / workers,
        "sub-networks": known["sub-network"] * np.ceil(SUBNETS / min(workers, SUBNETS)),
        "glue": n * known["glue, a row"] / workers,
        "sums on their way": levels * 7 * square / NETWORK_BYTES,
        "solve": known["solve"],
    }


def model_rows(known: dict[str, float]) -> list[tuple[str, ...]]:
    rows = []
    for n in (1e6, 1e8, 1e9):
        for workers in (1, 10, 100, 1000):
            found = costs(known, n, workers)
            head = 2 * n * known["head, a row and pass"] / workers
            rows.append(
                (
                    f"10^{np.log10(n):.0f} images, {workers:,} workers",
                    _duration(sum(found.values())),
                    max(found, key=lambda name: found[name]),
                    f"{(2 * workers if workers > 1 else 0) * 8e-9 * COLUMNS**2:,.1f}",
                    _duration(head),
                )
            )
    return rows


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


# -- memory -------------------------------------------------------------------------------------


class AnonymousPeak:
    """The largest ``RssAnon`` of this process while a block runs, in MB."""

    def __enter__(self) -> AnonymousPeak:
        self.megabytes = _anonymous()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.megabytes = max(self.megabytes, _anonymous())

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.megabytes = max(self.megabytes, _anonymous())


def _anonymous() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


def peaks(folder: str, n: int) -> dict[str, float]:
    """Peak anonymous MB of each command's work on so many rows."""
    rng = np.random.default_rng(SEED)
    size = 8192
    pixels = written_rows(Path(folder) / f"images-{n}", n, (16, 16), np.uint8, size, rng)
    features = written_rows(Path(folder) / f"features-{n}", n, (64,), np.float32, size, rng)
    images, names = open_shards(pixels)
    codes = names.astype(np.int8)
    model = network(2, 25, 1000)
    found = {}
    with AnonymousPeak() as peak:
        model.fit(images, codes)
    found["train"] = peak.megabytes
    with AnonymousPeak() as peak:
        for start in range(0, n, 100_000):  # as `rankwise predict` does: outputs are n × K numbers
            model.outputs(images.chosen(np.arange(start, min(n, start + 100_000))))
    found["predict"] = peak.megabytes
    with AnonymousPeak() as peak:
        VarProHead().fit_shards(features)
    found["head"] = peak.megabytes
    return found


def written_rows(
    place: Path, n: int, shape: tuple[int, ...], dtype: Any, size: int, rng: np.random.Generator
) -> str:
    """Random rows of two classes in shards, made one file at a time."""
    writer = ShardWriter(str(place), place.name, ["0", "1"])
    codes = np.arange(n) % 2
    files = []
    for i, start in enumerate(range(0, n, size)):
        some = codes[start : start + size]
        rows = rng.integers(0, 200, (len(some), *shape)).astype(dtype)
        rows.reshape(len(some), -1)[:, 0] += (50 * some).astype(dtype)
        files.append(writer.write("train", i, -(-n // size), rows))
    writer.add("train", files, codes, np.zeros(n, dtype="U1"))
    writer.finish()
    return str(place)


def memory(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for n in (10_000, 20_000) if quick else (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"n": n, "mb": in_fresh_process(peaks, folder, n)})
        say(f"memory: {rows[-1]}")
    return rows


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
    if "overhead" in found:
        o = found["overhead"]
        share = 100 * o["sent"] / o["images"]
        lines = [
            ("joblib, 2 processes, s", middle(o["seconds"]["joblib"], 2), ""),
            ("Dask, 2 workers, s", middle(o["seconds"]["dask"], 2), ""),
            ("ratio of each round", middle(o["ratios"], 3), f"{BAR_OVERHEAD}"),
            ("client's bytes / images', %", f"{share:.2f}", f"{100 * BAR_BYTES:g}"),
        ]
        tables.append(Table("Sub-networks and glue, images in shards", ("", "", "bar"), lines))
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
    write_result(args, "Clusters", tables_of(found), found, known, notes)


if __name__ == "__main__":
    main()
