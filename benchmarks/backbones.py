"""A real backbone: images a second, and the last layer on it beside its rivals.

Features of EfficientNet-Lite0 (`rankwise[backbones]`), extracted twice in the same run: by a plain
loop of torch, and as the package does it. Then every row on the same kept features, a fifth held
out for the test, of malaria by slide, anew for each seed; strengths are chosen on training images
only. Seconds are of the fit alone.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --quick
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import (
    SEEDS,
    Table,
    argument_parser,
    describe,
    earlier,
    middle,
    percent,
    say,
    timed,
    write_result,
)
from rankwise import VarProHead
from rankwise.data import ImageSet, load_images
from rankwise.data.split import hold_out_by_source
from rankwise.heads.backbones import load_backbone
from rankwise.heads.features import extract_features, to_float_batch

TITLE = "A last layer on a backbone that has seen ImageNet"
SOURCES = {"cats_vs_dogs": None, "malaria": r"^([^_]+)_", "cifar10": None, "fashion_mnist": None}
BACKBONE = "efficientnet-lite0"
ALPHAS = np.logspace(-2, 5, 28)


def _scaled(model: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


def _chosen(grid: dict[str, list[Any]], model: Any) -> Any:
    from sklearn.model_selection import GridSearchCV

    return _scaled(GridSearchCV(model, grid, cv=3))


def _rows() -> dict[str, Callable[[], Any]]:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.svm import LinearSVC

    return {
        "VarProHead": VarProHead,
        "VarProHead, GCV": lambda: VarProHead("gcv"),
        "VarProHead, logistic": lambda: VarProHead(loss="logistic"),
        "nearest class mean": lambda: _scaled(NearestCentroid()),
        "k-NN, k chosen": lambda: _chosen({"n_neighbors": [1, 5, 15]}, KNeighborsClassifier()),
        "shrunken LDA": lambda: _scaled(LinearDiscriminantAnalysis("lsqr", "auto")),
        "RidgeClassifierCV": lambda: _scaled(RidgeClassifierCV(ALPHAS)),
        "LogisticRegression, C=1": lambda: _scaled(LogisticRegression(max_iter=1000)),
        "LogisticRegression, C chosen": lambda: _chosen(
            {"C": [1e-4, 1e-3, 1e-2, 1e-1]}, LogisticRegression(max_iter=1000)
        ),
        "LinearSVC, C chosen": lambda: _chosen({"C": [1e-5, 1e-4, 1e-3]}, LinearSVC()),
    }


def main() -> None:
    """Each set: the speed of its features once, then every row and seed."""
    parser = argument_parser(__doc__, "backbones", SEEDS, resumable=True)
    parser.add_argument("--sets", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--limit", type=int, help="training and test images, drawn by class")
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    args = parser.parse_args()
    sets = ["digits"] if args.quick else args.sets
    images = {name: read(args, name) for name in sets}
    backbone = load_backbone(BACKBONE)
    same = {"data": describe(*images.values()), "backbone": backbone.fingerprint}
    results = earlier(args, same)
    seeds = args.seeds[:1] if args.quick else args.seeds
    known = same | {"seeds": seeds, "threads": torch.get_num_threads()}
    for name, data in images.items():
        if not any(r["set"] == name and r["row"] == "features" for r in results):
            say(f"{name}: images a second")
            results.append(speed(name, backbone, data, 32 if args.quick else 128))
        features = np.asarray(extract_features(backbone, data, cache=args.cache, progress=True))
        for seed in seeds:
            for row, make in _rows().items():
                if any((r["set"], r["row"], r.get("seed")) == (name, row, seed) for r in results):
                    continue
                say(f"{name}, seed {seed}: {row}")
                results.append(
                    {"set": name, "row": row, "seed": seed} | measure(make(), data, features, seed)
                )
                save(args, results, known)
    save(args, results, known)
    for table in tables(results):
        print(table.text(), end="\n\n")


def read(args: argparse.Namespace, name: str) -> ImageSet:
    """All images of a set, or some."""
    if args.quick:
        return load_images("digits", split="all", limit=120)
    source = str(Path(args.data) / name)
    return load_images(source, split="all", limit=args.limit, source_pattern=SOURCES[name])


def speed(name: str, backbone: Any, data: ImageSet, n: int) -> dict[str, Any]:
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
    rates = {key: len(part) / min(values) for key, values in seconds.items()}
    return {"set": name, "row": "features", "rates": rates}


def measure(model: Any, data: ImageSet, features: np.ndarray, seed: int) -> dict[str, Any]:
    """Test accuracy and seconds of one row."""
    train, test = hold_out_by_source(data.labels, data.source_ids, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iteration limits, which some strengths meet
        begin = time.perf_counter()
        model.fit(features[train], data.labels[train])
        seconds = time.perf_counter() - begin
        return {
            "seconds": seconds,
            "accuracy": float(model.score(features[test], data.labels[test])),
            "n_train": len(train),
        }


def tables(results: list[dict[str, Any]]) -> list[Table]:
    """One a data set."""
    found = []
    for name in dict.fromkeys(r["set"] for r in results):
        own = [r for r in results if r["set"] == name]
        rates = next((r["rates"] for r in own if r["row"] == "features"), None)
        lines = []
        for row in dict.fromkeys(r["row"] for r in own if r["row"] != "features"):
            rows = [r for r in own if r["row"] == row]
            accuracy = percent([r["accuracy"] for r in rows])
            lines.append((row, accuracy, middle([r["seconds"] for r in rows], 2)))
        title = name
        if rates:
            title += f"; {rates['ours']:.0f} images/s, torch {rates['torch']:.0f}"
            title += f" ({rates['ours'] / rates['torch']:.1f} times)"
        found.append(Table(title, ("", "accuracy, %", "fit, s"), lines))
    return found


def save(args: argparse.Namespace, results: list[dict[str, Any]], known: dict[str, Any]) -> None:
    """Write what there is."""
    notes = [
        f"Features of {BACKBONE}, images cut and resized as its weights' own evaluation does.",
        "Bars: twice torch's images a second; cats vs dogs 97.5% with 8,000 training images, 97% "
        "with 2,000 (--limit 2500).",
    ]
    write_result(args, TITLE, tables(results), results, known, notes)


if __name__ == "__main__":
    main()
