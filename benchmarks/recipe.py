r"""What each part of a recipe gives: one change at a time, on validation images alone.

The base is a preset, with fewer images and epochs where that is asked for, so that a row takes a
few minutes. Each row changes one thing. Training and validation images are both cut from the
training images: 5000, a quarter where they are few, validate and choose nothing, the last epoch
counts. Moves that a row chooses are those of all its epochs, also of 60 and more, in which the base
of the two largest presets has others. No test image is read. A part keeps its place if it gives 0.2
points, or a tenth of the time; seconds are a processor's, which others may use at the same time.
Finished rows are kept. Results of a preset *before it had three blocks* are of an earlier commit,
whose rows were others.

    python benchmarks/recipe.py                 # 3 seeds, about 3 hours on one core
    python benchmarks/recipe.py --rows base relu --seeds 42
    python benchmarks/recipe.py --on cats_vs_dogs --epochs 14 --rows base affine --out cats.json
    python benchmarks/recipe.py --preset nano --on mnist --images 60000 --epochs 24 --device cuda

On a GPU a batch is one shard (``--shards 1``), which is faster there; normalisation then has the
moments of the whole batch. `join.py` puts the files of several such runs into one.
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
    gpu_name,
    say,
    spread,
    to_measure,
    write_result,
)
from rankwise.data.split import stratified_limit
from rankwise.training.augment import FARTHER, SHIFTS, Augmentation, channel_statistics
from rankwise.training.convolutional_presets import (
    CONVOLUTIONAL_PRESETS,
    ConvolutionalPlan,
    plan_convolutional,
)
from rankwise.training.joint import JointTraining
from rankwise.training.starting import convolutional_module
from rankwise.training.teaching import Teacher
from rankwise.units.convolutional import Layer
from recipe_parts import Averaged, Gated, Nesterov, progressive

TITLE = "What each part of the recipe gives"
WHOLE = {"cifar10": 50_000, "mnist": 60_000, "fashion_mnist": 60_000, "cats_vs_dogs": 8000}
"""Training images of a data set: batches and moves are as for all of them."""
ENOUGH = 0.2

Change = Callable[[ConvolutionalPlan], ConvolutionalPlan]


def joint(**options: Any) -> Change:
    """Other choices of the training; moves that are chosen are those of long trainings too."""
    if "augmentation" in options:
        options["long"] = None
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


def moved_less(plan: ConvolutionalPlan, share: float) -> ConvolutionalPlan:
    """The plan's moves, at another strength."""
    moves = plan.joint.augmentation
    assert moves is not None
    strength = {
        name: getattr(moves, name) * share for name in ("rotation", "scale", "shear", "shift")
    }
    return joint(augmentation=replace(moves, **strength))(plan)


def scaled_by(scale: float) -> Change:
    """Affine maps of a scale, with the mirror images that the plan has."""

    def change(plan: ConvolutionalPlan) -> ConvolutionalPlan:
        moves = plan.joint.augmentation
        assert moves is not None
        found = Augmentation(scale=scale, mirror=moves.mirror, flip=moves.flip)
        return joint(augmentation=found)(plan)

    return change


def erased(plan: ConvolutionalPlan) -> ConvolutionalPlan:
    """The plan's moves, and a square of each image cut out, of three eighths of a side."""
    assert plan.joint.augmentation is not None
    moves = replace(plan.joint.augmentation, erase=3 / 8)
    return joint(augmentation=moves)(plan)


def far_erased(plan: ConvolutionalPlan) -> ConvolutionalPlan:
    """Moves of long trainings, however many epochs there are."""
    moves = plan.joint.augmentation
    assert moves is not None
    return joint(augmentation=replace(FARTHER, mirror=moves.mirror, flip=moves.flip))(plan)


