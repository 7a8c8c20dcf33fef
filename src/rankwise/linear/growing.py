"""Growing: add the unit that lowers the functional most.

With ``Φ`` the features so far, ``P⊥`` the projector behind them (with ridge) and ``R = P⊥τ``, a
further feature ``φ`` with its best output weights lowers ``‖τ − ΦA‖² + μ‖A‖²`` by exactly

    ‖φᵀR‖² / (φᵀP⊥φ + μ).

Candidates are scored all at once, from inner products alone, so one pass over the samples does;
after each choice the scores follow by one Gram–Schmidt step, so a unit that resembles a chosen
one isn't chosen as well.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg

from rankwise.linear.gram import GramStatistics
from rankwise.linear.ridge_choice import threads_for


def choose_units(
    statistics: GramStatistics,
    candidates: Int[np.ndarray, " c"],
    n_units: int,
    *,
    ridge: float,
) -> tuple[Int[np.ndarray, " n_units"], Float[np.ndarray, " n_units"]]:
    """The candidates that lower the functional most, one after the other.

    Parameters
    ----------
    statistics : GramStatistics
        Of the features of the network so far, a constant among them, and of the candidates, as
        `gram.accumulate_gram` gives them.
    candidates : int array of shape (c,)
        Columns of the units to choose from; all others are the network so far.
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
    if not 1 <= n_units <= len(candidates):
        raise ValueError(
            f"n_units must be between 1 and the {len(candidates)} candidates, got {n_units}"
        )
    if not ridge > 0:
        raise ValueError(f"growing needs a ridge above 0, got {ridge}")
    have = np.setdiff1d(np.arange(len(statistics.gram)), candidates)
    damped = statistics.gram[np.ix_(have, have)]
    damped.flat[:: len(damped) + 1] += ridge
    cross = statistics.gram[np.ix_(have, candidates)]
    n_targets = statistics.cross.shape[1]
    # Inner products behind the projector: of candidates with the targets, and with each other.
    with threads_for(len(statistics.gram)):
        factor = linalg.cho_factor(damped)
        solved = linalg.cho_solve(factor, np.hstack([statistics.cross[have], cross]))
        with_targets = statistics.cross[candidates] - cross.T @ solved[:, :n_targets]
        gram = statistics.gram[np.ix_(candidates, candidates)] - cross.T @ solved[:, n_targets:]
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
