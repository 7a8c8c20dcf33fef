"""What a user may hand to an estimator, and what it comes to."""

from __future__ import annotations

import os
import warnings
from math import isqrt, prod
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from rankwise._arrays import Images, Referred, refuse_complex, refuse_masked
from rankwise._memory import available_memory
from rankwise.data.imageset import looks_channels_first
from rankwise.errors import DataWarning
from rankwise.estimators._arguments import check_shape_given

MOST_IN_A_ROW = 100
"""Values of a flat row that is no square and still becomes one row of pixels: measurements, not an
image. (A unit over one row of 3072 pixels has as many parameters: it took 20 GB.)"""

LARGEST_VALUE = 1e30
"""Of a floating-point image: beyond it sums of squares overflow, in float32 at once."""


class ImageInput:
    """What a classifier of images makes of `X` and `y`: one array of images, of one scale.

    For an estimator with parameters `dtype` and `image_shape`; a fit leaves the names in
    `LEARNED`.
    """

    LEARNED = ("image_shape_", "n_features_in_", "_dtype", "_fitted_on_uint8", "_value_range")

    dtype: str
    image_shape: tuple[int, ...] | None
    _value_range: tuple[float, float] | None = None  # not known of models of earlier versions

    def _validated_fit(self, X: Any, y: Any) -> tuple[Images, np.ndarray]:
        X = without_imageset(X)
        if self.dtype not in ("auto", "float32", "float64"):
            raise ValueError(f"dtype must be 'auto', 'float32' or 'float64', got {self.dtype!r}")
        self._fitted_on_uint8 = is_uint8(X)
        single = self._fitted_on_uint8 or getattr(X, "dtype", None) == np.float32
        self._dtype = self.dtype if self.dtype != "auto" else "float32" if single else "float64"
        check_shape_given(self.image_shape)
        if isinstance(X, Referred):
            return self._referred_fit(X, y)
        check_axes(X, y, self.image_shape)
        check_kinds(X, y)
        check_room_for(X, self._accepted_dtype(X))
        X, y = validate_data(self, X, y, allow_nd=True, dtype=self._accepted_dtype(X))
        check_classification_targets(y)
        check_size_of_values(X)
        self.image_shape_ = image_shape_of(X, self.image_shape)
        self._value_range = value_range_of(X)
        self.n_features_in_ = prod(self.image_shape_)
        return X.reshape(len(X), *self.image_shape_), y

    def _referred_fit(self, X: Referred, y: Any) -> tuple[Referred, np.ndarray]:
        """Images that are read block by block: none of them is looked at here."""
        check_referred(X)
        y = column_or_1d(y)
        check_consistent_length(X, y)
        check_classification_targets(y)
        vars(self).pop("feature_names_in_", None)
        self._value_range = (0.0, 255.0)
        self.image_shape_ = X.shape[1:]
        self.n_features_in_ = prod(self.image_shape_)
        return X, y

    def _validated_predict(self, X: Any) -> Images:
        X = without_imageset(X)
        if isinstance(X, Referred):
            check_referred(X)
            if X.shape[1:] != self.image_shape_ or not self._fitted_on_uint8:
                raise ValueError(
                    f"images have shape {X.shape[1:]} and type uint8, but the model was fitted on "
                    f"{self.image_shape_}{'' if self._fitted_on_uint8 else ' of another type'}"
                )
            return X
        dtype = self._accepted_dtype(X)
        check_batch(X, self.image_shape_)
        check_kinds(X)
        check_room_for(X, dtype)
        if axes_of(X) > 2:
            X = check_array(X, allow_nd=True, dtype=dtype)
        else:
            X = validate_data(self, X, reset=False, dtype=dtype)
        # As in a fit, a shape that was given is taken for any other of as many pixels.
        fits = self.image_shape is not None and prod(X.shape[1:]) == prod(self.image_shape_)
        if X.ndim > 2 and not alike(X.shape[1:], self.image_shape_) and not fits:
            raise ValueError(
                f"images have shape {X.shape[1:]}, but the model was fitted on {self.image_shape_}"
            )
        check_size_of_values(X)
        fitted = (0.0, 255.0) if self._fitted_on_uint8 else self._value_range
        warn_of_another_scale(X, fitted, fitted_on_uint8=self._fitted_on_uint8)
        X = at_scale_of_fit(X, fitted_on_uint8=self._fitted_on_uint8, dtype=self._dtype)
        return X.reshape(len(X), *self.image_shape_)

    def _accepted_dtype(self, X: Any) -> Any:
        """uint8 images are converted block by block, all others at once."""
        return np.uint8 if is_uint8(X) else np.dtype(self._dtype)


def check_referred(X: Referred) -> None:
    """Refuse shards of anything but images, which an estimator would have to convert.

    Raises
    ------
    ValueError
    """
    if X.dtype != np.uint8 or len(X.shape) < 3:
        raise ValueError(
            f"the shards hold {X.dtype} of shape {tuple(X.shape[1:])}; uint8 images are accepted"
        )


