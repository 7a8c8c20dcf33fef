"""Growing: add the unit that lowers the functional most.

With ``Φ`` the features so far, ``P⊥`` the projector behind them (with ridge) and ``R = P⊥τ``, a
further feature ``φ`` with its best output weights lowers ``‖τ − ΦA‖² + μ‖A‖²`` by exactly

    ‖φᵀR‖² / (φᵀP⊥φ + μ).

Candidates are scored all at once; after each choice the scores follow by one Gram–Schmidt step,
so a unit that resembles a chosen one isn't chosen as well.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg


def choose_units(
    features: Float[np.ndarray, "n m"],
    candidates: Float[np.ndarray, "n c"],
    targets: Float[np.ndarray, "n K"],
    n_units: int,
    *,
    ridge: float,
) -> tuple[Int[np.ndarray, " n_units"], Float[np.ndarray, " n_units"]]:
    """The candidates that lower the functional most, one after the other.

    Parameters
    ----------
    features : array of shape (n, m)
        Of the network so far, a constant among them.
    candidates : array of shape (n, c)
        Features of the units to choose from, on the same samples.
    targets : array of shape (n, K)
    n_units : int
        How many to choose, at most c.
    ridge : float
        ``μ``, above 0.

    Returns
    -------
    chosen : int array of shape (n_units,)
        Positions among the candidates, the best first.
    gains : float64 array of shape (n_units,)
        By how much each lowered the functional.

    Raises
    ------
    ValueError
        If there are fewer candidates, or the ridge isn't positive.
    """
    if not 1 <= n_units <= candidates.shape[1]:
        raise ValueError(
            f"n_units must be between 1 and the {candidates.shape[1]} candidates, got {n_units}"
        )
    if not ridge > 0:
        raise ValueError(f"growing needs a ridge above 0, got {ridge}")
    features, candidates, targets = (a.astype(np.float64) for a in (features, candidates, targets))
    damped = features.T @ features
    damped.flat[:: len(damped) + 1] += ridge
    factor = linalg.cho_factor(damped)
    cross = features.T @ candidates
    # Inner products behind the projector: of candidates with the targets, and with each other.
    with_targets = candidates.T @ targets - cross.T @ linalg.cho_solve(factor, features.T @ targets)
    gram = candidates.T @ candidates - cross.T @ linalg.cho_solve(factor, cross)
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < n_units:
        norms = np.maximum(np.diagonal(gram), 0.0) + ridge
        score = np.sum(with_targets**2, axis=1) / norms
        score[chosen] = -np.inf
        best = int(score.argmax())
        chosen.append(best)
        gains.append(float(score[best]))
        column = gram[:, best].copy()
        row = with_targets[best].copy()
        with_targets -= np.outer(column, row) / norms[best]
        gram -= np.outer(column, column) / norms[best]
    return np.array(chosen, dtype=np.intp), np.array(gains)
