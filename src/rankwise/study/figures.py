"""Charts as inline SVG: their colours are CSS variables, so that they work in dark and light.

No series is told by its colour alone: each has its own dash and marker too. Coordinates are those
of a 360 × 240 view box, which a phone shows at its own size and a wide screen in columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 360.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 12.0, 14.0, 40.0
N_STYLES = 8
_DASHES = ("", "7 3", "2 3", "8 3 2 3", "", "7 3", "2 3", "8 3 2 3")
_MARKERS = ("circle", "square", "triangle", "diamond", "square", "triangle", "diamond", "circle")
# More markers than this hide the line.
_MOST_MARKERS = 12


@dataclass(frozen=True)
class Series:
    """A line with a band around it.

    Parameters
    ----------
    label : str
    x, y : arrays, (n,)
    low, high : arrays, (n,), optional
        Edges of the band.
    style : int
        Which colour, dash and marker.
    """

    label: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    style: int = 0


@dataclass(frozen=True)
class Axes:
    """Titles and ranges of a chart; ranges that aren't given are those of the data."""

    title: str
    x_label: str
    y_label: str
    y_range: tuple[float, float] | None = None
    percent: bool = False
    x_ticks: tuple[tuple[float, str], ...] | None = None


def line_chart(series: Sequence[Series], axes: Axes, *, mark_x: float | None = None) -> str:
    """Lines with bands over a common x.

    Parameters
    ----------
    series : sequence of Series
        At least one with at least one point; points that aren't finite are left out.
    axes : Axes
    mark_x : float, optional
        Where a vertical rule is drawn, such as a mean best epoch.

    Returns
    -------
    str
        An ``<svg>`` element, text escaped.

    Raises
    ------
    ValueError
        Without a finite point.
    """
    lines = [line for line in map(_finite, series) if len(line[1])]
    if not lines:
        raise ValueError(f"the chart {axes.title!r} has no finite point")
    x_low, x_high = _extent(np.concatenate([line[1] for line in lines]))
    y_low, y_high = axes.y_range or data_range(series)
    place = _Place(x_low, x_high, y_low, y_high)
    # Bands of many lines lie over each other: the style makes them fainter.
    crowd = ' data-crowded=""' if len(lines) > 2 else ""
    parts = [open_svg(WIDTH, HEIGHT, axes.title, _describe(lines, axes), crowd)]
    parts += _grid(place, axes)
    if mark_x is not None and x_low <= mark_x <= x_high:
        at = place.x(mark_x)
        parts.append(
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_floor()}"/>'
        )
    for item, x, _, low, high in lines:
        if low is not None and high is not None:
            parts.append(_band(place, x, low, high, item.style))
    for item, x, y, _, _ in lines:
        parts.append(_line(place, x, y, item.style))
    return "".join([*parts, "</svg>"])


def swatch(style: int, *, band: bool = False) -> str:
    """A legend's sample of a line."""
    style %= N_STYLES
    parts = ['<svg class="swatch" viewBox="0 0 34 14" aria-hidden="true" focusable="false">']
    if band:
        parts.append(f'<rect class="band s{style}" x="1" y="1" width="32" height="12"/>')
    parts.append(
        f'<line class="line s{style}" x1="1" x2="33" y1="7" y2="7"{_dash(style)}/>'
        f"{_marker(_MARKERS[style], 17, 7, style)}</svg>"
    )
    return "".join(parts)


