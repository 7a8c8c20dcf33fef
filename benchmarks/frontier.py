r"""The frontier of small classifiers: accuracy within parameters and minutes, bar by bar.

Each row is one call, ``ConvolutionalClassifier(preset, time_budget=minutes)``, in bfloat16 where
the processor has it, on all training images of a data set; a validation part that the call itself
cuts from the training images chooses the output layer. The test images are read once,
at the end, and again with the copies that ``--tta`` names. Minutes are those of the clock on two
threads. On a machine
that others use, ``--epochs`` trains so many epochs instead: each row has its processor seconds,
which are to be compared with twice the minutes. ``--device cuda`` takes a GPU. Finished rows are
kept.

    python benchmarks/frontier.py                          # all, about 31 hours
    python benchmarks/frontier.py --rows mnist-small --seeds 42
    python benchmarks/frontier.py --rows cifar10-120k --workers 1 --epochs 17 --seeds 42

The malaria test images are of other slides than the training images; cats_vs_dogs has no test
split of its own, so 20% are held out with the seed. The photographs have 100 pixels a side.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

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
from rankwise import ConvolutionalClassifier, TrainingOptions
from rankwise._memory import keep_freed_memory
from rankwise.data import ImageSet, load_images
from rankwise.data.split import stratified_limit
from rankwise.networks.convolutional import as_maps
from rankwise.training.convolutional_presets import plan_convolutional
from rankwise.training.starting import convolutional_module
from rankwise.training.validation import validation_split

TITLE = "The frontier: accuracy within parameters and minutes"


@dataclass(frozen=True)
class Row:
    """One bar: what is trained, and what was asked for.

    Parameters
    ----------
    data, preset : str
    parameters : int
        At most so many, with the output layer.
    minutes : float
        At most so many, on two cores.
    bar, goal : float
        Per cent of the test images.
    teacher : str, optional
        What is trained first.
    reading : dict
        Of `load_images`.
    images : int, optional
        Training images, drawn by class.
    """

    data: str
    preset: str
    parameters: int
    minutes: float
    bar: float
    goal: float
    teacher: str | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    images: int | None = None


_SLIDES = {"source_pattern": "^([^_]+)_"}
ROWS = {
    "cifar10-500k": Row("cifar10", "wide", 500_000, 90, 92, 93.7),
    "cifar10-101k": Row("cifar10", "accurate", 101_000, 150, 89, 92),
    "cifar10-101k-taught": Row("cifar10", "accurate", 101_000, 150, 89, 92, "wide"),
    "cifar10-20k": Row("cifar10", "small", 20_000, 60, 80, 86.5),
    "cifar10-20k-taught": Row("cifar10", "small", 20_000, 60, 80, 86.5, "wide"),
    "cifar10-120k": Row("cifar10", "accurate", 120_000, 8, 86, 89),
    "mnist-150k": Row("mnist", "accurate", 150_800, 15, 99.72, 99.80),
    "mnist-5k": Row("mnist", "tiny", 5_000, 15, 99.45, 99.55),
    "mnist-1k": Row("mnist", "nano", 1_000, 15, 99.0, 99.2),
    "mnist-small": Row("mnist", "small", 20_000, 1, 99.3, 99.5),
    "fashion-120k": Row("fashion_mnist", "accurate", 120_000, 20, 93.5, 94.5),
    "cats": Row("cats_vs_dogs", "accurate", 120_000, 20, 93, 95, images=8000),
    "malaria": Row("malaria", "accurate", 120_000, 20, 96.5, 97, reading=_SLIDES),
}


def main() -> None:
    """Measure every row that isn't there yet."""
    parser = argument_parser(__doc__, "frontier", resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="instead of the minutes")
    parser.add_argument("--minutes", type=float, help="others than a row's; with --epochs at most")
    parser.add_argument("--device", default="cpu", help="a torch device")
    parser.add_argument("--models", type=Path, help="folder that keeps what was trained")
    parser.add_argument("--tta", choices=["mirror", "shifts"], help="scored beside the plain one")
    args = parser.parse_args()
    keep_freed_memory()  # as `rankwise train` does
    if args.quick:
        args.seeds, args.rows = args.seeds[:1], ["mnist-1k", "mnist-5k"]
    results = earlier(args, {})
    for key, seed in to_measure(args.rows, args.seeds, results):
        results.append(measure(args, key, seed))
        known = {"seeds": sorted({r["seed"] for r in results}), "spread": "mean (min–max)"}
        write_result(args, TITLE, tables(results), results, known, notes(results))
    for found in tables(results):
        print(found.text())
    for note in notes(results):
        print(note)


