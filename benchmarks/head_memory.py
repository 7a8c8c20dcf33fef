"""Memory and time of `VarProHead` against the number of streamed samples.

Synthetic features, two classes, made block by block and forgotten; each size in a process of its
own. The ridge is chosen by leave-one-out, so the samples are seen twice. The peak is that of the
fit, less what the process held before it. scikit-learn's RidgeClassifierCV, which needs all
features at once, stands beside it where they fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from common import (
    Table,
    argument_parser,
    in_fresh_process,
    peak_memory_mb,
    reset_peak_memory,
    timed,
    write_result,
)

SIZES = (10_000, 100_000, 1_000_000)
RIVAL_SIZES = (10_000, 100_000)
D, BLOCK = 512, 4096
BAR = 1.1


class Stream:
    """Blocks of features and labels, the same each time they are asked for."""

    def __init__(self, n: int, d: int, seed: int) -> None:
        self.n, self.d, self.seed = n, d, seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i, first in enumerate(range(0, self.n, BLOCK)):
            rng = np.random.default_rng([self.seed, i])
            size = min(BLOCK, self.n - first)
            y = rng.integers(2, size=size)
            x = rng.standard_normal((size, self.d), dtype=np.float32)
            x[:, 0] += 2.0 * y
            yield x, y


def ours(n: int, d: int, seed: int) -> tuple[float, float]:
    """Seconds and peak memory in MB."""
    from rankwise import VarProHead

    VarProHead().fit(Stream(1000, d, seed))
    before = reset_peak_memory()
    seconds, _ = timed(lambda: VarProHead().fit(Stream(n, d, seed)))
    return seconds, peak_memory_mb() - before


def theirs(n: int, d: int, seed: int) -> tuple[float, float]:
    """The same of RidgeClassifierCV, features included."""
    from sklearn.linear_model import RidgeClassifierCV

    def fit() -> None:
        parts = list(Stream(n, d, seed))
        x, y = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
        RidgeClassifierCV(np.logspace(-2, 5, 28)).fit(x, y)

    before = reset_peak_memory()
    seconds, _ = timed(fit)
    return seconds, peak_memory_mb() - before


def main() -> None:
    """Each size in a fresh process."""
    args = argument_parser(__doc__, "head_memory", (42,)).parse_args()
    d = 32 if args.quick else D
    sizes = (2_000, 8_000) if args.quick else SIZES
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        for n in sizes:
            for name, run in (("VarProHead", ours), ("RidgeClassifierCV", theirs)):
                if name != "VarProHead" and n not in (*RIVAL_SIZES, *sizes[: 2 * args.quick]):
                    continue
                seconds, memory = in_fresh_process(run, n, d, seed)
                rows.append(
                    {"row": name, "n": n, "d": d, "seed": seed, "seconds": seconds, "mb": memory}
                )
    lines = [
        (f"{r['row']}, {r['n']:,} rows", f"{r['mb']:.0f}", f"{r['seconds']:.1f}") for r in rows
    ]
    table = Table(f"{d} features, streamed", ("", "peak, MB", "seconds"), lines)
    print(table.text())
    peaks = [r["mb"] for r in rows if r["row"] == "VarProHead"]
    growth = peaks[-1] / max(peaks[-2], 1.0)
    print(f"last peak / the one before: {growth:.2f} (bar: at most {BAR})")
    notes = [
        "Features are made while they are streamed, which is part of both times.",
        f"Bar: from 100,000 to 1,000,000 rows the peak grows by {BAR} times at most; measured "
        f"{growth:.2f}.",
    ]
    write_result(args, "Memory of a streamed head", [table], rows, {"seeds": args.seeds}, notes)


if __name__ == "__main__":
    main()
