"""For Albumentations: schema, seeds and serialisation are the library's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.adapters._missing import missing
from rankwise.lowrank.draws import NormalEnergy, Number, energy_dict, read_energy
from rankwise.lowrank.options import resolve_options
from rankwise.lowrank.reconstruct import approximate, layout_of

try:
    from albumentations.core.transforms_interface import (
        BaseTransformInitSchema,
        ImageOnlyTransform,
    )
except ImportError:
    raise missing("albumentations") from None
from pydantic import field_validator, model_validator


class RandomLowRank(ImageOnlyTransform):
    """Rebuild the image from its leading singular values.

    Parameters
    ----------
    energy : float, pair, dict or distribution
        See `rankwise.RandomLowRank`. Default: N(0.975, 0.025), the paper's (section 3.3).
    reference : {"paper", "notebook"}
        Whose rank rule and channels.
    energy_of, rank_rule, channels : str, optional
        Options in place of those of `reference`; see `rankwise.lowrank.LowRankOptions`.
    p : float
        Probability; 0.5 as everywhere in this library. The paper's skip threshold is ``1 - p``,
        and its value means 0.2.

    Notes
    -----
    Targets: image, images, volume. Image types: uint8, float32. Any number of channels; the last
    of four is transparency.
    """

    class InitSchema(BaseTransformInitSchema):
        """Checks the arguments when a transform is made or read from a file."""

        energy: Any
        reference: str
        energy_of: str | None
        rank_rule: str | None
        channels: str | None

        @field_validator("energy")
        @classmethod
        def _check_energy(cls, value: Any) -> dict[str, Any]:
            return energy_dict(read_energy(value))

        @model_validator(mode="after")
        def _check_options(self) -> RandomLowRank.InitSchema:
            resolve_options(self.reference, self.energy_of, self.rank_rule, self.channels)
            return self

    def __init__(
        self,
        energy: Any = NormalEnergy(),  # noqa: B008  # frozen
        reference: str = "paper",
        energy_of: str | None = None,
        rank_rule: str | None = None,
        channels: str | None = None,
        p: Number = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.energy = energy
        self.reference = reference
        self.energy_of = energy_of
        self.rank_rule = rank_rule
        self.channels = channels
        self._options = resolve_options(reference, energy_of, rank_rule, channels)

    def get_params(self) -> dict[str, float]:
        """Draw an energy, from the random numbers that ``Compose(seed=…)`` governs."""
        uniform = np.array([self.py_random.random()])
        return {"kept_energy": float(read_energy(self.energy).of(uniform)[0])}

    def apply(self, img: NDArray, kept_energy: float, **params: Any) -> NDArray:
        """Approximate one image, (height, width[, channels])."""
        layout = layout_of(img, -1 if img.ndim == 3 else None)
        return approximate(img, layout, Wanted(np.array([[kept_energy]])), self._options)[0][0]
