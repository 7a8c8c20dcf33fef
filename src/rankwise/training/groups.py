"""A group: the plan of a sub-network, what it draws, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rankwise._arrays import Images, as_float
from rankwise._memory import available_memory
from rankwise.units.multilinear import Units
from rankwise.units.starts import Start, random_units
from rankwise.varpro.projection import VariableProjection
from rankwise.varpro.solvers import Solver


@dataclass(frozen=True)
class SubnetPlan:
    """What each sub-network is: its units, their start, its mini-batch and its solver.

    Parameters
    ----------
    units : Units
    n_units : int
        Units of one sub-network; the paper's Table 3 has 50.
    n_samples : int
        Mini-batch, drawn without replacement; Table 3 has 2000. Fewer where there are fewer.
    start : Start
    n_parts : int
        Above 0 the images are dealt out to so many sub-networks, none to two (second paper, 6.1);
        0 draws each mini-batch by itself (its section 4).
    solver, jacobian, max_iterations, ftol, rcond, squash
        As in `VariableProjection`.
    ridge : float
        Ridge of a sub-network's own output layer, per sample: ``μ = ridge·n``.
    dtype : {"float32", "float64"}
        Of the features and of the large products; factorisations are float64 in any case.
    """

    units: Units
    n_units: int = 50
    n_samples: int = 2000
    start: Start = field(default_factory=Start)
    n_parts: int = 0
    solver: str | Solver = "levenberg-marquardt"
    jacobian: str = "golub-pereyra"
    max_iterations: int | None = None
    ftol: float | None = None
    rcond: float | None = None
    squash: bool = False
    ridge: float = 1e-4
    dtype: str = "float32"


_MATRICES = 5  # of the solver's size at a time: JᵀJ, its two terms, the damped one, a factor


def check_room(plan: SubnetPlan, n_samples: int, n_classes: int, workers: int) -> None:
    """Refuse sub-networks that memory has no room for, before any of it is taken.

    A second-order solver holds a few matrices of ``(I·p)²`` numbers, for ``I`` units of ``p``
    parameters; MINPACK the dense Jacobian, of ``nK × I·p``; all of them derivatives of ``n × I·p``.

    Parameters
    ----------
    plan : SubnetPlan
    n_samples, n_classes : int
        Of the training images.
    workers : int
        Sub-networks at a time.

    Raises
    ------
    ValueError
        Naming what is needed, what is free and what needs less.
    """
    size, n = plan.n_units * plan.units.n_params, min(n_samples, plan.n_samples)
    needed = 2 * n * size * np.dtype(plan.dtype).itemsize
    if plan.solver in ("levenberg-marquardt", "trust-region"):
        needed += _MATRICES * 8 * size**2
    elif plan.solver == "minpack":
        needed += 2 * 8 * n * n_classes * size
    needed, free = needed * max(1, workers), available_memory()
    if needed > free:
        raise ValueError(
            f"sub-networks of {plan.n_units} units with {plan.units.n_params:,} parameters each "
            f"need about {needed // 2**30:,} GiB of memory and {free / 2**30:,.1f} GiB are free; "
            "smaller images, fewer units in a sub-network, fewer workers or solver 'lbfgs' need "
            "less"
        )


@dataclass(frozen=True)
class Subnet:
    """A trained sub-network: the units, and how its fit ended.

    Attributes
    ----------
    params : float64 array of shape (p, n_units)
    active : bool array of shape (p, n_units)
    report : dict
        ``status``, ``n_iterations``, ``n_evaluations``, ``objective``, ``rank``, ``condition``,
        ``n_saturated`` (units whose output is constant on the mini-batch) and ``history``.
    """

    params: np.ndarray
    active: np.ndarray
    report: dict[str, Any]


def group_rng(seed: int, group: int) -> np.random.Generator:
    """The generator of one group, from ``(seed, group)`` alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, group]))


def draw_group(
    images: Images,
    plan: SubnetPlan,
    seed: int,
    group: int,
    start: tuple[np.ndarray, np.ndarray] | None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a group starts from: its rows, their images, its units and which of them are active."""
    rng = group_rng(seed, group)
    if plan.n_parts:
        rows = dealt_samples(len(images), plan.n_samples, plan.n_parts, seed, group)
    else:
        rows = draw_samples(len(images), plan.n_samples, rng)
    batch = as_float(images[rows], plan.dtype)
    if start is None:
        own = own_weights(weights, rows)
        params, active = random_units(plan.units, plan.n_units, batch, plan.start, rng, own)
    else:
        params, active = start
    return rows, batch, params, active


def n_saturated(features: np.ndarray) -> int:
    """Units whose output is the same for the whole mini-batch, features being ``(n, I)``."""
    return int(np.sum(np.ptp(features, axis=0) < 1e-6))


def draw_samples(n: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A group's mini-batch: `n_samples` of `n` rows without replacement, in increasing order.

    Where there are no more than that it's all of them, and nothing is drawn, so that a row of
    weight 2 is the same as two rows.
    """
    if n <= n_samples:
        return np.arange(n)
    return np.sort(rng.choice(n, size=min(n_samples, n), replace=False))


def dealt_samples(n: int, n_samples: int, n_parts: int, seed: int, group: int) -> np.ndarray:
    """A group's share of `n` rows that are dealt out by the seed, at most `n_samples` of them.

    Raises
    ------
    ValueError
        If there are fewer rows than groups.
    """
    if n < n_parts:
        raise ValueError(
            f"a partition needs an image for each of {n_parts} sub-networks, got {n} images"
        )
    size = min(n_samples, n // n_parts)
    order = np.random.default_rng([seed, 0, 7]).permutation(n)
    return np.sort(order[group * size : (group + 1) * size])


def own_weights(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Weights of a mini-batch, of mean 1: its ridge counts per sample, so only ratios matter."""
    if weights is None:
        return None
    own = np.asarray(weights[rows], dtype=np.float64)
    return own / own.mean()


_PAPER = (15, 1e-4)
"""Steps and relative decrease: the paper reports convergence in about fifteen (6.1)."""
_BUDGETS: dict[str, tuple[int, float]] = {
    "levenberg-marquardt": _PAPER,
    "minpack": _PAPER,
    "trust-region": _PAPER,
}
"""Of sub-networks, which are never fitted to the last digit. Other solvers have their own."""


def variable_projection(plan: SubnetPlan, n: int) -> VariableProjection:
    """The fit that a plan asks for, on mini-batches of `n`."""
    budget, tolerance = None, None
    if isinstance(plan.solver, str) and plan.solver in _BUDGETS:
        budget, tolerance = _BUDGETS[plan.solver]
    return VariableProjection(
        plan.solver,
        jacobian=plan.jacobian,
        ridge=plan.ridge * n,
        max_iterations=budget if plan.max_iterations is None else plan.max_iterations,
        ftol=tolerance if plan.ftol is None else plan.ftol,
        rcond=plan.rcond,
        squash=plan.squash,
    )
