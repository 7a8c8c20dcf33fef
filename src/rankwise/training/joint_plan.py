"""Joint training: the choices, what it gives, and its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, inf, pi
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise.training.augment import Augmentation

if TYPE_CHECKING:
    import torch

LOSSES = ("cross-entropy", "squared")
OUTPUT_LAYERS = ("trained", "running")

_SMALLEST_SHARD = 30


@dataclass(frozen=True)
class JointPlan:
    """How units are trained together.

    Parameters
    ----------
    epochs : int
        Passes over the images, each image moved anew by `augmentation`.
    batch_size : int
        250 in the recipe of the design, section 8.
    learning_rate : float
        The largest of the one-cycle schedule: up from a tenth of it, then down to nearly zero.
    warm_up : float
        The share of the updates that go up.
    weight_decay : float
        Of AdamW, on vectors and output layer.
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
    extra : callable, optional
        Applied to every moved batch: `rankwise.RandomLowRank`, or whatever is called as it is,
        ``extra(maps, source_id=rows, epoch=epoch)``, with maps ``(n, C, H, W)`` and the places of
        their images among all of them. Draws by these make a training repeatable.
    n_shards : int
        Tasks a batch is cut into, of about 30 images each at least. Another number changes rounding
        and normalisation.
    patience : int, optional
        Stop when the validation accuracy hasn't risen for so many epochs. Default: never, since
        the schedule ends by itself.
    """

    epochs: int = 12
    batch_size: int = 250
    learning_rate: float = 1e-2
    warm_up: float = 0.25
    weight_decay: float = 0.02
    smoothing: float = 0.05
    loss: str = "cross-entropy"
    output_layer: str = "trained"
    ridge: float = 1e-4
    solve_every: int = 10
    augmentation: Augmentation | None = None
    extra: Callable[..., torch.Tensor] | None = None
    n_shards: int = 4
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}; accepted: {', '.join(LOSSES)}")
        if self.output_layer not in OUTPUT_LAYERS:
            raise ValueError(
                f"unknown output_layer {self.output_layer!r}; accepted: {', '.join(OUTPUT_LAYERS)}"
            )
        if self.output_layer == "running" and self.loss != "squared":
            raise ValueError("a running output layer needs loss 'squared', got 'cross-entropy'")
        for name in ("epochs", "batch_size", "n_shards", "solve_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < inf:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    def shard_size(self, n: int) -> int:
        """Images a shard of a batch of `n`, so that none is much smaller than the others."""
        return -(-n // max(1, min(self.n_shards, n // _SMALLEST_SHARD)))


@dataclass
class JointResult:
    """What joint training found; the module holds the parameters of the best epoch.

    Attributes
    ----------
    coef : float64 array of shape (m + 1, K)
        Output layer of the best epoch, the constant's row last.
    history : list of dict
        ``epoch`` (1-based), ``train_loss``, ``validation_accuracy`` (None without validation),
        ``learning_rate``, ``seconds``.
    best_epoch : int
        Of the highest validation accuracy, the last on ties; without validation the last; 0,
        the start, where no epoch had a finite loss.
    status : {"finished", "early-stop", "non-finite"}
    resumed : int
        Epochs taken from a checkpoint.
    seconds : float
        Of this call.
    """

    coef: np.ndarray
    history: list[dict[str, Any]]
    best_epoch: int
    status: str
    resumed: int = 0
    seconds: float = 0.0

    @property
    def earlier_seconds(self) -> float:
        """Of the epochs taken from a checkpoint."""
        return float(sum(entry["seconds"] for entry in self.history[: self.resumed]))


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the largest learning rate after a share `done` of the updates.

    Half a cosine up from a tenth during the warm-up, half a cosine down to 10⁻⁴ behind it.
    """
    if done < warm_up:
        low, high, along = 1.0, 0.1, done / warm_up
    else:
        low, high, along = 1e-4, 1.0, (done - warm_up) / max(1 - warm_up, 1e-9)
    return low + (high - low) * 0.5 * (1 + cos(pi * along))
