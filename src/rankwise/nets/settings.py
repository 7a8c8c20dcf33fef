"""How a network is trained, and what comes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
OUTPUTS = ("softmax", "varpro")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class StopTraining(Exception):  # noqa: N818 - a request, as StopIteration is
    """Raised by an ``after_epoch`` to end a training early; what was reached is returned."""


@dataclass(frozen=True)
class TrainingSettings:
    """Choices of a training.

    Parameters
    ----------
    epochs : int
    batch_size : int
        Images of one update, over all devices. Default 128 (paper 3).
    optimizer : {"adam", "adamw", "rmsprop", "sgd"}
        Default "adam". The paper names RMSprop for fine-tuning only (B.1); "rmsprop" has Keras's
        constants (decay 0.9, ε 1e-7), "sgd" momentum 0.9, the others PyTorch's.
    learning_rate : float
        Constant. Default 1e-3, Keras's for Adam and RMSprop.
    steps_per_epoch : int or None
        An epoch is that many updates whatever the number of images; shuffled passes go on across
        epochs. Default None: an epoch is one pass. See `updates_per_pass`.
    precision : {"32-true", "bf16-mixed", "16-mixed"}
        Lightning's names; the mixed ones are for a GPU. Default "32-true" (paper 3.2).
    output : {"softmax", "varpro"}
        Cross-entropy, or the output layer by variable projection (`rankwise.nets.projected_loss`).
        Default "softmax", the paper's.
    patience : int or None
        End when the validation loss hasn't fallen for so many epochs: a plateau. Default None: all
        epochs are trained.

    Raises
    ------
    ValueError
        For a value out of range.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    steps_per_epoch: int | None = None
    precision: str = "32-true"
    output: str = "softmax"
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps_per_epoch", "patience"):
            value = getattr(self, name)
            if name in ("steps_per_epoch", "patience") and value is None:
                continue
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more; got {value!r}")
        rate = self.learning_rate
        if not isinstance(rate, Real) or not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be a number above 0; got {rate!r}")
        for name, accepted in (
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("output", OUTPUTS),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; accepted: {', '.join(accepted)}"
                )


def at_plateau(losses: Sequence[float | None], patience: int | None) -> bool:
    """Whether the last `patience` validation losses are all no lower than one before them.

    It follows from the history alone, so a training that was killed ends where it would have.
    """
    known = [loss for loss in losses if loss is not None]
    if patience is None or len(known) <= patience:
        return False
    return min(known[:-patience]) <= min(known[-patience:])


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Attributes
    ----------
    history : list of dict
        One entry an epoch: ``epoch`` (1-based), ``train_loss``, ``train_accuracy`` (means over the
        epoch's batches as they were trained on, as in Keras), ``validation_loss``,
        ``validation_accuracy`` (None without validation), ``learning_rate``, ``seconds``,
        ``n_updates`` (since the beginning).
    best_epoch : int
        1-based; of the highest validation accuracy, the first on ties; the last without validation.
    best_state, last_state : dict of str to Tensor
        State dicts on the CPU.
    n_updates : int
    seconds : float
        Sum over the epochs, those before a kill included.
    stopped : bool
        Whether `after_epoch` or a plateau ended it early.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    best_state: dict[str, torch.Tensor]
    last_state: dict[str, torch.Tensor]
    n_updates: int
    seconds: float
    stopped: bool = False
