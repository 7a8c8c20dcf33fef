"""The forest plot: every comparison of a study on one scale, as inline SVG.

A row has the effect with its interval (thick) and the interval that holds for all comparisons at
once (thin), the differences of single folds as dots, and the region of practical equivalence as a
band. Its label stands above it, so that a phone shows it at a size that can be read.

One comparison of two folds may have an interval a hundred times as wide as the others, which would
leave them as dots: the scale is that of the widest interval, but no more than three times the
middle 95% interval and never more than is possible. What goes on beyond it ends in an arrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from rankwise.study.figures import nice_ticks, open_svg
from rankwise.study.spans import MOST, held, points, span

_WIDTH, _EDGE = 360.0, 14.0
_ROW, _HEAD = 46.0, 8.0
_FLOOR = 34.0
_TIMES_MIDDLE = 3.0
_MARGIN = 1.06
_ARROW = 7.0


@dataclass(frozen=True)
class ForestRow:
    """One comparison.

    Parameters
    ----------
    label, mark : str
        What is compared, and the sign of its verdict.
    mean, low, high : float
        Effect and 95% interval, shares of accuracy.
    outer : (float, float)
        The interval that covers together with those of all other rows.
    rope : float
        Half width of the band.
    folds : sequence of float
        Differences of the pairs of folds.
    most : float
        The largest effect that is possible.
    """

    label: str
    mark: str
    mean: float
    low: float
    high: float
    outer: tuple[float, float]
    rope: float
    folds: Sequence[float]
    most: float = MOST


def forest(rows: Sequence[ForestRow], title: str) -> str:
    """The plot of all rows, on a scale that is the same for all of them.

    Parameters
    ----------
    rows : sequence of ForestRow
        At least one.
    title : str
        For those who can't see it; the rows follow in words.

    Returns
    -------
    str
        An ``<svg>`` element, text escaped.

    Raises
    ------
    ValueError
        Without a row.
    """
    if not rows:
        raise ValueError("a forest plot needs at least one comparison")
    scale = _Scale(_MARGIN * _reach(rows))
    height = _HEAD + _ROW * len(rows) + _FLOOR
    words = "; ".join(_in_words(row, scale) for row in rows)
    parts = [open_svg(_WIDTH, height, title, words)]
    bottom = _HEAD + _ROW * len(rows)
    for i, row in enumerate(rows):
        parts += _drawn(row, scale, _HEAD + i * _ROW)
    parts += _axis(scale, bottom)
    return "".join([*parts, "</svg>"])


def _reach(rows: Sequence[ForestRow]) -> float:
    """How far the scale goes to each side; all means and folds are within."""
    measured = [abs(value) for row in rows for value in (row.mean, *row.folds)]
    least = max([*measured, *(1.5 * row.rope for row in rows), 1e-4])
    plain = [max(abs(row.low), abs(row.high)) for row in rows]
    widest = max([*plain, *(abs(end) for row in rows for end in row.outer)])
    wanted = min(widest, _TIMES_MIDDLE * median(plain))
    return min(max(wanted, least), max(row.most for row in rows))


def _in_words(row: ForestRow, scale: _Scale) -> str:
    text = f"{row.label}: {points(row.mean)} points, {span(row.low, row.high, row.most)}"
    beyond = max(abs(row.low), abs(row.high)) > min(scale.reach, row.most)
    return f"{text}, wider than can be shown" if beyond else text


@dataclass(frozen=True)
class _Scale:
    reach: float

    def at(self, value: float) -> float:
        """Place of an effect; beyond the ends it stays at the end."""
        share = (held(value, self.reach) + self.reach) / (2 * self.reach)
        return _EDGE + share * (_WIDTH - 2 * _EDGE)


def _drawn(row: ForestRow, scale: _Scale, top: float) -> list[str]:
    middle = top + 31
    zero = scale.at(0)
    left, width = scale.at(-row.rope), scale.at(row.rope) - scale.at(-row.rope)
    parts = [
        f'<rect class="rope" x="{left:.1f}" y="{top + 20:.1f}" width="{width:.1f}" height="22"/>',
        _line("zero", zero, zero, top + 18, top + 44),
        f'<text class="label" x="{_EDGE}" y="{top + 13:.1f}">{escape(row.mark)} '
        f"{escape(_cut(row.label))}</text>",
        f'<text class="tick" x="{_WIDTH - _EDGE}" y="{top + 13:.1f}" text-anchor="end">'
        f"{points(row.mean)}</text>",
    ]
    parts += [
        f'<circle class="dot" cx="{scale.at(value):.1f}" cy="{middle + 7:.1f}" r="1.6"/>'
        for value in row.folds
    ]
    for name, (low, high) in (("outer", row.outer), ("interval", (row.low, row.high))):
        ends = [scale.at(held(end, row.most)) for end in (low, high)]
        parts.append(_line(name, ends[0], ends[1], middle, middle))
        parts += [
            _arrow(name, at, middle, 1 if end > 0 else -1)
            for at, end in zip(ends, (low, high), strict=True)
            if abs(end) > min(scale.reach, row.most)
        ]
    parts.append(f'<circle class="point" cx="{scale.at(row.mean):.1f}" cy="{middle:.1f}" r="4.2"/>')
    return parts


def _axis(scale: _Scale, bottom: float) -> list[str]:
    parts = [_line("axis", _EDGE, _WIDTH - _EDGE, bottom, bottom)]
    for tick in nice_ticks(-scale.reach, scale.reach, 6):
        at = scale.at(tick)
        parts.append(_line("axis", at, at, bottom, bottom + 4))
        text = "0" if abs(tick) < 1e-12 else f"{100 * tick:+.10g}".replace("-", "−")
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">'
            f"{text}</text>"
        )
    parts.append(
        f'<text class="tick" x="{_WIDTH / 2}" y="{bottom + 30:.1f}" text-anchor="middle">'
        "points of accuracy</text>"
    )
    return parts


def _line(name: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _arrow(name: str, x: float, y: float, direction: int) -> str:
    """The end of an interval that goes on beyond the scale."""
    back = x - direction * _ARROW
    path = f"M{back:.1f} {y - 4:.1f}L{x:.1f} {y:.1f}L{back:.1f} {y + 4:.1f}"
    return f'<path class="{name} arrow" d="{path}"/>'


def _cut(text: str) -> str:
    return text if len(text) <= 42 else f"{text[:41]}…"