def measure(args: Any, key: str, seed: int) -> dict[str, Any]:
    """Train one classifier and read the test images once."""
    row = ROWS[key]
    train, test = _images(args, row, seed)
    epochs = 2 if args.quick else args.epochs
    budget = args.minutes or (None if epochs is not None else row.minutes)
    model = ConvolutionalClassifier(
        row.preset,
        epochs=epochs,
        time_budget=budget,
        training=TrainingOptions(precision="auto", teacher=row.teacher),
        n_jobs=args.workers,
        device=args.device,
        random_state=seed,
        verbose=1,
    )
    if args.device == "cpu":
        say(f"  {model.expect(train.images, train.labels)}")
    begin, busy = time.perf_counter(), time.process_time()
    model.fit(train.images, train.labels, groups=train.source_ids)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    if args.models is not None:
        model.save(args.models / f"{key}-{seed}")
    outputs = {"none": model.outputs(test.images)}
    if args.tta is not None and not (args.tta == "mirror" and not model.mirror_):
        outputs[args.tta] = model.set_params(tta=args.tta).outputs(test.images)
    scores = {
        copies: float(np.mean(model.classes_[found.argmax(axis=1)] == test.labels))
        for copies, found in outputs.items()
    }
    say(f"  {100 * scores['none']:.2f}% in {seconds:.0f} s, {busy:.0f} s of a processor")
    return {
        "row": key,
        "seed": seed,
        "asked": asdict(row),
        "accuracy": scores["none"],
        "accuracy_of_copies": {k: v for k, v in scores.items() if k != "none"},
        "validation_accuracy": max(e["validation_accuracy"] or 0.0 for e in model.history_),
        "n_parameters": model.n_parameters_total_,
        "seconds": seconds,
        "processor_seconds": busy,
        "workers": args.workers,
        "device": device_name(args.device),
        "epochs": model.n_iter_,
        "precision": model.precision_,
        "mirror": model.mirror_,
        "output_layer": model.output_layer_,
        "status": model.status_,
        "time_to": time_to(model.history_, model.seconds_.get("teacher", 0.0)),
        "operations_an_epoch": None if row.teacher else operations_an_epoch(row, train, seed),
        "images": describe(train, test),
        "shape": list(train.image_shape),
    }


def device_name(device: str) -> str:
    """``"cpu"``, or what the GPU is called."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


TARGETS = (0.85, 0.90, 0.92, 0.937)


def time_to(
    history: list[dict[str, Any]], before: float = 0.0
) -> dict[str, tuple[float, int] | None]:
    """Seconds and epochs of training until the validation images first reached each target.

    `before` are seconds of what was trained first.
    """
    found, spent = {}, before + np.cumsum([e["seconds"] for e in history])
    for target in TARGETS:
        reached = [i for i, e in enumerate(history) if (e["validation_accuracy"] or 0) >= target]
        first = (float(spent[reached[0]]), reached[0] + 1) if reached else None
        found[f"{100 * target:g}%"] = first
    return found


def operations_an_epoch(row: Row, train: ImageSet, seed: int) -> float:
    """Additions and multiplications of one pass over the images, forwards and backwards.

    Of the products and convolutions of one batch, as torch counts them; moves aren't counted.
    """
    encoded = np.unique(train.labels, return_inverse=True)[1]
    n = len(validation_split(encoded, seed, train.source_ids)[0])
    plan = plan_convolutional(row.preset, {}, train.image_shape, n_samples=n)
    some = train.images[: plan.joint.batch_size]
    module = convolutional_module(plan.units, some, torch.Generator().manual_seed(0))
    counter = FlopCounterMode(display=False)
    with counter:
        features = module(as_maps(some), [], torch.float32)
        torch.autograd.grad(features.sum(), list(module.parameters()))
    return counter.get_total_flops() / len(some) * n


def _images(args: Any, row: Row, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images; a hold-out is the seed's."""
    if args.quick:
        return data_sets(args)
    source = str(Path(args.data) / row.data)
    train = load_images(source, split="train", seed=seed, **row.reading)
    test = load_images(source, split="test", seed=seed, **row.reading)
    if row.images is not None and row.images < len(train):
        train = train.subset(stratified_limit(train.labels, row.images, seed=seed))
    return train, test


