"""For torchvision v2: the sample's images change, its boxes, masks and labels don't.

`rankwise.RandomLowRank` works inside ``v2.Compose`` as well, without torchvision; this class
belongs to its family: it finds the images in any nested sample and prints like the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rankwise.lowrank.adapters._missing import missing
from rankwise.lowrank.draws import NormalEnergy, Number, probability, read_energy
from rankwise.lowrank.transforms import RandomLowRank as _RandomLowRank

try:
    from torchvision import tv_tensors
    from torchvision.transforms import v2
except ImportError:
    raise missing("torchvision") from None
import torch
from PIL import Image


class RandomLowRank(v2.Transform):
    """Rebuild images and videos from their leading singular values.

    Parameters
    ----------
    energy : float, pair or distribution
        See `rankwise.RandomLowRank`. Default: N(0.975, 0.025), the paper's (section 3.3).
    p : float, optional
        Probability; 0.2, from the paper's skip threshold, unless `skip_threshold` is given.
    skip_threshold : float, optional
        ``1 - p``.
    reference : {"paper", "notebook"}
        Whose rank rule and channels.
    energy_of, rank_rule, channels : str, optional
        Options in place of those of `reference`; see `rankwise.lowrank.LowRankOptions`.

    Notes
    -----
    One draw, from torch's random numbers, holds for the whole sample.
    """

    _transformed_types = (
        Image.Image,
        tv_tensors.Image,
        tv_tensors.Video,
        v2.functional.is_pure_tensor,
    )

    def __init__(
        self,
        energy: Any = NormalEnergy(),  # noqa: B008  # frozen
        p: Number | None = None,
        skip_threshold: Number | None = None,
        reference: str = "paper",
        energy_of: str | None = None,
        rank_rule: str | None = None,
        channels: str | None = None,
    ) -> None:
        super().__init__()
        self.energy = read_energy(energy)
        self.p = probability(p, skip_threshold)
        self._copy = _RandomLowRank(
            self.energy,
            p=1,
            reference=reference,
            energy_of=energy_of,
            rank_rule=rank_rule,
            channels=channels,
        )

    def extra_repr(self) -> str:
        """What the transform prints of itself."""
        return f"energy={self.energy}, p={self.p:g}"

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw once for the sample."""
        chosen, place = torch.rand(2, dtype=torch.float64).tolist()
        if chosen >= self.p:
            return {"energy": None}
        return {"energy": float(self.energy.of(np.array([place]))[0])}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Approximate one image, or every frame."""
        if params["energy"] is None:
            return inpt
        return self._copy.at(inpt, params["energy"])
