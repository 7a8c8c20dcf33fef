"""Models on disk: weights as safetensors, everything else as JSON. Loading runs nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import atomic_path, write_json
from rankwise._version import __version__
from rankwise.errors import ModelFileError
from rankwise.estimators import QuadraticClassifier
from rankwise.varpro.network import QuadraticNetwork
from rankwise.varpro.units import Units

FORMAT = "rankwise-quadratic-classifier"
FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"

_FITTED = ("status_", "statuses_", "n_iter_", "ridge_", "rank_", "condition_", "seconds_")
_NOT_KEPT = ("checkpoint_dir", "random_state", "verbose", "n_jobs", "device")


def save_classifier(model: QuadraticClassifier, folder: Path) -> None:
    """Write a fitted classifier: weights first, then the JSON that vouches for them.

    Parameters
    ----------
    model : QuadraticClassifier
    folder : Path
        Made if it isn't there. An earlier model in it is replaced.
    """
    from safetensors.numpy import save_file
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model, "network_")
    network = model.network_
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({"params": network.params, "coef": network.coef}, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "rankwise_version": __version__,
        "weights_sha256": digest,
        "units": {
            "shape": list(network.units.shape),
            "vector_of_axis": list(network.units.vector_of_axis),
            "rank": network.units.rank,
            "activation": network.units.activation,
        },
        "n_active": network.n_active,
        "fitted_on_uint8": bool(model._fitted_on_uint8),
        "classes": {"dtype": model.classes_.dtype.str, "values": model.classes_.tolist()},
        "parameters": {
            name: value for name, value in model.get_params().items() if name not in _NOT_KEPT
        },
        "fitted": {name: getattr(model, name) for name in _FITTED},
    }
    write_json(folder / DESCRIPTION, description)


def load_classifier(folder: Path) -> QuadraticClassifier:
    """Read a classifier written by `save_classifier`.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    description = read_description(folder)
    weights_path = folder / WEIGHTS
    try:
        content = weights_path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{weights_path} can't be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != description.get("weights_sha256"):
        raise ModelFileError(
            f"{weights_path} is damaged or belongs to another model: its checksum isn't the one "
            f"in {DESCRIPTION}"
        )
    try:
        return _build(description, content)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(
            f"{folder / DESCRIPTION} is damaged: {type(error).__name__}: {error}"
        ) from error


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check the JSON of a model folder."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelFileError(
            f"{path} can't be read: {error.strerror}; a model folder holds {DESCRIPTION} and "
            f"{WEIGHTS}, as 'rankwise train' writes them"
        ) from error
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: it isn't JSON") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFileError(f"{path} isn't a rankwise model: its format isn't {FORMAT!r}")
    if description.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {description.get('format_version')!r}, but this rankwise "
            f"({__version__}) reads version {FORMAT_VERSION}"
        )
    return description


def _build(description: dict[str, Any], content: bytes) -> QuadraticClassifier:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ModelFileError(f"{WEIGHTS} is damaged: {error}") from error
    unit = description["units"]
    units = Units(
        tuple(unit["shape"]),
        tuple(unit["vector_of_axis"]),
        rank=unit["rank"],
        activation=unit["activation"],
    )
    params, coef = tensors["params"], tensors["coef"]
    classes = np.array(description["classes"]["values"], dtype=description["classes"]["dtype"])
    expected = (units.n_params, coef.shape[0] - 1)
    if params.shape != expected or coef.shape[1] != len(classes):
        raise ModelFileError(
            f"{WEIGHTS} doesn't fit {DESCRIPTION}: parameters of shape {params.shape} instead of "
            f"{expected}, {coef.shape[1]} outputs for {len(classes)} classes"
        )
    if not (np.isfinite(params).all() and np.isfinite(coef).all()):
        raise ModelFileError(f"{WEIGHTS} is damaged: it holds weights that aren't finite")
    parameters = description["parameters"]
    for name in ("window", "image_shape"):
        if isinstance(parameters.get(name), list):
            parameters[name] = tuple(parameters[name])
    model = QuadraticClassifier(**parameters)
    model.network_ = QuadraticNetwork(units, params, coef, int(description["n_active"]))
    model.classes_ = classes
    model.image_shape_ = units.shape
    model._dtype = str(params.dtype)
    model._fitted_on_uint8 = bool(description["fitted_on_uint8"])
    model.n_features_in_ = int(np.prod(units.shape))
    model.n_parameters_units_ = model.network_.n_parameters_units
    model.n_parameters_total_ = model.network_.n_parameters_total
    for name in _FITTED:
        setattr(model, name, description["fitted"][name])
    return model
