"""Recipes with a name: every choice of a network in one place, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

from rankwise.varpro.starts import WINDOW


@dataclass(frozen=True)
class Preset:
    """Every choice that makes a network; `QuadraticClassifier` takes what isn't given from here.

    Parameters
    ----------
    unit, activation, rank
        As in `varpro.make_units`.
    window, smooth
        As in `varpro.Start`.
    n_units : int or None
        Units of the whole network; None sizes the network to the data, `sized_to_data`.
    n_subnets : int or None
        Sub-networks that share them.
    samples_per_subnet : int
        Mini-batch of a sub-network.
    solver, jacobian, max_iter, tol
        As in `VariableProjection`.
    subnet_ridge : float
        Ridge of a sub-network's own output layer, per sample.
    ridge : float or str
        Ridge of the glue: a number per sample, ``"gcv"`` or ``"loo"``.
    n_train : int or None
        Training images that the command line draws, where a source has more.
    """

    unit: str
    activation: str
    rank: int
    window: tuple[float, float] | None
    smooth: int
    n_units: int | None
    n_subnets: int | None
    samples_per_subnet: int
    solver: str
    jacobian: str
    max_iter: int
    tol: float
    subnet_ridge: float
    ridge: float | str
    n_train: int | None


PRESETS: dict[str, Preset] = {
    # Paper, Table 3 and section 6.1, with its Kaufman Jacobian (section 3). The paper solves the
    # output layer by a truncated pseudo-inverse; here a ridge is chosen on the training images.
    "pereyra": Preset(
        unit="symmetric",
        activation="tanh",
        rank=1,
        window=None,
        smooth=0,
        n_units=5200,
        n_subnets=104,
        samples_per_subnet=2000,
        solver="levenberg-marquardt",
        jacobian="kaufman",
        max_iter=15,
        tol=1e-4,
        subnet_ridge=0.0,
        ridge="gcv",
        n_train=50_000,
    ),
    # The same scheme and size with units and a Jacobian that work better. Six iterations: beyond,
    # the sub-networks fit their 2000 samples more closely and the whole generalises worse
    # (``docs/results.md``, ablation, on validation images).
    "windowed": Preset(
        unit="bilinear",
        activation="tanh",
        rank=1,
        window=WINDOW,
        smooth=1,
        n_units=5200,
        n_subnets=104,
        samples_per_subnet=2000,
        solver="levenberg-marquardt",
        jacobian="golub-pereyra",
        max_iter=6,
        tol=1e-4,
        subnet_ridge=1e-4,
        ridge="gcv",
        n_train=None,
    ),
}

UNITS_PER_SUBNET = 50
"""The paper's Table 3."""

_SAMPLES_PER_SIZE = 500
_MOST_SUBNETS = 40


def sized_to_data(n_samples: int) -> int:
    """Sub-networks of 50 units for a data set of any size: one for 500 samples, at most 40.

    2000 units at the most: beyond, on MNIST, the glue costs more than the units bring
    (``docs/results.md``).
    """
    return max(1, min(_MOST_SUBNETS, round(n_samples / _SAMPLES_PER_SIZE)))
