"""Any network made of torch's own layers as a list of steps: written down, and built again.

`torch.fx` follows a network once and gives its layers and functions in order. What is kept of a
layer is its class in `torch.nn` and its arguments, of a function its name; both from the tables
below, so reading a description builds layers and runs nothing else. `LayerNetwork` computes the
steps one after another.
"""

from __future__ import annotations

import inspect
import operator
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

# fmt: off
LAYERS = frozenset(
    (
        "Conv1d", "Conv2d", "Linear", "BatchNorm1d", "BatchNorm2d", "LayerNorm", "GroupNorm",
        "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "SiLU", "GELU", "Mish",
        "Softplus", "Sigmoid", "Tanh", "Hardswish", "Hardsigmoid", "Hardtanh", "Softmax",
        "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Flatten",
        "Unflatten", "ZeroPad2d", "ReflectionPad2d", "ReplicationPad2d", "ConstantPad2d",
        "Upsample", "PixelShuffle", "Dropout", "Dropout2d", "Identity",
    )
)
# fmt: on
"""Classes of `torch.nn` that a description may name."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "matmul": torch.matmul,
    "cat": torch.cat,
    "chunk": torch.chunk,
    "item": operator.getitem,
    "flatten": torch.flatten,
    "reshape": torch.reshape,
    "permute": torch.permute,
    "transpose": torch.transpose,
    "mean": torch.mean,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": F.softmax,
    "max_pool2d": F.max_pool2d,
    "avg_pool2d": F.avg_pool2d,
    "adaptive_avg_pool2d": F.adaptive_avg_pool2d,
    "layer_norm": F.layer_norm,
    "dropout": F.dropout,
    "pad": F.pad,
}
"""Functions that a description may name."""

_SAME: dict[Any, str] = {
    operator.add: "add",
    operator.iadd: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.imul: "mul",
    operator.truediv: "div",
    operator.matmul: "matmul",
    torch.relu: "relu",
    torch.relu_: "relu",
    torch.concat: "cat",
    torch.softmax: "softmax",
    F.sigmoid: "sigmoid",
    F.tanh: "tanh",
    **{function: name for name, function in FUNCTIONS.items()},
}
_IN_PLACE = (operator.iadd, operator.imul, torch.relu_)
_METHODS = frozenset(
    (
        "add",
        "sub",
        "mul",
        "div",
        "matmul",
        "chunk",
        "flatten",
        "reshape",
        "permute",
        "transpose",
        "mean",
        "relu",
        "sigmoid",
        "tanh",
    )
)
_NO_STEP = frozenset(["contiguous"])


class NotAGraphError(ValueError):
    """A network that isn't a fixed graph of torch's own layers; the message says where."""


class LayerNetwork(nn.Module):
    """The network that a description says, with weights drawn from torch's generator.

    Parameters
    ----------
    steps : list of dict
        As `describe_layers` gives them.

    Raises
    ------
    ValueError, TypeError, KeyError
        If that is no description.
    """

    channels_last = True

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        super().__init__()
        self.steps = [_checked(step, at) for at, step in enumerate(steps)]
        if not self.steps:
            raise ValueError("a network of no step")
        for step in self.steps:
            if "layer" in step:
                _place(self, step["name"], step)
        for step in self.steps:  # a layer's own weight may be used by itself as well
            if "tensor" in step:
                tensor = torch.zeros([int(n) for n in step["shape"]])
                _place_tensor(self, step["tensor"], tensor)

    def forward(self, x: torch.Tensor) -> Any:
        """What the last step gives for a batch."""
        values: list[Any] = [x]
        for step in self.steps:
            if "tensor" in step:
                values.append(_get(self, step["tensor"]))
                continue
            arguments = _filled(step["inputs"], values)
            if "layer" in step:
                values.append(self.get_submodule(step["name"])(*arguments))
                continue
            function = FUNCTIONS[step["function"]]
            options = {k: _filled(v, values) for k, v in step["options"].items()}
            if step["function"] == "dropout":
                options["training"] = self.training
            values.append(function(*arguments, **options))
        return values[-1]


class _Tracer(fx.Tracer):
    """Goes through every container, also one that a forward makes, such as ``self.layers[:-1]``.

    While it traces, all modules of the process are called through it: those that another thread
    calls go on as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if isinstance(m, nn.Sequential) or threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


