"""`ConvolutionalClassifier`: forms slid over the image, trained together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from rankwise._arrays import Images, chosen, each_once, part_rows
from rankwise._progress import progress_bar
from rankwise.estimators._arguments import (
    epochs_of,
    groups_of,
    tells,
    thread_count,
    validation_of,
)
from rankwise.estimators._classifier import ImageClassifier, in_rows
from rankwise.estimators._inputs import as_numpy, classes_of
from rankwise.estimators.choices import FixedRidge, given_by
from rankwise.lowrank import RandomLowRank
from rankwise.networks.convolutional import OUTPUT_BLOCK
from rankwise.networks.copies import COPIES, outputs_of_copies, views
from rankwise.networks.graph import Graph
from rankwise.training.convolutional_fitting import fit_convolutional
from rankwise.training.convolutional_presets import (
    ACCEPTED,
    CONVOLUTIONAL_PRESETS,
    ConvolutionalPlan,
    plan_convolutional,
)
from rankwise.training.expectation import Expectation, expectation
from rankwise.training.fitting import Fitted
from rankwise.training.presets import check_given
from rankwise.training.usual_settings import usual_settings

_CHOICES = ("unit", "n_units", "time_budget", "augmentation", "training", "ridge")


class ConvolutionalClassifier(ImageClassifier):
    """A compact image classifier: multilinear forms slid over the image, in layers.

    All units are trained together by cross-entropy on images moved at random; then the output
    layer is solved in closed form, and the better of the two on a validation part stays. It is the
    more accurate of the two classifiers on images, from 100 of them on; the other,
    `QuadraticClassifier`, is the second paper's.

    Parameters
    ----------
    preset : {"wide", "accurate", "small", "tiny", "nano"}, default="small"
        Size and training: 393,252, 95,764, 19,204, 4,644 and 963 parameters on MNIST
        (`rankwise.training.convolutional_presets`).
    unit : UnitForm, optional
        Rank and activation of every unit. Default: the preset's, of rank 1 with ``"gelu"``.
    n_units : int, optional
        Units of all layers, which are scaled alike: at least one a layer, which is 6, or 8 where a
        light block leads; of an odd number one fewer. Default: the preset's.
    epochs : int, optional
        Default: the preset's for so many images.
    time_budget : float, optional
        Minutes that `fit` may take: as many epochs as fit into them, at most 200. What is reached
        depends on the machine then, and a warning says if it is less than one epoch. Default: the
        epochs decide.
    augmentation : {"moves", "low-rank", "moves+low-rank", "none"}, optional
        What happens to the images of a batch: random moves (default), and `RandomLowRank` copies in
        the place of a fifth of them (first paper). Moves are affine maps, of larger scales and with
        mirror images where those are found to be of the same class (`mirror_`); from 10,000 such
        images on they are shifts, and mirror images in turn; in long trainings of ``"accurate"``
        and ``"wide"``, of 60 epochs and more, twice as far, with a square that has the image's
        mean.
    training : TrainingOptions, optional
        Its precision, bfloat16 for instance, the patience after which it stops early, a teacher.
    tta : {"mirror", "shifts"}, optional
        Copies of each image at prediction, whose outputs are averaged: the image and its mirror
        image, twice the time, which `fit` refuses before it trains unless a probe finds that the
        training images' classes survive it (`mirror_`); or also both moved by a pixel up left and
        down right, six times the time, three times without mirror images. Default: none. Exports
        compute one image, and are refused with it.
    ridge : float, "gcv", "loo", or an object, optional
        Ridge of the closed-form output layer, a number per sample (``μ = ridge·n``), or chosen by
        generalised cross-validation (default) or by the exact leave-one-out error; or
        `FixedRidge`, `GeneralizedCrossValidation` or `LeaveOneOut`, which also truncate.
    probabilities : {"sum-to-one", "sigmoid", "calibrated"}, optional
        Default: those of the output layer that stayed, a softmax where it was trained.
        ``"calibrated"`` divides the outputs by a temperature first that the validation part has
        chosen or, under 200 images, left-out outputs. The other two make sense for least squares
        only, so with them the output layer is the closed-form one.
    class_weight : dict, "balanced" or None, default=None
        How often the images of a class count.
    image_shape : tuple of int, optional
        Shape of one image where rows come flat.
    n_jobs : int, default=1
        Threads; a step of the training has work for four at most, for two where images are small or
        for one where they are few. Any number gives the same model.
    device : {"cpu", "cuda", "auto"}, default="cpu"
    random_state : int, RandomState or None, default=42
        The same seed gives the same model.
    verbose : int, default=0
        1 shows a progress bar for each stage.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    image_shape_ : tuple of int
    n_features_in_ : int
        Pixels of an image.
    network_ : rankwise.networks.convolutional.ConvolutionalNetwork
    preset_ : str
    n_parameters_units_, n_parameters_total_ : int
        Fitted parameters of the units, and with the output layer.
    status_ : {"finished", "early-stop", "non-finite"}
    statuses_ : dict
    n_iter_ : int
        Epochs.
    history_ : list of dict
        Of each epoch: ``epoch``, ``train_loss``, ``validation_accuracy``, ``learning_rate``,
        ``seconds``.
    precision_ : {"float32", "bfloat16"}
        What training computed in.
    mirror_ : bool or None
        Whether a probe of the training images found that mirror images are images of the same
        class, and training showed them; None where none was asked: without moves, and where
        fewer than 200 images are trained on.
    output_layer_ : {"glue", "trained"}
        The closed-form output layer, or the trained one where that is better on the validation
        part of the training images; under 200 images there is no such part, and it is the glue.
    ridge_, rank_, condition_ : float, int, float
        Of the closed-form output layer; `ridge_` is per sample.
    temperature_ : float or None
        Of calibrated probabilities.
    seconds_ : dict
        ``joint``, ``glue``, ``total``, and ``teacher`` where there was one; of these, ``earlier``
        went by before interruptions.

    Notes
    -----
    Images are computed with in float32. A model fitted on images of type uint8 divides pixels by
    255, whatever type they have at prediction; one fitted on any other type uses values as they
    are. Weights count in the loss; batches are drawn without them. Images that are there several
    times, with one label, are taken as one that counts as often; so a weight of 2 is the same as
    two equal images, and the order of the images doesn't matter.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from rankwise import ConvolutionalClassifier
    >>> digits = load_digits()
    >>> model = ConvolutionalClassifier("tiny", epochs=8)
    >>> model = model.fit(digits.images[:1200], digits.target[:1200])
    >>> bool(model.score(digits.images[1200:], digits.target[1200:]) > 0.9)
    True
    """

    family = "convolutional"
    dtype = "auto"

    def __init__(
        self,
        preset: str = "small",
        *,
        unit: Any = None,
        n_units: int | None = None,
        epochs: int | None = None,
        time_budget: float | None = None,
        augmentation: str | None = None,
        training: Any = None,
        tta: str | None = None,
        ridge: Any = None,
        probabilities: str | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        image_shape: tuple[int, ...] | None = None,
        n_jobs: int = 1,
        device: str = "cpu",
        random_state: Any = 42,
        verbose: int = 0,
    ) -> None:
        self.preset = preset
        self.unit = unit
        self.n_units = n_units
        self.epochs = epochs
        self.time_budget = time_budget
        self.augmentation = augmentation
        self.training = training
        self.tta = tta
        self.ridge = ridge
        self.probabilities = probabilities
        self.class_weight = class_weight
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _given(self) -> dict[str, Any]:
        if not isinstance(self.preset, str) or self.preset not in CONVOLUTIONAL_PRESETS:
            raise ValueError(
                f"unknown preset {self.preset!r}; accepted: {', '.join(CONVOLUTIONAL_PRESETS)}"
            )
        if isinstance(self.ridge, FixedRidge) and self.ridge.method != "auto":
            raise ValueError(
                f"method {self.ridge.method!r} of the output layer is for sub-networks; "
                "convolutional units take 'auto'"
            )
        if self.tta not in (None, *COPIES):
            views(self.tta, mirror=None)
        given: dict[str, Any] = {}
        for name in _CHOICES:
            given |= given_by(name, getattr(self, name))
        foreign = [name for name in given if name not in ACCEPTED]
        if foreign:
            raise ValueError(
                f"preset {self.preset!r} has convolutional units and takes no "
                f"{', '.join(foreign)}; unit=UnitForm(rank=…, activation=…) is accepted"
            )
        if self.epochs is not None:
            given["max_iter"] = epochs_of(self.epochs)
        check_given(self.preset, given)
        return given

    def outputs(self, X: Any) -> np.ndarray:
        """Raw outputs of the network, ``ΦA``, averaged over the copies that `tta` asks for.

        Returns
        -------
        array of shape (n_samples, n_classes)
        """
        if self.tta is None:
            return super().outputs(X)
        check_is_fitted(self, "network_")
        chosen = views(self.tta, self.mirror_)
        images = in_rows(self._validated_predict(as_numpy(X)))
        workers = thread_count(self.n_jobs)
        network: Any = self.network_
        step = part_rows(network.features(images).row_bytes, OUTPUT_BLOCK)
        total = len(chosen) * len(images)
        with progress_bar("predict", total, enabled=tells(self.verbose)) as advance:
            return outputs_of_copies(
                lambda copies: network.outputs(copies, workers=workers, advance=advance),
                images,
                chosen,
                step,
            )

    def as_graph(self) -> Graph:
        """What the model computes from pixels to probabilities, for exports.

        Raises
        ------
        ValueError
            With `tta`, which no export computes.
        """
        if self.tta is not None:
            raise ValueError(
                f"tta={self.tta!r} averages over copies of an image, and an export computes one; "
                "set_params(tta=None) first"
            )
        return super().as_graph()

    def plan_for(
        self, image_shape: tuple[int, ...], n_samples: int, low_rank: Any = None
    ) -> ConvolutionalPlan:
        """What a fit on so many images of a shape would train, a given validation part aside.

        Raises
        ------
        ValueError
            If a parameter doesn't fit them.
        """
        given = self._given()
        return plan_convolutional(
            str(self.preset), given, image_shape, n_samples=n_samples, low_rank=low_rank
        )

    @usual_settings()
    def expect(self, X: Any, y: Any, *, groups: Any = None, validation: Any = None) -> Expectation:
        """What `fit` on these would come to: parameters, bytes, epochs and minutes; trains nothing.

        Parameters
        ----------
        X : array of shape (n_samples, height, width[, channels]) or (n_samples, n_features)
        y : array of shape (n_samples,)
        groups, validation : arrays of shape (n_samples,), optional
            As in `fit`.

        Returns
        -------
        rankwise.training.expectation.Expectation
            Its text is one line for people.
        """
        model = clone(self)
        images, labels = model._validated_fit(as_numpy(X), as_numpy(y))
        images = in_rows(images)
        groups = groups_of(as_numpy(groups), len(images))
        classes, encoded = classes_of(labels)
        validation = validation_of(as_numpy(validation), encoded, classes)
        rows, _ = each_once(images, encoded, groups, validation)
        if validation is not None:
            rows = rows[~validation[rows]]
        execution = model._execution()
        return expectation(
            model.plan_for(model.image_shape_, len(rows)),
            chosen(images, rows),
            encoded[rows],
            len(classes),
            threads=execution["threads"],
            device=execution["device"],
        )

    @usual_settings()
    def _trained(
        self,
        images: Images,
        encoded: np.ndarray,
        *,
        weights: np.ndarray | None,
        groups: np.ndarray | None,
        validation: np.ndarray | None,
        seed: int,
        folder: Path | None,
    ) -> Fitted:
        begin = time.perf_counter()
        self.preset_ = str(self.preset)
        # An image that is there twice counts twice; so neither repeats nor the order of the images
        # change what batches hold, and a weight of 2 is the same as two images.
        rows, of = each_once(images, encoded, groups, validation)
        counts = np.bincount(of, weights)
        weights = None if np.ptp(counts) == 0 else counts.astype(np.float64)
        groups = None if groups is None else groups[rows]
        validation = None if validation is None else validation[rows]
        n_seen = len(rows) if validation is None else int(np.sum(~validation))
        plan = self.plan_for(self.image_shape_, n_seen, RandomLowRank(seed=seed))
        return fit_convolutional(
            chosen(images, rows),
            encoded[rows],
            len(self.classes_),
            plan,
            seed=seed,
            weights=weights,
            groups=groups,
            validation_rows=validation,
            folder=folder,
            glue_only=self.probabilities in ("sum-to-one", "sigmoid"),
            mirror_needed=self.tta == "mirror",
            begin=begin,
            **self._execution(),
        )
