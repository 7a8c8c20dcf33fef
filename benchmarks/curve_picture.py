"""The picture of `curve.py`: error against parameters, bytes, microseconds and seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common import say

OURS, PAPER, OTHER = "ours, convolutional", "ours, sub-networks", "other"
PLAIN, SEPARABLE, RESNET = "plain CNN", "separable CNN", "ResNet-20, scaled"
OF_RIVALS = (PLAIN, SEPARABLE, RESNET)
COLOURS = {
    OURS: "#d95f02",
    PAPER: "#7570b3",
    PLAIN: "#1b9e77",
    SEPARABLE: "#1f78b4",
    RESNET: "#a6761d",
    OTHER: "#666666",
}
LABELS = {OURS: (-6, -9, "right")} | dict.fromkeys(
    (PAPER, PLAIN, SEPARABLE, RESNET), (6, 5, "left")
)


QUOTED = (
    ("xvel/cifar10-tiniest", 5.6, {"n_parameters": 97_530}),
    ("ResNet-20", 8.75, {"n_parameters": 270_000}),
    ("µNAS", 13.5, {"int8_bytes": 11_400}),
    ("ResNet-8, MLPerf Tiny", 15.0, {"int8_bytes": 96_000}),
)
"""Public points for CIFAR-10: error in per cent, and sizes. Not measured here: from their authors'
pages and papers, by other splits, epochs and machines."""


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """All points, one a row of the table, and public ones; all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(17, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4, sharey=True)
    measures = (
        ("n_parameters", "parameters"),
        ("int8_bytes", "bytes, int8 export"),
        ("microseconds", "µs an image, one core"),
        ("fit_seconds", "seconds of training"),
    )
    quoted = QUOTED if path.stem.endswith("cifar10") else ()
    for axis, (size, label) in zip(axes, measures, strict=True):
        for name, error, sizes in quoted:
            if size in sizes:
                axis.plot(sizes[size], error, "x", color="#000000")
                axis.annotate(f"{name}, quoted", (sizes[size], error), fontsize=7)
        for kind in COLOURS:
            _plot(axis, [p for p in points if p["kind"] == kind and p[size]], kind, size)
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
            p["label"].rsplit(", ", 1)[-1] if kind in OF_RIVALS else p["label"],
            (p[size], error),
            textcoords="offset points",
            xytext=(right, up + (further if up > 0 else -further)),
            ha=side,
            fontsize=7,
            color=COLOURS[kind],
        )
