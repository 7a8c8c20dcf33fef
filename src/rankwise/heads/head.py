"""`VarProHead`: the best linear last layer for any features, in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from rankwise._arrays import BLOCK
from rankwise._hub import OnHub
from rankwise._refusals import all_or_nothing
from rankwise.cluster import cluster
from rankwise.errors import ModelFileError
from rankwise.heads._left_out import HeadLeftOut
from rankwise.heads._output import HeadOutput
from rankwise.heads._parts import HeadParts
from rankwise.heads.backbones import forward_of, load_backbone
from rankwise.heads.feature_blocks import ArrayBlocks
from rankwise.heads.features import BackboneFeatures, extract_features
from rankwise.linear.class_ridge import log_probabilities
from rankwise.linear.statistics import like, to_numpy
from rankwise.nets.layers import FeatureExtractor
from rankwise.nets.projected_loss import head_of, write_layer
from rankwise.nets.transfer import TransferNetwork


class VarProHead(OnHub, HeadParts, HeadLeftOut, HeadOutput, ClassifierMixin, BaseEstimator):
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
    loss : {"squared", "logistic"}, default="squared"
        ``"logistic"`` is a softmax layer, by further looks at the samples, memory still that of a
        block. The ridge (scikit-learn's ``1/C``, of two classes half of it) is then chosen by the
        log-loss on held-out parts. It was the more accurate one on both sets of
        `benchmarks/head.py`. Where the samples can't be seen again the layer is the squared one,
        and `loss_` says so.
    max_passes : int, default=60
        Steps of the logistic loss at most, each a look at the samples: for each group of ridges
        that is tried, and for the layer.
    backbone : nn.Module, str or path, optional
        Then `X` are images, and their features are used; see `rankwise.heads.backbones`.
    cache : path, optional
        Folder that keeps the backbone's features of image arrays.
    batch_size : int, default=64
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
    chosen_by_ : {"given", "loo", "gcv", "cross-validation"}
    loss_ : {"squared", "logistic"}
        Loss of the layer in use.
    n_passes_ : int
        Looks at the samples in all, of a logistic loss; 0 for the squared one: one or two.
    criterion_ : list of (float, float)
        Ridges and their mean squared (or log-loss) errors, where it was chosen.
    temperature_ : float
        Fitted on left-out outputs; after one-look fits, on outputs modelled from the statistics.
    rank_, condition_ : int, float
    n_features_in_ : int
    image_shape_ : tuple of int
        (H, W) or (H, W, C), with a backbone, where images came as arrays.

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
    >>> bool(head.score(X[1200:], y[1200:]) > 0.85)
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
        loss: str = "squared",
        max_passes: int = 60,
        backbone: nn.Module | str | Path | None = None,
        cache: str | Path | None = None,
        batch_size: int = 64,
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
        self.loss = loss
        self.max_passes = max_passes
        self.backbone = backbone
        self.cache = cache
        self.batch_size = batch_size
        self.block_size = block_size
        self.device = device
        self.verbose = verbose

    set_params = all_or_nothing(BaseEstimator.set_params)

    # -- learning and unlearning --------------------------------------------------------------

    @all_or_nothing
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
        if isinstance(source, ArrayBlocks) and self._keeps(source):
            self._adopt_samples(source.whole())
        else:
            self._adopt(self._gathered(source))
        if len(self.classes_) < 2:
            only = self.classes_[0]
            self._forget()
            raise ValueError(
                f"Classifier can't train when only one class is present: found only {only}"
            )
        needs = "loss='logistic'" if self.loss == "logistic" else "alpha='loo'"
        if not source.repeatable and (self.loss == "logistic" or self.alpha == "loo"):
            warnings.warn(
                f"the iterator can be read only once, and {needs} looks at the samples again, so "
                "the layer is that of the squared loss, its ridge chosen by generalised "
                "cross-validation unless given; a list or DataLoader can be read again",
                UserWarning,
                stacklevel=2,
            )
        self._solved = self._solve(source)
        return self

    @all_or_nothing
    def fit_shards(
        self, addresses: str | Sequence[str], executor: Any = None, *, split: str = "train"
    ) -> VarProHead:
        """Fit on shards of features, or with a backbone of images, which never come here.

        Each task reads its rows by their address. With a backbone and ``alpha="loo"`` or a
        logistic loss its features are made again for each further look.

        Parameters
        ----------
        addresses : str or sequence of str
            Folders, or addresses of fsspec's, that `rankwise.data.shards` wrote.
        executor : optional
            As `rankwise.cluster` takes it. Default: the surrounding one, else this machine.
        split : str

        Raises
        ------
        DataError
            If they can't be read, or don't belong together.
        """
        from rankwise.data.shards import open_shards

        rows, labels = open_shards(addresses, split)
        backbone = self._backbone()
        X: Any = rows
        if backbone is not None:
            X = BackboneFeatures(backbone, rows, self.batch_size, self.device)
        with nullcontext() if executor is None else cluster(executor):
            self.fit(X, labels)
        if backbone is not None:
            self.image_shape_ = rows.row_shape
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

    # -- files ----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json``, statistics included, and the backbone."""
        from rankwise.heads.files import write_head

        write_head(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a head written by `save`; nothing in the files is run.

        Raises
        ------
        rankwise.errors.ModelFileError
            If a file is missing, damaged or foreign, or the head is of a subclass of another name.
        """
        from rankwise.heads.files import read_head

        return read_head(Path(folder), cls)


def solve_head(
    network: nn.Module,
    images: Any,
    labels: Any,
    *,
    alpha: float | str = "loo",
    batch_size: int = 64,
    device: str = "auto",
) -> VarProHead:
    """Solve a network's last layer in one pass, in place of epochs of training it.

    Parameters
    ----------
    network : nn.Module
        With ``features(x)`` and ``head``, an `nn.Linear`, as every network of `rankwise.nets`;
        or an `nn.Sequential` that ends in an `nn.Linear`.
        Its head is overwritten, divided by the temperature: a softmax of the network's outputs
        gives calibrated probabilities. Nothing else of it changes.
    images : uint8 array of shape (n, H, W) or (n, H, W, C)
    labels : int array of shape (n,)
        Numbers of the head's outputs, from 0; a class without an image is never predicted.
    alpha, batch_size, device
        As for `VarProHead`.

    Returns
    -------
    VarProHead
        With what it knows of the images: left-out predictions, ridge, temperature.

    Raises
    ------
    ValueError
        If a label isn't the number of an output, or the images don't fit. The network's head is
        written last, so it is then as it was.
    """
    layer = head_of(network)
    numbers = _numbers_of_outputs(labels, layer.out_features)
    body: nn.Module = network
    if isinstance(network, nn.Sequential):
        body = network[:-1]
    elif type(network) is TransferNetwork:
        body = forward_of(network.backbone)  # which onnxruntime may compute
    elif not hasattr(network, "n_features"):
        body = FeatureExtractor(network)
    features = extract_features(body, images, batch_size=batch_size, device=device)
    if features.shape[1] != layer.in_features:
        raise ValueError(
            f"the network's features are {features.shape[1]}, but its head takes "
            f"{layer.in_features}"
        )
    head = VarProHead(alpha, device=device).fit(features, numbers)
    write_layer(layer, head.classes_, head.coef_, head.intercept_, head.temperature_)
    return head


def _numbers_of_outputs(labels: Any, n_outputs: int) -> np.ndarray:
    """Labels as int64, each the number of an output of a layer."""
    found = np.asarray(labels)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(
            f"labels are whole numbers of shape (n,), got {found.dtype} of shape {found.shape}"
        )
    outside = found[(found < 0) | (found >= n_outputs)]
    if len(outside):
        raise ValueError(
            f"label {outside[0]} has no output in the network's head, which has {n_outputs}; "
            f"labels from 0 to {n_outputs - 1} are accepted"
        )
    return found.astype(np.int64)


def load_head(folder: str | Path, backbone: nn.Module | str | Path | None = None) -> VarProHead:
    """Read a head written by `VarProHead.save`, with its backbone where it was saved with one.

    Parameters
    ----------
    folder : path
    backbone : nn.Module, str or path, optional
        For a head that was saved without: what `VarProHead` takes; a name or file prepares images
        as it did for the fit. Only the one that the head was fitted on is accepted, where the
        folder knows it.

    Raises
    ------
    rankwise.errors.ModelFileError
        If a file is missing, damaged or foreign, or the backbone is another.
    """
    from rankwise.heads.files import read_head

    head = read_head(Path(folder), VarProHead)
    if backbone is None:
        return head
    known, own = getattr(head, "backbone_reference_", None), head._backbone()
    if own is not None:
        raise ModelFileError(
            f"{folder} holds the head's backbone, {own.name}, so another isn't taken; leave it out"
        )
    head.backbone = backbone
    if not isinstance(backbone, nn.Module):
        choices = (known or {}).get("preparation", {})
        choices = {k: v for k, v in choices.items() if k != "channels" and v is not None}
        head.backbone = load_backbone(backbone, **choices)
    found = head._backbone()
    if known is not None and found is not None and found.fingerprint != known["fingerprint"]:
        raise ModelFileError(
            f"the head of {folder} was fitted on backbone {known['name']}, and {found.name} gives "
            "other features: its weights or what it expects of images differ"
        )
    return head
