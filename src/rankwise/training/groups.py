"""A group: the plan of a sub-network, what it draws, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rankwise._arrays import Images, as_float
from rankwise.units.multilinear import Units
from rankwise.units.starts import Start, random_units
from rankwise.varpro.projection import VariableProjection


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
    solver, jacobian, max_iterations, ftol
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
    solver: str = "levenberg-marquardt"
    jacobian: str = "golub-pereyra"
    max_iterations: int | None = None
    ftol: float | None = None
    ridge: float = 1e-4
    dtype: str = "float32"


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a group starts from: its rows, their images, its units and which of them are active."""
    rng = group_rng(seed, group)
    rows = draw_samples(len(images), plan.n_samples, rng)
    batch = as_float(images[rows], plan.dtype)
    if start is None:
        params, active = random_units(plan.units, plan.n_units, batch, plan.start, rng)
    else:
        params, active = start
    return rows, batch, params, active


def n_saturated(features: np.ndarray) -> int:
    """Units whose output is the same for the whole mini-batch, features being ``(n, I)``."""
    return int(np.sum(np.ptp(features, axis=0) < 1e-6))


def draw_samples(n: int, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A group's mini-batch: `n_samples` of `n` rows without replacement, in increasing order."""
    return np.sort(rng.choice(n, size=min(n_samples, n), replace=False))


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
    budget, tolerance = _BUDGETS.get(plan.solver, (None, None))
    return VariableProjection(
        plan.solver,
        jacobian=plan.jacobian,
        ridge=plan.ridge * n,
        max_iterations=budget if plan.max_iterations is None else plan.max_iterations,
        ftol=tolerance if plan.ftol is None else plan.ftol,
    )
