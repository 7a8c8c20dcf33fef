"""Images as people hold them, seen as planes (images, channels, height, width) and put back."""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank.options import OptionError

_MOST_CHANNELS_GUESSED = 4


@dataclass(frozen=True)
class Layout:
    """Where the axes of an array of images are.

    Attributes
    ----------
    shape : tuple of int
        Of the whole array.
    channel_axis : int or None
        Negative, or None where images have no channel axis.
    alpha : bool
        Whether the last channel is transparency, to be left alone.
    """

    shape: tuple[int, ...]
    channel_axis: int | None
    alpha: bool

    @property
    def batch(self) -> tuple[int, ...]:
        """The axes before those of one image."""
        return self.shape[: -2 if self.channel_axis is None else -3]

    @property
    def images(self) -> int:
        """The number of images."""
        return math.prod(self.batch)

    @property
    def colours(self) -> int:
        """The number of channels that an approximation touches."""
        if self.channel_axis is None:
            return 1
        return self.shape[self.channel_axis] - self.alpha

    def planes(self, array: Any, leading: int = 0) -> Any:
        """View `array` as (…, images, colours, height, width), after `leading` further axes.

        A view wherever the array's strides allow one, so writing into it writes into a fresh array.
        """
        head = tuple(array.shape[:leading])
        count = self.images
        if self.channel_axis is None:
            return array.reshape(*head, count, 1, *self.shape[-2:])
        flat = array.reshape(*head, count, *self.shape[-3:])
        if self.channel_axis == -1:
            flat = flat.transpose(*range(leading + 1), leading + 3, leading + 1, leading + 2)
        elif self.channel_axis == -2:
            flat = flat.transpose(*range(leading + 1), leading + 2, leading + 1, leading + 3)
        return flat[..., : self.colours, :, :]


def is_tensor(images: Any) -> bool:
    """Whether `images` is a torch tensor, without importing torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(images, torch.Tensor)


def tensor_to_array(tensor: Any) -> NDArray:
    """A CPU tensor's values; bfloat16, which numpy lacks, as float32."""
    detached = tensor.detach()
    return (detached.float() if str(detached.dtype) == "torch.bfloat16" else detached).numpy()


def array_to_tensor(array: NDArray, like: Any) -> Any:
    """A tensor of the dtype and the class of `like` (torchvision's images stay what they are)."""
    import torch

    return torch.from_numpy(array).to(like.dtype).as_subclass(type(like))


def typed_like(result: Any, images: Any) -> Any:
    """`result` in the class of the tensor `images`: indexing and reshaping unwrap torchvision's."""
    if is_tensor(images) and type(result) is not type(images):
        return result.as_subclass(type(images))
    return result


def checked_axis(channel_axis: Any) -> Any:
    """A whole number of any type as Python's own, None, or ``"auto"``.

    Raises
    ------
    OptionError
        For anything else.
    """
    if channel_axis is None or (isinstance(channel_axis, str) and channel_axis == "auto"):
        return channel_axis
    try:
        if not isinstance(channel_axis, bool):
            return operator.index(channel_axis)
    except TypeError:
        pass
    raise OptionError(f"channel_axis must be an integer, None or 'auto', not {channel_axis!r}")


@lru_cache  # a transform sees the same shape again and again
def read_layout(
    shape: tuple[int, ...],
    *,
    is_tensor: bool,
    channel_axis: int | str | None = "auto",
    alpha: bool | None = None,
) -> Layout:
    """Find the axes: tensors ``…×C×H×W`` or ``H×W``, arrays ``…×H×W×C`` or ``H×W``.

    The axis is one that `checked_axis` gave.

    Raises
    ------
    OptionError
        If the shape can't hold images, or could mean two things and `channel_axis` isn't given.
    """
    if len(shape) < 2:
        raise OptionError(f"an image has at least two axes; this shape is {shape}")
    if isinstance(channel_axis, str):
        axis = _guess_axis(shape, is_tensor)
    elif channel_axis is None:
        axis = None
    else:
        axis = channel_axis - len(shape) if channel_axis >= 0 else channel_axis
        if len(shape) < 3 or axis not in (-1, -2, -3):
            raise OptionError(
                f"channel_axis={channel_axis} isn't one of the last three axes of shape {shape}"
            )
    channels = 1 if axis is None else shape[axis]
    if alpha is None:
        alpha = channels == 4
    if alpha and channels < 2:
        raise OptionError("alpha=True needs at least two channels")
    layout = Layout(shape, axis, bool(alpha))
    if channels == 0 or 0 in (shape[-2:] if axis is None else shape[-3:]):
        raise OptionError(f"images of shape {shape} are empty")
    return layout


def _guess_axis(shape: tuple[int, ...], is_tensor: bool) -> int | None:
    if len(shape) == 2:
        return None
    if is_tensor:
        return -3
    if shape[-1] <= _MOST_CHANNELS_GUESSED:
        return -1
    raise OptionError(
        f"an array of shape {shape} could be a stack of grey images or one image with"
        f" {shape[-1]} channels: pass channel_axis=None or channel_axis=-1"
    )


@lru_cache
def integer_range(dtype: np.dtype) -> tuple[int, int] | None:
    """Smallest and largest value of an integer type; None for floats.

    Raises
    ------
    OptionError
        For types that hold no grey levels (booleans, complex numbers, objects).
    """
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    if dtype.kind == "f":
        return None
    raise OptionError(f"images must be integers or floats, not {dtype}")


@lru_cache
def working_dtype(dtype: np.dtype) -> type[np.float32] | type[np.float64]:
    """Float32 where it holds the input exactly, float64 elsewhere."""
    exact = dtype.itemsize <= 2 if dtype.kind in "iu" else dtype.itemsize <= 4
    return np.float32 if exact else np.float64


def colour_limits(planes: NDArray) -> tuple[NDArray, NDArray]:
    """Smallest and largest value of each image over its channels, (images, 1, 1, 1).

    Raises
    ------
    OptionError
        If an image holds NaN or infinity.
    """
    low = planes.min(axis=(1, 2, 3), keepdims=True)
    high = planes.max(axis=(1, 2, 3), keepdims=True)
    finite = np.isfinite(low) & np.isfinite(high)
    if not finite.all():
        first = int(np.flatnonzero(~finite.reshape(-1))[0])
        where = f"image {first}" if len(planes) > 1 else "the image"
        raise OptionError(f"{where} holds values that aren't finite (NaN or infinity)")
    return low, high
