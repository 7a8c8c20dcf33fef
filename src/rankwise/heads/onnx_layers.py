"""A description of layers as an ONNX graph: batch norm folded, for onnxruntime and for exports.

Operator set 18. What has no counterpart here raises `NoCounterpartError`; then torch computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

OPSET = 18
IR_VERSION = 8

Shape = tuple[int, ...]


class NoCounterpartError(ValueError):
    """A layer that isn't written as ONNX; the message names it."""


@dataclass
class OnnxNodes:
    """Nodes and weights under way; a value is known by its name.

    Attributes
    ----------
    nodes, tensors : list
        Of onnx's `NodeProto` and `TensorProto`.
    """

    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    _made: int = 0

    def tensor(self, value: Any) -> str:
        """A constant; floats are float32."""
        from onnx import numpy_helper

        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        self._made += 1
        name = f"w{self._made}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, name: str | None = None, **options: Any) -> str:
        """One node; gives the name of its output."""
        from onnx import helper

        self._made += 1
        output = name or f"v{self._made}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **options))
        return output


def onnx_model(nodes: OnnxNodes, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """A checked `ModelProto` of those nodes.

    Raises
    ------
    NoCounterpartError
        If they don't fit each other: layers that ONNX takes otherwise than torch.
    """
    import onnx

    graph = onnx.helper.make_graph(
        nodes.nodes, "rankwise", list(inputs), list(outputs), nodes.tensors
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="rankwise",
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NoCounterpartError(f"the layers make no graph of ONNX: {reason}") from error
    return model


def write_steps(
    nodes: OnnxNodes, steps: Sequence[Mapping[str, Any]], network: nn.Module, images: str
) -> str:
    """Add the steps of `describe_layers`; gives the name of the last one's output.

    Parameters
    ----------
    nodes : OnnxNodes
    steps : list of dict
    network : nn.Module
        Where the weights are, under the names of the steps.
    images : str
        The value that goes in.

    Raises
    ------
    NoCounterpartError
    """
    used = [u for step in steps for u in _uses(step)]
    values: list[str] = [images]
    folded: set[int] = set()
    for at, step in enumerate(steps):
        if at in folded:
            values.append(values[-1])
            continue
        if "tensor" in step:
            values.append(nodes.tensor(_array(_weight(network, step["tensor"]))))
            continue
        if "layer" in step:
            layer = network.get_submodule(step["name"])
            after = steps[at + 1] if at + 1 < len(steps) else {}
            norm = None
            if (
                step["layer"] == "Conv2d"
                and after.get("layer") == "BatchNorm2d"
                and network.get_submodule(after["name"]).running_mean is not None
                and after["inputs"] == [{"step": at + 1}]
                and used.count(at + 1) == 1
            ):
                norm = network.get_submodule(after["name"])
                folded.add(at + 1)
            values.append(_layer(nodes, layer, norm, _value(step["inputs"][0], values)))
            continue
        values.append(_function(nodes, step, values))
    return values[-1]


def _layer(nodes: OnnxNodes, layer: nn.Module, norm: nn.Module | None, x: str) -> str:
    match layer:
        case nn.Conv2d() if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            weight = _array(layer.weight).astype(np.float64)
            bias = np.zeros(len(weight)) if layer.bias is None else _array(layer.bias)
            if norm is not None:
                scale, shift = _norm(norm)
                weight, bias = weight * scale[:, None, None, None], bias * scale + shift
            return nodes.add(
                "Conv", x, nodes.tensor(weight), nodes.tensor(bias),
                strides=_pair(layer.stride), pads=_pair(layer.padding) * 2,
                dilations=_pair(layer.dilation), group=layer.groups,
            )  # fmt: skip
        case nn.BatchNorm2d() if layer.running_mean is not None:
            scale, shift = _norm(layer)
            y = nodes.add("Mul", x, nodes.tensor(scale[:, None, None]))
            return nodes.add("Add", y, nodes.tensor(shift[:, None, None]))
        case nn.Linear():
            y = nodes.add("MatMul", x, nodes.tensor(_array(layer.weight).T))
            return y if layer.bias is None else nodes.add("Add", y, nodes.tensor(layer.bias))
        case nn.LayerNorm() if layer.weight is not None and layer.bias is not None:
            return nodes.add(
                "LayerNormalization", x, nodes.tensor(_array(layer.weight)),
                nodes.tensor(_array(layer.bias)), axis=-len(layer.normalized_shape),
                epsilon=layer.eps,
            )  # fmt: skip
        case nn.MaxPool2d() if not layer.ceil_mode and not layer.return_indices:
            return nodes.add(
                "MaxPool", x, kernel_shape=_pair(layer.kernel_size), strides=_pair(layer.stride),
                pads=_pair(layer.padding) * 2, dilations=_pair(layer.dilation),
            )  # fmt: skip
        case nn.AvgPool2d() if not layer.ceil_mode and layer.divisor_override is None:
            return nodes.add(
                "AveragePool", x, kernel_shape=_pair(layer.kernel_size),
                strides=_pair(layer.stride), pads=_pair(layer.padding) * 2,
                count_include_pad=int(layer.count_include_pad),
            )  # fmt: skip
        case nn.AdaptiveAvgPool2d() if _whole(layer.output_size):
            return nodes.add("GlobalAveragePool", x)
        case nn.AdaptiveMaxPool2d() if _whole(layer.output_size):
            return nodes.add("GlobalMaxPool", x)
        case nn.ZeroPad2d():
            return _padded(nodes, x, layer.padding)
        case nn.Flatten() if layer.end_dim == -1 and layer.start_dim == 1:
            return nodes.add("Flatten", x, axis=1)
        case nn.Dropout() | nn.Dropout2d() | nn.Identity():
            return x
    for kind, make in _ACTIVATIONS.items():
        if type(layer).__name__ == kind:
            return make(nodes, layer, x)
    raise NoCounterpartError(f"a layer {type(layer).__name__} has no counterpart in ONNX here")


def _function(nodes: OnnxNodes, step: Mapping[str, Any], values: list[str]) -> str:
    name, inputs, options = step["function"], step["inputs"], step["options"]
    if not inputs or not options.keys() <= _NAMED.get(name, options.keys()):
        named = ", ".join(options)
        raise NoCounterpartError(
            f"{name} with its arguments named ({named}) has no counterpart in ONNX here"
        )

    def operand(value: Any) -> str:
        if isinstance(value, dict):
            return _value(value, values)
        return nodes.tensor(np.float32(value))

    if name in _BINARY and not options:
        return nodes.add(_BINARY[name], operand(inputs[0]), operand(inputs[1]))
    x = _value(inputs[0], values) if isinstance(inputs[0], dict) else ""
    if name in _PLAIN and not options:
        return _PLAIN[name](nodes, None, x)
    match name:
        case "cat":
            parts = [_value(v, values) for v in inputs[0]]
            axis = options.get("dim", inputs[1] if len(inputs) > 1 else 0)
            return nodes.add("Concat", *parts, axis=int(axis))
        case "flatten" if (inputs[1:], options) in (([1], {}), ([], {"start_dim": 1})):
            return nodes.add("Flatten", x, axis=1)
        case "mean":
            dims = options.get("dim", inputs[1] if len(inputs) > 1 else None)
            keep = options.get("keepdim", inputs[2] if len(inputs) > 2 else False)
            if dims is not None:
                dims = dims if isinstance(dims, list) else [dims]
                axes = nodes.tensor(np.array(dims, dtype=np.int64))
                return nodes.add("ReduceMean", x, axes, keepdims=int(keep))
        case "adaptive_avg_pool2d" if _whole(options.get("output_size", inputs[-1])):
            return nodes.add("GlobalAveragePool", x)
        case "permute" if len(inputs) == 2:
            return nodes.add("Transpose", x, perm=[int(i) for i in inputs[1]])
        case "dropout":
            return x
    raise NoCounterpartError(f"{name} has no counterpart in ONNX here")


_NAMED: dict[str, set[str]] = {
    "cat": {"dim"},
    "mean": {"dim", "keepdim"},
    "permute": set(),
    "adaptive_avg_pool2d": {"output_size"},
}
"""Arguments that a call may name; torch knows some by other names too, such as `axis`."""
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "matmul": "MatMul"}


def _clipped(nodes: OnnxNodes, x: str, low: float, high: float) -> str:
    return nodes.add("Clip", x, nodes.tensor(np.float32(low)), nodes.tensor(np.float32(high)))


def _gelu(nodes: OnnxNodes, layer: Any, x: str) -> str:
    if getattr(layer, "approximate", "none") != "none":
        raise NoCounterpartError("an approximate GELU has no counterpart in ONNX here")
    inner = nodes.add("Erf", nodes.add("Mul", x, nodes.tensor(np.float32(2**-0.5))))
    half = nodes.add("Mul", x, nodes.tensor(np.float32(0.5)))
    return nodes.add("Mul", half, nodes.add("Add", inner, nodes.tensor(np.float32(1.0))))


_PLAIN: dict[str, Callable[[OnnxNodes, Any, str], str]] = {
    "relu": lambda nodes, _, x: nodes.add("Relu", x),
    "relu6": lambda nodes, _, x: _clipped(nodes, x, 0.0, 6.0),
    "silu": lambda nodes, _, x: nodes.add("Mul", x, nodes.add("Sigmoid", x)),
    "gelu": _gelu,
    "sigmoid": lambda nodes, _, x: nodes.add("Sigmoid", x),
    "tanh": lambda nodes, _, x: nodes.add("Tanh", x),
    "hardswish": lambda nodes, _, x: nodes.add("HardSwish", x),
    "hardsigmoid": lambda nodes, _, x: nodes.add("HardSigmoid", x, alpha=1 / 6, beta=0.5),
}
_ACTIVATIONS: dict[str, Callable[[OnnxNodes, Any, str], str]] = {
    "ReLU": _PLAIN["relu"],
    "ReLU6": _PLAIN["relu6"],
    "SiLU": _PLAIN["silu"],
    "GELU": _gelu,
    "Sigmoid": _PLAIN["sigmoid"],
    "Tanh": _PLAIN["tanh"],
    "Hardswish": _PLAIN["hardswish"],
    "Hardsigmoid": _PLAIN["hardsigmoid"],
    "LeakyReLU": lambda nodes, layer, x: nodes.add("LeakyRelu", x, alpha=layer.negative_slope),
    "ELU": lambda nodes, layer, x: nodes.add("Elu", x, alpha=layer.alpha),
    "Softplus": lambda nodes, layer, x: _softplus(nodes, layer, x),
}


def _softplus(nodes: OnnxNodes, layer: Any, x: str) -> str:
    if layer.beta != 1:
        raise NoCounterpartError("a Softplus of another beta has no counterpart in ONNX here")
    return nodes.add("Softplus", x)


def _padded(nodes: OnnxNodes, x: str, padding: Sequence[int]) -> str:
    left, right, top, bottom = (int(p) for p in padding)
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
    return nodes.add("Pad", x, nodes.tensor(pads))


def _norm(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm at prediction as a factor and a shift, float64."""
    mean, variance = (_array(v).astype(np.float64) for v in (layer.running_mean, layer.running_var))
    scale = 1.0 / np.sqrt(variance + layer.eps)
    if layer.weight is not None:
        scale = scale * _array(layer.weight)
    shift = -mean * scale
    return scale, shift if layer.bias is None else shift + _array(layer.bias)


def _uses(step: Mapping[str, Any]) -> list[int]:
    found: list[int] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.append(int(value["step"]))
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(step.get("inputs", []))
    walk(list(step.get("options", {}).values()) if "function" in step else [])
    return found


def _value(reference: Mapping[str, int], values: list[str]) -> str:
    return values[reference["step"]]


def _weight(network: Any, name: str) -> torch.Tensor:
    for part in name.split("."):
        network = getattr(network, part)
    return network


def _whole(size: Any) -> bool:
    """Whether an adaptive pooling gives one value a map."""
    return size in (1, (1, 1), [1, 1], [1], (1,))


def _pair(value: Any) -> list[int]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return [int(first), int(second)]


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()
