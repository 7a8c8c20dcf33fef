"""What training through Lightning costs beside a plain PyTorch loop that does the same work.

Both train the simple CNN on the same batches in the same order, with the same starting weights,
optimiser and running accuracy, and predict the validation images after each epoch; their weights
must come out equal. Rounds are interleaved, first one then the other and the other way round, after
a warm-up. The time of the whole call counts, set-up included. Two more lines tell what checkpoints
in a folder add, and what 8×8 images and short trainings do to the ratio.

python benchmarks/training_overhead.py --data ../shared/data
"""

from __future__ import annotations

import tempfile
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    middle,
    say,
    timed,
    write_result,
)
from rankwise._threads import one_thread
from rankwise.nets import TrainingSettings, make_network, train_network, updates_per_pass
from rankwise.nets.batches import epoch_seed, pass_order, scale
from rankwise.nets.memory_format import memory_format

SEED = 42


def plain_loop(
    model: nn.Module,
    training: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: TrainingSettings,
) -> None:
    """The loop that one would write by hand."""
    images, labels = torch.from_numpy(training[0]), torch.from_numpy(training[1])
    held, held_labels = torch.from_numpy(validation[0]), torch.from_numpy(validation[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    n, size = len(images), settings.batch_size
    for epoch in range(settings.epochs):
        torch.manual_seed(epoch_seed(SEED, epoch, 0))
        model.train()
        order = torch.from_numpy(pass_order(n, SEED, epoch))
        steps = updates_per_pass(n, size)
        sums = torch.zeros(2, dtype=torch.float64)
        for step in range(steps):
            rows = order[step * size : n if step == steps - 1 else (step + 1) * size]
            x, y = scale(images[rows]), labels[rows]
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            sums += torch.stack([loss.detach() * len(y), (logits.detach().argmax(1) == y).sum()])
        sums.tolist()
        model.eval()
        with torch.no_grad():
            right = 0.0
            for start in range(0, len(held), 128):
                part = slice(start, start + 128)
                logits = model(scale(held[part]))
                F.cross_entropy(logits, held_labels[part])
                right += (logits.argmax(1) == held_labels[part]).sum().item()


def race(
    name: str,
    training: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    settings: TrainingSettings,
    rounds: int,
) -> dict[str, Any]:
    """Seconds of each way in each round, after a warm-up."""
    shape = training[0].shape[1:]
    n_classes = int(training[1].max()) + 1

    def network() -> nn.Module:
        return make_network("simple-cnn", shape, n_classes, seed=SEED)

    def plain() -> nn.Module:
        model = network()
        with memory_format(model):  # the same order of weights in memory
            plain_loop(model, training, validation, settings)
        return model

    def through_lightning(folder: str | None = None) -> nn.Module:
        model = network()
        train_network(
            model, *training, settings, validation=validation, folder=folder, seed=SEED,
            device="cpu",
        )  # fmt: skip
        return model

    def with_folder() -> nn.Module:
        with tempfile.TemporaryDirectory() as folder:
            return through_lightning(folder)

    ways = {"plain": plain, "lightning": through_lightning, "with folder": with_folder}
    models = {way: call() for way, call in ways.items()}
    states = [model.state_dict() for model in models.values()]
    for key, value in states[0].items():
        for other in states[1:]:
            if not torch.equal(value, other[key]):
                raise SystemExit(f"the two loops differ in {key}: not the same work")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for way in order:
            seconds[way].append(timed(ways[way])[0])
        say(f"{name}, round {number + 1}: {[round(s[-1], 2) for s in seconds.values()]} s")
    updates = settings.epochs * updates_per_pass(len(training[0]), settings.batch_size)
    return {"name": name, "n_updates": updates, "seconds": seconds}


def row(measured: dict[str, Any]) -> list[str]:
    """A line of the table: plain time an update, then ratios round by round."""
    seconds, updates = measured["seconds"], measured["n_updates"]
    ratios = {
        way: [s / p for s, p in zip(seconds[way], seconds["plain"], strict=True)]
        for way in ("lightning", "with folder")
    }
    return [
        measured["name"],
        f"{1e3 * median(seconds['plain']) / updates:.1f}",
        middle(ratios["lightning"], 3),
        middle(ratios["with folder"], 3),
    ]


def main() -> None:
    """Measure, print, record."""
    parser = argument_parser(__doc__, "training_overhead", seeds=None)
    parser.add_argument("--images", type=int, default=12_800, help="training images")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    train, test = data_sets(args)
    if args.quick:
        args.images, args.epochs, args.rounds = 512, 1, 2

    def part(data: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.ascontiguousarray(data.images[:n]), np.asarray(data.labels[:n], dtype=np.int64)

    from rankwise.data import load_images

    digits = load_images("digits", split="train")
    small = TrainingSettings(1 if args.quick else 5)
    with one_thread():
        measured = [
            race(
                "digits 8×8" if args.quick else "MNIST 28×28",
                part(train, args.images),
                part(test, args.images // 10),
                TrainingSettings(args.epochs),
                args.rounds,
            ),
            race(
                "digits, short trainings", part(digits, 1280), part(digits, 128), small, args.rounds
            ),
        ]
    table = Table(
        "Training through Lightning / a plain loop, the same work",
        ("simple CNN, batch 128", "plain, ms/update", "ratio", "with checkpoints"),
        [row(m) for m in measured],
    )
    print(table.text())
    notes = [
        f"One CPU thread; {args.rounds} interleaved rounds, median (min–max) of the ratios of "
        "each round; whole calls, set-up included.",
        "All ways end with weights that are equal to the bit.",
    ]
    known = {"data": describe(train, test), "images": args.images, "epochs": args.epochs}
    write_result(args, "Lightning's overhead", [table], measured, known, notes)


if __name__ == "__main__":
    main()