def check_size_of_values(X: np.ndarray) -> None:
    """Refuse values whose squares would overflow on the way.

    Raises
    ------
    ValueError
    """
    if X.dtype == np.uint8 or not X.size:
        return
    largest = max(float(X.max()), -float(X.min()))
    if largest > LARGEST_VALUE:
        raise ValueError(
            f"X holds values up to {largest:.3g} in size; up to {LARGEST_VALUE:g} is accepted: "
            "scale them first, to 0..1 for instance"
        )


def without_imageset(X: Any) -> Any:
    """The images of an `ImageSet`, or arrays of those in a list; scikit-learn checks the rest.

    Raises
    ------
    ValueError
        For images of PIL's with a palette, or of other modes whose numbers are no pixels' values.
    """
    from rankwise.data import ImageSet

    if isinstance(X, ImageSet):
        return X.images
    return [_as_array(x, i) for i, x in enumerate(X)] if isinstance(X, list | tuple) else X


def _as_array(image: Any, i: int) -> Any:
    """The array of one of PIL's images or of a tensor; anything else as it is."""
    if hasattr(image, "getbands"):
        if image.mode not in ("L", "RGB"):
            raise ValueError(
                f"image {i} is one of PIL's of mode {image.mode!r}; modes 'L' and 'RGB' are "
                "accepted: image.convert('RGB') gives the latter"
            )
        return np.asarray(image)
    return as_numpy(image)


def as_numpy(values: Any) -> Any:
    """A tensor of PyTorch as an array, of bfloat16 in float32; anything else as it is."""
    if hasattr(values, "detach") and hasattr(values, "cpu"):
        values = values.detach().cpu()
        return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return values


def is_uint8(X: Any) -> bool:
    """Whether pixels are of type uint8: an array's, a table's in every column, or all in a list."""
    if isinstance(X, (list, tuple)):
        return bool(X) and all(map(is_uint8, X))
    if hasattr(X, "columns"):
        return all(kind == np.uint8 for kind in X.dtypes)
    return bool(getattr(X, "dtype", None) == np.uint8)


def image_shape_of(X: np.ndarray, given: Any) -> tuple[int, ...]:
    """Shape of one image: as given, as `X` has it, or a square of flat pixels.

    Up to 100 flat values that are no square are one row.

    Raises
    ------
    ValueError
        If the given shape has another number of pixels, or none is given for a longer row, or if
        there are no pixels.
    """
    if not X.size:
        raise ValueError(f"X has shape {X.shape}; images with sides of at least 1 are accepted")
    if given is not None:
        shape = tuple(int(s) for s in given)
        if prod(shape) != prod(X.shape[1:]):
            raise ValueError(
                f"image_shape {shape} has {prod(shape)} pixels, but X has "
                f"{prod(X.shape[1:])} a sample"
            )
        return shape
    if X.ndim > 2:
        return X.shape[1:]
    n = X.shape[1]
    side = isqrt(n)
    if side * side == n:
        return (side, side)
    if n > MOST_IN_A_ROW:
        raise ValueError(
            f"X has rows of {n} values, which is no square image; give image_shape, {_shapes(n)}"
        )
    return (1, n)


