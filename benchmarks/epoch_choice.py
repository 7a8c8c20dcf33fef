"""Which epoch to take: the last, or that of the highest accuracy on few validation images.

Each row trains a preset on some images, validates every epoch on a tenth as many, and looks at
3000 others every time, which choose nothing. All are cut from the training images of a data set; no
test image is read. What `JointTraining` takes stands beside the epoch of the highest validation
accuracy, which earlier versions took, and beside the best that there was. Finished rows are kept.

    python benchmarks/epoch_choice.py       # about 15 minutes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    earlier,
    percent,
    say,
    spread,
    to_measure,
    write_result,
)
from rankwise.data import ImageSet
from rankwise.data.split import stratified_limit
from rankwise.training.convolutional_presets import plan_convolutional
from rankwise.training.joint import JointTraining
from rankwise.training.starting import convolutional_module

TITLE = "Which epoch to take"
_OTHERS = 3000


@dataclass(frozen=True)
class Row:
    """What is trained: on so many images of a data set, validated on a tenth as many."""

    data: str
    preset: str
    images: int
    epochs: int
    moved: bool = True

    @property
    def label(self) -> str:
        """For the table."""
        where = "CIFAR-10" if self.data == "cifar10" else "MNIST"
        moved = "" if self.moved else ", images as they are"
        return f"{self.preset}, {self.images:,} of {where}, {self.epochs} epochs{moved}"


ROWS = {
    "tiny-24": Row("mnist", "tiny", 900, 24),
    "small-24": Row("cifar10", "small", 1440, 24),
    "small-60": Row("cifar10", "small", 1440, 60),
    "small-60-unmoved": Row("cifar10", "small", 1440, 60, moved=False),
    "accurate-24": Row("cifar10", "accurate", 1440, 24),
    "small-12": Row("cifar10", "small", 9000, 12),
}


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "epoch_choice", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.rows = args.seeds[:1], ["tiny-24"]
    sets = {name: data_sets(args, name)[0] for name in {ROWS[key].data for key in args.rows}}
    same = {"data": describe(*(sets[name] for name in sorted(sets))), "workers": args.workers}
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        results.append(measure(args, key, seed, sets[ROWS[key].data]))
        known = same | {"seeds": sorted({r["seed"] for r in results})}
        known["spread"] = "mean (min–max) over the seeds"
        write_result(args, TITLE, [table(results)], results, known, notes(results))
    print(table(results).text())
    for note in notes(results):
        print(note)


def measure(args: Any, key: str, seed: int, found: ImageSet) -> dict[str, Any]:
    """Train once, and look at every epoch."""
    row = ROWS[key]
    epochs = 2 if args.quick else row.epochs
    n = min(row.images, len(found) // 2)
    held = n // 9
    drawn = stratified_limit(found.labels, min(n + held + _OTHERS, len(found)), seed=seed)
    drawn = np.random.default_rng(seed).permutation(drawn)
    images, labels = found.images[drawn], found.labels[drawn].astype(np.int64)
    train, validation, others = slice(n), slice(n, n + held), slice(n + held, None)
    given = {"max_iter": epochs, "precision": "auto"}
    plan = plan_convolutional(row.preset, given, images.shape[1:], n_samples=n)
    joint = replace(plan.joint, augmentation=None)
    if row.moved:
        joint = plan.joint_for(images[train], labels[train], seed)
    module = convolutional_module(plan.units, images[train], torch.Generator().manual_seed(seed))
    training = JointTraining(
        module,
        joint,
        int(labels.max()) + 1,
        seed=seed,
        workers=args.workers,
    )
    seen: list[float] = []
    result = training.fit(
        images[train],
        labels[train],
        validation=(images[validation], labels[validation]),
        after_epoch=lambda entry: seen.append(training.accuracy(images[others], labels[others])),
    )
    validated = [entry["validation_accuracy"] for entry in result.history]
    highest = len(validated) - int(np.argmax(validated[::-1]))
    say(f"  epoch {highest}: {100 * seen[highest - 1]:.2f}%, the last: {100 * seen[-1]:.2f}%")
    return {
        "row": key,
        "seed": seed,
        "asked": asdict(row),
        "n_validated": held,
        "highest_epoch": highest,
        "chosen_epoch": result.chosen_epoch,
        "validation_accuracies": validated,
        "accuracies": seen,
    }


def at(run: dict[str, Any], which: str) -> float:
    """Accuracy on the other images at the epoch of a name."""
    return float(run["accuracies"][run[f"{which}_epoch"] - 1])


def table(results: Sequence[dict[str, Any]]) -> Table:
    """Accuracies on other images, by what the epoch is taken for."""
    lines = []
    for key in dict.fromkeys(r["row"] for r in results):
        runs = [r for r in results if r["row"] == key]
        lines.append(
            (
                ROWS[key].label,
                str(runs[0]["n_validated"]),
                percent([at(r, "highest") for r in runs]),
                percent([at(r, "chosen") for r in runs]),
                spread([100 * (at(r, "chosen") - at(r, "highest")) for r in runs], 2),
                percent([max(r["accuracies"]) for r in runs]),
            )
        )
    columns = ("training", "validated on", "highest, %", "taken, %", "gain", "best there was, %")
    return Table(TITLE, columns, lines)


def notes(results: Sequence[dict[str, Any]]) -> list[str]:
    """How often it is the last, and the mean gain of all runs."""
    last = sum(r["chosen_epoch"] == len(r["accuracies"]) for r in results)
    gains = [100 * (at(r, "chosen") - at(r, "highest")) for r in results]
    return [
        f"The last epoch was taken in {last} of {len(results)} runs; the mean gain over all is "
        f"{np.mean(gains):+.2f} points ({min(gains):+.2f} to {max(gains):+.2f}).",
        "Taken: the last epoch, unless its validation accuracy is lower than the highest by more "
        "than two standard errors; then that of the highest.",
    ]


if __name__ == "__main__":
    main()
