"""Joint training: the choices, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise.training.augment import Augmentation
from rankwise.training.precision import PRECISIONS
from rankwise.training.steps import OPTIMISERS, SCHEDULES

if TYPE_CHECKING:
    import torch

    from rankwise.training.teaching import Teacher

LOSSES = ("cross-entropy", "squared")
OUTPUT_LAYERS = ("trained", "running")

_NAMED = {
    "loss": LOSSES,
    "output_layer": OUTPUT_LAYERS,
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
}
_SMALLEST_SHARD = 30

LONG = 60
"""Epochs from which on a training is long: images moved a little are learned by heart in it."""


@dataclass(frozen=True)
class JointPlan:
    """How units are trained together.

    Parameters
    ----------
    epochs : int
        Passes over the images, each image moved anew by `augmentation`.
    batch_size : int
        250, of the recipe that this package began with.
    optimiser : {"adamw", "muon"}
        See `rankwise.training.steps`.
    learning_rate : float
        AdamW's largest of the schedule.
    matrix_rate : float
        Muon's.
    schedule : {"one-cycle", "triangle"}
        Up from a tenth of the largest rate and down to nearly zero in half cosines; or from a fifth
        and to zero in straight lines.
    warm_up : float
        The share of the updates that go up.
    weight_decay : float
        Of AdamW, on vectors and output layer.
    precision : {"float32", "bfloat16", "auto"}
        See `rankwise.training.precision`.
    time_budget : float, optional
        Seconds that the training may take, the first to the last. The schedule then follows the
        clock, and ends with it or with the epochs, whichever is first; what is kept for the work
        behind it shortens its end.
    smoothing : float
        Label smoothing of the cross-entropy.
    loss : {"cross-entropy", "squared"}
    output_layer : {"trained", "running"}
        ``"running"`` needs the squared loss.
    ridge : float
        Per sample, of a running output layer.
    solve_every : int
        Batches between two solves of a running output layer.
    augmentation : Augmentation, optional
    long : Augmentation, optional
        In its place where `LONG` epochs or more are planned or, in a time budget, to be expected
        by the time that those of its first quarter took.
    extra : callable, optional
        Applied to every moved batch: `rankwise.RandomLowRank`, or whatever is called as it is,
        ``extra(maps, source_id=rows, epoch=epoch)``, with maps ``(n, C, H, W)`` and the places of
        their images among all of them. Draws by these make a training repeatable.
    teacher : Teacher, optional
        Whose outputs on the moved images are nine tenths of what is learned, with the
        cross-entropy; see `rankwise.training.teaching`.
    n_shards : int
        Tasks a batch is cut into, of about 30 images each at least. Another number changes rounding
        and normalisation.
    patience : int, optional
        Stop when the validation accuracy hasn't risen for so many epochs. Default: never, since
        the schedule ends by itself.
    """

    epochs: int = 12
    batch_size: int = 250
    optimiser: str = "adamw"
    learning_rate: float = 1e-2
    matrix_rate: float = 0.03
    schedule: str = "one-cycle"
    warm_up: float = 0.25
    weight_decay: float = 0.02
    precision: str = "float32"
    time_budget: float | None = None
    smoothing: float = 0.05
    loss: str = "cross-entropy"
    output_layer: str = "trained"
    ridge: float = 1e-4
    solve_every: int = 10
    augmentation: Augmentation | None = None
    long: Augmentation | None = None
    extra: Callable[..., torch.Tensor] | None = None
    teacher: Teacher | None = None
    n_shards: int = 4
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, accepted in _NAMED.items():
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; accepted: {', '.join(accepted)}"
                )
        if self.output_layer == "running" and self.loss != "squared":
            raise ValueError("a running output layer needs loss 'squared', got 'cross-entropy'")
        if self.teacher is not None and self.loss != "cross-entropy":
            raise ValueError("a teacher needs loss 'cross-entropy', got 'squared'")
        if self.long is not None and self.augmentation is None:
            raise ValueError("moves of long trainings need an augmentation in short ones, got none")
        for name in ("epochs", "batch_size", "n_shards", "solve_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "matrix_rate", "time_budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name} must be positive, got {value}")

    def shard_size(self, n: int) -> int:
        """Images a shard of a batch of `n`, so that none is much smaller than the others."""
        return -(-n // max(1, min(self.n_shards, n // _SMALLEST_SHARD)))


@dataclass
class JointResult:
    """What joint training found; the module holds the parameters of the chosen epoch.

    Attributes
    ----------
    coef : float64 array of shape (m + 1, K)
        Output layer of the chosen epoch, the constant's row last.
    history : list of dict
        ``epoch`` (1-based), ``train_loss``, ``validation_accuracy`` (None without validation),
        ``learning_rate``, ``seconds``.
    chosen_epoch : int
        The last; that of the highest validation accuracy, the last on ties, where the last one's
        is lower by more than two standard errors or the training ended early; 0, the start, where
        no epoch had a finite loss.
    status : {"finished", "early-stop", "non-finite"}
    precision : {"float32", "bfloat16"}
        What it computed in.
    resumed : int
        Epochs taken from a checkpoint.
    seconds : float
        Of this call.
    needs : float or None
        Seconds that one epoch takes, with what is before and behind it, where the time budget was
        less, or ended the first one.
    """

    coef: np.ndarray
    history: list[dict[str, Any]]
    chosen_epoch: int
    status: str
    precision: str = "float32"
    resumed: int = 0
    seconds: float = 0.0
    needs: float | None = None

    @property
    def earlier_seconds(self) -> float:
        """Of the epochs taken from a checkpoint."""
        return float(sum(entry["seconds"] for entry in self.history[: self.resumed]))
