"""Accuracy against parameters, bytes and microseconds an image: what to choose for a phone.

Our presets at several sizes, the sub-networks of the paper's scheme, logistic regression, an MLP,
gradient boosting, and plain CNNs of 2 K to 200 K parameters, in one run on the same images. The
CNNs have our convolutional layers with dense filters, and are trained by the very same code: same
batches, moved images, schedule, epochs, with the better of two learning rates by validation
(their seconds count both; ours have one for all sizes). Prediction is timed on one thread in
batches of 500; both kinds of convolutional networks predict by the same code, normalisation folded
in. Bytes are those of float32 weights; of these networks also those of an int8 export, with the
accuracy that it has. The test images are read once for each row.
Finished rows are kept; the picture is drawn from the result file. Training images and epochs are
fewer than the presets' own, so that a seed takes some ten minutes on two cores: `accurate.py`
measures the presets at their full length.

    python benchmarks/curve.py
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
from curve_models import Convolutional, DenseNetwork
from graph_runner import GraphRunner
from rankwise._threads import one_thread
from rankwise.data import ImageSet
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
OURS, PAPER, DENSE, OTHER = "ours, convolutional", "ours, sub-networks", "CNN", "other"


@dataclass(frozen=True)
class Row:
    """One point of the curve: its label, its kind, and what makes it."""

    label: str
    kind: str
    make: Callable[[int, Any], Any]


def ours(preset: str, **options: Any) -> Callable[[int, Any], Any]:
    """A preset, at its own size or another."""

    def make(seed: int, args: Any) -> Rankwise:
        known = dict(options)
        if preset != "windowed":
            known |= {"max_iter": args.epochs}
        kind = Rankwise if preset == "windowed" else Convolutional
        return kind(classifier_of(preset, n_jobs=args.workers, random_state=seed, **known))

    return make


def dense(maps: tuple[int, ...], pool: tuple[int, ...]) -> Callable[[int, Any], Any]:
    """A CNN with dense filters."""
    return lambda seed, args: DenseNetwork(maps, pool, seed, args.epochs, args.workers)


def other(maker: Any) -> Callable[[int, Any], Any]:
    """One of `rival_models`."""
    return lambda seed, args: maker(seed, args.quick)


ROWS = {
    "tiny-half": Row("tiny, 46 units", OURS, ours("tiny", n_units=46)),
    "tiny": Row("tiny", OURS, ours("tiny")),
    "small-half": Row("small, 104 units", OURS, ours("small", n_units=104)),
    "small": Row("small", OURS, ours("small")),
    "accurate-half": Row("accurate, 176 units", OURS, ours("accurate", n_units=176)),
    "accurate": Row("accurate", OURS, ours("accurate")),
    "windowed-500": Row("windowed, 500 units", PAPER, ours("windowed", n_units=500, n_subnets=10)),
    "windowed-2000": Row(
        "windowed, 2000 units", PAPER, ours("windowed", n_units=2000, n_subnets=40)
    ),
    "cnn-2k": Row("CNN 6-8-8-8", DENSE, dense((6, 8, 8, 8), (2, 1, 2, 2))),
    "cnn-5k": Row("CNN 8-12-12-16", DENSE, dense((8, 12, 12, 16), (2, 1, 2, 2))),
    "cnn-17k": Row("CNN 12-24-24-32", DENSE, dense((12, 24, 24, 32), (2, 1, 2, 2))),
    "cnn-70k": Row("CNN 16-32-32-64-64", DENSE, dense((16, 32, 32, 64, 64), (2, 1, 2, 1, 2))),
    "cnn-200k": Row("CNN 32-64-112-112", DENSE, dense((32, 64, 112, 112), (2, 2, 1, 2))),
    "logistic": Row("logistic regression", OTHER, other(logistic())),
    "mlp": Row("MLP, 800 hidden units", OTHER, other(mlp())),
    "boosting": Row("gradient boosting", OTHER, other(boosting())),
}


def main() -> None:
    """Measure every row that isn't there yet, or draw."""
    parser = argument_parser(__doc__, "curve", SEEDS, resumable=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=24_000, help="training images, by class")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--draw", action="store_true", help="draw the picture and stop")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    if args.draw:
        draw(json.loads(result_path(args).read_text(encoding="utf-8"))["data"], args.picture)
        return
    if args.quick:
        args.seeds, args.epochs = args.seeds[:1], 1
        args.rows = [r for r in args.rows if ROWS[r].kind != PAPER]
    train, test = data_sets(args)
    if args.images < len(train):
        train = train.subset(stratified_limit(train.labels, args.images, seed=42))
    same = {"data": describe(train, test), "epochs": args.epochs, "workers": args.workers}
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        results.append(measure(args, key, seed, train, test))
        keep(args, results, same)
    keep(args, results, same)  # also where every row was there: the tables may be newer
    for found in tables(results):
        print(found.text(), end="\n\n")
    for note in notes(results):
        print(note)


def keep(args: Any, results: list[dict[str, Any]], same: dict[str, Any]) -> None:
    """Write what has been measured so far."""
    seeds = {"seeds": sorted({r["seed"] for r in results})}
    known = same | seeds | {"spread": "mean (min–max) over the seeds"}
    write_result(args, TITLE, tables(results), results, known, notes(results))


