"""Growing and pruning a glued network: which units join, which are left out.

Both look at the regularised objective ``‖τ − ΦA‖² + μ‖A‖²`` of the glue on all images, with its
``μ`` held, and say exactly by how much it falls or rises (`growing`, `pruning`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rankwise._arrays import Images, Targets, as_float
from rankwise.linear.gram import accumulate_gram
from rankwise.linear.growing import choose_units
from rankwise.linear.output_layer import OutputLayer
from rankwise.linear.pruning import prune
from rankwise.linear.ridge_choice import penalised_objective
from rankwise.networks.quadratic import QuadraticNetwork, network_features
from rankwise.training.groups import SubnetPlan, draw_samples, own_weights
from rankwise.training.presets import NetworkPlan
from rankwise.units.starts import random_units

CANDIDATES = 10
"""Units drawn for each that joins."""


def select_units(
    network: QuadraticNetwork,
    layer: OutputLayer,
    active: np.ndarray,
    images: Images,
    targets: Targets,
    plan: NetworkPlan,
    glue: Callable[[np.ndarray, np.ndarray], tuple[QuadraticNetwork, OutputLayer]],
    *,
    seed: int,
    workers: int,
    weights: np.ndarray | None = None,
) -> tuple[QuadraticNetwork, OutputLayer, np.ndarray, dict[str, Any]]:
    """Let units join, then leave units out, as a plan asks; each ends in a glue.

    Parameters
    ----------
    network, layer, active
        The glued network, its output layer, its active parameters.
    images, targets
        All that the glue sees.
    plan : NetworkPlan
    glue : callable
        ``glue(params, active)`` solves the output layer anew.
    seed, workers : int
    weights : array of shape (n,), optional
        How often each image counts.

    Returns
    -------
    network, layer, active
        The same of the units selected.
    selection : dict
        As in `QuadraticClassifier`.
    """
    selection: dict[str, Any] = {}
    if plan.grow:
        params, active, gain = grow_network(
            network,
            active,
            images,
            targets,
            plan.subnet,
            plan.grow,
            ridge=layer.ridge,
            seed=seed,
            workers=workers,
            weights=weights,
        )
        network, layer = glue(params, active)
        selection |= {"grown": plan.grow, "gain": gain}
    if plan.prune:
        kept, rise = prune_network(
            network,
            images,
            targets,
            plan.prune,
            ridge=layer.ridge,
            workers=workers,
            weights=weights,
        )
        active = active[:, kept]
        network, layer = glue(network.params[:, kept], active)
        selection |= {"pruned": plan.prune, "rise": rise}
    return network, layer, active, selection


def grow_network(
    network: QuadraticNetwork,
    active: np.ndarray,
    images: Images,
    targets: Targets,
    plan: SubnetPlan,
    n_units: int,
    *,
    ridge: float,
    seed: int,
    workers: int = 1,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Let units join: of ten times as many, drawn as a sub-network starts, the best.

    Parameters
    ----------
    network : QuadraticNetwork
    active : bool array of shape (p, I)
    images : array of shape (n, *units.shape)
    targets : array of shape (n, K)
    plan : SubnetPlan
        How units start, and how many images they are scaled on.
    n_units : int
    ridge : float
        ``μ``, above 0.
    seed, workers : int
    weights : array of shape (n,), optional

    Returns
    -------
    params : array of shape (p, I + n_units)
    active : bool array of the same shape
    gain : float
        By how much the objective falls, as a share of what it was.
    """
    rng = np.random.default_rng([seed, 0, 5])
    rows = draw_samples(len(images), plan.n_samples, rng)
    batch, own = as_float(images[rows], plan.dtype), own_weights(weights, rows)
    drawn, seen = random_units(network.units, CANDIDATES * n_units, batch, plan.start, rng, own)
    drawn = drawn.astype(network.params.dtype)
    everything = np.concatenate([network.params, drawn], axis=1)
    statistics = accumulate_gram(
        network_features(network.units, everything, images),
        targets,
        weights=weights,
        workers=workers,
    )
    have = network.n_units
    candidates = np.arange(have, have + CANDIDATES * n_units)
    chosen, gains = choose_units(statistics, candidates, n_units, ridge=ridge)
    there = np.delete(np.arange(len(statistics.gram)), candidates)
    before = penalised_objective(statistics, ridge, there)
    return (
        np.concatenate([network.params, drawn[:, chosen]], axis=1),
        np.concatenate([active, seen[:, chosen]], axis=1),
        float(gains.sum()) / before,
    )


def prune_network(
    network: QuadraticNetwork,
    images: Images,
    targets: Targets,
    n_units: int,
    *,
    ridge: float,
    workers: int = 1,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Which units stay when so many are left out, the cheapest first.

    Parameters
    ----------
    network : QuadraticNetwork
    images : array of shape (n, *units.shape)
    targets : array of shape (n, K)
    n_units : int
        To leave out.
    ridge : float
        ``μ``, above 0.
    workers : int
    weights : array of shape (n,), optional

    Returns
    -------
    kept : int array of shape (I − n_units,)
    rise : float
        By how much the objective rises, as a share of what it was.
    """
    statistics = accumulate_gram(
        network_features(network.units, network.params, images),
        targets,
        weights=weights,
        workers=workers,
    )
    result = prune(statistics, ridge, n_units=network.n_units - n_units)
    before = penalised_objective(statistics, ridge)
    return result.kept, float(result.cost.sum()) / before
