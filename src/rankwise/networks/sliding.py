"""Forms slid over maps, in the cheaper of two ways.

With C channels, patches of k × k and rank r a unit costs ``C·k²`` multiplications a place where its
filter is composed first, and ``r·(C + k²)`` where the channels are mixed first and the result is
slid alone, map by map: the same sum in another order, equal to rounding. Which of the two is
faster isn't said by the counts: a dense convolution runs at a processor's full rate, one map alone
far below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankwise.units.convolutional import compose

if TYPE_CHECKING:
    import torch

_LARGEST_SIDE = {"float32": 5, "bfloat16": 3}
_FEWEST_CHANNELS = {("float32", 1): 8, ("float32", 2): 128, ("bfloat16", 1): 24}


def mixes_first(channels: int, rank: int, sides: tuple[int, int], precision: str) -> bool:
    """Whether mixing the channels first is the faster way, as measured, never as timed here.

    A rule, so that no result depends on what a clock said. Forward and backward on one core, 64
    maps a batch, mixing first was so many times as fast, on a Xeon with AMX, an EPYC with AVX-512
    and one with AVX2 alone (`benchmarks/ways.py` measures it again):

    =====================  ===============  ==============
    channels, rank, patch  float32          bfloat16
    =====================  ===============  ==============
    8, 1, 3×3              –, –, 1.7        –, –
    12, 1, 3×3             –, 1.7, 1.7      –, 1.3
    16, 1, 3×3             0.9, 1.0, 1.9    0.8, 1.4
    24, 1, 3×3             –, 1.4, 1.5      –, 2.2
    32, 1, 3×3             2.3, 3.1, 3.2    0.9, 2.6
    64, 1, 3×3             1.7, 3.2, 4.8    1.2, 3.9
    128, 1, 3×3            2.9, 4.7, 6.4    1.2, 4.8
    256, 1, 3×3            3.8, 4.2, 5.8    3.3, 6.0
    64, 2, 3×3             0.6, 0.7, 1.4    0.3, 0.7
    128, 2, 3×3            1.4, 1.5, 2.1    0.7, 1.2
    256, 2, 3×3            2.1, 1.7, 2.7    1.0, 1.8
    256, 4, 3×3            1.0, 0.9, 1.3    0.7, 1.1
    64, 1, 5×5             3.3, 3.8, 7.4    0.2, 1.6
    =====================  ===============  ==============

    Predictions are in float32, where mixing first gains more: with 16 channels, where training
    gains nothing on two of these, 2.2 times on the second.

    Parameters
    ----------
    channels, rank : int
    sides : (int, int)
        Of a patch.
    precision : {"float32", "bfloat16"}
    """
    fewest = _FEWEST_CHANNELS.get((precision, rank))
    return fewest is not None and channels >= fewest and max(sides) <= _LARGEST_SIDE[precision]


def slid(
    x: torch.Tensor,
    channel: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    padding: tuple[int, int],
    mixed: bool,
) -> torch.Tensor:
    """Forms slid over maps ``(n, C, H, W)``, in one of the two ways.

    Parameters
    ----------
    x : tensor of shape (n, C, H, W)
    channel, row, column : tensors of shape (maps, r, C), (maps, r, rows), (maps, r, columns)
        Rounded to the type of `x` once they are composed.
    bias : tensor of shape (maps,), optional
    padding : (int, int)
    mixed : bool
        Mix the channels first; otherwise compose filters.

    Returns
    -------
    tensor of shape (n, maps, ...)
    """
    from torch.nn import functional as F

    if not mixed:
        filters = compose(channel, row, column).to(x.dtype)
        return F.conv2d(x, filters, bias, padding=padding)
    maps, rank, _ = channel.shape

    def by_rank(vectors: Any) -> Any:
        """Vectors ``(maps, r, …)`` as ``(r·maps, …)``."""
        return vectors.transpose(0, 1).flatten(0, 1)

    mixing = by_rank(channel)[:, :, None, None].to(x.dtype)
    patches = by_rank(row)[:, None, :, None] * by_rank(column)[:, None, None, :]
    result = F.conv2d(F.conv2d(x, mixing), patches.to(x.dtype), padding=padding, groups=maps * rank)
    if rank > 1:
        result = result.unflatten(1, (rank, maps)).sum(dim=1)
    return result if bias is None else result + bias[:, None, None]
