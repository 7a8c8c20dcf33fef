"""A larger network, trained first, whose outputs a smaller one learns beside the labels.

As G. Hinton, O. Vinyals and J. Dean have it (Distilling the knowledge in a neural network, 2015):
outputs of both are divided by a temperature before the softmax, and their divergence counts its
square times, so that its gradients are as large as those of labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from rankwise.networks.convolutional import ConvolutionalNetwork, pooled, tensors_of
from rankwise.training.checkpoints import read_checkpoint, write_checkpoint
from rankwise.units.convolutional import ConvolutionalUnits, LayerWeights, Whitening

TEMPERATURE, TAUGHT = 4.0, 0.9
"""What outputs are divided by, and the share of the loss that is the teacher's."""

_LOGITS_OF_ONE = 8.0


@dataclass(frozen=True, eq=False)
class Teacher:
    """A fitted network that others learn from.

    Parameters
    ----------
    network : ConvolutionalNetwork
        Least-squares outputs, about 0 and 1, are stretched eightfold to logits.
    """

    network: ConvolutionalNetwork

    def on(self, device: str, dtype: torch.dtype | None) -> Callable[[torch.Tensor], torch.Tensor]:
        """What gives logits ``(n, K)`` of maps ``(n, C, H, W)`` on a device, in a precision."""
        network = self.network
        tensors = tensors_of(network, device, dtype)
        coef = torch.as_tensor(network.coef, dtype=torch.float32, device=device)
        coef = coef if network.softmax else _LOGITS_OF_ONE * coef

        def outputs(maps: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                features = pooled(network, tensors, maps).float()
                return features @ coef[:-1] + coef[-1]

        return outputs


def divergence(
    outputs: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """``T²·KL(softmax(wanted/T) ‖ softmax(outputs/T))``, the mean over images, weighted.

    Parameters
    ----------
    outputs, wanted : tensors of shape (n, K)
        Logits of the one that learns and of its teacher.
    weights : tensor of shape (n,), optional
    """
    told = F.kl_div(
        (outputs / TEMPERATURE).log_softmax(dim=1),
        (wanted / TEMPERATURE).log_softmax(dim=1),
        reduction="none",
        log_target=True,
    )
    each = TEMPERATURE**2 * told.sum(dim=1)
    return each.mean() if weights is None else (each * weights).mean()


_VECTORS = ("channel", "row", "column", "bias")


def write_teacher(path: Path, key: str, network: ConvolutionalNetwork, known: Any) -> None:
    """Keep a finished teacher, and what is known of it, for a fit that is interrupted behind it."""
    arrays = {"center": network.center, "scale": network.scale, "coef": network.coef}
    for i, layer in enumerate(network.layers):
        arrays |= {f"{i}.{name}": getattr(layer, name) for name in _VECTORS}
    if network.whitening is not None:
        arrays |= {"filters": network.whitening.filters, "first": network.whitening.bias}
    tensors = {name: torch.from_numpy(a) for name, a in arrays.items()}
    write_checkpoint(path, key, tensors, {**known, "softmax": network.softmax})


def read_teacher(
    path: Path, key: str, units: ConvolutionalUnits
) -> tuple[ConvolutionalNetwork, dict[str, Any]] | None:
    """What `write_teacher` kept; None if there is none, or if it is damaged.

    Raises
    ------
    RunError
        If it belongs to another fit.
    """
    found = read_checkpoint(path, key)
    if found is None:
        return None
    tensors, known = found
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    layers = tuple(
        LayerWeights(*(arrays[f"{i}.{name}"] for name in _VECTORS))
        for i in range(len(units.layers))
    )
    whitening = Whitening(arrays["filters"], arrays["first"]) if "filters" in arrays else None
    center, scale, coef = (arrays[name] for name in ("center", "scale", "coef"))
    softmax = bool(known["softmax"])
    return ConvolutionalNetwork(units, layers, center, scale, coef, softmax, whitening), known
