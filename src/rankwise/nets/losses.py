"""What training minimises: the small interface `Loss`, and softmax cross-entropy.

How another way to train the output layer plugs in (as `rankwise.nets.projected_loss` does):

- Subclass `Loss`, an `nn.Module`; whatever must survive a kill (running statistics) is a buffer of
  it, for the buffers are in the checkpoint and on the model's device.
- ``forward(model, x, y) -> (loss, logits)`` is called for each training batch: `model` is the
  network in training mode, `x` float32 ``(n, C, H, W)`` in [-1, 1] on the device (augmented), `y`
  int64 ``(n,)``. `loss` is a scalar to be differentiated, `logits` ``(n, K)`` serve the training
  accuracy only (they needn't be differentiable). The loss may call ``model.features(x)``
  and use or ignore ``model.head``.
- ``trains_head = False`` keeps the parameters of ``model.head`` out of the optimiser.
- ``finish(model, batches)`` is called at the end of each epoch, without gradients and with the
  model in evaluation mode, before validation and before the checkpoint. Iterating `batches` (any
  number of times, or never) gives all training images once, ``(x, y)``, unaugmented, in a fixed
  order. It may overwrite ``model.head``. With several devices each one is given all of them.
- ``evaluate(logits, y)`` gives a mean loss for validation.

`rankwise.nets.projected_loss.make_loss` gives the loss of ``TrainingSettings.output``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]


class Loss(nn.Module, ABC):
    """Base of the losses; see the module's docstring."""

    trains_head = True

    @abstractmethod
    def forward(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and logits of a training batch."""

    def finish(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """End of an epoch, before validation. Does nothing here."""

    def evaluate(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean validation loss: cross-entropy."""
        return F.cross_entropy(logits.float(), y)


class CrossEntropyLoss(Loss):
    """Softmax and cross-entropy, the paper's."""

    def forward(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of ``−log softmax(logits)_y``, and the logits."""
        logits = model(x)
        return F.cross_entropy(logits, y), logits
