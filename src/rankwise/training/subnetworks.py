"""Sub-networks: small networks on mini-batches of their own, trained to the end, never talking.

Each of ``G`` groups draws its samples and its units from ``(seed, group)`` alone (paper,
section 4), so any number of workers, any order and any interruption give the same result. Only
the units' parameters leave a group; the glue is in `output_layer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._arrays import Images, Targets
from rankwise._files import atomic_path
from rankwise._reading import parse_json
from rankwise._threads import one_thread
from rankwise.cluster import elsewhere, engine
from rankwise.errors import RunError
from rankwise.training.checkpoints import fit_key, timed_on_disk
from rankwise.training.groups import (
    Subnet,
    SubnetPlan,
    draw_group,
    n_saturated,
    own_weights,
    variable_projection,
)
from rankwise.units.basis import UnitBasis


def train_subnet(
    images: Images,
    targets: Targets,
    plan: SubnetPlan,
    seed: int,
    group: int,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    weights: np.ndarray | None = None,
) -> Subnet:
    """Draw and train one group on one BLAS thread.

    Parameters
    ----------
    images : array of shape (n, *plan.units.shape)
        All training images, uint8 or floating point; only the mini-batch is copied.
    targets : array of shape (n, K)
    plan : SubnetPlan
    seed, group : int
    start : (params, active), optional
        Trained units to go on from, as in bootstrapping, instead of random ones.
    weights : array of shape (n,), optional
        How often each image counts; default once.
    """
    with one_thread():
        rows, batch, params, active = draw_group(images, plan, seed, group, start, weights)
        own = own_weights(weights, rows)
        basis = UnitBasis(plan.units, batch, params, None if active.all() else active, own)
        projection = variable_projection(plan, len(rows))
        fit = projection.fit(basis, basis.weigh(targets[rows]), basis.pack(params))
        features = plan.units.features(plan.units.flatten(batch), basis.unpack(fit.params))
    report = {
        "group": group,
        "status": fit.status,
        "n_iterations": fit.n_iterations,
        "n_evaluations": fit.n_evaluations,
        "objective": fit.objective,
        "rank": fit.rank,
        "condition": fit.condition,
        "n_saturated": n_saturated(features),
        "history": fit.history,
    }
    return Subnet(basis.unpack(fit.params).astype(np.float64), active, report)


def train_subnets(
    images: Images,
    targets: Targets,
    plan: SubnetPlan,
    n_subnets: int,
    *,
    seed: int = 42,
    workers: int = 1,
    device: str = "cpu",
    starts: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    weights: np.ndarray | None = None,
    folder: Path | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> list[Subnet]:
    """Train all groups: tasks on CPUs (`rankwise.cluster`), or batches in step on a GPU.

    Parameters
    ----------
    images, targets, plan, seed, weights
        As in `train_subnet`.
    n_subnets : int
        ``G``; the paper's Table 3 has 104.
    workers : int
        Tasks at a time, as joblib counts them, unless ``rankwise.cluster`` surrounds the call.
    device : str
        ``"cpu"``, or a torch device such as ``"cuda"``.
    starts : sequence of (params, active), optional
        One a group, to go on from.
    folder : Path, optional
        Finished groups are kept here, written atomically by this process, and not trained again;
        so is the time that they took.
    advance : callable
        Told the number of groups just done.

    Returns
    -------
    list of Subnet
        In the order of the groups.

    Raises
    ------
    RunError
        If `folder` holds sub-networks of another fit: other images, targets, plan, seed, start,
        kind of device or version of the package.
    """
    kind = device.split(":")[0]
    key = None if folder is None else fit_key(images, targets, plan, seed, starts, kind, weights)
    done = {} if folder is None else _finished(folder, n_subnets, key)
    advance(len(done))
    missing = [g for g in range(n_subnets) if g not in done]
    begins = [None] * n_subnets if starts is None else list(starts)
    timed = nullcontext(lambda: None) if folder is None else timed_on_disk(folder, key)
    with timed as keep_seconds:
        for group, subnet in _trained(
            images, targets, plan, seed, missing, begins, weights, workers, device
        ):
            if folder is not None:
                write_subnet(folder, group, subnet, key)
            done[group] = subnet
            keep_seconds()
            advance(1)
    return [done[g] for g in range(n_subnets)]


def _trained(
    images: Images,
    targets: Targets,
    plan: SubnetPlan,
    seed: int,
    groups: list[int],
    begins: list[Any],
    weights: np.ndarray | None,
    workers: int,
    device: str,
) -> Iterator[tuple[int, Subnet]]:
    """Groups as they finish."""
    if not groups:
        return
    if device != "cpu":
        from rankwise.training.batched import train_batched

        yield from train_batched(images, targets, plan, seed, groups, begins, device, weights)
        return
    items = [(group, begins[group]) for group in groups]
    common = (images, targets, plan, seed, weights)
    for number, subnet in engine(workers).completed(_task, items, common, stay=True):
        yield groups[number], subnet


def _task(common: tuple[Any, ...], item: tuple[int, Any]) -> Subnet:
    images, targets, plan, seed, weights = common
    group, start = item
    return train_subnet(images, targets, plan, seed, group, start, weights)


def write_subnet(folder: Path, group: int, subnet: Subnet, key: str | None = None) -> None:
    """Keep a finished group, so that an interrupted fit, known by its key, goes on from it."""
    from safetensors.numpy import save_file

    with atomic_path(folder / f"{group:05d}.safetensors") as temporary:
        save_file(
            {"params": subnet.params, "active": subnet.active.astype(np.uint8)},
            temporary,
            metadata={"report": json.dumps(subnet.report), "key": key or ""},
        )


def read_subnet(path: Path, key: str | None = None) -> Subnet:
    """Read a group written by `write_subnet`; with a key, only if it's that fit's."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if key is not None and metadata["key"] != key:
            raise RunError(
                f"{path.parent} holds sub-networks of another fit (other images, labels, settings, "
                "seed, device or version); use another folder, or empty this one"
            )
        report = parse_json(metadata["report"])
        return Subnet(file.get_tensor("params"), file.get_tensor("active").astype(bool), report)


def _finished(folder: Path, n_subnets: int, key: str | None) -> dict[int, Subnet]:
    from safetensors import SafetensorError

    done = {}
    for group in range(n_subnets):
        path = folder / f"{group:05d}.safetensors"
        if path.exists():
            # A damaged file is as good as none: its group is trained again.
            with suppress(SafetensorError, LookupError, TypeError, ValueError, AttributeError):
                done[group] = read_subnet(path, key)
    return done


def stack(subnets: Sequence[Subnet]) -> tuple[np.ndarray, np.ndarray]:
    """Units of all sub-networks side by side: parameters and active ones, each ``(p, I)``."""
    params = _params_of(*subnets)
    away = elsewhere()
    if away is not None:
        away.same(params, _params_of, subnets)  # what workers have trained isn't sent back to them
    return params, np.concatenate([s.active for s in subnets], axis=1)


def _params_of(*subnets: Subnet) -> np.ndarray:
    return np.concatenate([s.params for s in subnets], axis=1)
