"""Low-rank augmentation: spectra, rank rules, reconstruction, transforms, pre-computed copies."""

from rankwise.lowrank.augmenter import LowRankAugmenter
from rankwise.lowrank.draws import FixedEnergy, NormalEnergy, UniformEnergy
from rankwise.lowrank.options import (
    LowRankOptions,
    OptionError,
    resolve_options,
)
from rankwise.lowrank.quality import approximation_error, compression_ratio, psnr, ssim
from rankwise.lowrank.ranks import energy_fractions, rank_for_energy
from rankwise.lowrank.reconstruct import low_rank_approximation
from rankwise.lowrank.spectra import spectrum
from rankwise.lowrank.transforms import RandomLowRank

__all__ = [
    "FixedEnergy",
    "LowRankAugmenter",
    "LowRankOptions",
    "NormalEnergy",
    "OptionError",
    "RandomLowRank",
    "UniformEnergy",
    "approximation_error",
    "compression_ratio",
    "energy_fractions",
    "low_rank_approximation",
    "psnr",
    "rank_for_energy",
    "resolve_options",
    "spectrum",
    "ssim",
]
