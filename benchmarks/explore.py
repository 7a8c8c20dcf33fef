"""Faults that were planted: what the explorer finds of them, and what cleanlab's Datalab does.

Of MNIST's and of the cats' and dogs' training images some get wrong labels (1%), some are there
twice (1% the same pixels, 1% nearly the same: JPEG, darker, noise), and some test images are copies
of training images (1% of these). What is looked at: the share of the wrong labels among the first
1% and 2% of the list, and the share of copies that are in one group with their originals.

Datalab gets the same features and, as its manual asks, probabilities of held-out folds (logistic
regression, 5 folds). MNIST's features are those of a network that was trained on the wrong labels
too; the cats' and dogs' are a backbone's. Last, the time of a page of 10,000 images of 32×32 beyond
prediction.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import (
    SEEDS,
    Table,
    argument_parser,
    describe,
    middle,
    percent,
    say,
    timed,
    write_result,
)
from rankwise import QuadraticClassifier
from rankwise.data import ImageSet, load_images
from rankwise.estimators.options import classifier_of
from rankwise.explore import faults
from rankwise.explore.findings import find
from rankwise.explore.page import About, write_page
from rankwise.explore.seen import Seen, left_out, seen, unit_features
from rankwise.heads.backbones import load_backbone
from rankwise.heads.features import extract_features

SHARE = 0.01
BACKBONE = "efficientnet-lite0"


def main() -> None:
    parser = argument_parser(__doc__, "explore", SEEDS)
    parser.add_argument("--limit", type=int, default=10_000, help="MNIST's training images")
    parser.add_argument("--photos", type=int, default=2_000, help="cats' and dogs'")
    parser.add_argument("--cache", type=Path, help="folder that keeps the backbone's features")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    used: list[ImageSet] = []
    names = ["digits"] if args.quick else ["mnist", "cats_vs_dogs"]
    for name in names:
        limit = {"mnist": args.limit, "cats_vs_dogs": args.photos}.get(name)
        source = "digits" if args.quick else str(Path(args.data) / name)
        train = load_images(source, "train", limit=limit)
        test = load_images(source, "test", limit=limit)
        used += [train, test]
        for seed in args.seeds:
            say(f"{name}, seed {seed}")
            results.append({"set": name, "seed": seed} | one_run(name, train, test, seed, args))
    tables = [table(name, [r for r in results if r["set"] == name]) for name in names]
    speed = page_seconds(args)
    tables.append(speed_table(speed))
    for each in tables:
        print(each.text())
        print()
    known = {"sets": describe(*used), "seeds": args.seeds, "datalab": datalab_version()}
    notes = [
        "Datalab gets the same features, and probabilities of 5 held-out folds (logistic "
        "regression), whose seconds are counted with it.",
        "Seconds were measured while other programs ran; those of the CPU are the program's own.",
        "Photographs: the labels as they came may be wrong too; only planted ones count.",
    ]
    data = {"faults": results, "page": speed}
    write_result(args, "Planted faults that are found", tables, data, known, notes)


def one_run(
    name: str, train: ImageSet, test: ImageSet, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Plant, look, and let Datalab look."""
    rng = np.random.default_rng(seed)
    k, n = train.n_classes, len(train)
    truth = train.labels.copy()
    wrong = rng.choice(n, round(SHARE * n), replace=False)
    truth[wrong] = (truth[wrong] + rng.integers(1, k, len(wrong))) % k
    copied = rng.choice(n, 3 * round(SHARE * n), replace=False)
    exact, near, across = np.split(copied, 3)
    copies = [train.images[exact], np.stack([nearly(train.images[i], rng) for i in near])]
    images = np.concatenate([train.images, *copies])
    labels = np.concatenate([truth, truth[exact], truth[near]])
    test_images = np.concatenate([test.images, train.images[across]])
    test_labels = np.concatenate([test.labels, truth[across]])
    features, test_features = features_of(
        name, train, test, images, labels, test_images, seed, args
    )
    parts = [
        part_of("train", images, labels, train.class_names, features),
        part_of("test", test_images, test_labels, train.class_names, test_features),
    ]

    class Known:
        """As much of a model as the left-out layer needs."""

        classes_ = np.array(train.class_names)

    everything = np.concatenate([images, test_images])
    where = np.repeat(["train", "test"], [len(images), len(test_images)])
    given = np.concatenate([labels, test_labels])
    repeat_seconds, groups = timed(lambda: faults.repeated(everything, where, given))
    begin = time.perf_counter()
    found = faults.wrong_labels(left_out(Known, parts, groups), given)
    label_seconds = time.perf_counter() - begin
    order = found.rows[found.rows < len(images)]
    group_of = {row: g for g, group in enumerate(groups) for row in group["rows"]}
    placed = {
        "exact": (exact, n + np.arange(len(exact))),
        "near": (near, n + len(exact) + np.arange(len(near))),
        "across": (across, len(images) + len(test) + np.arange(len(across))),
    }
    # The copies of a wrongly labelled image count with it.
    bad = np.flatnonzero(np.isin(np.arange(len(images)), wrong))
    bad = np.concatenate(
        [bad, *(rows[np.isin(of, wrong)] for of, rows in list(placed.values())[:2])]
    )
    first = round(SHARE * len(images))
    result = {
        "n": len(everything),
        "labels_1": share_of(bad, order[:first]),
        "labels_2": share_of(bad, order[: 2 * first]),
        "label_seconds": label_seconds,
        "repeat_seconds": repeat_seconds,
        "groups": len(groups),
        **{
            key: float(
                np.mean(
                    [
                        group_of.get(a, -1) == group_of.get(b, -2)
                        for a, b in zip(of, rows, strict=True)
                    ]
                )
            )
            for key, (of, rows) in placed.items()
        },
    }
    return result | datalab(
        features, labels, bad, first, {k: placed[k] for k in ("exact", "near")}, seed
    )


