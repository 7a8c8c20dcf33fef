"""Low-rank copies on a GPU: the same choices, by batched products and eigenproblems there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise.lowrank._colours import FROM_LUMA_CHROMA, LUMA_CHROMA, matrices_per_image
from rankwise.lowrank._layout import Layout, integer_range
from rankwise.lowrank._matrices import Wanted, choose_ranks
from rankwise.lowrank.options import LowRankOptions, OptionError

# Entries of the float64 Gram matrices and vectors of one block: 1 GiB with the work space.
_BLOCK_ENTRIES = 2**25


def approximate_on_device(
    images: torch.Tensor, layout: Layout, wanted: Wanted, options: LowRankOptions, clip: bool
) -> tuple[torch.Tensor, NDArray[np.intp]]:
    """`rankwise.lowrank.reconstruct.approximate`, wherever the tensor lives.

    One batched float64 eigenproblem of the Gram matrices; only singular values and ranks visit the
    CPU. Ranks are those of a float64 SVD here too.
    """
    group = matrices_per_image(layout, options)
    source = images.detach().as_subclass(torch.Tensor)
    planes = layout.planes(source)
    targets, count = wanted.values.shape
    result = source.expand(targets, *source.shape).clone(memory_format=torch.contiguous_format)
    rebuilt = layout.planes(result, leading=1)
    ranks = np.empty((targets, count, group), np.intp)
    step = max(1, _BLOCK_ENTRIES // (min(planes.shape[-2:]) ** 2 * group))
    for start in range(0, count, step):
        block = slice(start, min(start + step, count))
        copies, ranks[:, block] = _copy_block(planes[block], wanted.of(block), options, clip, group)
        # Dtypes' own rounding is towards zero; `copies` are whole numbers where integers are due.
        rebuilt[:, block] = copies.to(source.dtype)
        whole = ranks[:, block] >= min(planes.shape[-2:])
        for target, image in zip(*np.nonzero(whole.all(axis=-1)), strict=True):
            rebuilt[target, start + image] = planes[start + image]
    ranks = ranks.reshape(targets, *layout.batch, group)
    return result.as_subclass(type(images)), ranks


def _copy_block(
    planes: torch.Tensor, wanted: Wanted, options: LowRankOptions, clip: bool, group: int
) -> tuple[torch.Tensor, NDArray[np.intp]]:
    count, colours, height, width = planes.shape
    work = planes.to(torch.float64)
    exponent: torch.Tensor | None = None
    low, high = work.amin(dim=(1, 2, 3), keepdim=True), work.amax(dim=(1, 2, 3), keepdim=True)
    if planes.dtype.is_floating_point:
        if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
            raise OptionError("the images hold values that aren't finite (NaN or infinity)")
        exponent = torch.frexp(torch.maximum(low.abs(), high.abs()))[1]
        work = torch.ldexp(work, -exponent)
    split = options.channels == "luma-chroma" and colours == 3
    if split:
        work = _mix(work, LUMA_CHROMA)
    if options.channels == "joint":
        matrices = work.transpose(1, 2).reshape(count, height, colours * width)
    else:
        matrices = work.reshape(count * group, height, width)
    copies, ranks = _rebuild(matrices, group, wanted, options)
    if options.channels == "joint":
        copies = copies.reshape(-1, count, height, colours, width).transpose(2, 3)
    else:
        copies = copies.reshape(-1, count, colours, height, width)
    if split:
        copies = _mix(copies, FROM_LUMA_CHROMA)
    if exponent is not None:
        copies = torch.ldexp(copies, exponent)
        return (torch.clamp(copies, low, high) if clip else copies), ranks
    limits = integer_range(np.dtype(str(planes.dtype).removeprefix("torch.")))
    if limits is None or limits[1] > 2**53:
        raise OptionError(f"images must be floats or integers below 2⁵³, not {planes.dtype}")
    return copies.round_().clamp_(limits[0], limits[1]), ranks


def _rebuild(
    matrices: torch.Tensor, group: int, wanted: Wanted, options: LowRankOptions
) -> tuple[torch.Tensor, NDArray[np.intp]]:
    height, width = matrices.shape[-2:]
    left = height <= width
    turned = matrices.mT
    values, vectors = torch.linalg.eigh(matrices @ turned if left else turned @ matrices)
    sigma = values.clamp(min=0).sqrt().flip(-1).cpu().numpy()
    order = sigma.shape[-1]

    def exact(image: int) -> NDArray[np.float64]:
        chosen = matrices[image * group : (image + 1) * group]
        return np.linalg.svd(chosen.cpu().numpy(), compute_uv=False)

    ranks = choose_ranks(
        sigma.reshape(-1, group, order), max(height, width), wanted, options, exact
    )
    flat = torch.from_numpy(ranks.reshape(len(ranks), -1)).to(matrices.device)
    vectors = vectors.flip(-1)
    weights = vectors.mT @ matrices if left else matrices @ vectors
    places = torch.arange(order, device=matrices.device)
    kept = (places < flat[..., None]).to(matrices.dtype)
    # A_k = U (mask ∘ UᵀA): one pair of products for any mix of ranks.
    if left:
        return vectors @ (weights * kept[..., None]), ranks
    return (weights * kept[..., None, :]) @ vectors.mT, ranks


def _mix(planes: torch.Tensor, weights: NDArray) -> torch.Tensor:
    matrix = torch.from_numpy(weights).to(planes)
    return (matrix @ planes.flatten(-2)).reshape(planes.shape)