def data_range(series: Sequence[Series]) -> tuple[float, float]:
    """Lowest and highest finite value of lines and bands, with 5% of room."""
    values = [
        np.asarray(part, float) for s in series for part in (s.y, s.low, s.high) if part is not None
    ]
    finite = np.concatenate(values) if values else np.zeros(0)
    low, high = _extent(finite[np.isfinite(finite)])
    room = 0.05 * (high - low)
    return low - room, high + room


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers (1, 2 or 5 times a power of ten) within ``[low, high]``."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True)
class _Place:
    """From values to the view box."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return _floor() - share * (_floor() - _TOP)


_Line = tuple[Series, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]


def _finite(item: Series) -> _Line:
    x, y = np.asarray(item.x, float), np.asarray(item.y, float)
    keep = np.isfinite(x) & np.isfinite(y)
    edges = [
        None if edge is None else np.where(np.isfinite(e := np.asarray(edge, float)), e, y)[keep]
        for edge in (item.low, item.high)
    ]
    return item, x[keep], y[keep], edges[0], edges[1]


def _extent(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low == high:
        half = abs(low) * 0.01 or 0.5
        return low - half, high + half
    return low, high


def open_svg(width: float, height: float, title: str, description: str, more: str = "") -> str:
    text = escape(f"{title}. {description}" if description else title, quote=True)
    box = f'viewBox="0 0 {width:g} {height:g}"'
    return f'<svg class="chart" {box} role="img" aria-label="{text}"{more}>'


def _describe(lines: Sequence[_Line], axes: Axes) -> str:
    """The last value of every line, for those who can't see it."""
    ends = [f"{item.label} ends at {_number(float(y[-1]), axes)}" for item, _, y, _, _ in lines]
    return "; ".join(ends) + "."


def _grid(place: _Place, axes: Axes) -> list[str]:
    right, floor = WIDTH - _RIGHT, _floor()
    parts = []
    for tick in nice_ticks(place.y_low, place.y_high):
        y = place.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{_number(tick, axes, place.y_high - place.y_low)}</text>"
        )
    ticks = axes.x_ticks
    if ticks is None:
        whole = [t for t in nice_ticks(place.x_low, place.x_high, 6) if abs(t - round(t)) < 1e-9]
        ticks = tuple((t, f"{t:g}") for t in whole)
    for value, text in ticks:
        x = place.x(value)
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor + 4}"/>'
        )
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{floor + 16}" text-anchor="middle">'
            f"{escape(text)}</text>"
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(axes.x_label)}</text>"
    )
    centre = (_TOP + floor) / 2
    parts.append(
        f'<text class="label" transform="translate(11 {centre}) rotate(-90)" '
        f'text-anchor="middle">{escape(axes.y_label)}</text>'
    )
    return parts


def _band(place: _Place, x: np.ndarray, low: np.ndarray, high: np.ndarray, style: int) -> str:
    there = [(place.x(a), place.y(b)) for a, b in zip(x, high, strict=True)]
    back = [(place.x(a), place.y(b)) for a, b in zip(x[::-1], low[::-1], strict=True)]
    points = " ".join(f"{a:.1f},{_within(b):.1f}" for a, b in there + back)
    return f'<polygon class="band s{style % N_STYLES}" points="{points}"/>'


def _line(place: _Place, x: np.ndarray, y: np.ndarray, style: int) -> str:
    style %= N_STYLES
    points = [(place.x(a), _within(place.y(b))) for a, b in zip(x, y, strict=True)]
    text = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    every = max(1, math.ceil(len(points) / _MOST_MARKERS))
    markers = "".join(_marker(_MARKERS[style], a, b, style) for a, b in points[::every])
    return f'<polyline class="line s{style}" points="{text}"{_dash(style)}/>{markers}'


def _marker(shape: str, x: float, y: float, style: int) -> str:
    name = f'class="marker s{style}"'
    if shape == "circle":
        return f'<circle {name} cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    offsets = {
        "square": ((-2.7, -2.7), (2.7, -2.7), (2.7, 2.7), (-2.7, 2.7)),
        "triangle": ((0, -3.8), (3.5, 2.6), (-3.5, 2.6)),
        "diamond": ((0, -4), (3.6, 0), (0, 4), (-3.6, 0)),
    }[shape]
    points = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in offsets)
    return f'<polygon {name} points="{points}"/>'


def _dash(style: int) -> str:
    return f' stroke-dasharray="{_DASHES[style]}"' if _DASHES[style] else ""


def _floor() -> float:
    return HEIGHT - _BOTTOM


def _within(y: float) -> float:
    return min(max(y, _TOP - 4), _floor())


def _number(value: float, axes: Axes, span: float | None = None) -> str:
    value = 0.0 if abs(value) < 1e-12 else value
    if not axes.percent:
        return f"{value:.4g}".replace("-", "−")
    digits = 1 if span is None or span < 0.05 else 0
    digits = 2 if span is not None and span < 0.005 else digits
    return f"{100 * value:.{digits}f}%".replace("-", "−")
