"""Joint refinement of a glued network: all units together, by mini-batches or by Gauss–Newton."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankwise._arrays import Images, OneHot, Targets, as_float
from rankwise._threads import one_thread, thread_pool
from rankwise.linear.output_layer import OutputLayer
from rankwise.networks.quadratic import QuadraticNetwork, glue
from rankwise.training.augment import Augmentation, with_mirrors
from rankwise.training.checkpoints import CHECKPOINT, fit_key
from rankwise.training.groups import draw_samples
from rankwise.training.joint import JointTraining
from rankwise.training.joint_plan import JointPlan, JointResult
from rankwise.training.modules import UnitModule
from rankwise.varpro.newton import NewtonResult, refine_newton

RECIPE = JointPlan(
    batch_size=250, learning_rate=5e-3, smoothing=0.02, loss="squared", output_layer="running"
)
"""The usual recipe, with the output layer by variable projection."""

MOST_NUMBERS = 50_000_000
"""Of images and features that Gauss–Newton holds at once in float64, a few times over: 400 MB."""


def check_refinable(solver: str, shape: tuple[int, ...], weights: np.ndarray | None = None) -> None:
    """Refuse what a refinement can't take.

    Parameters
    ----------
    solver : {"adamw", "gauss-newton"}
    shape : tuple of int
        What units see of a sample.
    weights : array of shape (n,), optional

    Raises
    ------
    ValueError
        If mini-batches are no images, or weights for Gauss–Newton aren't all equal.
    """
    if solver == "adamw" and len(shape) not in (2, 3):
        raise ValueError(
            "joint refinement needs images (height, width) or (height, width, channels), got "
            f"shape {shape}"
        )
    if solver == "gauss-newton" and weights is not None and np.ptp(weights) > 0:
        raise ValueError(
            "Gauss–Newton steps count every image once; weights are taken by a refinement on "
            "mini-batches"
        )


def refine(
    network: QuadraticNetwork,
    active: np.ndarray,
    images: Images,
    encoded: np.ndarray,
    *,
    epochs: int,
    weights: np.ndarray | None = None,
    validation: tuple[Images, np.ndarray] | None = None,
    plan: JointPlan = RECIPE,
    moves: bool = True,
    ridge: float | str = "gcv",
    method: str = "auto",
    rcond: float | None = None,
    dtype: str = "float32",
    seed: int = 42,
    threads: int = 1,
    folder: Path | None = None,
    advance: Callable[[int], object] = lambda n: None,
    after_epoch: Callable[[dict[str, Any]], object] = lambda entry: None,
) -> tuple[QuadraticNetwork, OutputLayer, JointResult]:
    """Refine all units of a network together, then solve the output layer on all samples.

    Parameters
    ----------
    network : QuadraticNetwork
        Its units see images ``(H, W)`` or ``(H, W, C)``.
    active : bool array of shape (p, I)
        Parameters of the units to train.
    images : array of shape (n, H, W[, C])
    encoded : int array of shape (n,)
    epochs : int
    weights : array of shape (n,), optional
        How often each image counts.
    validation : tuple of (images, encoded), optional
        Chooses the epoch.
    plan : JointPlan
        Its epochs are replaced.
    moves : bool
        Without an augmentation of the plan, the recipe's affine maps and the mirror images that
        the classes survive.
    ridge, method, rcond, dtype
        Of the final glue, as `rankwise.networks.quadratic.glue` takes them.
    seed, threads : int
    folder : Path, optional
        Keeps every finished epoch.
    advance : callable
        Told the number of epochs done.
    after_epoch : callable
        Gets the entry of the history.

    Returns
    -------
    network : QuadraticNetwork
        The refined units under the glue; those of the start where no epoch had a finite loss.
    layer : OutputLayer
        The glue.
    result : JointResult

    Raises
    ------
    ValueError
        If the units see tensors that aren't images.
    """
    units = network.units
    check_refinable("adamw", units.shape)
    if plan.augmentation is None and moves:
        with one_thread():
            found = with_mirrors(Augmentation(), images, encoded, seed)
        plan = replace(plan, augmentation=found)
    plan = replace(plan, epochs=epochs, batch_size=min(plan.batch_size, max(32, len(images) // 40)))
    module = UnitModule(units, network.params.astype(np.float32), active)
    n_classes = network.coef.shape[1]
    training = JointTraining(module, plan, n_classes, coef=network.coef, seed=seed, workers=threads)
    checked = None if folder is None or validation is None else fit_key(*validation)
    others = (network.params, network.coef, active, checked)
    with one_thread():  # the running output layer's sums are this thread's
        result = training.fit(
            images,
            encoded,
            weights=weights,
            validation=validation,
            checkpoint=None if folder is None else folder / CHECKPOINT,
            key="" if folder is None else fit_key(images, encoded, plan, seed, *others, weights),
            advance=advance,
            after_epoch=after_epoch,
        )
    refined, layer = glue(
        units,
        module.values() if result.chosen_epoch else network.params,
        images,
        OneHot.of(encoded, n_classes),
        ridge=ridge,
        method=method,
        rcond=rcond,
        weights=weights,
        workers=threads,
        dtype=dtype,
        n_active=network.n_active,
    )
    return refined, layer, result


def refine_gauss_newton(
    network: QuadraticNetwork,
    active: np.ndarray,
    images: Images,
    targets: Targets,
    *,
    iterations: int,
    ridge: float,
    seed: int = 42,
    weights: np.ndarray | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> NewtonResult:
    """Refine all units by Gauss–Newton steps on all images at once; see `newton`.

    Parameters
    ----------
    network : QuadraticNetwork
    active : bool array of shape (p, I)
        Parameters of the units to train.
    images : array of shape (n, *units.shape)
        As many as fit into `MOST_NUMBERS` with their features; beyond, so many drawn with the
        seed.
    targets : array of shape (n, K)
    iterations : int
    ridge : float
        Per sample, above 0.
    seed : int
    weights : array of shape (n,), optional
        Aren't taken by these steps.
    advance : callable
        Told the number of steps done.

    Raises
    ------
    ValueError
        If weights are given that aren't all equal.
    """
    units = network.units
    check_refinable("gauss-newton", units.shape, weights)
    most = max(1, MOST_NUMBERS // (int(np.prod(units.shape)) + network.n_units))
    rows = draw_samples(len(images), most, np.random.default_rng([seed, 0, 6]))
    flat = torch.from_numpy(np.ascontiguousarray(units.flatten(as_float(images[rows], "float64"))))
    with thread_pool(1) as pool:
        return pool.submit(
            refine_newton,
            lambda params: units.features(flat, params),
            network.params,
            active,
            targets[rows],
            ridge=ridge,
            iterations=iterations,
            advance=advance,
        ).result()
