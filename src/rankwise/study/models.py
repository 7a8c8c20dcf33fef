"""The models of a study: trying, training in one or two stages, predicting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankwise.study.design import Model, StudyError
from rankwise.study.networks import build_network, reason_of

if TYPE_CHECKING:
    from torch import nn

_LEAST = 1e-12
# Training images to try the quadratic classifier's parameters with: as many as it needs.
_MANY = 10_000

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


def check_model(model: Model, image_shape: tuple[int, ...], n_classes: int) -> int | None:
    """Build a model and try it on two images; its number of parameters, None if it isn't known.

    Raises
    ------
    StudyError
        If it can't take these images, or gives other than one score a class.
    """
    if model.is_quadratic:
        _check_quadratic(model, image_shape)
        return None
    import torch

    network = build_network(model, image_shape, n_classes, 0).eval()
    height, width, *channels = image_shape
    images = torch.zeros(2, *(channels or [1]), height, width)
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
        return _fit_quadratic(model, train, sources, validation, n_classes, training, folder)
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
        history=[_one_epoch(logits, train, validation, seconds, n_updates=1)],
        frozen_history=[],
        best_epoch=1,
        logits=logits,
        n_updates=1,
        n_parameters=_count(network),
        seconds=seconds,
        save=lambda place: _save(network, place),
    )


def _one_epoch(
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


def _solve_head(network: nn.Module, images: Any, labels: Any, device: str) -> float:
    """The frozen stage in one pass, on the images as they are; its seconds."""
    import time

    from rankwise.heads.head import solve_head

    begin = time.perf_counter()
    solve_head(network, images, labels, device=device)
    return time.perf_counter() - begin


def log_loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of softmax(logits), computed in float64."""
    scores = logits.astype(np.float64)
    top = scores.max(axis=1)
    total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    return float(np.mean(total - scores[np.arange(len(labels)), labels]))


def _quadratic(model: Model, seed: int, image_shape: tuple[int, ...], **instead: int) -> Any:
    """The classifier asked for; without a preset the one that `rankwise train` would choose."""
    from rankwise.estimators.options import OPTIONS, classifier_of, training_options
    from rankwise.training.presets import recommended

    unknown = sorted(set(model.parameters) - {"preset", *OPTIONS})
    if unknown:
        raise StudyError(
            f"the quadratic classifier has no {', '.join(map(repr, unknown))}; preset, "
            f"{', '.join(OPTIONS)} are accepted as its parameters"
        )
    parameters = {"random_state": seed, **model.parameters, **instead}
    preset = parameters.pop("preset", None)
    if preset is None:
        preset, _ = recommended(training_options({**model.parameters}), image_shape)
    try:
        return classifier_of(preset, **parameters)
    except (TypeError, ValueError) as error:
        raise StudyError(f"the parameters of the quadratic classifier: {error}") from error


def _check_quadratic(model: Model, image_shape: tuple[int, ...]) -> None:
    """Refuse parameters that a fit would refuse."""
    classifier = _quadratic(model, 0, image_shape)
    try:
        classifier.plan_for(image_shape, _MANY)
    except (TypeError, ValueError) as error:
        raise StudyError(f"the parameters of the quadratic classifier: {error}") from error


def equal_choices(
    classifier: Any, image_shape: tuple[int, ...], n_originals: int, n_train: int
) -> dict[str, int]:
    """Options with which a classifier is trained as often on more images as on the originals.

    Joint training has no steps of its own: its epochs are so many that the updates come nearest.
    Sub-networks are as many, of as many units, each on as many images.

    Parameters
    ----------
    classifier : QuadraticClassifier or ConvolutionalClassifier
    image_shape : tuple of int
    n_originals, n_train : int
        Images without copies, and with them.
    """
    plan, larger = (classifier.plan_for(image_shape, n) for n in (n_originals, n_train))
    if hasattr(plan, "joint"):
        wanted = plan.joint.epochs * updates_an_epoch(n_originals, plan.joint.batch_size)
        given = updates_an_epoch(n_train, larger.joint.batch_size)
        return {"max_iter": max(1, round(wanted / given))}
    equal = {
        "n_units": plan.subnet.n_units * plan.n_subnets,
        "n_subnets": plan.n_subnets,
        "samples_per_subnet": min(plan.subnet.n_samples, n_originals),
    }
    if plan.refine and plan.refine_solver == "adamw":
        equal["refine"] = max(1, round(plan.refine * n_originals / n_train))
    return equal


def updates_an_epoch(n_images: int, batch_size: int) -> int:
    """Of joint training, which holds a part out and leaves out what fills no batch."""
    from rankwise.training.validation import validation_split

    n = len(validation_split(np.zeros(n_images, np.int64), 0)[0])
    return max(1, n // min(batch_size, n))


def _updates(classifier: Any, image_shape: tuple[int, ...], n_train: int) -> int:
    """Iterations of all sub-networks, and updates of joint training or of a refinement."""
    epochs = sum("epoch" in entry for entry in classifier.history_)
    plan = classifier.plan_for(image_shape, n_train)
    if hasattr(plan, "joint"):
        return epochs * updates_an_epoch(n_train, plan.joint.batch_size)
    from rankwise.training.refinement import RECIPE

    iterations = sum(report["n_iterations"] for report in classifier.subnet_reports_)
    return iterations + epochs * (updates_an_epoch(n_train, RECIPE.batch_size) if epochs else 0)


def _fit_quadratic(
    model: Model,
    train: Labelled,
    sources: NDArray | None,
    validation: Labelled | None,
    n_classes: int,
    training: Training,
    folder: Path,
) -> Fitted:
    """One fit, which stands as one epoch: it has no more."""
    import time

    begin = time.perf_counter()
    shape = train[0].shape[1:]
    classifier = _quadratic(model, training.seed, shape)
    if training.n_originals not in (None, len(train[0])):
        equal = equal_choices(classifier, shape, training.n_originals, len(train[0]))
        classifier = _quadratic(model, training.seed, shape, **equal)
    classifier.fit(*train, groups=sources, checkpoint_dir=folder / "subnets")

    def logits(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        # Probabilities may be zero, and a class may have no sample; losses stay finite.
        probabilities = np.full((len(images), n_classes), _LEAST)
        found = classifier.predict_proba(images)
        probabilities[:, classifier.classes_] = np.maximum(found, _LEAST)
        return np.log(probabilities)

    n_updates = _updates(classifier, shape, len(train[0]))
    entry = _one_epoch(logits, train, validation, 0.0, n_updates)
    seconds = entry["seconds"] = time.perf_counter() - begin
    return Fitted(
        history=[entry],
        frozen_history=[],
        best_epoch=1,
        logits=logits,
        n_updates=n_updates,
        n_parameters=int(classifier.n_parameters_total_),
        seconds=seconds,
        save=classifier.save,
    )


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
