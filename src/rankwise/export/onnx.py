"""A graph as an ONNX file, for phones, browsers and servers.

Operator set 17 and IR version 8, which every runtime since 2022 reads. The rank-one forms are
stored as their factors: the file holds few numbers, and a runtime multiplies them out once, when
it loads the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import atomic_path
from rankwise._version import __version__
from rankwise.errors import MissingDependencyError
from rankwise.export.quantise import Quantised, quantise
from rankwise.networks.graph import (
    Activate,
    Add,
    Affine,
    Concatenate,
    Convolve,
    ConvolveForms,
    Dense,
    Flatten,
    Graph,
    Multiply,
    Op,
    Pool,
    RankOneForms,
    Square,
    ToMaps,
    output_shape,
)
from rankwise.networks.probabilities import SMOOTHING
from rankwise.units.activations import ACTIVATIONS

OPSET = 17
IR_VERSION = 8


def write_onnx(
    graph: Graph,
    path: Path,
    *,
    precision: str = "float32",
    batch: int | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a graph as ONNX.

    The input is ``image``, ``(n, *image_shape)``: uint8 for a model fitted on uint8 images, else
    float32. The outputs are ``logits`` and ``probabilities``, ``(n, n_classes)`` float32, and
    ``label``, ``(n,)`` int64, a position in the classes. Those stand in the file's metadata
    under ``classes``, as JSON.

    Parameters
    ----------
    graph : Graph
    path : Path
    precision : {"float32", "float16", "int8"}
        Of the weights in the file; the runtime computes in float32.
    batch : int, optional
        A fixed number of images, for runtimes that ask for it. Default: any number.
    metadata : dict, optional
        More entries for the file's metadata.

    Raises
    ------
    rankwise.errors.MissingDependencyError
        If the onnx library isn't installed.
    """
    onnx = _library("onnx")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    quantised = quantise(graph, precision)
    model = _Writer(quantised).model(quantised.graph, batch)
    entries = {
        "classes": json.dumps(list(graph.classes)),
        "rankwise_version": __version__,
        "precision": precision,
        **(metadata or {}),
    }
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def run_onnx(path: Path, images: np.ndarray, *, block: int = 256) -> dict[str, np.ndarray]:
    """Outputs of an ONNX file for images, by onnxruntime on one thread.

    Parameters
    ----------
    path : Path
        Written by `write_onnx`.
    images : array of shape (n, *image_shape)
    block : int
        Images at a time where the file takes any number.

    Returns
    -------
    dict
        ``logits``, ``probabilities`` and ``label``.
    """
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    entry = session.get_inputs()[0]
    fixed = entry.shape[0]
    step = fixed if isinstance(fixed, int) else block
    dtype = np.uint8 if "uint8" in entry.type else np.float32
    parts = []
    for start in range(0, len(images), step):
        part = images[start : start + step].astype(dtype)
        missing = step - len(part) if isinstance(fixed, int) else 0
        padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), dtype)])
        parts.append([value[: len(part)] for value in session.run(None, {entry.name: padded})])
    names = [output.name for output in session.get_outputs()]
    return {n: np.concatenate(v) for n, v in zip(names, zip(*parts, strict=True), strict=True)}


def _library(name: str) -> Any:
    try:
        if name == "onnx":
            import onnx
            import onnx.checker
            import onnx.helper

            return onnx
        import onnxruntime

        return onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"the ONNX export needs the library {name}: pip install 'rankwise[onnx]'"
        ) from error