_TRACING = threading.RLock()
"""Two traces at once would put `nn.Module` back in the wrong order."""


def describe_layers(network: nn.Module) -> list[dict[str, Any]]:
    """The steps of a network, in order.

    A step is ``{"layer": class, "name": of its weights, "options", "inputs"}``, ``{"function",
    "inputs", "options"}`` or ``{"tensor": name, "shape"}`` (a weight used by itself). An input
    ``{"step": i}`` is what step ``i − 1`` gave; ``{"step": 0}`` are the images.

    Raises
    ------
    NotAGraphError
        If a layer or function isn't among `LAYERS` and `FUNCTIONS`, the path through the network
        depends on the images, something is used again after a step changed it in place, or a layer
        has hooks, which no description holds.
    """
    for name, layer in network.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise NotAGraphError(f"layer {name or type(layer).__name__} has hooks")
    try:
        with _TRACING:
            traced = fx.GraphModule(network, _Tracer().trace(network))
    except Exception as error:  # whatever somebody's own forward raises on a stand-in
        raise NotAGraphError(
            f"{type(network).__name__} can't be followed layer by layer: "
            f"{(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    steps: list[dict[str, Any]] = []
    known: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            found = known.get(node.args[0])
            if found is None:
                raise NotAGraphError(f"{type(network).__name__} gives more than one tensor")
            if found["step"] != len(steps):  # steps after the last that counts
                steps = steps[: found["step"]]
            break
        if node.op == "placeholder":
            if known:
                if node.args:  # it has a default, and keeps it
                    continue
                raise NotAGraphError(f"{type(network).__name__} takes more than images")
            known[node] = {"step": 0}
            continue
        if node.op == "call_method" and node.target in _NO_STEP:
            known[node] = known[node.args[0]]
            continue
        _refuse_changed(node, traced)
        steps.append(_step(node, traced, known))
        known[node] = {"step": len(steps)}
    if not steps:
        raise NotAGraphError(f"{type(network).__name__} does nothing with its images")
    return steps


def _step(node: fx.Node, traced: fx.GraphModule, known: dict[fx.Node, Any]) -> dict[str, Any]:
    inputs = _named(list(node.args), known)
    options = {k: _named(v, known) for k, v in node.kwargs.items()}
    if node.op == "call_module":
        layer = traced.get_submodule(str(node.target))
        name = type(layer).__name__
        if type(layer) is not getattr(nn, name, None) or name not in LAYERS:
            raise NotAGraphError(f"layer {node.target} is a {name}, which isn't one of torch's own")
        inputs = [*inputs, *options.values()]  # `input`, whether it is named in the call or not
        if len(inputs) != 1:
            raise NotAGraphError(
                f"layer {node.target} is called with {len(inputs)} inputs, not one"
            )
        return {
            "layer": name,
            "name": str(node.target),
            "options": _options(layer, str(node.target)),
            "inputs": inputs,
        }
    if node.op == "get_attr":
        tensor = _get(traced, str(node.target))
        if not isinstance(tensor, torch.Tensor):
            raise NotAGraphError(f"it uses {node.target}, which is no tensor")
        return {"tensor": str(node.target), "shape": list(tensor.shape)}
    if node.op == "call_method":
        method = str(node.target)
        method = "reshape" if method == "view" else method.removesuffix("_")
        if method in _METHODS:
            if method in ("reshape", "permute"):
                if len(inputs) < 2:
                    raise NotAGraphError(f"it calls {node.target} with its argument's name")
                if not isinstance(inputs[1], list):
                    inputs = [inputs[0], inputs[1:]]
            return {"function": method, "inputs": inputs, "options": options}
    elif node.target in _SAME:
        options.pop("inplace", None)
        return {"function": _SAME[node.target], "inputs": inputs, "options": options}
    name = getattr(node.target, "__name__", str(node.target))
    raise NotAGraphError(f"it calls {name}, which has no place in a description")


def _refuse_changed(node: fx.Node, traced: fx.GraphModule) -> None:
    """Refuse a step in place whose input a later one takes: steps of a description make it anew."""
    target = node.target
    if node.op == "call_module":
        in_place = getattr(traced.get_submodule(str(target)), "inplace", False)
    elif node.op == "call_method":
        in_place = str(target).endswith("_")
    else:
        in_place = target in _IN_PLACE or node.kwargs.get("inplace", False)
    if not in_place:
        return
    changed = node.args[0] if node.args else node.kwargs.get("input")
    later = node.next
    while later.op != "root":
        if changed in later.all_input_nodes:
            raise NotAGraphError(f"{node.name} changes in place what {later.name} takes after it")
        later = later.next


def _named(value: Any, known: dict[fx.Node, Any]) -> Any:
    """An argument with nodes replaced by their steps, as JSON holds it."""
    if isinstance(value, fx.Node):
        return known[value]
    if isinstance(value, (list, tuple)):
        return [_named(v, known) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise NotAGraphError(f"an argument {value!r} can't be written down")


def _filled(value: Any, values: list[Any]) -> Any:
    """The reverse of `_named`, with what the steps gave."""
    if isinstance(value, dict):
        return values[int(value["step"])]
    if isinstance(value, list):
        return [_filled(v, values) for v in value]
    return value


def _options(layer: nn.Module, name: str) -> dict[str, Any]:
    """The arguments that make a layer again, of those that its class takes."""
    found: dict[str, Any] = {}
    for key in inspect.signature(type(layer)).parameters:
        if key in ("device", "dtype", "inplace"):
            continue
        if key == "bias":
            found[key] = getattr(layer, "bias", None) is not None
            continue
        value = getattr(layer, key, None)
        if isinstance(value, (tuple, torch.Size)):
            value = list(value)
        plain = value is None or isinstance(value, (bool, int, float, str, list))
        if not plain:
            raise NotAGraphError(f"layer {name}: {key}={value!r} can't be written down")
        found[key] = value
    return found


def _checked(step: Any, at: int) -> dict[str, Any]:
    """A step as read from a file: of a known kind, looking backwards only."""
    if not isinstance(step, dict):
        raise ValueError(f"step {at} is no object")
    if "tensor" in step:
        if not isinstance(step["tensor"], str) or not isinstance(step["shape"], list):
            raise ValueError(f"step {at} names no tensor")
        return step
    if "layer" in step and step["layer"] not in LAYERS:
        raise ValueError(f"step {at} is a layer {step['layer']!r}, which isn't one of torch's own")
    if "layer" not in step and step["function"] not in FUNCTIONS:
        raise ValueError(f"step {at} calls {step['function']!r}, which has no place here")
    if not isinstance(step["inputs"], list) or not isinstance(step["options"], dict):
        raise ValueError(f"step {at} has no inputs or no options")
    if "layer" in step and len(step["inputs"]) != 1:
        raise ValueError(f"step {at} is a layer of {len(step['inputs'])} inputs, not one")
    for used in uses([step["inputs"], list(step["options"].values())]):
        if not 0 <= used <= at:
            raise ValueError(f"step {at} takes what step {used - 1} gives, which comes later")
    return step


def uses(value: Any) -> list[int]:
    """Numbers of the values that a step's inputs name: 0 of the images, i of step i − 1."""
    if isinstance(value, dict):
        return [int(value["step"])]
    return [u for v in value for u in uses(v)] if isinstance(value, list) else []


def _place(root: nn.Module, name: str, step: dict[str, Any]) -> None:
    """Put a step's layer under its dotted name, unless it is there: a layer may be used twice."""
    *parents, last = name.split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if last not in dict(root.named_children()):
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in step["options"].items()}
        root.add_module(last, getattr(nn, step["layer"])(**options))


def _place_tensor(root: nn.Module, name: str, tensor: torch.Tensor) -> None:
    *parents, last = name.split(".")
    for part in parents:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if not isinstance(getattr(root, last, None), torch.Tensor):
        root.register_buffer(last, tensor)


def take_weights(part: LayerNetwork, whole: nn.Module) -> None:
    """Copy the weights of the network that a description, or a part of one, is of."""
    with torch.no_grad():
        for name, tensor in part.state_dict().items():
            tensor.copy_(_get(whole, name))


def _get(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part)
    return root
