"""Transfer learning (paper B.1): a new head on a frozen backbone, then its top layers as well."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from rankwise._files import expanded
from rankwise._process import torch_seeded
from rankwise.nets.borrowing import evaluating
from rankwise.nets.freezing import freeze, hold_frozen, unfreeze_top
from rankwise.nets.layers import FeatureExtractor, has_own_features, height_width_channels
from rankwise.nets.settings import TrainingResult, TrainingSettings
from rankwise.nets.training import train_network
from rankwise.nets.vgg16 import VGG16

# Paper B.1: feature extraction for 50 epochs; then RMSprop with 1e-5 on the top 4 layers.
HEAD_EPOCHS = 50
FINE_EPOCHS = 50
FINE_RATE = 1e-5
TOP_LAYERS = 4


class TransferNetwork(nn.Module):
    """A backbone, dropout and a new head; see `transfer_network`."""

    def __init__(
        self, backbone: nn.Module, n_features: int, n_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.n_features = n_features
        self.head = nn.Linear(n_features, n_classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, n_features)``: the backbone's output, its mean over pixels where it is a map."""
        return _flat(self.backbone(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of float32 images ``(n, C, H, W)`` in [-1, 1]."""
        return self.head(self.dropout(self.features(x)))


def transfer_network(
    backbone: nn.Module,
    n_classes: int,
    n_features: int | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    dropout: float = 0.5,
    seed: int = 42,
) -> TransferNetwork:
    """A network of a frozen copy of `backbone` and a new head.

    Parameters
    ----------
    backbone : Module
        One of `make_network`'s (its head is dropped), or any module whose ``forward`` gives
        features ``(n, d)`` or maps ``(n, d, h, w)``, of which the mean over pixels is taken.
    n_classes : int
    n_features : int, optional
        d. Default: asked of the backbone (``n_features``), or found with `image_shape`.
    image_shape : (H, W) or (H, W, C), optional
        To find d by one black image.
    dropout : float
        Before the head. Default 0.5, the reference code's.
    seed : int
        Of the head's starting weights. Default 42.

    Raises
    ------
    ValueError
        If d can't be found, or the backbone's output is no feature vector or map.
    """
    copied: nn.Module = copy.deepcopy(backbone).float()
    inner = getattr(copied, "network", None)
    if hasattr(copied, "bare") and isinstance(inner, nn.Module) and _has_head(inner):
        _drop_head(inner)  # of a `Backbone`, which never uses it
        copied.record = None  # type: ignore[assignment] # no tensor; it would build the head
    if _has_head(copied):
        n_features = n_features or int(copied.n_features)  # type: ignore[arg-type]
        _drop_head(copied)
        copied = FeatureExtractor(copied)
    if n_features is None:
        if image_shape is None:
            raise ValueError("n_features (or image_shape, to find it) is needed for this backbone")
        n_features = _count_features(copied, image_shape)
    with torch_seeded(seed):
        network = TransferNetwork(copied, n_features, n_classes, dropout)
        nn.init.xavier_uniform_(network.head.weight)
        nn.init.zeros_(network.head.bias)
    freeze(network.backbone)
    return network.float()


@dataclass(frozen=True)
class TransferResult:
    """Both steps of `train_transfer`: the head alone, and fine-tuning."""

    head: TrainingResult
    fine: TrainingResult


def train_transfer(
    model: TransferNetwork,
    images: ArrayLike,
    labels: ArrayLike,
    head: TrainingSettings | None = None,
    fine: TrainingSettings | None = None,
    *,
    n_top: int = TOP_LAYERS,
    folder: Path | str | None = None,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    after_epoch: Callable[[int, dict[str, Any]], None] | None = None,
    **options: Any,
) -> TransferResult:
    """Paper B.1: train the head on the frozen backbone, then fine-tune the top layers with it.

    Fine-tuning starts from the head's best epoch on the validation images, or its last without
    them. It is resumable as `train_network` is, in both steps.

    Parameters
    ----------
    model : TransferNetwork
    images, labels, validation, folder, options
        As in `train_network`; the folder gets ``head/`` and ``fine/``.
    head : TrainingSettings, optional
        Default: 50 epochs of RMSprop with 1e-3 (the paper gives the epochs only).
    fine : TrainingSettings, optional
        Default: 50 epochs of RMSprop with 1e-5.
    n_top : int
        Layers of the backbone to unfreeze, see `unfreeze_top`. Default 4.
    after_epoch : callable, optional
        For both; epochs of fine-tuning count on from those of the head.
    """
    head = head or TrainingSettings(HEAD_EPOCHS, optimizer="rmsprop")
    fine = fine or TrainingSettings(FINE_EPOCHS, optimizer="rmsprop", learning_rate=FINE_RATE)
    where = None if folder is None else expanded(folder)
    freeze(model.backbone)
    first = train_network(
        model, images, labels, head, validation=validation, after_epoch=after_epoch,
        folder=None if where is None else where / "head", **options,
    )  # fmt: skip
    model.load_state_dict(first.best_state)
    unfreeze_top(model.backbone, n_top)
    done = len(first.history)
    later = None if after_epoch is None else _Shifted(after_epoch, done)
    second = train_network(
        model, images, labels, fine, validation=validation, after_epoch=later,
        folder=None if where is None else where / "fine", **options,
    )  # fmt: skip
    return TransferResult(first, second)


class _Shifted:
    """A class and no closure, so that it can be pickled for several devices."""

    def __init__(self, call: Callable[[int, dict[str, Any]], None], by: int) -> None:
        self._call, self._by = call, by

    def __call__(self, epoch: int, metrics: dict[str, Any]) -> None:
        self._call(epoch + self._by, {**metrics, "epoch": epoch + self._by})


def _has_head(network: nn.Module) -> bool:
    return has_own_features(network) and hasattr(network, "head")


def _drop_head(network: nn.Module) -> None:
    if isinstance(network, VGG16):
        network.classifier[-1] = nn.Identity()
    else:
        network.head = nn.Identity()


def _flat(output: torch.Tensor) -> torch.Tensor:
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output


def _count_features(backbone: nn.Module, image_shape: Sequence[int]) -> int:
    height, width, channels = height_width_channels(image_shape)
    with evaluating(backbone):
        output = backbone(torch.zeros(1, channels, height, width, dtype=torch.float32))
    if not isinstance(output, torch.Tensor) or output.ndim not in (2, 4):
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(
            f"the backbone must give features (n, d) or maps (n, d, h, w); it gives {found}"
        )
    return output.shape[1]


__all__ = [
    "FeatureExtractor",
    "TransferNetwork",
    "TransferResult",
    "freeze",
    "hold_frozen",
    "train_transfer",
    "transfer_network",
    "unfreeze_top",
]
