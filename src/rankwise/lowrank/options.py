"""What a low-rank approximation of an image leaves open, and what the paper and its code chose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rankwise.errors import RankwiseError

ENERGY_OF = ("sigma", "sigma_squared")
RANK_RULES = ("reach", "nearest")
CHANNELS = ("own", "shared", "luma-chroma", "joint")


class OptionError(RankwiseError, ValueError):
    """An option of the low-rank functions that has no meaning, or contradicts another."""


@dataclass(frozen=True)
class LowRankOptions:
    """How an energy becomes a rank, and what the matrices are.

    Parameters
    ----------
    energy_of : {"sigma", "sigma_squared"}
        What is summed: singular values, or their squares (the share of the Frobenius norm).
        Paper (section 3.3) and notebook: ``"sigma"``.
    rank_rule : {"reach", "nearest"}
        The first rank whose energy reaches the wanted one, or the rank whose energy is nearest to
        it (the first of equals). Paper: it keeps "the amount of energy", which ``"reach"`` does,
        and names no other rule. Notebook: ``"nearest"``.
    channels : {"own", "shared", "luma-chroma", "joint"}
        ``"own"``: each channel has its rank (paper, section 2.3: "individual SVD operations").
        ``"shared"``: one rank, from the mean of the channels' energies (notebook).
        ``"luma-chroma"``: as ``"own"``, on Y, Cb, Cr (ITU-R BT.601, full range) in place of RGB.
        ``"joint"``: one matrix, the channels side by side (height × channels·width), so that all
        share their left singular vectors. The last two are neither's.
    """

    energy_of: str = "sigma"
    rank_rule: str = "reach"
    channels: str = "own"

    def __post_init__(self) -> None:
        for name, choices in (
            ("energy_of", ENERGY_OF),
            ("rank_rule", RANK_RULES),
            ("channels", CHANNELS),
        ):
            value = getattr(self, name)
            if value not in choices:
                listed = ", ".join(repr(choice) for choice in choices)
                raise OptionError(f"{name}={value!r} isn't one of {listed}")


_REFERENCES: dict[str, LowRankOptions] = {
    "paper": LowRankOptions("sigma", "reach", "own"),
    "notebook": LowRankOptions("sigma", "nearest", "shared"),
}


@lru_cache
def resolve_options(
    reference: str = "paper",
    energy_of: str | None = None,
    rank_rule: str | None = None,
    channels: str | None = None,
) -> LowRankOptions:
    """Take `reference` as a whole, then put the options that were given in its place.

    Raises
    ------
    OptionError
        For an unknown name.
    """
    if reference not in _REFERENCES:
        raise OptionError(f"reference={reference!r} isn't one of 'paper', 'notebook'")
    base = _REFERENCES[reference]
    return LowRankOptions(
        energy_of or base.energy_of, rank_rule or base.rank_rule, channels or base.channels
    )
