"""What else than images a user may hand to an estimator, checked before anything is done."""

from __future__ import annotations

import math
import os
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, column_or_1d

from rankwise._files import expanded
from rankwise.networks.probabilities import PROBABILITIES


def groups_of(groups: Any, n_samples: int) -> np.ndarray | None:
    """Groups as an array, or None.

    Raises
    ------
    ValueError
        If there isn't one for each sample, or they can't be told apart by sorting.
    """
    if groups is None:
        return None
    groups = _one_each(groups, "groups", "one", n_samples)
    if groups.shape != (n_samples,):
        raise ValueError(
            f"groups have shape {groups.shape}; one for each sample, ({n_samples},), is accepted"
        )
    if groups.dtype == object:
        try:
            np.unique(groups)
        except TypeError as error:
            raise ValueError(
                "groups are of kinds that can't be compared with each other, such as None and "
                "numbers; numbers alone or text alone are accepted"
            ) from error
    return groups


def validation_of(
    validation: Any,
    encoded: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray | None:
    """Which rows are the validation part, as a bool array, or None.

    Raises
    ------
    ValueError
        If there isn't a truth value for each sample, or a class has no sample to train on, that
        is, of a weight above 0.
    """
    if validation is None:
        return None
    rows = _one_each(validation, "validation", "True or False", len(encoded))
    if rows.shape != encoded.shape or rows.dtype != np.bool_:
        raise ValueError(
            f"validation has shape {rows.shape} and type {rows.dtype}; True or False for each "
            f"sample, ({len(encoded)},), is accepted"
        )
    trained = ~rows if weights is None else ~rows & (weights > 0)
    missing = np.setdiff1d(encoded[rows], encoded[trained])
    if len(missing):
        aside = "" if weights is None else ", those of weight 0 aside"
        raise ValueError(
            f"class {classes[missing[0]]} has images in the validation part only{aside}; each "
            "needs some to train on"
        )
    return rows


def truth_of(y: Any, classes: np.ndarray, n_samples: int) -> np.ndarray | None:
    """True labels to compare predicted ones with, as an array, or None.

    Raises
    ------
    ValueError
        If there isn't one for each image, or text would be compared with other labels.
    """
    if y is None:
        return None
    truth = column_or_1d(y)
    if len(truth) != n_samples:
        raise ValueError(
            f"y has {len(truth)} labels for {n_samples} images; one for each image is accepted"
        )
    text = isinstance(classes[0], str)
    other = next((label for label in truth if isinstance(label, str) != text), None)
    if other is not None:
        raise ValueError(
            f"y holds labels such as {_plain(other)!r}, and the classes are labels such as "
            f"{_plain(classes[0])!r}; labels of one kind are accepted"
        )
    return truth


def _plain(label: Any) -> Any:
    """A label without numpy's type, for a message."""
    return label.item() if isinstance(label, np.generic) else label


def margin_of(margin: Any) -> float:
    """How clear a guess has to be.

    Raises
    ------
    ValueError
        If it is no finite number, or below 0.
    """
    real = isinstance(margin, Real) and not isinstance(margin, bool)
    if not real or not math.isfinite(margin) or margin < 0:
        raise ValueError(f"margin must be a finite number at least 0, got {margin!r}")
    return float(margin)


def _one_each(values: Any, name: str, accepted: str, n_samples: int) -> np.ndarray:
    """An array of values, of which there should be one a sample."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} is a {type(values).__name__} of parts of several shapes; {accepted} for each "
            f"sample, ({n_samples},), is accepted"
        ) from error


def check_shape_given(shape: Any) -> None:
    """Refuse a shape of images that is none.

    Raises
    ------
    ValueError
    """
    if shape is None:
        return
    sides = [] if isinstance(shape, str) or not hasattr(shape, "__iter__") else [*shape]
    if not sides or not all(map(_is_whole, sides)):
        raise ValueError(
            "image_shape must be the sides of an image, whole numbers above 0 such as (28, 28), "
            f"got {shape!r}"
        )


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number above 0, of whatever type."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and float(value).is_integer() and float(value) > 0


def check_probabilities(how: Any) -> None:
    """Refuse a way from outputs to probabilities that nobody knows.

    Raises
    ------
    ValueError
    """
    if how not in (None, *PROBABILITIES):
        raise ValueError(
            f"probabilities must be {', '.join(map(repr, PROBABILITIES))} or None, got {how!r}"
        )


def folder_of(name: str, path: Any) -> Path:
    """A path of a folder that is there or can be made, with the home folder for its ``~``.

    Raises
    ------
    ValueError
        If it is no path, or a file stands there or above it.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"{name} must be the path of a folder, got {path!r}")
    place = expanded(path)
    standing = next((p for p in (place, *place.parents) if p.exists()), None)
    if standing is not None and not standing.is_dir():
        raise ValueError(f"{name} is {str(path)!r}, and {standing} is a file; give a folder")
    return place


def epochs_of(epochs: Any) -> int:
    """A number of epochs.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not _is_whole(epochs):
        raise ValueError(f"epochs must be a whole number at least 1, got {epochs!r}")
    return int(epochs)


def seed_of(random_state: Any) -> int:
    """A whole number as it is; otherwise one drawn from scikit-learn's random state.

    Raises
    ------
    ValueError
        If it is neither, or the number is negative or too large for the generators.
    """
    truth = isinstance(random_state, (bool, np.bool_))
    whole = isinstance(random_state, (int, np.integer)) and not truth
    if truth or (whole and not 0 <= random_state < 2**63):
        raise ValueError(
            "random_state must be a whole number from 0 to 2**63 - 1, a RandomState or None, got "
            f"{random_state}"
        )
    if whole:
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def worker_count(n_jobs: int | None) -> int:
    """Workers that joblib would start.

    Raises
    ------
    ValueError
        If it is 0, or neither a whole number nor None.
    """
    from joblib import effective_n_jobs

    if n_jobs is not None and not isinstance(n_jobs, (int, np.integer)):
        raise ValueError(f"n_jobs must be a whole number or None, got {n_jobs!r}")
    return int(effective_n_jobs(n_jobs))


def thread_count(n_jobs: int | None) -> int:
    """Threads that compute in this process: as many as `n_jobs` asks for of this machine's cores.

    joblib's back end for a cluster counts the cluster's. Processes of this machine that train
    together share its cores out.
    """
    from joblib import cpu_count
    from joblib.parallel import get_active_backend

    from rankwise.cluster import active
    from rankwise.training.distributed import processes_here

    surrounding = active()
    if surrounding is not None:
        return cpu_count() if surrounding.remote else surrounding.workers
    worker_count(n_jobs)  # refuses what is no number
    asked = get_active_backend()[1] if n_jobs is None else int(n_jobs)
    asked = 1 if asked is None else asked
    return asked if asked > 0 else max(1, cpu_count() // processes_here() + 1 + asked)


def tells(verbose: int) -> bool:
    """Whether progress is shown.

    Raises
    ------
    ValueError
        If it isn't a whole number.
    """
    if not isinstance(verbose, (int, np.integer, np.bool_)):
        raise ValueError(f"verbose must be a whole number, got {verbose!r}")
    return bool(verbose > 0)