def measure(args: Any, key: str, seed: int, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Fit, then read the test images once, then time prediction on images of the training set."""
    model = ROWS[key].make(seed, args)
    seconds, _ = timed(lambda: model.fit(train.images, train.labels))
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
    if not isinstance(model, Convolutional | DenseNetwork):
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
    """Every row; then ours beside CNNs of the same size."""
    compared = same_size(results)
    return [table(results), *([compared] if compared.rows else [])]


def table(results: list[dict[str, Any]]) -> Table:
    """Every row, by kind, the smallest first."""
    lines = []
    order = [OURS, PAPER, DENSE, OTHER]
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


LESS = "Ours less a CNN of the same size, points of accuracy"
SIZES = {"n_parameters": "parameters", "int8_bytes": "int8 bytes", "microseconds": "µs/image"}


def same_size(results: list[dict[str, Any]]) -> Table:
    """Ours less a CNN of the same size, in points of accuracy.

    The error of a CNN between two measured ones lies on the line that joins them, both axes
    logarithmic, as in the picture. Beyond the smallest and the largest one there is none.
    """
    found = points(results)
    lines = []
    for ours_ in sorted((p for p in found if p["kind"] == OURS), key=lambda p: p["n_parameters"]):
        cells = []
        for size in SIZES:
            theirs = sorted((p for p in found if p["kind"] == DENSE), key=lambda p: p[size])
            sizes = np.log([p[size] for p in theirs])
            errors = np.log([max(1 - p["accuracy"], 1e-6) for p in theirs])
            here = np.log(ours_[size])
            if len(theirs) < 2 or not sizes[0] <= here <= sizes[-1]:
                cells.append("–")
                continue
            error = float(np.exp(np.interp(here, sizes, errors)))
            cells.append(f"{100 * (ours_['accuracy'] - (1 - error)):+.2f}")
        lines.append((ours_["label"], *cells))
    return Table(LESS, ("model", *SIZES.values()), lines)


ALIKE = 0.1
"""Points. A test accuracy of 99.3% of 10,000 images has a standard deviation of 0.08."""


def notes(results: list[dict[str, Any]]) -> list[str]:
    """Which of ours is better than a CNN of the same size, and which isn't, by each measure."""
    compared = same_size(results)
    said = [
        "A CNN of the same size has the error on the line between two measured ones, both axes "
        "logarithmic; – where none was measured that is as small or as large."
    ]
    for column, name in enumerate(SIZES.values(), start=1):
        cells = [(row[0], float(row[column])) for row in compared.rows if row[column] != "–"]
        parts = {
            "better than a CNN": [label for label, gain in cells if gain > ALIKE],
            f"alike (within {ALIKE} points)": [n for n, gain in cells if abs(gain) <= ALIKE],
            "a CNN is the better choice": [label for label, gain in cells if gain < -ALIKE],
        }
        listed = "; ".join(f"{what}: {' – '.join(names)}" for what, names in parts.items() if names)
        said.append(f"By {name}: {listed}.")
    return said


COLOURS = {OURS: "#d95f02", PAPER: "#7570b3", DENSE: "#1b9e77", OTHER: "#666666"}
LABELS = {OURS: (-6, -9, "right"), PAPER: (6, 5, "left"), DENSE: (6, 5, "left")}


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Error against parameters, bytes and microseconds, all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, sharey=True)
    measures = (
        ("n_parameters", "parameters"),
        ("int8_bytes", "bytes, int8 export"),
        ("microseconds", "µs an image, one core"),
    )
    for axis, (size, label) in zip(axes, measures, strict=True):
        for kind in COLOURS:
            _plot(axis, [p for p in points(results) if p["kind"] == kind and p[size]], kind, size)
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.margins(x=0.32, y=0.08)
        for ticks, every in ((axis.xaxis, (1,)), (axis.yaxis, (1, 2, 5))):
            ticks.set_major_locator(LogLocator(subs=every, numticks=12))
            ticks.set_minor_locator(LogLocator(subs=range(1, 10), numticks=100))
            ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            ticks.set_minor_formatter(NullFormatter())
        axis.grid(visible=True, which="both", alpha=0.2)
    axes[0].set_ylabel("test error, %")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    say(f"wrote {path}")


def _plot(axis: Any, found: list[dict[str, Any]], kind: str, size: str) -> None:
    """The points of one kind, joined where they are a family, each with its name."""
    found = sorted(found, key=lambda p: p[size])
    errors = [100 * (1 - p["accuracy"]) for p in found]
    line = "o" if kind == OTHER else "o-"
    axis.plot([p[size] for p in found], errors, line, color=COLOURS[kind], label=kind, markersize=5)
    right, up, side = LABELS.get(kind, (-6, 5, "right"))
    before, further = 100.0, 0
    for p, error in zip(found, errors, strict=True):
        # A name stands a line further off where the one before is at the same height.
        further = 10 - further if abs(np.log(error / before)) < 0.06 else 0
        before = error
        axis.annotate(
            p["label"].removeprefix("CNN "),
            (p[size], error),
            textcoords="offset points",
            xytext=(right, up + (further if up > 0 else -further)),
            ha=side,
            fontsize=7,
            color=COLOURS[kind],
        )


if __name__ == "__main__":
    main()
