"""How good predictions are: with intervals, by confidence, and where some are left to a person."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rankwise.networks.probabilities import confidence_bins

LEVEL = 0.95
"""Of intervals."""
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def interval(n_right: int, n: int) -> tuple[float, float]:
    """Wilson's interval of an accuracy; (0, 1) of no images.

    As scipy's `binomtest` gives it, whose p-value of each would take milliseconds a class.

    >>> low, high = interval(98, 100)
    >>> round(low, 3), round(high, 3)
    (0.93, 0.994)
    """
    if not n:
        return 0.0, 1.0
    z2, share = _Z**2, n_right / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return (0.0 if n_right == 0 else low), (1.0 if n_right == n else high)


def confusion(
    truth: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"], n_classes: int
) -> Int[np.ndarray, "K K"]:
    """Counts: true class down, predicted across."""
    return np.bincount(truth * n_classes + predicted, minlength=n_classes**2).reshape(
        n_classes, n_classes
    )


def by_class(counts: Int[np.ndarray, "K K"]) -> list[dict[str, Any]]:
    """For each class its images, how many are right, and the interval of their share."""
    found = []
    for k, row in enumerate(counts):
        n, right = int(row.sum()), int(row[k])
        low, high = interval(right, n)
        found.append({"n": n, "right": right, "low": low, "high": high})
    return found


def reliability(
    confidence: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"], n_bins: int = 10
) -> list[dict[str, float]]:
    """In each tenth of confidence that has images: their number, both means, an interval.

    The bins are those of `expected_calibration_error`.
    """
    bins = confidence_bins(confidence, n_bins)
    found = []
    for b in np.unique(bins):
        here = bins == b
        low, high = interval(int(right[here].sum()), int(here.sum()))
        found.append(
            {
                "from": b / n_bins,
                "to": (b + 1) / n_bins,
                "n": int(here.sum()),
                "confidence": float(confidence[here].mean()),
                "accuracy": float(right[here].mean()),
                "low": low,
                "high": high,
            }
        )
    return found


def rejection(
    confidence: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"], points: int = 101
) -> list[dict[str, float]]:
    """Accuracy of the most confident images, for shares of the others left to a person.

    Of images of one confidence all are kept or none, so order tells nothing.
    """
    n = len(confidence)
    if not n:
        return []
    order = np.argsort(-confidence, kind="stable")
    sure, good = confidence[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))  # of stretches of one confidence
    at = np.unique(np.round(np.linspace(0, len(ends) - 1, min(points, len(ends)))).astype(int))
    return [
        {
            "rejected": 1.0 - (end + 1) / n,
            "accuracy": float(good[end] / (end + 1)),
            "least": float(sure[end]),
        }
        for end in ends[at][::-1]
    ]
