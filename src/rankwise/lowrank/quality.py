"""How far a copy is from its image, and what storing it in factors would save."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._layout import Layout, integer_range, is_tensor, tensor_to_array
from rankwise.lowrank.options import OptionError
from rankwise.lowrank.reconstruct import layout_of


def approximation_error(
    images: Any,
    copies: Any,
    *,
    relative: bool = True,
    channel_axis: int | str | None = "auto",
    alpha: bool | None = None,
) -> NDArray[np.float64]:
    """Frobenius norm of the difference, over all colours of an image.

    Parameters
    ----------
    images, copies : torch.Tensor or ndarray
        Of one shape; layouts as in `low_rank_approximation`.
    relative : bool
        Divide by the norm of the image: ``‖A − A_k‖_F / ‖A‖_F``; 0 for an image of zeros.
    channel_axis : int, None or "auto"
        As in `low_rank_approximation`.
    alpha : bool, optional
        Whether the last channel is transparency and left out. Default: if there are four.

    Returns
    -------
    error : ndarray of float64, (…)
        One for each image; a scalar array for a single one.

    Raises
    ------
    OptionError
        If the shapes differ or aren't those of images.
    """
    first, second, layout = _planes_of(images, copies, channel_axis, alpha)
    error = np.sqrt(((first - second) ** 2).sum(axis=(1, 2, 3)))
    if relative:
        norm = np.sqrt((first**2).sum(axis=(1, 2, 3)))
        error = np.divide(error, norm, out=np.zeros_like(error), where=norm > 0)
    return error.reshape(layout.batch)


def psnr(
    images: Any,
    copies: Any,
    *,
    data_range: float | int | None = None,
    channel_axis: int | str | None = "auto",
    alpha: bool | None = None,
) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in decibels, by torchmetrics.

    Parameters
    ----------
    images, copies : torch.Tensor or ndarray
        Of one shape; layouts as in `low_rank_approximation`.
    data_range : float, optional
        Difference of the largest and the smallest possible value. Default: that of an integer
        type; must be given for floats.
    channel_axis, alpha
        As in `approximation_error`.

    Returns
    -------
    psnr : ndarray of float64, (…)
        Infinite where the copy equals the image.

    Raises
    ------
    OptionError
        If the shapes differ, floats come without a range, or the range isn't above 0.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    first, second, span, layout = _tensors_of(images, copies, data_range, channel_axis, alpha)
    if len(first) == 0:
        return np.empty(layout.batch)
    values = peak_signal_noise_ratio(
        second, first, data_range=span, reduction="none", dim=(1, 2, 3)
    )
    return np.asarray(values).reshape(layout.batch)


def ssim(
    images: Any,
    copies: Any,
    *,
    data_range: float | int | None = None,
    channel_axis: int | str | None = "auto",
    alpha: bool | None = None,
) -> NDArray[np.float64]:
    """Structural similarity (Wang et al. 2004: Gaussian window, σ 1.5), by torchmetrics.

    Parameters and errors are those of `psnr`; images need sides of at least 11 pixels, the width
    of the window.

    Returns
    -------
    ssim : ndarray of float64, (…)
        At most 1; 1 where the copy equals the image.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second, span, layout = _tensors_of(images, copies, data_range, channel_axis, alpha)
    if min(first.shape[-2:]) < 11:
        raise OptionError("SSIM needs images of at least 11×11 pixels")
    values = [
        float(structural_similarity_index_measure(b[None], a[None], data_range=span))  # type: ignore
        for a, b in zip(first, second, strict=True)
    ]
    return np.array(values).reshape(layout.batch)


def compression_ratio(height: int, width: int, rank: Any) -> NDArray[np.float64]:
    """``H·W / (k (H + W + 1))``: numbers in a matrix over those in U_k, Σ_k and V_k.

    Below 1 the factors take more room than the matrix. The paper's images are rebuilt before use,
    so none of its storage shrinks; this says what a rank would mean if they weren't.

    Raises
    ------
    OptionError
        If a size or a rank is below 1.
    """
    ranks = np.asarray(rank)
    if min(height, width) < 1 or (ranks < 1).any():
        raise OptionError("height, width and rank must be at least 1")
    return np.asarray(height * width / (ranks * (height + width + 1.0)))


def _planes_of(
    images: Any, copies: Any, channel_axis: int | str | None, alpha: bool | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], Layout]:
    layout = layout_of(images, channel_axis, alpha)
    if not is_tensor(copies):
        copies = np.asarray(copies)
    if tuple(copies.shape) != layout.shape:
        raise OptionError(f"shapes differ: {layout.shape} and {tuple(copies.shape)}")
    first, second = (
        tensor_to_array(array.cpu()) if is_tensor(array) else array for array in (images, copies)
    )
    return (
        layout.planes(first).astype(np.float64),
        layout.planes(second).astype(np.float64),
        layout,
    )


def _tensors_of(
    images: Any,
    copies: Any,
    data_range: float | int | None,
    channel_axis: int | str | None,
    alpha: bool | None,
) -> tuple[Any, Any, float, Layout]:
    import torch

    first, second, layout = _planes_of(images, copies, channel_axis, alpha)
    if data_range is None:
        source = tensor_to_array(images[:0].cpu()) if is_tensor(images) else images
        limits = integer_range(source.dtype)
        if limits is None:
            raise OptionError("data_range must be given for images of floats")
        data_range = limits[1] - limits[0]
    elif not 0 < data_range < math.inf:
        raise OptionError(f"data_range must be a finite number above 0, not {data_range}")
    return torch.from_numpy(first), torch.from_numpy(second), float(data_range), layout
