"""Images as a fitted model sees them: features, outputs, and outputs that leave each image out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rankwise._arrays import blocks
from rankwise.data import ImageSet
from rankwise.explore.neighbours import votes
from rankwise.heads.features import extract_features
from rankwise.heads.head import VarProHead
from rankwise.linear.class_ridge import log_probabilities
from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.networks.quadratic import network_features

_BLOCK = 1024
_FEWEST = 2


@dataclass(frozen=True)
class Seen:
    """A part of a set, as a model sees it.

    Parameters
    ----------
    part : {"train", "test"}
        Whether the model was trained on these images.
    images : ImageSet
    truth : int array of shape (n,)
        Given labels as positions among the model's classes.
    features : float32 array of shape (n, m)
        What the model's last layer sums.
    outputs : float64 array of shape (n, K)
    log_probabilities : float64 array of shape (n, K)
    """

    part: str
    images: ImageSet
    truth: Int[np.ndarray, "n"]
    features: np.ndarray
    outputs: Float[np.ndarray, "n K"]
    log_probabilities: Float[np.ndarray, "n K"]

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n K"]:
        """Of each class."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> Int[np.ndarray, "n"]:
        """Positions of the most probable classes."""
        return self.outputs.argmax(axis=1)

    @cached_property
    def confidence(self) -> Float[np.ndarray, "n"]:
        """The largest probability of each image."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Whether the prediction is the given label."""
        return self.predicted == self.truth


def seen(model: Any, images: ImageSet, part: str, *, features: np.ndarray | None = None) -> Seen:
    """What a model makes of images whose labels it knows.

    Parameters
    ----------
    model : QuadraticClassifier, ConvolutionalClassifier or VarProHead
        A head with its backbone, unless `features` are given.
    images : ImageSet
    part : {"train", "test"}
    features : array of shape (n, m), optional
        Of a head's backbone, where they are known.
    """
    names = np.asarray(images.class_names, dtype=str)[images.labels]
    classes = np.array([str(c) for c in model.classes_])
    order = np.argsort(classes, kind="stable")
    truth = order[np.searchsorted(classes[order], names)]
    if isinstance(model, VarProHead):
        if features is None:
            backbone = model._backbone()
            assert backbone is not None  # since it takes images
            features = extract_features(
                backbone,
                images,
                batch_size=model.batch_size,
                device=model.device,
                cache=model.cache,
            )
        outputs = features @ model.coef_.T + model.intercept_
        logs = log_probabilities_from(model, outputs)
        return Seen(part, images, truth, features, outputs, logs)
    known = unit_features(model.network_, model._validated_predict(images.images))
    if getattr(model, "tta", None) is None:
        outputs = _layer(model.network_, known)
    else:  # a mean over copies of each image, of which the features are the first one's
        outputs = outputs_of(model, images.images)
    return Seen(part, images, truth, known, outputs, model.log_probabilities_of(outputs))


def log_probabilities_from(model: Any, outputs: np.ndarray) -> Float[np.ndarray, "n K"]:
    """Logarithms of the probabilities that a model's outputs come to."""
    if isinstance(model, VarProHead):
        return log_probabilities(outputs, model.temperature_)
    return model.log_probabilities_of(outputs)


def outputs_of(model: Any, images: np.ndarray) -> Float[np.ndarray, "n K"]:
    """Outputs of a model for images (n, height, width[, channels]), without a progress bar."""
    if isinstance(model, VarProHead):
        return model.outputs(images)
    quiet = copy(model)
    quiet.verbose = 0
    return quiet.outputs(images)


def _layer(network: Any, features: np.ndarray) -> Float[np.ndarray, "n K"]:
    return features @ network.coef[:-1].astype(np.float64) + network.coef[-1]


def unit_features(network: Any, images: np.ndarray) -> np.ndarray:
    """Features of a network's last layer, float32 of shape (n, m), the constant left out."""
    features: Any
    if isinstance(network, ConvolutionalNetwork):
        features = network.features(images)
        m = network.units.n_features
    else:
        features = network_features(network.units, network.params, images)
        m = network.n_units
    found = np.empty((len(images), m), np.float32)
    for block in blocks(len(images), _BLOCK):
        found[block] = features(block)[:, :-1]
    return found


