"""Convolutional units: one multilinear form slid over the image, then pooled.

A bilinear unit sees the whole image, ``uᵀXv + b``. The same form slid over all patches ``P`` of
``X`` gives a map, ``q(y, x) = uᵀP(y, x)v + b``; with several maps below it, and rank ``r``,

    q_o(y, x) = Σ_ρ Σ_c  a_oρc · u_oρᵀ P_c(y, x) v_oρ + b_o

with one vector an axis (channel, row, column), as the multilinear units of the paper's section 7
have. The largest ``q`` of each pooling rectangle passes the activation. Layers stack; the last
layer's maps are averaged over a grid, and these features meet a linear output layer.

The filters ``W_o = Σ_ρ a_oρ ⊗ u_oρ ⊗ v_oρ`` are composed first (`compose`) and slid as one dense
convolution, or the channels are mixed first: `rankwise.networks.sliding` has both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rankwise._arrays import own
from rankwise.units.activations import ACTIVATIONS


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
    skip : bool
        Add the maps that come in to those that go out (a residual connection): as many, of one
        size.
    """

    maps: int
    side: int = 3
    rank: int = 2
    pool: int = 1
    skip: bool = False

    def __post_init__(self) -> None:
        for name in ("maps", "side", "rank", "pool"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(
                    f"{name} of a layer must be a whole number, at least 1, got {value!r}"
                )
        if self.side % 2 == 0:
            raise ValueError(f"side of a layer must be odd, got {self.side}")
        if self.skip and self.pool > 1:
            raise ValueError(f"a layer with a skip has no pool, got pool {self.pool}")


@dataclass(frozen=True)
class Stage:
    """A layer on maps of a known size: the patch never exceeds an axis of length 1.

    Attributes
    ----------
    channels, maps, rank : int
    sides, pool, size : (int, int)
        Of a patch, of a pooling rectangle, and of the maps that come in.
    skip : bool
    """

    channels: int
    maps: int
    rank: int
    sides: tuple[int, int]
    pool: tuple[int, int]
    size: tuple[int, int]
    skip: bool = False

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
    whiten : int
        Side of the patches that a first layer of fixed filters whitens, each filter once with
        either sign; 0 for none.

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
    whiten: int = 0

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
        for name in ("shrink", "grid", "whiten"):
            if not isinstance(getattr(self, name), (int, np.integer)):
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.shrink < 1 or min(self.shape[:2]) < self.shrink:
            raise ValueError(
                f"shrink must be between 1 and the shorter side {min(self.shape[:2])}, "
                f"got {self.shrink}"
            )
        if self.whiten < 0 or min(self.shape[:2]) // self.shrink < self.whiten:
            raise ValueError(
                f"whiten must be between 0 and the shorter side of the images, got {self.whiten}"
            )

    @property
    def n_whitening(self) -> int:
        """Fixed filters that whiten patches, without their negatives."""
        return self.channels * self.whiten**2

    @property
    def channels(self) -> int:
        """Of the image: 1 where it is grey."""
        return self.shape[2] if len(self.shape) == 3 else 1

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The layers, on the sizes that this shape of image brings about."""
        found, channels = [], self.channels
        size = (self.shape[0] // self.shrink, self.shape[1] // self.shrink)
        if self.whiten:
            channels = 2 * self.n_whitening
            size = (size[0] - self.whiten + 1, size[1] - self.whiten + 1)
        for layer in self.layers:
            sides = tuple(layer.side if length > 1 else 1 for length in size)
            pool = tuple(layer.pool if length >= layer.pool else 1 for length in size)
            if layer.skip and layer.maps != channels:
                raise ValueError(
                    f"a layer with a skip has as many maps as come in, {channels}, got {layer.maps}"
                )
            stage = Stage(channels, layer.maps, layer.rank, sides, pool, size, layer.skip)  # type: ignore[arg-type]  # pairs
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
        """Of all units, with whitening, centre and scale of the image's channels."""
        own = sum(stage.n_parameters for stage in self.stages)
        return own + self.n_whitening * (self.n_whitening + 2) + 2 * self.channels


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

    def __post_init__(self) -> None:
        own(self, "channel", "row", "column", "bias")


@dataclass(frozen=True)
class Whitening:
    """A first layer of fixed filters, and their biases.

    Attributes
    ----------
    filters : float32 array of shape (m, C, side, side)
        Each is slid as it is, then with the other sign.
    bias : float32 array of shape (2 m,)
    """

    filters: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        own(self, "filters", "bias")

    @property
    def both(self) -> np.ndarray:
        """Filters with both signs, ``(2 m, C, side, side)``."""
        return np.concatenate([self.filters, -self.filters])


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
