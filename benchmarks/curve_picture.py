"""The picture of `curve.py`: error against parameters, bytes, microseconds, unlike seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
QUOTED = (
    ("xvel/cifar10-tiniest", 5.6, {"n_parameters": 97_530}),
    ("ResNet-20", 8.75, {"n_parameters": 270_000}),
    ("µNAS", 13.5, {"int8_bytes": 11_400}),
    ("ResNet-8, MLPerf Tiny", 15.0, {"int8_bytes": 96_000}),
)
"""Public points for CIFAR-10: error in per cent, and sizes. Not measured here: from their authors'
pages and papers, by other splits, epochs and machines."""

MEASURES = {
    "n_parameters": "parameters",
    "int8_bytes": "bytes, int8 export",
    "microseconds": "µs an image, one core",
    "fit_seconds": "seconds of training",
}
_ALIKE = 1.5
_AROUND = [
    (right, up)
    for far in (5, 14, 24)
    for right, up in ((0, -far), (-far, 0), (far, 0), (0, far), (-far, -far), (far, far))
]


def differ(points: Sequence[dict[str, Any]], size: str) -> bool:
    """Whether a size tells rows apart: all that are given the same minutes train as long."""
    found = [p[size] for p in points if p[size]]
    return bool(found) and max(found) > _ALIKE * min(found)


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """All points, one a row of the table, and public ones; all axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = [p for p in points if p["kind"] in (OURS, *OF_RIVALS)]
    shown = [size for size in MEASURES if differ(networks, size)] or ["n_parameters"]
    columns = 2 if len(shown) > 1 else 1
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(5 * columns, 4.3 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    quoted = QUOTED if path.stem.endswith("cifar10") else ()
    names = []
    for axis, size in zip(axes.flat, shown, strict=False):
        public = [(name, sizes[size], e) for name, e, sizes in quoted if size in sizes]
        found = [*_plotted(axis, points, size), *((*p, "#000000") for p in public)]
        for _, x, error, _ in found[len(found) - len(public) :]:
            axis.plot(x, error, "x", color="#000000", label="quoted, not measured here")
        names.append((axis, found))
        _scaled(axis, MEASURES[size])
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    for row in axes[:, 0]:
        row.set_ylabel("test error, %")
    by_name = {}
    for axis, _ in names:
        by_name |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        by_name.values(),
        by_name,
        loc="outside upper center",
        ncols=min(4, len(by_name)),
        fontsize=8,
    )
    figure.draw_without_rendering()
    for axis, found in names:
        _named(axis, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    say(f"wrote {path}")


def _scaled(axis: Any, label: str) -> None:
    """Both axes logarithmic, with numbers in full."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set(xscale="log", yscale="log", xlabel=label)
    axis.margins(x=0.12, y=0.1)
    for ticks, every in ((axis.xaxis, (1,)), (axis.yaxis, (1, 2, 5))):
        ticks.set_major_locator(LogLocator(subs=every, numticks=12))
        ticks.set_minor_locator(LogLocator(subs=range(1, 10), numticks=100))
        ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        ticks.set_minor_formatter(NullFormatter())
    axis.tick_params(labelleft=True)
    axis.grid(visible=True, which="both", alpha=0.2)


def _plotted(axis: Any, points: list[dict[str, Any]], size: str) -> list[tuple[Any, ...]]:
    """Points of each kind, joined where they are a family: name, place and colour of each."""
    named = []
    for kind, colour in COLOURS.items():
        found = sorted((p for p in points if p["kind"] == kind and p[size]), key=lambda p: p[size])
        if not found:
            continue
        errors = [100 * (1 - p["accuracy"]) for p in found]
        line = "o" if kind == OTHER else "o-"
        axis.plot([p[size] for p in found], errors, line, color=colour, label=kind, markersize=5)
        for p, error in zip(found, errors, strict=True):
            # A rival's kind is told by its colour.
            name = p["label"].rsplit(", ", 1)[-1] if kind in OF_RIVALS else p["label"]
            named.append((name, p[size], error, colour))
    return named


def _named(axis: Any, found: list[tuple[Any, ...]]) -> None:
    """A name beside each point, where it covers no other name and no point; else none."""
    from matplotlib.patheffects import withStroke

    figure = axis.figure
    around = axis.get_window_extent()
    pixels = axis.transData.transform([(x, error) for _, x, error, _ in found])
    taken: list[Any] = []
    for (name, x, error, colour), at in zip(found, pixels, strict=True):
        text = axis.annotate(
            name,
            (x, error),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            color=colour,
            path_effects=[withStroke(linewidth=2, foreground="#ffffff")],
        )
        for right, up in _AROUND:
            text.set_ha("center" if right == 0 else "left" if right > 0 else "right")
            text.set_va("center" if up == 0 else "bottom" if up > 0 else "top")
            text.xyann = (right, up)
            box = text.get_window_extent(figure.canvas.get_renderer())
            covers = any(box.contains(*p) for p in pixels if tuple(p) != tuple(at))
            outside = not (around.contains(box.x0, box.y0) and around.contains(box.x1, box.y1))
            if not covers and not outside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
        else:
            text.remove()
