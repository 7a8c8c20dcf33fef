"""A graph of convolutions as torch calls: one way to predict for our units and for a plain CNN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from rankwise.networks.convolutional import as_maps, channels_last
from rankwise.networks.graph import (
    Activate,
    Add,
    Affine,
    Convolve,
    ConvolveForms,
    Dense,
    Flatten,
    Graph,
    Pool,
    ToMaps,
)
from rankwise.networks.sliding import mixes_first, slid
from rankwise.units.activations import ACTIVATIONS

Step = Callable[[torch.Tensor], torch.Tensor]


class GraphRunner:
    """Labels of uint8 images by a graph, forms in the cheaper of two ways.

    Parameters
    ----------
    graph : Graph
        Of a convolutional network, with pixels divided by 255.
    """

    def __init__(self, graph: Graph) -> None:
        self.steps = [step_of(op) for op in graph.ops]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Numbers of the classes."""
        found = []
        with torch.no_grad():
            for i in range(0, len(images), 500):
                x = as_maps(images[i : i + 500])
                for step in self.steps:
                    x = step(x)
                found.append(x.argmax(dim=1))
        return torch.cat(found).numpy()


def through(steps: list[Step], x: torch.Tensor) -> torch.Tensor:
    """One step after the other."""
    for step in steps:
        x = step(x)
    return x


def step_of(op: object) -> Step:
    """One operation; `ToMaps` makes them channels-last, as convolutions on a CPU like them."""
    match op:
        case ToMaps():
            return channels_last
        case Affine():
            factor, shift = (_tensor(a)[:, None, None] for a in (op.scale, op.shift))
            return lambda x: x * factor + shift
        case ConvolveForms(channel=channel, row=row, column=column):
            sides = (row.shape[2], column.shape[2])
            if not mixes_first(channel.shape[2], channel.shape[1], sides, "float32"):
                return step_of(op.composed())
            vectors = [_tensor(a) for a in (channel, row, column, op.bias)]
            return lambda x: slid(x, *vectors, padding=op.padding, mixed=True)
        case Convolve():
            weight, bias = _tensor(op.weight), _tensor(op.bias)
            weight = weight.contiguous(memory_format=torch.channels_last)
            return lambda x: F.conv2d(x, weight, bias, op.stride, op.padding, 1, op.groups)
        case Add():
            left, right = ([step_of(o) for o in branch] for branch in (op.left, op.right))
            return lambda x: through(left, x) + through(right, x)
        case Pool(kind="max"):
            return lambda x: F.max_pool2d(x, op.size)
        case Pool():
            return lambda x: F.avg_pool2d(x, op.size)
        case Activate():
            return ACTIVATIONS[op.name].value
        case Flatten():
            return lambda x: x.flatten(1)
        case Dense():
            matrix, offset = _tensor(op.weight), _tensor(op.bias)
            return lambda x: x @ matrix + offset
    raise TypeError(f"no step for {type(op).__name__}")


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
