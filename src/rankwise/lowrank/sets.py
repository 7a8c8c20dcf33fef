"""A set of images and what augmentation makes of it: what the paper's figure 3.1 shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank.draws import NormalEnergy
from rankwise.lowrank.options import OptionError
from rankwise.lowrank.reconstruct import low_rank_approximation
from rankwise.lowrank.transforms import RandomLowRank

CHANNEL_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}
FIGURE_ENERGY, FIGURE_SKIPS = NormalEnergy(0.90, 0.10), 0.8
"""Of the paper's figure 3.1."""


@dataclass(frozen=True)
class DrawnCopy:
    """What became of one image of a set: its energy and ranks; None where it was left alone."""

    energy: float | None
    ranks: tuple[int, ...] | None

    @property
    def text(self) -> str:
        """Energy and ranks in words; nothing for an image left alone."""
        if self.energy is None:
            return ""
        return f"{100 * self.energy:.1f}%: {'/'.join(map(str, self.ranks or ()))}"


@dataclass(frozen=True)
class DrawnSet:
    """Images (H, W, 1 or 3), what stands in their place, and how it came to be."""

    images: tuple[NDArray[np.uint8], ...]
    copies: tuple[NDArray[np.uint8], ...]
    drawn: tuple[DrawnCopy, ...]
    transform: RandomLowRank


def augmented_set(
    images: Sequence[NDArray[np.uint8]], *, transform: RandomLowRank | None = None, seed: int = 42
) -> DrawnSet:
    """Give each image one draw: a low-rank copy in its place, or itself.

    Parameters
    ----------
    images : sequence of uint8 arrays, (H, W) or (H, W, C)
        Of any sizes.
    transform : RandomLowRank, optional
        Default: the figure's own, energies N(0.90, 0.10) and a skip threshold of 80%.
    seed : int
        Of that one.

    Returns
    -------
    DrawnSet

    Raises
    ------
    OptionError
        If there is no image, or one has neither one nor three colours.
    """
    if not len(images):
        raise OptionError("a picture of a set needs at least one image")
    if transform is None:
        transform = RandomLowRank(FIGURE_ENERGY, skip_threshold=FIGURE_SKIPS, seed=seed)
    originals = tuple(colours_of(image) for image in images)
    copies, drawn = [], []
    energies = transform.draw(len(images), list(range(len(images))))
    for original, energy in zip(originals, energies, strict=True):
        if np.isnan(energy):
            copies.append(original)
            drawn.append(DrawnCopy(None, None))
            continue
        copy, ranks = low_rank_approximation(
            original, energy=energy, return_rank=True, channel_axis=-1, alpha=False
        )
        copies.append(copy)
        drawn.append(DrawnCopy(float(energy), tuple(int(rank) for rank in ranks)))
    return DrawnSet(originals, tuple(copies), tuple(drawn), transform)


def colours_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image as (H, W, 1 or 3), without transparency.

    Raises
    ------
    OptionError
        If it has neither one nor three colours.
    """
    planes = image[..., None] if image.ndim == 2 else image
    if planes.shape[-1] in (2, 4):
        planes = planes[..., :-1]
    if planes.shape[-1] not in CHANNEL_NAMES:
        raise OptionError(f"pictures need grey or RGB images, not {planes.shape[-1]} channels")
    return planes


def law_of(transform: RandomLowRank) -> str:
    """What energies a transform draws, and how many images it leaves alone, in words."""
    energy = transform.energy
    if isinstance(energy, NormalEnergy):
        words = f"energy N({energy.mean:g}, {energy.std:g})"
    else:
        words = f"energy {energy}"
    return f"{words}, skip threshold {transform.skip_threshold:.0%}"