def share_of(wanted: np.ndarray, rows: np.ndarray) -> float:
    return float(np.isin(wanted, rows).mean())


def nearly(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same picture again: through JPEG, darker, or with a little noise."""
    from PIL import Image

    kind = rng.integers(3)
    if kind == 0:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=75)
        return np.asarray(Image.open(buffer))
    if kind == 1:
        return np.clip(0.8 * image + 10.0, 0, 255).astype(np.uint8)
    return np.clip(image + rng.normal(0.0, 6.0, image.shape), 0, 255).astype(np.uint8)


def part_of(
    part: str, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...], features: np.ndarray
) -> Seen:
    empty = np.zeros((len(labels), len(names)))
    return Seen(part, ImageSet.from_arrays(images, labels, names), labels, features, empty, empty)


def features_of(
    name: str,
    train: ImageSet,
    test: ImageSet,
    images: np.ndarray,
    labels: np.ndarray,
    test_images: np.ndarray,
    seed: int,
    args: argparse.Namespace,
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the training and test images, copies included."""
    if name == "cats_vs_dogs":
        backbone = load_backbone(BACKBONE)
        kept = [extract_features(backbone, part, cache=args.cache) for part in (train, test)]
        more = [extract_features(backbone, images[len(train) :])]
        more.append(extract_features(backbone, test_images[len(test) :]))
        return tuple(np.concatenate(pair) for pair in zip(kept, more, strict=True))  # type: ignore[return-value]
    if name == "digits":
        model: Any = QuadraticClassifier(n_units=200, n_subnets=2, max_iter=5, random_state=seed)
    else:
        model = classifier_of("tiny", max_iter=5, random_state=seed)
    model.fit(images, labels)
    return unit_features(model.network_, images), unit_features(model.network_, test_images)


def datalab(
    features: np.ndarray,
    labels: np.ndarray,
    bad: np.ndarray,
    first: int,
    placed: dict[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> dict[str, Any]:
    """What cleanlab's Datalab finds among the training images; nothing where it isn't installed."""
    if datalab_version() is None:
        return {}
    import contextlib

    from cleanlab import Datalab
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    begin = time.perf_counter()
    layer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    shares = cross_val_predict(layer, features, labels, cv=folds, method="predict_proba")
    folded = time.perf_counter()
    lab = Datalab({"label": labels}, label_name="label", verbosity=0)
    with contextlib.redirect_stdout(io.StringIO()):
        lab.find_issues(
            features=np.asarray(features, float),
            pred_probs=shares,
            issue_types={"label": {}, "near_duplicate": {}},
        )
    done = time.perf_counter()
    order = np.argsort(lab.get_issues("label")["label_score"].to_numpy(), kind="stable")
    near = lab.get_issues("near_duplicate")
    sets = [set(map(int, s)) for s in near["near_duplicate_sets"]]
    return {
        "datalab_labels_1": share_of(bad, order[:first]),
        "datalab_labels_2": share_of(bad, order[: 2 * first]),
        "datalab_seconds": done - folded,
        "datalab_fold_seconds": folded - begin,
        "datalab_flagged": int(near["is_near_duplicate_issue"].sum()),
        **{
            f"datalab_{key}": float(
                np.mean([a in sets[b] or b in sets[a] for a, b in zip(of, rows, strict=True)])
            )
            for key, (of, rows) in placed.items()
        },
    }


def datalab_version() -> str | None:
    """The version of cleanlab, or None."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cleanlab")
    except PackageNotFoundError:
        return None


def page_seconds(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes of a page of 10,000 images of 32×32, scored alone; or of the digits."""
    if args.quick:
        images = load_images("digits", "all")
        model: Any = QuadraticClassifier(n_units=60, n_subnets=2, max_iter=2, random_state=0)
        model.fit(images.images[:500], np.array(images.class_names)[images.labels[:500]])
    else:
        images = load_images(str(Path(args.data) / "cifar10"), "test")
        some = load_images(str(Path(args.data) / "cifar10"), "train", limit=2000)
        model = classifier_of("tiny", max_iter=1, random_state=0)
        model.fit(some.images, np.array(some.class_names)[some.labels])
    predicting, part = timed(lambda: seen(model, images, "test"))
    seconds, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.html"
        for _ in range(1 if args.quick else 3):
            before = time.process_time()
            took, size = timed(lambda: write_page(model, find(model, [part]), About("p", []), path))
            seconds.append(took)
            cpu.append(time.process_time() - before)
    shape = "×".join(map(str, images.image_shape))
    return {
        "images": len(images), "shape": shape, "predicting": predicting, "seconds": seconds,
        "cpu_seconds": cpu, "bytes": size,
    }  # fmt: skip


def table(name: str, results: list[dict[str, Any]]) -> Table:
    """Shares found, ours and Datalab's."""

    def row(title: str, key: str) -> tuple[str, str, str]:
        other = [r[f"datalab_{key}"] for r in results if f"datalab_{key}" in r]
        return title, percent([r[key] for r in results], 1), percent(other, 1) if other else "–"

    rows = [
        row("wrong labels in the first 1%", "labels_1"),
        row("wrong labels in the first 2%", "labels_2"),
        row("copies of the same pixels", "exact"),
        row("copies nearly the same", "near"),
        row("copies across the parts", "across"),
    ]
    ours = [r["label_seconds"] + r["repeat_seconds"] for r in results]
    theirs = [
        r["datalab_seconds"] + r["datalab_fold_seconds"] for r in results if "datalab_seconds" in r
    ]
    rows.append(("seconds", middle(ours, 1), middle(theirs, 1) if theirs else "–"))
    flagged = [r["datalab_flagged"] for r in results if "datalab_flagged" in r]
    groups = [float(r["groups"]) for r in results]
    rows.append(
        (
            "groups / images called repeats",
            middle(groups, 0),
            middle(flagged, 0) if flagged else "–",
        )
    )
    return Table(
        f"{name}: found, % ({results[0]['n']:,} images)", ("planted", "explorer", "Datalab"), rows
    )


def speed_table(speed: dict[str, Any]) -> Table:
    """What a page takes."""
    row = (
        f"{speed['images']:,} of {speed['shape']}",
        f"{speed['predicting']:.1f}",
        middle(speed["seconds"], 1),
        middle(speed["cpu_seconds"], 1),
        f"{speed['bytes'] / 1e6:.1f}",
    )
    columns = ("images", "predicting, s", "the rest, s", "of the CPU, s", "MB")
    return Table("A page", columns, [row])


if __name__ == "__main__":
    main()
