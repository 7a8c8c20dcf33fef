"""The certificate of a removal: what was taken out, and how near the head is to never having it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rankwise._version import __version__
from rankwise.heads.shards import digest_of
from rankwise.linear.statistics import ClassStatistics


def certificate_of(
    before: ClassStatistics, gone: ClassStatistics, after: ClassStatistics, samples: str
) -> dict[str, Any]:
    """A removal as data, for JSON.

    Parameters
    ----------
    before, gone, after : ClassStatistics
        ``before − gone = after``.
    samples : str
        Digest of what was taken out.

    Returns
    -------
    dict
        ``removed`` (samples and weight by class, ``sha256`` of the samples), ``before`` and
        ``after`` (samples, ``sha256`` of the statistics), ``difference``: from the statistics of
        the samples that stay, ``bound`` of the largest one of a feature's variance, relative to
        it, by rounding alone.
    """
    variances = np.einsum("gii->i", after.scatter)
    left = after.left_by_removal
    moving = variances > 0
    bound = float(np.max(left[moving] / variances[moving], initial=0.0))
    return {
        "removed": {
            "n_samples": gone.n_samples,
            "by_class": {
                str(c): {"n_samples": int(n), "weight": float(w)}
                for c, n, w in zip(gone.classes, gone.counts, gone.weights, strict=True)
            },
            "sha256": samples,
        },
        "before": {"n_samples": before.n_samples, "sha256": digest_of(before)},
        "after": {"n_samples": after.n_samples, "sha256": digest_of(after)},
        "difference": {"bound": bound},
        "rankwise": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def measured_difference(after: ClassStatistics, fresh: ClassStatistics) -> dict[str, float]:
    """Largest differences from statistics that never had the samples, relative to these."""
    if (
        after.scatter.shape != fresh.scatter.shape
        or not np.array_equal(_present(after), _present(fresh))
        or after.n_samples != fresh.n_samples
    ):
        raise ValueError(
            f"what stays holds {fresh.n_samples} samples of {len(_present(fresh))} classes, but "
            f"after the removal there are {after.n_samples} of {len(_present(after))}; all samples "
            "that stay are needed to measure the difference"
        )
    at = np.searchsorted(after.classes, fresh.classes)
    deviation = np.sqrt(np.einsum("gii->i", fresh.scatter) / fresh.weights.sum())
    deviation = np.where(deviation > 0, deviation, 1.0)
    size = np.outer(deviation, deviation) * fresh.weights.sum()
    scatter = np.abs(after.scatter.sum(axis=0) - fresh.scatter.sum(axis=0)) / size
    means = np.abs(after.means[at] - fresh.means) / deviation
    return {"scatter": float(scatter.max()), "means": float(means.max())}


class SampleDigest:
    """SHA-256 of samples, block by block: features as float64, labels, weights."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        """One block more."""
        self._digest.update(np.ascontiguousarray(features, dtype=np.float64).data)
        self._digest.update("\x00".join(map(str, labels.tolist())).encode("utf-8", "surrogatepass"))
        self._digest.update(np.ascontiguousarray(weights, dtype=np.float64).data)

    def hexdigest(self) -> str:
        """Of all of them."""
        return self._digest.hexdigest()


def _present(statistics: ClassStatistics) -> np.ndarray:
    return statistics.classes[statistics.counts > 0]
