"""What both classifiers of images have in common: weights, predictions, probabilities, files."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from rankwise._arrays import Images, Referred, chosen
from rankwise._device import resolve_device
from rankwise._hub import OnHub
from rankwise._model_files import built_from, check_class
from rankwise._progress import progress_bar
from rankwise._refusals import all_or_nothing
from rankwise.cluster import on_workers
from rankwise.estimators._arguments import (
    check_probabilities,
    folder_of,
    groups_of,
    seed_of,
    tells,
    thread_count,
    validation_of,
)
from rankwise.estimators._inputs import (
    ImageInput,
    as_numpy,
    classes_of,
)
from rankwise.estimators.files import SavedClassifier, read_classifier, write_classifier
from rankwise.networks.graph import Graph
from rankwise.networks.probabilities import log_probabilities

if TYPE_CHECKING:
    from rankwise.training.fitting import Fitted

LEARNED = (
    "status",
    "statuses",
    "n_iter",
    "ridge",
    "rank",
    "condition",
    "seconds",
    "output_layer",
    "precision",
    "mirror",
    "selection",
    "temperature",
)
SAVED = (*LEARNED, "preset", "history")
"""What a file keeps of a fit beside its network."""


class ImageClassifier(OnHub, ImageInput, ClassifierMixin, BaseEstimator):
    """A compact classifier of images; what it is made of is a subclass's."""

    family: str
    """Which of the two it is, in files."""

    preset: str | None
    probabilities: str | None
    class_weight: Mapping[Any, float] | str | None
    n_jobs: int
    device: str
    random_state: Any
    verbose: int

    @abstractmethod
    def _given(self) -> dict[str, Any]:
        """Choices as `rankwise.training.presets` names them, once they have been checked."""

    @abstractmethod
    def plan_for(self, image_shape: tuple[int, ...], n_samples: int) -> Any:
        """What a fit on so many images of a shape would train.

        Raises
        ------
        ValueError
            If a parameter doesn't fit them.
        """

    @abstractmethod
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
        """The fit itself."""

    # -- fitting ------------------------------------------------------------------------------

    set_params = all_or_nothing(BaseEstimator.set_params)

    @all_or_nothing
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        validation: Any = None,
        checkpoint_dir: str | Path | None = None,
    ) -> Self:
        """Train the units and solve the output layer.

        Parameters
        ----------
        X : array of shape (n_samples, height, width[, channels]) or (n_samples, n_features)
            Images, uint8 or floating point, or flat rows (see `image_shape`); of NumPy, PyTorch
            or pandas, or an `ImageSet`.
        y : array of shape (n_samples,)
            Labels of any type scikit-learn takes.
        sample_weight : array of shape (n_samples,), optional
            How often each image counts, at least 0, wherever a squared error or a loss is summed;
            with `class_weight` their product. Mini-batches are drawn without it.
        groups : array of shape (n_samples,), optional
            What each image derives from, as `ImageSet.source_ids`: images of one group are never
            on both sides of the validation part that is cut off. Default: all differ.
        validation : bool array of shape (n_samples,), optional
            Which images are the validation part: they choose epochs and output layers, and are
            never trained on. Default: a part that is cut off, where something is chosen.
        checkpoint_dir : path, optional
            Finished sub-networks, or epochs, are kept in this folder, and an interrupted fit goes
            on from them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the images, the labels or the weights don't fit; one sentence says what
            does. The estimator is then as it was.
        """
        folder = None if checkpoint_dir is None else folder_of("checkpoint_dir", checkpoint_dir)
        X, y, sample_weight = map(as_numpy, (X, y, sample_weight))
        self._fit(X, y, sample_weight, as_numpy(groups), as_numpy(validation), folder)
        return self

    def check_fit(self, image_shape: tuple[int, ...], n_classes: int, n_samples: int) -> None:
        """Refuse what a fit on images of a shape, labelled from 0, would refuse, before it trains.

        Raises
        ------
        ValueError
            If a parameter isn't accepted, or doesn't fit them.
        """
        model = copy.copy(self)
        check_probabilities(model.probabilities)
        images = np.zeros((n_classes, *image_shape), np.uint8)
        _, labels = model._validated_fit(images, np.arange(n_classes))
        model.classes_, encoded = classes_of(labels)
        model._weights(encoded, None)
        model._execution()
        model.plan_for(model.image_shape_, n_samples)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        groups: Any,
        validation: Any,
        folder: Path | None,
    ) -> None:
        self._given()
        check_probabilities(self.probabilities)
        images, y = self._validated_fit(X, y)
        images = in_rows(images)
        groups = groups_of(groups, len(images))
        self.classes_, encoded = classes_of(y)
        weights = self._weights(encoded, sample_weight)
        validation = validation_of(validation, encoded, self.classes_, weights)
        if weights is not None:
            trained = weights > 0 if validation is None else (weights > 0) & ~validation
            classes_of(self.classes_[encoded[trained]])
            alike = np.ptp(weights[trained]) == 0
            counted = np.flatnonzero(trained if validation is None else trained | validation)
            if len(counted) < len(weights):
                referred = isinstance(images, Referred)
                images = chosen(images, counted) if referred else images[counted]
                encoded, weights = encoded[counted], weights[counted]
                groups = None if groups is None else groups[counted]
                validation = None if validation is None else validation[counted]
            if alike:
                weights = None
        self._seed = seed_of(self.random_state)
        fitted = self._trained(
            images,
            encoded,
            weights=weights,
            groups=groups,
            validation=validation,
            seed=self._seed,
            folder=folder,
        )
        self._note(fitted)

    def _weights(self, encoded: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        """How often each image counts, or None for once each."""
        n = len(encoded)
        weights = np.ones(n)
        if sample_weight is not None:
            weights = np.asarray(sample_weight)
            if weights.dtype.kind not in "biuf":
                raise ValueError(
                    f"sample_weight is {str(sample_weight)[:40]}, of type {weights.dtype}; a "
                    "number at least 0 for each sample is accepted (class_weight takes a dict by "
                    "class, or 'balanced')"
                )
            weights = weights.astype(np.float64)
            if weights.ndim == 0:
                weights = np.full(n, float(weights))
            if weights.shape != (n,):
                raise ValueError(
                    f"sample_weight has shape {weights.shape}; one for each sample, ({n},), is "
                    "accepted"
                )
            if not (np.isfinite(weights).all() and (weights >= 0).all()):
                raise ValueError("sample_weight must be finite and at least 0 for every sample")
            if not weights.any():
                raise ValueError("sample_weight is zero for every sample; some must be above 0")
        elif self.class_weight is None:
            return None
        if self.class_weight is not None:
            weights = weights * self._class_weights(encoded, weights)[encoded]
            if not weights.any():
                raise ValueError("class_weight leaves every sample at weight 0; some must be above")
        return weights

    def _class_weights(self, encoded: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            totals = np.bincount(encoded, weights=weights, minlength=len(self.classes_))
            present = totals > 0
            return np.where(
                present, totals.sum() / (present.sum() * np.where(present, totals, 1.0)), 0.0
            )
        if not isinstance(self.class_weight, Mapping):
            raise ValueError(
                "class_weight must be None, 'balanced' or a dict of label and weight, got "
                f"{self.class_weight!r}"
            )
        numbers = (isinstance(w, Real) and 0 <= w < np.inf for w in self.class_weight.values())
        if not all(numbers):
            raise ValueError(
                "class_weight must be finite and at least 0 for every class, got "
                f"{self.class_weight!r}"
            )
        position = {label: i for i, label in enumerate(self.classes_)}
        unknown = [label for label in self.class_weight if label not in position]
        if unknown:
            some = ", ".join(repr(label) for label in self.classes_[:10].tolist())
            raise ValueError(
                f"class_weight names class {unknown[0]!r}, which the labels don't hold; classes: "
                f"{some}"
            )
        found = np.ones(len(self.classes_))
        for label, weight in self.class_weight.items():
            found[position[label]] = weight
        return found

    def _note(self, fitted: Fitted) -> None:
        self.network_ = fitted.network
        for name in LEARNED:
            setattr(self, f"{name}_", getattr(fitted, name))
        self.subnet_reports_ = fitted.reports
        self.history_ = fitted.history
        self._subnet_params = fitted.subnets
        self.n_parameters_units_ = self.network_.n_parameters_units
        self.n_parameters_total_ = self.network_.n_parameters_total

    def _execution(self) -> dict[str, Any]:
        """How the fits of both are carried out."""
        return {
            "threads": thread_count(self.n_jobs),
            "device": resolve_device(self.device),
            "progress": tells(self.verbose),
            "calibrate": self.probabilities == "calibrated",
        }

    # -- predicting ---------------------------------------------------------------------------

    def outputs(self, X: Any) -> np.ndarray:
        """Raw outputs of the network, ``ΦA``, of shape (n_samples, n_classes)."""
        check_is_fitted(self, "network_")
        images = in_rows(self._validated_predict(as_numpy(X)))
        taking = on_workers("predict")
        with progress_bar(taking, len(images), enabled=tells(self.verbose)) as advance:
            return self.network_.outputs(images, workers=thread_count(self.n_jobs), advance=advance)

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
        """Probabilities as `probabilities` says, of shape (n_samples, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`."""
        return self.log_probabilities_of(self.outputs(X))

    def log_probabilities_of(self, outputs: np.ndarray) -> np.ndarray:
        """Logarithms of the probabilities that these `outputs` come to."""
        check_is_fitted(self, "network_")
        how = self._probabilities()
        return log_probabilities(outputs, how, self.temperature_)

    def _probabilities(self) -> str:
        check_probabilities(self.probabilities)
        if self.probabilities == "calibrated" and self.temperature_ is None:
            raise ValueError(
                "probabilities='calibrated' needs a fit with it: the temperature is fitted then"
            )
        own = self.network_.own_probabilities
        if self.probabilities in ("sum-to-one", "sigmoid") and own == "softmax":
            raise ValueError(
                f"probabilities={self.probabilities!r} needs a fit with it: this output layer was "
                "trained for a softmax, and the closed-form one is kept then"
            )
        return own if self.probabilities is None else self.probabilities

    def as_graph(self) -> Graph:
        """What the model computes from pixels to probabilities, for exports."""
        check_is_fitted(self, "network_")
        return self.network_.as_graph(
            [str(c) for c in self.classes_],
            scale=255.0 if self._fitted_on_uint8 else 1.0,
            probabilities=self._probabilities(),
            temperature=self.temperature_,
        )

    # -- files --------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the model as ``model.safetensors`` and ``model.json`` into a folder.

        Raises
        ------
        ValueError
            If a parameter is an object of someone else's, such as a solver of one's own, or a file
            stands where the folder should.
        """
        check_is_fitted(self, "network_")
        folder = folder_of("folder", folder)
        fitted = {f"{name}_": getattr(self, f"{name}_") for name in SAVED}
        record = SavedClassifier(
            self.family,
            self.network_,
            self.classes_,
            bool(self._fitted_on_uint8),
            self._dtype,
            self.get_params(deep=False),
            fitted,
            self._value_range,
            type(self).__name__,
            self.feature_names_in_.tolist() if hasattr(self, "feature_names_in_") else None,
            self.subnet_reports_,
        )
        write_classifier(record, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a model written by `save`; nothing in the files is run.

        Raises
        ------
        rankwise.errors.ModelFileError
            If a file is missing, damaged or foreign, or holds the other kind of classifier, which
            `rankwise.load_model` reads as well.
        """
        record = read_classifier(Path(folder), cls.family)
        check_class(Path(folder), record.class_name, cls)
        with built_from(Path(folder)):
            return cls.from_record(record)

    @classmethod
    def from_record(cls, record: SavedClassifier) -> Self:
        """The fitted classifier that a record describes."""
        model = cls(**record.parameters)
        check_probabilities(model.probabilities)
        if record.feature_names is not None:
            model.feature_names_in_ = np.array(record.feature_names, dtype=object)
        model.subnet_reports_ = record.reports
        model.network_ = record.network
        model.classes_ = record.classes
        model.image_shape_ = record.network.units.shape
        model._dtype = record.dtype
        model._fitted_on_uint8 = record.fitted_on_uint8
        model._value_range = record.value_range
        model.n_features_in_ = int(np.prod(record.network.units.shape))
        model.n_parameters_units_ = record.network.n_parameters_units
        model.n_parameters_total_ = record.network.n_parameters_total
        # What files of earlier versions don't say.
        trained_in = "float32" if record.family == "convolutional" else None
        unsaid = {"precision_": trained_in, "mirror_": None}
        fitted = unsaid | record.fitted
        missing = [name for name in SAVED if f"{name}_" not in fitted]
        if missing:
            raise ValueError(f"it doesn't say {', '.join(missing)}")
        for name in SAVED:
            setattr(model, f"{name}_", fitted[f"{name}_"])
        return model


def in_rows(images: Images) -> Images:
    """Laid out as a file gives them back, so that no sum depends on it."""
    return np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images
