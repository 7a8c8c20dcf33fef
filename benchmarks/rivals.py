"""The paper's Table 4 measured again instead of quoted: same split, one run, three seeds.

Each row is fitted on all cores on MNIST's training images and tested once on its test images, so
nothing here was chosen on them. Prediction is timed on one thread. A row without randomness is
fitted once. Finished rows are kept: the same command goes on from there.

    python benchmarks/rivals.py --rows windowed mlp --seeds 42
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
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
from rankwise._threads import one_thread
from rankwise.data import ImageSet
from rival_models import (
    boosting,
    cnn,
    dense_random,
    logistic,
    mlp,
    rankwise_classifier,
    svm_nystroem,
    svm_rbf,
    untrained_units,
)

TITLE = "The paper's Table 4 measured again, without its dropout and DropConnect networks"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    label : str
    make : callable
        ``make(seed, quick)`` gives an object with ``fit(images, labels)``, ``predict(images)`` on
        uint8 images and ``n_parameters``.
    note : str
        Caps and choices to be named beside the figures.
    random : bool
        False where every seed would give the same model.
    n_predict : int
        Images that prediction is timed on.
    """

    label: str
    make: Callable[[int, bool], Any]
    note: str = ""
    random: bool = True
    n_predict: int = 2000


ROWS = {
    "pereyra": Row("ours: pereyra", rankwise_classifier("pereyra"), "all training images"),
    "windowed": Row("ours: windowed", rankwise_classifier("windowed")),
    "default": Row("ours: windowed, 40 sub-networks", rankwise_classifier("windowed", 40)),
    "small": Row("ours: small", rankwise_classifier("small"), "convolutional units"),
    "random-symmetric": Row(
        "random symmetric units + ridge", untrained_units("symmetric"), "5200 untrained units"
    ),
    "random-windowed": Row(
        "random windowed units + ridge", untrained_units("windowed"), "5200 untrained units"
    ),
    "random-dense": Row(
        "random dense features + ridge", dense_random(5200), "5200 untrained tanh units"
    ),
    "logistic": Row(
        "logistic regression", logistic(), "L-BFGS, at most 100 iterations", random=False
    ),
    "svm-nystroem": Row(
        "RBF SVM, Nyström 1000", svm_nystroem(1000), "averaged SGD on the hinge loss, 10 epochs"
    ),
    "svm-rbf": Row("RBF SVM, exact", svm_rbf(), "C = 5, gamma = 0.02", random=False, n_predict=300),
    "boosting": Row(
        "gradient boosting", boosting(), "histograms, 60 rounds of one tree a class", random=False
    ),
    "mlp": Row("MLP, 800 hidden units", mlp(), "Adam, batches of 200, 15 epochs"),
    "cnn-small": Row("CNN, small", cnn((8, 16), None), "Adam, one-cycle, 6 epochs"),
    "cnn": Row("CNN", cnn((16, 32), 60), "Adam, one-cycle, 6 epochs"),
}


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "rivals", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--limit", type=int, help="training images; default all")
    args = parser.parse_args()
    if args.quick:
        args.seeds = args.seeds[:1]
    train, test = data_sets(args)
    if args.limit is not None and args.limit < len(train):
        rng = np.random.default_rng(args.seeds[0])
        train = train.subset(np.sort(rng.choice(len(train), args.limit, replace=False)))
    same = {"n": {"train": len(train), "test": len(test)}, "data": describe(train, test)}
    results = earlier(args, same)
    # Seeds outside, rows inside: rivals take turns.
    for i, seed in enumerate(args.seeds):
        for key in args.rows:
            once = not ROWS[key].random and (i > 0 or any(r["row"] == key for r in results))
            if once or any(r["row"] == key and r["seed"] == seed for r in results):
                continue
            say(f"{key}, seed {seed}")
            results.append(measure(key, seed, train, test, quick=args.quick))
            keep(args, results, same)
    print(table(results).text())


def measure(key: str, seed: int, train: ImageSet, test: ImageSet, *, quick: bool) -> dict[str, Any]:
    """Fit and test one row."""
    row = ROWS[key]
    model = row.make(seed, quick)
    fit_seconds, _ = timed(lambda: model.fit(train.images, train.labels))
    accuracy = float(np.mean(model.predict(test.images) == test.labels))
    few = test.images[: row.n_predict]
    with one_thread():
        model.predict(few[:50])  # warm-up
        seconds = [timed(lambda: model.predict(few))[0] for _ in range(3)]
    return {
        "row": key,
        "seed": seed,
        "accuracy": accuracy,
        "n_parameters": int(model.n_parameters),
        "fit_seconds": fit_seconds,
        "predict_us": 1e6 * float(np.median(seconds)) / len(few),
    }


def keep(args: argparse.Namespace, results: list[dict[str, Any]], same: dict[str, Any]) -> None:
    """Write what is there so far."""
    known = same | {
        "seeds": args.seeds,
        "spread": "accuracy and error: mean (min–max) over the seeds; times: median (min–max); "
        "a row without randomness was fitted once",
    }
    measured = {r["row"] for r in results}
    notes = [
        "Fit on all cores, prediction on one thread, in batches. Parameters are all that "
        "prediction needs, output layer and random weights included; of a windowed unit those in "
        "its window.",
        *(f"{row.label}: {row.note}." for key, row in ROWS.items() if row.note and key in measured),
    ]
    write_result(args, TITLE, [table(results)], results, known, notes)


def table(results: list[dict[str, Any]]) -> Table:
    """Error, parameters and times, row by row."""
    lines = []
    for key, row in ROWS.items():
        runs = [r for r in results if r["row"] == key]
        if not runs:
            continue
        lines.append(
            (
                row.label,
                percent([1 - r["accuracy"] for r in runs]),
                f"{runs[0]['n_parameters']:,}",
                middle([r["fit_seconds"] for r in runs], 0),
                f"{np.median([r['predict_us'] for r in runs]):.0f}",
            )
        )
    return Table(TITLE, ("model", "error, %", "parameters", "fit, s", "µs/image"), lines)


if __name__ == "__main__":
    main()
