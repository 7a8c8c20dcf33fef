"""Linear least squares within bounds, for many right-hand sides at once.

Each right-hand side has a pattern of linear parameters that are free, at the lower or at the upper
bound. Those of one pattern share a factorisation. Patterns are found by block principal pivoting
(Portugal, Júdice and Vicente 1994; for bounds Júdice and Pires 1992): all parameters that violate
their bound, or whose multiplier has the wrong sign, change sides at once, and one at a time
(Murty's rule) where that doesn't help. Of what still isn't settled, SciPy's BVLS finds it.

At a solution a pattern stays as it is in a neighbourhood, so with ``F`` free and ``B`` at bounds
``r = P⊥_F(τ − Φ_B a_B)``, and the variable projection formulas hold with the projector and the
inverse of ``Φ_F`` alone, and with *all* of ``a``: this is the exact derivative.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import optimize

from rankwise.varpro.functional import Projection

AT_LOWER, FREE, AT_UPPER = -1, 0, 1
_PATIENCE = 3


def solve_within(
    triangle: np.ndarray,
    rotated: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    state: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``min ‖c − R·a‖`` with ``l ≤ a ≤ u``, column by column.

    Parameters
    ----------
    triangle : array of shape (r, m)
        ``R``, of a QR factorisation of ``Φ`` (or ``Φ`` itself).
    rotated : array of shape (r, K)
        ``c = Qᵀτ``.
    lower, upper : arrays of shape (m, K)
    state : int array of shape (m, K), optional
        A pattern to start from.

    Returns
    -------
    solution : array of shape (m, K)
    state : int8 array of shape (m, K)
        -1 at the lower bound, 0 free, 1 at the upper.
    """
    m, k = triangle.shape[1], rotated.shape[1]
    pinned = lower == upper
    if state is None:
        state = np.zeros((m, k), dtype=np.int8)
    state = np.where((state == AT_LOWER) & np.isneginf(lower), FREE, state)
    state = np.where((state == AT_UPPER) & np.isposinf(upper), FREE, state)
    state = np.where(pinned, AT_LOWER, state).astype(np.int8)
    solution = np.zeros((m, k))
    fewest, patience = np.full(k, m + 1), np.full(k, _PATIENCE)
    norms = np.linalg.norm(triangle, axis=0)
    open_columns = np.arange(k)
    for _ in range(20 + 10 * m):
        part = state[:, open_columns]
        found, pull = _solve_patterns(
            triangle, rotated[:, open_columns], part, lower[:, open_columns], upper[:, open_columns]
        )
        solution[:, open_columns] = found
        slack = 1e-13 * norms[:, None] * np.linalg.norm(rotated[:, open_columns], axis=0)
        below = (part == FREE) & (found < lower[:, open_columns])
        above = (part == FREE) & (found > upper[:, open_columns])
        released = ((part == AT_LOWER) & (pull > slack)) | ((part == AT_UPPER) & (pull < -slack))
        released &= ~pinned[:, open_columns]
        wrong = below | above | released
        count = wrong.sum(axis=0)
        unsettled = count > 0
        if not unsettled.any():
            return solution, state
        better = count < fewest[open_columns]
        fewest[open_columns] = np.where(better, count, fewest[open_columns])
        left = np.where(better, _PATIENCE, patience[open_columns] - 1)
        patience[open_columns] = left
        one_only = left < 0
        last = m - 1 - np.argmax(wrong[::-1], axis=0)
        wrong &= ~one_only | (np.arange(m)[:, None] == last)
        part = np.where(wrong & below, AT_LOWER, part)
        part = np.where(wrong & above, AT_UPPER, part)
        part = np.where(wrong & released, FREE, part).astype(np.int8)
        state[:, open_columns] = part
        open_columns = open_columns[unsettled]
    for j in open_columns:
        result = optimize.lsq_linear(
            triangle,
            rotated[:, j],
            (lower[:, j], np.where(pinned[:, j], np.nextafter(upper[:, j], np.inf), upper[:, j])),
            method="bvls",
        )
        solution[:, j], state[:, j] = result.x, result.active_mask
        state[pinned[:, j], j] = AT_LOWER
        solution[pinned[:, j], j] = lower[pinned[:, j], j]
    return solution, state


