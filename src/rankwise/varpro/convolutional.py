"""Convolutional units: one multilinear form slid over the image, then pooled.

A bilinear unit sees the whole image, ``uᵀXv + b``. The same form slid over all patches ``P`` of
``X`` gives a map, ``q(y, x) = uᵀP(y, x)v + b``; with several maps below it, and rank ``r``,

    q_o(y, x) = Σ_ρ Σ_c  a_oρc · u_oρᵀ P_c(y, x) v_oρ + b_o

with one vector an axis (channel, row, column), as the multilinear units of the paper's section 7
have. The largest ``q`` of each pooling rectangle passes the activation. Layers stack; the last
layer's maps are averaged over a grid, and these features meet a linear output layer.

The filters ``W_o = Σ_ρ a_oρ ⊗ u_oρ ⊗ v_oρ`` are composed first (`compose`) and slid as one dense
convolution: exact, and faster on a CPU than sliding the vectors one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from rankwise.varpro.activations import ACTIVATIONS
from rankwise.varpro.gram import Features
from rankwise.varpro.network import normalise, outputs_in_blocks
from rankwise.varpro.rows import Images
from rankwise.varpro.subnetworks import as_float

if TYPE_CHECKING:
    from rankwise.varpro.graph import Graph

_BLOCK = 256


@dataclass(frozen=True)
class Layer:
    """One layer of convolutional units, as asked for.

    Parameters
    ----------
    maps : int
        Units, one map each.
    side : int
        Rows and columns of a patch, odd.
    rank : int
        Rank-one forms summed in a unit.
    pool : int
        Rows and columns of the rectangles whose largest value is kept; 1 for none.
    """

    maps: int
    side: int = 3
    rank: int = 2
    pool: int = 1

    def __post_init__(self) -> None:
        for name in ("maps", "side", "rank", "pool"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a layer must be at least 1, got {getattr(self, name)}")
        if self.side % 2 == 0:
            raise ValueError(f"side of a layer must be odd, got {self.side}")


@dataclass(frozen=True)
class Stage:
    """A layer on maps of a known size: the patch never exceeds an axis of length 1.

    Attributes
    ----------
    channels, maps, rank : int
    sides, pool, size : (int, int)
        Of a patch, of a pooling rectangle, and of the maps that come in.
    """

    channels: int
    maps: int
    rank: int
    sides: tuple[int, int]
    pool: tuple[int, int]
    size: tuple[int, int]

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros around the maps, so that there is one value a place."""
        return self.sides[0] // 2, self.sides[1] // 2

    @property
    def out(self) -> tuple[int, int]:
        """Size of the maps that go out."""
        return self.size[0] // self.pool[0], self.size[1] // self.pool[1]

    @property
    def n_parameters(self) -> int:
        """``maps · (r·(channels + rows + columns) + 1)``."""
        return self.maps * (self.rank * (self.channels + sum(self.sides)) + 1)


