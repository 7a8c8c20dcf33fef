"""A backbone and its head as a `Graph`, so that ``rankwise export`` writes them.

Layers with a counterpart among the graph's operations are translated one by one; batch norm becomes
an `Affine`, a residual sum a 1×1 convolution of both branches side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rankwise.heads.backbones import Backbone, Residual, SmallResNet
from rankwise.heads.missing import missing_backbone
from rankwise.nets.layers import ResidualBlock
from rankwise.nets.simple_cnn import SimpleCNN
from rankwise.networks.graph import (
    Activate,
    Affine,
    Concatenate,
    Convolve,
    Dense,
    Flatten,
    Graph,
    Op,
    Pool,
    ToMaps,
    output_shape,
)


def graph_of_head(head: Any) -> Graph:
    """The graph of a fitted head with its backbone, from pixels to logits of a softmax.

    Raises
    ------
    ValueError
        If the head has no backbone, was fitted on no image arrays, or the backbone holds a layer
        without counterpart.
    """
    backbone = head._backbone()
    shape = getattr(head, "image_shape_", None)
    if backbone is None or shape is None:
        lacks = missing_backbone(head) or "the head was fitted on features, not on images"
        raise ValueError(f"nothing can be exported: {lacks}")
    channels = 1 if len(shape) == 2 else shape[2]
    ops: list[Op] = [ToMaps()]
    if backbone.channels not in (None, channels):
        ops.append(Convolve(np.ones((backbone.channels, 1, 1, 1)), np.zeros(backbone.channels)))
        channels = backbone.channels
    # Pixels come divided by 255; networks take [-1, 1].
    shift, scale = np.full(channels, -1.0), np.full(channels, 2.0)
    preparation = backbone.preparation
    if preparation.matrices(*shape[:2]) is not None:
        raise ValueError(
            f"backbone {backbone.name} resizes its images, which only the format onnx does"
        )
    if preparation.power != 1.0:
        raise ValueError(
            f"backbone {backbone.name} takes a power of its features, which only the format onnx "
            "does"
        )
    if preparation.mean is not None and preparation.std is not None:
        mean, std = (np.broadcast_to(v, channels) for v in (preparation.mean, preparation.std))
        shift, scale = -mean / std, 1.0 / std
    ops.append(Affine(scale, shift))
    ops += _network(backbone, output_shape(tuple(ops), tuple(shape)))
    solved = head._solution()
    ops.append(Dense(solved.coef.T / solved.temperature, solved.intercept / solved.temperature))
    classes = tuple(str(c) for c in head.classes_)
    return Graph(tuple(shape), tuple(ops), classes, scale=255.0, output="softmax")


def _network(backbone: Backbone, shape: tuple[int, ...]) -> list[Op]:
    """Operations from scaled maps of a shape (C, H, W) to features."""
    network = backbone.network
    if type(network) is SmallResNet:
        ops = _layer(network.stages)
        return [*ops, Pool("mean", _sides(output_shape(ops, shape))), Flatten()]
    if type(network) is SimpleCNN:
        parts = (network.conv1, network.pool1, network.conv2, network.pool2, network.conv3)
        return [op for part in parts for op in _layer(part)] + [Flatten()]
    ops = _layer(network)
    after = output_shape(ops, shape)
    if len(after) == 3:
        return [*ops, Pool("mean", _sides(after)), Flatten()]
    return ops


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[1], shape[2]


def _layer(layer: nn.Module) -> list[Op]:
    """The operations of one module of torch.

    A class that inherits from one of these may compute something else: a batch norm of timm's has
    an activation behind it. A hook may, too.
    """
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise _without_counterpart(f"{type(layer).__name__} that has hooks")
    if type(layer) not in _TRANSLATED and type(layer).forward is not nn.Sequential.forward:
        raise _without_counterpart(type(layer).__name__)
    match layer:
        case Residual():
            inner = [*_layer(layer.first), *_layer(layer.second), *_layer(layer.norm)]
            return _residual(inner, (), layer.second.out_channels)
        case ResidualBlock():
            inner = [*_layer(layer.conv1), *_layer(layer.norm1), Activate("relu")]
            inner += [*_layer(layer.conv2), *_layer(layer.norm2)]
            return _residual(inner, _layer(layer.shortcut), layer.conv2.out_channels)
        case nn.Sequential():
            return [op for part in layer for op in _layer(part)]
        case nn.Conv2d() if (
            layer.padding_mode == "zeros"
            and layer.dilation == (1, 1)
            and not isinstance(layer.padding, str)
        ):
            bias = np.zeros(layer.out_channels) if layer.bias is None else _array(layer.bias)
            stride, padding = (_pair(v) for v in (layer.stride, layer.padding))
            return [Convolve(_array(layer.weight), bias, stride, padding, layer.groups)]
        case nn.BatchNorm2d() if layer.running_mean is not None and layer.weight is not None:
            scale = _array(layer.weight) / np.sqrt(_array(layer.running_var) + layer.eps)
            return [Affine(scale, _array(layer.bias) - scale * _array(layer.running_mean))]
        case nn.ReLU():
            return [Activate("relu")]
        case nn.MaxPool2d() if (
            layer.padding in (0, (0, 0))
            and layer.dilation in (1, (1, 1))
            and not (layer.ceil_mode or layer.return_indices)
        ):
            return [Pool("max", layer.kernel_size, layer.stride)]
        case nn.Linear():
            bias = np.zeros(layer.out_features) if layer.bias is None else _array(layer.bias)
            return [Dense(_array(layer.weight).T, bias)]
        case nn.Flatten() if (layer.start_dim, layer.end_dim) == (1, -1):
            return [Flatten()]
        case nn.Dropout() | nn.Identity():
            return []
    raise _without_counterpart(type(layer).__name__)


def _without_counterpart(layer: str) -> ValueError:
    return ValueError(
        f"a backbone with a layer {layer} can't be exported as a graph; attach() gives one "
        "nn.Module, for torch's own exports"
    )


_TRANSLATED = frozenset(
    (
        Residual,
        ResidualBlock,
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.MaxPool2d,
        nn.Linear,
        nn.Flatten,
        nn.Dropout,
        nn.Identity,
    )
)


def _residual(inner: Sequence[Op], shortcut: Sequence[Op], channels: int) -> list[Op]:
    """``relu(f(x) + g(x))``; an empty `shortcut` hands its input on."""
    both = np.concatenate([np.eye(channels)] * 2, axis=1)[:, :, None, None]
    sides = Concatenate((tuple(shortcut), tuple(inner)))
    return [sides, Convolve(both, np.zeros(channels)), Activate("relu")]


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _array(tensor: torch.Tensor | Any) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)
