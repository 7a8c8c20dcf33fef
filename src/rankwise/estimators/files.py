"""Models on disk: weights as safetensors, everything else as JSON. Loading runs nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._model_files import (
    DESCRIPTION,
    WEIGHTS,
    built_from,
    read_description,
    read_weights,
    write_model,
)
from rankwise.errors import ModelFileError
from rankwise.estimators.quadratic import QuadraticClassifier
from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.networks.quadratic import QuadraticNetwork
from rankwise.units.convolutional import ConvolutionalUnits, Layer, LayerWeights
from rankwise.units.multilinear import Units

FORMAT = "rankwise-quadratic-classifier"
FORMAT_VERSION = 2

_FITTED = (
    "status_",
    "statuses_",
    "n_iter_",
    "ridge_",
    "rank_",
    "condition_",
    "seconds_",
    "preset_",
    "output_layer_",
    "history_",
    "selection_",
)
_VECTORS = ("channel", "row", "column", "bias")
_NOT_KEPT = ("checkpoint_dir", "random_state", "verbose", "n_jobs", "device")


def save_classifier(model: QuadraticClassifier, folder: Path) -> None:
    """Write a fitted classifier: weights first, then the JSON that vouches for them.

    Parameters
    ----------
    model : QuadraticClassifier
    folder : Path
        Made if it isn't there. An earlier model in it is replaced.
    """
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model, "network_")
    network = model.network_
    description = {
        **_described(network),
        "fitted_on_uint8": bool(model._fitted_on_uint8),
        "classes": {"dtype": model.classes_.dtype.str, "values": model.classes_.tolist()},
        "parameters": {
            name: value for name, value in model.get_params().items() if name not in _NOT_KEPT
        },
        "fitted": {name: getattr(model, name) for name in _FITTED},
    }
    write_model(
        folder,
        network_arrays(network),
        format_name=FORMAT,
        version=FORMAT_VERSION,
        description=description,
    )


def load_classifier(folder: Path) -> QuadraticClassifier:
    """Read a classifier written by `save_classifier`.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    description = read_description(
        folder,
        format_name=FORMAT,
        version=FORMAT_VERSION,
        kind="a rankwise model",
        hint=(
            f"; a model folder holds {DESCRIPTION} and {WEIGHTS}, as 'rankwise train' writes them"
        ),
    )
    tensors = read_weights(folder, description)
    with built_from(folder):
        return _build(description, tensors)


def network_arrays(network: QuadraticNetwork | ConvolutionalNetwork) -> dict[str, np.ndarray]:
    """All weights of a network, by name."""
    if isinstance(network, QuadraticNetwork):
        return {"params": network.params, "coef": network.coef}
    arrays = {"center": network.center, "scale": network.scale, "coef": network.coef}
    for i, layer in enumerate(network.layers):
        arrays |= {f"layer{i}.{name}": getattr(layer, name) for name in _VECTORS}
    return arrays


def _described(network: QuadraticNetwork | ConvolutionalNetwork) -> dict[str, Any]:
    """What the weights mean."""
    units = network.units
    if isinstance(units, Units):
        assert isinstance(network, QuadraticNetwork)
        return {
            "network": "units",
            "units": {
                "shape": list(units.shape),
                "vector_of_axis": list(units.vector_of_axis),
                "rank": units.rank,
                "activation": units.activation,
            },
            "n_active": network.n_active,
        }
    assert isinstance(network, ConvolutionalNetwork)
    return {
        "network": "convolutional",
        "units": {
            "shape": list(units.shape),
            "layers": [asdict(layer) for layer in units.layers],
            "shrink": units.shrink,
            "grid": units.grid,
            "activation": units.activation,
        },
        "softmax": network.softmax,
    }


def _build(description: dict[str, Any], tensors: dict[str, np.ndarray]) -> QuadraticClassifier:
    network = _network(description, tensors)
    classes = np.array(description["classes"]["values"], dtype=description["classes"]["dtype"])
    if network.coef.shape[1] != len(classes):
        raise ModelFileError(
            f"{WEIGHTS} doesn't fit {DESCRIPTION}: {network.coef.shape[1]} outputs for "
            f"{len(classes)} classes"
        )
    if len(np.unique(classes)) < len(classes):
        raise ModelFileError(f"{DESCRIPTION} is damaged: a class stands twice in it")
    if not all(array.dtype.kind == "f" for array in tensors.values()):
        raise ModelFileError(f"{WEIGHTS} is damaged: it holds weights that aren't floating point")
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise ModelFileError(f"{WEIGHTS} is damaged: it holds weights that aren't finite")
    parameters = description["parameters"]
    for name in ("window", "image_shape"):
        if isinstance(parameters.get(name), list):
            parameters[name] = tuple(parameters[name])
    model = QuadraticClassifier(**parameters)
    model.network_ = network
    model.classes_ = classes
    model.image_shape_ = network.units.shape
    model._dtype = str(tensors["params"].dtype) if "params" in tensors else "float32"
    model._fitted_on_uint8 = bool(description["fitted_on_uint8"])
    model.n_features_in_ = int(np.prod(network.units.shape))
    model.n_parameters_units_ = network.n_parameters_units
    model.n_parameters_total_ = network.n_parameters_total
    # Models of earlier versions don't have it.
    fitted = {"selection_": {}, **description["fitted"]}
    for name in _FITTED:
        setattr(model, name, fitted[name])
    return model


def _network(
    description: dict[str, Any], tensors: dict[str, np.ndarray]
) -> QuadraticNetwork | ConvolutionalNetwork:
    unit, coef = description["units"], tensors["coef"]
    if description["network"] == "convolutional":
        layers = tuple(Layer(**layer) for layer in unit["layers"])
        convolutional = ConvolutionalUnits(
            tuple(unit["shape"]), layers, unit["shrink"], unit["grid"], unit["activation"]
        )
        weights = []
        for i, stage in enumerate(convolutional.stages):
            vectors = LayerWeights(*(tensors[f"layer{i}.{name}"] for name in _VECTORS))
            size = (stage.maps, stage.rank)
            _require_shape(f"layer{i}.channel", vectors.channel, (*size, stage.channels))
            _require_shape(f"layer{i}.row", vectors.row, (*size, stage.sides[0]))
            _require_shape(f"layer{i}.column", vectors.column, (*size, stage.sides[1]))
            _require_shape(f"layer{i}.bias", vectors.bias, (stage.maps,))
            weights.append(vectors)
        _require_shape("coef", coef, (convolutional.n_features + 1, coef.shape[1]))
        return ConvolutionalNetwork(
            convolutional,
            tuple(weights),
            tensors["center"],
            tensors["scale"],
            coef,
            bool(description["softmax"]),
        )
    if description["network"] != "units":
        raise ModelFileError(
            f"{DESCRIPTION} is damaged: its network is {description['network']!r}; 'units' and "
            "'convolutional' are known"
        )
    units = Units(
        tuple(unit["shape"]),
        tuple(unit["vector_of_axis"]),
        rank=unit["rank"],
        activation=unit["activation"],
    )
    _require_shape("parameters", tensors["params"], (units.n_params, coef.shape[0] - 1))
    n_active = int(description["n_active"])
    if not 0 < n_active <= tensors["params"].size:
        raise ModelFileError(
            f"{DESCRIPTION} is damaged: n_active is {n_active}, of {tensors['params'].size} "
            "parameters"
        )
    return QuadraticNetwork(units, tensors["params"], coef, n_active)


def _require_shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ModelFileError(
            f"{WEIGHTS} doesn't fit {DESCRIPTION}: {name} of shape {array.shape} instead of "
            f"{expected}"
        )