class _Writer:
    """Collects nodes and initialisers; each method gives the name of the value that it makes."""

    def __init__(self, quantised: Quantised) -> None:
        self._quantised = quantised
        self._nodes: list[Any] = []
        self._initialisers: list[Any] = []
        self._known: dict[int, str] = {}
        self._count = 0

    def model(self, graph: Graph, batch: int | None) -> Any:
        import onnx
        from onnx import TensorProto as Type
        from onnx import helper

        uint8 = graph.scale != 1.0
        n = "n" if batch is None else batch
        x = self.node("Cast", "image", to=Type.FLOAT) if uint8 else "image"
        if graph.scale != 1.0:
            x = self.node("Div", x, self.constant(np.float32(graph.scale)))
        logits = self.ops(graph.ops, x, graph.image_shape)
        self.node("Identity", logits, output="logits")
        self.probabilities(logits, graph)
        self.node("ArgMax", logits, output="label", axis=1, keepdims=0)
        image_type = Type.UINT8 if uint8 else Type.FLOAT
        n_classes = len(graph.classes)
        body = helper.make_graph(
            self._nodes,
            "rankwise",
            [helper.make_tensor_value_info("image", image_type, [n, *graph.image_shape])],
            [
                helper.make_tensor_value_info("logits", Type.FLOAT, [n, n_classes]),
                helper.make_tensor_value_info("probabilities", Type.FLOAT, [n, n_classes]),
                helper.make_tensor_value_info("label", Type.INT64, [n]),
            ],
            initializer=self._initialisers,
        )
        model: onnx.ModelProto = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rankwise"
        )
        model.ir_version = IR_VERSION
        return model

    # -- values -----------------------------------------------------------------------------

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or self._name(kind.lower())
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = self._name("c")
        # Not ascontiguousarray, which makes a scalar a vector.
        array = np.asarray(value, order="C")
        self._initialisers.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def weights(self, array: np.ndarray) -> str:
        """An array of the graph, as it is stored, then as float32.

        int8 is decoded by Cast and Mul: onnxruntime computes these once when it loads the file.
        DequantizeLinear it would compute for each batch, and so the rank-one forms' matrices.
        """
        from onnx import TensorProto as Type

        if id(array) not in self._known:
            encoded = self._quantised.of(array)
            name = self.constant(encoded.values)
            if encoded.values.dtype != np.float32:
                name = self.node("Cast", name, to=Type.FLOAT)
            if encoded.scales is not None:
                name = self.node("Mul", name, self.constant(encoded.scales))
            self._known[id(array)] = name
        return self._known[id(array)]

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count}"

    # -- operations ---------------------------------------------------------------------------

    def ops(self, ops: Sequence[Op], x: str, shape: tuple[int, ...]) -> str:
        for op in ops:
            x = self._op(op, x, shape)
            shape = output_shape((op,), shape)
        return x

    def _op(self, op: Op, x: str, shape: tuple[int, ...]) -> str:
        match op:
            case ToMaps():
                if len(shape) == 2:
                    return self.node("Unsqueeze", x, self.integers(1))
                return self.node("Transpose", x, perm=[0, 3, 1, 2])
            case Flatten():
                return self.node("Flatten", x, axis=1)
            case Square():
                return self.node("Mul", x, x)
            case Activate(name=name):
                return self._activate(name, x)
            case Convolve():
                return self._convolve(op, x, self.weights(op.weight), op.groups)
            case ConvolveForms():
                factors = (op.channel, op.row, op.column)
                return self._convolve(op, x, self._multiplied(factors, 2, rank_axis=1), 1)
            case Pool():
                kind = "AveragePool" if op.kind == "mean" else "MaxPool"
                size, stride = _numbers(op.size), _numbers(op.stride)
                return self.node(kind, x, kernel_shape=size, strides=stride)
            case Dense():
                return self.node("Gemm", x, self.weights(op.weight), self.weights(op.bias))
            case Affine():
                sides = (-1,) + (1,) * (len(shape) - 1)
                scale = self.constant(op.scale.astype(np.float32).reshape(sides))
                shift = self.constant(op.shift.astype(np.float32).reshape(sides))
                return self.node("Add", self.node("Mul", x, scale), shift)
            case RankOneForms():
                return self._forms(op, x)
            case Multiply():
                left, right = self.ops(op.left, x, shape), self.ops(op.right, x, shape)
                return self.node("Mul", left, right)
            case Add():
                left, right = self.ops(op.left, x, shape), self.ops(op.right, x, shape)
                return self.node("Add", left, right)
            case Concatenate(branches=branches):
                parts = [self.ops(branch, x, shape) for branch in branches]
                return self.node("Concat", *parts, axis=1)

    def _activate(self, name: str, x: str) -> str:
        if name == "identity":
            return x
        made: list[str] = []

        def of(value: str | int | float) -> str:
            if isinstance(value, str):
                return x
            return made[value] if isinstance(value, int) else self.constant(np.float32(value))

        for kind, *inputs in ACTIVATIONS[name].onnx:
            made.append(self.node(str(kind), *map(of, inputs)))
        return made[-1]

    def _forms(self, op: RankOneForms, x: str) -> str:
        n_units = len(op.bias)
        kernel = self._multiplied(op.factors, 2, rank_axis=0)
        matrix = self.node("Reshape", kernel, self.integers(n_units, -1))
        flat = self.node("Flatten", x, axis=1)
        return self.node("Gemm", flat, matrix, self.weights(op.bias), transB=1)

    def _convolve(self, op: Convolve | ConvolveForms, x: str, weight: str, groups: int) -> str:
        return self.node(
            "Conv",
            x,
            weight,
            self.weights(op.bias),
            strides=_numbers(op.stride),
            pads=2 * _numbers(op.padding),
            group=groups,
        )

    def _multiplied(self, factors: Sequence[np.ndarray], n_lead: int, *, rank_axis: int) -> str:
        """Factors ``(*lead, side)`` multiplied out and summed over the ranks.

        These nodes depend on no input: a runtime computes them when it loads the file.
        """
        product = ""
        for axis, factor in enumerate(factors):
            shape = [1] * len(factors)
            shape[axis] = factor.shape[-1]
            wanted = self.integers(*factor.shape[:n_lead], *shape)
            placed = self.node("Reshape", self.weights(factor), wanted)
            product = self.node("Mul", product, placed) if product else placed
        return self.node("ReduceSum", product, self.integers(rank_axis), keepdims=0)

    def probabilities(self, logits: str, graph: Graph) -> None:
        """`rankwise.networks.probabilities.probabilities` as nodes."""
        if graph.output == "softmax":
            self.node("Softmax", logits, output="probabilities", axis=1)
            return
        n_classes = self.constant(np.float32(len(graph.classes)))
        one = self.constant(np.float32(1.0))
        columns = self.integers(1)
        total = self.node("ReduceSum", logits, columns, keepdims=1)
        shift = self.node("Div", self.node("Sub", one, total), n_classes)
        v = self.node("Add", logits, shift)
        if graph.output == "sigmoid":
            positive = self.node("Sigmoid", v)
        else:
            smoothing = self.constant(np.float32(SMOOTHING**2))
            root = self.node("Sqrt", self.node("Add", self.node("Mul", v, v), smoothing))
            half = self.constant(np.float32(0.5))
            positive = self.node("Mul", self.node("Add", v, root), half)
        total = self.node("ReduceSum", positive, columns, keepdims=1)
        self.node("Div", positive, total, output="probabilities")


def _numbers(pair: Any) -> list[int]:
    return [int(value) for value in pair]
