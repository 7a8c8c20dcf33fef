"""Degraded test images: what a model meets where the camera is worse than the training data's.

Five ways, five severities each, after Hendrycks and Dietterich, "Benchmarking neural network
robustness to common corruptions and perturbations" (ICLR 2019), whose JPEG compression, blur and
noise these are; the low-rank reconstruction is the paper's (section 2.3), the down-scaling is its
"low-resolution cameras" (section 1). What measures lengths is a share of the image's side, so that
a severity means the same at 28 and at 224 pixels. Nothing here is used in training.

==========  =============================================================  ====================
kind        parameter                                                      severities 1 to 5
==========  =============================================================  ====================
svd         share of the singular values' sum that is kept (paper, 3.3)    .975 .9 .8 .65 .5
jpeg        quality of Pillow's encoder, colours subsampled 4:2:0          80 50 25 15 7
downscale   side of the small image (area means), as a share of the side;  .75 .5 .375 .25 .15
            bilinear back to the old size
blur        standard deviation of the Gaussian, as a share of the shorter  .018 .026 .036 .05 .07
            side; edges mirrored
noise       standard deviation of the Gaussian noise, as a share of 255    .04 .08 .12 .18 .26
==========  =============================================================  ====================
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import DataError

KINDS = ("svd", "jpeg", "downscale", "blur", "noise")
SEVERITIES = (1, 2, 3, 4, 5)

PARAMETERS: dict[str, tuple[float, ...]] = {
    "svd": (0.975, 0.9, 0.8, 0.65, 0.5),
    "jpeg": (80, 50, 25, 15, 7),
    "downscale": (0.75, 0.5, 0.375, 0.25, 0.15),
    "blur": (0.018, 0.026, 0.036, 0.05, 0.07),
    "noise": (0.04, 0.08, 0.12, 0.18, 0.26),
}

# Images rebuilt or filtered at once, so that float copies stay small beside the images.
_BLOCK = 1024


def degrade(
    images: NDArray[np.uint8], kind: str, severity: int, *, seed: int = 42
) -> NDArray[np.uint8]:
    """Degrade a batch of images; each image's result depends on that image and `seed` alone.

    Parameters
    ----------
    images : ndarray of uint8, (n, H, W) or (n, H, W, C)
        Grey or colour, C being 1 or 3. Never modified.
    kind : {"svd", "jpeg", "downscale", "blur", "noise"}
        See the table at the top of this module.
    severity : int
        1 (mild) to 5 (strong).
    seed : int
        Of the noise, together with the image's own bytes: neither order nor batches change it.

    Returns
    -------
    degraded : ndarray of uint8, the shape of `images`

    Raises
    ------
    DataError
        For other types or shapes of images.
    ValueError
        For an unknown kind or severity.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} isn't one of {', '.join(map(repr, KINDS))}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r} isn't one of 1, 2, 3, 4, 5")
    images = _check(images)
    parameter = PARAMETERS[kind][severity - 1]
    result = np.empty_like(images)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        if kind == "noise":
            result[block] = _noise(images[block], parameter, seed)
        else:
            result[block] = _FUNCTIONS[kind](images[block], parameter)
    return result


def check_shape(name: str, image_shape: tuple[int, ...]) -> None:
    """Refuse a data set whose images can't be degraded, before anything runs.

    Raises
    ------
    DataError
        If they are neither grey nor RGB.
    """
    if not _is_taken(image_shape):
        raise DataError(
            f"data set {name!r} has images of shape {image_shape}, and only grey and RGB ones can "
            "be degraded; grey = true for that data set, or degraded = 'none', is accepted"
        )


def _is_taken(image_shape: tuple[int, ...]) -> bool:
    """Whether images of a shape can be degraded: (H, W), or (H, W, 1 or 3)."""
    return len(image_shape) == 2 or (len(image_shape) == 3 and image_shape[-1] in (1, 3))


def _check(images: NDArray) -> NDArray[np.uint8]:
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise DataError(f"images to degrade must be uint8, not {images.dtype}")
    if not _is_taken(images.shape[1:]):
        raise DataError(
            "images to degrade must be (n, height, width) or (n, height, width, 1 or 3), not "
            f"{images.shape}"
        )
    return images


def _svd(images: NDArray[np.uint8], energy: float) -> NDArray[np.uint8]:
    from rankwise.lowrank import low_rank_approximation

    channel_axis = -1 if images.ndim == 4 else None
    # A single small image takes another path there, which may round a half the other way.
    several = np.repeat(images, 2, axis=0) if len(images) == 1 else images
    copies = low_rank_approximation(several, energy=energy, channel_axis=channel_axis, alpha=False)
    return copies[: len(images)]


def _jpeg(images: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    from PIL import Image

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(quality), subsampling="4:2:0")
        return np.asarray(Image.open(buffer))

    return _each(images, one)


def _downscale(images: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = images.shape[1:3]
    small = max(1, round(share * width)), max(1, round(share * height))

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        reduced = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        return np.asarray(reduced.resize((width, height), Image.Resampling.BILINEAR))

    return _each(images, one)


def _blur(images: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    from scipy.ndimage import gaussian_filter

    sigma = share * min(images.shape[1:3])
    sigmas = (0.0, sigma, sigma, 0.0)[: images.ndim]
    blurred = gaussian_filter(images.astype(np.float32), sigmas, mode="reflect")
    return _to_uint8(blurred)


def _noise(images: NDArray[np.uint8], share: float, seed: int) -> NDArray[np.uint8]:
    noisy = images.astype(np.float32)
    for image, target in zip(images, noisy, strict=True):
        digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
        draws = np.random.default_rng([seed, int.from_bytes(digest, "little")])
        target += 255 * share * draws.standard_normal(image.shape, dtype=np.float32)
    return _to_uint8(noisy)


def _each(
    images: NDArray[np.uint8], function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Apply `function` to every image, grey ones without their axis of one channel."""
    flat = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
    done = [function(image) for image in flat]
    return np.stack(done).reshape(images.shape) if done else images.copy()


def _to_uint8(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_FUNCTIONS: dict[str, Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]] = {
    "svd": _svd,
    "jpeg": _jpeg,
    "downscale": _downscale,
    "blur": _blur,
}
