"""Units as torch modules: what joint training sees of them.

A module turns a batch of maps ``(n, C, H, W)`` into features ``(n, m)``; its parameters are the
units' and nothing else. The output layer is not part of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rankwise.networks.convolutional import ConvolutionalNetwork, channels_last, shrunk
from rankwise.networks.sliding import mixes_first, slid
from rankwise.units.activations import ACTIVATIONS
from rankwise.units.convolutional import ConvolutionalUnits, LayerWeights, Whitening
from rankwise.units.multilinear import Units

Moments = list[tuple[torch.Tensor, torch.Tensor]]
"""Mean and variance of each layer's forms on a batch."""

_EPS = 1e-5


class ConvolutionalModule(nn.Module):
    """Convolutional units with every form ``q`` normalised to zero mean and unit deviation.

    While training, mean and deviation are the batch's; afterwards those of `set_moments`, which
    `network` folds into vectors and biases. A deviation is positive, so the largest ``q`` of a
    rectangle stays the largest, and normalising behind the pooling is the same and cheaper.

    Parameters
    ----------
    units : ConvolutionalUnits
    center, scale : arrays of shape (C,)
        Of the images' channels.
    generator : torch.Generator
        For the start: Gaussian vectors.
    whitening : array of shape (m, C, side, side), optional
        Fixed filters of the first layer, where the units whiten; see `training.whitening`.
    """

    center: torch.Tensor
    scale: torch.Tensor
    whitening: torch.Tensor

    def __init__(
        self,
        units: ConvolutionalUnits,
        center: np.ndarray,
        scale: np.ndarray,
        generator: torch.Generator,
        whitening: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.units = units
        if whitening is not None:
            self.register_buffer("whitening", torch.as_tensor(whitening))
            self.whitening_bias = nn.Parameter(torch.zeros(2 * len(whitening), dtype=torch.float32))
        self.register_buffer("center", torch.as_tensor(center)[:, None, None])
        self.register_buffer("scale", torch.as_tensor(scale)[:, None, None])
        self.channel, self.row, self.column = (nn.ParameterList() for _ in range(3))
        self.shift = nn.ParameterList()
        for i, stage in enumerate(units.stages):
            lists = (self.channel, self.row, self.column)
            size = (stage.maps, stage.rank)
            # The composed filter keeps the scale of its input; each vector has a share of that.
            share = (2.0 / (stage.channels * stage.sides[0] * stage.sides[1] * stage.rank)) ** 0.5
            factors = (share, 1.0, 1.0)
            for vectors, length, factor in zip(
                lists, (stage.channels, *stage.sides), factors, strict=True
            ):
                drawn = torch.randn(*size, length, generator=generator, dtype=torch.float32)
                vectors.append(nn.Parameter(drawn * factor))
            self.shift.append(nn.Parameter(torch.zeros(stage.maps, dtype=torch.float32)))
            self.register_buffer(f"mean{i}", torch.zeros(stage.maps, dtype=torch.float32))
            self.register_buffer(f"variance{i}", torch.ones(stage.maps, dtype=torch.float32))

    @property
    def n_features(self) -> int:
        """Columns of the features."""
        return self.units.n_features

    def forward(
        self,
        maps: torch.Tensor,
        moments: Moments | None = None,
        precision: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Features ``(n, m)``; with a list of `moments` the batch's own are used and appended.

        With a `precision` maps and filters are rounded to it; what is kept, and the features, have
        the parameters' type.
        """
        sigma = ACTIVATIONS[self.units.activation].value
        x = (shrunk(maps, self.units.shrink) - self.center) / self.scale
        dtype = precision or x.dtype
        x = channels_last(x.to(dtype))
        if self.units.whiten:
            both = torch.cat([self.whitening, -self.whitening])
            x = sigma(F.conv2d(x, both.to(dtype), self.whitening_bias.to(dtype)))
        for i, stage in enumerate(self.units.stages):
            before = x
            x = self._slid(i, x)
            if max(stage.pool) > 1:
                x = F.max_pool2d(x, stage.pool)
            # Not None on a GPU, where torch has no gradient in a bias that stands alone.
            factor = torch.ones_like(self.shift[i]) if x.is_cuda else None
            if moments is None:
                mean, variance = getattr(self, f"mean{i}"), getattr(self, f"variance{i}")
                x = F.batch_norm(x, mean, variance, factor, self.shift[i], eps=_EPS)
            else:
                mean, variance = torch.zeros_like(self.shift[i]), torch.ones_like(self.shift[i])
                x = F.batch_norm(
                    x, mean, variance, factor, self.shift[i], training=True, momentum=1.0, eps=_EPS
                )
                moments.append((mean.detach(), variance.detach()))
            x = sigma(x)
            if stage.skip:
                x = x + before
        return F.avg_pool2d(x, self.units.cell).flatten(1).to(self.center.dtype)

    def _slid(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """The forms of layer `i` on its maps."""
        stage, name = self.units.stages[i], str(x.dtype).removeprefix("torch.")
        mixed = not x.is_cuda and mixes_first(stage.channels, stage.rank, stage.sides, name)
        vectors = (self.channel[i], self.row[i], self.column[i])
        return slid(x, *vectors, padding=stage.padding, mixed=mixed)

    def matrices(self) -> list[nn.Parameter]:
        """Parameters that are matrices, one row a form: what `steps.Steps` says of them."""
        return list(self.channel)

    def set_moments(self, moments: Moments, share: float = 1.0) -> None:
        """Move the kept moments towards these by a share of the way."""
        for i, (mean, variance) in enumerate(moments):
            getattr(self, f"mean{i}").lerp_(mean, share)
            getattr(self, f"variance{i}").lerp_(variance, share)

    def folded(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The kept normalisation of layer `i` as a factor of its filters and a bias, float64."""
        mean, variance = getattr(self, f"mean{i}"), getattr(self, f"variance{i}")
        factor = (variance.double() + _EPS).rsqrt()
        return factor, self.shift[i].detach().double() - mean.double() * factor

    def network(self, coef: np.ndarray, *, softmax: bool) -> ConvolutionalNetwork:
        """The fitted network, with the normalisation folded into vectors and biases."""
        layers = []
        for i, _ in enumerate(self.units.stages):
            factor, bias = self.folded(i)
            channel = self.channel[i].detach().double() * factor[:, None, None]
            arrays = (channel, self.row[i].detach(), self.column[i].detach(), bias)
            layers.append(LayerWeights(*(a.float().cpu().numpy().copy() for a in arrays)))
        center, scale = (b.flatten().cpu().numpy() for b in (self.center, self.scale))
        first = None
        if self.units.whiten:
            bias = self.whitening_bias.detach()
            first = Whitening(self.whitening.cpu().numpy(), bias.cpu().numpy())
        return ConvolutionalNetwork(self.units, tuple(layers), center, scale, coef, softmax, first)


class UnitModule(nn.Module):
    """Units that see the whole image, or a window of it: `Units` with parameters to train.

    Parameters
    ----------
    units : Units
    params : array of shape (p, I)
    active : bool array of shape (p, I)
        Parameters that are trained; the others stay.
    """

    active: torch.Tensor
    fixed: torch.Tensor

    def __init__(self, units: Units, params: np.ndarray, active: np.ndarray) -> None:
        super().__init__()
        self.units = units
        self.params = nn.Parameter(torch.as_tensor(params))
        self.register_buffer("active", torch.as_tensor(active))
        self.register_buffer("fixed", torch.as_tensor(params * ~active))

    @property
    def n_features(self) -> int:
        """Columns of the features."""
        return int(self.params.shape[1])

    def forward(
        self, maps: torch.Tensor, moments: Any = None, precision: torch.dtype | None = None
    ) -> torch.Tensor:
        """Features ``(n, I)``. These units keep no moments, and have one precision."""
        images = maps[:, 0] if len(self.units.shape) == 2 else maps.permute(0, 2, 3, 1)
        params = self.params * self.active + self.fixed
        return self.units.features(self.units.flatten(images), params)

    def matrices(self) -> list[nn.Parameter]:
        """No parameter is a matrix whose scale doesn't matter."""
        return []

    def set_moments(self, moments: Moments, share: float = 1.0) -> None:
        """Nothing to set."""

    def values(self) -> np.ndarray:
        """Parameters ``(p, I)`` as they are now."""
        with torch.no_grad():
            return (self.params * self.active + self.fixed).cpu().numpy().copy()
