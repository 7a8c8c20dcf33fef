"""A whole fit, from images and labels to a network: sub-networks and glue, or units together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._arrays import Images, OneHot, chosen
from rankwise._progress import progress_bar
from rankwise.cluster import on_workers
from rankwise.linear.class_ridge import fit_temperature
from rankwise.linear.left_out import left_out_temperature
from rankwise.linear.output_layer import OutputLayer
from rankwise.networks.quadratic import QuadraticNetwork, glue, network_features
from rankwise.training.checkpoints import earlier_seconds
from rankwise.training.convolutional_presets import parts_of
from rankwise.training.groups import check_room
from rankwise.training.presets import NetworkPlan
from rankwise.training.selection import select_units
from rankwise.training.subnetworks import stack, train_subnets
from rankwise.training.validation import validation_split

if TYPE_CHECKING:
    from rankwise.networks.convolutional import ConvolutionalNetwork
    from rankwise.training.joint_plan import JointResult

_WORST_FIRST = (
    "non-finite",
    "stalled",
    "max-iterations",
    "converged",
    "start-kept",
    "early-stop",
    "finished",
)


@dataclass
class Fitted:
    """A network, and how its fit went.

    Attributes
    ----------
    network : QuadraticNetwork or ConvolutionalNetwork
    status : str
        The worst of `statuses`.
    statuses : dict
        How many parts (sub-networks, and the joint training or refinement) ended with which
        status. A refinement whose start is better on validation images is ``"start-kept"``.
    n_iter : int
        Most iterations of a sub-network, or epochs.
    ridge, rank, condition : float, int, float
        Of the glue; the ridge is per sample.
    seconds : dict
        Of each stage, and ``total``; of these, ``earlier`` went by before interruptions.
    reports : list of dict
        Of each sub-network.
    history : list of dict
        Epochs of joint training, see `joint_plan.JointResult`; or the ``objective`` at the start
        and after each ``iteration`` of Gauss–Newton.
    selection : dict
        What growing and pruning did; see `QuadraticClassifier`. Empty without them.
    precision : {"float32", "bfloat16"} or None
        What joint training computed in.
    mirror : bool or None
        Whether mirror images were found to be images of the same class; None if nobody asked.
    output_layer : {"glue", "trained"}
        Which output layer the network has.
    temperature : float or None
        Of calibrated probabilities, where they were asked for: fitted on outputs for the
        validation part or, where there is none, for each training image of the glue without it.
    subnets : list of (params, active)
        To go on from.
    """

    network: QuadraticNetwork | ConvolutionalNetwork
    status: str
    statuses: dict[str, int]
    n_iter: int
    ridge: float
    rank: int
    condition: float
    seconds: dict[str, float]
    reports: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    precision: str | None = None
    mirror: bool | None = None
    output_layer: str = "glue"
    selection: dict[str, Any] = field(default_factory=dict)
    temperature: float | None = None
    subnets: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


def fit_subnetworks(
    images: Images,
    encoded: np.ndarray,
    n_classes: int,
    plan: NetworkPlan,
    *,
    seed: int,
    workers: int,
    threads: int,
    device: str,
    dtype: str,
    weights: np.ndarray | None = None,
    folder: Path | None = None,
    starts: list[tuple[np.ndarray, np.ndarray]] | None = None,
    progress: bool = False,
    calibrate: bool = False,
    groups: np.ndarray | None = None,
    validation_rows: np.ndarray | None = None,
    low_rank: Callable[..., Any] | None = None,
) -> Fitted:
    """Train sub-networks independently, then glue them (paper, section 4).

    Where the plan asks for it, units then join and are left out (`selection`), and all are
    refined together (`refinement`). A refinement on mini-batches looks at a validation part, as
    `convolutional_fitting` has it, that nothing before it has seen either.

    Parameters
    ----------
    images : array of shape (n, *shape)
    encoded : int array of shape (n,)
    n_classes : int
    plan : NetworkPlan
    seed : int
    workers, threads : int
        Sub-networks at a time, as joblib counts them; threads of the glue.
    device, dtype : str
        As in `QuadraticClassifier`.
    weights : array of shape (n,), optional
        How often each image counts, above 0; default once.
    folder : Path, optional
        Keeps finished sub-networks.
    starts : list of (params, active), optional
        Units to go on from.
    progress : bool
    calibrate : bool
        Fit a temperature; see `Fitted`.
    groups : array of shape (n,), optional
        Sources; the validation part shares none with the rest.
    validation_rows : bool array of shape (n,), optional
        The validation part, in the place of one that is cut off. It is never trained on.
    low_rank : callable, optional
        What makes low-rank copies where the plan has them; see `JointPlan.extra`.
    """
    used: Images = images
    validation = None
    judged = bool(plan.refine) and plan.refine_solver == "adamw"
    if judged or validation_rows is not None:
        fit, held_out = validation_split(encoded, seed, groups, validation_rows)
        if len(held_out):
            validation = (chosen(images, held_out), encoded[held_out]) if judged else None
            used, encoded = chosen(images, fit), encoded[fit]
            weights = None if weights is None else weights[fit]
    n_seen = len(used) if weights is None else float(np.sum(weights))
    if weights is not None and plan.subnet.squash:
        raise ValueError(
            "squashing inside the functional takes no sample or class weights; leave one of them "
            "out"
        )
    if plan.refine:
        from rankwise.training.refinement import check_refinable

        check_refinable(plan.refine_solver, plan.subnet.units.shape, weights)
    if device == "cpu":
        check_room(plan.subnet, len(used), n_classes, min(plan.n_subnets, threads))
    targets = OneHot.of(encoded, n_classes)
    begin = time.perf_counter()
    taking = on_workers("sub-networks", processes=True) if device == "cpu" else "sub-networks"
    with progress_bar(taking, plan.n_subnets, enabled=progress) as advance:
        subnets = train_subnets(
            used,
            targets,
            plan.subnet,
            plan.n_subnets,
            seed=seed,
            workers=workers,
            device=device,
            starts=starts,
            weights=weights,
            folder=folder,
            advance=advance,
        )
    trained = time.perf_counter()
    params, active = stack(subnets)
    ridge = plan.ridge

    def glue_all(params: np.ndarray, active: np.ndarray) -> tuple[QuadraticNetwork, OutputLayer]:
        with progress_bar(on_workers("glue"), len(used), enabled=progress) as advance:
            return glue(
                plan.subnet.units,
                params,
                used,
                targets,
                ridge=ridge if isinstance(ridge, str) else ridge * n_seen,
                method=plan.glue_method,
                rcond=plan.glue_rcond,
                weights=weights,
                workers=threads,
                dtype=dtype,
                n_active=int(active.sum()),
                advance=advance,
            )

    network, layer = glue_all(params, active)
    glued = time.perf_counter()
    network, layer, active, selection = select_units(
        network,
        layer,
        active,
        used,
        targets,
        plan,
        glue_all,
        seed=seed,
        workers=threads,
        weights=weights,
    )
    selected = time.perf_counter()
    history: list[dict[str, Any]] = []
    refinement: list[str] = []
    before = 0.0 if folder is None else earlier_seconds(folder)
    before_joint = 0.0
    if plan.refine and plan.refine_solver == "gauss-newton":
        from rankwise.training.refinement import refine_gauss_newton

        with progress_bar("Gauss–Newton steps", plan.refine, enabled=progress) as advance:
            result = refine_gauss_newton(
                network,
                active,
                used,
                targets,
                iterations=plan.refine,
                ridge=layer.ridge / n_seen,
                seed=seed,
                weights=weights,
                advance=advance,
            )
        history = [{"iteration": i, "objective": f} for i, f in enumerate(result.objectives)]
        network, layer = glue_all(result.params, active)
        refinement = [result.status]
    elif plan.refine:
        refined, refined_layer, joint = _refined(
            network,
            active,
            used,
            encoded,
            plan,
            weights=weights,
            validation=validation,
            seed=seed,
            threads=threads,
            dtype=dtype,
            folder=folder,
            progress=progress,
            low_rank=low_rank,
        )
        history, before_joint, refinement = joint.history, joint.earlier_seconds, [joint.status]
        if joint.status != "non-finite":
            better = validation is None or (
                accuracy_of(refined, *validation, threads)
                >= accuracy_of(network, *validation, threads)
            )
            if better:
                network, layer = refined, refined_layer
            else:
                refinement = ["start-kept"]
    temperature = None
    if calibrate and validation is not None:
        temperature = fit_temperature(
            network.outputs(validation[0], workers=threads), validation[1]
        )
    elif calibrate:
        temperature = left_out_temperature(
            network_features(network.units, network.params, used),
            targets,
            layer.ridge,
            rcond=plan.glue_rcond,
            weights=weights,
            workers=threads,
        )
    end = time.perf_counter()
    reports = [s.report for s in subnets]
    statuses = dict(Counter([*(r["status"] for r in reports), *refinement]))
    earlier = before + before_joint
    seconds = {
        "subnets": trained - begin + before,
        "glue": glued - trained,
        "total": end - begin + earlier,
        "earlier": earlier,
    }
    if selection:
        seconds["selection"] = selected - glued
    if plan.refine:
        seconds["joint"] = end - selected + before_joint
    return Fitted(
        network=network,
        status=next(s for s in _WORST_FIRST if s in statuses),
        statuses=statuses,
        n_iter=max(1, *(r["n_iterations"] for r in reports)),
        ridge=layer.ridge / n_seen,
        rank=layer.rank,
        condition=layer.condition,
        seconds=seconds,
        reports=reports,
        history=history,
        precision="float32" if plan.refine and plan.refine_solver == "adamw" else None,
        selection=selection,
        temperature=temperature,
        subnets=[(s.params, s.active) for s in subnets],
    )


def _refined(
    network: QuadraticNetwork,
    active: np.ndarray,
    images: Images,
    encoded: np.ndarray,
    plan: NetworkPlan,
    *,
    weights: np.ndarray | None,
    validation: tuple[Images, np.ndarray] | None,
    seed: int,
    threads: int,
    dtype: str,
    folder: Path | None,
    progress: bool,
    low_rank: Callable[..., Any] | None,
) -> tuple[QuadraticNetwork, OutputLayer, JointResult]:
    """All units together, then the glue."""
    from rankwise.training.refinement import RECIPE, refine

    ridge = plan.ridge
    moves, copies = parts_of(plan.augmentation)
    n_seen = len(images) if weights is None else float(np.sum(weights))
    with progress_bar("joint epochs", plan.refine, enabled=progress, notes=True) as advance:
        return refine(
            network,
            active,
            images,
            encoded,
            epochs=plan.refine,
            weights=weights,
            validation=validation,
            plan=replace(RECIPE, extra=low_rank if copies else None),
            moves=moves,
            ridge=ridge if isinstance(ridge, str) else ridge * n_seen,
            method=plan.glue_method,
            rcond=plan.glue_rcond,
            dtype=dtype,
            seed=seed,
            threads=threads,
            folder=folder,
            advance=advance,
            after_epoch=lambda entry: advance.note(in_words(entry)),
        )


def in_words(entry: Mapping[str, Any]) -> str:
    """What an epoch came to, of an entry of the history."""
    accuracy = entry["validation_accuracy"]
    validated = "" if accuracy is None else f", validation {100 * accuracy:.1f}%"
    return f"loss {entry['train_loss']:.3f}{validated}"


def accuracy_of(network: Any, images: Images, encoded: np.ndarray, threads: int) -> float:
    outputs = network.outputs(images, workers=threads)
    return float(np.mean(outputs.argmax(axis=1) == encoded))
