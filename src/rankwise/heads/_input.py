"""How `VarProHead` takes its samples: arrays, images, loaders; and the check of its choices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import nn

from rankwise._arrays import Referred, blocks, refuse_complex, refuse_masked
from rankwise._device import resolve_device
from rankwise._progress import progress_bar
from rankwise.data import ImageSet
from rankwise.errors import DataError
from rankwise.heads.backbones import Backbone, as_backbone, load_backbone
from rankwise.heads.feature_blocks import (
    ArrayBlocks,
    LoaderBlocks,
    OwnDraws,
    backbone_on,
    check_finite,
    checked_labels,
    loaded_features,
    placed,
    to_array,
)
from rankwise.heads.features import extract_features
from rankwise.heads.missing import missing_backbone

Source = ArrayBlocks | LoaderBlocks


class HeadInput:
    """The part of `VarProHead` that knows what samples may look like."""

    alpha: float | str
    alphas: Any
    backbone: nn.Module | str | Path | None
    cache: str | Path | None
    batch_size: int
    block_size: int
    n_features_in_: int
    loss: str
    device: str
    verbose: int

    def _begin(self, X: Any, y: Any, sample_weight: Any, *, first: bool = True) -> Source:
        """Check parameters and input; give the samples as blocks.

        The `first` samples are those of a new fit, which has nothing of an earlier one's.
        """
        self._check_parameters()
        if first:
            for name in ("feature_names_in_", "image_shape_", "removals_"):
                vars(self).pop(name, None)
        device = self._device()
        if y is None and is_iterable_of_blocks(X):
            if sample_weight is not None:
                raise ValueError("an iterable brings its sample weights in its blocks")
            return LoaderBlocks(X, self._backbone(), device)
        features, labels = self._features(X, y, fitting=True, reset=first)
        check_classification_targets(labels)
        if isinstance(features, Referred):
            labels = column_or_1d(labels)
            check_consistent_length(features, labels)
            like = np.broadcast_to(np.float64(0), (len(features), 1))
        else:
            like = features
        weights = _check_sample_weight(
            sample_weight, like, dtype=np.float64, ensure_non_negative=True
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
        X, y = (to_array(v) if isinstance(v, torch.Tensor) else v for v in (X, y))
        refuse_masked(X, "X")
        refuse_masked(y, "y")
        if y is not None:
            y = checked_labels(y, "y")
        if isinstance(X, Referred) and len(X.shape) == 2:
            return self._referred(X, reset), y
        refuse_complex(X)
        backbone = self._backbone()
        if backbone is not None:
            X = self._image_features(X, backbone, reset)
        elif isinstance(X, ImageSet) or getattr(X, "ndim", 2) > 2:
            lacks = missing_backbone(self)
            if lacks is not None:
                raise ValueError(f"images were given, and {lacks}")
        options: dict[str, Any] = {
            "dtype": [np.float64, np.float32],
            "ensure_all_finite": False,
            "reset": reset,
        }
        if fitting:
            return validate_data(self, X, y, **options)
        return validate_data(self, X, **options), None

    def _referred(self, X: Any, reset: bool) -> Any:
        """Features by reference, whose blocks are checked when they are read."""
        if X.dtype.kind != "f":
            raise ValueError(f"the shards hold {X.dtype}; features are float32 or float64")
        if reset:
            self.n_features_in_ = X.shape[1]
        elif X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but the head was fitted on {self.n_features_in_}"
            )
        return X

    def _image_features(self, X: Any, backbone: Backbone, reset: bool) -> np.ndarray:
        images = X.images if isinstance(X, ImageSet) else X
        shape = _image_shape(images if hasattr(images, "shape") else np.asarray(images))
        if reset:
            self.image_shape_ = shape
        fitted = getattr(self, "image_shape_", shape)
        if _sides_and_colours(fitted) != _sides_and_colours(shape):
            raise DataError(f"images have shape {shape}, but the head was fitted on {fitted}")
        return extract_features(
            backbone,
            X,
            batch_size=self.batch_size,
            device=self.device,
            cache=self.cache,
            progress=self.verbose > 0,
        )

    def _feature_blocks(self, X: Any) -> Iterator[Any]:
        """Checked features of samples without labels, block by block."""
        device = self._device()
        first = 0
        if is_iterable_of_blocks(X, labelled=False):
            backbone = backbone_on(self._backbone(), device)
            for item in OwnDraws().read(X):
                batch = item[0] if isinstance(item, (tuple, list)) else item
                x = loaded_features(batch, backbone, device)
                if x.shape[1] != self.n_features_in_:
                    raise ValueError(
                        f"a block after sample {first} has {x.shape[1]} features, but the head "
                        f"was fitted on {self.n_features_in_}"
                    )
                check_finite(x, first)
                first += len(x)
                yield x
            if first == 0:
                raise ValueError("the iterable holds no samples")
            return
        features, _ = self._features(X, None)
        for part in blocks(len(features), self.block_size):
            x = placed(features[part], device)
            check_finite(x, part.start)
            yield x

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
        if self.alphas is not None and not _ridges(self.alphas):
            raise ValueError(
                f"alphas must be one or more numbers, none below 0, got {self.alphas!r}"
            )
        for name in ("rank", "block_size", "batch_size", "max_passes"):
            value = getattr(self, name)
            if not (name == "rank" and value is None) and not (
                isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1
            ):
                raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")
        for name in ("fit_intercept", "standardise"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if not isinstance(self.verbose, (int, np.integer)):
            raise ValueError(f"verbose must be a whole number, got {self.verbose!r}")
        if self.cache is not None and not isinstance(self.cache, (str, PathLike)):
            raise ValueError(f"cache must be the path of a folder, or None, got {self.cache!r}")
        if not isinstance(self.device, str):
            raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {self.device!r}")
        if self.loss not in ("squared", "logistic"):
            raise ValueError(f"loss must be 'squared' or 'logistic', got {self.loss!r}")
        if self.loss == "logistic" and alpha == "gcv":
            raise ValueError("alpha='gcv' is of the squared loss; 'logistic' takes 'loo', a number")


def _image_shape(images: Any) -> tuple[int, ...]:
    """(H, W) or (H, W, C) of one image, also where they are floating point (n, C, H, W)."""
    shape = tuple(images.shape[1:])
    if images.dtype.kind == "f" and len(shape) == 3:
        return _sides_and_colours((*shape[1:], shape[0]))
    return shape


def _sides_and_colours(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an image, without an axis of one grey value."""
    return shape[:2] if shape[2:] == (1,) else shape


def _ridges(alphas: Any) -> bool:
    """Whether these are one or more numbers, none below 0."""
    try:
        found = np.asarray(alphas, dtype=float)
    except (TypeError, ValueError):
        return False
    return found.ndim == 1 and found.size > 0 and bool((np.isfinite(found) & (found >= 0)).all())


def is_iterable_of_blocks(X: Any, *, labelled: bool = True) -> bool:
    """Whether `X` is a loader, a generator or a list of blocks, rather than an array.

    Parameters
    ----------
    X : object
    labelled : bool, default=True
        Blocks of a list are (features, labels); without, a list of 2-D arrays will do.
    """
    if isinstance(X, ImageSet) or hasattr(X, "shape") or hasattr(X, "__array__"):
        return False
    if isinstance(X, (list, tuple)):
        if not X:
            return False
        if isinstance(X[0], (list, tuple)):
            return bool(X[0]) and hasattr(X[0][0], "shape")
        return not labelled and getattr(X[0], "ndim", 0) >= 2
    return isinstance(X, Iterable) and not isinstance(X, (str, bytes, Mapping))
