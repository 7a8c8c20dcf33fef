"""What happens before and after a pre-trained network: the middle of images, its side, its pixels.

Resizing is linear and goes axis by axis, so it is a matrix for the rows and one for the columns.
The same two matrices serve torch and ONNX, which then agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float

_CUBIC = -0.5  # Keys (1981), Pillow's and TensorFlow's


@dataclass(frozen=True)
class Preparation:
    """How images become what the weights expect, and features what a linear layer likes.

    Attributes
    ----------
    channels : int or None
        Channels that the network takes: grey images are repeated to that many. None takes any.
    mean, std : tuple of float, optional
        Of pixels in [0, 1], channel by channel or one for all. Without, they stay in [-1, 1].
    size : int, optional
        Side of the square that the network takes, bicubic, smoothed where it shrinks. None takes
        images as they are.
    crop : float, default=1.0
        Share of the shorter side that the square has which is taken from the middle: 0.875 is the
        usual evaluation on ImageNet. Above 0, at most 1.
    power : float, default=1.0
        Exponent of the features' magnitudes, their signs kept; above 0, at most 1. Means of ReLU
        maps are skewed, and 0.5, their square roots, made up to a seventh fewer errors at no cost
        (`benchmarks/expansion.py`).
    """

    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    crop: float = 1.0
    power: float = field(default=1.0, repr=False)  # fingerprints of older files know no power

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are of one normalisation; give both or neither")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, tuple(float(v) for v in values))
        if self.mean is not None and not np.isfinite(self.mean).all():
            raise ValueError(f"mean must be finite, got {self.mean}")
        if self.std is not None and not all(0 < v < np.inf for v in self.std):
            raise ValueError(f"std must be above 0 and finite, got {self.std}")
        self._check_lengths(self.channels)
        if self.size is not None and not (self.size >= 1 and self.size % 1 == 0):
            raise ValueError(f"size must be a whole number of pixels, at least 1, got {self.size}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is a share above 0, at most 1; got {self.crop}")
        if not 0 < self.power <= 1:
            raise ValueError(f"power is an exponent above 0, at most 1; got {self.power}")

    def _check_lengths(self, channels: int | None) -> None:
        """Refuse a mean or std that isn't one for all channels, or one for each."""
        if self.mean is None or self.std is None:
            return
        channels = channels or max(1, len(self.mean), len(self.std))
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{name} has {len(values)} value(s) for {channels} channel(s); one for all of "
                    "them or one for each is accepted"
                )

    @property
    def reading_size(self) -> int | None:
        """Side at which images of mixed sizes are best read: the crop then takes `size` of it."""
        return None if self.size is None else round(self.size / self.crop)

    def matrices(
        self, height: int, width: int
    ) -> tuple[Float[np.ndarray, "size h"], Float[np.ndarray, "size w"]] | None:
        """What takes the middle and resizes it, for images of a size; None where nothing does."""
        if self.size is None:
            return None
        side = min(height, width) * self.crop
        if self.crop == 1.0 and (height, width) == (self.size, self.size):
            return None
        return tuple(  # type: ignore[return-value] # two of them
            resize_matrix(n, self.size, (n - side) / 2, side) for n in (height, width)
        )

    def affine(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Factor and shift of each channel, for pixels in [-1, 1]; None where there is none."""
        if self.mean is None or self.std is None:
            return None
        mean, std = np.array(self.mean), np.array(self.std)
        return 0.5 / std, (0.5 - mean) / std

    def __call__(self, x: torch.Tensor, name: str = "the network") -> torch.Tensor:
        """Images ``(n, C, H, W)`` in [-1, 1] as the network takes them."""
        if self.channels is not None and x.shape[1] != self.channels:
            if x.shape[1] != 1:
                raise ValueError(
                    f"backbone {name} takes images of {self.channels} channel(s), got {x.shape[1]}"
                )
            x = x.expand(-1, self.channels, -1, -1)
        found = self.matrices(x.shape[2], x.shape[3])
        if found is not None:
            rows, columns = (x.new_tensor(m) for m in found)
            x = rows @ (x @ columns.T)
        normal = self.affine()
        if normal is not None:
            self._check_lengths(x.shape[1])
            factor, shift = (x.new_tensor(v).view(1, -1, 1, 1) for v in normal)
            x = x * factor + shift
        return x

    def raised(self, features: torch.Tensor) -> torch.Tensor:
        """Features with `power` taken of their magnitudes."""
        if self.power == 1.0:
            return features
        return features.sign() * features.abs() ** self.power


@lru_cache(maxsize=64)
def resize_matrix(n: int, size: int, begin: float, length: float) -> Float[np.ndarray, "size n"]:
    """Bicubic resizing of the part ``[begin, begin + length)`` of `n` pixels to `size`.

    Where it shrinks, the kernel is widened by the factor, as Pillow's is, so that nothing aliases.
    Rows sum to one. float64; it isn't to be written to.
    """
    scale = length / size
    wide = max(scale, 1.0)
    centres = begin + (np.arange(size) + 0.5) * scale
    distance = np.abs((np.arange(n) + 0.5 - centres[:, None]) / wide)
    a = _CUBIC
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    found = weights / weights.sum(axis=1, keepdims=True)
    found.setflags(write=False)
    return found