MOVES = replace(SHIFTS, mirror=True)
ROWS: dict[str, tuple[str, Change]] = {
    "base": ("the preset", lambda plan: plan),
    "shards-4": ("normalised by quarters of a batch", joint(n_shards=4)),
    "smoothing-01": ("labels smoothed by 0.1", joint(smoothing=0.1)),
    "adamw": ("AdamW, one cycle", joint(optimiser="adamw", schedule="one-cycle")),
    "one-cycle": ("Muon, one cycle", joint(schedule="one-cycle")),
    "rate-01": ("Muon, rate 0.1", joint(matrix_rate=0.1)),
    "rate-001": ("Muon, rate 0.01", joint(matrix_rate=0.01)),
    "smoothing-0": ("labels as they are", joint(smoothing=0.0)),
    "batch-125": ("batches of 125, in as many shards", joint(batch_size=125)),
    "batch-250": ("batches of 250, in as many shards", joint(batch_size=250)),
    "smoothing-02": ("labels smoothed by 0.2", joint(smoothing=0.2)),
    "smoothing-005": ("labels smoothed by 0.05", joint(smoothing=0.05)),
    "random-flips": (
        "mirror images at random",
        joint(augmentation=replace(MOVES, alternate=False)),
    ),
    "affine": ("affine moves, scales of 0.12", scaled_by(0.12)),
    "scale-03": ("affine moves, scales of 0.3", scaled_by(0.3)),
    "shifts": ("shifts, alternating flips", joint(augmentation=MOVES)),
    "weaker": ("weaker moves", lambda plan: moved_less(plan, 0.5)),
    "stronger": ("stronger moves", lambda plan: moved_less(plan, 1.5)),
    "relu": ("ReLU", units(activation="relu")),
    "no-skips": ("without skips", without_skips),
    "whitening": ("whitening", units(whiten=2)),
    "no-whitening": ("5×5 forms, not whitening", without_whitening),
    "rank-2": ("rank 2, fewer units", of_rank_two),
    "float32": ("float32", joint(precision="float32")),
    "gated": ("products of two forms", fewer(0.72)),
    "fixed-bias": ("filters that whiten without biases", lambda plan: plan),
    "averaged": ("averaged weights", lambda plan: plan),
    "distilled": ("taught by `wide`", lambda plan: plan),
    "nesterov": ("Nesterov SGD", lambda plan: plan),
    "progressive": ("28 pixels, then 32", lambda p: joint(extra=progressive(p.joint.epochs))(p)),
    "erased": ("squares cut out", erased),
    "shift-4": ("shifts of 4 pixels", joint(augmentation=replace(MOVES, shift=4 / 32))),
    "far-erased": ("moves of long trainings", far_erased),
}
"""What each row says, and what it changes."""


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "recipe", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--preset", choices=list(CONVOLUTIONAL_PRESETS), default="accurate")
    parser.add_argument("--on", choices=list(WHOLE), default="cifar10", help="data set")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="a torch device")
    parser.add_argument("--shards", type=int, help="of a batch; default: the preset's")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.epochs = args.seeds[:1], 1
    train, _ = data_sets(args, args.on)
    n_held = min(5000, len(train) // 4)
    drawn = np.random.default_rng(0).permutation(len(train))
    held, rest = train.subset(np.sort(drawn[:n_held])), train.subset(np.sort(drawn[n_held:]))
    if args.images < len(rest):
        rest = rest.subset(stratified_limit(rest.labels, args.images, seed=42))
    chosen = ("preset", "epochs", "workers", "device", "shards")
    same = {"data": describe(rest, held), **{name: getattr(args, name) for name in chosen}}
    usual = plan_convolutional(args.preset, {}, rest.image_shape, n_samples=WHOLE[args.on])
    same["shards"] = args.shards or usual.joint.n_shards
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        results.append(measure(args, key, seed, rest, held))
        known = same | {"seeds": sorted({r["seed"] for r in results}), "spread": "mean (min–max)"}
        known |= {"gpu": gpu_name(args.device)}
        write_result(args, TITLE, [table(results)], results, known, notes(results))
    print(table(results).text())
    for note in notes(results):
        print(note)


def measure(args: Any, key: str, seed: int, train: Any, held: Any) -> dict[str, Any]:
    """Train with one change, and look at the validation images once, at the end."""
    images, labels = train.images, train.labels.astype(np.int64)
    n_classes = int(labels.max()) + 1
    plan = ROWS[key][1](planned(args, args.preset, seed, images, labels))
    begin, tick = time.process_time(), time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    module = convolutional_module(plan.units, images, generator)
    if key.startswith("gated"):
        whitening = module.whitening.numpy() if plan.units.whiten else None
        module = Gated(plan.units, *channel_statistics(images), generator, whitening)
    if key == "fixed-bias":
        module.whitening_bias.requires_grad_(False)
    kind: Callable[..., JointTraining]
    kind = {"averaged": Averaged, "nesterov": Nesterov}.get(key, JointTraining)
    if key == "distilled":
        plan = joint(teacher=teacher(args, seed, images, labels))(plan)
    training = kind(
        module, plan.joint, n_classes, seed=seed, workers=args.workers, device=args.device
    )
    result = training.fit(images, labels)
    seconds, clock = time.process_time() - begin, time.perf_counter() - tick
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
        "seconds": clock,
        "precision": result.precision,
        "status": result.status,
    }


def planned(
    args: Any, preset: str, seed: int, images: np.ndarray, labels: np.ndarray
) -> ConvolutionalPlan:
    """What a preset does in the epochs asked for, moves by what mirror images show."""
    given = {"precision": "auto", "max_iter": args.epochs}
    plan = plan_convolutional(preset, given, images.shape[1:], n_samples=WHOLE[args.on])
    if args.shards is not None:
        plan = joint(n_shards=args.shards)(plan)
    if args.quick:
        return plan
    return replace(plan, joint=plan.joint_for(images, labels, seed))


def teacher(args: Any, seed: int, images: np.ndarray, labels: np.ndarray) -> Teacher:
    """`wide`, trained on the same images for as many epochs; its time counts too."""
    plan = planned(args, "wide", seed, images, labels)
    module = convolutional_module(plan.units, images, torch.Generator().manual_seed(seed))
    n_classes = int(labels.max()) + 1
    training = JointTraining(
        module, plan.joint, n_classes, seed=seed, workers=args.workers, device=args.device
    )
    return Teacher(module.network(training.fit(images, labels).coef, softmax=True))


def of_row(results: list[dict[str, Any]], key: str, name: str) -> dict[int, float]:
    """A number of a row, by seed."""
    return {r["seed"]: r[name] for r in results if r["row"] == key}


def table(results: list[dict[str, Any]]) -> Table:
    """Each change beside the base: validation accuracy, the difference by seed, and time."""
    base = of_row(results, "base", "validation_accuracy")
    lines = []
    for key in dict.fromkeys(r["row"] for r in results):
        runs = of_row(results, key, "validation_accuracy")
        runs_of = [r for r in results if r["row"] == key]
        gains = [100 * (a - base[s]) for s, a in runs.items() if s in base]
        lines.append(
            (
                runs_of[0]["label"],
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
        label = next(r["label"] for r in results if r["row"] == key)
        if lost:
            said = "keeps its place" if np.mean(lost) >= ENOUGH else "isn't shown to be better"
            found.append(
                f"{label}: the base has {np.mean(lost):+.2f} points, mean of {len(lost)}; "
                f"what the base has instead {said}."
            )
    return found


if __name__ == "__main__":
    main()
