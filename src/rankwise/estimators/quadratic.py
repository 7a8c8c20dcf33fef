"""The scikit-learn face: `QuadraticClassifier`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from rankwise._device import resolve_device
from rankwise._hub import OnHub
from rankwise._progress import progress_bar
from rankwise._refusals import all_or_nothing
from rankwise.estimators._inputs import ImageInput, classes_of, groups_of, seed_of, worker_count
from rankwise.lowrank import RandomLowRank
from rankwise.training.bootstrap import MARGIN, TransductiveResult, guess_labels, report_of
from rankwise.training.convolutional_presets import CONVOLUTIONAL_PRESETS, plan_convolutional
from rankwise.training.fitting import Fitted, fit_convolutional, fit_subnetworks
from rankwise.training.presets import GIVEN, check_given, chosen_preset, plan_network

__all__ = ["QuadraticClassifier", "TransductiveResult"]

_KNOWN_BEFORE_TRAINING = ("classes_", "preset_", "_recipe", "_seed", *ImageInput.LEARNED)
_LEARNED = (
    "status",
    "statuses",
    "n_iter",
    "ridge",
    "rank",
    "condition",
    "seconds",
    "output_layer",
    "selection",
)


class QuadraticClassifier(OnHub, ImageInput, ClassifierMixin, BaseEstimator):
    """A compact image classifier: multilinear units under an output layer in closed form.

    Units are trained in sub-networks by variable projection and glued by one linear solve, or,
    convolutional ones, all together.

    Parameters left at None come from the preset, or from the size of the data.

    Parameters
    ----------
    preset : {"accurate", "small", "tiny", "windowed", "pereyra"} or None, default=None
        ``"accurate"``, ``"small"`` and ``"tiny"`` are networks of convolutional units of three
        sizes (116,876, 19,052 and 4,912 parameters on MNIST), trained jointly on images moved at
        random (`rankwise.training.convolutional_presets`).
        ``"pereyra"`` is the paper's Table 3 (104 sub-networks of 50 symmetric units on 2000
        samples each, Kaufman's Jacobian); ``"windowed"`` the same scheme with smooth bilinear
        windowed units and the full Golub–Pereyra Jacobian. None is ``"small"`` from 2000 images
        of 16 × 16 pixels on, unless a choice is given that only sub-networks have; otherwise
        ``"windowed"`` sized to the data: 50 units for every 500 samples, at most 2000.
    unit : {"symmetric", "bilinear", "colour", "colour-bilinear", "multilinear"}, optional
        Form of a unit; see `rankwise.units.multilinear`.
    activation : {"tanh", "logistic", "relu", "softplus", "silu", "gelu"}, optional
    rank : int, optional
        Rank-one forms summed in a unit.
    window : tuple of two floats, or False, optional
        Smallest and largest side of a unit's window as fractions of the axis; False for the
        whole image.
    n_units : int, optional
        Units of the whole network; a multiple of `n_subnets`. Layers of convolutional units are
        scaled alike.
    n_subnets : int, optional
    samples_per_subnet : int, optional
        Mini-batch of a sub-network.
    solver : {"levenberg-marquardt", "minpack", "lbfgs", "gradient-descent", "search"}, optional
    jacobian : {"golub-pereyra", "kaufman"}, optional
    max_iter : int, optional
        Iterations of a sub-network's solver; epochs of convolutional units.
    tol : float, optional
        Relative decrease of a sub-network's objective under which it has converged.
    ridge : float, "gcv" or "loo", optional
        Ridge of the output layer, a number per sample (``μ = ridge·n``), or chosen by
        generalised cross-validation or by the exact leave-one-out error.
    start : {"gaussian", "images"}, optional
        How units of sub-networks start: as random vectors (default), or as the leading singular
        vectors of what one training image, less the mean image, shows in the unit's window.
    grow : int, optional
        Units that join behind the glue: of ten times as many, drawn as a sub-network starts,
        those that lower the objective of the glue most. Then a glue. Default none.
    prune : int or float, optional
        Units then left out, a number or a share of all: one after the other the one whose loss
        raises the objective of the glue least. Then a glue. Default none.
    refine : int, optional
        Epochs of joint refinement behind that: all units together, the output layer by variable
        projection; then a last glue. A validation part, cut off before anything is trained,
        chooses the epoch, and whether the start is kept. Default none.
    refine_solver : {"adamw", "gauss-newton"}, optional
        ``"adamw"`` (default) goes by mini-batches of images moved at random. ``"gauss-newton"``
        makes `refine` steps by conjugate gradients, each on all images as they are; it is meant
        for few units and images (`rankwise.varpro.newton`).
    augmentation : {"moves", "low-rank", "moves+low-rank", "none"}, optional
        What training on batches, of convolutional units or of a refinement, does to images:
        random affine maps (default), and `RandomLowRank` copies in the place of a fifth of them
        (second paper, section 3.3).
    glue_method : {"auto", "gram", "tsqr"}, default="auto"
        How the output layer is accumulated; see `rankwise.linear.output_layer`.
    squash : bool, default=False
        Probabilities through a sigmoid of the outputs (paper, section 8.1).
    image_shape : tuple of int, optional
        Shape of one image where rows come flat. Default: a square if there is one, else, of up to
        100 values, a single row of pixels.
    n_jobs : int, default=1
        Sub-networks trained at a time. Any number gives the same model.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Where sub-networks are trained; on a GPU as one batched computation.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Of images, features and the large products; solves are float64. ``"auto"`` follows `X`:
        float32 for uint8 and float32 images, float64 (half the speed) for all others.
    checkpoint_dir : path, optional
        Finished sub-networks, or epochs, are kept here, and an interrupted fit goes on from them.
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
    network_ : rankwise.networks.quadratic.QuadraticNetwork or \
            rankwise.networks.convolutional.ConvolutionalNetwork
    preset_ : str or None
        The one used, where none was named; None for ``"windowed"`` sized to the data.
    n_parameters_units_, n_parameters_total_ : int
        Fitted parameters of the hidden units (the paper's count), and with the output layer.
    status_ : str
        The worst status of any sub-network: ``converged``, ``max-iterations``, ``stalled`` or
        ``non-finite``; of convolutional units ``finished`` or ``non-finite``.
    statuses_ : dict
        How many sub-networks ended with which status; and the refinement, which can also be
        ``start-kept``: its start is better on the validation part.
    n_iter_ : int
        Most iterations of any sub-network, or epochs.
    subnet_reports_ : list of dict
        Status, iterations, history, rank, conditioning and saturated units of each.
    history_ : list of dict
        Of each epoch of convolutional units or of refinement: ``epoch``, ``train_loss``,
        ``validation_accuracy``, ``learning_rate``, ``seconds``; of Gauss–Newton the start and
        each step: ``iteration``, ``objective``.
    selection_ : dict
        With `grow` the units that joined, ``grown``, and by which share of it the objective of
        the glue, ``‖τ − ΦA‖² + μ‖A‖²``, fell at this ``μ``, ``gain``; with `prune` the units left
        out, ``pruned``, and by which share it rose, ``rise``.
    output_layer_ : {"glue", "trained"}
        The closed-form output layer, or the trained one where that is better on the validation
        part of the training images; under 200 images there is no such part, and it is the glue.
    ridge_, rank_, condition_ : float, int, float
        Of the output layer; `ridge_` is per sample.
    seconds_ : dict
        ``subnets`` (or ``joint``), ``glue``, ``total``, and ``selection`` and ``joint`` where
        units were selected and refined; of these, ``earlier`` went by before
        interruptions.

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

    def __init__(
        self,
        preset: str | None = None,
        *,
        unit: str | None = None,
        activation: str | None = None,
        rank: int | None = None,
        window: tuple[float, float] | bool | None = None,
        n_units: int | None = None,
        n_subnets: int | None = None,
        samples_per_subnet: int | None = None,
        solver: str | None = None,
        jacobian: str | None = None,
        max_iter: int | None = None,
        tol: float | None = None,
        ridge: float | str | None = None,
        start: str | None = None,
        grow: int | None = None,
        prune: int | float | None = None,
        refine: int | None = None,
        refine_solver: str | None = None,
        augmentation: str | None = None,
        glue_method: str = "auto",
        squash: bool = False,
        image_shape: tuple[int, ...] | None = None,
        n_jobs: int = 1,
        device: str = "cpu",
        dtype: str = "auto",
        checkpoint_dir: str | Path | None = None,
        random_state: Any = 42,
        verbose: int = 0,
    ) -> None:
        self.preset = preset
        self.unit = unit
        self.activation = activation
        self.rank = rank
        self.window = window
        self.n_units = n_units
        self.n_subnets = n_subnets
        self.samples_per_subnet = samples_per_subnet
        self.solver = solver
        self.jacobian = jacobian
        self.max_iter = max_iter
        self.tol = tol
        self.ridge = ridge
        self.start = start
        self.grow = grow
        self.prune = prune
        self.refine = refine
        self.refine_solver = refine_solver
        self.augmentation = augmentation
        self.glue_method = glue_method
        self.squash = squash
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    set_params = all_or_nothing(BaseEstimator.set_params)

    # -- fitting ----------------------------------------------------------------------------

    @all_or_nothing
    def fit(self, X: Any, y: Any, groups: Any = None) -> QuadraticClassifier:
        """Train the units and solve the output layer.

        Parameters
        ----------
        X : array of shape (n_samples, height, width[, channels]) or (n_samples, n_features)
            Images, uint8 or floating point, or flat rows (see `image_shape`).
        y : array of shape (n_samples,)
            Labels of any type scikit-learn takes.
        groups : array of shape (n_samples,), optional
            What each image derives from, as `ImageSet.source_ids`: images of one group are never
            on both sides of the validation part that presets cut off. Default: all differ.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the images or the labels don't fit; one sentence says what does.
        """
        images, y = self._validated_fit(X, y)
        groups = groups_of(groups, len(images))
        self.classes_, encoded = classes_of(y)
        self._seed = seed_of(self.random_state)
        given = {name: getattr(self, name) for name in GIVEN if getattr(self, name) is not None}
        check_given(self.preset, given)
        shape, n_samples = self.image_shape_, len(images)
        self.preset_ = chosen_preset(self.preset, given, shape, n_samples)
        folder = None if self.checkpoint_dir is None else Path(self.checkpoint_dir)
        if self.preset_ in CONVOLUTIONAL_PRESETS:
            self._note(
                fit_convolutional(
                    images,
                    encoded,
                    len(self.classes_),
                    plan_convolutional(
                        self.preset_,
                        given,
                        shape,
                        n_samples=n_samples,
                        low_rank=RandomLowRank(seed=self._seed),
                    ),
                    seed=self._seed,
                    threads=worker_count(self.n_jobs),
                    device=resolve_device(self.device),
                    folder=folder,
                    progress=self.verbose > 0,
                    groups=groups,
                )
            )
            return self
        self._recipe = plan_network(
            self.preset_, given, shape, n_samples=n_samples, dtype=self._dtype
        )
        self._train_subnetworks(images, encoded, self._seed, folder, groups=groups)
        return self

    def _train_subnetworks(
        self,
        images: np.ndarray,
        encoded: np.ndarray,
        seed: int,
        folder: Path | None,
        starts: list[tuple[np.ndarray, np.ndarray]] | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        self._note(
            fit_subnetworks(
                images,
                encoded,
                len(self.classes_),
                self._recipe,
                seed=seed,
                workers=self.n_jobs,
                threads=worker_count(self.n_jobs),
                device=resolve_device(self.device),
                dtype=self._dtype,
                glue_method=self.glue_method,
                folder=folder,
                starts=starts,
                progress=self.verbose > 0,
                groups=groups,
                low_rank=RandomLowRank(seed=seed),
            )
        )

    def _note(self, fitted: Fitted) -> None:
        self.network_ = fitted.network
        for name in _LEARNED:
            setattr(self, f"{name}_", getattr(fitted, name))
        self.subnet_reports_ = fitted.reports
        self.history_ = fitted.history
        self._subnet_params = fitted.subnets
        self.n_parameters_units_ = self.network_.n_parameters_units
        self.n_parameters_total_ = self.network_.n_parameters_total

    # -- predicting -------------------------------------------------------------------------

    def outputs(self, X: Any) -> np.ndarray:
        """Raw outputs of the network, ``ΦA``, of shape (n_samples, n_classes)."""
        check_is_fitted(self, "network_")
        images = self._validated_predict(X)
        with progress_bar("predict", len(images), enabled=self.verbose > 0) as advance:
            return self.network_.outputs(images, workers=worker_count(self.n_jobs), advance=advance)

    def decision_function(self, X: Any) -> np.ndarray:
        """Confidence scores: the outputs or, with two classes, their difference.

        Returns
        -------
        array of shape (n_samples, n_classes) or (n_samples,)
        """
        outputs = self.outputs(X)
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: Any) -> np.ndarray:
        """The class of the largest output for each image, of shape (n_samples,)."""
        outputs = self.outputs(X)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Outputs normalised to sum 1 (paper, section 1), of shape (n_samples, n_classes)."""
        outputs = self.outputs(X)
        return self.network_.probabilities(outputs, squash=self.squash)

    # -- the paper's section 5 ----------------------------------------------------------------

    def bootstrap_transductive(
        self, X: Any, y: Any = None, *, margin: float = MARGIN, folder: str | Path | None = None
    ) -> TransductiveResult:
        """Train on test images with guessed labels (paper, section 5). *Transductive*.

        Every sub-network goes on from its trained units, on mini-batches of the test images
        with the guesses as labels; then one glue, on the same.

        Parameters
        ----------
        X : array of images
            The test images. They are trained on.
        y : array of shape (n_samples,), optional
            True labels: used for the report alone, never for training.
        margin : float, default=0.2
            A guess is clear if ``v¹ − v² > margin·v¹``; else the label is drawn at random.
        folder : path, optional
            Finished sub-networks are kept here.

        Returns
        -------
        TransductiveResult
            A new classifier and the three numbers apart; this one stays as it was.
        """
        outputs = self.outputs(X)
        images = self._validated_predict(X)
        if self.preset_ in CONVOLUTIONAL_PRESETS:
            raise ValueError(
                f"bootstrapping needs sub-networks, and preset {self.preset_!r} has none; use "
                "preset 'windowed' or 'pereyra'"
            )
        if not hasattr(self, "_subnet_params"):
            raise ValueError(
                "bootstrapping needs the sub-networks of a fit in this process; "
                "a loaded model holds only the assembled network"
            )
        rng = np.random.default_rng([self._seed, 1])
        guesses, ambiguous = guess_labels(outputs, rng, margin)
        result = QuadraticClassifier(**self.get_params())
        for name in _KNOWN_BEFORE_TRAINING:
            setattr(result, name, getattr(self, name))
        result._train_subnetworks(
            images,
            guesses,
            self._seed + 1,
            None if folder is None else Path(folder),
            starts=self._subnet_params,
        )
        labels = result.outputs(images).argmax(axis=1)
        before, after, trained_on = (
            self.classes_[encoded] for encoded in (outputs.argmax(axis=1), labels, guesses)
        )
        report = report_of(before, after, trained_on, ambiguous, y)
        return TransductiveResult(result, after, trained_on, report)

    # -- files --------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the model as ``model.safetensors`` and ``model.json`` into a folder."""
        from rankwise.estimators.files import save_classifier

        save_classifier(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> QuadraticClassifier:
        """Read a model written by `save`; nothing in the files is run.

        Raises
        ------
        rankwise.errors.ModelFileError
            If a file is missing, damaged or foreign.
        """
        from rankwise.estimators.files import load_classifier

        return load_classifier(Path(folder))
