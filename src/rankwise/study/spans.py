"""Intervals in points, held to what is possible: accuracies lie between 0 and 100%.

An interval with one degree of freedom may reach from −262 to +279 points. That says no more than
that everything is possible, and a reader is told so in figures that can be.
"""

from __future__ import annotations

MOST = 1.0
"""Of a difference of two accuracies; an interaction, a difference of two differences, has 2."""


def most_of(effect: str) -> float:
    """The largest effect that is possible, by what a contrast is of ("main", "interaction")."""
    return 2 * MOST if effect == "interaction" else MOST


def held(value: float, most: float = MOST) -> float:
    """A difference within ``[−most, most]``."""
    return min(max(value, -most), most)


def span(low: float, high: float, most: float = MOST) -> str:
    """An interval in points; an end beyond what is possible is a whole number there.

    >>> span(-0.0123, 0.004)
    '−1.23 to +0.40'
    >>> span(-2.6231, 0.3)
    '−100 to +30.00'
    """
    return f"{_end(low, most)} to {_end(high, most)}"


def points(fraction: float) -> str:
    """A difference of fractions in points of per cent, with its sign; zero has a plus."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}".replace("-", "−")


def _end(value: float, most: float) -> str:
    if abs(value) <= most:
        return points(value)
    return f"{'−' if value < 0 else '+'}{100 * most:g}"
