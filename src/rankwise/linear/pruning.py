"""Pruning: leave out the units that the glue doesn't need.

With ``G = ΦᵀΦ + μI`` and ``A = G⁻¹Φᵀτ``, leaving unit ``i`` out and solving anew raises the
regularised objective ``‖τ − ΦA‖² + μ‖A‖²`` by exactly

    δ_i = ‖a_i‖² / (G⁻¹)_ii,

and changes inverse and output layer by one rank-one update. So units are left out one by one, the
cheapest first, at a cost of ``m²`` each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg

from rankwise.linear.gram import GramStatistics
from rankwise.linear.ridge_choice import penalised_objective, threads_for


@dataclass(frozen=True)
class Pruned:
    """Which units stay.

    Attributes
    ----------
    kept : int array of shape (k,)
        Positions of the units that stay, increasing; the constant is none of them.
    coef : float64 array of shape (k + 1, K)
        The output layer solved for them, the constant's row last.
    cost : float64 array
        By how much the objective rose at each unit left out, in that order.
    order : int array
        The units left out, in that order.
    """

    kept: Int[np.ndarray, " k"]
    coef: Float[np.ndarray, "k1 K"]
    cost: Float[np.ndarray, " d"]
    order: Int[np.ndarray, " d"]


def prune(
    statistics: GramStatistics,
    ridge: float,
    *,
    n_units: int | None = None,
    tolerance: float | None = None,
) -> Pruned:
    """Leave out units, the cheapest first.

    Parameters
    ----------
    statistics : GramStatistics
        Of the features with a constant last, as `gram.accumulate_gram` gives them.
    ridge : float
        ``μ``, above 0.
    n_units : int, optional
        Stop at so many units.
    tolerance : float, optional
        Stop before the objective has risen by this share of its first value. With `n_units`,
        whichever comes first.

    Raises
    ------
    ValueError
        If neither is given, or a value isn't accepted.
    """
    m = len(statistics.gram) - 1
    if n_units is None and tolerance is None:
        raise ValueError("prune needs n_units or tolerance to know where to stop, got neither")
    if n_units is not None and not 1 <= n_units <= m:
        raise ValueError(f"n_units must be between 1 and {m}, got {n_units}")
    if not ridge > 0:
        raise ValueError(f"pruning needs a ridge above 0, got {ridge}")
    damped = statistics.gram.copy()
    damped.flat[:: m + 2] += ridge
    with threads_for(len(damped)):
        inverse = linalg.inv(damped, check_finite=False)
        coef = inverse @ statistics.cross
    budget = np.inf if tolerance is None else tolerance * penalised_objective(statistics, ridge)
    alive = np.ones(m + 1, dtype=bool)
    order: list[int] = []
    cost: list[float] = []
    while alive[:m].sum() > (n_units or 1):
        rise = np.sum(coef[:m] ** 2, axis=1) / np.diagonal(inverse)[:m]
        rise[~alive[:m]] = np.inf
        i = int(rise.argmin())
        if sum(cost) + rise[i] > budget:
            break
        column = inverse[:, i] / inverse[i, i]
        coef -= np.outer(column, coef[i])
        inverse -= np.outer(column, inverse[i])
        alive[i] = False
        # What is left of a unit left out is rounding.
        coef[i], inverse[i], inverse[:, i], inverse[i, i] = 0.0, 0.0, 0.0, 1.0
        order.append(i)
        cost.append(float(rise[i]))
    kept = np.flatnonzero(alive[:m])
    return Pruned(kept, coef[alive], np.array(cost), np.array(order, dtype=np.intp))
