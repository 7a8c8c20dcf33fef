"""For Keras 3, on its torch back end."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch

from rankwise.errors import MissingDependencyError
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.adapters._missing import missing
from rankwise.lowrank.draws import (
    Energy,
    NormalEnergy,
    Number,
    energy_dict,
    probability,
    read_energy,
)
from rankwise.lowrank.options import LowRankOptions, OptionError, resolve_options
from rankwise.lowrank.reconstruct import approximate, layout_of

try:
    import keras
except ImportError:
    raise missing("keras") from None


@keras.saving.register_keras_serializable(package="rankwise")
class RandomLowRank(keras.layers.Layer):
    """Rebuild images from their leading singular values, in training only.

    Parameters
    ----------
    energy : float, pair, dict or distribution
        See `rankwise.RandomLowRank`. Default: N(0.975, 0.025), the paper's (section 3.3).
    p : float, optional
        Probability for each image; 0.2, from the paper's skip threshold, unless `skip_threshold`
        is given.
    skip_threshold : float, optional
        ``1 - p``.
    reference : {"paper", "notebook"}
        Whose rank rule and channels.
    energy_of, rank_rule, channels : str, optional
        Options in place of those of `reference`; see `rankwise.lowrank.LowRankOptions`.
    seed : int, optional
        Of the draws.
    data_format : {"channels_last", "channels_first"}, optional
        Default: Keras' own.

    Raises
    ------
    MissingDependencyError
        If Keras runs on another back end than torch.
    OptionError
        For an unknown option or data format.
    """

    energy: Energy
    p: float
    options: LowRankOptions
    seed: int | None
    data_format: str
    generator: Any

    @no_type_check  # Keras reads the signature of __init__ itself, not through a wrapper
    def __init__(
        self,
        energy: Any = NormalEnergy(),  # noqa: B008  # frozen
        p: Number | None = None,
        skip_threshold: Number | None = None,
        reference: str = "paper",
        energy_of: str | None = None,
        rank_rule: str | None = None,
        channels: str | None = None,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        if keras.backend.backend() != "torch":
            raise MissingDependencyError(
                f"Keras runs on {keras.backend.backend()}; this layer needs its torch back end:"
                " set KERAS_BACKEND=torch before importing keras"
            )
        super().__init__(**kwargs)
        self.energy = read_energy(energy)
        self.p = probability(p, skip_threshold)
        self.options = resolve_options(reference, energy_of, rank_rule, channels)
        self.seed = seed
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise OptionError(
                f"data_format must be channels_last or channels_first, not {data_format!r}"
            )
        self.generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Approximate each image of a batch with probability `p`; the others stay."""
        if not training or self.p == 0 or inputs.device.type == "meta":
            return inputs
        return self._approximated(inputs)

    @no_type_check
    @torch.compiler.disable  # one break of a compiled graph, not one in each function below
    def _approximated(self, inputs: Any) -> Any:
        """The copies; to the input goes the gradient that they get, as if it were passed on."""
        batched = inputs.ndim == 4
        images = inputs if batched else inputs[None]
        drawn = keras.random.uniform((2, len(images)), seed=self.generator)
        chosen, places = keras.ops.convert_to_numpy(drawn).astype(np.float64)
        energies = np.where(chosen < self.p, self.energy.of(places), 1.0)
        layout = layout_of(images, -1 if self.data_format == "channels_last" else -3)
        copies, _ = approximate(images.detach(), layout, Wanted(energies[None]), self.options)
        result = copies[0] if batched else copies[0][0]
        if inputs.requires_grad:
            result = result + (inputs - inputs.detach())  # zero, with a gradient of one
        return result

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to make the layer again."""
        return {
            **super().get_config(),
            "energy": energy_dict(self.energy),
            "p": self.p,
            "energy_of": self.options.energy_of,
            "rank_rule": self.options.rank_rule,
            "channels": self.options.channels,
            "seed": self.seed,
            "data_format": self.data_format,
        }
