"""For Kornia: batches on any device, parameters drawn once and replayed at will."""

from __future__ import annotations

from typing import Any

from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.adapters._missing import missing
from rankwise.lowrank.draws import Energy, NormalEnergy, Number, read_energy
from rankwise.lowrank.options import resolve_options
from rankwise.lowrank.reconstruct import approximate, layout_of

try:
    import kornia.augmentation as augmentation
    from kornia.augmentation.random_generator import RandomGeneratorBase
except ImportError:
    raise missing("kornia") from None
import torch


class EnergyGenerator(RandomGeneratorBase):
    """Draws the parameter ``energy``, (batch,), from torch's random numbers.

    Parameters
    ----------
    energy : NormalEnergy, UniformEnergy or FixedEnergy
    """

    def __init__(self, energy: Energy) -> None:
        super().__init__()
        self.energy = energy

    def __repr__(self) -> str:
        return repr(self.energy)

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Uniform numbers; the inverse distribution does the rest."""
        self._uniform = torch.distributions.Uniform(
            torch.tensor(0.0, device=device), torch.tensor(1.0, device=device), validate_args=False
        )

    def forward(
        self, batch_shape: tuple[int, ...], same_on_batch: bool = False
    ) -> dict[str, torch.Tensor]:
        """One energy an image, or one for all."""
        count = batch_shape[0]
        drawn = self._uniform.sample((1 if same_on_batch else count,)).cpu().double().numpy()
        energies = self.energy.of(drawn)
        return {"energy": torch.from_numpy(energies).expand(count).clone()}


class RandomLowRank(augmentation.IntensityAugmentationBase2D):
    """Rebuild images from their leading singular values.

    Parameters
    ----------
    energy : float, pair or distribution
        See `rankwise.RandomLowRank`. Default: N(0.975, 0.025), the paper's (section 3.3).
    reference : {"paper", "notebook"}
        Whose rank rule and channels.
    energy_of, rank_rule, channels : str, optional
        Options in place of those of `reference`; see `rankwise.lowrank.LowRankOptions`.
    same_on_batch : bool
        One draw for the whole batch.
    p : float
        Probability for each image; 0.5 as usual in this library. The paper's skip threshold is
        ``1 - p``, and its value means 0.2.
    keepdim : bool
        Give ``(C, H, W)`` back for ``(C, H, W)``.

    Notes
    -----
    Images ``(B, C, H, W)`` of floats, on any device. No gradient passes through.
    """

    def __init__(
        self,
        energy: Any = NormalEnergy(),  # noqa: B008  # frozen
        reference: str = "paper",
        energy_of: str | None = None,
        rank_rule: str | None = None,
        channels: str | None = None,
        same_on_batch: bool = False,
        p: Number = 0.5,
        keepdim: bool = False,
    ) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = EnergyGenerator(read_energy(energy))
        self._options = resolve_options(reference, energy_of, rank_rule, channels)

    def apply_transform(
        self,
        input: torch.Tensor,
        params: dict[str, torch.Tensor],
        flags: dict[str, Any],
        transform: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Approximate each image at its energy."""
        energies = params["energy"].cpu().double().numpy()[None]
        copies, _ = approximate(input, layout_of(input, -3), Wanted(energies), self._options)
        return copies[0]
