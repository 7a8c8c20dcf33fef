"""What a run would train, refused before its folder is had where it can't be trained."""

from __future__ import annotations

from typing import Any

from rankwise.data import ImageSet
from rankwise.estimators._arguments import thread_count
from rankwise.training.convolutional_presets import ConvolutionalPlan
from rankwise.training.groups import check_room
from rankwise.training.room import check_room as check_room_for_maps


def refuse_untrainable(model: Any, images: ImageSet) -> None:
    """Refuse options that don't fit the images, and what memory has no room for.

    Parameters
    ----------
    model : QuadraticClassifier or ConvolutionalClassifier
    images : ImageSet
        The training images.

    Raises
    ------
    ValueError
        As a fit would.
    """
    n, threads = len(images), thread_count(model.n_jobs)
    plan = model.plan_for(images.image_shape, n)
    if model.device != "cpu":
        return
    if isinstance(plan, ConvolutionalPlan):
        for each in (plan, *([plan.teacher] if plan.teacher else [])):
            check_room_for_maps(each.units, each.joint, n, threads)
    else:
        check_room(plan.subnet, n, len(images.class_counts), min(plan.n_subnets, threads))