@dataclass(frozen=True)
class ConvolutionalUnits:
    """A stack of layers for images of one shape.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` or ``(H, W, C)``.
    layers : tuple of Layer
    shrink : int
        Images are averaged over squares of this side first.
    grid : int
        Each last map is averaged over ``grid × grid`` rectangles.
    activation : str
        One of `ACTIVATIONS`.

    Raises
    ------
    ValueError
        If the shape isn't that of an image, or a layer or the activation isn't accepted.
    """

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    shrink: int = 1
    grid: int = 1
    activation: str = "relu"

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3):
            raise ValueError(
                "convolutional units need images (height, width) or (height, width, channels), "
                f"got shape {self.shape}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}; accepted: {', '.join(ACTIVATIONS)}"
            )
        if not self.layers:
            raise ValueError("convolutional units need at least one layer, got none")
        if self.shrink < 1 or min(self.shape[:2]) < self.shrink:
            raise ValueError(
                f"shrink must be between 1 and the shorter side {min(self.shape[:2])}, "
                f"got {self.shrink}"
            )

    @property
    def channels(self) -> int:
        """Of the image: 1 where it is grey."""
        return self.shape[2] if len(self.shape) == 3 else 1

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The layers, on the sizes that this shape of image brings about."""
        found, channels = [], self.channels
        size = (self.shape[0] // self.shrink, self.shape[1] // self.shrink)
        for layer in self.layers:
            sides = tuple(layer.side if length > 1 else 1 for length in size)
            pool = tuple(layer.pool if length >= layer.pool else 1 for length in size)
            stage = Stage(channels, layer.maps, layer.rank, sides, pool, size)  # type: ignore[arg-type]  # pairs
            found.append(stage)
            channels, size = stage.maps, stage.out
        return tuple(found)

    @property
    def cell(self) -> tuple[int, int]:
        """Rows and columns of a rectangle of the grid."""
        rows, columns = self.stages[-1].out
        return max(1, rows // self.grid), max(1, columns // self.grid)

    @property
    def n_features(self) -> int:
        """Inputs of the output layer, the constant excluded."""
        rows, columns = self.stages[-1].out
        return self.stages[-1].maps * (rows // self.cell[0]) * (columns // self.cell[1])

    @property
    def n_units(self) -> int:
        """Units of all layers."""
        return sum(stage.maps for stage in self.stages)

    @property
    def n_parameters(self) -> int:
        """Of all units, with the centre and the scale of the image's channels."""
        return sum(stage.n_parameters for stage in self.stages) + 2 * self.channels


@dataclass(frozen=True)
class LayerWeights:
    """The fitted vectors of one layer.

    Attributes
    ----------
    channel : float32 array of shape (maps, r, channels)
    row, column : float32 arrays of shape (maps, r, sides[0]) and (maps, r, sides[1])
    bias : float32 array of shape (maps,)
    """

    channel: np.ndarray
    row: np.ndarray
    column: np.ndarray
    bias: np.ndarray


def compose(channel: Any, row: Any, column: Any) -> Any:
    """Filters ``W_ocyx = Σ_ρ a_oρc·u_oρy·v_oρx`` of shape (maps, channels, rows, columns).

    Parameters
    ----------
    channel, row, column : arrays or tensors of shape (maps, r, length of the axis)
    """
    maps, _, channels = channel.shape
    rows, columns = row.shape[-1], column.shape[-1]
    patch = row[:, :, :, None] * column[:, :, None, :]
    flat = channel.swapaxes(1, 2) @ patch.reshape(maps, -1, rows * columns)
    return flat.reshape(maps, channels, rows, columns)


