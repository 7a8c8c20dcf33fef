"""Demšar's critical-difference diagram as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rankwise.study.figures import open_svg

_WIDTH, _EDGE = 360.0, 26.0
_AXIS, _BAR, _ROW = 44.0, 9.0, 18.0


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

    rows = -(-k // 2)
    below = _AXIS + 8 + _BAR * len(groups)
    height = below + _ROW * rows + 12
    words = "; ".join(f"{a}: {r:.2f}" for a, r in zip(arms, mean_ranks, strict=True))
    parts = [open_svg(_WIDTH, height, title, f"Mean ranks: {words}")]
    parts.append(_line("axis", at(1), at(k), _AXIS, _AXIS))
    for tick in range(1, k + 1):
        parts.append(_line("axis", at(tick), at(tick), _AXIS - 4, _AXIS))
        parts.append(_text("tick", at(tick), _AXIS - 8, "middle", str(tick)))
    reach = min(at(1) + critical_difference / (k - 1) * (_WIDTH - 2 * _EDGE), _WIDTH - 2)
    parts.append(_line("interval", at(1), reach, 16, 16))
    beyond = "" if reach < _WIDTH - 2 else ", wider than the scale"
    parts.append(
        _text("tick", at(1), 11, "start", f"critical difference {critical_difference:.2f}{beyond}")
    )
    for i, (first, last) in enumerate(groups):
        y = _AXIS + 8 + _BAR * i
        parts.append(_line("group", at(mean_ranks[first]) - 3, at(mean_ranks[last]) + 3, y, y))
    for i, (arm, rank) in enumerate(zip(arms, mean_ranks, strict=True)):
        left = i < rows
        y = below + _ROW * (i if left else k - 1 - i) + 8
        end = 4.0 if left else _WIDTH - 4
        parts.append(_line("axis", at(rank), at(rank), _AXIS, y))
        parts.append(_line("axis", at(rank), end, y, y))
        anchor = "start" if left else "end"
        parts.append(_text("label", end, y - 3, anchor, f"{_cut(arm)} {rank:.2f}"))
    return "".join([*parts, "</svg>"])


def _line(name: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(name: str, x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _cut(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"
