"""Augmentations of other libraries by name, such as ``kornia:RandomBoxBlur``.

============== ========================================= =================================
library        where NAME is                             what it gets
============== ========================================= =================================
albumentations ``albumentations``                        an image at a time, uint8
torchvision    ``torchvision.transforms.v2``             an image at a time, uint8
kornia         ``kornia.augmentation``                   a whole batch, float in [0, 1]
============== ========================================= =================================

What comes out is an image like what went in: uint8, or floats that are cut to [0, 1].
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankwise._process import torch_seeded
from rankwise.errors import MissingDependencyError
from rankwise.study.design import StudyError
from rankwise.study.design_parts import Arm

if TYPE_CHECKING:
    import torch

Images = NDArray[np.uint8]

_PLACES = {
    "albumentations": "albumentations",
    "torchvision": "torchvision.transforms.v2",
    "kornia": "kornia.augmentation",
}


_TRIALS = 4
_BEYOND = 0.25
"""How far outside, as a share of the range, an image's mean may be: noise alone is nearer."""


class LibraryAugmentation:
    """An augmentation of a library, on uint8 images or on the float batches of a training.

    Its random choices come from a seed or, on batches, from PyTorch's generator, whose state the
    training keeps.

    Parameters
    ----------
    arm : Arm
        Of a kind ``library:NAME``.

    Raises
    ------
    MissingDependencyError
        If the library isn't installed.
    StudyError
        If it has no such augmentation, or doesn't take the parameters.
    """

    def __init__(self, arm: Arm) -> None:
        self.kind, self.parameters = arm.kind, arm.parameters
        self.library, _, self.name = arm.kind.partition(":")
        self.module = _module_of(self.library, arm.kind)
        make = getattr(self.module, self.name, None)
        if not isinstance(make, type):
            raise StudyError(
                f"{arm.kind}: {_PLACES[self.library]} has no {self.name}; the name of one of its "
                "classes is accepted"
            )
        try:
            self.change = make(**arm.parameters)
            if self.library == "albumentations":
                self.change = self.module.Compose([self.change])
        except Exception as error:  # whatever somebody else's code raises
            lines = str(error).splitlines() or ["no message"]
            raise StudyError(
                f"{arm.kind} doesn't take these parameters: {type(error).__name__}: {lines[0]}"
            ) from error

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Refuse an augmentation of floats that leaves their range; uint8 images can't.

        Raises
        ------
        StudyError
        """
        if self.library == "kornia":
            check_range(self.kind, self.change, image_shape, 0, 1)

    def fingerprint_parts(self) -> Any:
        """Name, arguments, version: what it draws comes from outside."""
        return self.kind, self.parameters, version_of(self.library)

    def on_images(self, images: Images, seed: int) -> Images:
        """Changed uint8 images ``(n, H, W[, C])``."""
        if self.library == "albumentations":
            self.change.set_random_seed(seed)
            return np.stack([np.asarray(self.change(image=image)["image"]) for image in images])
        import torch

        planes = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
        with torch_seeded(seed), torch.no_grad():
            batch = torch.from_numpy(np.ascontiguousarray(planes))
            if self.library == "kornia":
                found = self.change(batch.float() / 255) * 255
                batch = found.round().clamp(0, 255).to(torch.uint8)
            else:
                batch = torch.stack([self.change(image) for image in batch])
        changed = batch.numpy()
        return changed[:, 0] if images.ndim == 3 else np.moveaxis(changed, 1, -1)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """A changed float batch ``(n, C, H, W)`` in [-1, 1]."""
        import torch

        if self.library == "kornia":
            changed = self.change((batch + 1) / 2).clamp(0, 1) * 2 - 1
        else:
            pixels = ((batch.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            images = np.ascontiguousarray(np.moveaxis(pixels.numpy(), 1, -1))
            images = images[..., 0] if images.shape[-1] == 1 else images
            found = self.on_images(images, int(torch.randint(2**31, ())))
            if found.dtype != np.uint8:
                raise StudyError(
                    f"an arm of kind {self.kind!r} made images of type {found.dtype}; uint8 is "
                    "accepted"
                )
            planes = found[:, None] if found.ndim == 3 else np.moveaxis(found, -1, 1)
            changed = torch.from_numpy(np.ascontiguousarray(planes)).float() / 127.5 - 1
        if changed.shape != batch.shape:
            raise StudyError(
                f"{self.kind} turned a batch of shape {tuple(batch.shape)} into one of shape "
                f"{tuple(changed.shape)}; it must keep the shape"
            )
        return changed.to(batch.device, batch.dtype)


def check_range(
    name: str,
    change: Callable[[torch.Tensor], Any],
    image_shape: tuple[int, ...],
    low: float,
    high: float,
) -> None:
    """Try dark and bright images: what comes out must lie where they do, but for some noise.

    Parameters
    ----------
    name : str
        What to call the augmentation.
    change : callable
        From a float batch of values from `low` to `high` to another.
    image_shape : tuple of int
    low, high : float

    Raises
    ------
    StudyError
        If whole images leave that range, as normalized ones do.
    """
    import torch

    channels = image_shape[2] if len(image_shape) == 3 else 1
    beyond = _BEYOND * (high - low)
    with torch_seeded(), torch.no_grad():
        for _ in range(_TRIALS):
            noise = torch.rand(2, channels, *image_shape[:2]) / 5
            noise[1] = 1 - noise[1]
            found = change(low + noise * (high - low))
            for mean in found.double().flatten(1).mean(dim=1).tolist():
                if not low - beyond <= mean <= high + beyond:
                    raise StudyError(
                        f"{name} turned an image of values from {low:g} to {high:g} into one whose "
                        f"mean is {mean:.2f}; it must keep to that range, in which networks are "
                        "tested"
                    )


def version_of(library: str) -> str:
    """The version of a library that is there."""
    return str(getattr(importlib.import_module(library), "__version__", "unknown"))


def _module_of(library: str, kind: str) -> Any:
    try:
        return importlib.import_module(_PLACES[library])
    except ImportError as error:
        raise MissingDependencyError(
            f"the arm {kind} needs a library: pip install {library}"
        ) from error
