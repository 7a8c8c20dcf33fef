"""How cost grows: seconds and memory over samples, units, sub-networks and workers.

Every point is a fresh process, so that its peak memory is its own; BLAS runs on one thread. Each
exponent is the slope of a straight line through the logarithms. Results don't depend on what the
images show, so untrained units do for the glue.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    in_fresh_process,
    middle,
    peak_memory_mb,
    reset_peak_memory,
    say,
    timed,
    write_result,
)
from rankwise._arrays import as_float
from rankwise._memory import PeakMemory
from rankwise._threads import one_thread
from rankwise.networks.quadratic import glue
from rankwise.training.groups import SubnetPlan
from rankwise.training.presets import PRESETS
from rankwise.training.subnetworks import train_subnet, train_subnets
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units

ITERATIONS = 8
BAR = 1.7
"""Times that two workers must be faster than one."""


# -- what is measured, each in a process of its own -------------------------------------------


def subnetwork_cost(folder: str, setting: str, n_samples: int, n_units: int) -> dict[str, float]:
    """Seconds and memory of one sub-network, a fixed number of iterations."""
    images, targets = _read(folder)
    plan = _plan(setting, images.shape[1:], n_samples, n_units)
    with one_thread():
        train_subnet(images, targets, _plan(setting, images.shape[1:], 100, 2), 0, 0)  # warm-up
        before = reset_peak_memory()
        seconds = [timed(lambda g=g: train_subnet(images, targets, plan, 0, g))[0] for g in (1, 2)]
    return {"seconds": min(seconds), "memory_mb": peak_memory_mb() - before}


def glue_cost(folder: str, n_images: int, n_units: int) -> dict[str, float]:
    """Seconds and memory of the glue, ridge by GCV."""
    images, targets = _read(folder)
    images, targets = images[:n_images], targets[:n_images]
    plan = _plan("windowed", images.shape[1:], 100, n_units)
    rng = np.random.default_rng(0)
    params, _ = random_units(plan.units, n_units, as_float(images[:1000]), plan.start, rng)
    with one_thread():
        glue(plan.units, params[:, :50], images[:1000], targets[:1000])  # warm-up
        before = reset_peak_memory()
        seconds, _ = timed(lambda: glue(plan.units, params, images, targets))
    return {"seconds": seconds, "memory_mb": peak_memory_mb() - before}


def subnetworks_cost(folder: str, setting: str, n_samples: int, count: int) -> dict[str, float]:
    """Seconds and memory of several sub-networks, one worker."""
    images, targets = _read(folder)
    plan = _plan(setting, images.shape[1:], n_samples, 50)
    with one_thread():
        train_subnet(images, targets, _plan(setting, images.shape[1:], 100, 2), 0, 0)  # warm-up
        before = reset_peak_memory()
        seconds, _ = timed(lambda: train_subnets(images, targets, plan, count))
    return {"seconds": seconds, "memory_mb": peak_memory_mb() - before}


def workers_cost(
    folder: str, setting: str, n_samples: int, count: int, repeats: int
) -> dict[str, Any]:
    """Seconds with one and two workers in turn; the first two-worker run starts the workers.

    Memory, of this process and its workers together, is watched in the runs that aren't compared:
    one before there are workers, and the one that starts them.
    """
    from joblib.externals.loky import get_reusable_executor

    images, targets = _read(folder)
    plan = _plan(setting, images.shape[1:], n_samples, 50)

    def run(workers: int) -> float:
        return timed(lambda: train_subnets(images, targets, plan, count, workers=workers))[0]

    with PeakMemory(interval=0.02) as alone:
        run(1)
    with PeakMemory(interval=0.02) as together:
        cold = run(2)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for workers, times in seconds.items():
            times.append(run(workers))
    get_reusable_executor().shutdown()  # idle workers would keep this process for minutes
    return {
        "cold": cold,
        "one": seconds[1],
        "two": seconds[2],
        "memory_mb": {"one": alone.megabytes, "two": together.megabytes},
    }


def _read(folder: str) -> tuple[np.ndarray, np.ndarray]:
    labels = np.load(Path(folder) / "labels.npy")
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    return np.load(Path(folder) / "images.npy"), targets


def _plan(setting: str, shape: tuple[int, ...], n_samples: int, n_units: int) -> SubnetPlan:
    preset = PRESETS[setting]
    return SubnetPlan(
        units=make_units(preset.unit, shape),
        n_units=n_units,
        n_samples=n_samples,
        start=Start(preset.window, preset.smooth),
        jacobian=preset.jacobian,
        ridge=preset.subnet_ridge,
        max_iterations=ITERATIONS,
        ftol=0.0,
    )


# -- the sweeps -------------------------------------------------------------------------------


def main() -> None:
    """Measure every sweep, fit the exponents, compare the workers with the bar."""
    parser = argument_parser(__doc__, "scaling", seeds=None)
    parser.add_argument("--limit", type=int, help="images; default all")
    parser.add_argument("--repeats", type=int, default=3, help="of the workers' comparison")
    args = parser.parse_args()
    train, _ = data_sets(args)
    sweeps = _sweeps(args, min(len(train), args.limit or len(train)))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", train.images)
        np.save(Path(folder) / "labels.npy", train.labels)
        measured = []
        for sweep in sweeps:
            say(sweep["title"])
            points = [
                {sweep["of"]: x, **in_fresh_process(sweep["call"], folder, *sweep["given"](x))}
                for x in sweep["values"]
            ]
            measured.append({"title": sweep["title"], "of": sweep["of"], "points": points})
        size = (300, 4, 1) if args.quick else (2000, 16, args.repeats)
        workers = {}
        for setting in ("windowed",) if args.quick else ("pereyra", "windowed"):
            say(f"workers, {setting}")
            workers[setting] = in_fresh_process(workers_cost, folder, setting, *size)
    tables = [sweep_table(m) for m in measured] + [workers_table(workers, size[1])]
    for t in tables:
        print(t.text(), end="\n\n")
    known = {
        "n": {"images": len(train), "iterations": ITERATIONS},
        "data": describe(train),
        "threads": 1,
        "spread": "sub-network: the better of two; glue and sub-networks: once; workers: median "
        "(min–max)",
    }
    notes = [
        f"Sub-networks make {ITERATIONS} iterations each, converged or not.",
        "Memory: the peak above what the process held with images and libraries loaded; of "
        "workers: the peak of all processes together, images and libraries included, and pages "
        "that they share counted once for each.",
        f"Bar: two workers at least {BAR} times as fast as one, workers running.",
    ]
    write_result(
        args, "How cost grows", tables, {"sweeps": measured, "workers": workers}, known, notes
    )


def _sweeps(args: argparse.Namespace, n: int) -> list[dict[str, Any]]:
    quick = args.quick
    samples = (150, 300) if quick else (500, 1000, 2000, 4000, 8000)
    units = (5, 10) if quick else (12, 25, 50, 100, 200)
    parts = (n // 2, n) if quick else (n // 8, n // 4, n // 2, n)
    glued = (20, 40) if quick else (650, 1300, 2600, 5200)
    counts = (1, 2) if quick else (2, 4, 8, 16)
    middle_units, middle_samples = (8, 300) if quick else (50, 2000)
    sweeps = []
    for setting in ("windowed",) if quick else ("pereyra", "windowed"):
        sweeps += [
            {
                "title": f"Sub-network, {setting}, {middle_units} units: samples",
                "of": "samples",
                "values": samples,
                "call": subnetwork_cost,
                "given": lambda x, s=setting: (s, x, middle_units),
            },
            {
                "title": f"Sub-network, {setting}, {middle_samples} samples: units",
                "of": "units",
                "values": units,
                "call": subnetwork_cost,
                "given": lambda x, s=setting: (s, middle_samples, x),
            },
        ]
    sweeps += [
        {
            "title": f"Sub-networks, windowed, {middle_samples} samples: how many",
            "of": "sub-networks",
            "values": counts,
            "call": subnetworks_cost,
            "given": lambda x: ("windowed", middle_samples, x),
        },
        {
            "title": f"Glue, {glued[1]} units: images",
            "of": "images",
            "values": parts,
            "call": glue_cost,
            "given": lambda x: (x, glued[1]),
        },
        {
            "title": f"Glue, {parts[1]} images: units",
            "of": "units",
            "values": glued,
            "call": glue_cost,
            "given": lambda x: (parts[1], x),
        },
    ]
    return sweeps[::2] if quick else sweeps


def exponent(points: list[dict[str, float]], of: str, key: str) -> float:
    """Slope of log(key) over log(of)."""
    x = np.log([p[of] for p in points])
    y = np.log([max(p[key], 1e-9) for p in points])
    return float(np.polyfit(x, y, 1)[0])


def sweep_table(sweep: dict[str, Any]) -> Table:
    """Points, and the exponents below."""
    points, of = sweep["points"], sweep["of"]
    rows = [(f"{p[of]:,}", f"{p['seconds']:.3f}", f"{p['memory_mb']:.0f}") for p in points]
    rows.append(
        (
            "exponent",
            f"{exponent(points, of, 'seconds'):.2f}",
            f"{exponent(points, of, 'memory_mb'):.2f}",
        )
    )
    return Table(sweep["title"], (of, "seconds", "memory, MB"), rows)


def workers_table(workers: dict[str, dict[str, Any]], count: int) -> Table:
    """Speed-up and memory of two workers."""
    rows = []
    for setting, seconds in workers.items():
        memory = seconds["memory_mb"]
        one, two = np.median(seconds["one"]), np.median(seconds["two"])
        rows.append(
            (
                setting,
                middle(seconds["one"], 2),
                middle(seconds["two"], 2),
                f"{one / two:.2f}",
                f"{one / seconds['cold']:.2f}",
                f"{memory['one']:.0f} / {memory['two']:.0f}",
            )
        )
    columns = ("", "1 worker, s", "2 workers, s", f"ratio (bar {BAR})", "cold", "MB, 1 / 2")
    return Table(f"Workers, {count} sub-networks", columns, rows)


if __name__ == "__main__":
    main()
