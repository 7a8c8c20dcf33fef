"""What a convolutional plan comes to on the data at hand, before it is trained."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rankwise._arrays import Images

if TYPE_CHECKING:
    from rankwise.training.convolutional_presets import ConvolutionalPlan
    from rankwise.training.teaching import Teacher

_SOME, _TIMED = 1000, 3
_SECONDS_A_MINUTE, _KIBIBYTE = 60.0, 1024


@dataclass(frozen=True)
class Expectation:
    """Sizes and time of a training that hasn't begun.

    Attributes
    ----------
    n_parameters : int
        With the output layer.
    epochs : int
        At most.
    minutes : float
        On this machine as busy as it is now, with a teacher's: of a few updates, or the time
        budget.
    within : float or None
        The time budget in minutes.
    teacher : int or None
        Parameters of the network that is trained first.
    """

    n_parameters: int
    epochs: int
    minutes: float
    within: float | None = None
    teacher: int | None = None

    @property
    def bytes(self) -> int:
        """Of the weights in int8, an export's precision: one each; in float32 four times that."""
        return self.n_parameters

    def __str__(self) -> str:
        time_said = (
            f"{self.epochs} epoch{'s' * (self.epochs != 1)} in about {_in_words(self.minutes)}"
            if self.within is None
            else f"as many epochs as fit into {self.within:g} minutes, at most {self.epochs}"
        )
        behind = f"; behind a teacher of {self.teacher:,} parameters" if self.teacher else ""
        return (
            f"{self.n_parameters:,} parameters, {4 * self.bytes / _KIBIBYTE:,.1f} KiB in float32, "
            f"{self.bytes / _KIBIBYTE:,.1f} KiB in int8; {time_said} on this machine{behind}"
        )


def expectation(
    plan: ConvolutionalPlan,
    images: Images,
    encoded: np.ndarray,
    n_classes: int,
    *,
    threads: int,
    device: str,
) -> Expectation:
    """Sizes and minutes of a plan; a few updates of a network that is thrown away are timed.

    Parameters
    ----------
    plan : ConvolutionalPlan
    images : array of shape (n, H, W[, C])
    encoded : int array of shape (n,)
    n_classes : int
    threads : int
    device : str
    """
    import torch

    from rankwise.training.joint import JointTraining
    from rankwise.training.room import check_room
    from rankwise.training.starting import convolutional_module

    if device.startswith("cpu"):
        for each in (plan, *([plan.teacher] if plan.teacher else [])):
            check_room(each.units, each.joint, len(encoded), threads)
    n_parameters = _size(plan, n_classes)
    of_teacher = None if plan.teacher is None else _size(plan.teacher, n_classes)
    budget = plan.joint.time_budget
    if budget is not None:
        within = budget / _SECONDS_A_MINUTE
        return Expectation(n_parameters, plan.joint.epochs, within, within, of_teacher)
    before = 0.0
    if plan.teacher is not None:
        first = expectation(
            plan.teacher, images, encoded, n_classes, threads=threads, device=device
        )
        before = first.minutes
    some, labels = images[:_SOME], encoded[:_SOME]
    generator = torch.Generator().manual_seed(0)
    module = convolutional_module(plan.units, some, generator)
    training = JointTraining(
        module,
        replace(plan.joint, extra=None, teacher=_some_teacher(plan, some, n_classes)),
        n_classes,
        workers=threads,
        device="cpu" if device.startswith("cpu") else device,
    )
    size = min(plan.joint.batch_size, len(some))
    seconds = []
    with training.threads():
        for _ in range(1 + _TIMED):  # the first call of anything is slow
            begin = time.perf_counter()
            training.update(some[:size], labels[:size], generator)
            seconds.append(time.perf_counter() - begin)
    updates = plan.joint.epochs * max(1, len(images) // size)
    total = updates * float(np.median(seconds[1:]))
    minutes = before + total / _SECONDS_A_MINUTE
    return Expectation(n_parameters, plan.joint.epochs, minutes, teacher=of_teacher)


def _in_words(minutes: float) -> str:
    """Minutes, or seconds where it is less than one."""
    seconds = max(1, round(_SECONDS_A_MINUTE * minutes))
    if seconds < _SECONDS_A_MINUTE:
        return f"{seconds} second{'s' * (seconds != 1)}"
    return f"{minutes:.1f} minutes"


def _size(plan: ConvolutionalPlan, n_classes: int) -> int:
    return plan.units.n_parameters + (plan.units.n_features + 1) * n_classes


def _some_teacher(plan: ConvolutionalPlan, images: Images, n_classes: int) -> Teacher | None:
    """One of the plan's size that knows nothing yet."""
    import torch

    from rankwise.training.starting import convolutional_module
    from rankwise.training.teaching import Teacher

    if plan.teacher is None:
        return None
    module = convolutional_module(plan.teacher.units, images, torch.Generator().manual_seed(0))
    coef = np.zeros((plan.teacher.units.n_features + 1, n_classes))
    return Teacher(module.network(coef, softmax=True))
