"""Fits of convolutional units: joint training, then the output layer in closed form."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from rankwise._arrays import Images, OneHot, chosen
from rankwise._progress import progress_bar
from rankwise._threads import one_thread
from rankwise._warnings import warn_caller
from rankwise.cluster import on_workers
from rankwise.linear.class_ridge import fit_temperature
from rankwise.linear.left_out import left_out_temperature
from rankwise.linear.output_layer import solve_output_layer
from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.networks.copies import check_mirror
from rankwise.training.checkpoints import CHECKPOINT, TEACHER, fit_key, read_checkpoint
from rankwise.training.distributed import is_first, is_parallel
from rankwise.training.fitting import Fitted, accuracy_of, in_words
from rankwise.training.precision import precision_begun
from rankwise.training.reserve import seconds_behind, too_short
from rankwise.training.validation import validation_split

if TYPE_CHECKING:
    from rankwise.training.convolutional_presets import ConvolutionalPlan


def fit_convolutional(
    images: Images,
    encoded: np.ndarray,
    n_classes: int,
    plan: ConvolutionalPlan,
    *,
    seed: int,
    threads: int,
    device: str,
    weights: np.ndarray | None = None,
    glue_only: bool = False,
    calibrate: bool = False,
    folder: Path | None = None,
    progress: bool = False,
    groups: np.ndarray | None = None,
    validation_rows: np.ndarray | None = None,
    mirror_needed: bool = False,
    of_teacher: bool = False,
    begin: float | None = None,
) -> Fitted:
    """Train convolutional units together, then solve their output layer in closed form.

    Where the plan has a teacher, that is trained first, and its outputs are learned too.

    A validation part of the training images (a tenth, at most 3000; none under 200 images)
    chooses between the last epoch and a surely better one, and between the trained output layer
    and the glue: a ridge solution on the pooled features of the rest. It is never trained on, by
    the teacher neither. Without one it is the last epoch and the glue, which is the optimum for
    these features on all the images there are.

    Parameters
    ----------
    images : array of shape (n, H, W[, C]), or `Rows` of one
        May be mapped from a file: batches and blocks of it are copied, never all of it.
    encoded : int array of shape (n,)
    n_classes : int
    plan : ConvolutionalPlan
    seed : int
    threads : int
        Any number gives the same numbers.
    device : str
        ``"cpu"`` or a torch device.
    weights : array of shape (n,), optional
        How often each image counts in the loss and the glue, above 0; default once.
    glue_only : bool
        The output layer is the glue, whatever the validation part says.
    calibrate : bool
        Fit a temperature; see `Fitted`.
    folder : Path, optional
        Keeps every finished epoch.
    progress : bool
    groups : array of shape (n,), optional
        Sources; the validation part shares none with the rest.
    validation_rows : bool array of shape (n,), optional
        The validation part, in the place of one that is cut off. It is never trained on.
    mirror_needed : bool
        Refuse, before anything is trained, images whose classes don't survive a mirror.
    of_teacher : bool
        Whether it is the one that another learns from.
    begin : float, optional
        When the fit began, of `time.perf_counter`: the time budget counts from then. Default: now.

    Raises
    ------
    ValueError
        If memory has no room for it, or a mirror is needed and isn't there.
    """
    import torch

    from rankwise.training.augment import unprobed
    from rankwise.training.joint import JointTraining
    from rankwise.training.room import check_room as check_room_for_maps
    from rankwise.training.starting import convolutional_module
    from rankwise.training.teaching import Teacher

    begin = time.perf_counter() if begin is None else begin
    if device.startswith("cpu"):
        for each in (plan, *([plan.teacher] if plan.teacher else [])):
            check_room_for_maps(each.units, each.joint, len(encoded), threads)
    fit, held_out = validation_split(encoded, seed, groups, validation_rows)
    validation = (chosen(images, held_out), encoded[held_out]) if len(held_out) else None
    rest, labels = chosen(images, fit), encoded[fit]
    own = None if weights is None else weights[fit]
    n_seen = len(rest) if own is None else float(np.sum(own))
    if validation is None and plan.joint.patience is not None:
        warn_caller(
            f"patience={plan.joint.patience} has no effect, since it looks at a validation part, "
            f"and none is cut off these {len(encoded)} images; fit takes one as its validation",
            UserWarning,
        )
        plan = _with(plan, patience=None)
    unasked = unprobed(plan.joint.augmentation, len(rest))
    if mirror_needed and unasked is not None:
        check_mirror(None, unasked)
    joint, where = plan.joint, "cpu" if device.startswith("cpu") else device
    key = ""
    if folder is not None or is_parallel():
        # What it was begun in is kept beside the parameters: "auto" means another elsewhere.
        told = _with(plan, precision="auto")
        key = fit_key(images, encoded, told, seed, held_out, where, own, n_classes)
    taught: dict[str, Any] = {}
    teacher = plan.teacher
    if teacher is not None:
        if folder is not None:
            # Another fit's is refused before, not behind.
            begun = read_checkpoint(folder / CHECKPOINT, key)
            if begun is not None:
                found = precision_begun(joint.precision, begun[1]["precision"], folder)
                joint = replace(joint, precision=found)
                teacher = _with(teacher, precision=found)
        waited = time.perf_counter() - begin
        network, taught = _teacher(
            images,
            encoded,
            n_classes,
            teacher,
            key=key,
            folder=None if folder is None else folder / TEACHER,
            seed=seed,
            threads=threads,
            device=device,
            weights=weights,
            progress=progress,
            groups=groups,
            validation_rows=validation_rows,
            mirror_needed=mirror_needed,
        )
        if taught["status"] != "non-finite":
            joint = replace(joint, teacher=Teacher(network))
        if joint.precision == "auto":
            joint = replace(joint, precision=taught.get("precision", "auto"))
        if joint.time_budget is not None:
            left = joint.time_budget - waited - taught["seconds"]
            joint = replace(joint, time_budget=max(left, _LEAST_SECONDS))
    started = time.perf_counter() if taught else begin
    with one_thread():  # beside others a thread a core takes many times as long
        joint = replace(plan, joint=joint).joint_for(rest, labels, seed)
        if mirror_needed and joint.augmentation is not None:
            check_mirror(joint.augmentation.mirror)
        generator = torch.Generator().manual_seed(seed)
        module = convolutional_module(plan.units, rest, generator)
    training = JointTraining(
        module,
        joint,
        n_classes,
        seed=seed,
        workers=threads,
        device=where,
    )
    behind, left_out = None, calibrate and validation is None
    if joint.time_budget is not None:
        coef = np.zeros((module.n_features + 1, n_classes))
        behind = partial(
            seconds_behind,
            module.network(coef, softmax=True).features(rest),
            len(rest),
            len(held_out),
            passes=1 + (plan.ridge == "loo") + 2 * left_out,
            choices=2 * (not glue_only) + (calibrate and not left_out),
            threads=threads,
        )
    title = "teacher's epochs" if of_teacher else "epochs"
    with progress_bar(title, joint.epochs, enabled=progress, notes=True) as advance:
        result = training.fit(
            rest,
            labels,
            spent=time.perf_counter() - started,
            behind=behind,
            weights=own,
            validation=validation,
            checkpoint=None if folder is None else folder / CHECKPOINT,
            key=key,
            advance=advance,
            after_epoch=lambda entry: advance.note(in_words(entry)),
        )
    trained = time.perf_counter()
    if result.needs is not None and plan.joint.time_budget is not None:
        warn_caller(
            too_short(
                plan.joint.time_budget,
                result.needs,
                of_teacher=of_teacher,
                taken=taught.get("seconds"),
            ),
            ConvergenceWarning,
        )
    network = module.network(result.coef, softmax=joint.loss == "cross-entropy")
    ridge = plan.ridge
    with progress_bar(on_workers("glue"), len(rest), enabled=progress) as advance:
        layer = solve_output_layer(
            network.features(rest),
            OneHot.of(labels, n_classes),
            ridge=ridge if isinstance(ridge, str) else ridge * n_seen,
            rcond=plan.rcond,
            weights=own,
            workers=threads,
            advance=advance,
        )
    glued = replace(network, coef=layer.coef, softmax=False)
    # Without a finite loss the trained output layer is none; without validation it is the glue.
    better = glue_only or validation is None or result.chosen_epoch == 0
    if not better and validation is not None:
        better = accuracy_of(glued, *validation, threads) > accuracy_of(
            network, *validation, threads
        )
    final = glued if better else network
    temperature = None
    if calibrate and validation is not None:
        temperature = fit_temperature(final.outputs(validation[0], workers=threads), validation[1])
    elif calibrate:
        temperature = left_out_temperature(
            network.features(rest),
            OneHot.of(labels, n_classes, np.float64),
            layer.ridge,
            rcond=plan.rcond,
            weights=own,
            workers=threads,
        )
    end, earlier = time.perf_counter(), result.earlier_seconds
    before = earlier + taught.get("earlier", 0.0)
    statuses = Counter([result.status, *([taught["status"]] if taught else [])])
    return Fitted(
        network=final,
        status="non-finite" if "non-finite" in statuses else result.status,
        statuses=dict(statuses),
        n_iter=len(result.history),
        ridge=layer.ridge / n_seen,
        rank=layer.rank,
        condition=layer.condition,
        seconds=({"teacher": taught["seconds"]} if taught else {})
        | {
            "joint": trained - started + earlier,
            "glue": end - trained,
            "total": end - begin + before,
            "earlier": before,
        },
        history=result.history,
        precision=result.precision,
        mirror=joint.augmentation.mirror if joint.augmentation and not unasked else None,
        output_layer="glue" if better else "trained",
        temperature=temperature,
    )


def _teacher(
    images: Images,
    encoded: np.ndarray,
    n_classes: int,
    plan: ConvolutionalPlan,
    *,
    key: str,
    folder: Path | None,
    **options: Any,
) -> tuple[ConvolutionalNetwork, dict[str, Any]]:
    """Train the one that others learn from, or read it where an interrupted fit had finished it.

    Gives its network, its ``status`` and ``precision``, all its ``seconds`` and those that went by
    ``earlier``.
    """
    from rankwise.training.teaching import read_teacher, write_teacher

    path = None if folder is None else folder / _NETWORK
    found = None if path is None else read_teacher(path, key, plan.units)
    if path is not None and found is not None:
        network, known = found
        precision_begun(plan.joint.precision, known["precision"], path.parent)
        return network, known | {"earlier": known["seconds"]}
    fitted = fit_convolutional(
        images, encoded, n_classes, plan, folder=folder, of_teacher=True, **options
    )
    assert isinstance(fitted.network, ConvolutionalNetwork)
    known = {
        "status": fitted.status,
        "seconds": fitted.seconds["total"],
        "precision": fitted.precision,
    }
    if path is not None and is_first():
        write_teacher(path, key, fitted.network, known)
    return fitted.network, known | {"earlier": fitted.seconds["earlier"]}


def _with(plan: ConvolutionalPlan, **choices: Any) -> ConvolutionalPlan:
    """A plan with other choices of joint training, its teacher's too."""
    teacher = None if plan.teacher is None else _with(plan.teacher, **choices)
    return replace(plan, joint=replace(plan.joint, **choices), teacher=teacher)


_NETWORK = "network.safetensors"
_LEAST_SECONDS = 1e-3
