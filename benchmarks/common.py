"""What the benchmarks share: arguments, provenance, tables, resumable records, fresh processes.

Every result file has the same top: ``title``, ``provenance``, ``notes``, ``tables`` (text, as
printed) and ``data`` (the numbers behind them), so that `render.py` needs to know no benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from provenance import changed_since, code_of_run, commit, is_uncommitted
from rankwise._files import write_json
from rankwise._machine import environment

if TYPE_CHECKING:
    from rankwise.data import ImageSet

RESULTS = Path(__file__).parent / "results"
SEEDS = (42, 43, 44)
WIDTH = 80


# -- arguments ------------------------------------------------------------------------------


def argument_parser(
    description: str | None,
    name: str,
    seeds: Sequence[int] | None = SEEDS,
    *,
    resumable: bool = False,
) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"result file; default benchmarks/results/{name}.json, with --quick none",
    )
    parser.add_argument("--quick", action="store_true", help="smoke test, on embedded digits")
    if seeds is not None:
        parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    if resumable:
        parser.add_argument("--fresh", action="store_true", help="discard the rows there are")
        parser.add_argument(
            "--renew", action="store_true", help="discard them if other code or data made them"
        )
    parser.set_defaults(name=name)
    return parser


def data_sets(args: argparse.Namespace, name: str = "mnist") -> tuple[ImageSet, ImageSet]:
    """Training and test images: the data set asked for or, with ``--quick``, the digits."""
    from rankwise.data import load_images

    source = "digits" if args.quick else str(Path(args.data) / name)
    return load_images(source, split="train"), load_images(source, split="test")


# -- tables ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table of text: the first column is named, the others hold figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        total = sum(widths) + 2 * (len(widths) - 1)

        def row(cells: Sequence[str]) -> str:
            first = cells[0].ljust(widths[0])
            return "  ".join(
                [first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
            )

        rule = "-" * total
        return "\n".join([self.title, rule, row(self.columns), rule, *map(row, self.rows), rule])


def percent(values: Sequence[float], digits: int = 2) -> str:
    """Mean of fractions in per cent, with the range where there are several."""
    return spread([100 * v for v in values], digits)


def spread(values: Sequence[float], digits: int) -> str:
    """``mean (min–max)``, or the value alone where there is one."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def middle(values: Sequence[float], digits: int) -> str:
    """``median (min–max)``, for timings."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


# -- results --------------------------------------------------------------------------------


def provenance(args: argparse.Namespace, also: Sequence[str] = (), **known: Any) -> dict[str, Any]:
    """What a figure was measured with: command, code, versions, hardware, load; and `known`.

    `also` names modules that a command ran which the benchmark started; see `code_of_run`.
    """
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    command = shlex.join(["python", script, *sys.argv[1:]])
    return {
        "command": _AND.join(dict.fromkeys([*_earlier_commands, command])),
        "environment": environment(),
        "commit": _commit_at_start,
        "code": _earlier_code | code_of_run(also),
        "load_average_at_start": round(_load_at_start, 2),
        **known,
    }


_AND = " && "
_earlier_commands: list[str] = []
_earlier_code: dict[str, str] = {}
_commit_at_start = commit()
_load_at_start = os.getloadavg()[0]


def describe(*sets: ImageSet) -> list[dict[str, Any]]:
    """Name, split, size and fingerprint of the images used."""
    return [
        {"name": s.name, "split": s.split, "n": len(s), "fingerprint": s.fingerprint} for s in sets
    ]


def gpu_name(device: str) -> str | None:
    """What a torch device is called; None for the CPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


def write_result(
    args: argparse.Namespace,
    title: str,
    tables: Sequence[Table],
    data: Any,
    known: dict[str, Any],
    notes: Sequence[str] = (),
    also: Sequence[str] = (),
) -> None:
    """Write the result file; with ``--quick`` only if ``--out`` names one.

    `also` is as in `provenance`.
    """
    if result_path(args) is None:
        return
    known = provenance(args, also, **known)
    if is_uncommitted(known):
        say(f"commit {known['commit']}: from an uncommitted tree, so this won't be rendered")
    value = {
        "title": title,
        "provenance": known,
        "notes": list(notes),
        "tables": [asdict(t) for t in tables],
        "data": data,
    }
    write_json(result_path(args), value)


def result_path(args: argparse.Namespace) -> Path | None:
    """Where the result goes, or None."""
    return args.out or (None if args.quick else RESULTS / f"{args.name}.json")


def earlier(args: argparse.Namespace, same: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an interrupted run of the same benchmark, to go on from; none with ``--fresh``.

    Rows made with other images, code, versions or hardware can't share a table with new ones:
    then the run stops and says what differs or, with ``--renew``, begins anew. The commands that
    made the rows are named with the one that runs now.
    """
    path = result_path(args)
    if path is None or not path.exists() or args.fresh:
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    then = found["provenance"]
    different = [k for k, v in same.items() if then.get(k) != v]
    if changed_since(then) != []:
        different.append("code")
    now = environment()
    different += [k for k in now if k != "date" and now[k] != then["environment"].get(k)]
    if different and args.renew:
        return []
    if different:
        raise SystemExit(
            f"{path} was measured otherwise (different: {', '.join(different)}); --fresh discards "
            "it, --out writes elsewhere"
        )
    if is_uncommitted(then):
        raise SystemExit(f"{path} was measured from an uncommitted tree; --fresh discards it")
    _earlier_commands.extend(then["command"].split(_AND))
    _earlier_code.update(then["code"])
    return found["data"]


def to_measure(
    keys: Sequence[str], seeds: Sequence[int], results: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, int]]:
    """Rows and seeds that aren't among the results yet, each announced; seed by seed."""
    for seed in seeds:
        for key in keys:
            if not any((r["row"], r["seed"]) == (key, seed) for r in results):
                say(f"{key}, seed {seed}")
                yield key, seed


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


# -- measuring ------------------------------------------------------------------------------


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and its result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a process of its own, so that its memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def reset_peak_memory() -> float:
    """Forget this process's peak so far (on Linux); the memory it holds now, in MB."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return 0.0
    return _status_mb("VmRSS")


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB."""
    try:
        # Unlike getrusage's, this peak doesn't begin with the parent's.
        return _status_mb("VmHWM")
    except OSError:
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _status_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))
