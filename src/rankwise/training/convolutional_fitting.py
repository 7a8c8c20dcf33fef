"""Fits of convolutional units: joint training, then the output layer in closed form."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._arrays import Images, OneHot, chosen
from rankwise._progress import progress_bar
from rankwise.cluster import on_workers
from rankwise.linear.class_ridge import fit_temperature
from rankwise.linear.left_out import left_out_temperature
from rankwise.linear.output_layer import solve_output_layer
from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.networks.copies import check_mirror
from rankwise.training.checkpoints import CHECKPOINT, TEACHER, fit_key, read_checkpoint
from rankwise.training.distributed import is_first, is_parallel
from rankwise.training.fitting import Fitted, accuracy_of, in_words
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
    title: str = "epochs",
) -> Fitted:
    """Train convolutional units together, then solve their output layer in closed form.

    Where the plan has a teacher, that is trained first, and its outputs are learned too.

    A validation part of the training images (a tenth, at most 3000; none under 200 images)
    chooses the epoch, and between the trained output layer and the glue: a ridge solution on the
    pooled features of the rest. It is never trained on, by the teacher neither. Without one it is
    the last epoch and the glue, which is the optimum for these features on all the images there
    are.

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
    title : str
        Of the bar of epochs.

    Raises
    ------
    ValueError
        If memory has no room for it, or a mirror is needed and isn't there.
    """
    import torch

    from rankwise.training.augment import SHIFTS, unprobed, with_mirrors
    from rankwise.training.joint import JointTraining
    from rankwise.training.room import check_room as check_room_for_maps
    from rankwise.training.starting import convolutional_module
    from rankwise.training.teaching import Teacher

    begin = time.perf_counter()
    if device.startswith("cpu"):
        for each in (plan, *([plan.teacher] if plan.teacher else [])):
            check_room_for_maps(each.units, each.joint, len(encoded), threads)
    fit, held_out = validation_split(encoded, seed, groups, validation_rows)
    validation = (chosen(images, held_out), encoded[held_out]) if len(held_out) else None
    rest, labels = chosen(images, fit), encoded[fit]
    own = None if weights is None else weights[fit]
    n_seen = len(rest) if own is None else float(np.sum(own))
    unasked = unprobed(plan.joint.augmentation, len(rest))
    if mirror_needed and unasked is not None:
        check_mirror(None, unasked)
    joint, where = plan.joint, "cpu" if device.startswith("cpu") else device
    key = ""
    if folder is not None or is_parallel():
        key = fit_key(images, encoded, plan, seed, held_out, where, own)
    taught: dict[str, Any] = {}
    if plan.teacher is not None:
        if folder is not None:
            read_checkpoint(folder / CHECKPOINT, key)  # another fit's is refused before, not behind
        network, taught = _teacher(
            images,
            encoded,
            n_classes,
            plan.teacher,
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
        if joint.time_budget is not None:
            left = joint.time_budget - taught["seconds"]
            joint = replace(joint, time_budget=max(left, _LEAST_SECONDS))
    started = time.perf_counter() if taught else begin
    if joint.augmentation is not None:
        moves = with_mirrors(
            joint.augmentation, rest, labels, seed, mirrored=SHIFTS if plan.shifts else None
        )
        joint = replace(joint, augmentation=moves)
        if mirror_needed:
            check_mirror(moves.mirror)
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
    spent = 0.0
    if joint.time_budget is not None:
        behind = _seconds_behind(module, rest, len(rest) + 2 * len(held_out), n_classes, threads)
        spent = behind + time.perf_counter() - started
    with progress_bar(title, joint.epochs, enabled=progress, notes=True) as advance:
        result = training.fit(
            rest,
            labels,
            spent=spent,
            weights=own,
            validation=validation,
            checkpoint=None if folder is None else folder / CHECKPOINT,
            key=key,
            advance=advance,
            after_epoch=lambda entry: advance.note(in_words(entry)),
        )
    trained = time.perf_counter()
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
    better = glue_only or validation is None or result.best_epoch == 0
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

    Gives its network, its ``status``, all its ``seconds`` and those that went by ``earlier``.
    """
    from rankwise.training.teaching import read_teacher, write_teacher

    path = None if folder is None else folder / _NETWORK
    found = None if path is None else read_teacher(path, key, plan.units)
    if found is not None:
        network, known = found
        return network, known | {"earlier": known["seconds"]}
    title = "teacher's epochs"
    fitted = fit_convolutional(
        images, encoded, n_classes, plan, folder=folder, title=title, **options
    )
    assert isinstance(fitted.network, ConvolutionalNetwork)
    known = {"status": fitted.status, "seconds": fitted.seconds["total"]}
    if path is not None and is_first():
        write_teacher(path, key, fitted.network, known)
    return fitted.network, known | {"earlier": fitted.seconds["earlier"]}


_NETWORK = "network.safetensors"
_LEAST_SECONDS = 1e-3
_SOME, _MARGIN = 256, 1.3


def _seconds_behind(module: Any, images: Images, n: int, n_classes: int, threads: int) -> float:
    """How long the glue and the choice of the output layer will take, as a few images say."""
    some = min(len(images), _SOME)
    coef = np.zeros((module.n_features + 1, n_classes))
    features = module.network(coef, softmax=True).features(images)
    features(slice(0, 2))  # the first call of anything is slow
    begin = time.perf_counter()
    features(slice(0, some))
    return _MARGIN * (time.perf_counter() - begin) * n / some / threads
