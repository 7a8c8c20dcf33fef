"""`VarProHead`: the best linear last layer for any features, in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import nn

from rankwise._progress import progress_bar
from rankwise.data import ImageSet
from rankwise.errors import DataError
from rankwise.nets.backbones import Backbone, as_backbone, extract_features, load_backbone
from rankwise.nets.feature_blocks import (
    ArrayBlocks,
    Block,
    LoaderBlocks,
    check_finite,
    loaded_features,
    placed,
)
from rankwise.varpro.batched import resolve_device
from rankwise.varpro.class_ridge import (
    HeadSolution,
    RidgeFamily,
    fit_temperature,
    log_probabilities,
    modelled_temperature,
)
from rankwise.varpro.output_layer import BLOCK, blocks
from rankwise.varpro.statistics import (
    ClassStatistics,
    block_statistics,
    design,
    like,
    to_numpy,
)

CALIBRATION_SAMPLES = 5000
"""Samples, evenly spaced, whose left-out outputs the temperature is fitted on, at most."""

Source = ArrayBlocks | LoaderBlocks


class VarProHead(ClassifierMixin, BaseEstimator):
    """The ridge-regularised least-squares output layer, from statistics gathered in one pass.

    Memory doesn't grow with the samples: what is kept of them is `ClassStatistics`, ``d²`` numbers
    for ``d`` features. They are exact sums, so heads fitted elsewhere can be merged and samples
    taken out again, as if they had never been there.

    Parameters
    ----------
    alpha : float, "loo" or "gcv", default="loo"
        Ridge, as in scikit-learn's `Ridge`; or chosen from `alphas` by the exact leave-one-out
        squared error, or by generalised cross-validation. Leave-one-out takes a second look at
        the samples; where that can't be had (`partial_fit`, `merge`, `unlearn`, an iterator that
        runs out), generalised cross-validation takes its place, and `chosen_by_` says so.
    alphas : sequence of float, optional
        Default: 28 ridges from 10⁻⁹ to 1 times the trace of the Gram matrix.
    fit_intercept : bool, default=True
    standardise : bool, default=True
        Divide features by their standard deviation, which the statistics give, before the ridge.
    class_weight : dict, "balanced" or None, default=None
        Keeps a Gram matrix a class: ``K·d²`` numbers.
    rank : int, optional
        Leading directions of the (standardised) features to use. Default: all.
    backbone : nn.Module, str or path, optional
        Then `X` are images, and their features are used; see `rankwise.nets.backbones`.
    cache : path, optional
        Folder that keeps the backbone's features of image arrays.
    batch_size : int, default=256
        Images in a forward pass of the backbone.
    block_size : int, default=4096
        Samples a block; another size changes the result by rounding only.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Where the backbone and the products run.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    statistics_ : ClassStatistics
    coef_, intercept_ : float64 arrays of shape (n_classes, n_features) and (n_classes,)
        For the features as they are, not standardised.
    alpha_ : float
        Ridge in use.
    chosen_by_ : {"given", "loo", "gcv"}
    criterion_ : list of (float, float)
        Ridges and their mean squared errors, where it was chosen.
    temperature_ : float
        Fitted on left-out outputs; after one-look fits, on outputs modelled from the statistics.
    rank_, condition_ : int, float
    n_features_in_ : int
    image_shape_ : tuple of int
        With a backbone, where images came as arrays.

    Notes
    -----
    Sample weights are repetitions, as everywhere in scikit-learn: leaving a sample of weight 2
    out leaves one of two.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from rankwise import VarProHead
    >>> X, y = load_digits(return_X_y=True)
    >>> head = VarProHead().fit(X[:1200], y[:1200])
    >>> bool(head.score(X[1200:], y[1200:]) > 0.9)
    True
    """

    def __init__(
        self,
        alpha: float | str = "loo",
        *,
        alphas: Sequence[float] | None = None,
        fit_intercept: bool = True,
        standardise: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
        rank: int | None = None,
        backbone: nn.Module | str | Path | None = None,
        cache: str | Path | None = None,
        batch_size: int = 256,
        block_size: int = BLOCK,
        device: str = "cpu",
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.standardise = standardise
        self.class_weight = class_weight
        self.rank = rank
        self.backbone = backbone
        self.cache = cache
        self.batch_size = batch_size
        self.block_size = block_size
        self.device = device
        self.verbose = verbose

    _solved: HeadSolution | None = None

    # -- learning and unlearning --------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> VarProHead:
        """Gather the statistics, choose the ridge, solve.

        Parameters
        ----------
        X : array (n, d), or iterable of (features, labels[, sample weights])
            With a backbone: uint8 images (n, H, W[, C]), an `ImageSet`, or an iterable, such as a
            `torch.utils.data.DataLoader`, of (images, labels).
        y : array of shape (n,)
            Labels; none for an iterable, or to use the class names of an `ImageSet`.
        sample_weight : array of shape (n,), optional

        Raises
        ------
        ValueError
            If parameters, features or labels don't fit; features that aren't finite are named by
            row.
        """
        source = self._begin(X, y, sample_weight)
        statistics = self._gathered(source)
        if len(statistics.classes) < 2:
            raise ValueError(
                "Classifier can't train when only one class is present: found only "
                f"{statistics.classes[0]}"
            )
        if isinstance(source, LoaderBlocks) and self.alpha == "loo" and not source.repeatable:
            warnings.warn(
                "the iterator can be read only once, so the ridge is chosen by generalised "
                "cross-validation instead of leave-one-out; a list or DataLoader can be read again",
                UserWarning,
                stacklevel=2,
            )
        self._adopt(statistics)
        self._solved = self._solve(source)
        return self

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> VarProHead:
        """Add samples; the layer is solved when it is next asked for.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array, optional
            All labels that will ever come; needed in the first call unless `X` holds them all.
        """
        first = not hasattr(self, "statistics_")
        statistics = self._gathered(self._begin(X, y, sample_weight, first=first))
        known = statistics.classes
        if classes is not None:
            known = np.unique(np.asarray(classes))
        if not first:
            known = self.classes_
        self._check_known(statistics, known)
        if first:
            empty = ClassStatistics.empty(
                known, statistics.n_features, by_class=statistics.by_class
            )
            self._adopt(empty + statistics)
        else:
            self._adopt(self.statistics_ + statistics)
        return self

    def merge(self, other: VarProHead | ClassStatistics) -> VarProHead:
        """Add the samples of a head fitted elsewhere, or of its statistics. Classes may differ."""
        check_is_fitted(self)
        self._adopt(self.statistics_ + getattr(other, "statistics_", other))
        return self

    def unlearn(self, X: Any, y: Any = None, sample_weight: Any = None) -> VarProHead:
        """Take training samples out: the head is then, to rounding, as if never fitted on them.

        Raises
        ------
        ValueError
            If they can't have been part of the training.
        """
        check_is_fitted(self)
        gone = self._gathered(self._begin(X, y, sample_weight, first=False))
        self._adopt(self.statistics_ - gone)
        return self

    # -- predicting -----------------------------------------------------------------------------

    def outputs(self, X: Any) -> np.ndarray:
        """Outputs of the layer, of shape (n_samples, n_classes), float64."""
        check_is_fitted(self)
        solved = self._solution()
        parts = [
            to_numpy(x @ like(solved.coef.T, x)) + solved.intercept for x in self._feature_blocks(X)
        ]
        return np.concatenate(parts)

    def _feature_blocks(self, X: Any) -> Iterator[Any]:
        """Checked features of samples without labels, block by block."""
        device, backbone = self._device(), self._backbone()
        first = 0
        if _is_iterable_of_blocks(X):
            for item in X:
                batch = item[0] if isinstance(item, (tuple, list)) else item
                x = loaded_features(batch, backbone, device)
                check_finite(x, first)
                first += len(x)
                yield x
            return
        features, _ = self._features(X, None)
        for part in blocks(len(features), self.block_size):
            x = placed(features[part], device)
            check_finite(x, part.start)
            yield x

    def decision_function(self, X: Any) -> np.ndarray:
        """The outputs or, with two classes, their difference."""
        outputs = self.outputs(X)
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: Any) -> np.ndarray:
        """The class of the largest output, of shape (n_samples,)."""
        outputs = self.outputs(X)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`."""
        outputs = self.outputs(X)
        return log_probabilities(outputs, self.temperature_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Calibrated probabilities, ``softmax(outputs/temperature_)``."""
        return np.exp(self.predict_log_proba(X))

    # -- what the training samples say ---------------------------------------------------------

    def leave_one_out_predictions(
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> np.ndarray:
        """Output for each training sample of the head fitted without it, exact, none refitted.

        Parameters
        ----------
        X, y, sample_weight
            Training samples, all or some, as they were given to `fit`; what wasn't trained on
            gets a wrong answer.

        Returns
        -------
        array of shape (n_samples, n_classes)
            In the order of the samples. Scale and directions of the features are held, which
            only matters where they are standardised or truncated.
        """
        return self._left_out(self._begin(X, y, sample_weight, first=False))[0]

    def likely_wrong_labels(
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Training samples, the most suspicious label first.

        Returns
        -------
        rows : int array of shape (n_samples,)
        margins : array of shape (n_samples,)
            In the same order: left-out output of the given label less the largest other; below
            zero where the others' vote is against the label.
        """
        outputs, codes = self._left_out(self._begin(X, y, sample_weight, first=False))
        rows = np.arange(len(codes))
        given = outputs[rows, codes]
        outputs[rows, codes] = -np.inf
        margins = given - outputs.max(axis=1)
        order = np.argsort(margins, kind="stable")
        return order, margins[order]

    def _left_out(self, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """Left-out outputs, and the samples' classes as positions."""
        check_is_fitted(self)
        family, ridge = self._family(), self._solution().ridge
        outputs, codes = [], []
        for block in source:
            codes.append(self._codes(block.labels))
            rotated = family.rotate(block.features)
            outputs.append(family.left_out_outputs(rotated, codes[-1], block.weights, ridge))
        return np.concatenate(outputs), np.concatenate(codes)

    # -- as a module, in files -------------------------------------------------------------------

    def to_linear(self, *, calibrated: bool = False) -> nn.Linear:
        """The layer as a plain float32 `nn.Linear` from features to outputs.

        Parameters
        ----------
        calibrated : bool, default=False
            Divide by the temperature, so that a softmax of its outputs is `predict_proba`.
        """
        check_is_fitted(self)
        solved = self._solution()
        divisor = solved.temperature if calibrated else 1.0
        k, d = solved.coef.shape
        linear = nn.Linear(d, k)
        with torch.no_grad():
            linear.weight.copy_(torch.as_tensor(solved.coef / divisor))
            linear.bias.copy_(torch.as_tensor(solved.intercept / divisor))
        return linear

    def attach(
        self, backbone: nn.Module | None = None, *, calibrated: bool = False
    ) -> nn.Sequential:
        """Backbone and head as one module: images ``(n, C, H, W)`` in [-1, 1] to outputs.

        Parameters
        ----------
        backbone : nn.Module, optional
            Default: the head's own.
        calibrated : bool, default=False
            As in `to_linear`.
        """
        found = self._backbone() if backbone is None else as_backbone(backbone)
        if found is None:
            raise ValueError("there is no backbone to attach the head to; pass one")
        return nn.Sequential(found, self.to_linear(calibrated=calibrated)).eval()

    def as_graph(self) -> Any:
        """Backbone and head as a `rankwise.varpro.graph.Graph`, for ``rankwise export``."""
        from rankwise.nets.head_graph import graph_of_head

        check_is_fitted(self)
        return graph_of_head(self)

    @property
    def n_parameters_total_(self) -> int:
        """Weights of the backbone, its own head left out, and of the layer."""
        solved, backbone = self._solution(), self._backbone()
        own = solved.coef.size + solved.intercept.size
        if backbone is None:
            return own
        left_out = getattr(backbone.network, "head", None)
        total = sum(p.numel() for p in backbone.network.parameters())
        unused = 0 if left_out is None else sum(p.numel() for p in left_out.parameters())
        return own + total - unused

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json``, statistics included, and the backbone."""
        from rankwise.nets.head_files import write_head

        write_head(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> VarProHead:
        """Read a head written by `save`; nothing in the files is run.

        Raises
        ------
        rankwise.errors.ModelFileError
            If a file is missing, damaged or foreign.
        """
        return load_head(folder)

    # -- the solved layer ----------------------------------------------------------------------

    @property
    def coef_(self) -> np.ndarray:
        """Coefficients of the features as they are."""
        return self._solution().coef

    @property
    def intercept_(self) -> np.ndarray:
        """Outputs where all features are zero."""
        return self._solution().intercept

    @property
    def alpha_(self) -> float:
        """Ridge in use."""
        return self._solution().ridge

    @property
    def chosen_by_(self) -> str:
        """How the ridge was chosen."""
        return self._solution().chosen_by

    @property
    def criterion_(self) -> list[tuple[float, float]]:
        """Ridges and their errors."""
        return self._solution().criterion

    @property
    def temperature_(self) -> float:
        """Divisor of the outputs in the softmax."""
        return self._solution().temperature

    @property
    def rank_(self) -> int:
        """Directions used."""
        return self._solution().rank

    @property
    def condition_(self) -> float:
        """Condition number of the features."""
        return self._solution().condition

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "statistics_")

    def _adopt(self, statistics: ClassStatistics) -> None:
        self.statistics_ = statistics
        self.classes_ = statistics.classes
        self.n_features_in_ = statistics.n_features
        self._solved = None

    def _solution(self) -> HeadSolution:
        if not hasattr(self, "statistics_"):
            raise AttributeError("this VarProHead isn't fitted yet; call fit or partial_fit")
        if self._solved is None:
            self._solved = self._solve(None)
        return self._solved

    def _family(self) -> RidgeFamily:
        problem = design(
            self.statistics_,
            class_weight=self.class_weight,
            fit_intercept=self.fit_intercept,
            standardise=self.standardise,
        )
        return RidgeFamily(problem, self.rank)

    def _solve(self, source: Source | None) -> HeadSolution:
        """Solve from the statistics and, where there are any to look at again, the samples."""
        family = self._family()
        again = source if source is not None and source.repeatable else None
        chosen_by, ridge = "given", self.alpha
        criterion: list[tuple[float, float]] = []
        sample: list[Block] = []
        if isinstance(ridge, str):
            ridges = list(family.path() if self.alphas is None else self.alphas)
            if ridge == "loo" and again is not None:
                chosen_by = "loo"
                criterion, sample = self._leave_one_out_errors(family, again, ridges)
            else:
                chosen_by, criterion = "gcv", family.gcv_errors(ridges)
            ridge = min(criterion, key=lambda pair: pair[1])[0]
        ridge = float(ridge)
        if not sample and isinstance(again, ArrayBlocks):
            block = again.sample(self._stride())
            sample = [block._replace(features=family.rotate(block.features))]
        if sample:
            temperature = self._temperature(family, sample, ridge)
        else:
            temperature = modelled_temperature(self.statistics_, family, ridge)
        coef, intercept, rank, condition = family.solve(ridge)
        return HeadSolution(
            coef, intercept, ridge, rank, condition, chosen_by, criterion, temperature
        )

    def _stride(self) -> int:
        return -(-self.statistics_.n_samples // CALIBRATION_SAMPLES)

    def _leave_one_out_errors(
        self, family: RidgeFamily, source: Source, ridges: list[float]
    ) -> tuple[list[tuple[float, float]], list[Block]]:
        """Mean squared left-out error of each ridge, and evenly spaced samples, rotated."""
        squares, weight = np.zeros(len(ridges)), 0.0
        sample, seen, stride = [], 0, self._stride()
        with self._progress("leave one out") as advance:
            for block in source:
                codes = self._codes(block.labels)
                rotated = family.rotate(block.features)
                squares += family.left_out_squares(rotated, codes, block.weights, ridges)
                weight += float(block.weights.sum())
                rows = slice(-seen % stride, None, stride)
                sample.append(Block(rotated[rows], block.labels[rows], block.weights[rows]))
                seen += len(codes)
                advance(len(codes))
        if not np.isclose(weight, self.statistics_.weights.sum()):
            raise ValueError(
                f"the iterable gave samples of weight {self.statistics_.weights.sum():g} the first "
                f"time and {weight:g} the second; alpha='gcv' or a number reads it once"
            )
        return [(float(m), float(s / weight)) for m, s in zip(ridges, squares, strict=True)], sample

    def _temperature(self, family: RidgeFamily, sample: list[Block], ridge: float) -> float:
        codes = [self._codes(b.labels) for b in sample]
        outputs = [
            family.left_out_outputs(b.features, c, b.weights, ridge)
            for b, c in zip(sample, codes, strict=True)
        ]
        weights = np.concatenate([b.weights for b in sample])
        joined = np.concatenate(codes)
        return fit_temperature(
            np.concatenate(outputs), joined, weights * family.design.class_factors[joined]
        )

    # -- samples --------------------------------------------------------------------------------

    def _gathered(self, source: Source) -> ClassStatistics:
        by_class = self.class_weight is not None
        total: ClassStatistics | None = None
        with self._progress("statistics") as advance:
            for block in source:
                part = block_statistics(
                    block.features, block.labels, block.weights, by_class=by_class
                )
                total = part if total is None else total + part
                advance(len(block.labels))
        if total is None:
            raise ValueError("the iterable holds no samples")
        return total

    def _begin(self, X: Any, y: Any, sample_weight: Any, *, first: bool = True) -> Source:
        """Check parameters and input; give the samples as blocks."""
        self._check_parameters()
        device = self._device()
        if y is None and _is_iterable_of_blocks(X):
            if sample_weight is not None:
                raise ValueError("an iterable brings its sample weights in its blocks")
            return LoaderBlocks(X, self._backbone(), device)
        features, labels = self._features(X, y, fitting=True, reset=first)
        check_classification_targets(labels)
        weights = _check_sample_weight(
            sample_weight, features, dtype=np.float64, ensure_non_negative=True
        )
        if not weights.any():
            raise ValueError("every sample weight is 0, so there is no sample to fit")
        return ArrayBlocks(features, labels, weights, self.block_size, device)

    def _features(
        self, X: Any, y: Any, *, fitting: bool = False, reset: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Features (n, d) of arrays or images, and labels."""
        if isinstance(X, ImageSet) and y is None and fitting:
            y = np.asarray(X.class_names)[X.labels]
        if isinstance(X, torch.Tensor):
            X = X.detach().cpu().numpy()
        if isinstance(y, torch.Tensor):
            y = y.detach().cpu().numpy()
        backbone = self._backbone()
        if backbone is not None:
            X = self._image_features(X, backbone, reset)
        options: dict[str, Any] = {
            "dtype": [np.float64, np.float32],
            "ensure_all_finite": False,
            "reset": reset,
        }
        if fitting:
            return validate_data(self, X, y, **options)
        return validate_data(self, X, **options), None

    def _image_features(self, X: Any, backbone: Backbone, reset: bool) -> np.ndarray:
        shape = tuple((X.images if isinstance(X, ImageSet) else np.asarray(X)).shape[1:])
        if reset:
            self.image_shape_ = shape
        elif getattr(self, "image_shape_", shape) != shape:
            raise DataError(
                f"images have shape {shape}, but the head was fitted on {self.image_shape_}"
            )
        return extract_features(
            backbone,
            X,
            batch_size=self.batch_size,
            device=self.device,
            cache=self.cache,
            progress=self.verbose > 0,
        )

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        """Positions of labels in `classes_`."""
        found = np.searchsorted(self.classes_, labels)
        found = np.minimum(found, len(self.classes_) - 1)
        if (self.classes_[found] != labels).any():
            unknown = labels[self.classes_[found] != labels][0]
            raise ValueError(f"label {unknown} isn't one of the head's classes")
        return found

    def _check_known(self, statistics: ClassStatistics, known: np.ndarray) -> None:
        unknown = np.setdiff1d(statistics.classes, known)
        if len(unknown):
            raise ValueError(
                f"label {unknown[0]} isn't among the classes of the first call "
                f"({', '.join(map(str, known[:10]))}); merge adds heads of other classes"
            )

    def _backbone(self) -> Backbone | None:
        """The backbone, read when it is first needed."""
        if self.backbone is None:
            return None
        if isinstance(self.backbone, nn.Module):
            return as_backbone(self.backbone)
        kept = getattr(self, "_loaded_backbone", None)
        if kept is None or kept[0] != str(self.backbone):
            kept = (str(self.backbone), load_backbone(self.backbone))
            self._loaded_backbone = kept
        return kept[1]

    def _device(self) -> str:
        return resolve_device(self.device)

    def _progress(self, description: str) -> Any:
        return progress_bar(description, None, enabled=self.verbose > 0)

    def _check_parameters(self) -> None:
        alpha = self.alpha
        number = isinstance(alpha, (int, float, np.number)) and not isinstance(alpha, bool)
        if not (
            alpha in ("loo", "gcv") if isinstance(alpha, str) else number and 0 <= alpha < np.inf
        ):
            raise ValueError(f"alpha must be a number at least 0, 'loo' or 'gcv', got {alpha!r}")
        if self.alphas is not None and not (
            len(self.alphas) and all(0 <= float(a) < np.inf for a in self.alphas)
        ):
            raise ValueError("alphas must be one or more numbers, none below 0")
        for name in ("rank", "block_size", "batch_size"):
            value = getattr(self, name)
            if not (name == "rank" and value is None) and not (
                isinstance(value, (int, np.integer)) and value >= 1
            ):
                raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")


def load_head(folder: str | Path) -> VarProHead:
    """Read a head written by `VarProHead.save`, with its backbone where it was saved with one."""
    from rankwise.nets.head_files import read_head

    return read_head(Path(folder))


def _is_iterable_of_blocks(X: Any) -> bool:
    """Whether `X` is a loader, a generator or a list of pairs, rather than an array."""
    if isinstance(X, ImageSet) or hasattr(X, "shape") or hasattr(X, "__array__"):
        return False
    if isinstance(X, (list, tuple)):
        return bool(X) and isinstance(X[0], (list, tuple)) and hasattr(X[0][0], "shape")
    return isinstance(X, Iterable) and not isinstance(X, (str, bytes, Mapping))
