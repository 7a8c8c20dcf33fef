"""The simple CNN on MNIST: output layer projected out against cross-entropy, both with Adam.

Both start from the same weights and see the same batches. Test accuracy is taken after every epoch
to say when 99% was reached; nothing is chosen by it, and the last epoch's accuracy stands beside
it. Seconds include the solve of the output layer at each epoch's end, not the evaluation.
"""

from __future__ import annotations

import argparse
from typing import Any

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
    write_result,
)
from rankwise.data import ImageSet
from rankwise.nets import TrainingSettings, make_network, train_network

TITLE = "Last layer projected out"
OUTPUTS = {"varpro": "VarPro, Adam", "softmax": "cross-entropy, Adam"}
GOAL = 0.99


def main() -> None:
    """Seeds outside, outputs inside: both see the same state of the machine."""
    parser = argument_parser(__doc__, "projected_loss", resumable=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train, test = data_sets(args)
    epochs = 2 if args.quick else args.epochs
    same = {
        "data": describe(train, test),
        "epochs": epochs,
        "dropout": args.dropout,
        "threads": args.threads,
    }
    known = same | {"seeds": args.seeds, "spread": "mean (min–max) over the seeds"}
    results = earlier(args, same)
    for seed in args.seeds[:1] if args.quick else args.seeds:
        for output in OUTPUTS:
            if any((r["seed"], r["output"]) == (seed, output) for r in results):
                continue
            say(f"{output}, seed {seed}")
            results.append(measure(output, seed, epochs, args, train, test))
            write_result(args, TITLE, [table(results)], results, known, [__doc__.splitlines()[0]])
    print(table(results).text())


def measure(
    output: str, seed: int, epochs: int, args: argparse.Namespace, train: ImageSet, test: ImageSet
) -> dict[str, Any]:
    """History of one training."""
    network = make_network(
        "simple-cnn", train.image_shape, train.n_classes, dropout=args.dropout, seed=seed
    )
    result = train_network(
        network,
        train.images,
        train.labels,
        TrainingSettings(epochs=epochs, output=output),
        validation=(test.images, test.labels),
        seed=seed,
        device="cpu",
        after_epoch=lambda epoch, m: say(f"  {epoch}: {100 * m['validation_accuracy']:.2f}%"),
    )
    accuracy = [entry["validation_accuracy"] for entry in result.history]
    seconds = [entry["seconds"] for entry in result.history]
    reached = next((i for i, a in enumerate(accuracy) if a >= GOAL), None)
    return {
        "output": output,
        "seed": seed,
        "accuracy": accuracy,
        "seconds": seconds,
        "epochs_to_goal": None if reached is None else reached + 1,
        "seconds_to_goal": None if reached is None else sum(seconds[: reached + 1]),
    }


def table(results: list[dict[str, Any]]) -> Table:
    """Epochs and seconds to the goal, accuracy after the first and the last epoch."""
    rows = []
    for output, name in OUTPUTS.items():
        own = [r for r in results if r["output"] == output]
        if not own:
            continue
        there = [r for r in own if r["epochs_to_goal"] is not None]
        missed = "" if len(there) == len(own) else f", {len(own) - len(there)} never"
        rows.append(
            (
                name,
                (spread([r["epochs_to_goal"] for r in there], 1) if there else "–") + missed,
                spread([r["seconds_to_goal"] for r in there], 0) if there else "–",
                percent([r["accuracy"][0] for r in own]),
                percent([r["accuracy"][-1] for r in own]),
            )
        )
    columns = ("", f"epochs to {100 * GOAL:g}%", "seconds", "1st epoch, %", "last, %")
    return Table("Simple CNN, test accuracy", columns, rows)


if __name__ == "__main__":
    main()
