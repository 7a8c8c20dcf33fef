"""What is kept of a joint training behind each epoch, and how it is read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import torch

from rankwise.training.checkpoints import read_checkpoint, write_checkpoint


@dataclass
class JointState:
    """How far a joint training is: what is kept beside the module and the optimiser."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -inf
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    ended: bool = False  # by the time budget
    long: bool = False  # moved as in long trainings; see `JointPlan.long`
    needs: float | None = None


def write_state(
    path: Path,
    key: str,
    state: JointState,
    parts: dict[str, dict[str, torch.Tensor]],
    precision: str,
) -> None:
    """Replace the checkpoint at a path.

    Parameters
    ----------
    path : Path
    key : str
        Names the fit that it belongs to.
    state : JointState
    parts : dict of dicts of tensors
        By name: the module as it is, the optimiser, and whatever else goes on from where it was.
    precision : str
        What the training computes in.
    """
    tensors = {
        f"{part}.{name}": tensor
        for part, named in ({"best": state.best} | parts).items()
        for name, tensor in named.items()
    }
    write_checkpoint(
        path,
        key,
        tensors,
        {
            "epoch": state.epoch,
            "history": state.history,
            "best_epoch": state.best_epoch,
            "best_accuracy": None if state.best_accuracy == -inf else state.best_accuracy,
            "precision": precision,
            "ended": state.ended,
            "long": state.long,
            "needs": state.needs,
        },
    )


def read_state(
    path: Path, key: str, device: str
) -> tuple[JointState, dict[str, dict[str, torch.Tensor]], str] | None:
    """What `write_state` was given, on a device; None if there is none, or if it is damaged.

    Raises
    ------
    RunError
        If it belongs to another fit.
    """
    found = read_checkpoint(path, key)
    if found is None:
        return None
    tensors, known = found
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for label, tensor in tensors.items():
        part, _, name = label.partition(".")
        parts.setdefault(part, {})[name] = tensor.to(device)
    accuracy = known["best_accuracy"]
    state = JointState(
        epoch=known["epoch"],
        history=known["history"],
        best_epoch=known["best_epoch"],
        best_accuracy=-inf if accuracy is None else accuracy,
        best=parts.pop("best"),
        ended=known["ended"],
        long=known["long"],
        needs=known["needs"],
    )
    return state, parts, known["precision"]
