"""Last layers on a real backbone, beside each other: accuracy, seconds and memory of each.

Features of EfficientNet-Lite0 (`rankwise[backbones]`), computed once and kept in `--cache`. Cats vs
dogs with 8,000 and with 2,000 training images, and malaria: a fifth is held out for the test, of
malaria by slide, anew for each seed. CIFAR-10 and Fashion-MNIST: 8,000 training images, drawn anew
for each seed from 10,000, and 2,000 of the test images. Strengths, and the number of neighbours,
are chosen on a fifth of the training images, then the row is fitted to all of them; its seconds and
its memory, what the process grows by at most, are of both. ``--speed`` first measures images a
second, as the package computes features and by a plain loop of torch; ``--transfer`` adds the
paper's way, the head and then the top four layers of the backbone by RMSprop at 10⁻⁵, on four
fifths of the training images, as many epochs as are best on the others; its seconds are of the
images' one pass through the layers below as well. ``--power 0.5`` takes the square roots of the
features for all rows, as ``load_backbone(..., power=0.5)`` does.

    python benchmarks/probes.py --cache ../features
    python benchmarks/probes.py --cache ../features --power 0.5
    python benchmarks/probes.py --quick
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from common import (
    SEEDS,
    Table,
    argument_parser,
    describe,
    earlier,
    middle,
    peak_memory_mb,
    percent,
    reset_peak_memory,
    say,
    timed,
    write_result,
)
from rankwise import VarProHead
from rankwise.data import ImageSet, load_images
from rankwise.data.split import hold_out_by_source, stratified_limit
from rankwise.heads.backbones import load_backbone
from rankwise.heads.features import extract_features, to_float_batch
from rankwise.heads.preparation import Preparation

TITLE = "Last layers on a backbone that has seen ImageNet"
BACKBONE = "efficientnet-lite0"
ALPHAS = np.logspace(-2, 5, 28)


class Task(NamedTuple):
    """Where images come from, and how many train."""

    source: str
    n_train: int
    pattern: str | None = None
    parts: bool = False  # a test part of its own; otherwise a fifth is held out


TASKS = {
    "cats vs dogs, 8,000": Task("cats_vs_dogs", 8000),
    "cats vs dogs, 2,000": Task("cats_vs_dogs", 2000),
    "malaria by slide": Task("malaria", 8000, r"^([^_]+)_"),
    "CIFAR-10, 8,000": Task("cifar10", 8000, parts=True),
    "Fashion-MNIST, 8,000": Task("fashion_mnist", 8000, parts=True),
}
LIMITS = {"train": 10_000, "test": 2000}

Fit = Callable[[np.ndarray, np.ndarray, int], Any]


def _scaled(model: Any) -> Fit:
    return lambda x, y, seed: make_pipeline(StandardScaler(), model).fit(x, y)


def _chosen(make: Callable[[Any], Any], values: Sequence[Any]) -> Fit:
    """The value that is best on a fifth of the training images, then fitted to all of them."""

    def fit(x: np.ndarray, y: np.ndarray, seed: int) -> Any:
        rest, held = hold_out_by_source(y, np.arange(len(y)), seed=seed)
        scores = [_scaled(make(v))(x[rest], y[rest], seed).score(x[held], y[held]) for v in values]
        return _scaled(make(values[int(np.argmax(scores))]))(x, y, seed)

    return fit


ROWS: dict[str, Fit] = {
    "VarProHead": lambda x, y, seed: VarProHead().fit(x, y),
    "VarProHead, GCV": lambda x, y, seed: VarProHead("gcv").fit(x, y),
    "VarProHead, logistic": lambda x, y, seed: VarProHead(loss="logistic").fit(x, y),
    "nearest class mean": _scaled(NearestCentroid()),
    "k-NN, k chosen": _chosen(lambda k: KNeighborsClassifier(k), (1, 5, 15)),
    "shrunken LDA": _scaled(LinearDiscriminantAnalysis("lsqr", "auto")),
    "RidgeClassifierCV": _scaled(RidgeClassifierCV(ALPHAS)),
    "LogisticRegression, C=1": _scaled(LogisticRegression(max_iter=1000)),
    "LogisticRegression, C chosen": _chosen(
        lambda c: LogisticRegression(C=c, max_iter=1000), (1e-4, 1e-3, 1e-2, 1e-1)
    ),
    "LinearSVC, C chosen": _chosen(lambda c: LinearSVC(C=c), (1e-5, 1e-4, 1e-3)),
}
TRANSFER = "head, then top blocks by RMSprop"


def main() -> None:
    """Each task and seed in turn, row by row; a run that is ended goes on where it was."""
    parser = argument_parser(__doc__, "probes", SEEDS, resumable=True)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    parser.add_argument("--speed", action="store_true", help="measure images a second as well")
    parser.add_argument("--transfer", action="store_true", help="fine-tune the top layers too")
    parser.add_argument("--epochs", type=int, default=4, help="of --transfer, at most")
    parser.add_argument("--power", type=float, default=1.0, help="exponent of the features")
    args = parser.parse_args()
    if args.transfer and args.power != 1.0:
        parser.error("--transfer takes features as they are")
    if args.power != 1.0:
        args.name = "probes_power"
    backbone = load_backbone(BACKBONE)
    tasks = {"digits": Task("digits", 80, parts=True)} if args.quick else TASKS
    names = list(tasks) if args.quick else args.tasks
    images = {name: read(args, tasks[name]) for name in names}
    sets = {data.fingerprint: data for parts in images.values() for data in parts}
    same = {
        "backbone": backbone.fingerprint,
        "power": args.power,
        "threads": torch.get_num_threads(),
    }
    results = earlier(args, same)
    seeds = args.seeds[:1] if args.quick else args.seeds
    known = same | {"data": describe(*sets.values()), "seeds": seeds}
    for name, parts in images.items():
        if args.speed and not any((r["task"], r["row"]) == (name, "features") for r in results):
            say(f"{name}: images a second")
            results.append(
                {"task": name, "row": "features"}
                | speed(backbone, parts[0], 32 if args.quick else 128)
            )
        features = [
            raised(extract_features(backbone, part, cache=args.cache, progress=True), args.power)
            for part in parts
        ]
        for seed in seeds:
            train, test = split(parts, features, tasks[name], seed)
            for row in (*ROWS, *([TRANSFER] if args.transfer else [])):
                if any((r["task"], r["row"], r.get("seed")) == (name, row, seed) for r in results):
                    continue
                say(f"{name}, seed {seed}: {row}")
                found = (
                    transfer(backbone, parts, features, tasks[name], seed, args.epochs)
                    if row == TRANSFER
                    else measure(ROWS[row], train, test, seed)
                )
                results.append({"task": name, "row": row, "seed": seed} | found)
                save(args, results, known)
    save(args, results, known)
    for table in tables(results):
        print(table.text(), end="\n\n")


def read(args: argparse.Namespace, task: Task) -> list[ImageSet]:
    """All images of a set, or its training and test part."""
    if args.quick:
        return [load_images("digits", split=s, limit=n) for s, n in (("train", 100), ("test", 40))]
    source = str(Path(args.data) / task.source)
    if not task.parts:
        return [load_images(source, split="all", source_pattern=task.pattern)]
    return [load_images(source, split=s, limit=n) for s, n in LIMITS.items()]


def rows_of(parts: list[ImageSet], task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train, of the first part, and rows of the test, of the last one."""
    data = parts[0]
    if task.parts:
        train, test = np.arange(len(data)), np.arange(len(parts[1]))
    else:
        train, test = hold_out_by_source(data.labels, data.source_ids, seed=seed)
    return train[stratified_limit(data.labels[train], task.n_train, seed)], test


