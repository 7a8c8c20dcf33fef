"""Low-rank approximation of images for an energy or a rank (Eckart and Young)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._colours import (
    FROM_LUMA_CHROMA,
    LUMA_CHROMA,
    matrices_per_image,
    mix_colours,
)
from rankwise.lowrank._layout import (
    Layout,
    array_to_tensor,
    checked_axis,
    colour_limits,
    integer_range,
    is_tensor,
    read_layout,
    tensor_to_array,
    typed_like,
    working_dtype,
)
from rankwise.lowrank._matrices import Wanted, rebuild_matrices
from rankwise.lowrank._small import fits, rebuild_small
from rankwise.lowrank.options import (
    LowRankOptions,
    OptionError,
    resolve_options,
)
from rankwise.lowrank.ranks import check_energies

# Entries of the Gram matrices of one block of images. Smaller blocks pay more calls into numpy for
# an image (at 100×100, 16,000 costs 2.4 ms an image, 256,000 1.9 ms), larger ones gain nothing.
_BLOCK_ENTRIES = 256_000

# Largest absolute values of floats between which neither squares nor their sums leave any type.
_LEAST, _MOST = 1e-12, 1e12


def low_rank_approximation(
    images: Any,
    *,
    energy: Any = None,
    rank: Any = None,
    energy_of: str | None = None,
    rank_rule: str | None = None,
    channels: str | None = None,
    reference: str = "paper",
    channel_axis: Any = "auto",
    alpha: bool | None = None,
    clip: bool = True,
    return_rank: bool = False,
) -> Any:
    """Rebuild images from their leading singular values, ``A_k = Σ_{i≤k} σ_i u_i v_iᵀ``.

    Section 2 of the paper (equations 3 and 4): no matrix of rank k is nearer to A in the Frobenius
    norm. Computed as ``U_k U_kᵀ A``, from the eigenvectors of the smaller Gram matrix, or as
    ``A − U_d U_dᵀ A`` where fewer singular values are dropped than kept. The rank is that of a
    float64 SVD, for every image; see ``docs/method.md`` for how.

    Parameters
    ----------
    images : torch.Tensor or ndarray
        Tensors ``(…, channels, height, width)``, arrays ``(…, height, width, channels)``, or
        ``(height, width)``. Integers, or floats of any range. Never modified.
    energy : float or sequence of float, optional
        Share of the spectrum to keep, in (0, 1]; 1 gives the images themselves. Several give
        several results from one decomposition. The paper draws it near 0.975 (section 3.3).
    rank : int or sequence of int, optional
        Singular values to keep, from 1; instead of `energy`. A rank of at least
        ``min(height, width)`` gives the images themselves.
    energy_of : {"sigma", "sigma_squared"}, optional
        What the energy sums. Paper (section 3.3) and notebook: ``"sigma"``.
    rank_rule : {"reach", "nearest"}, optional
        The first rank that reaches the energy (paper), or the nearest to it (notebook).
    channels : {"own", "shared", "luma-chroma", "joint"}, optional
        A rank for each channel (paper, section 2.3), one rank from the mean of the channels'
        energies (notebook), own ranks of Y, Cb and Cr, or one matrix with the channels side by
        side. See `LowRankOptions`.
    reference : {"paper", "notebook"}
        Whose choice holds for the three options above where they aren't given.
    channel_axis : int, None or "auto"
        Where the channels are. ``"auto"``: the third axis from the end of tensors, the last of
        arrays if it has at most 4 entries; None: images without channels.
    alpha : bool, optional
        Whether the last channel is transparency and stays as it is. Default: if there are four.
    clip : bool
        Keep floats within the smallest and largest value of their own image, as integers are kept
        within their type. Cutting at bounds that hold for the original never moves the copy away
        from it. Neither paper nor notebook cuts; False gives their exact rank.
    return_rank : bool
        Return the ranks as well.

    Returns
    -------
    approximation : torch.Tensor or ndarray
        Type, dtype, device and shape of `images`; a leading axis for several energies or ranks.
    rank : ndarray of int, ([targets,] …, matrices)
        With `return_rank`: the rank of each channel, or of the one joint matrix.

    Raises
    ------
    OptionError
        For unknown options, energies outside (0, 1], ranks below 1, shapes that could mean two
        things, types that aren't numbers, and values that aren't finite.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.outer([1, 2, 3], [4, 5, 6]).astype(np.uint8)
    >>> copy, rank = low_rank_approximation(image, energy=0.9, return_rank=True)
    >>> bool((copy == image).all()), rank.tolist()
    (True, [1])
    """
    options = resolve_options(reference, energy_of, rank_rule, channels)
    if (energy is None) == (rank is None):
        raise OptionError("give either energy or rank")
    targets = check_energies(energy) if rank is None else _check_ranks(np.asarray(rank))
    if targets.ndim > 1:
        raise OptionError("several energies or ranks are given as a flat sequence")
    layout = layout_of(images, channel_axis, alpha)
    values: NDArray = targets.reshape(-1, 1)
    if layout.images != 1:
        values = np.repeat(values, layout.images, axis=1)
    wanted = Wanted(values, rank is not None)
    result, ranks = approximate(images, layout, wanted, options, clip)
    if targets.ndim == 0:
        result, ranks = result[0], ranks[0]
    result = typed_like(result, images)
    return (result, ranks) if return_rank else result


def layout_of(images: Any, channel_axis: Any = "auto", alpha: bool | None = None) -> Layout:
    """The layout of a tensor or an array (see `read_layout`).

    Raises
    ------
    OptionError
        If `images` is neither, its shape is unclear, or `channel_axis` is no axis.
    """
    tensor = is_tensor(images)
    if not tensor and not isinstance(images, np.ndarray):
        kind = type(images).__name__
        raise OptionError(f"images must be a torch tensor or a numpy array, not {kind}")
    return read_layout(
        tuple(images.shape),
        is_tensor=tensor,
        channel_axis=checked_axis(channel_axis),
        alpha=alpha,
    )


def approximate(
    images: Any, layout: Layout, wanted: Wanted, options: LowRankOptions, clip: bool = True
) -> tuple[Any, NDArray[np.intp]]:
    """`low_rank_approximation` for ready options and a target for every single image.

    Parameters
    ----------
    wanted : Wanted, (targets, images)
        Images in the order of the flattened batch axes.

    Returns
    -------
    approximation : torch.Tensor or ndarray, (targets, *images.shape)
    ranks : ndarray of int, (targets, *batch, matrices)
    """
    if not is_tensor(images):
        return _approximate_array(images, layout, wanted, options, clip)
    if images.device.type != "cpu":
        from rankwise.lowrank._device import approximate_on_device

        return approximate_on_device(images, layout, wanted, options, clip)
    result, ranks = _approximate_array(tensor_to_array(images), layout, wanted, options, clip)
    return array_to_tensor(result, images), ranks


def _check_ranks(ranks: NDArray) -> NDArray[np.intp]:
    if ranks.size == 0:
        raise OptionError("rank is an empty sequence; at least one integer from 1 is accepted")
    if ranks.dtype.kind not in "iu" or ranks.min() < 1:
        raise OptionError(f"rank must be integers from 1, not {ranks.tolist()}")
    return ranks.astype(np.intp)


def _approximate_array(
    images: NDArray, layout: Layout, wanted: Wanted, options: LowRankOptions, clip: bool
) -> tuple[NDArray, NDArray[np.intp]]:
    images = np.asarray(images)  # a masked array's values, whatever its mask
    limits = integer_range(images.dtype)
    group = matrices_per_image(layout, options)
    planes = layout.planes(images)
    targets, count = wanted.values.shape
    if count == 1 and options.channels in ("own", "shared") and fits(planes.shape[1:], wanted):
        small = _approximate_small(images, planes[0], layout, wanted, options, limits, clip)
        if small is not None:
            return small
    result = np.empty((targets, *images.shape), images.dtype)
    if layout.alpha:
        result[...] = images
    rebuilt = layout.planes(result, leading=1)
    ranks = np.empty((targets, count, group), np.intp)
    order = min(planes.shape[-2:])
    step = max(1, _BLOCK_ENTRIES // (order * order * group))
    for start in range(0, count, step):
        block = slice(start, start + step)
        ranks[:, block] = _approximate_block(
            planes[block], wanted.of(block), options, limits, clip, group, rebuilt[:, block]
        )
    return result, ranks.reshape(targets, *layout.batch, group)


def _approximate_small(
    images: NDArray,
    planes: NDArray,
    layout: Layout,
    wanted: Wanted,
    options: LowRankOptions,
    limits: tuple[int, int] | None,
    clip: bool,
) -> tuple[NDArray, NDArray[np.intp]] | None:
    """`_approximate_array` for one small image, where `rebuild_small` serves.

    Integers have 8 or 16 bits; floats are of a size that needs no scaling.
    """
    matrices = planes.astype(working_dtype(planes.dtype), order="C")
    largest: int | None = None
    low = high = np.float64(0)
    if limits is not None:
        if matrices.dtype != np.float32:
            return None
        largest = max(-limits[0], limits[1])
    else:
        low, high = matrices.min(), matrices.max()
        if not _LEAST < max(-low, high) < _MOST:  # also where a value is NaN
            return None
    found = rebuild_small(matrices, wanted, options, largest)
    if found is None:
        return None
    copies, ranks = found
    if limits is not None:
        np.rint(copies, out=copies)
        _clip_to_type(copies, limits)
    elif clip:
        np.minimum(np.maximum(copies, low, out=copies), high, out=copies)
    result = images[None].copy() if layout.alpha else np.empty((1, *images.shape), images.dtype)
    layout.planes(result, leading=1)[:, 0] = copies
    return result, ranks.reshape(1, *layout.batch, len(planes))


def _approximate_block(
    planes: NDArray,
    wanted: Wanted,
    options: LowRankOptions,
    limits: tuple[int, int] | None,
    clip: bool,
    group: int,
    out: NDArray,
) -> NDArray[np.intp]:
    count, colours, height, width = planes.shape
    work = np.ascontiguousarray(planes, dtype=working_dtype(planes.dtype))
    exponent = low = high = None
    if limits is None:
        low, high = colour_limits(work)
        # A power of two brings every image into [−1, 1], exactly: no product can overflow.
        exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1]
        work = np.ldexp(work, -exponent)
    split = options.channels == "luma-chroma" and colours == 3
    if split:
        work = mix_colours(work, LUMA_CHROMA)
    if options.channels == "joint":
        work = np.ascontiguousarray(work.transpose(0, 2, 1, 3))
        matrices = work.reshape(count, height, colours * width)
    else:
        matrices = work.reshape(count * group, height, width)
    integers = limits is not None and not split
    largest = max(abs(limits[0]), limits[1]) if limits is not None and integers else None
    small = None
    if fits(matrices.shape, wanted):
        small = rebuild_small(matrices, wanted, options, largest)
    copies, ranks = small or rebuild_matrices(matrices, group, wanted, options, largest)
    if options.channels == "joint":
        copies = copies.reshape(-1, count, height, colours, width).transpose(0, 1, 3, 2, 4)
    else:
        copies = copies.reshape(-1, count, colours, height, width)
    if split:
        copies = mix_colours(copies, FROM_LUMA_CHROMA)
    if limits is not None:
        np.rint(copies, out=copies)
        _clip_to_type(copies, limits)
    elif exponent is not None:
        with np.errstate(over="ignore"):  # next to the largest float; cut below
            copies = np.ldexp(copies, exponent)
        if clip:
            np.clip(copies, low, high, out=copies)
    for colour in range(colours):  # three times as fast as all at once, if they are interleaved
        out[:, :, colour] = copies[:, :, colour]
    _restore_whole(ranks >= min(matrices.shape[-2:]), planes, out)
    return ranks


def _clip_to_type(copies: NDArray, limits: tuple[int, int]) -> None:
    low, high = limits
    top: float = high
    if float(high) > high:  # 2⁶³ − 1 rounds up in float64: the largest float below
        top = float(np.nextafter(copies.dtype.type(high), copies.dtype.type(0)))
    np.clip(copies, float(low), top, out=copies)


def _restore_whole(whole: NDArray[np.bool_], planes: NDArray, out: NDArray) -> None:
    """Put the original where nothing was dropped: equal to the last bit, whatever the path."""
    if not whole.any():
        return
    for target, image in zip(*np.nonzero(whole.all(axis=-1)), strict=True):
        out[target, image] = planes[image]
