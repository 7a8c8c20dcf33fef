"""What the training of a study's model is told, and what a trained model is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes
    ----------
    history : list of dict
        One entry an epoch, as `rankwise.nets.TrainingResult` has it; of the last stage.
    frozen_history : list of dict
        The same of the stage before, empty where there was none or it took no epochs.
    best_epoch : int
        Counted from 1.
    logits : callable
        From images to scores ``(n, n_classes)`` whose softmax are probabilities.
    n_updates : int
    n_parameters : int
    seconds : float
    save : callable
        Writes the weights to a folder.
    start : str or None
        Digest of the weights that the training began with; None where there are none to name.
    """

    history: list[dict[str, Any]]
    frozen_history: list[dict[str, Any]]
    best_epoch: int
    logits: Callable[[NDArray[np.uint8]], NDArray[np.floating]]
    n_updates: int
    n_parameters: int
    seconds: float
    save: Callable[[Path], None]
    start: str | None = None


@dataclass(frozen=True)
class Training:
    """How a cell trains its model.

    Attributes
    ----------
    epochs : int
    frozen_epochs : int
        Of the stage before, where a backbone is fine-tuned.
    batch_size : int
    steps_per_epoch : int or None
    seed : int
    device : str
    best : bool
        Predict with the weights of the best epoch, else with the last.
    precision : str
        As in `rankwise.nets.TrainingSettings`.
    patience : int or None
        End the last stage when the validation loss hasn't fallen for so many epochs.
    n_originals : int or None
        Of a quadratic classifier: train it as often as on so many images, copies or not.
    """

    epochs: int
    frozen_epochs: int
    batch_size: int
    steps_per_epoch: int | None
    seed: int
    device: str
    best: bool
    precision: str = "32-true"
    patience: int | None = None
    n_originals: int | None = None


def one_epoch(
    logits: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    train: Labelled,
    validation: Labelled | None,
    seconds: float,
    n_updates: int,
) -> dict[str, Any]:
    """The history's only entry of what is trained in one pass."""

    def scores(part: Labelled | None) -> tuple[float | None, float | None]:
        if part is None:
            return None, None
        found = logits(part[0])
        return log_loss(found, part[1]), float(np.mean(found.argmax(axis=1) == part[1]))

    train_loss, train_accuracy = scores(train)
    validation_loss, validation_accuracy = scores(validation)
    return {
        "epoch": 1,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "validation_loss": validation_loss,
        "validation_accuracy": validation_accuracy,
        "learning_rate": None,
        "seconds": seconds,
        "n_updates": n_updates,
    }


def log_loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of softmax(logits), computed in float64."""
    scores = logits.astype(np.float64)
    top = scores.max(axis=1)
    total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return float(np.mean(total - scores[np.arange(len(labels)), labels]))