def split(
    parts: list[ImageSet], features: list[np.ndarray], task: Task, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Features and labels for training and for the test."""
    train, test = rows_of(parts, task, seed)
    return (
        (features[0][train], parts[0].labels[train]),
        (features[-1][test], parts[-1].labels[test]),
    )


def raised(features: np.ndarray, power: float) -> np.ndarray:
    """As `load_backbone` with this power gives them."""
    preparation = Preparation(power=power)
    return preparation.raised(torch.as_tensor(np.array(features))).numpy()


def measure(
    fit: Fit,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """Test accuracy, seconds and memory of one row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iteration limits, which some strengths meet
        before = reset_peak_memory()
        seconds, model = timed(lambda: fit(*train, seed))
        return {
            "seconds": seconds,
            "memory_mb": peak_memory_mb() - before,
            "accuracy": float(model.score(*test)),
            "n_train": len(train[1]),
        }


def transfer(
    backbone: Any,
    parts: list[ImageSet],
    features: list[np.ndarray],
    task: Task,
    seed: int,
    epochs: int,
) -> dict[str, Any]:
    """The package's head, then the backbone's top blocks with it."""
    from rankwise.heads.fine_tuning import fine_tune
    from rankwise.nets import TrainingSettings, transfer_network
    from rankwise.nets.projected_loss import write_layer

    train, test = rows_of(parts, task, seed)
    x, y = parts[0].images[train], parts[0].labels[train]
    known = features[0][train]
    # By slide where the test part is.
    rest, held = hold_out_by_source(y, parts[0].source_ids[train], seed=seed)

    def fit() -> tuple[Any, int]:
        head = VarProHead().fit(known[rest], y[rest])
        network = transfer_network(
            backbone, len(head.classes_), image_shape=x.shape[1:], dropout=0.0, seed=seed
        )
        write_layer(network.head, head.classes_, head.coef_, head.intercept_, head.temperature_)
        found = fine_tune(
            network, x[rest], y[rest],
            TrainingSettings(epochs, optimizer="rmsprop", learning_rate=1e-5),
            validation=(x[held], y[held]), seed=seed, device="cpu",
        )  # fmt: skip
        return network.eval(), found.best_epoch

    before = reset_peak_memory()
    seconds, (network, chosen) = timed(fit)
    memory = peak_memory_mb() - before
    seen = extract_features(network.backbone, parts[-1].images[test], device="cpu")
    with torch.inference_mode():
        found = network.head(torch.as_tensor(np.array(seen))).argmax(1).numpy()
    return {
        "seconds": seconds,
        "memory_mb": memory,
        "accuracy": float(np.mean(found == parts[-1].labels[test])),
        "n_train": len(train),
        "epochs": chosen,
    }


def speed(backbone: Any, data: ImageSet, n: int) -> dict[str, Any]:
    """Images a second of a plain loop of torch and of ours, in turns; the best of three each."""
    part = data.images[: min(n, len(data))]

    def plain() -> None:
        with torch.no_grad():
            for first in range(0, len(part), 32):
                backbone(to_float_batch(part[first : first + 32]))

    def ours() -> None:
        extract_features(backbone, part, batch_size=32)

    ours()  # a session is made once
    seconds: dict[str, list[float]] = {"torch": [], "ours": []}
    for _ in range(3):
        seconds["torch"].append(timed(plain)[0])
        seconds["ours"].append(timed(ours)[0])
    return {"rates": {key: len(part) / min(values) for key, values in seconds.items()}}


def tables(results: list[dict[str, Any]]) -> list[Table]:
    """One a task."""
    found = []
    for task in dict.fromkeys(r["task"] for r in results):
        own = [r for r in results if r["task"] == task]
        rates = next((r["rates"] for r in own if r["row"] == "features"), None)
        lines = []
        for row in dict.fromkeys(r["row"] for r in own if r["row"] != "features"):
            rows = [r for r in own if r["row"] == row]
            lines.append(
                (
                    row,
                    percent([r["accuracy"] for r in rows]),
                    middle([r["seconds"] for r in rows], 1),
                    middle([r["memory_mb"] for r in rows], 0),
                )
            )
        title = task
        if rates:
            title += f"; {rates['ours']:.0f} images/s, torch {rates['torch']:.0f}"
            title += f" ({rates['ours'] / rates['torch']:.1f} times)"
        found.append(Table(title, ("", "accuracy, %", "fit, s", "memory, MB"), lines))
    return found


def save(args: argparse.Namespace, results: list[dict[str, Any]], known: dict[str, Any]) -> None:
    """Write what there is."""
    roots = "" if args.power == 1.0 else f" to the power of {args.power:g}"
    notes = [
        f"Features of {BACKBONE}{roots}, images cut and resized as its weights' own evaluation "
        "does; all rows are fitted on standardised features.",
        "Seconds and memory include the choice of a strength, where there is one; accuracy is the "
        "mean over the seeds, seconds and memory the median.",
        "Bars: cats vs dogs 97.5% with 8,000 training images, 97% with 2,000; malaria at least the "
        "best rival's. One of 2,000 test images is 0.05 points, and the standard error of 98% on "
        "them is 0.3: rows that are tenths apart are equal.",
        "CIFAR-10 here is a copy in JPEG, so figures can differ from those on the original.",
    ]
    write_result(
        args, TITLE + roots.replace(" to", ", features to"), tables(results), results, known, notes
    )


if __name__ == "__main__":
    main()
