"""Demšar's critical-difference diagram as inline SVG, an arm a row, so that a phone shows it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rankwise.study.figures import open_svg

_WIDTH, _EDGE = 360.0, 26.0
_TOP, _BAR, _ROW = 28.0, 9.0, 30.0


def rank_diagram(
    arms: Sequence[str],
    mean_ranks: Sequence[float],
    critical_difference: float,
    groups: Sequence[Sequence[int]],
    title: str,
) -> str:
    """Arms on a scale of mean ranks, the best on the left; bars join what can't be told apart.

    Parameters
    ----------
    arms : sequence of str
        Best first.
    mean_ranks : sequence of float
        As the arms.
    critical_difference : float
        Drawn above the scale, as far as it fits.
    groups : sequence of (first, last)
        Numbers of arms that a bar joins.
    title : str
        For those who can't see it; the ranks follow in words.

    Returns
    -------
    str
        An ``<svg>`` element, text escaped.

    Raises
    ------
    ValueError
        With fewer than two arms.
    """
    k = len(arms)
    if k < 2:
        raise ValueError("ranks need at least two arms")

    def at(rank: float) -> float:
        return _EDGE + (rank - 1) / (k - 1) * (_WIDTH - 2 * _EDGE)

    floor = _TOP + _ROW * k + _BAR * len(groups) + 6
    words = "; ".join(f"{a}: {r:.2f}" for a, r in zip(arms, mean_ranks, strict=True))
    parts = [open_svg(_WIDTH, floor + 22, title, f"Mean ranks: {words}")]
    reach = min(at(1) + critical_difference / (k - 1) * (_WIDTH - 2 * _EDGE), _WIDTH - 2)
    beyond = "" if reach < _WIDTH - 2 else ", wider than the scale"
    parts.append(
        _text("tick", at(1), 12, "start", f"critical difference {critical_difference:.2f}{beyond}")
    )
    parts.append(_line("interval", at(1), reach, 18, 18))
    for i, (arm, rank) in enumerate(zip(arms, mean_ranks, strict=True)):
        y = _TOP + _ROW * i
        parts.append(_text("label", at(1), y + 12, "start", _cut(arm)))
        parts.append(_text("tick", _WIDTH - _EDGE, y + 12, "end", f"{rank:.2f}"))
        parts.append(_line("grid", at(1), at(k), y + 20, y + 20))
        parts.append(f'<circle class="point" cx="{at(rank):.1f}" cy="{y + 20:.1f}" r="4.2"/>')
    for i, (first, last) in enumerate(groups):
        y = _TOP + _ROW * k + _BAR * i + 4
        parts.append(_line("group", at(mean_ranks[first]) - 4, at(mean_ranks[last]) + 4, y, y))
    parts.append(_line("axis", at(1), at(k), floor, floor))
    for tick in range(1, k + 1):
        parts.append(_line("axis", at(tick), at(tick), floor, floor + 4))
        parts.append(_text("tick", at(tick), floor + 16, "middle", str(tick)))
    return "".join([*parts, "</svg>"])


def _line(name: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(name: str, x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _cut(text: str) -> str:
    return text if len(text) <= 44 else f"{text[:43]}…"
