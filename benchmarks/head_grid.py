"""`VarProHead` beside RidgeClassifierCV from 100 to 1,000,000 samples and 64 to 4096 features.

Normal features with class means a tenth apart, ten classes, float32, drawn anew for each seed. Both
rows standardise the features and choose one of 28 ridges by leave-one-out. They are timed in turns,
ours first, for at least three seconds of the rival's time or fifteen turns; a seed isn't repeated
where one turn took a minute. Sizes at which the rival would need more than `--gigabytes` are left
out: it holds the features in float64 some four times.

    python benchmarks/head_grid.py
    python benchmarks/head_grid.py --quick
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common import SEEDS, Table, argument_parser, earlier, middle, say, timed, write_result
from rankwise import VarProHead

TITLE = "The head against RidgeClassifierCV, by samples and features"
SAMPLES = (100, 1_000, 5_000, 20_000, 100_000, 1_000_000)
FEATURES = (64, 256, 1280, 4096)
CLASSES = 10
ALPHAS = np.logspace(-2, 5, 28)
TURNS, SECONDS, LONG = 15, 3.0, 60.0
COPIES = 4
MANY, FASTER = 20_000, 3.0


def data(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels."""
    rng = np.random.default_rng([seed, n, d])
    y = rng.integers(CLASSES, size=n)
    y[:CLASSES] = np.arange(CLASSES)
    x = rng.standard_normal((n, d), dtype=np.float32)
    x += np.float32(0.1) * rng.standard_normal((CLASSES, d), dtype=np.float32)[y]
    return x, y


def main() -> None:
    """Each size and seed in turn; a run that is ended goes on where it was."""
    parser = argument_parser(__doc__, "head_grid", SEEDS, resumable=True)
    parser.add_argument("--gigabytes", type=float, default=8.0)
    args = parser.parse_args()
    results = earlier(args, {})
    sizes = [(n, d) for n in SAMPLES for d in FEATURES if 8 * COPIES * n * d < 1e9 * args.gigabytes]
    if args.quick:
        args.seeds, sizes = args.seeds[:1], [(100, 64), (1000, 64)]
    VarProHead().fit(*data(200, 8, 0))  # what a process does once
    for n, d in sizes:
        for seed in args.seeds:
            known = [r for r in results if (r["n"], r["d"]) == (n, d)]
            if any(r["seed"] == seed or max(r["rival"]) > LONG for r in known):
                continue
            say(f"{n:,} × {d}, seed {seed}")
            results.append({"n": n, "d": d, "seed": seed} | measure(n, d, seed))
            write_result(
                args, TITLE, [table(results)], results,
                {"seeds": args.seeds, "spread": "median (min–max) over all turns"},
                notes(results),
            )  # fmt: skip
    print(table(results).text())
    for note in notes(results):
        print(note)


def measure(n: int, d: int, seed: int) -> dict[str, Any]:
    """Seconds of both in turns, and how often they agree about the training samples."""
    x, y = data(n, d, seed)
    ours: list[float] = []
    rival: list[float] = []
    while len(rival) < TURNS and sum(rival) < SECONDS:
        seconds, head = timed(lambda: VarProHead().fit(x, y))
        ours.append(seconds)
        ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(ALPHAS))
        seconds, _ = timed(lambda ridge=ridge: ridge.fit(x, y))
        rival.append(seconds)
    some = slice(None, None, -(-n // 5000))
    same = float(np.mean(head.predict(x[some]) == ridge.predict(x[some])))
    return {"ours": ours, "rival": rival, "same_predictions": same}


def ratios(rows: list[dict[str, Any]]) -> list[float]:
    """How many times as long the rival took, turn by turn."""
    return [b / a for r in rows for a, b in zip(r["ours"], r["rival"], strict=True)]


def table(results: list[dict[str, Any]]) -> Table:
    """One line a size."""
    lines = []
    for n, d in dict.fromkeys((r["n"], r["d"]) for r in results):
        rows = [r for r in results if (r["n"], r["d"]) == (n, d)]
        found = [middle([s for r in rows for s in r[key]], 3) for key in ("ours", "rival")]
        lines.append((f"{n:,}", f"{d:,}", *found, middle(ratios(rows), 1)))
    heads = ("samples", "features", "VarProHead, s", "RidgeClassifierCV, s", "× ours")
    return Table("Fit with the choice of one of 28 ridges", heads, lines)


def notes(results: list[dict[str, Any]]) -> list[str]:
    """What was asked for, and where it isn't met."""
    found = []
    for n, d in dict.fromkeys((r["n"], r["d"]) for r in results):
        value = float(np.median(ratios([r for r in results if (r["n"], r["d"]) == (n, d)])))
        if value < (FASTER if n >= MANY else 1.0):
            found.append(f"{n:,} × {d:,}: {value:.2f} times")
    missed = f"not met: {', '.join(found)}." if found else "met by the median at every size here."
    bars = f"never slower, and at least {FASTER:g} times as fast from {MANY:,} samples"
    return [
        f"Bars: {bars}: {missed}",
        "Synthetic features; both choose among as many ridges, ours on a path of its own, and "
        "both standardise.",
    ]


if __name__ == "__main__":
    main()
