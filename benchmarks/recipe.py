r"""What each part of the recipe gives: one change at a time, on validation images alone.

The base is the preset `accurate` on CIFAR-10, with fewer images and epochs, so that a row takes a
few minutes. Each row changes one thing. Training and validation images are both cut from the
training images: 5000 validate and choose nothing, the last epoch counts. No test image is read. A
part keeps its place if it gives 0.2 points, or a tenth of the time; seconds are a processor's,
which others may use at the same time. Finished rows are kept.

    python benchmarks/recipe.py                 # 3 seeds, about 1.5 hours on one core
    python benchmarks/recipe.py --rows base relu --seeds 42
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import torch

from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    earlier,
    say,
    spread,
    to_measure,
    write_result,
)
from rankwise.data.split import stratified_limit
from rankwise.training.augment import SHIFTS, Augmentation, channel_statistics
from rankwise.training.convolutional_presets import ConvolutionalPlan, plan_convolutional
from rankwise.training.joint import JointTraining
from rankwise.training.starting import convolutional_module
from rankwise.units.convolutional import Layer
from recipe_parts import Averaged, Gated, Nesterov, progressive

TITLE = "What each part of the recipe gives"
ENOUGH = 0.2

Change = Callable[[ConvolutionalPlan], ConvolutionalPlan]


def joint(**options: Any) -> Change:
    """Other choices of the training."""
    return lambda plan: replace(plan, joint=replace(plan.joint, **options))


def units(**options: Any) -> Change:
    """Other choices of the units."""
    return lambda plan: replace(plan, units=replace(plan.units, **options))


def without_skips(plan: ConvolutionalPlan) -> ConvolutionalPlan:
    """No layer adds what comes in."""
    layers = tuple(replace(layer, skip=False) for layer in plan.units.layers)
    return units(layers=layers)(plan)


def without_whitening(plan: ConvolutionalPlan) -> ConvolutionalPlan:
    """A first layer of learned 5 × 5 forms in its place."""
    first, *others = plan.units.layers
    layers = (replace(first, side=5, rank=3), *others)
    return units(layers=layers, whiten=0)(plan)


def of_rank_two(plan: ConvolutionalPlan) -> ConvolutionalPlan:
    """Two forms a unit, and about as many parameters: fewer units."""
    layers: list[Layer] = []
    for layer in plan.units.layers:
        layers.append(replace(layer, rank=2, maps=round(layer.maps / sqrt(2))))
    return units(layers=tuple(layers))(plan)


def fewer(share: float) -> Change:
    """Fewer units in each layer."""

    def change(plan: ConvolutionalPlan) -> ConvolutionalPlan:
        layers = tuple(replace(x, maps=round(share * x.maps)) for x in plan.units.layers)
        return units(layers=layers)(plan)

    return change


MOVES = replace(SHIFTS, mirror=True)
ROWS: dict[str, tuple[str, Change]] = {
    "base": ("the preset", lambda plan: plan),
    "adamw": ("AdamW, one cycle", joint(optimiser="adamw", schedule="one-cycle")),
    "one-cycle": ("Muon, one cycle", joint(schedule="one-cycle")),
    "rate-003": ("Muon, rate 0.03", joint(matrix_rate=0.03)),
    "smoothing-005": ("labels smoothed by 0.05", joint(smoothing=0.05)),
    "random-flips": (
        "mirror images at random",
        joint(augmentation=replace(MOVES, alternate=False)),
    ),
    "affine": ("affine moves", joint(augmentation=Augmentation(mirror=True))),
    "relu": ("ReLU", units(activation="relu")),
    "no-skips": ("without skips", without_skips),
    "no-whitening": ("5×5 forms, not whitening", without_whitening),
    "rank-2": ("rank 2, fewer units", of_rank_two),
    "float32": ("float32", joint(precision="float32")),
    "gated": ("products of two forms", fewer(0.72)),
    "averaged": ("averaged weights", lambda plan: plan),
    "nesterov": ("Nesterov SGD", lambda plan: plan),
    "progressive": ("28 pixels, then 32", lambda p: joint(extra=progressive(p.joint.epochs))(p)),
}
"""What each row says, and what it changes. Distillation isn't among them: it needs a trained
`wide` first (`frontier.py`)."""


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "recipe", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.rows, args.epochs = args.seeds[:1], list(ROWS), 1
    train, _ = data_sets(args, "cifar10")
    n_held = min(5000, len(train) // 4)
    drawn = np.random.default_rng(0).permutation(len(train))
    held, rest = train.subset(np.sort(drawn[:n_held])), train.subset(np.sort(drawn[n_held:]))
    if args.images < len(rest):
        rest = rest.subset(stratified_limit(rest.labels, args.images, seed=42))
    same = {"data": describe(rest, held), "epochs": args.epochs, "workers": args.workers}
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        results.append(measure(args, key, seed, rest, held))
        known = same | {"seeds": sorted({r["seed"] for r in results}), "spread": "mean (min–max)"}
        write_result(args, TITLE, [table(results)], results, known, notes(results))
    print(table(results).text())
    for note in notes(results):
        print(note)


def measure(args: Any, key: str, seed: int, train: Any, held: Any) -> dict[str, Any]:
    """Train with one change, and look at the validation images once, at the end."""
    images, labels = train.images, train.labels.astype(np.int64)
    n_classes = int(labels.max()) + 1
    given = {"precision": "auto", "max_iter": args.epochs}
    plan = plan_convolutional("accurate", given, images.shape[1:], n_samples=50_000)
    plan = joint(augmentation=Augmentation() if args.quick else MOVES)(plan)
    plan = ROWS[key][1](plan)
    begin = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    module = convolutional_module(plan.units, images, generator)
    if key == "gated":
        whitening = module.whitening.numpy() if plan.units.whiten else None
        module = Gated(plan.units, *channel_statistics(images), generator, whitening)
    kind = {"averaged": Averaged, "nesterov": Nesterov}.get(key, JointTraining)
    training = kind(module, plan.joint, n_classes, seed=seed, workers=args.workers)
    result = training.fit(images, labels)
    seconds = time.process_time() - begin
    of_images = 2 * plan.units.channels + plan.units.n_whitening**2
    accuracy = training.accuracy(held.images, held.labels.astype(np.int64))
    say(f"  {100 * accuracy:.2f}% of the validation images, {seconds:.0f} s of a processor")
    return {
        "row": key,
        "label": ROWS[key][0],
        "seed": seed,
        "validation_accuracy": accuracy,
        "train_loss": result.history[-1]["train_loss"],
        "n_parameters": sum(p.numel() for p in training.trained) + of_images,
        "processor_seconds": seconds,
        "precision": result.precision,
        "status": result.status,
    }


def of_row(results: list[dict[str, Any]], key: str, name: str) -> dict[int, float]:
    """A number of a row, by seed."""
    return {r["seed"]: r[name] for r in results if r["row"] == key}


def table(results: list[dict[str, Any]]) -> Table:
    """Each change beside the base: validation accuracy, the difference by seed, and time."""
    base = of_row(results, "base", "validation_accuracy")
    lines = []
    for key in dict.fromkeys(r["row"] for r in results):
        runs = of_row(results, key, "validation_accuracy")
        gains = [100 * (a - base[s]) for s, a in runs.items() if s in base]
        lines.append(
            (
                ROWS[key][0],
                str(len(runs)),
                spread([100 * a for a in runs.values()], 2),
                spread(gains, 2) if gains else "–",
                f"{next(r['n_parameters'] for r in results if r['row'] == key):,}",
                f"{np.median(list(of_row(results, key, 'processor_seconds').values())):.0f}",
            )
        )
    return Table(TITLE, ("change", "n", "validation, %", "gain", "params", "s"), lines)


def notes(results: list[dict[str, Any]]) -> list[str]:
    """What the base gains over each change, and whether that is enough."""
    base = of_row(results, "base", "validation_accuracy")
    found = ["Seconds are a processor's, of training alone."]
    for key in dict.fromkeys(r["row"] for r in results if r["row"] != "base"):
        runs = of_row(results, key, "validation_accuracy")
        lost = [100 * (base[s] - a) for s, a in runs.items() if s in base]
        if lost:
            said = "keeps its place" if np.mean(lost) >= ENOUGH else "isn't shown to be better"
            found.append(
                f"{ROWS[key][0]}: the base has {np.mean(lost):+.2f} points, mean of {len(lost)}; "
                f"what the base has instead {said}."
            )
    return found


if __name__ == "__main__":
    main()
