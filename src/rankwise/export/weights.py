"""A graph as one safetensors file: tensors, and the operations as JSON in its metadata.

For programs of one's own. Every tensor ``t0``, ``t1``, … stands for an array of an operation; one
in int8 has its scales beside it, as ``t0.scales``. Where an operation names a tensor, its JSON
says ``{"tensor": "t0"}``. `read_weights` reads it back.
"""

from __future__ import annotations

import json
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import atomic_path
from rankwise._reading import blamed_on, check_numbers, parse_json, read_tensors
from rankwise._version import __version__
from rankwise.errors import ModelFileError
from rankwise.export.quantise import quantise
from rankwise.networks import graph as graphs
from rankwise.networks.graph import Graph

FORMAT = "rankwise-graph"
FORMAT_VERSION = 1

_OPERATIONS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        graphs.Activate,
        graphs.Add,
        graphs.Affine,
        graphs.Concatenate,
        graphs.Convolve,
        graphs.ConvolveForms,
        graphs.Dense,
        graphs.Flatten,
        graphs.Multiply,
        graphs.Pool,
        graphs.RankOneForms,
        graphs.Square,
        graphs.ToMaps,
    )
}


def write_weights(graph: Graph, path: Path, *, precision: str = "float32") -> None:
    """Write a graph as safetensors.

    Parameters
    ----------
    graph : Graph
    path : Path
    precision : {"float32", "float16", "int8"}
    """
    from safetensors.numpy import save_file

    quantised = quantise(graph, precision)
    structure, arrays = structure_of(quantised.graph)
    tensors: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        encoded = quantised.of(array)
        tensors[name] = np.ascontiguousarray(encoded.values)
        if encoded.scales is not None:
            tensors[f"{name}.scales"] = np.ascontiguousarray(encoded.scales)
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "rankwise_version": __version__,
        "precision": precision,
        "graph": json.dumps(structure),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_weights(path: Path) -> Graph:
    """The graph of a file written by `write_weights`, with float32 weights.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged or foreign.
    """
    tensors, metadata = read_tensors(path, error=ModelFileError)
    if metadata.get("format") != FORMAT or metadata.get("format_version") != str(FORMAT_VERSION):
        raise ModelFileError(f"{path} isn't an exported graph of format {FORMAT} {FORMAT_VERSION}")
    arrays = {}
    with blamed_on(path, ModelFileError):
        for name, values in tensors.items():
            if not name.endswith(".scales"):
                scales = tensors.get(f"{name}.scales", np.float32(1.0))
                arrays[name] = values.astype(np.float32) * scales
        structure = parse_json(metadata["graph"])
        check_numbers(path, structure, ModelFileError)
        ops = tuple(_operation(op, arrays) for op in structure.pop("ops"))
        shape, classes = tuple(structure.pop("image_shape")), tuple(structure.pop("classes"))
        return Graph(shape, ops, classes, **structure)


def fingerprint(graph: Graph) -> str:
    """SHA-256 over the operations and all their numbers."""
    structure, arrays = structure_of(graph)
    digest = sha256(json.dumps(structure).encode())
    for array in arrays.values():
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def structure_of(graph: Graph) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A graph as plain JSON, and its arrays by name."""
    graph.check()
    names: dict[int, str] = {}
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = names.setdefault(id(value), f"t{len(names)}")
            arrays[name] = value
            return {"tensor": name}
        if type(value).__name__ in _OPERATIONS:
            entries = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
            return {"operation": type(value).__name__, **entries}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return {f.name: plain(getattr(graph, f.name)) for f in fields(graph)}, arrays


def _operation(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `structure_of` made plain, back; lists are tuples again."""
    if isinstance(value, list):
        return tuple(_operation(v, arrays) for v in value)
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return arrays[value["tensor"]]
    arguments = {k: _operation(v, arrays) for k, v in value.items() if k != "operation"}
    return _OPERATIONS[value["operation"]](**arguments)
