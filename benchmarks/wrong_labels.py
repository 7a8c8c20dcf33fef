"""Wrong labels planted in 1% of MNIST: how many are found by leaving one out.

Features: untrained bilinear windowed units (the package's own, tanh). Every training sample gets
the output of the head fitted without it, from one fit; samples are sorted by how far the largest
other output exceeds that of the given label. Counted are the planted ones in the first 1% of the
list, as many as were planted. The labels that MNIST itself has wrong count as false alarms. Beside
it the same list by ordinary outputs, which have seen the label.
"""

from __future__ import annotations

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
    timed,
    write_result,
)
from rankwise import VarProHead
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units

TITLE = "Wrong labels found by leaving one out"
SHARE = 0.01
LISTS = {"left_out": "left-out outputs", "fitted": "ordinary outputs"}


def main() -> None:
    """Each seed plants and draws anew."""
    parser = argument_parser(__doc__, "wrong_labels", resumable=True)
    parser.add_argument("--units", type=int, default=2000)
    args = parser.parse_args()
    units = 100 if args.quick else args.units
    train, _ = data_sets(args)
    same = {"data": describe(train), "units": units, "share": SHARE}
    results = earlier(args, same)
    for seed in args.seeds[:1] if args.quick else args.seeds:
        if any(r["seed"] == seed for r in results):
            continue
        say(f"seed {seed}")
        results.append(measure(train.images, train.labels, units, seed))
        known = same | {"seeds": args.seeds, "spread": "mean (min–max) over the seeds"}
        write_result(args, TITLE, [table(results)], results, known, [__doc__.splitlines()[0]])
    print(table(results).text())


def measure(images: np.ndarray, labels: np.ndarray, n_units: int, seed: int) -> dict[str, Any]:
    """Shares of the planted labels that the lists begin with."""
    rng = np.random.default_rng(seed)
    planted = rng.choice(len(labels), round(SHARE * len(labels)), replace=False)
    k = int(labels.max()) + 1
    given = labels.copy()
    given[planted] = (given[planted] + rng.integers(1, k, len(planted))) % k
    features = unit_features(images, n_units, rng)
    head = VarProHead()
    fit_seconds, _ = timed(lambda: head.fit(features, given))
    list_seconds, (rows, _) = timed(lambda: head.likely_wrong_labels(features, given))
    outputs = head.outputs(features)
    own = outputs[np.arange(len(given)), given]
    outputs[np.arange(len(given)), given] = -np.inf
    fitted = np.argsort(own - outputs.max(axis=1), kind="stable")
    first = len(planted)
    return {
        "seed": seed,
        "planted": first,
        "left_out": float(np.isin(rows[:first], planted).mean()),
        "left_out_twice": float(np.isin(rows[: 2 * first], planted).sum() / first),
        "fitted": float(np.isin(fitted[:first], planted).mean()),
        "fitted_twice": float(np.isin(fitted[: 2 * first], planted).sum() / first),
        "seconds": fit_seconds,
        "list_seconds": list_seconds,
    }


def unit_features(images: np.ndarray, n_units: int, rng: np.random.Generator) -> np.ndarray:
    """Untrained windowed units of images, float32 (n, n_units)."""
    units = make_units("bilinear", images.shape[1:])
    few = images[rng.choice(len(images), min(1000, len(images)), replace=False)]
    start = Start(window=(0.18, 0.5), smooth=True)
    params, _ = random_units(units, n_units, few.astype(np.float32) / 255, start, rng)
    params = params.astype(np.float32)
    features = np.empty((len(images), n_units), dtype=np.float32)
    for first in range(0, len(images), 2000):
        block = images[first : first + 2000].astype(np.float32) / 255
        features[first : first + 2000] = units.features(units.flatten(block), params)[:, :n_units]
    return features


def table(results: list[dict[str, Any]]) -> Table:
    """Found among the first 1% and 2%."""
    planted = results[0]["planted"]
    rows = [
        (
            name,
            percent([r[key] for r in results], 1),
            percent([r[f"{key}_twice"] for r in results], 1),
        )
        for key, name in LISTS.items()
    ]
    fit = middle([r["seconds"] for r in results], 1)
    listing = middle([r["list_seconds"] for r in results], 1)
    return Table(
        f"{planted} planted; fit {fit} s, list {listing} s",
        ("sorted by", "found in first 1%, %", "in first 2%, %"),
        rows,
    )


if __name__ == "__main__":
    main()