def projections_within(
    features: np.ndarray,
    targets: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    ridge: float,
    rcond: float,
    equilibrate: bool,
    state: np.ndarray | None = None,
) -> tuple[np.ndarray, Iterator[tuple[np.ndarray, Projection, np.ndarray]]]:
    """Eliminate the linear parameters within bounds.

    Parameters
    ----------
    features : array of shape (n, m)
    targets : array of shape (n, K)
    lower, upper : arrays of shape (m, K)
    ridge, rcond, equilibrate
        As in `functional.project`.
    state : int array of shape (m, K), optional
        A pattern to start from.

    Returns
    -------
    state : int8 array of shape (m, K)
    projections : iterator of (columns, Projection, free)
        One for each pattern: which right-hand sides have it, their projection (``coef`` with what
        is at bounds, ``left``, ``filters`` and ``inverse_gram`` of the free ones), which are free.
    """
    m = features.shape[1]
    norms = np.linalg.norm(features, axis=0) if equilibrate else np.ones(m)
    norms[norms == 0] = 1.0
    q, r = np.linalg.qr(features / norms)
    rotated = q.T @ targets
    stacked, right = r, rotated
    if ridge > 0:
        stacked = np.vstack([r, np.sqrt(ridge) * np.eye(m)])
        right = np.vstack([rotated, np.zeros((m, targets.shape[1]))])
    scaled, state = solve_within(
        stacked, right, lower * norms[:, None], upper * norms[:, None], state
    )
    solution = np.clip(scaled / norms[:, None], lower, upper)

    def projections() -> Iterator[tuple[np.ndarray, Projection, np.ndarray]]:
        for columns, pattern in patterns(state):
            free = pattern == FREE
            u, s, vt = np.linalg.svd(r[:, free], full_matrices=False)
            kept = s > rcond * s.max(initial=0.0)
            safe = np.where(kept, s * s + ridge, 1.0)
            inverse = np.zeros((m, m))
            part = (vt.T * np.where(kept, 1 / safe, 0.0)) @ vt
            inverse[np.ix_(free, free)] = part / np.outer(norms[free], norms[free])
            coef = solution[:, columns]
            residual = targets[:, columns] - features @ coef
            smallest = s[kept].min(initial=np.inf)
            yield (
                columns,
                Projection(
                    left=q @ u,
                    filters=np.where(kept, s * s, 0.0) / safe,
                    coef=coef,
                    residual=residual,
                    inverse_gram=inverse,
                    objective=0.5 * (np.sum(residual**2) + ridge * np.sum(coef**2)),
                    rank=int(kept.sum()),
                    condition=float(s.max(initial=0.0) / smallest) if kept.any() else 1.0,
                ),
                free,
            )

    return state, projections()


def patterns(state: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Columns that share a pattern, and the pattern."""
    kinds, which = np.unique(state, axis=1, return_inverse=True)
    which = which.ravel()
    for i in range(kinds.shape[1]):
        yield np.flatnonzero(which == i), kinds[:, i]


def _solve_patterns(
    triangle: np.ndarray,
    rotated: np.ndarray,
    state: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Free parameters solved for, the others at their bounds; and ``Rᵀ(c − R·a)``."""
    solution = np.where(state == AT_LOWER, lower, np.where(state == AT_UPPER, upper, 0.0))
    for columns, pattern in patterns(state):
        free = pattern == FREE
        if not free.any():
            continue
        held = triangle[:, ~free] @ solution[np.ix_(~free, columns)]
        found = np.linalg.pinv(triangle[:, free]) @ (rotated[:, columns] - held)
        solution[np.ix_(free, columns)] = found
    return solution, triangle.T @ (rotated - triangle @ solution)
