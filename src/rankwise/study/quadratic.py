"""A study's quadratic classifiers: tried, trained as often with copies as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.study.design import StudyError
from rankwise.study.design_parts import Model
from rankwise.study.fitted import Fitted, Labelled, Training, one_epoch

_LEAST = 1e-12
# Training images to try the quadratic classifier's parameters with: as many as it needs.
_MANY = 10_000
_STUDYS = ("random_state", "device", "n_jobs", "verbose")
"""What a study decides for all of its models."""


def quadratic_classifier(
    model: Model, seed: int, image_shape: tuple[int, ...], **instead: int
) -> Any:
    """The classifier asked for; without a preset the one that `rankwise train` would choose."""
    from rankwise.estimators.options import OPTIONS, classifier_of, training_options
    from rankwise.training.presets import recommended

    accepted = ["preset", *(name for name in OPTIONS if name not in _STUDYS)]
    decided = sorted(set(model.parameters) & {*_STUDYS})
    if decided:
        raise StudyError(
            f"{', '.join(map(repr, decided))} can't be parameters of the quadratic classifier, as "
            f"the study decides them; {', '.join(accepted)} are accepted"
        )
    unknown = sorted(set(model.parameters) - {*accepted})
    if unknown:
        raise StudyError(
            f"the quadratic classifier has no {', '.join(map(repr, unknown))}; "
            f"{', '.join(accepted)} are accepted as its parameters"
        )
    parameters = {"random_state": seed, **model.parameters, **instead}
    preset = parameters.pop("preset", None)
    if preset is None:
        preset, _ = recommended(training_options({**model.parameters}), image_shape)
    try:
        return classifier_of(preset, **parameters)
    except (TypeError, ValueError) as error:
        raise StudyError(f"the parameters of the quadratic classifier: {error}") from error


def check_quadratic(model: Model, image_shape: tuple[int, ...], n_classes: int) -> None:
    """Refuse parameters that a fit would refuse."""
    classifier = quadratic_classifier(model, 0, image_shape)
    try:
        classifier.check_fit(image_shape, n_classes, _MANY)
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


def fit_quadratic(
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
    classifier = quadratic_classifier(model, training.seed, shape)
    if training.n_originals not in (None, len(train[0])):
        equal = equal_choices(classifier, shape, training.n_originals, len(train[0]))
        classifier = quadratic_classifier(model, training.seed, shape, **equal)
    classifier.set_params(device=training.device)
    classifier.fit(*train, groups=sources, checkpoint_dir=folder / "subnets")

    def logits(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        # Probabilities may be zero, and a class may have no sample; losses stay finite.
        probabilities = np.full((len(images), n_classes), _LEAST)
        found = classifier.predict_proba(images)
        probabilities[:, classifier.classes_] = np.maximum(found, _LEAST)
        return np.log(probabilities)

    n_updates = _updates(classifier, shape, len(train[0]))
    entry = one_epoch(logits, train, validation, 0.0, n_updates)
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
