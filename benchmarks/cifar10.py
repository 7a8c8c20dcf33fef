"""CIFAR-10 with colour units: the honest number that the paper never gave.

The paper's abstract claims 93.7%, its section 6.2 says "work in process". Here the paper's colour
units (36 parameters each) in its own scheme, and windowed bilinear colour units, three seeds, all
50,000 training images, accuracy on the 10,000 test images. The copy of CIFAR-10 is JPEG, so
figures are lower than on the lossless original (`airbench.py`). Finished rows are kept.
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
    percent,
    say,
    write_result,
)
from rankwise.data import ImageSet
from rankwise.estimators.options import classifier_of

ROWS = {
    "colour": ("colour, the paper's scheme", {"preset": "pereyra", "unit": "colour"}),
    "colour-windowed": (
        "colour-bilinear, windowed",
        {"preset": "windowed", "unit": "colour-bilinear"},
    ),
    "colour-untrained": (
        "the same, untrained",
        {"preset": "windowed", "unit": "colour-bilinear", "max_iter": 0},
    ),
}
TITLE = "CIFAR-10 with colour units"
NOTES = [
    "The copy of CIFAR-10 is JPEG: figures are lower than on the lossless original (airbench.py).",
    "The paper's abstract claims 93.7% with 36 parameters a unit; its section 6.2 gives no result.",
]


def main() -> None:
    """Measure each row for each seed."""
    parser = argument_parser(__doc__, "cifar10", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--subnets", type=int, help="default: the preset's")
    parser.add_argument("--workers", type=int, default=-1)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.subnets = args.seeds[:1], 2
    train, test = (in_colour(s) if args.quick else s for s in data_sets(args, "cifar10"))
    same = {
        "n": {"train": len(train), "test": len(test)},
        "data": describe(train, test),
        "subnets": args.subnets,
    }
    known = same | {"seeds": args.seeds, "spread": "mean (min–max) over the seeds"}
    results = earlier(args, same)
    for seed in args.seeds:
        for key in args.rows:
            if any(r["row"] == key and r["seed"] == seed for r in results):
                continue
            say(f"{key}, seed {seed}")
            results.append(measure(key, seed, args.subnets, args.workers, train, test))
            write_result(args, TITLE, [table(results)], results, known, NOTES)
    print(table(results).text())


def in_colour(images: ImageSet) -> ImageSet:
    """Grey images as colour ones with three planes of different brightness, for ``--quick``."""
    planes = [images.images, images.images // 2, 255 - images.images]
    return ImageSet.from_arrays(np.stack(planes, axis=-1), images.labels, images.class_names)


def measure(
    key: str, seed: int, subnets: int | None, workers: int, train: ImageSet, test: ImageSet
) -> dict[str, Any]:
    """Train one classifier."""
    model = classifier_of(**ROWS[key][1], n_subnets=subnets, n_jobs=workers, random_state=seed)
    model.fit(train.images, train.labels)
    return {
        "row": key,
        "seed": seed,
        "accuracy": model.score(test.images, test.labels),
        "train_accuracy": model.score(train.images, train.labels),
        "n_parameters_units": model.n_parameters_units_,
        "n_parameters_total": model.n_parameters_total_,
        "parameters_of_a_unit": model.network_.units.n_params,
        "seconds": model.seconds_,
        "statuses": model.statuses_,
    }


def table(results: list[dict[str, Any]]) -> Table:
    """Accuracy, parameters and time."""
    lines = []
    for key, (label, _) in ROWS.items():
        runs = [r for r in results if r["row"] == key]
        if runs:
            lines.append(
                (
                    label,
                    percent([r["accuracy"] for r in runs]),
                    f"{100 * np.mean([r['train_accuracy'] for r in runs]):.1f}",
                    f"{runs[0]['n_parameters_units']:,}",
                    f"{runs[0]['n_parameters_total']:,}",
                    f"{np.median([r['seconds']['total'] for r in runs]):.0f}",
                )
            )
    columns = ("units", "test, %", "train, %", "in units", "params", "s")
    return Table("CIFAR-10", columns, lines)


if __name__ == "__main__":
    main()
