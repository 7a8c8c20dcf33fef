"""The scikit-learn face: `QuadraticClassifier`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from rankwise._progress import progress_bar
from rankwise.varpro.batched import resolve_device
from rankwise.varpro.bootstrap import MARGIN, BootstrapReport, guess_labels
from rankwise.varpro.network import glue, normalise
from rankwise.varpro.presets import GIVEN, NetworkPlan, plan_network
from rankwise.varpro.solvers import CONVERGED, MAX_ITERATIONS, NON_FINITE, STALLED
from rankwise.varpro.subnetworks import Subnet, stack, train_subnets

_WORST_FIRST = (NON_FINITE, STALLED, MAX_ITERATIONS, CONVERGED)


@dataclass(frozen=True)
class TransductiveResult:
    """What `QuadraticClassifier.bootstrap_transductive` gives.

    Attributes
    ----------
    classifier : QuadraticClassifier
        Trained on the test images with guessed labels. Never report its accuracy as ordinary
        accuracy.
    labels : array of shape (n_samples,)
        Its labels for the test images.
    guesses : array of shape (n_samples,)
        The labels it was trained on.
    report : BootstrapReport
    """

    classifier: QuadraticClassifier
    labels: np.ndarray
    guesses: np.ndarray
    report: BootstrapReport


class QuadraticClassifier(ClassifierMixin, BaseEstimator):
    """A compact image classifier: quadratic units, sub-networks by variable projection, one glue.

    Parameters left at None come from the preset, or from the size of the data.

    Parameters
    ----------
    preset : {"pereyra", "windowed"} or None, default=None
        ``"pereyra"`` is the paper's Table 3 (104 sub-networks of 50 symmetric units on 2000
        samples each, Kaufman's Jacobian); ``"windowed"`` the same scheme with smooth bilinear
        windowed units and the full Golub–Pereyra Jacobian. None is ``"windowed"`` sized to the
        data: 50 units for every 500 samples, at most 2000.
    unit : {"symmetric", "bilinear", "colour", "colour-bilinear", "multilinear"}, optional
        Form of a unit; see `rankwise.varpro.units`.
    activation : {"tanh", "logistic"}, optional
    rank : int, optional
        Rank-one forms summed in a unit.
    window : tuple of two floats, or False, optional
        Smallest and largest side of a unit's window as fractions of the axis; False for the
        whole image.
    n_units : int, optional
        Units of the whole network; a multiple of `n_subnets`.
    n_subnets : int, optional
    samples_per_subnet : int, optional
        Mini-batch of a sub-network.
    solver : {"levenberg-marquardt", "minpack", "lbfgs", "gradient-descent", "search"}, optional
    jacobian : {"golub-pereyra", "kaufman"}, optional
    max_iter : int, optional
        Iterations of a sub-network's solver.
    tol : float, optional
        Relative decrease of a sub-network's objective under which it has converged.
    ridge : float, "gcv" or "loo", optional
        Ridge of the output layer, a number per sample (``μ = ridge·n``), or chosen by
        generalised cross-validation or by the exact leave-one-out error.
    glue_method : {"auto", "gram", "tsqr"}, default="auto"
        How the output layer is accumulated; see `rankwise.varpro.output_layer`.
    squash : bool, default=False
        Probabilities through a sigmoid of the outputs (paper, section 8.1).
    image_shape : tuple of int, optional
        Shape of one image where rows come flat. Default: a square if there is one, else a single
        row of pixels.
    n_jobs : int, default=1
        Sub-networks trained at a time. Any number gives the same model.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Where sub-networks are trained; on a GPU as one batched computation.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Of images, features and the large products; solves are float64. ``"auto"`` follows `X`:
        float32 for uint8 and float32 images, float64 (half the speed) for all others.
    checkpoint_dir : path, optional
        Finished sub-networks are kept here, and an interrupted fit goes on from them.
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
    network_ : rankwise.varpro.network.QuadraticNetwork
    n_parameters_units_, n_parameters_total_ : int
        Fitted parameters of the hidden units (the paper's count), and with the output layer.
    status_ : str
        The worst status of any sub-network: ``converged``, ``max-iterations``, ``stalled`` or
        ``non-finite``.
    statuses_ : dict
        How many sub-networks ended with which status.
    n_iter_ : int
        Most iterations of any sub-network.
    subnet_reports_ : list of dict
        Status, iterations, history, rank, conditioning and saturated units of each.
    ridge_, rank_, condition_ : float, int, float
        Of the output layer; `ridge_` is per sample.
    seconds_ : dict
        ``subnets``, ``glue``, ``total``.

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
        self.glue_method = glue_method
        self.squash = squash
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting ----------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> QuadraticClassifier:
        """Train the sub-networks, then glue them.

        Parameters
        ----------
        X : array of shape (n_samples, height, width[, channels]) or (n_samples, n_features)
            Images, uint8 or floating point, or flat rows (see `image_shape`).
        y : array of shape (n_samples,)
            Labels of any type scikit-learn takes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the images or the labels don't fit; one sentence says what does.
        """
        images, y = self._validated_fit(X, y)
        self.classes_, encoded = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "Classifier can't train when only one class is present: found only "
                f"{self.classes_[0]}"
            )
        self._seed = _seed(self.random_state)
        self._recipe = self._plan(len(images))
        self._train(images, encoded, self._seed, self.checkpoint_dir)
        return self

    def _train(
        self,
        images: np.ndarray,
        encoded: np.ndarray,
        seed: int,
        folder: str | Path | None,
        starts: list[tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        recipe = self._recipe
        plan, n_subnets, ridge = recipe.subnet, recipe.n_subnets, recipe.ridge
        targets = np.eye(len(self.classes_), dtype=np.float32)[encoded]
        begin = time.perf_counter()
        with progress_bar("sub-networks", n_subnets, enabled=self.verbose > 0) as advance:
            subnets = train_subnets(
                images,
                targets,
                plan,
                n_subnets,
                seed=seed,
                workers=self.n_jobs,
                device=resolve_device(self.device),
                starts=starts,
                folder=None if folder is None else Path(folder),
                advance=advance,
            )
        trained = time.perf_counter()
        params, active = stack(subnets)
        with progress_bar("glue", len(images), enabled=self.verbose > 0) as advance:
            self.network_, layer = glue(
                plan.units,
                params,
                images,
                targets,
                ridge=ridge if isinstance(ridge, str) else ridge * len(images),
                method=self.glue_method,
                workers=_workers(self.n_jobs),
                dtype=self._dtype,
                n_active=int(active.sum()),
                advance=advance,
            )
        end = time.perf_counter()
        self._note(subnets, layer, len(images))
        self.seconds_ = {
            "subnets": trained - begin,
            "glue": end - trained,
            "total": end - begin,
        }
        self._subnet_params = [(s.params, s.active) for s in subnets]

    def _note(self, subnets: list[Subnet], layer: Any, n_samples: int) -> None:
        self.subnet_reports_ = [s.report for s in subnets]
        self.statuses_ = dict(Counter(r["status"] for r in self.subnet_reports_))
        self.status_ = next(s for s in _WORST_FIRST if s in self.statuses_)
        self.n_iter_ = max(1, *(r["n_iterations"] for r in self.subnet_reports_))
        self.ridge_ = layer.ridge / n_samples
        self.rank_ = layer.rank
        self.condition_ = layer.condition
        self.n_parameters_units_ = self.network_.n_parameters_units
        self.n_parameters_total_ = self.network_.n_parameters_total

    def _plan(self, n_samples: int) -> NetworkPlan:
        given = {name: getattr(self, name) for name in GIVEN if getattr(self, name) is not None}
        return plan_network(
            self.preset, given, self.image_shape_, n_samples=n_samples, dtype=self._dtype
        )

    # -- predicting -------------------------------------------------------------------------

    def outputs(self, X: Any) -> np.ndarray:
        """Raw outputs of the network, ``ΦA``, of shape (n_samples, n_classes)."""
        check_is_fitted(self, "network_")
        images = self._validated_predict(X)
        with progress_bar("predict", len(images), enabled=self.verbose > 0) as advance:
            return self.network_.outputs(images, workers=_workers(self.n_jobs), advance=advance)

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
        return normalise(self.outputs(X), squash=self.squash)

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
        if not hasattr(self, "_subnet_params"):
            raise ValueError(
                "bootstrapping needs the sub-networks of a fit in this process; "
                "a loaded model holds only the assembled network"
            )
        rng = np.random.default_rng([self._seed, 1])
        guesses, ambiguous = guess_labels(outputs, rng, margin)
        result = QuadraticClassifier(**self.get_params())
        for name in (
            "classes_",
            "image_shape_",
            "n_features_in_",
            "_dtype",
            "_fitted_on_uint8",
            "_recipe",
            "_seed",
        ):
            setattr(result, name, getattr(self, name))
        result._train(images, guesses, self._seed + 1, folder, starts=self._subnet_params)
        labels = result.outputs(images).argmax(axis=1)
        report = BootstrapReport(
            inductive_accuracy=self._accuracy(outputs.argmax(axis=1), y),
            agreement_with_guesses=float(np.mean(labels == guesses)),
            transductive_accuracy=self._accuracy(labels, y),
            guess_accuracy=self._accuracy(guesses, y),
            ambiguous_fraction=float(np.mean(ambiguous)),
        )
        return TransductiveResult(result, self.classes_[labels], self.classes_[guesses], report)

    def _accuracy(self, encoded: np.ndarray, y: Any) -> float | None:
        return None if y is None else float(np.mean(self.classes_[encoded] == np.asarray(y)))

    # -- files --------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the model as ``model.safetensors`` and ``model.json`` into a folder."""
        from rankwise.persistence import save_classifier

        save_classifier(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> QuadraticClassifier:
        """Read a model written by `save`; nothing in the files is run.

        Raises
        ------
        rankwise.errors.ModelFileError
            If a file is missing, damaged or foreign.
        """
        from rankwise.persistence import load_classifier

        return load_classifier(Path(folder))

    # -- validation -----------------------------------------------------------------------------

    def _validated_fit(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        X = _without_imageset(X)
        if self.dtype not in ("auto", "float32", "float64"):
            raise ValueError(f"dtype must be 'auto', 'float32' or 'float64', got {self.dtype!r}")
        self._fitted_on_uint8 = getattr(X, "dtype", None) == np.uint8
        single = getattr(X, "dtype", None) in (np.uint8, np.float32)
        self._dtype = self.dtype if self.dtype != "auto" else "float32" if single else "float64"
        X, y = validate_data(self, X, y, allow_nd=True, dtype=self._accepted_dtype(X))
        check_classification_targets(y)
        self.image_shape_ = self._resolved_shape(X)
        self.n_features_in_ = prod(self.image_shape_)
        return X.reshape(len(X), *self.image_shape_), y

    def _validated_predict(self, X: Any) -> np.ndarray:
        X = _without_imageset(X)
        dtype = self._accepted_dtype(X)
        if getattr(X, "ndim", 2) == 2:
            X = validate_data(self, X, reset=False, dtype=dtype)
        else:
            X = check_array(X, allow_nd=True, dtype=dtype)
        if X.ndim > 2 and X.shape[1:] != self.image_shape_:
            raise ValueError(
                f"images have shape {X.shape[1:]}, but the model was fitted on {self.image_shape_}"
            )
        # The scale is that of the fit: pixels 0 to 255 in another type are still divided by 255,
        # and uint8 values given to a model of unscaled images aren't.
        if self._fitted_on_uint8 and X.dtype != np.uint8:
            X = X / np.asarray(255, dtype=X.dtype)
        elif not self._fitted_on_uint8 and X.dtype == np.uint8:
            X = X.astype(self._dtype)
        return X.reshape(len(X), *self.image_shape_)

    def _accepted_dtype(self, X: Any) -> Any:
        """uint8 images are converted block by block, all others at once."""
        return np.uint8 if getattr(X, "dtype", None) == np.uint8 else np.dtype(self._dtype)

    def _resolved_shape(self, X: np.ndarray) -> tuple[int, ...]:
        if self.image_shape is not None:
            shape = tuple(int(s) for s in self.image_shape)
            if prod(shape) != prod(X.shape[1:]):
                raise ValueError(
                    f"image_shape {shape} has {prod(shape)} pixels, but X has "
                    f"{prod(X.shape[1:])} a sample"
                )
            return shape
        if X.ndim > 2:
            return X.shape[1:]
        side = isqrt(X.shape[1])
        return (side, side) if side * side == X.shape[1] else (1, X.shape[1])


def _without_imageset(X: Any) -> Any:
    """The images of an `ImageSet`; anything else is left to scikit-learn's own checks."""
    from rankwise.data import ImageSet

    return X.images if isinstance(X, ImageSet) else X


def _seed(random_state: Any) -> int:
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _workers(n_jobs: int | None) -> int:
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))
