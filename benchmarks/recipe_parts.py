"""Parts of a recipe that the package doesn't have, for `recipe.py` to say whether it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rankwise.networks.sliding import slid
from rankwise.training.joint import JointTraining
from rankwise.training.modules import ConvolutionalModule

_DECAY = 0.99
_MOMENTUM = 0.85
_SMALLER = 28


class Gated(ConvolutionalModule):
    """Each unit is the product of two forms, quadratic in its patch: ``q = (a * X)·(1 + b * X)``.

    The product is normalised as a form is. Twice the vectors a unit, so the layers have fewer.
    Gates start at a tenth of a form, and AdamW steps their vectors: Muon holds a matrix at one
    length, and the length of ``b`` against the 1 is what a gate learns.
    """

    def __init__(self, units: Any, center: Any, scale: Any, generator: Any, whitening: Any) -> None:
        super().__init__(units, center, scale, generator, whitening)
        self.gates = nn.ModuleList(
            nn.ParameterList(
                nn.Parameter(torch.randn(p.shape, generator=generator) * share * p.detach().std())
                for p in vectors
            )
            for vectors, share in ((self.channel, 0.1), (self.row, 1.0), (self.column, 1.0))
        )

    def _slid(self, i: int, x: torch.Tensor) -> torch.Tensor:
        padding = self.units.stages[i].padding
        gate = slid(x, *(vectors[i] for vectors in self.gates), padding=padding, mixed=False)
        return super()._slid(i, x) * (1 + gate)


class Averaged(JointTraining):
    """Weights averaged over about the last 100 updates take the place of the last ones."""

    average: dict[str, torch.Tensor] | None = None

    def update(self, *given: Any, **options: Any) -> float:
        """One step, and one of the average."""
        loss = super().update(*given, **options)
        now = self._tensors()
        if self.average is None:
            self.average = now
        for name, value in now.items():
            self.average[name].lerp_(value, 1 - _DECAY)
        return loss

    def fit(self, *given: Any, **options: Any) -> Any:
        """Train, then take the average."""
        result = super().fit(*given, **options)
        if self.average is not None:
            self._restore(self.average)
        return result


class _Nesterov:
    """`torch.optim.SGD` as `JointTraining` steps."""

    def __init__(self, parameters: list[torch.Tensor], rate: float, decay: float) -> None:
        self.rate = rate
        self.sgd = torch.optim.SGD(
            parameters, lr=rate, momentum=_MOMENTUM, nesterov=True, weight_decay=decay
        )

    def set_share(self, share: float) -> float:
        """The learning rate at a share of the largest."""
        for group in self.sgd.param_groups:
            group["lr"] = self.rate * share
        return self.rate * share

    def step(self, run: Any = map) -> None:
        """One step along the gradients; `run` is for matrices, which it has none of."""
        self.sgd.step()


class Nesterov(JointTraining):
    """Nesterov's momentum, at airbench's decay, on all parameters."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.steps = _Nesterov(self.trained, rate=0.2, decay=5e-4)  # type: ignore[assignment]


def progressive(epochs: int) -> Any:
    """Images of 28 pixels a side in the first half of the epochs: three quarters of the work."""

    def smaller(maps: torch.Tensor, source_id: np.ndarray, epoch: int) -> torch.Tensor:
        if epoch >= epochs // 2 or maps.shape[2] <= _SMALLER:
            return maps
        return F.interpolate(maps, size=_SMALLER, mode="bilinear", antialias=True)

    return smaller
