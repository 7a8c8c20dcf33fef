"""The fifteen corruptions of ImageNet-C, by the library that its authors' code lives on in.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations" (ICLR 2019): noise, blur, weather and digital corruptions, five severities each, from
``imagecorruptions`` (the fork ``imagecorruptions-imaug`` is the one that goes on). Its parameters
are lengths in pixels, made for 224 × 224; it takes images of 32 × 32 at least.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._process import numpy_seeded
from rankwise.errors import DataError, MissingDependencyError

NAMES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SMALLEST_SIDE = 32


def check_images(image_shape: tuple[int, ...]) -> None:
    """Refuse what the corruptions can't be made of, before anything runs.

    Raises
    ------
    MissingDependencyError
        If the library isn't installed.
    DataError
        If the images are too small.
    """
    _library()
    if min(image_shape[:2]) < SMALLEST_SIDE:
        height, width = image_shape[:2]
        raise DataError(
            f"ImageNet-C's corruptions need images of {SMALLEST_SIDE} × {SMALLEST_SIDE} pixels at "
            f"least, and these have {height} × {width}; give the data set a larger size, or use "
            "corruptions = 'own'"
        )


def corrupt(
    images: NDArray[np.uint8], name: str, severity: int, *, seed: int = 42
) -> NDArray[np.uint8]:
    """Corrupt a batch; each image's result depends on that image and `seed` alone.

    Parameters
    ----------
    images : ndarray of uint8, (n, H, W) or (n, H, W, 3)
        Grey ones are corrupted as colour ones, and are grey again as the mean of the channels.
    name : str
        One of `NAMES`.
    severity : int
        1 to 5.
    seed : int

    Returns
    -------
    corrupted : ndarray of uint8, the shape of `images`

    Raises
    ------
    MissingDependencyError
        If the library isn't installed.
    ValueError
        For an unknown name or severity.
    """
    if name not in NAMES or severity not in range(1, 6):
        raise ValueError(
            f"{name!r}, severity {severity!r}, is no corruption of ImageNet-C; accepted: "
            f"{', '.join(NAMES)}, severities 1 to 5"
        )
    library = _library()
    found = np.empty_like(images)
    for image, target in zip(images, found, strict=True):
        grey = image.ndim == 2 or image.shape[-1] == 1
        colour = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=-1) if grey else image
        digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=4)
        digest.update(str(seed).encode())
        with numpy_seeded(int.from_bytes(digest.digest(), "little")):
            changed = library.corrupt(
                np.ascontiguousarray(colour), corruption_name=name, severity=severity
            )
        target[...] = (
            np.rint(changed.mean(axis=-1)).reshape(image.shape).astype(np.uint8)
            if grey
            else changed
        )
    return found


def _library() -> Any:
    try:
        import imagecorruptions
    except ImportError as error:
        raise MissingDependencyError(
            "corruptions = 'imagenet-c' needs a library: pip install 'rankwise[imagenet-c]'"
        ) from error
    return imagecorruptions
