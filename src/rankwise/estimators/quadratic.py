"""`QuadraticClassifier`: the second paper's sub-networks under one output layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from rankwise._arrays import Images, chosen
from rankwise.estimators._arguments import (
    folder_of,
    margin_of,
    thread_count,
    truth_of,
    worker_count,
)
from rankwise.estimators._classifier import ImageClassifier, in_rows
from rankwise.estimators._inputs import ImageInput, as_numpy
from rankwise.estimators.choices import Subnetworks, given_by
from rankwise.lowrank import RandomLowRank
from rankwise.training.bootstrap import MARGIN, TransductiveResult, guess_labels, report_of
from rankwise.training.fitting import Fitted, fit_subnetworks
from rankwise.training.network_planning import plan_network
from rankwise.training.presets import PRESETS, NetworkPlan, check_given
from rankwise.training.usual_settings import usual_settings

__all__ = ["QuadraticClassifier", "TransductiveResult"]

_KNOWN_BEFORE_TRAINING = ("classes_", "preset_", "_recipe", "_seed", *ImageInput.LEARNED)
_CHOICES = ("unit", "n_units", "n_subnets", "subnets", "solver", "max_iter", "ridge", "refine")


class QuadraticClassifier(ImageClassifier):
    """A compact image classifier: quadratic units trained by variable projection (second paper).

    Units are trained in sub-networks, each to its end and none knowing the others, and glued by
    one linear solve. On images `ConvolutionalClassifier` is the more accurate one; this one takes
    a second or two, and tensors of any shape.

    Parameters left at None come from the preset, or from the size of the data.

    Parameters
    ----------
    preset : {"windowed", "pereyra"} or None, default=None
        ``"pereyra"`` is the paper's Table 3 (104 sub-networks of 50 symmetric units on 2000
        samples each, Kaufman's Jacobian); ``"windowed"`` the same scheme with smooth bilinear
        windowed units and the full Golub–Pereyra Jacobian, 50 units for every 500 samples up to
        the paper's number. None is ``"windowed"`` with at most 2000 units.
    unit : str or UnitForm, optional
        Form of a unit: ``"symmetric"``, ``"bilinear"``, ``"colour"``, ``"colour-bilinear"`` or
        ``"multilinear"`` (`rankwise.units.multilinear`); or with its activation, rank, window,
        start and bias as a `UnitForm`.
    n_units : int, optional
        Units of the whole network; a multiple of the number of sub-networks.
    n_subnets : int, optional
        Number of sub-networks.
    subnets : Subnetworks, optional
        Their mini-batches, Jacobian, tolerance, truncation and floating-point type.
    solver : str or Solver, optional
        ``"levenberg-marquardt"``, ``"minpack"`` (the paper's), ``"trust-region"``, ``"lbfgs"``,
        ``"gradient-descent"``, ``"search"``; or an object of `rankwise.varpro.solvers`, which
        brings its own number of iterations and tolerance.
    max_iter : int, optional
        Iterations of a sub-network's solver.
    ridge : float, "gcv", "loo", or an object, optional
        Ridge of the output layer, a number per sample (``μ = ridge·n``), or chosen by generalised
        cross-validation or by the exact leave-one-out error; or `FixedRidge`,
        `GeneralizedCrossValidation` or `LeaveOneOut`, which also truncate.
    refine : int, Grow, Prune, Refine, GaussNewton, or a tuple of these, optional
        What follows the glue, each ending in a glue of its own: units join, units are left out,
        all are trained together. A number is that of epochs of `Refine`. Default none.
    probabilities : {"sum-to-one", "sigmoid", "calibrated"}, optional
        How outputs become probabilities: normalised to sum 1 (paper, section 1; the default),
        through a sigmoid (its section 8.1), or as a softmax of outputs divided by a temperature
        that outputs for left-out images have chosen.
    class_weight : dict, "balanced" or None, default=None
        How often the images of a class count.
    image_shape : tuple of int, optional
        Shape of one image where rows come flat. Default: a square if there is one, else, of up to
        100 values, a single row of pixels.
    n_jobs : int, default=1
        Sub-networks trained at a time. Any number gives the same model.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Where sub-networks are trained; on a GPU as one batched computation.
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
    network_ : rankwise.networks.quadratic.QuadraticNetwork
    preset_ : str or None
        The one named.
    n_parameters_units_, n_parameters_total_ : int
        Fitted parameters of the hidden units (the paper's count), and with the output layer.
    status_ : str
        The worst status of any sub-network: ``converged``, ``max-iterations``, ``stalled`` or
        ``non-finite``.
    statuses_ : dict
        How many sub-networks ended with which status; and the refinement, which can also be
        ``finished`` or ``start-kept``: its start is better on the validation part.
    n_iter_ : int
        Most iterations of any sub-network.
    subnet_reports_ : list of dict
        Status, iterations, history, rank, conditioning and saturated units of each.
    history_ : list of dict
        Of each epoch of refinement: ``epoch``, ``train_loss``, ``validation_accuracy``,
        ``learning_rate``, ``seconds``; of Gauss–Newton the start and each step: ``iteration``,
        ``objective``.
    selection_ : dict
        With `Grow` the units that joined, ``grown``, and by which share of it the objective of
        the glue, ``‖τ − ΦA‖² + μ‖A‖²``, fell at this ``μ``, ``gain``; with `Prune` the units left
        out, ``pruned``, and by which share it rose, ``rise``.
    output_layer_ : {"glue"}
    precision_ : {"float32"} or None
        Of a refinement on mini-batches.
    mirror_ : None
        What `ConvolutionalClassifier` finds out of the training images.
    ridge_, rank_, condition_ : float, int, float
        Of the output layer; `ridge_` is per sample.
    temperature_ : float or None
        Of calibrated probabilities.
    seconds_ : dict
        ``subnets``, ``glue``, ``total``, and ``selection`` and ``joint`` where units were selected
        and refined; of these, ``earlier`` went by before interruptions.

    Notes
    -----
    A model fitted on images of type uint8 divides pixels by 255, to the paper's [0, 1], whatever
    type they have at prediction; one fitted on any other type uses values as they are. A
    symmetric unit ``wᵀXw`` sees only the symmetric part of ``X``: an image and its transpose look
    alike to it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from rankwise import QuadraticClassifier
    >>> digits = load_digits()
    >>> model = QuadraticClassifier().fit(digits.images[:1200], digits.target[:1200])
    >>> bool(model.score(digits.images[1200:], digits.target[1200:]) > 0.9)
    True
    """

    family = "units"

    def __init__(
        self,
        preset: str | None = None,
        *,
        unit: Any = None,
        n_units: int | None = None,
        n_subnets: int | None = None,
        subnets: Any = None,
        solver: Any = None,
        max_iter: int | None = None,
        ridge: Any = None,
        refine: Any = None,
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
        self.n_subnets = n_subnets
        self.subnets = subnets
        self.solver = solver
        self.max_iter = max_iter
        self.ridge = ridge
        self.refine = refine
        self.probabilities = probabilities
        self.class_weight = class_weight
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    _recipe: NetworkPlan

    @property
    def dtype(self) -> str:  # type: ignore[override]  # follows from a parameter here
        """Of images, features and the large products, as `subnets` says."""
        return self.subnets.dtype if isinstance(self.subnets, Subnetworks) else "auto"

    def _given(self) -> dict[str, Any]:
        named = isinstance(self.preset, str) and self.preset in PRESETS
        if self.preset is not None and not named:
            raise ValueError(
                f"unknown preset {self.preset!r}; accepted: {', '.join(PRESETS)}; tiny to wide are "
                "presets of ConvolutionalClassifier"
            )
        given: dict[str, Any] = {}
        for name in _CHOICES:
            given |= given_by(name, getattr(self, name))
        check_given(self.preset, given)
        return given

    def plan_for(self, image_shape: tuple[int, ...], n_samples: int) -> NetworkPlan:
        """What a fit on so many images of a shape would train.

        Raises
        ------
        ValueError
            If a parameter doesn't fit them.
        """
        dtype = getattr(self, "_dtype", "float32")
        return plan_network(
            self.preset, self._given(), image_shape, n_samples=n_samples, dtype=dtype
        )

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
        self.preset_ = self.preset
        n_seen = len(images) if validation is None else int(np.sum(~validation))
        self._recipe = self.plan_for(self.image_shape_, n_seen)
        return self._fit_recipe(
            images,
            encoded,
            weights=weights,
            groups=groups,
            validation_rows=validation,
            seed=seed,
            folder=folder,
        )

    @usual_settings()
    def _fit_recipe(
        self, images: Images, encoded: np.ndarray, *, seed: int, **options: Any
    ) -> Fitted:
        return fit_subnetworks(
            images,
            encoded,
            len(self.classes_),
            self._recipe,
            seed=seed,
            workers=worker_count(self.n_jobs),
            dtype=self._dtype,
            low_rank=RandomLowRank(seed=seed),
            **self._execution(),
            **options,
        )

    # -- the paper's section 5 ----------------------------------------------------------------

    def bootstrap_transductive(
        self,
        X: Any,
        y: Any = None,
        *,
        margin: float = MARGIN,
        rounds: int = 1,
        folder: str | Path | None = None,
    ) -> TransductiveResult:
        """Train on test images with guessed labels (paper, section 5). *Transductive*.

        Every sub-network goes on from its trained units, on mini-batches of the test images
        with the guesses as labels; then one glue, on the same. Class weights are of the guesses.

        Parameters
        ----------
        X : array of images
            The test images. They are trained on.
        y : array of shape (n_samples,), optional
            True labels: used for the report alone, never for training.
        margin : float, default=0.2
            A guess is clear if ``v¹ − v² > margin·v¹``; else the label is drawn at random.
        rounds : int, default=1
            Passes, each with the guesses of the one before. The paper's is one: "repetition
            of the process in our case does not lead to further improvement".
        folder : path, optional
            Finished sub-networks are kept here, those of further rounds beside it.

        Returns
        -------
        TransductiveResult
            A new classifier and the three numbers apart, of the last round and of each; this one
            stays as it was.

        Raises
        ------
        ValueError
            If an argument doesn't fit; one sentence says what does.
        """
        margin = margin_of(margin)
        parts = None if folder is None else folder_of("folder", folder)
        outputs = self.outputs(X)
        truth = truth_of(as_numpy(y), self.classes_, len(outputs))
        images = in_rows(self._validated_predict(as_numpy(X)))
        if not hasattr(self, "_subnet_params"):
            raise ValueError(
                "bootstrapping needs the sub-networks of a fit in this process; "
                "a loaded model holds only the assembled network"
            )
        if not isinstance(rounds, Integral) or isinstance(rounds, bool) or rounds < 1:
            raise ValueError(f"rounds must be a whole number at least 1, got {rounds!r}")
        before = self.classes_[outputs.argmax(axis=1)]
        network, reports = self, []
        for number in range(1, int(rounds) + 1):
            place = parts
            if parts is not None and number > 1:
                whole = Path(os.path.abspath(parts))  # the name of "." is its folder's
                place = whole.with_name(f"{whole.name}-{number}")
            rng = np.random.default_rng([self._seed, number])
            guesses, ambiguous = guess_labels(outputs, rng, margin)
            network = self._gone_on(network, images, guesses, self._seed + number, place)
            outputs = network.network_.outputs(images, workers=thread_count(self.n_jobs))
            after, trained_on = (
                self.classes_[encoded] for encoded in (outputs.argmax(axis=1), guesses)
            )
            reports.append(report_of(before, after, trained_on, ambiguous, truth))
        return TransductiveResult(network, after, trained_on, reports[-1], tuple(reports))

    def _gone_on(
        self,
        network: QuadraticClassifier,
        images: Images,
        labels: np.ndarray,
        seed: int,
        folder: Path | None,
    ) -> QuadraticClassifier:
        """A classifier whose sub-networks start from those of `network`."""
        result = clone(self)
        for name in _KNOWN_BEFORE_TRAINING:
            setattr(result, name, getattr(self, name))
        if hasattr(self, "feature_names_in_"):
            result.feature_names_in_ = self.feature_names_in_
        weights = self._weights(labels, None)
        if weights is not None:
            counted = np.flatnonzero(weights)
            if not len(counted):
                raise ValueError("every guess is of a class of weight 0, so none can be trained on")
            images, labels, weights = chosen(images, counted), labels[counted], weights[counted]
            weights = None if np.ptp(weights) == 0 else weights
        fitted = result._fit_recipe(
            images,
            labels,
            weights=weights,
            seed=seed,
            folder=folder,
            starts=network._subnet_params,
        )
        result._note(fitted)
        return result
