"""Sub-networks as one batched computation on a GPU: the same kernels with a leading group axis.

Groups draw as they do on a CPU; their Levenberg–Marquardt iterations run in step, members that
are done standing still. Windows differ between groups, so inactive parameters are masked here
instead of left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rankwise._arrays import Images, Targets
from rankwise.training.groups import (
    Subnet,
    SubnetPlan,
    draw_group,
    n_saturated,
    own_weights,
    variable_projection,
)
from rankwise.units.basis import UnitBasis
from rankwise.varpro.projection import FitResult
from rankwise.varpro.solvers import LevenbergMarquardt

_MEMORY_WITHOUT_GPU = 2 * 2**30


def train_batched(
    images: Images,
    targets: Targets,
    plan: SubnetPlan,
    seed: int,
    groups: Sequence[int],
    starts: Sequence[tuple[np.ndarray, np.ndarray] | None],
    device: str,
    weights: np.ndarray | None = None,
) -> Iterator[tuple[int, Subnet]]:
    """Train `groups` in batches as large as the device's memory takes.

    Parameters
    ----------
    images, targets, plan, seed
        As in `subnetworks.train_subnet`.
    groups : sequence of int
    starts : sequence, one entry for every group of the network
        Units to go on from, or None.
    device : str
        A torch device. ``"cpu:torch"`` runs the batched kernels on the CPU, for tests.
    weights : array of shape (n,), optional
        How often each image counts; default once.

    Yields
    ------
    (group, Subnet)

    Raises
    ------
    ValueError
        If the solver isn't Levenberg–Marquardt, the only one that takes a batch.
    """
    import torch

    if plan.solver != "levenberg-marquardt" and not isinstance(plan.solver, LevenbergMarquardt):
        raise ValueError(
            f"solver {plan.solver!r} runs on the CPU only; on a GPU use 'levenberg-marquardt'"
        )
    target_device = torch.device("cpu" if device == "cpu:torch" else device)
    size = _batch_size(plan, targets.shape[1], target_device)
    for first in range(0, len(groups), size):
        chunk = list(groups[first : first + size])
        drawn = [draw_group(images, plan, seed, g, starts[g], weights) for g in chunk]
        rows, batches, params, active = zip(*drawn, strict=True)

        def send(arrays: Sequence[np.ndarray]) -> Any:
            return torch.as_tensor(np.stack(arrays)).to(target_device)

        mask = send(active)
        own = None
        if weights is not None:
            own = send([w for r in rows if (w := own_weights(weights, r)) is not None])
        images_there = send(batches)
        basis = UnitBasis(
            plan.units, images_there, send(params), None if bool(mask.all()) else mask, own
        )
        tau = basis.weigh(send([targets[r] for r in rows]))
        fit = variable_projection(plan, len(rows[0])).fit(basis, tau, basis.pack(send(params)))
        found = basis.unpack(fit.params)
        features = plan.units.features(plan.units.flatten(images_there), found).cpu().numpy()
        fitted = found.to(torch.float64).cpu().numpy()
        for i, group in enumerate(chunk):
            report = _member_report(fit, i) | {
                "group": group,
                "n_saturated": n_saturated(features[i]),
            }
            yield group, Subnet(fitted[i], active[i], report)


def _member_report(fit: FitResult, i: int) -> dict[str, Any]:
    history = [{key: value[i] for key, value in entry.items()} for entry in fit.history]
    return {
        "status": fit.status[i],
        "n_iterations": fit.n_iterations,
        "n_evaluations": fit.n_evaluations,
        "objective": float(fit.objective[i]),
        "rank": int(fit.rank[i]),
        "condition": float(fit.condition[i]),
        "history": history,
    }


def _batch_size(plan: SubnetPlan, n_targets: int, device: Any) -> int:
    """Groups at a time: about three float64 ``P×P`` matrices and four ``n×P`` blocks each."""
    import torch

    n_params = plan.units.n_params * plan.n_units
    item = np.dtype(plan.dtype).itemsize
    each = 24 * n_params**2 + 4 * item * plan.n_samples * n_params
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free = free // 2
    else:
        free = _MEMORY_WITHOUT_GPU
    return max(1, int(free // each))
