"""Outputs for each sample of the least-squares layer fitted without it, and what they teach."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from rankwise._arrays import OneHot, Targets, blocks
from rankwise._threads import in_threads
from rankwise.cluster import elsewhere
from rankwise.linear.class_ridge import fit_temperature
from rankwise.linear.gram import Features, accumulate_gram
from rankwise.linear.ridge_choice import (
    eigen_directions,
    left_out_residuals,
    rotated_rows,
    threads_for,
)


def left_out_outputs(
    features: Features,
    targets: Targets,
    ridge: float,
    *,
    rcond: float | None = None,
    weights: Float[np.ndarray, "n"] | None = None,
    workers: int = 1,
) -> Float[np.ndarray, "n K"]:
    """Output for each sample of the layer fitted without it, by the matrix inversion lemma.

    Two passes of blocks. Of a sample of weight 2 one of two is left out.

    Parameters
    ----------
    features, targets, weights, workers
        As in `gram.accumulate_gram`.
    ridge : float
        ``μ``, in all.
    rcond : float, optional
        As in `output_layer.solve_gram`.
    """
    statistics = accumulate_gram(features, targets, weights=weights, workers=workers)
    values, vectors = eigen_directions(statistics, rcond, ridge=ridge)
    with threads_for(len(statistics.gram)):
        projected = vectors.T @ statistics.cross
    common = (features, targets, weights, values, vectors, projected, float(ridge))
    leaves, away = list(blocks(len(targets))), elsewhere()
    if away is not None:
        return np.concatenate(list(away.map(_left_out, leaves, common)))
    return np.concatenate(list(in_threads(partial(_left_out, common), leaves, workers)))


def _left_out(common: tuple[Any, ...], block: slice) -> np.ndarray:
    features, targets, weights, values, vectors, projected, ridge = common
    rotated, tau = rotated_rows(features, block, vectors), targets[block]
    own = np.ones(len(rotated)) if weights is None else weights[block]
    share = np.minimum(own, 1.0)[:, None]
    residuals = left_out_residuals(rotated, tau, values, projected, np.array([ridge]), share=share)
    return tau - residuals[:, 0]


def left_out_temperature(
    features: Features,
    targets: Targets,
    ridge: float,
    *,
    rcond: float | None = None,
    weights: Float[np.ndarray, "n"] | None = None,
    workers: int = 1,
) -> float:
    """Temperature of a softmax of the outputs that fits the left-out ones best.

    Parameters
    ----------
    features, targets, ridge, rcond, weights, workers
        As in `left_out_outputs`.
    """
    outputs = left_out_outputs(
        features, targets, ridge, rcond=rcond, weights=weights, workers=workers
    )
    codes = targets.codes if isinstance(targets, OneHot) else targets.argmax(axis=1)
    return fit_temperature(outputs, codes.astype(np.int64), weights)
