r"""Which preset should train where none is named: sub-networks or convolutional units.

Presets ``windowed`` (sized to the data), ``tiny`` and ``small`` at 100, 300 and 1000 images of
each data set, at each side that its images are brought to. Accuracy is that of validation images,
cut from the training images and seen by no fit; the test images aren't read. Finished rows are
kept.

    python benchmarks/default_model.py
    python benchmarks/default_model.py --datasets mnist --sides 0 --n 100 --seeds 42
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common import (
    Table,
    argument_parser,
    describe,
    earlier,
    middle,
    percent,
    say,
    write_result,
)
from rankwise.data import ImageSet, hold_out_by_source, load_images, stratified_limit
from rankwise.estimators.options import classifier_of

PRESETS: dict[str, str | None] = {"windowed": None, "tiny": "tiny", "small": "small"}
"""Each with its name for `classifier_of`; None is ``windowed`` sized to the data."""
OWN = 0
"""The side of the images as they are."""
SIDES = {
    "digits": (OWN,),
    "mnist": (OWN, 14),
    "fashion_mnist": (OWN,),
    "cifar10": (OWN, 16),
    "cats_vs_dogs": (32, 64, 96),
    "malaria": (32, 64),
}
READING: dict[str, dict[str, Any]] = {"malaria": {"source_pattern": "^([^_]+)_"}}
SIZES = (100, 300, 1000)
MOST_VALIDATION = 2000
TITLE = "The preset where none is named, on few images"

Key = tuple[str, int, int, str, int]


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "default_model", resumable=True)
    parser.add_argument("--datasets", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--sides", type=int, nargs="+", help="in pixels; 0 leaves images as is")
    parser.add_argument("--n", type=int, nargs="+", default=list(SIZES), help="training images")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--workers", type=int, default=-1)
    args = parser.parse_args()
    if args.quick:
        args.datasets, args.sides, args.n = ["digits"], [OWN], [100]
        args.seeds = args.seeds[:1]
    rows = earlier(args, {})
    for seed in args.seeds:
        for data in args.datasets:
            for side in args.sides or SIDES[data]:
                add_rows(args, rows, data, side, seed)
    print(table(rows).text())


def add_rows(args: Any, rows: list[dict[str, Any]], data: str, side: int, seed: int) -> None:
    """Every missing row of one data set at one side, each written as soon as it is measured."""
    there = {_key(r) for r in rows}
    missing = [
        (n, preset)
        for n in args.n
        for preset in args.presets
        if (data, side, n, preset, seed) not in there
    ]
    if not missing:
        return
    train, validation = parts(args, data, side, seed)
    for n, preset in missing:
        say(f"{data}, side {side or 'own'}, {n} images, {preset}, seed {seed}")
        few = train.subset(stratified_limit(train.labels, n, seed))
        found = measure(args, preset, seed, few, validation)
        rows.append({"data": data, "side": side, "n": n, "preset": preset, "seed": seed} | found)
        say(f"  {100 * found['accuracy']:.1f}% in {found['seconds']:.1f} s")
        known = {"seeds": sorted({r["seed"] for r in rows})}
        write_result(args, TITLE, [table(rows)], rows, known, NOTES)


NOTES = [
    "Accuracy is that of validation images cut from the training images, at most "
    f"{MOST_VALIDATION:,}, whole sources at a time; neither the fit nor what it chooses by saw "
    "them."
]


def _key(row: dict[str, Any]) -> Key:
    return row["data"], row["side"], row["n"], row["preset"], row["seed"]


def parts(args: Any, data: str, side: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """The training images of a data set, and those of them that are kept for validation."""
    source = data if data == "digits" else str(Path(args.data) / data)
    options = READING.get(data, {}) | ({"size": side} if side else {})
    images = load_images(source, split="train", seed=seed, **options)
    rest, kept = hold_out_by_source(images.labels, images.source_ids, seed=seed)
    validation = images.subset(kept)
    chosen = stratified_limit(validation.labels, MOST_VALIDATION, seed)
    return images.subset(rest), validation.subset(chosen)


def measure(
    args: Any, preset: str, seed: int, train: ImageSet, validation: ImageSet
) -> dict[str, Any]:
    """Train one classifier and count what it gets right of the validation images."""
    short = {"max_iter": 2} if args.quick else {}
    model = classifier_of(PRESETS[preset], **short, n_jobs=args.workers, random_state=seed)
    model.fit(train.images, train.labels, groups=train.source_ids)
    return {
        "accuracy": float(np.mean(model.predict(validation.images) == validation.labels)),
        "n_parameters_total": model.n_parameters_total_,
        "status": model.status_,
        "seconds": model.seconds_["total"],
        "images": describe(train, validation),
        "shape": list(train.image_shape),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Each preset's accuracy beside the others', a line for data set, side and size."""
    presets = [p for p in PRESETS if any(r["preset"] == p for r in rows)]
    lines = []
    for data, side, n in dict.fromkeys((r["data"], r["side"], r["n"]) for r in rows):
        cells = []
        runs = [r for r in rows if (r["data"], r["side"], r["n"]) == (data, side, n)]
        for preset in presets:
            own = [r for r in runs if r["preset"] == preset]
            cells.append(percent([r["accuracy"] for r in own], 1) if own else "–")
        seconds = [r["seconds"] for r in runs]
        shape = "×".join(str(length) for length in runs[0]["shape"])
        label = f"{data} {shape}"
        lines.append((label, str(n), *cells, middle(seconds, 0)))
    return Table(TITLE, ("data", "n", *(f"{p}, %" for p in presets), "s, each"), lines)


if __name__ == "__main__":
    main()
