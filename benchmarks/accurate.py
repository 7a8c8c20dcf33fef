r"""The presets of convolutional units: test accuracy, parameters and time.

Each row is one call, ``ConvolutionalClassifier(preset, n_jobs=-1).fit(...)``, on all training
images of a data set, with nothing chosen for that data set; a validation part that the call itself
cuts from the training images chooses the output layer. The test images are read once,
at the end. Seconds are those of `fit`. Finished rows are kept.

    python benchmarks/accurate.py
    python benchmarks/accurate.py --datasets cifar10 fashion_mnist cats_vs_dogs malaria \
        --presets accurate

The malaria test images are of other slides than the training images; cats_vs_dogs has no test
split of its own, so 20% are held out with the seed.
"""

from __future__ import annotations

from pathlib import Path
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
    write_result,
)
from rankwise.data import ImageSet, load_images
from rankwise.estimators.options import classifier_of

PRESETS: dict[str, dict[str, Any]] = {
    "accurate": {"preset": "accurate"},
    "small": {"preset": "small"},
    "tiny": {"preset": "tiny"},
    "wide": {"preset": "wide"},
    "nano": {"preset": "nano"},
}
READING: dict[str, dict[str, Any]] = {"malaria": {"source_pattern": "^([^_]+)_"}}
BARS = {
    ("mnist", "accurate"): "99.4% with at most 150,800 parameters in under 600 s",
    ("mnist", "small"): "99.0% with at most 50,000 parameters",
    ("mnist", "tiny"): "98.0% with at most 10,000 parameters",
    ("cifar10", "accurate"): "70.0% with at most 202,800 parameters in 900 s",
    ("cifar10", "wide"): "85.0% (a goal) with less than 1,000,000 parameters",
}
TITLE = "Presets of convolutional units"


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "accurate", resumable=True)
    parser.add_argument("--datasets", nargs="+", default=["mnist"])
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS)[:3])
    parser.add_argument("--workers", type=int, default=-1)
    args = parser.parse_args()
    if args.quick:
        args.datasets, args.seeds, args.presets = ["digits"], args.seeds[:1], ["tiny"]
    rows = earlier(args, {})
    for seed in args.seeds:
        for data in args.datasets:
            missing = [p for p in args.presets if not _there(rows, data, p, seed)]
            if not missing:
                continue
            train, test = _images(args, data, seed)
            for preset in missing:
                say(f"{data}, {preset}, seed {seed}")
                rows.append(measure(args, data, preset, seed, train, test))
                known = {"seeds": sorted({r["seed"] for r in rows})}
                write_result(args, TITLE, [table(rows)], rows, known, notes(rows))
    print(table(rows).text())
    for note in notes(rows):
        print(note)


def _there(rows: list[dict[str, Any]], data: str, preset: str, seed: int) -> bool:
    return any((r["data"], r["preset"], r["seed"]) == (data, preset, seed) for r in rows)


def _images(args: Any, name: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a data set; a hold-out is the seed's."""
    if args.quick:
        return data_sets(args)
    source, options = str(Path(args.data) / name), READING.get(name, {})
    train = load_images(source, split="train", seed=seed, **options)
    return train, load_images(source, split="test", seed=seed, **options)


def measure(
    args: Any, data: str, preset: str, seed: int, train: ImageSet, test: ImageSet
) -> dict[str, Any]:
    """Train one classifier and read the test images once."""
    short = {"max_iter": 2} if args.quick else {}
    model = classifier_of(
        **PRESETS[preset], **short, n_jobs=args.workers, random_state=seed, verbose=1
    )
    model.fit(train.images, train.labels, groups=train.source_ids)
    best = max((e["validation_accuracy"] or 0.0 for e in model.history_), default=0.0)
    row = {
        "data": data,
        "preset": preset,
        "seed": seed,
        "accuracy": float(np.mean(model.predict(test.images) == test.labels)),
        "validation_accuracy": best,
        "n_parameters_units": model.n_parameters_units_,
        "n_parameters_total": model.n_parameters_total_,
        "output_layer": model.output_layer_,
        "epochs": model.n_iter_,
        "status": model.status_,
        "seconds": model.seconds_,
        "images": describe(train, test),
        "shape": list(train.image_shape),
    }
    say(f"  {100 * row['accuracy']:.2f}% in {model.seconds_['total']:.0f} s")
    return row


def table(rows: list[dict[str, Any]]) -> Table:
    """Accuracy, parameters and time of each data set and preset."""
    lines = []
    for data, preset in dict.fromkeys((r["data"], r["preset"]) for r in rows):
        runs = [r for r in rows if (r["data"], r["preset"]) == (data, preset)]
        lines.append(
            (
                f"{data}, {preset}",
                str(len(runs)),
                percent([r["accuracy"] for r in runs]),
                f"{100 * np.mean([r['validation_accuracy'] for r in runs]):.2f}",
                f"{runs[0]['n_parameters_total']:,}",
                str(runs[0]["epochs"]),
                middle([r["seconds"]["total"] for r in runs], 0),
            )
        )
    columns = ("data, preset", "runs", "test, %", "validation, %", "params", "epochs", "s")
    return Table(TITLE, columns, lines)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Each bar beside the worst run; where the output layer came from."""
    found = []
    for (data, preset), bar in BARS.items():
        runs = [r for r in rows if (r["data"], r["preset"]) == (data, preset)]
        if runs:
            worst = min(r["accuracy"] for r in runs)
            slowest = max(r["seconds"]["total"] for r in runs)
            found.append(
                f"{data}, {preset}: asked for {bar}; the worst of {len(runs)} runs has "
                f"{100 * worst:.2f}% with {runs[0]['n_parameters_total']:,} parameters, the "
                f"slowest took {slowest:.0f} s."
            )
    glued = sum(r["output_layer"] == "glue" for r in rows)
    found.append(
        f"On validation images the closed-form output layer was better than the trained one in "
        f"{glued} of {len(rows)} runs; the better of the two is used."
    )
    if any(r["data"] == "cifar10" for r in rows):
        found.append(
            "The copy of CIFAR-10 is JPEG: figures are lower than on the original (airbench.py)."
        )
    return found


if __name__ == "__main__":
    main()