def as_maps(images: np.ndarray, dtype: str = "float32") -> Any:
    """Images ``(n, H, W[, C])`` as a tensor of maps ``(n, C, H, W)``; uint8 is divided by 255."""
    import torch

    values = torch.from_numpy(np.ascontiguousarray(as_float(images, dtype)))
    if values.ndim == 3:
        return values[:, None]
    # The view is the layout that convolutions on a CPU like best.
    return values.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ConvolutionalNetwork:
    """Fitted convolutional units and their output layer.

    Parameters
    ----------
    units : ConvolutionalUnits
    layers : tuple of LayerWeights
    center, scale : float32 arrays of shape (C,)
        Subtracted from the channels of the images, and what they are then divided by.
    coef : float64 array of shape (n_features + 1, K)
        Output layer, the constant's row last.
    softmax : bool
        Outputs are logits of a softmax, as cross-entropy leaves them; otherwise least-squares
        estimates of one-hot targets, as the glue gives them.
    """

    units: ConvolutionalUnits
    layers: tuple[LayerWeights, ...]
    center: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    softmax: bool

    @property
    def n_parameters_units(self) -> int:
        """Parameters of the units, of all layers."""
        return self.units.n_parameters

    @property
    def n_parameters_total(self) -> int:
        """With the output layer."""
        return self.units.n_parameters + self.coef.size

    @property
    def n_units(self) -> int:
        """Units of all layers."""
        return self.units.n_units

    def outputs(
        self,
        images: Images,
        *,
        workers: int = 1,
        advance: Callable[[int], object] = lambda n: None,
    ) -> Float[np.ndarray, "n K"]:
        """Outputs ``ΦA`` for images ``(n, *shape)``, block by block."""
        coef = self.coef.astype(np.float32)
        with thread_pool(workers) as pool:
            return outputs_in_blocks(
                self.features(images), coef, len(images), _BLOCK, pool, advance
            )

    def features(self, images: Images) -> Features:
        """Features of a slice of the images with a constant last, ``(n_block, n_features + 1)``."""
        import torch
        from torch.nn import functional as F

        filters = [
            (torch.from_numpy(compose(w.channel, w.row, w.column)), torch.from_numpy(w.bias))
            for w in self.layers
        ]
        center = torch.from_numpy(self.center)[:, None, None]
        scale = torch.from_numpy(self.scale)[:, None, None]
        sigma = ACTIVATIONS[self.units.activation].value

        def features(block: slice) -> np.ndarray:
            with torch.no_grad():
                x = shrunk(as_maps(images[block]), self.units.shrink)
                x = ((x - center) / scale).contiguous(memory_format=torch.channels_last)
                for stage, (weight, bias) in zip(self.units.stages, filters, strict=True):
                    x = F.conv2d(x, weight, bias, padding=stage.padding)
                    if max(stage.pool) > 1:
                        x = F.max_pool2d(x, stage.pool)
                    x = sigma(x)
                x = F.avg_pool2d(x, self.units.cell).flatten(1)
                return torch.cat([x, x.new_ones(len(x), 1)], dim=1).numpy()

        return features

    def forms(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Units of the first layer with the largest filters, at most so many, as pictures.

        Returns
        -------
        order : int array of shape (k,)
        pictures : float32 array of shape (k, rows, columns)
            Summed over channels.
        """
        first = self.layers[0]
        filters = compose(first.channel, first.row, first.column).sum(axis=1)
        order = np.argsort(-np.linalg.norm(filters, axis=(1, 2)), kind="stable")[:most]
        return order, filters[order]

    def probabilities(self, outputs: np.ndarray, *, squash: bool = False) -> np.ndarray:
        """Softmax of the outputs where they are its logits; otherwise as `normalise`."""
        if not self.softmax:
            return normalise(outputs, squash=squash)
        positive = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return positive / positive.sum(axis=1, keepdims=True)

    def as_graph(
        self, classes: Iterable[Any], *, scale: float = 1.0, squash: bool = False
    ) -> Graph:
        """The network as a list of operations, for exports.

        Parameters
        ----------
        classes : iterable
            Labels, turned to text.
        scale : float
            Pixels are divided by it: 255 for a model of uint8 images.
        squash : bool
            As in `normalise`; without meaning where the outputs are logits of a softmax.
        """
        from rankwise.varpro import graph as g

        ops: list[Any] = [g.ToMaps()]
        if self.units.shrink > 1:
            ops.append(g.Pool("mean", self.units.shrink))
        ops.append(g.Affine(1.0 / self.scale, -self.center / self.scale))
        for stage, w in zip(self.units.stages, self.layers, strict=True):
            ops.append(g.ConvolveForms(w.channel, w.row, w.column, w.bias, padding=stage.padding))
            if max(stage.pool) > 1:
                ops.append(g.Pool("max", stage.pool))
            ops.append(g.Activate(self.units.activation))
        coef = self.coef.astype(np.float32)
        ops += [g.Pool("mean", self.units.cell), g.Flatten(), g.Dense(coef[:-1], coef[-1])]
        glued = "sigmoid" if squash else "sum-to-one"
        output = "softmax" if self.softmax else glued
        return g.Graph(self.units.shape, tuple(ops), tuple(map(str, classes)), scale, output)


def shrunk(maps: Any, side: int) -> Any:
    """Maps averaged over squares of a side."""
    from torch.nn import functional as F

    return maps if side == 1 else F.avg_pool2d(maps, side)


def thread_pool(workers: int) -> ThreadPoolExecutor:
    """Threads that run torch's kernels on one core each, so that their number changes no bit."""
    import torch

    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
