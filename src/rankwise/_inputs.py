"""What a user may hand to an estimator, and what it comes to."""

from __future__ import annotations

from math import isqrt, prod
from typing import Any

import numpy as np
from sklearn.utils import check_random_state


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
    """A whole number as it is; otherwise one drawn from scikit-learn's random state."""
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def worker_count(n_jobs: int | None) -> int:
    """Workers that joblib would start."""
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))
