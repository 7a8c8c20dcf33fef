"""Outputs for each sample of the least-squares layer fitted without it, and what they teach."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from rankwise._arrays import blocks
from rankwise.linear.class_ridge import fit_temperature
from rankwise.linear.gram import Features, accumulate_gram
from rankwise.linear.ridge_choice import eigen_directions, left_out_residuals


def left_out_outputs(
    features: Features,
    targets: Float[np.ndarray, "n K"],
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
    projected = vectors.T @ statistics.cross
    found = []
    for block in blocks(len(targets)):
        rotated = features(block).astype(np.float64) @ vectors
        own = np.ones(len(rotated)) if weights is None else weights[block]
        residuals = left_out_residuals(
            rotated,
            targets[block],
            values,
            projected,
            np.array([ridge]),
            share=np.minimum(own, 1.0)[:, None],
        )
        found.append(targets[block] - residuals[:, 0])
    return np.concatenate(found)


def left_out_temperature(
    features: Features,
    targets: Float[np.ndarray, "n K"],
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
    return fit_temperature(outputs, targets.argmax(axis=1), weights)
