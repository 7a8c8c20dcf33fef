"""The problem of fewer samples than features, on the samples' side: ``n × n`` instead of ``d × d``.

``ZᵀZ`` and ``ZZᵀ`` have the same eigenvalues above zero, and ``q = Zᵀu/√λ``; so one
decomposition of the smaller one serves every ridge, and nothing of ``d²`` is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rankwise.linear.gram import EPS, GramStatistics
from rankwise.linear.statistics import ClassStatistics, Design, class_factors, eps_of


def wide_design(
    features: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray,
    classes: np.ndarray,
    *,
    class_weight: Mapping[Any, Any] | str | None = None,
    fit_intercept: bool = True,
    standardise: bool = True,
) -> Design:
    """What `rankwise.linear.statistics.design` gives, with the samples as `rows`.

    Parameters
    ----------
    features : array of shape (n, d)
    codes : int array of shape (n,)
        Positions of the labels in `classes`.
    sample_weight : array of shape (n,)
    classes : array of shape (K,)
    class_weight, fit_intercept, standardise
        As in `design`.
    """
    k = len(classes)
    x = np.asarray(features, dtype=np.float64)
    counts = np.bincount(codes[sample_weight > 0], minlength=k)
    own = np.bincount(codes, sample_weight, minlength=k)
    known = ClassStatistics(classes, counts, own, np.zeros((k, 0)), np.zeros((k, 0, 0)), True)
    factors = class_factors(known, class_weight)
    weight = sample_weight * factors[codes]
    weights = factors * own
    total = float(weights.sum())
    n = int(counts.sum())
    mean = weight @ x / total
    centred = x - mean
    with np.errstate(over="ignore", invalid="ignore"):
        variance = weight @ centred**2 / total
    if not np.isfinite(variance).all():
        worst = int(np.argmax(~np.isfinite(variance)))
        raise ValueError(f"feature {worst} is too large: its variance exceeds what a float64 holds")
    constant = variance <= n * EPS * variance + (n * mean * EPS) ** 2
    scale = np.sqrt(np.where(constant, 1.0, variance)) if standardise else np.ones(len(mean))
    priors = weights / total
    root = np.sqrt(weight)[:, None]
    targets = np.eye(k)[codes]
    if fit_intercept:
        centre, rows = mean, root * centred / scale
        rows[:, constant] = 0.0
        others = np.where(np.eye(k, dtype=bool), 0.0, weights).sum(axis=1)
        squared = float(np.sum(weights * others) / total)
    else:
        centre, rows = np.zeros(len(mean)), root * x / scale
        priors, squared = np.zeros(k), total
    spread = 1.0 + mean[~constant] ** 2 / variance[~constant]
    gram = GramStatistics(
        gram=rows @ rows.T,
        cross=root * (targets - priors),
        targets_squared=squared,
        n=float(own.sum()),
        eps=EPS,
        max_rank=n - int(fit_intercept),
        feature_eps=eps_of(features) * np.sqrt(float(spread.mean()) if len(spread) else 0.0),
    )
    return Design(centre, scale, priors, total, factors, gram, fit_intercept, rows)
