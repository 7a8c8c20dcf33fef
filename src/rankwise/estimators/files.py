"""Models on disk: weights as safetensors, everything else as JSON. Loading runs nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
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
from rankwise._parameters import from_json as plain_value
from rankwise._parameters import to_json as plain_json
from rankwise._reading import classes_json, classes_of, image_shape_of
from rankwise.errors import ModelFileError
from rankwise.estimators._choices_json import from_json, to_json
from rankwise.estimators.choices import (
    convolutional_parameters_of,
    of_version_3,
    parameters_of,
)
from rankwise.networks.convolutional import ConvolutionalNetwork
from rankwise.networks.quadratic import QuadraticNetwork
from rankwise.units.convolutional import ConvolutionalUnits, Layer, LayerWeights, Whitening
from rankwise.units.multilinear import Units

FORMAT = "rankwise-quadratic-classifier"
FORMAT_VERSIONS = (2, 3, 4)
"""Those that can be read: of rankwise 0.1, with more parameters alone, and the one written."""

FAMILIES = {"units": "QuadraticClassifier", "convolutional": "ConvolutionalClassifier"}
"""The kinds of network, and the classifiers that have them."""

_LOSSES = ("train_loss", "objective")
"""What an epoch or a step of a fit always has."""
_VECTORS = ("channel", "row", "column", "bias")
_WHITENING = ("filters", "bias")


@dataclass(frozen=True)
class SavedClassifier:
    """What a file keeps of a fitted classifier.

    Attributes
    ----------
    family : {"units", "convolutional"}
    network : QuadraticNetwork or ConvolutionalNetwork
    classes : array of shape (K,)
    fitted_on_uint8 : bool
    dtype : {"float32", "float64"}
    parameters : dict
        Of the estimator.
    fitted : dict
        Learned attributes, with their underscores.
    value_range : tuple of two floats, or None
        Smallest and largest value of the fit; files of earlier versions don't have it.
    class_name : str, optional
        Of the estimator, a subclass's too; files of rankwise 0.1 don't have it.
    feature_names : list of str, optional
        Where it was fitted on a table with names.
    reports : list of dict
        Of the sub-networks.
    """

    family: str
    network: Any
    classes: np.ndarray
    fitted_on_uint8: bool
    dtype: str
    parameters: dict[str, Any]
    fitted: dict[str, Any]
    value_range: tuple[float, float] | None = None
    class_name: str | None = None
    feature_names: list[str] | None = None
    reports: list[dict[str, Any]] = field(default_factory=list)


def write_classifier(record: SavedClassifier, folder: Path) -> None:
    """Write a record: weights first, then the JSON that vouches for them.

    Parameters
    ----------
    record : SavedClassifier
    folder : Path
        Made if it isn't there. An earlier model in it is replaced.

    Raises
    ------
    ValueError
        If a parameter can't be kept; nothing is written then.
    """
    description = {
        "class": record.class_name,
        **_described(record.network),
        "fitted_on_uint8": record.fitted_on_uint8,
        "dtype": record.dtype,
        "value_range": record.value_range,
        "classes": classes_json(record.classes),
        "parameters": {k: _parameter_json(k, v) for k, v in record.parameters.items()},
        "fitted": record.fitted,
        "feature_names": record.feature_names,
        "subnet_reports": plain_json(record.reports, "a report"),
    }
    write_model(
        folder,
        network_arrays(record.network),
        format_name=FORMAT,
        version=FORMAT_VERSIONS[-1],
        description=description,
    )


def _parameter_json(name: str, value: Any) -> Any:
    if name == "class_weight" and isinstance(value, dict):
        return [[to_json(label), to_json(weight)] for label, weight in value.items()]
    if isinstance(value, np.random.RandomState):
        kind, keys, *rest = value.get_state()
        return {"random_state": [kind, np.asarray(keys).tolist(), *rest]}
    return to_json(value)


def read_classifier(folder: Path, family: str | None = None) -> SavedClassifier:
    """Read what `write_classifier` wrote, or rankwise 0.1.

    Parameters
    ----------
    folder : Path
    family : str, optional
        The only one that is accepted.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    description = read_description(
        folder,
        format_name=FORMAT,
        version=FORMAT_VERSIONS,
        kind="a rankwise model",
        hint=(
            f"; a model folder holds {DESCRIPTION} and {WEIGHTS}, as 'rankwise train' writes them"
        ),
    )
    tensors = read_weights(folder, description)
    with built_from(folder):
        record = _build(description, tensors)
    if family not in (None, record.family):
        found, wanted = FAMILIES[record.family], FAMILIES[str(family)]
        raise ModelFileError(
            f"{folder} holds a {found}, not a {wanted}; {found}.load or rankwise.load_model reads "
            "it"
        )
    return record