def _shapes(n: int) -> str:
    """Shapes that rows of n values could have, for a message."""
    side = isqrt(n // 3)
    if 3 * side * side == n:
        return (
            f"({side}, {side}, 3) for colour images flattened with their channels last (rows with "
            f"all red values first need X.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1))"
        )
    height = next(h for h in range(isqrt(n), 0, -1) if n % h == 0)
    some = f"({height}, {n // height}) for instance, or " if height > 1 else ""
    return f"{some}(1, {n}) for a single row of pixels"


def check_axes(X: Any, y: Any, given: Any) -> None:
    """Refuse channels that come first, unless `given` is their shape, and one image for many.

    Raises
    ------
    ValueError
    """
    shape = tuple(np.shape(X)) if hasattr(X, "shape") else ()
    if looks_channels_first(shape) and (given is None or tuple(given) != shape[1:]):
        raise ValueError(
            f"X has shape {shape}, which looks like channels first; (n, height, width, channels) "
            f"is accepted: numpy.moveaxis(X, 1, -1) gives it, or image_shape={shape[1:]} keeps it"
        )
    if len(shape) in (2, 3) and shape[0] > 1 and np.size(y) == 1 and y is not None:
        raise ValueError(
            f"X has shape {shape} for one label: one image alone is X[None], and a fit needs "
            "images of at least two classes"
        )


def check_kinds(X: Any, y: Any = None) -> None:
    """Say at once where names of files, images of several shapes or labels of two kinds are given.

    Raises
    ------
    ValueError
    """
    refuse_complex(X)
    refuse_masked(X, "X")
    refuse_masked(y, "y")
    if isinstance(X, (list, tuple)) and len(X):
        if isinstance(X[0], (str, os.PathLike)):
            raise ValueError(
                f"X holds names, such as {str(X[0])!r}; images are accepted: "
                "rankwise.load_images(folder) reads files"
            )
        shapes = dict.fromkeys(np.shape(x) for x in X if hasattr(x, "shape"))
        if len(shapes) > 1:
            some = " and ".join(map(str, list(shapes)[:2]))
            raise ValueError(f"X holds images of shapes {some}; images of one shape are accepted")
    if isinstance(y, (list, tuple)) or getattr(getattr(y, "dtype", None), "kind", "") == "O":
        values = list(np.ravel(np.asarray(y, dtype=object)))
        row = next((i for i, v in enumerate(values) if _is_missing(v)), None)
        if row is not None:
            raise ValueError(
                f"Input y contains NaN or None, in row {row} first; a label for each image is "
                "accepted: leave the others out"
            )
        text = [isinstance(v, str) for v in values]
        if any(text) and not all(text):
            raise ValueError(
                f"y holds text, such as {values[text.index(True)]!r}, and other labels, such as "
                f"{values[text.index(False)]!r}; labels of one kind are accepted"
            )


def _is_missing(value: Any) -> bool:
    """Whether a label is None, NaN or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def alike(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether images are of one shape: grey ones with an axis for their channel, or without."""
    with_channel = [s if len(s) != 2 else (*s, 1) for s in (tuple(shape), tuple(other))]
    return with_channel[0] == with_channel[1]


def axes_of(X: Any) -> int:
    """Axes of an array, of a table, or of what lists in lists would make."""
    if hasattr(X, "ndim"):
        return int(X.ndim)
    return 1 + axes_of(X[0]) if isinstance(X, (list, tuple)) and len(X) else 0


def check_batch(X: Any, image_shape: tuple[int, ...]) -> None:
    """Say at once where one image is given in the place of a batch, or channels come first.

    Raises
    ------
    ValueError
    """
    shape = tuple(np.shape(X)) if hasattr(X, "shape") else ()
    flat = len(shape) == 2 and shape[1] == prod(image_shape)
    if shape == tuple(image_shape) and not flat:
        raise ValueError(f"X has the shape of one image, {shape}; X[None] is a batch of one")
    first = (image_shape[-1], *image_shape[:-1])
    if len(image_shape) == 3 and shape[1:] == first != tuple(image_shape):
        raise ValueError(
            f"X has shape {shape}, with its channels first; the model takes (n, "
            f"{', '.join(map(str, image_shape))}): numpy.moveaxis(X, 1, -1) gives it"
        )


def check_room_for(X: Any, dtype: Any) -> None:
    """Refuse a copy of `X` in another type that memory has no room for.

    Raises
    ------
    ValueError
    """
    kind = getattr(X, "dtype", None)
    if not isinstance(kind, np.dtype) or kind == dtype or kind.kind not in "biuf":
        return
    needed, free = int(X.size) * np.dtype(dtype).itemsize, available_memory()
    if needed > free:
        raise ValueError(
            f"X takes {needed / 2**30:.1f} GiB as {np.dtype(dtype)} and {free / 2**30:.1f} GiB of "
            "memory are free; uint8 images are never copied whole, and float32 ones take half"
        )


def value_range_of(X: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value of a fit; nominal for pixels of type uint8."""
    return (0.0, 255.0) if X.dtype == np.uint8 else (float(X.min()), float(X.max()))


def warn_of_another_scale(
    X: np.ndarray, fitted: tuple[float, float] | None, *, fitted_on_uint8: bool
) -> None:
    """Warn where values at prediction can't be on the scale of the fit.

    They can't where they leave the range of the fit by more than its width (of pixels of type
    uint8 by more than a tenth of it), or where all are under a tenth of it.

    Warns
    -----
    DataWarning
    """
    if fitted is None or not X.size or (fitted_on_uint8 and X.dtype == np.uint8):
        return
    low, high = float(X.min()), float(X.max())
    width = fitted[1] - fitted[0]
    beyond = width * (0.1 if fitted_on_uint8 else 1.0)
    size, usual = max(abs(low), abs(high)), max(abs(fitted[0]), abs(fitted[1]))
    if width == 0 or low == high == 0:
        return
    if low < fitted[0] - beyond or high > fitted[1] + beyond or size < usual / 10:
        scale = "pixels 0 to 255" if fitted_on_uint8 else f"{fitted[0]:.4g} to {fitted[1]:.4g}"
        warnings.warn(
            f"X holds values from {low:.4g} to {high:.4g}, the model was fitted on {scale}; the "
            "same scale is needed for the predictions to mean anything",
            DataWarning,
            stacklevel=4,
        )


def at_scale_of_fit(X: np.ndarray, *, fitted_on_uint8: bool, dtype: str) -> np.ndarray:
    """Pixels at the scale of the fit, whatever their type now.

    Pixels 0 to 255 in another type are still divided by 255, and uint8 values given to a model
    of unscaled images aren't.
    """
    if fitted_on_uint8 and X.dtype != np.uint8:
        return X / np.asarray(255, dtype=X.dtype)
    if not fitted_on_uint8 and X.dtype == np.uint8:
        return X.astype(dtype)
    return X


def classes_of(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels, sorted, and the position of each sample's.

    Raises
    ------
    ValueError
        If there is only one.
    """
    classes, encoded = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"Classifier can't train when only one class is present: found only {classes[0]}"
        )
    return classes, encoded
