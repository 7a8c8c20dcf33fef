"""What a user may hand to an estimator, and what it comes to."""

from __future__ import annotations

from math import isqrt, prod
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

LARGEST_VALUE = 1e30
"""Of a floating-point image: beyond it sums of squares overflow, in float32 at once."""


class ImageInput:
    """What a classifier of images makes of `X` and `y`: one array of images, of one scale.

    For an estimator with parameters `dtype` and `image_shape`; a fit leaves the names in
    `LEARNED`.
    """

    LEARNED = ("image_shape_", "n_features_in_", "_dtype", "_fitted_on_uint8")

    dtype: str
    image_shape: tuple[int, ...] | None

    def _validated_fit(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        X = without_imageset(X)
        if self.dtype not in ("auto", "float32", "float64"):
            raise ValueError(f"dtype must be 'auto', 'float32' or 'float64', got {self.dtype!r}")
        self._fitted_on_uint8 = getattr(X, "dtype", None) == np.uint8
        single = getattr(X, "dtype", None) in (np.uint8, np.float32)
        self._dtype = self.dtype if self.dtype != "auto" else "float32" if single else "float64"
        X, y = validate_data(self, X, y, allow_nd=True, dtype=self._accepted_dtype(X))
        check_classification_targets(y)
        check_size_of_values(X)
        self.image_shape_ = image_shape_of(X, self.image_shape)
        self.n_features_in_ = prod(self.image_shape_)
        return X.reshape(len(X), *self.image_shape_), y

    def _validated_predict(self, X: Any) -> np.ndarray:
        X = without_imageset(X)
        dtype = self._accepted_dtype(X)
        if getattr(X, "ndim", 2) == 2:
            X = validate_data(self, X, reset=False, dtype=dtype)
        else:
            X = check_array(X, allow_nd=True, dtype=dtype)
        if X.ndim > 2 and X.shape[1:] != self.image_shape_:
            raise ValueError(
                f"images have shape {X.shape[1:]}, but the model was fitted on {self.image_shape_}"
            )
        check_size_of_values(X)
        X = at_scale_of_fit(X, fitted_on_uint8=self._fitted_on_uint8, dtype=self._dtype)
        return X.reshape(len(X), *self.image_shape_)

    def _accepted_dtype(self, X: Any) -> Any:
        """uint8 images are converted block by block, all others at once."""
        return np.uint8 if getattr(X, "dtype", None) == np.uint8 else np.dtype(self._dtype)


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


def groups_of(groups: Any, n_samples: int) -> np.ndarray | None:
    """Groups as an array, or None.

    Raises
    ------
    ValueError
        If there isn't one for each sample.
    """
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.shape != (n_samples,):
        raise ValueError(
            f"groups have shape {groups.shape}; one for each sample, ({n_samples},), is accepted"
        )
    return groups


def without_imageset(X: Any) -> Any:
    """The images of an `ImageSet`; anything else is left to scikit-learn's own checks."""
    from rankwise.data import ImageSet

    return X.images if isinstance(X, ImageSet) else X


def image_shape_of(X: np.ndarray, given: Any) -> tuple[int, ...]:
    """Shape of one image: as given, as `X` has it, or a square (else a row) of flat pixels.

    Raises
    ------
    ValueError
        If the given shape has another number of pixels.
    """
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
    side = isqrt(X.shape[1])
    return (side, side) if side * side == X.shape[1] else (1, X.shape[1])


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


def seed_of(random_state: Any) -> int:
    """A whole number as it is; otherwise one drawn from scikit-learn's random state.

    Raises
    ------
    ValueError
        If it is neither, or the number is negative or too large for the generators.
    """
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        if not 0 <= random_state < 2**63:
            raise ValueError(
                "random_state must be a whole number from 0 to 2**63 - 1, a RandomState or None, "
                f"got {random_state}"
            )
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def worker_count(n_jobs: int | None) -> int:
    """Workers that joblib would start."""
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))
