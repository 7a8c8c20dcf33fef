r"""Accuracy against parameters, bytes, microseconds and seconds of training: what to choose.

Our presets at 1 to 450 thousand parameters, the sub-networks of the paper's scheme, logistic
regression, an MLP, gradient boosting, and rivals at 5, 20, 100 and 450 thousand: a plain CNN, a
depthwise-separable one and ResNet-20 scaled to the size, in one run on the same images. Rivals are
trained by the very same code as our preset of the size: same batches, images moved by the same
rule, smoothing, schedule, precision, epochs or minutes, by AdamW at the best of three learning
rates by validation, each with all of the minutes, chosen with the first seed (their seconds are of
the best alone). Prediction is timed on one thread in batches of 500, all by the same code,
normalisation folded in. Bytes are those of float32 weights; of convolutional networks also
those of an int8 export, with the accuracy that it has. The test images are read once for each row.
Finished rows are kept; the picture is drawn from the result file.

    python benchmarks/curve.py --minutes 1                        # MNIST, about 90 minutes
    python benchmarks/curve.py --dataset cifar10 --minutes 8      # about 11 hours
    python benchmarks/curve.py --dataset photographs-64 --minutes 2   # 1600 cats and dogs
    python benchmarks/curve.py --draw      # docs/images/curve.png, from the result file
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import (
    SEEDS,
    Table,
    argument_parser,
    data_sets,
    describe,
    earlier,
    percent,
    result_path,
    say,
    timed,
    to_measure,
    write_result,
)
from curve_models import RATES, Convolutional, RivalNetwork, plain, resnet, separable
from curve_picture import MEASURES, OTHER, OURS, PAPER, PLAIN, RESNET, SEPARABLE, differ, draw
from graph_runner import GraphRunner
from rankwise._memory import keep_freed_memory
from rankwise._threads import one_thread
from rankwise.data import ImageSet, load_images
from rankwise.data.split import stratified_limit
from rankwise.estimators.options import classifier_of
from rankwise.export.quantise import quantise
from rankwise.networks.graph import (
    arrays_of,
)
from rival_models import Rankwise, boosting, logistic, mlp

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "curve.png"
TITLE = "Accuracy against size and time"
MEASURED = (
    "accuracy",
    "n_parameters",
    "bytes",
    "int8_bytes",
    "int8_accuracy",
    "microseconds",
    "fit_seconds",
)
RIVALS = {PLAIN: plain, SEPARABLE: separable, RESNET: resnet}
SIZES_OF_RIVALS = {5: "tiny", 20: "small", 100: "accurate", 450: "wide"}
"""Thousands of parameters at most, and whose recipe."""
PHOTOGRAPHS = {"photographs-64": 64, "photographs-96": 96}
"""Cats and dogs, as few as somebody has, by the side they are brought to, pixels."""
_ON_PHOTOGRAPHS = ("accurate", "plain-186k")
_IMAGES, _PHOTOGRAPHS, _TEST_IMAGES = 24_000, 1600, 10_000


@dataclass(frozen=True)
class Row:
    """One point of the curve: its label, its kind, and what makes it."""

    label: str
    kind: str
    make: Callable[..., Any]


def ours(preset: str, **options: Any) -> Callable[..., Any]:
    """A preset, at its own size or another."""

    def make(seed: int, args: Any, rate: float | None) -> Rankwise:
        known = dict(options)
        if preset != "windowed":
            known |= given(args)
        kind = Rankwise if preset == "windowed" else Convolutional
        return kind(classifier_of(preset, n_jobs=args.workers, random_state=seed, **known))

    return make


def given(args: Any) -> dict[str, Any]:
    """Epochs or minutes, and the precision, of all convolutional networks."""
    if args.minutes is None:
        return {"max_iter": args.epochs, "precision": "auto"}
    return {"time_budget": args.minutes, "precision": "auto"}


def rival(kind: str, thousands: int) -> Callable[..., Any]:
    """One of `RIVALS` at a size, at the rate that an earlier seed has chosen, or at each."""

    def make(seed: int, args: Any, rate: float | None) -> RivalNetwork:
        preset = SIZES_OF_RIVALS.get(thousands, "accurate")
        rates = RATES if rate is None else (rate,)
        most, options = 1000 * thousands, given(args)
        return RivalNetwork(RIVALS[kind], most, preset, options, seed, args.workers, rates)

    return make


def other(maker: Any) -> Callable[..., Any]:
    """One of `rival_models`."""
    return lambda seed, args, rate: maker(seed, args.quick)


ROWS = {
    "nano": Row("nano", OURS, ours("nano")),
    "tiny": Row("tiny", OURS, ours("tiny")),
    "small-half": Row("small, 160 units", OURS, ours("small", n_units=160)),
    "small": Row("small", OURS, ours("small")),
    "accurate-half": Row("accurate, 376 units", OURS, ours("accurate", n_units=376)),
    "accurate": Row("accurate", OURS, ours("accurate")),
    "wide": Row("wide, 1,648 units", OURS, ours("wide", n_units=1648)),
    **{
        f"{kind.split()[0].split('-')[0].lower()}-{n}k": Row(f"{kind}, {n}k", kind, rival(kind, n))
        for kind in RIVALS
        for n in SIZES_OF_RIVALS
    },
    "plain-186k": Row(f"{PLAIN}, 186k", PLAIN, rival(PLAIN, 186)),
    "windowed-500": Row("windowed, 500 units", PAPER, ours("windowed", n_units=500, n_subnets=10)),
    "windowed-2000": Row(
        "windowed, 2000 units", PAPER, ours("windowed", n_units=2000, n_subnets=40)
    ),
    "logistic": Row("logistic regression", OTHER, other(logistic())),
    "mlp": Row("MLP, 800 hidden units", OTHER, other(mlp())),
    "boosting": Row("gradient boosting", OTHER, other(boosting())),
}


def main() -> None:
    """Measure every row that isn't there yet, or draw."""
    parser = argument_parser(__doc__, "curve", SEEDS, resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS))
    parser.add_argument("--dataset", choices=["mnist", "cifar10", *PHOTOGRAPHS], default="mnist")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--minutes", type=float, help="of a convolutional row, instead of epochs")
    parser.add_argument(
        "--images",
        type=int,
        help=f"training images, by class; default {_IMAGES}, of photographs {_PHOTOGRAPHS}",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--draw", action="store_true", help="draw the picture and stop")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    keep_freed_memory()  # as `rankwise train` does
    if args.dataset != "mnist":
        args.name = f"curve_{args.dataset.replace('-', '_')}"
        if args.picture == PICTURE:
            args.picture = PICTURE.with_stem(args.name)
    if args.draw:
        results = json.loads(result_path(args).read_text(encoding="utf-8"))["data"]
        draw(points(results), args.picture)
        return
    on_photographs = args.dataset in PHOTOGRAPHS
    usual = _ON_PHOTOGRAPHS if on_photographs else [r for r in ROWS if r != "plain-186k"]
    args.rows = args.rows or list(usual)
    args.images = args.images or (_PHOTOGRAPHS if on_photographs else _IMAGES)
    if args.quick:
        args.seeds, args.epochs = args.seeds[:1], 1
        args.rows = [r for r in args.rows if ROWS[r].kind != PAPER]
    train, test = images_of(args)
    if args.images < len(train):
        train = train.subset(stratified_limit(train.labels, args.images, seed=42))
    same = {"data": describe(train, test), "epochs": args.epochs, "workers": args.workers}
    same |= {"minutes": args.minutes}
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        earlier_rates = [r["learning_rate"] for r in results if r["row"] == key]
        rate = earlier_rates[0] if earlier_rates else None
        results.append(measure(args, key, seed, rate, train, test))
        keep(args, results, same)
    keep(args, results, same)  # also where every row was there: the tables may be newer
    for found in tables(results):
        print(found.text(), end="\n\n")
    for note in notes(results, len(test)):
        print(note)


def images_of(args: Any) -> tuple[ImageSet, ImageSet]:
    """Training and test images; of photographs a fifth is held out."""
    if args.quick or args.dataset not in PHOTOGRAPHS:
        return data_sets(args, args.dataset)
    source, side = Path(args.data) / "cats_vs_dogs", PHOTOGRAPHS[args.dataset]
    train, test = (load_images(source, split=part, size=side) for part in ("train", "test"))
    return train, test


def keep(args: Any, results: list[dict[str, Any]], same: dict[str, Any]) -> None:
    """Write what has been measured so far."""
    seeds = {"seeds": sorted({r["seed"] for r in results})}
    known = same | seeds | {"spread": "mean (min–max) over the seeds"}
    said = notes(results, same["data"][1]["n"])
    write_result(args, TITLE, tables(results), results, known, said)


def measure(
    args: Any, key: str, seed: int, rate: float | None, train: ImageSet, test: ImageSet
) -> dict[str, Any]:
    """Fit, then read the test images once, then time prediction on images of the training set."""
    model = ROWS[key].make(seed, args, rate)
    seconds, _ = timed(lambda: model.fit(train.images, train.labels))
    seconds = getattr(model, "fit_seconds", seconds)
    accuracy = float(np.mean(model.predict(test.images) == test.labels))
    batch = train.images[:500]
    with one_thread():
        model.predict(batch)
        fastest = min(timed(lambda: model.predict(batch))[0] for _ in range(5))
    say(f"  {100 * accuracy:.2f}%, {model.n_parameters:,} parameters, {seconds:.0f} s")
    return rounded(model, test) | {
        "row": key,
        "kind": ROWS[key].kind,
        "label": ROWS[key].label,
        "seed": seed,
        "accuracy": accuracy,
        "n_parameters": model.n_parameters,
        "bytes": 4 * model.n_parameters,
        "microseconds": 1e6 * fastest / len(batch),
        "fit_seconds": seconds,
        "learning_rate": getattr(model, "learning_rate", None),
    }


def rounded(model: Any, test: ImageSet) -> dict[str, Any]:
    """Bytes of a convolutional network's weights in int8, and its accuracy with them."""
    if not isinstance(model, Convolutional | RivalNetwork):
        return {"int8_bytes": None, "int8_accuracy": None}
    quantised = quantise(model.graph(), "int8")
    found = GraphRunner(quantised.rounded()).predict(test.images)
    return {
        "int8_bytes": sum(quantised.of(a).nbytes for a in arrays_of(quantised.graph.ops)),
        "int8_accuracy": float(np.mean(found == test.labels)),
    }


def points(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a row: means over the seeds."""
    found = []
    for key in dict.fromkeys(r["row"] for r in results):
        runs = [r for r in results if r["row"] == key]
        numbers = [k for k, v in runs[0].items() if k in MEASURED and v is not None]
        found.append(runs[0] | {k: float(np.mean([r[k] for r in runs])) for k in numbers})
    return found


def tables(results: list[dict[str, Any]]) -> list[Table]:
    """Every row; then ours beside the best rivals of the same size."""
    compared = same_size(results)
    return [table(results), *([compared] if compared.rows else [])]


def table(results: list[dict[str, Any]]) -> Table:
    """Every row, by kind, the smallest first."""
    lines = []
    order = [OURS, *RIVALS, PAPER, OTHER]
    for p in sorted(points(results), key=lambda p: (order.index(p["kind"]), p["n_parameters"])):
        runs = [r["accuracy"] for r in results if r["row"] == p["row"]]
        lines.append(
            (
                p["label"],
                percent(runs),
                f"{p['n_parameters']:,.0f}",
                f"{p['bytes'] / 1024:,.1f}",
                "–" if p["int8_bytes"] is None else f"{p['int8_bytes'] / 1024:,.1f}",
                "–" if p["int8_accuracy"] is None else f"{100 * p['int8_accuracy']:.2f}",
                f"{p['microseconds']:.0f}",
                f"{p['fit_seconds']:.0f}",
            )
        )
    columns = ("model", "test, %", "params", "KiB", "int8, KiB", "int8, %", "µs/image", "fit, s")
    return Table(TITLE, columns, lines)


LESS = "Ours less the best rival of the same size, points of accuracy"
SIZES = dict(
    zip(MEASURES, ("parameters", "int8 bytes", "µs/image", "seconds of training"), strict=True)
)


def error_at(found: list[dict[str, Any]], kind: str, size: str, here: float) -> float | None:
    """The error of a kind of rival at a size, on the line between two measured ones.

    Above its largest that one's: whoever has room for more may take it.
    """
    theirs = sorted((p for p in found if p["kind"] == kind), key=lambda p: p[size])
    sizes = np.log([p[size] for p in theirs])
    if len(theirs) < 2 or np.log(here) < sizes[0]:
        return None
    errors = np.log([max(1 - p["accuracy"], 1e-6) for p in theirs])
    return float(np.exp(np.interp(np.log(here), sizes, errors)))


def of_convolutions(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours and the rivals."""
    return [p for p in found if p["kind"] in (OURS, *RIVALS)]


def best_rivals(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each of ours the best rival by each size that differs, and the difference to it."""
    found, compared = points(results), []
    sizes = [size for size in SIZES if differ(of_convolutions(found), size)]
    for p in sorted((p for p in found if p["kind"] == OURS), key=lambda p: p["n_parameters"]):
        for size in sizes:
            errors = {kind: error_at(found, kind, size, p[size]) for kind in RIVALS}
            known = {kind: error for kind, error in errors.items() if error is not None}
            if known:
                kind = min(known, key=lambda k: known[k])
                gain = 100 * (p["accuracy"] - (1 - known[kind]))
                compared.append({"label": p["label"], "size": size, "rival": kind, "gain": gain})
    return compared


def same_size(results: list[dict[str, Any]]) -> Table:
    """Ours less the best rival of the same size, in points of accuracy."""
    compared = best_rivals(results)
    sizes = {size: name for size, name in SIZES.items() if size in {c["size"] for c in compared}}
    lines = []
    for label in dict.fromkeys(c["label"] for c in compared):
        here = {c["size"]: c["gain"] for c in compared if c["label"] == label}
        lines.append((label, *(f"{here[s]:+.2f}" if s in here else "–" for s in sizes)))
    return Table(LESS, ("model", *sizes.values()), lines)


def interval(results: list[dict[str, Any]], n_test: int = _TEST_IMAGES) -> float:
    """Points within which two rows are alike: two deviations over the seeds of the median row.

    At least one deviation of an accuracy of so many test images, as one seed or few may agree by
    chance.
    """
    by_row = {r["row"]: [q["accuracy"] for q in results if q["row"] == r["row"]] for r in results}
    deviations = [100 * np.std(runs, ddof=1) for runs in by_row.values() if len(runs) > 1]
    usual = float(np.median([r["accuracy"] for r in results]))
    of_images = 100 * float(np.sqrt(usual * (1 - usual) / n_test))
    return max(of_images, 2 * float(np.median(deviations)) if deviations else 0.0)


def notes(results: list[dict[str, Any]], n_test: int = _TEST_IMAGES) -> list[str]:
    """Which of ours is ahead of the best rival, by each size that differs; else what to take."""
    compared, alike = best_rivals(results), interval(results, n_test)
    said = [
        "A rival of the same size has the error on the line between two measured ones of its kind, "
        "both axes logarithmic, above the largest that one's; – where none was measured that is as "
        "small."
    ]
    for size, name in SIZES.items():
        cells = [c for c in compared if c["size"] == size]
        parts = {
            "ahead of the best rival": [_named(c) for c in cells if c["gain"] > alike],
            f"alike (within {alike:.2f} points)": [
                _named(c) for c in cells if abs(c["gain"]) <= alike
            ],
            "behind the best rival": [
                f"{_named(c)} ({c['rival']})" for c in cells if c["gain"] < -alike
            ],
        }
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
        if listed:
            said.append(f"By {name}: {listed}.")
    return [*said, *at_equal_seconds(results, alike)]


def _named(cell: dict[str, Any]) -> str:
    preset, _, units = cell["label"].partition(", ")
    return f"`{preset}` with {units}" if units else f"`{preset}`"


def at_equal_seconds(results: list[dict[str, Any]], alike: float) -> list[str]:
    """Where all take about as long: the best of ours and the best rival, whatever the size."""
    found = of_convolutions(points(results))
    ours = [p for p in found if p["kind"] == OURS]
    if len(ours) == len(found) or not ours or differ(found, "fit_seconds"):
        return []
    mine, theirs = (
        max((p for p in found if (p["kind"] == OURS) is own), key=lambda p: p["accuracy"])
        for own in (True, False)
    )
    gain = 100 * (mine["accuracy"] - theirs["accuracy"])
    said = f"within {alike:.2f} points of"
    if abs(gain) > alike:
        said = "ahead of" if gain > 0 else "behind"
    return [
        f"By seconds of training, about the same for all: {mine['label']} "
        f"({100 * mine['accuracy']:.2f}%), the best of ours, is {said} the best rival, "
        f"{theirs['label']} ({100 * theirs['accuracy']:.2f}%)."
    ]


if __name__ == "__main__":
    main()
