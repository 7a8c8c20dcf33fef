"""The convolutional networks of the study: the paper's three, their training, transfer learning.

The names exported here are the room's face:

- `make_network`, `NETWORKS`, `summary`;
- `TrainingSettings`, `train_network`, `TrainingResult`, `StopTraining`, `predict_logits`,
  `updates_per_pass`;
- `default_augmentation`;
- `transfer_network`, `freeze`, `unfreeze_top`, `train_transfer`.
"""

from rankwise.nets.augmentation import default_augmentation
from rankwise.nets.batches import updates_per_pass
from rankwise.nets.registry import NETWORKS, make_network
from rankwise.nets.settings import StopTraining, TrainingResult, TrainingSettings
from rankwise.nets.summary import LayerRow, Summary, summary
from rankwise.nets.training import predict_logits, train_network
from rankwise.nets.transfer import (
    TransferNetwork,
    freeze,
    train_transfer,
    transfer_network,
    unfreeze_top,
)

__all__ = [
    "NETWORKS",
    "LayerRow",
    "StopTraining",
    "Summary",
    "TrainingResult",
    "TrainingSettings",
    "TransferNetwork",
    "default_augmentation",
    "freeze",
    "make_network",
    "predict_logits",
    "summary",
    "train_network",
    "train_transfer",
    "transfer_network",
    "unfreeze_top",
    "updates_per_pass",
]