@dataclass(frozen=True)
class LeftOut:
    """Outputs of a least-squares layer for images that it wasn't fitted on, each.

    Parameters
    ----------
    outputs : float64 array of shape (n, K)
        Of training images those of the layer fitted without each (closed form), of others the
        layer's.
    temperature : float
        ``softmax(outputs/temperature)`` are probabilities.
    alpha : float
        Ridge of the layer.
    votes : float64 array of shape (n, K)
        Shares of the classes among the training images nearest to each (`neighbours.votes`); zeros
        where there are none.
    """

    outputs: Float[np.ndarray, "n K"]
    temperature: float
    alpha: float
    votes: Float[np.ndarray, "n K"]


def _each_once(
    truth: np.ndarray, groups: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Which training images are fitted, and the one whose left-out outputs each has.

    Of images that look the same the first is; where their labels differ, none.
    """
    once, twin = np.ones(len(truth), dtype=bool), np.arange(len(truth))
    for group in groups:
        rows = [row for row in group["rows"] if row < len(truth)]
        same = len(set(truth[rows].tolist())) == 1
        once[rows[1:] if same else rows] = len(rows) < 2
        if same:
            twin[rows] = rows[0]
    counts = np.bincount(truth[once], minlength=int(truth.max()) + 1)
    if (counts[np.unique(truth)] < _FEWEST).any():  # a class would be lost
        return np.ones(len(truth), dtype=bool), np.arange(len(truth))
    return once, twin


def left_out(model: Any, parts: list[Seen], groups: Sequence[Mapping[str, Any]] = ()) -> LeftOut:
    """Outputs for each image that don't know its label.

    Of a head they are its own. Of a network, a head is fitted on the features of its last layer:
    the units have seen the training images, the layer that is left out hasn't. A copy of an image
    would speak for its label, so a head is fitted on one of each group, and all of them have its
    left-out outputs. Where there is no training part, the outputs are the model's.

    Parameters
    ----------
    model
        As for `seen`.
    parts : list of Seen
        The training part first, where there is one.
    groups : sequence of dict, optional
        Images that look the same: ``rows`` among all parts; of `faults.repeated`.
    """
    own = isinstance(model, VarProHead)
    train = parts[0]
    if train.part != "train":
        outputs = np.concatenate([p.outputs for p in parts])
        known = getattr(model, "temperature_", None)
        temperature = 1.0 if known is None else float(known)
        return LeftOut(outputs, temperature, float("nan"), np.zeros_like(outputs))
    k = len(model.classes_)
    once, twin = _each_once(train.truth, groups)
    if own and once.all():
        labels = np.asarray(train.images.class_names, dtype=str)[train.images.labels]
        head = copy(model)
        head.backbone = None  # so that features are taken for what they are
        found = head.leave_one_out_predictions(train.features, labels)
        places = np.arange(k)
    else:
        head = VarProHead().fit(train.features[once], train.truth[once])
        found = train.features @ head.coef_.T + head.intercept_
        found[once] = head.leave_one_out_predictions(train.features[once], train.truth[once])
        found, places = found[twin], head.classes_
    outputs = np.zeros((sum(map(len, parts)), k))
    outputs[:, :] = found.min() - 1.0  # of a class that no training image has
    outputs[: len(train), places] = found
    start = len(train)
    for part in parts[1:]:
        outputs[start : start + len(part), places] = part.features @ head.coef_.T + head.intercept_
        start += len(part)
    features = np.concatenate([np.asarray(p.features, np.float32) for p in parts])
    truth = np.concatenate([p.truth for p in parts])
    themselves = np.arange(len(train), len(truth))
    near = votes(features, truth, np.flatnonzero(once), np.concatenate([twin, themselves]), k)
    return LeftOut(outputs, float(head.temperature_), float(head.alpha_), near)
