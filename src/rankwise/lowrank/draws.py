"""How much energy a copy keeps, and whether there is a copy: random, but reproducible by image."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank.options import OptionError

Number = float | int

# Generators' unit interval holds 0, and 1 after rounding; the inverse of the normal holds neither.
_OPEN = (2.0**-54, 1 - 2.0**-53)
_LEAST = 1e-6  # draws are cut to (0, 1]; below this any image keeps rank 1


@dataclass(frozen=True)
class NormalEnergy:
    """Normal with `mean` and `std`, cut to (0, 1].

    The paper's default is N(0.975, 0.025) (section 3.3); 16% of its draws exceed 1, and their copy
    equals the image. Table 2's 99.99% has no stated deviation.
    """

    mean: Number = 0.975
    std: Number = 0.025

    def __post_init__(self) -> None:
        if not (0 < self.mean <= 1 and 0 <= self.std < np.inf):
            raise OptionError(
                f"a normal energy needs a mean in (0, 1] and a std of at least 0, not {self}"
            )

    def of(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """The energies at these points of the unit interval (the inverse distribution)."""
        from scipy.special import ndtri

        return np.clip(self.mean + self.std * ndtri(np.clip(uniform, *_OPEN)), _LEAST, 1)


@dataclass(frozen=True)
class UniformEnergy:
    """Uniform between `low` and `high`, in (0, 1]."""

    low: Number = 0.9
    high: Number = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise OptionError(f"a uniform energy needs 0 < low ≤ high ≤ 1, not {self}")

    def of(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """The energies at these points of the unit interval."""
        return np.clip(self.low + (self.high - self.low) * uniform, _LEAST, 1)


@dataclass(frozen=True)
class FixedEnergy:
    """Always `energy`, in (0, 1]."""

    energy: Number

    def __post_init__(self) -> None:
        if not 0 < self.energy <= 1:
            raise OptionError(f"energy must lie in (0, 1], not {self.energy}")

    def of(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """`energy`, once for each point."""
        return np.full(uniform.shape, self.energy)


Energy = NormalEnergy | UniformEnergy | FixedEnergy
_KINDS: dict[str, type[Energy]] = {
    "normal": NormalEnergy,
    "uniform": UniformEnergy,
    "fixed": FixedEnergy,
}


def read_energy(energy: Any) -> Energy:
    """Accept a distribution, a number (fixed), a pair (uniform), or what `energy_dict` gave.

    Raises
    ------
    OptionError
        For anything else.
    """
    if isinstance(energy, NormalEnergy | UniformEnergy | FixedEnergy):
        return energy
    try:
        if isinstance(energy, dict):
            values = dict(energy)
            return _KINDS[values.pop("distribution")](**values)
        if isinstance(energy, tuple | list) and len(energy) == 2:
            return UniformEnergy(float(energy[0]), float(energy[1]))
        if not isinstance(energy, tuple | list | str):
            return FixedEnergy(float(energy))
    except OptionError:
        raise
    except (KeyError, TypeError, ValueError):
        pass
    raise OptionError(
        "energy is a number, a pair (low, high), NormalEnergy, UniformEnergy or FixedEnergy,"
        f" not {energy!r}"
    )


def energy_dict(energy: Energy) -> dict[str, Any]:
    """`energy` as plain values, for files."""
    kind = next(name for name, kind in _KINDS.items() if isinstance(energy, kind))
    return {"distribution": kind, **asdict(energy)}


def probability(p: Number | None, skip_threshold: Number | None) -> float:
    """The share of images that get a copy: `p`, or ``1 − skip_threshold``; 0.2 by default.

    Raises
    ------
    OptionError
        If one is outside [0, 1], or the two contradict each other.
    """
    for name, value in (("p", p), ("skip_threshold", skip_threshold)):
        if value is not None and not 0 <= value <= 1:
            raise OptionError(f"{name} must lie in [0, 1], not {value}")
    if p is None:
        return 1.0 - (0.8 if skip_threshold is None else skip_threshold)
    if skip_threshold is not None and abs(p + skip_threshold - 1) > 1e-9:
        raise OptionError(
            f"p={p} and skip_threshold={skip_threshold} contradict each other: skip_threshold is"
            " the share of images left alone, 1 - p"
        )
    return float(p)


def uniforms_for(
    seed: int, source_id: object, epoch: int, mark: bytes = b""
) -> NDArray[np.float64]:
    """Two numbers in (0, 1) that depend on nothing but (seed, source id, epoch, mark).

    A hash (BLAKE2b) of the first three, so neither workers nor order nor batches change them, and
    no state is kept. `mark`, at most 16 bytes, tells images of one source apart; it is the hash's
    salt, so no source id, whatever its characters, can pass for another one with a mark.
    """
    # Names of files that are no UTF-8 hold lone surrogates; other text has the same bytes as ever.
    text = f"{seed}\x1f{epoch}\x1f{source_id}".encode("utf-8", "surrogatepass")
    words = np.frombuffer(hashlib.blake2b(text, digest_size=16, salt=mark).digest(), "<u8")
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
