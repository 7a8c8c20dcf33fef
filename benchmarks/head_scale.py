"""The head on more samples than memory holds: seconds, memory and what the arithmetic alone takes.

1,280,000 samples of 768 features and 1,000 classes, ImageNet's size, drawn block by block from the
seed and never kept: class means and normal noise. The ridge is chosen by the exact leave-one-out
error, so every sample is seen twice. The floor is the number of multiplications and additions that
the two passes can't do without, at the rate that a product of two matrices reaches in the same run:
the Gram matrix (``n·d²``), and for all samples their outputs and leverages for three ridges
(``2·n·d·(d + 3·K)``). ``--quick`` is a twentieth of the samples.

    python benchmarks/head_scale.py
    python benchmarks/head_scale.py --quick
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_info

from common import Table, argument_parser, peak_memory_mb, reset_peak_memory, timed, write_result
from rankwise import VarProHead

TITLE = "A million samples and a thousand classes, streamed"
SAMPLES, FEATURES, CLASSES = 1_280_000, 768, 1000
BLOCK = 4096
RIDGES = 3
MINUTES, GIGABYTES = 10, 4


class Stream:
    """Blocks of float32 features and labels, the same ones each time they are asked for."""

    def __init__(self, n: int, d: int, k: int, seed: int) -> None:
        self.n, self.d, self.k, self.seed = n, d, k, seed
        rng = np.random.default_rng([seed, k])
        self.means = rng.standard_normal((k, d), dtype=np.float32) * np.float32(0.15)
        # Features of a network have spectra that fall.
        self.scale = (np.arange(1, d + 1) ** -0.5).astype(np.float32)

    def block(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples from `first` on."""
        rng = np.random.default_rng([self.seed, self.k, first])
        size = min(BLOCK, self.n - first)
        y = rng.integers(self.k, size=size)
        y[: min(self.k, size)] = np.arange(self.k)[:size]  # every class is in every block
        x = rng.standard_normal((size, self.d), dtype=np.float32)
        x += self.means[y]
        x *= self.scale
        return x, y

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, self.n, BLOCK):
            yield self.block(first)


def rate(side: int = 2048) -> float:
    """Operations a second of a product of float64 matrices; the best of three."""
    a = np.random.default_rng(0).standard_normal((side, side))
    return 2.0 * side**3 / min(timed(lambda: a @ a)[0] for _ in range(3))


def main() -> None:
    """One fit, its memory and its floor."""
    parser = argument_parser(__doc__, "head_scale", seeds=None)
    parser.add_argument("--samples", type=int, help=f"default {SAMPLES:,}, quick a twentieth")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    n = args.samples or (SAMPLES // 20 if args.quick else SAMPLES)
    stream = Stream(n, FEATURES, CLASSES, args.seed)
    drawing = timed(lambda: [len(y) for _, y in stream])[0]
    speed = rate()
    before = reset_peak_memory()
    seconds, head = timed(lambda: VarProHead(verbose=0).fit(stream))
    peak, own = peak_memory_mb(), peak_memory_mb() - before
    test = Stream(20 * BLOCK, FEATURES, CLASSES, args.seed)
    test.means, test.seed = stream.means, args.seed + 1
    right = [head.predict(x) == y for x, y in test]
    work = float(n) * FEATURES * (FEATURES + 2.0 * (FEATURES + RIDGES * CLASSES))
    threads = max((i["num_threads"] for i in threadpool_info()), default=1)
    found = {
        "samples": n,
        "features": FEATURES,
        "classes": CLASSES,
        "seconds": seconds,
        "seconds_of_drawing_twice": 2 * drawing,
        "operations": work,
        "operations_a_second": speed,
        "floor_seconds": work / speed,
        "peak_memory_mb": peak,
        "memory_mb": own,
        "threads": threads,
        "chosen_by": head.chosen_by_,
        "ridge": head.alpha_,
        "ridges_tried_on_all": len(head.criterion_),
        "test_accuracy": float(np.mean(np.concatenate(right))),
    }
    rows = [
        ("samples × features × classes", f"{n:,} × {FEATURES} × {CLASSES:,}"),
        ("seconds, data drawn twice included", f"{seconds:.0f}"),
        ("of these, drawing the data", f"{2 * drawing:.0f}"),
        ("arithmetic alone, at this machine's rate", f"{work / speed:.0f}"),
        ("operations; a second", f"{work:.2g}; {speed / 1e9:.0f}·10⁹"),
        ("peak memory of the process, MB", f"{peak:,.0f}"),
        ("threads", str(threads)),
        ("ridge, by exact leave-one-out", f"{head.alpha_:.3g} ({head.chosen_by_})"),
        ("accuracy on samples never seen, %", f"{100 * found['test_accuracy']:.2f}"),
    ]
    table = Table("One fit", ("", ""), rows)
    print(table.text())
    notes = [
        f"Bars at the full size, on 2 cores: {MINUTES} minutes, {GIGABYTES} GB.",
        "The data are synthetic: seconds and memory are what is measured, accuracy says only that "
        "the layer is one.",
    ]
    write_result(args, TITLE, [table], [found], {"seed": args.seed}, notes)


if __name__ == "__main__":
    main()