def tables(rows: list[dict[str, Any]]) -> list[Table]:
    """Each bar beside what was reached, and where a target was reached, when."""
    times = table_of_times(rows)
    return [table(rows), times] if times.rows else [table(rows)]


def table_of_times(rows: list[dict[str, Any]]) -> Table:
    """Seconds, epochs and operations until validation images first reached each target."""
    lines = []
    for r in rows:
        reached = {k: v for k, v in r["time_to"].items() if isinstance(v, list | tuple)}
        if ROWS[r["row"]].data != "cifar10" or not r.get("operations_an_epoch") or not reached:
            continue
        said = [
            f"{seconds:,.0f} s, {epoch}, {1e-15 * epoch * r['operations_an_epoch']:.2f}"
            for seconds, epoch in reached.values()
        ]
        said += ["–"] * (len(r["time_to"]) - len(said))
        lines.append((r["row"], str(r["seed"]), f"{100 * r['validation_accuracy']:.1f}", *said))
    title = "Time to accuracy: seconds, epochs, 10¹⁵ operations until validation images reached it"
    targets = (f"{100 * target:g}%" for target in TARGETS)
    return Table(title, ("row", "seed", "best, %", *targets), lines)


def table(rows: list[dict[str, Any]]) -> Table:
    """Each bar beside what was reached."""
    lines = []
    for key in dict.fromkeys(r["row"] for r in rows):
        runs, asked = [r for r in rows if r["row"] == key], ROWS[key]
        on_gpu = runs[0].get("device", "cpu") != "cpu"
        took = "GPU" if on_gpu else spread([r["seconds"] / 60 for r in runs], 1)
        lines.append(
            (
                key,
                str(len(runs)),
                f"{asked.bar:g} / {asked.goal:g}",
                percent([r["accuracy"] for r in runs]),
                f"{runs[0]['n_parameters']:,}",
                spread([r["epochs"] for r in runs], 0),
                f"{asked.minutes:g}",
                took,
            )
        )
    columns = ("row", "n", "bar / goal", "test, %", "params", "epochs", "min", "took")
    return Table(TITLE, columns, lines)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Which bars were met, by the worst run, within parameters and minutes."""
    found = [
        "min: asked for at most, on two cores; took: minutes of the clock, whatever else the "
        "machine did."
    ]
    for key in dict.fromkeys(r["row"] for r in rows):
        runs, asked = [r for r in rows if r["row"] == key], ROWS[key]
        worst = 100 * min(r["accuracy"] for r in runs)
        said = "goal met" if worst >= asked.goal else "bar met" if worst >= asked.bar else "not met"
        over = [r for r in runs if r["n_parameters"] > asked.parameters]
        on_cpu = [r for r in runs if r.get("device", "cpu") == "cpu"]
        late = [r for r in on_cpu if r["processor_seconds"] / 120 > 1.1 * asked.minutes]
        extra = " with too many parameters" * bool(over) + " in too much time" * bool(late)
        copies = {k for r in runs for k in r["accuracy_of_copies"]}
        with_copies = "".join(
            f"; with tta={k} {percent([r['accuracy_of_copies'][k] for r in runs])}%"
            for k in sorted(copies)
        )
        found.append(f"{key}: {said}{extra} ({worst:.2f}%, the worst of {len(runs)}){with_copies}.")
    gpus = {r["device"] for r in rows if r.get("device", "cpu") != "cpu"}
    if gpus:
        found.append(
            f"Trained on {', '.join(sorted(gpus))}, in fewer epochs than two cores do in the "
            "minutes asked for: what is reached is a lower bound, and no time."
        )
    if any(r["asked"]["data"] == "cifar10" for r in rows):
        found.append(
            "The copy of CIFAR-10 is JPEG: figures are lower than on the original (airbench.py)."
        )
    return found


if __name__ == "__main__":
    main()
