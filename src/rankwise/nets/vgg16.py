"""VGG16 (Simonyan & Zisserman 2015), the pre-trained network of Experiment III (paper B.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from rankwise.errors import ModelFileError
from rankwise.nets.layers import height_width_channels, initialise

# Configuration D of the VGG paper: filters of each 3×3 convolution, 0 a 2×2 max pooling.
LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
# Of ImageNet's training images scaled to [0, 1], as torchvision's weights were trained with.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class VGG16(nn.Module):
    """Thirteen 3×3 convolutions in five stages, and a classifier on top of them.

    Without `top`, this is the convolutional base with a new head: mean over pixels, dropout,
    softmax (512 features). With `top`, it is the whole published network: 7×7 mean pooling and
    three linear layers (4096 features).

    *Preprocessing.* Like every network here, it takes RGB in [-1, 1]; inside, ``((x + 1)/2 − mean)
    / deviation`` makes of it what torchvision's weights were trained on. Keras's VGG16 weights take
    BGR minus the mean in steps of 1/255 instead; they are another set of weights and don't fit
    here. Grey images are repeated on three channels.

    *Names.* Convolutions are ``base.N`` for torchvision's ``features.N``, with the same N (here
    ``features`` is the method that all networks have); linear layers of the top are
    ``classifier.N`` as there. `load_torchvision` translates.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C)
        At least 32 pixels a side; C is 1 or 3.
    n_classes : int
    dropout : float
        Probability, before each linear layer. Default 0.5, VGG's.
    top : bool
        Keep the two linear layers of 4096 units. Default False: the paper takes the base alone.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    channels_last = True

    def __init__(
        self,
        image_shape: Sequence[int],
        n_classes: int,
        dropout: float = 0.5,
        *,
        top: bool = False,
    ) -> None:
        super().__init__()
        height, width, channels = height_width_channels(image_shape)
        if min(height, width) < 32 or channels not in (1, 3):
            raise ValueError(
                "vgg16 needs grey or RGB images of 32 × 32 pixels or more; got "
                f"{height} × {width} × {channels}"
            )
        layers: list[nn.Module] = []
        n_in = 3
        for filters in LAYOUT:
            if filters:
                layers += [nn.Conv2d(n_in, filters, 3, padding=1), nn.ReLU()]
                n_in = filters
            else:
                layers.append(nn.MaxPool2d(2))
        self.base = nn.Sequential(*layers)
        self.average = nn.AdaptiveAvgPool2d(7 if top else 1)
        self.flatten = nn.Flatten()
        last = [nn.Dropout(dropout), nn.Linear(4096 if top else n_in, n_classes)]
        if top:
            first: list[nn.Module] = [nn.Linear(n_in * 49, 4096), nn.ReLU(), nn.Dropout(dropout)]
            second: list[nn.Module] = [nn.Linear(4096, 4096), nn.ReLU()]
            self.classifier = nn.Sequential(*first, *second, *last)
        else:
            self.classifier = nn.Sequential(*last)
        self.n_features = 4096 if top else n_in
        self.top = top
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        initialise(self)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer."""
        head = self.classifier[-1]
        assert isinstance(head, nn.Linear)
        return head

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, C, H, W)`` to what the head sees, ``(n, n_features)``, before dropout."""
        x = ((x + 1) / 2 - self.mean) / self.deviation  # grey becomes three channels here
        return self.classifier[:-2](self.flatten(self.average(self.base(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of float32 images ``(n, C, H, W)`` in [-1, 1]."""
        return self.classifier[-2:](self.features(x))

    def load_torchvision(self, state: Mapping[str, torch.Tensor], where: str = "weights") -> None:
        """Copy torchvision's (or timm's) weights; the last layer only if it has as many classes.

        Parameters
        ----------
        state : mapping of str to Tensor
            ``features.N.weight`` … and, with `top`, ``classifier.N.weight`` …
        where : str
            For messages.

        Raises
        ------
        ModelFileError
            If a tensor is absent or of another shape.
        """
        state = dict(state)
        for ours, theirs in (("0", "pre_logits.fc1"), ("3", "pre_logits.fc2"), ("6", "head.fc")):
            for kind in ("weight", "bias"):
                tensor = state.pop(f"{theirs}.{kind}", None)
                if tensor is not None:
                    state[f"classifier.{ours}.{kind}"] = tensor.flatten(1 if kind[0] == "w" else 0)
        with torch.no_grad():
            for name, own in self.state_dict().items():
                is_head = name.startswith(f"classifier.{len(self.classifier) - 1}.")
                if is_head and not self.top:
                    continue
                theirs = name.replace("base.", "features.", 1)
                if theirs not in state:
                    raise ModelFileError(
                        f"{where} has no tensor {theirs!r}: it isn't torchvision's VGG16"
                    )
                if state[theirs].shape != own.shape:
                    if is_head:
                        continue
                    raise ModelFileError(
                        f"{where}: {theirs!r} has shape {tuple(state[theirs].shape)}, VGG16 needs "
                        f"{tuple(own.shape)}"
                    )
                own.copy_(state[theirs])