def network_arrays(network: QuadraticNetwork | ConvolutionalNetwork) -> dict[str, np.ndarray]:
    """All weights of a network, by name."""
    if isinstance(network, QuadraticNetwork):
        return {"params": network.params, "coef": network.coef}
    arrays = {"center": network.center, "scale": network.scale, "coef": network.coef}
    if network.whitening is not None:
        arrays |= {f"whitening.{name}": getattr(network.whitening, name) for name in _WHITENING}
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
            "whiten": units.whiten,
        },
        "softmax": network.softmax,
    }


def _build(description: dict[str, Any], tensors: dict[str, np.ndarray]) -> SavedClassifier:
    network = _network(description, tensors)
    classes = classes_of(description["classes"])
    if network.coef.shape[1] != len(classes):
        raise ModelFileError(
            f"{WEIGHTS} doesn't fit {DESCRIPTION}: {network.coef.shape[1]} outputs for "
            f"{len(classes)} classes"
        )
    if not all(array.dtype.kind == "f" for array in tensors.values()):
        raise ModelFileError(f"{WEIGHTS} is damaged: it holds weights that aren't floating point")
    _check_temperature(description["fitted"].get("temperature_"))
    family = description["network"]
    version = description["format_version"]
    if version == FORMAT_VERSIONS[0]:
        return _of_version_2(description, network, classes, tensors)
    parameters = {k: _parameter_of(k, v) for k, v in description["parameters"].items()}
    if version == FORMAT_VERSIONS[1]:
        parameters = of_version_3(family, parameters)
    for name in ("verbose", "n_jobs"):  # what predictions ask for, long after this
        value = parameters.get(name, 0)
        if not isinstance(value, int) and (name == "verbose" or value is not None):
            raise ModelFileError(
                f"{DESCRIPTION} is damaged: {name} is {value!r}; a whole number is accepted"
            )
    dtype = description["dtype"]
    if dtype not in ("float32", "float64"):
        raise ModelFileError(
            f"{DESCRIPTION} is damaged: dtype is {dtype!r:.80}; 'float32' and 'float64' are "
            "accepted"
        )
    return SavedClassifier(
        family,
        network,
        classes,
        bool(description["fitted_on_uint8"]),
        dtype,
        parameters,
        _fitted_of(description["fitted"]),
        _range_of(description.get("value_range")),
        description.get("class"),
        description.get("feature_names"),
        plain_value(description.get("subnet_reports", [])),
    )


def _fitted_of(values: dict[str, Any]) -> dict[str, Any]:
    """Learned attributes, with NaN for the null that stands for a loss that was no number."""
    if "history_" not in values:
        return values
    history = [
        {k: math.nan if v is None and k in _LOSSES else v for k, v in entry.items()}
        for entry in values["history_"]
    ]
    return {**values, "history_": history}


