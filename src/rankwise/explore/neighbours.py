"""How near images are in their features: leading directions, distances, votes of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

REFERENCE = 10_000
"""Images that others are compared with at most: of more, every so many."""

_BLOCK = 4096
_VOTERS = 20
_DIRECTIONS = 128


def leading(chosen: Float[np.ndarray, "n m"], k: int) -> Any:
    """A PCA of the leading directions, at most `k`."""
    from sklearn.decomposition import PCA

    n, m = chosen.shape
    covariance = "covariance_eigh" if m <= 2000 else "randomized"
    # The covariance has the longer side, squared, where images are fewer than features.
    solver = "full" if n < m else covariance
    return PCA(min(k, m, n - 1), svd_solver=solver, random_state=0).fit(chosen)


def nearest(
    points: Float[np.ndarray, "n d"],
    reference: Float[np.ndarray, "r d"],
    own: Int[np.ndarray, "n"],
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to, and positions of, the `k` nearest of some reference points, (n, k) each.

    Parameters
    ----------
    points, reference : arrays of shape (n, d) and (r, d)
        More than `k` reference points.
    own : int array of shape (n,)
        A position in `reference` that isn't a point's neighbour; −1 for none.
    k : int
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(reference)
    lengths, near = search.kneighbors(points)
    itself = near == own[:, None]
    itself[~itself.any(axis=1), -1] = True
    return lengths[~itself].reshape(-1, k), near[~itself].reshape(-1, k)


def votes(
    features: np.ndarray, truth: Int[np.ndarray, "n"], voters: Int[np.ndarray, "r"],
    twin: Int[np.ndarray, "n"], n_classes: int,
) -> Float[np.ndarray, "n K"]:  # fmt: skip
    """Shares of the classes among the images that are nearest to each.

    In square roots of the features, which keep their sign, and of these the leading directions:
    pooled features are sums of counts, whose roots are about equally noisy.

    Parameters
    ----------
    features : array of shape (n, m)
    truth : int array of shape (n,)
        Labels; those of `voters` count.
    voters : int array of shape (r,)
        Rows, in increasing order.
    twin : int array of shape (n,)
        The row that doesn't vote for each: its own, or that of the same picture.
    n_classes : int
    """
    voters = voters[:: -(-len(voters) // REFERENCE)]
    k = min(_VOTERS, len(voters) - 1)
    if k < 1:
        return np.zeros((len(truth), n_classes))
    directions = leading(_roots(features[voters]), _DIRECTIONS)
    points = np.concatenate(
        [
            directions.transform(_roots(features[i : i + _BLOCK]))
            for i in range(0, len(features), _BLOCK)
        ]
    ).astype(np.float32)
    place = np.full(len(truth), -1)
    place[voters] = np.arange(len(voters))
    near = nearest(points, points[voters], place[twin], k)[1]
    found = np.zeros((len(truth), n_classes))
    labels = truth[voters][near]
    for column in range(k):
        found[np.arange(len(truth)), labels[:, column]] += 1.0 / k
    return found


def _roots(features: np.ndarray) -> np.ndarray:
    part = np.asarray(features, np.float32)
    return np.sign(part) * np.sqrt(np.abs(part))
