"""The models of a study: trying, training in one or two stages, predicting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from rankwise.study.design import StudyError
from rankwise.study.design_parts import Model
from rankwise.study.fitted import Fitted, Labelled, Training, one_epoch
from rankwise.study.networks import build_network, reason_of
from rankwise.study.quadratic import check_quadratic, fit_quadratic

if TYPE_CHECKING:
    from torch import nn


def check_model(model: Model, image_shape: tuple[int, ...], n_classes: int) -> int | None:
    """Build a model and try it on two images; its number of parameters, None if it isn't known.

    Raises
    ------
    StudyError
        If it can't take these images, or gives other than one score a class.
    """
    if model.is_quadratic:
        check_quadratic(model, image_shape, n_classes)
        return None
    import torch

    network = build_network(model, image_shape, n_classes, 0).eval()
    height, width, *channels = image_shape
    images = torch.zeros(2, *(channels or [1]), height, width, dtype=torch.float32)
    try:
        with torch.no_grad():
            shape = tuple(network(images).shape)
    except Exception as error:  # whatever somebody's own network raises
        raise StudyError(
            f"{model.network} can't take images of shape {image_shape}: {reason_of(error)}"
        ) from error
    if shape != (2, n_classes):
        raise StudyError(
            f"{model.network} gives scores of shape {shape} for two images; (2, {n_classes}) is "
            "accepted"
        )
    return _count(network)


def fit_model(
    model: Model,
    train: Labelled,
    validation: Labelled | None,
    n_classes: int,
    training: Training,
    *,
    augment: Callable[[Any], Any] | None = None,
    sources: NDArray | None = None,
    frozen_on: Labelled | None = None,
    folder: Path,
    features: Path | None = None,
    after_epoch: Callable[[int, dict[str, Any]], None] | None = None,
) -> Fitted:
    """Train a model of a study.

    Parameters
    ----------
    model : Model
    train, validation : (images, labels)
        uint8 ``(n, H, W[, C])`` and int64 ``(n,)``.
    n_classes : int
    training : Training
    augment : callable, optional
        On batches, in training only.
    sources : array of shape (n,), optional
        Source ids of the training images. A quadratic classifier that cuts a validation part of
        its own from them keeps each source, and so each original with its copies, on one side.
    frozen_on : (images, labels), optional
        What the frozen stage of a fine-tuning trains on, in place of `train`.
    folder : Path
        Checkpoints: a training that was killed goes on from there.
    features : Path, optional
        Where features of a backbone that stays as it is are kept, for all cells.
    after_epoch : callable, optional
        Told the epoch and its metrics, in the last stage.
    """
    if model.is_quadratic:
        return fit_quadratic(model, train, sources, validation, n_classes, training, folder)
    if model.is_head_alone:
        seen = train if frozen_on is None else frozen_on
        return _fit_head(model, seen, validation, n_classes, training, features)
    from rankwise.nets import (
        TrainingSettings,
        freeze,
        predict_logits,
        train_network,
        unfreeze_top,
    )

    def settings(
        epochs: int, optimizer: Any, learning_rate: float, patience: int | None = None
    ) -> TrainingSettings:
        return TrainingSettings(
            epochs=epochs,
            batch_size=training.batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            steps_per_epoch=training.steps_per_epoch,
            precision=training.precision,
            output=model.output,
            patience=patience,
        )

    shape = tuple(train[0].shape[1:])
    network: Any = build_network(model, shape, n_classes, training.seed)
    n_parameters, start = _count(network), _digest(network)
    optimizer, rate = model.optimizer or "adam", model.learning_rate or 1e-3
    n_updates, seconds = 0, 0.0
    frozen_history: list[dict[str, Any]] = []
    if model.is_transfer:
        # B.1 names RMSprop for fine-tuning; the frozen stage takes it too, at Keras's 1e-3.
        optimizer, rate = model.optimizer or "rmsprop", model.learning_rate or 1e-5
        freeze(network.backbone)
        images, labels = train if frozen_on is None else frozen_on
        if model.frozen_stage == "closed-form":
            seconds = _solve_head(network, images, labels, training.device)
        else:
            first = train_network(
                network,
                images,
                labels,
                settings(training.frozen_epochs, "rmsprop", 1e-3),
                validation=validation,
                augment=augment,
                folder=folder / "frozen",
                seed=training.seed,
                device=training.device,
            )
            network.load_state_dict(first.best_state)
            n_updates, seconds = first.n_updates, first.seconds
            frozen_history = [dict(entry) for entry in first.history]
        unfreeze_top(network.backbone, model.unfreeze)
    result = train_network(
        network,
        *train,
        settings(training.epochs, optimizer, rate, training.patience),
        validation=validation,
        augment=augment,
        folder=folder / "training",
        seed=training.seed,
        device=training.device,
        after_epoch=after_epoch,
    )
    network.load_state_dict(result.best_state if training.best else result.last_state)
    return Fitted(
        history=[dict(entry) for entry in result.history],
        frozen_history=frozen_history,
        best_epoch=result.best_epoch,
        logits=lambda images: predict_logits(network, images, device=training.device),
        n_updates=n_updates + result.n_updates,
        n_parameters=n_parameters,
        seconds=seconds + result.seconds,
        save=lambda place: _save(network, place),
        start=start,
    )


def _digest(network: nn.Module) -> str:
    """What tells the weights of a network from others."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _save(network: nn.Module, place: Path) -> None:
    from safetensors.torch import save_file

    from rankwise._files import atomic_path

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_path(place / "weights.safetensors") as temporary:
        save_file(tensors, temporary)


def _fit_head(
    model: Model,
    train: Labelled,
    validation: Labelled | None,
    n_classes: int,
    training: Training,
    features: Path | None,
) -> Fitted:
    """A new head on a backbone that stays as it is, in one solve, which stands as one epoch."""
    from rankwise.study.frozen import solved_head

    network: Any = build_network(model, tuple(train[0].shape[1:]), n_classes, training.seed)
    logits, seconds = solved_head(network, *train, folder=features, device=training.device)
    return Fitted(
        history=[one_epoch(logits, train, validation, seconds, n_updates=1)],
        frozen_history=[],
        best_epoch=1,
        logits=logits,
        n_updates=1,
        n_parameters=_count(network),
        seconds=seconds,
        save=lambda place: _save(network, place),
    )


def _solve_head(network: nn.Module, images: Any, labels: Any, device: str) -> float:
    """The frozen stage in one pass, on the images as they are; its seconds."""
    import time

    from rankwise.heads.head import solve_head

    begin = time.perf_counter()
    solve_head(network, images, labels, device=device)
    return time.perf_counter() - begin


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
