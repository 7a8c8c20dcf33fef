"""Fitted convolutional units and their output layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from rankwise._arrays import Images, as_float, own
from rankwise.networks import graph as g
from rankwise.networks.probabilities import calibrated_layer
from rankwise.networks.quadratic import outputs_in_blocks
from rankwise.networks.sliding import mixes_first, slid
from rankwise.units.activations import ACTIVATIONS
from rankwise.units.convolutional import ConvolutionalUnits, LayerWeights, Whitening, compose

OUTPUT_BLOCK = 256
"""Images whose outputs a thread computes at a time, at most."""

_PLACES = 16


def as_maps(images: np.ndarray, dtype: str = "float32") -> Any:
    """Images ``(n, H, W[, C])`` as a tensor of maps ``(n, C, H, W)``; uint8 is divided by 255."""
    import torch

    # Of what is mapped read-only, a copy: torch wants arrays writable.
    values = torch.from_numpy(np.require(as_float(images, dtype), requirements=["C", "W"]))
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
    whitening : Whitening, optional
        Where the units have one.
    """

    units: ConvolutionalUnits
    layers: tuple[LayerWeights, ...]
    center: np.ndarray
    scale: np.ndarray
    coef: np.ndarray
    softmax: bool
    whitening: Whitening | None = None

    def __post_init__(self) -> None:
        own(self, "center", "scale", "coef")

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

    def ways(self, precision: str = "float32") -> list[bool]:
        """Of each layer, whether its channels are mixed first."""
        return [mixes_first(s.channels, s.rank, s.sides, precision) for s in self.units.stages]

    def outputs(
        self,
        images: Images,
        *,
        workers: int = 1,
        advance: Callable[[int], object] = lambda n: None,
    ) -> Float[np.ndarray, "n K"]:
        """Outputs ``ΦA`` for images ``(n, *shape)``, block by block."""
        # In float64, so that no sum's order shows however many images there are.
        features = self.features(images)
        return outputs_in_blocks(features, self.coef, len(images), OUTPUT_BLOCK, workers, advance)

    def features(self, images: Images) -> ConvolutionalFeatures:
        """Features of a slice of the images with a constant last, ``(n_block, n_features + 1)``."""
        return ConvolutionalFeatures(self, images)

    def forms(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Units of the first layer with the largest filters, at most so many, as pictures.

        Returns
        -------
        order : int array of shape (k,)
        pictures : float32 array of shape (k, rows, columns)
            Summed over channels: behind whitening those of its filters.
        """
        first = self.layers[0]
        filters = compose(first.channel, first.row, first.column).sum(axis=1)
        order = np.argsort(-np.linalg.norm(filters, axis=(1, 2)), kind="stable")[:most]
        return order, filters[order]

    @property
    def own_probabilities(self) -> str:
        """How its outputs become probabilities where nothing else is asked for."""
        return "softmax" if self.softmax else "sum-to-one"

    def as_graph(
        self,
        classes: Iterable[Any],
        *,
        scale: float = 1.0,
        probabilities: str | None = None,
        temperature: float | None = None,
    ) -> g.Graph:
        """The network as a list of operations, for exports.

        Parameters
        ----------
        classes : iterable
            Labels, turned to text.
        scale : float
            Pixels are divided by it: 255 for a model of uint8 images.
        probabilities, temperature
            As in `log_probabilities`; default the network's own.
        """
        ops: list[Any] = [g.ToMaps()]
        if self.units.shrink > 1:
            ops.append(g.Pool("mean", self.units.shrink))
        ops.append(g.Affine(1.0 / self.scale, -self.center / self.scale))
        if self.whitening is not None:
            ops.append(g.Convolve(self.whitening.both, self.whitening.bias))
            ops.append(g.Activate(self.units.activation))
        for stage, w in zip(self.units.stages, self.layers, strict=True):
            layer: list[g.Op] = [
                g.ConvolveForms(w.channel, w.row, w.column, w.bias, padding=stage.padding)
            ]
            if max(stage.pool) > 1:
                layer.append(g.Pool("max", stage.pool))
            layer.append(g.Activate(self.units.activation))
            ops += [g.Add(tuple(layer), ())] if stage.skip else layer
        coef, output = calibrated_layer(
            self.coef, probabilities or self.own_probabilities, temperature
        )
        coef = coef.astype(np.float32)
        ops += [g.Pool("mean", self.units.cell), g.Flatten(), g.Dense(coef[:-1], coef[-1])]
        return g.Graph(self.units.shape, tuple(ops), tuple(map(str, classes)), scale, output)


@dataclass(frozen=True)
class ConvolutionalFeatures:
    """Features of a slice of the images with a constant last, ``(n_block, n_features + 1)``.

    Parameters
    ----------
    network : ConvolutionalNetwork
    images : array of shape (n, *shape)
    """

    network: ConvolutionalNetwork
    images: Images

    def __getstate__(self) -> dict[str, Any]:
        """Without the tensors, which a worker makes again."""
        return {k: v for k, v in self.__dict__.items() if k != "_tensors"}

    @property
    def row_bytes(self) -> int:
        """Of an image in floating point and its largest maps, before and after a layer."""
        stages = self.network.units.stages
        maps = [s.size[0] * s.size[1] * max(s.channels, s.maps) for s in stages]
        return 4 * (int(np.prod(self.network.units.shape)) + 2 * max(maps))

    @cached_property
    def _tensors(self) -> tuple[Any, ...]:
        return tensors_of(self.network)

    def __call__(self, block: slice) -> np.ndarray:
        """Features of some images."""
        import torch

        units = self.network.units
        # One image alone, or a few places in all, would be convolved by another routine, which
        # rounds otherwise: outputs would depend on how many images are asked for at once.
        places = min(stage.size[0] * stage.size[1] for stage in units.stages)
        least = max(2, -(-_PLACES // places))
        with torch.no_grad():
            x = as_maps(self.images[block])
            n = len(x)
            if n < least:
                x = torch.cat([x, x[:1].expand(least - n, *x.shape[1:])])
            x = pooled(self.network, self._tensors, x)[:n]
            return torch.cat([x, x.new_ones(len(x), 1)], dim=1).numpy()


def tensors_of(network: ConvolutionalNetwork, device: str = "cpu", dtype: Any = None) -> Any:
    """What `pooled` computes with, on a device, maps in a precision: by default float32.

    Filters are rounded to it once they are composed.
    """
    import torch

    def placed(*arrays: np.ndarray, dtype: Any = None) -> tuple[Any, ...]:
        return tuple(torch.as_tensor(a, dtype=dtype, device=device) for a in arrays)

    layers = [
        (*placed(w.channel, w.row, w.column), *placed(w.bias, dtype=dtype)) for w in network.layers
    ]
    center, scale = (a[:, None, None] for a in placed(network.center, network.scale))
    whitening = network.whitening
    first = None if whitening is None else placed(whitening.both, whitening.bias, dtype=dtype)
    return first, layers, center, scale


def pooled(network: ConvolutionalNetwork, tensors: Any, maps: Any) -> Any:
    """Features ``(n, n_features)`` of maps ``(n, C, H, W)``, in the precision of the tensors."""
    from torch.nn import functional as F

    units = network.units
    first, layers, center, scale = tensors
    dtype = layers[0][-1].dtype
    ways = network.ways(str(dtype).removeprefix("torch."))
    sigma = ACTIVATIONS[units.activation].value
    x = ((shrunk(maps, units.shrink) - center) / scale).to(dtype)
    x = channels_last(x)
    if first is not None:
        x = sigma(F.conv2d(x, *first))
    for stage, (channel, row, column, bias), mixed in zip(units.stages, layers, ways, strict=True):
        before, mixed = x, mixed and not x.is_cuda
        # A filter takes its bias along; otherwise it's added to the largest of each rectangle, to
        # the bit the largest of the sums, of fewer numbers.
        own = None if mixed else bias
        x = slid(x, channel, row, column, own, padding=stage.padding, mixed=mixed)
        if max(stage.pool) > 1:
            x = F.max_pool2d(x, stage.pool)
        x = sigma(x if own is not None else x + bias[:, None, None])
        if stage.skip:
            x = x + before
    return F.avg_pool2d(x, units.cell).flatten(1)


def channels_last(maps: Any) -> Any:
    """Maps ``(n, C, H, W)``, channels beside each other in memory, as in what is computed of them.

    A single channel lies beside itself in any order, which torch takes for the other one.
    """
    import torch

    maps = maps.contiguous(memory_format=torch.channels_last)
    n, channels, height, width = maps.shape
    if channels > 1:
        return maps
    return maps.as_strided((n, 1, height, width), (height * width, 1, width, 1))


def shrunk(maps: Any, side: int) -> Any:
    """Maps averaged over squares of a side."""
    from torch.nn import functional as F

    return maps if side == 1 else F.avg_pool2d(maps, side)