def _range_of(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, the smaller first."""
    if value is None:
        return None
    numbers = isinstance(value, list) and len(value) == 2
    numbers = numbers and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)
    if not numbers or value[0] > value[1]:
        raise ModelFileError(f"{DESCRIPTION} is damaged: its value_range is {str(value)[:80]}")
    return float(value[0]), float(value[1])


def _check_temperature(value: Any) -> None:
    """None, or a finite number above 0."""
    if value is None:
        return
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise ModelFileError(
            f"{DESCRIPTION} is damaged: temperature_ is {value!r:.80}; a finite number above 0 is "
            "accepted"
        )


def _parameter_of(name: str, value: Any) -> Any:
    if name == "class_weight" and isinstance(value, list):
        return dict(value)
    if name == "random_state" and isinstance(value, dict):
        kind, keys, *rest = value["random_state"]
        state = np.random.RandomState()
        state.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        return state
    return from_json(value)


def _of_version_2(
    description: dict[str, Any],
    network: QuadraticNetwork | ConvolutionalNetwork,
    classes: np.ndarray,
    tensors: dict[str, np.ndarray],
) -> SavedClassifier:
    """A model of rankwise 0.1, whose one classifier had the parameters of both, all flat."""
    flat = {k: tuple(v) if isinstance(v, list) else v for k, v in description["parameters"].items()}
    fitted = {"selection_": {}, "temperature_": None, **description["fitted"]}
    if isinstance(network, ConvolutionalNetwork):
        names = (
            "n_units",
            "rank",
            "activation",
            "max_iter",
            "ridge",
            "augmentation",
            "image_shape",
        )
        kept = {name: flat.get(name) for name in names}
        squash = bool(flat.get("squash")) and not network.softmax
        parameters = convolutional_parameters_of({**kept, "squash": squash})
        parameters["preset"] = fitted["preset_"]
        dtype = "float32"
    else:
        if flat.get("glue_method") == "auto":
            del flat["glue_method"]
        parameters = parameters_of(flat)
        dtype = str(tensors["params"].dtype)
    return SavedClassifier(
        description["network"],
        network,
        classes,
        bool(description["fitted_on_uint8"]),
        dtype,
        parameters,
        fitted,
    )


def _whitening(units: ConvolutionalUnits, tensors: dict[str, np.ndarray]) -> Whitening | None:
    if not units.whiten:
        return None
    found = Whitening(*(tensors[f"whitening.{name}"] for name in _WHITENING))
    m, side = units.n_whitening, units.whiten
    _require_shape("whitening.filters", found.filters, (m, units.channels, side, side))
    _require_shape("whitening.bias", found.bias, (2 * m,))
    return found


def _network(
    description: dict[str, Any], tensors: dict[str, np.ndarray]
) -> QuadraticNetwork | ConvolutionalNetwork:
    unit, coef = description["units"], tensors["coef"]
    shape = image_shape_of(unit["shape"])
    if coef.ndim != 2:
        raise ModelFileError(f"{WEIGHTS} is damaged: coef has {coef.ndim} axes instead of 2")
    if description["network"] == "convolutional":
        layers = tuple(Layer(**layer) for layer in unit["layers"])
        convolutional = ConvolutionalUnits(
            shape,
            layers,
            unit["shrink"],
            unit["grid"],
            unit["activation"],
            unit.get("whiten", 0),  # files of earlier versions don't say
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
        for name in ("center", "scale"):
            _require_shape(name, tensors[name], (convolutional.channels,))
        if not (tensors["scale"] > 0).all():
            raise ModelFileError(f"{WEIGHTS} is damaged: a scale isn't positive")
        return ConvolutionalNetwork(
            convolutional,
            tuple(weights),
            tensors["center"],
            tensors["scale"],
            coef,
            bool(description["softmax"]),
            _whitening(convolutional, tensors),
        )
    if description["network"] != "units":
        raise ModelFileError(
            f"{DESCRIPTION} is damaged: its network is {description['network']!r}; 'units' and "
            "'convolutional' are known"
        )
    axes = tuple(unit["vector_of_axis"])
    if not all(type(axis) is int and 0 <= axis < len(shape) for axis in axes):
        raise ModelFileError(f"{DESCRIPTION} is damaged: vector_of_axis is {axes!r:.80}")
    if type(unit["rank"]) is not int:
        raise ModelFileError(
            f"{DESCRIPTION} is damaged: rank is {unit['rank']!r:.80}; a whole number is accepted"
        )
    units = Units(
        shape,
        axes,
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
