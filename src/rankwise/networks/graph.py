"""A fitted network as a plain list of operations: what an export writes, with a slow reference.

Every network of the package says what it computes as a `Graph`: operations in order on one batch,
with their weights as arrays. The exports translate a graph to another language; `run` computes it
with numpy and is what they are compared with.

A value is either a batch of images as they come, ``(n, *image_shape)``, of maps ``(n, C, H, W)``,
or of features ``(n, d)``. `RankOneForms` takes images, `Convolve` and `Pool` take maps, `Dense`
takes features. `ToMaps` turns images into maps, `Flatten` maps or images into features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from rankwise.networks.operations import (
    GRAPH_ACTIVATIONS,
    Activate,
    Add,
    Affine,
    Concatenate,
    Convolve,
    ConvolveForms,
    Dense,
    Flatten,
    Multiply,
    Op,
    Pool,
    RankOneForms,
    Square,
    ToMaps,
    arrays_of,
    check_known,
    map_weights,
    output_shape,
    shape_after,
)
from rankwise.networks.probabilities import OUTPUTS

__all__ = [
    "GRAPH_ACTIVATIONS",
    "Activate",
    "Add",
    "Affine",
    "Concatenate",
    "Convolve",
    "ConvolveForms",
    "Dense",
    "Flatten",
    "Graph",
    "Multiply",
    "Op",
    "Pool",
    "RankOneForms",
    "Square",
    "ToMaps",
    "arrays_of",
    "map_weights",
    "output_shape",
    "run",
]

_BLOCK_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations in order, from pixels to logits.

    Parameters
    ----------
    image_shape : tuple of int
        ``(H, W)``, ``(H, W, C)`` or any tensor.
    ops : tuple of operations
        The last gives logits, features of shape ``(n, n_classes)``.
    classes : tuple of str
        Labels, in the order of the outputs.
    scale : float
        Pixels are divided by it first: 255 for a model fitted on uint8 images, else 1.
    output : {"sum-to-one", "sigmoid", "softmax"}
        How logits become probabilities; see `OUTPUTS`.

    Raises
    ------
    ValueError
        If an operation or an output is unknown, or doesn't fit what comes before it.
    """

    image_shape: tuple[int, ...]
    ops: tuple[Op, ...]
    classes: tuple[str, ...]
    scale: float = 1.0
    output: str = "sum-to-one"

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """What is refused when a graph is made; every export asks again before it writes."""
        check_known(self.ops)
        if self.output not in OUTPUTS:
            raise ValueError(f"unknown output {self.output!r}; accepted: {', '.join(OUTPUTS)}")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        last = output_shape(self.ops, self.image_shape)
        if last != (len(self.classes),):
            raise ValueError(
                f"the last operation gives shape {last} for {len(self.classes)} classes; "
                f"it must give ({len(self.classes)},)"
            )


def run(
    graph: Graph, images: Num[np.ndarray, "n ..."], *, dtype: str = "float64"
) -> Float[np.ndarray, "n K"]:
    """Logits of a batch, operation by operation, in blocks of images.

    Parameters
    ----------
    graph : Graph
    images : array of shape (n, *graph.image_shape)
        uint8 or floating point.
    dtype : str
        Of the computation.
    """
    if images.shape[1:] != graph.image_shape:
        raise ValueError(
            f"the graph takes images of shape {graph.image_shape}, got {images.shape[1:]}"
        )
    step = max(1, _BLOCK_BYTES // (8 * _widest(graph)))
    parts = [
        run_ops(graph.ops, images[i : i + step].astype(dtype) / np.asarray(graph.scale, dtype))
        for i in range(0, len(images), step)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(graph.classes)), dtype)


def run_ops(ops: Sequence[Op], x: np.ndarray) -> np.ndarray:
    """What operations make of a batch, one after the other, in its dtype.

    Parameters
    ----------
    ops : sequence of Op
    x : float array of shape (n, ...)
    """
    for op in ops:
        x = _apply(op, x)
    return x


def _apply(op: Op, x: np.ndarray) -> np.ndarray:
    match op:
        case ToMaps():
            return x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        case Flatten():
            return x.reshape(len(x), -1)
        case Square():
            return x * x
        case Activate(name=name):
            return GRAPH_ACTIVATIONS[name](x)
        case Convolve():
            return _convolve(op, x)
        case ConvolveForms():
            return _convolve(op.composed(), x)
        case Pool():
            windows = _windows(x, op.size, op.stride)
            return windows.mean(axis=(4, 5)) if op.kind == "mean" else windows.max(axis=(4, 5))
        case Dense():
            return x @ op.weight.astype(x.dtype) + op.bias.astype(x.dtype)
        case Affine():
            shape = (-1,) + (1,) * (x.ndim - 2)
            scale, shift = (a.astype(x.dtype).reshape(shape) for a in (op.scale, op.shift))
            return x * scale + shift
        case RankOneForms():
            return _forms(op, x)
        case Multiply():
            return run_ops(op.left, x) * run_ops(op.right, x)
        case Add():
            return run_ops(op.left, x) + run_ops(op.right, x)
        case Concatenate():
            return np.concatenate([run_ops(branch, x) for branch in op.branches], axis=1)


def _windows(x: np.ndarray, size: Any, stride: Any) -> np.ndarray:
    """Rectangles of maps, ``(n, C, rows, columns, *size)``."""
    views = np.lib.stride_tricks.sliding_window_view(x, size, axis=(2, 3))
    return views[:, :, :: stride[0], :: stride[1]]


def _convolve(op: Convolve, x: np.ndarray) -> np.ndarray:
    vertical, horizontal = op.padding  # type: ignore[misc]  # a pair since __post_init__
    x = np.pad(x, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)))
    windows = _windows(x, op.weight.shape[2:], op.stride)
    weights = np.split(op.weight.astype(x.dtype), op.groups)
    parts = [
        np.tensordot(part, weight, axes=((1, 4, 5), (1, 2, 3)))
        for part, weight in zip(np.split(windows, op.groups, axis=1), weights, strict=True)
    ]
    result = np.concatenate(parts, axis=-1) + op.bias.astype(x.dtype)
    return np.moveaxis(result, -1, 1)


def _forms(op: RankOneForms, x: np.ndarray) -> np.ndarray:
    """Contract the last axis first, then one axis after another, for each form of each unit."""
    *others, last = [factor.astype(x.dtype) for factor in op.factors]
    value = np.tensordot(x, last, axes=((x.ndim - 1,), (2,)))
    for factor in reversed(others):
        value = np.einsum("...sru,rus->...ru", value, factor)
    return value.sum(axis=1) + op.bias.astype(x.dtype)


def _widest(graph: Graph) -> int:
    """Numbers that one image needs where it needs most."""

    def walk(ops: Sequence[Op], shape: tuple[int, ...]) -> int:
        most = prod(shape)
        for op in ops:
            after = shape_after(op, shape)
            match op:
                case RankOneForms(factors=factors):
                    here = prod(shape[:-1]) * prod(factors[0].shape[:2])
                case Convolve(weight=weight):
                    here = prod(after[1:]) * prod(weight.shape[1:]) * op.groups
                case ConvolveForms(channel=channel, row=row, column=column):
                    patch = channel.shape[2] * row.shape[2] * column.shape[2]
                    here = prod(after[1:]) * patch
                case Multiply() | Add():
                    here = walk(op.left, shape) + walk(op.right, shape)
                case Concatenate(branches=branches):
                    here = sum(walk(branch, shape) for branch in branches)
                case _:
                    here = 0
            shape = after
            most = max(most, prod(shape), here)
        return most

    return walk(graph.ops, graph.image_shape)
