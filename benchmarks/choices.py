"""What each choice past the paper brings: units, starts, pruning, growing, refining, augmenting.

Sub-networks: ``windowed`` with 20 sub-networks of 50 units, and one choice changed in each row.
Where a choice changes the number of units, a row with as many units without it stands below.
Convolutional units: ``small``, shortened, under each kind of augmentation.
Only MNIST's training images are used: 20,000 (12,000 for ``small``) by class to train, the last
10,000 to validate. Finished rows are kept.

    python benchmarks/choices.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    earlier,
    middle,
    percent,
    say,
    to_measure,
    write_result,
)
from rankwise.data.split import stratified_limit
from rankwise.estimators.options import classifier_of

SUBNETWORKS = "Sub-networks: windowed, 20 of 50 units, with one choice changed"
AUGMENTATION = "Convolutional units: small, 6 epochs, under each augmentation"
TITLE = "What each choice past the paper brings"


@dataclass(frozen=True)
class Row:
    """A classifier that is `windowed` or ``small`` but for `options`."""

    label: str
    options: dict[str, Any] = field(default_factory=dict)
    preset: str = "windowed"


ROWS = {
    "windowed": Row("windowed"),
    "rank-2": Row("rank 2", {"rank": 2}),
    "relu": Row("ReLU", {"activation": "relu"}),
    "gelu": Row("GELU", {"activation": "gelu"}),
    "images": Row("starts from images", {"start": "images"}),
    "grow": Row("250 units grown", {"grow": 250}),
    "more": Row("5 sub-networks more: as many units", {"n_units": 1250, "n_subnets": 25}),
    "prune": Row("250 units pruned", {"prune": 0.25}),
    "fewer": Row("5 sub-networks fewer: as many units", {"n_units": 750, "n_subnets": 15}),
    "refine": Row("refined, 5 epochs of moved images", {"refine": 5}),
    "refine-plain": Row("refined, 5 epochs", {"refine": 5, "augmentation": "none"}),
    "gauss-newton": Row(
        "refined, 5 steps of Gauss–Newton", {"refine": 5, "refine_solver": "gauss-newton"}
    ),
    "small-none": Row("none", {"augmentation": "none"}, "small"),
    "small-low-rank": Row("low-rank copies", {"augmentation": "low-rank"}, "small"),
    "small-moves": Row("moves, the default", {"augmentation": "moves"}, "small"),
    "small-both": Row("moves and low-rank copies", {"augmentation": "moves+low-rank"}, "small"),
}


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "choices", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--images", type=int, default=20_000, help="of sub-networks")
    parser.add_argument("--images-small", type=int, default=12_000, help="of small")
    parser.add_argument("--workers", type=int, default=-1)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.images, args.images_small = args.seeds[:1], 300, 300
    train, _ = data_sets(args)
    cut = len(train) * 5 // 6
    held = train.images[cut:], train.labels[cut:]
    same = {
        "data": describe(train),
        "n": {"train": args.images, "train, small": args.images_small, "validation": len(held[1])},
    }
    known = same | {"seeds": args.seeds, "spread": "mean (min–max); of seconds the median"}
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        limit = args.images if ROWS[key].preset == "windowed" else args.images_small
        rows = stratified_limit(train.labels[:cut], min(limit, cut), seed=42)
        part = train.images[rows], train.labels[rows]
        results.append(measure(args, key, seed, part, held))
        write_result(args, TITLE, tables(results), results, known, NOTES)
    for found in tables(results):
        print(found.text(), end="\n\n")


NOTES = [
    "Accuracy on validation images cut from the training images; no test image was read.",
    "`Δ` is the difference to the first row of its table, seed by seed: mean (min to max).",
]


def measure(
    args: Any, key: str, seed: int, part: tuple[Any, Any], held: tuple[Any, Any]
) -> dict[str, Any]:
    """Fit one classifier and look at the validation images."""
    row = ROWS[key]
    small = row.preset == "small"
    options = {"max_iter": 6} if small else {"n_units": 1000, "n_subnets": 20}
    options |= row.options
    if args.quick:
        options |= {"max_iter": 1} | ({} if small else {"n_units": 40, "n_subnets": 2})
    model = classifier_of(row.preset, **options, n_jobs=args.workers, random_state=seed)
    model.fit(*part)
    accuracy = float(np.mean(model.predict(held[0]) == held[1]))
    say(f"  {100 * accuracy:.2f}% in {model.seconds_['total']:.0f} s")
    return {
        "row": key,
        "seed": seed,
        "accuracy": accuracy,
        "n_parameters_total": model.n_parameters_total_,
        "status": model.status_,
        "seconds": model.seconds_["total"],
    }


def tables(results: list[dict[str, Any]]) -> list[Table]:
    """Sub-networks, then augmentation."""
    made = [
        _table(SUBNETWORKS, [k for k, row in ROWS.items() if row.preset == "windowed"], results),
        _table(AUGMENTATION, [k for k, row in ROWS.items() if row.preset == "small"], results),
    ]
    return [t for t in made if t.rows]


def _table(title: str, keys: list[str], results: list[dict[str, Any]]) -> Table:
    found = {key: {r["seed"]: r for r in results if r["row"] == key} for key in keys}
    lines = []
    for key in keys:
        runs = found[key]
        if not runs:
            continue
        lines.append(
            (
                ROWS[key].label,
                percent([r["accuracy"] for r in runs.values()]),
                "" if key == keys[0] else _change(runs, found[keys[0]]),
                f"{next(iter(runs.values()))['n_parameters_total']:,}",
                middle([r["seconds"] for r in runs.values()], 0),
            )
        )
    return Table(title, ("choice", "validation, %", "Δ", "params", "s"), lines)


def _change(runs: dict[int, dict[str, Any]], first: dict[int, dict[str, Any]]) -> str:
    gains = [100 * (r["accuracy"] - first[s]["accuracy"]) for s, r in runs.items() if s in first]
    if not gains:
        return ""
    if len(gains) == 1:
        return f"{gains[0]:+.2f}"
    return f"{np.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})"


if __name__ == "__main__":
    main()
