"""`RandomLowRank`: low-rank copies as one step of any pipeline."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._seeds import checked_seed
from rankwise.lowrank._layout import checked_axis, is_tensor, typed_like
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.draws import (
    NormalEnergy,
    Number,
    energy_dict,
    probability,
    read_energy,
    uniforms_for,
)
from rankwise.lowrank.options import OptionError, resolve_options
from rankwise.lowrank.reconstruct import approximate, layout_of

_PIL_ALPHA = {"L": False, "RGB": False, "LA": True, "RGBA": True, "CMYK": False, "YCbCr": False}


class RandomLowRank:
    """Replace an image, at random, by its low-rank approximation of a random energy.

    A plain callable: it works alone, in a torchvision ``v2.Compose`` (which it doesn't import), in
    a ``Dataset``, or on whole batches, where each image has its own draw.

    Parameters
    ----------
    energy : float, pair or distribution
        A number (fixed), ``(low, high)`` (uniform), `NormalEnergy`, `UniformEnergy` or
        `FixedEnergy`. Default: ``NormalEnergy(0.975, 0.025)``, the paper's (section 3.3).
    p : float, optional
        Share of images that are replaced. Default 0.2, from the paper's skip threshold.
    skip_threshold : float, optional
        Share of images left alone, ``1 - p``; the paper's name for it, and its value is 0.8
        (section 3.3). Give one of the two.
    reference : {"paper", "notebook"}
        Whose rank rule and channels; see `LowRankOptions`.
    energy_of, rank_rule, channels : str, optional
        Options in place of those of `reference`.
    channel_axis : int, None or "auto"
        As in `low_rank_approximation`.
    alpha : bool, optional
        Whether the last channel is transparency. Default: if there are four.
    seed : int, optional
        Of the draws. Without source ids they come from a generator of the transform's own, which
        is its only state; without a seed that one differs from run to run. With source ids no
        seed means 0: draws by id repeat in every run and every worker, as ids are given for.

    Raises
    ------
    OptionError
        For options without meaning, and if `p` and `skip_threshold` contradict each other.
    ValueError
        If the seed isn't a whole number from 0.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    >>> transform = RandomLowRank(p=1, seed=42)
    >>> transform(image, source_id="cat-17", epoch=3).shape
    (32, 32, 3)
    """

    def __init__(
        self,
        energy: Any = NormalEnergy(),  # noqa: B008  # frozen
        *,
        p: Number | None = None,
        skip_threshold: Number | None = None,
        reference: str = "paper",
        energy_of: str | None = None,
        rank_rule: str | None = None,
        channels: str | None = None,
        channel_axis: Any = "auto",
        alpha: bool | None = None,
        seed: int | None = None,
    ) -> None:
        self.energy = read_energy(energy)
        self.p = probability(p, skip_threshold)
        self.options = resolve_options(reference, energy_of, rank_rule, channels)
        self.channel_axis = checked_axis(channel_axis)
        self.alpha = alpha
        self.seed = checked_seed(seed)
        self._generator = np.random.default_rng(self.seed)
        self._worker: int | None = None

    @property
    def skip_threshold(self) -> float:
        """Share of images left alone, ``1 - p``."""
        return 1 - self.p

    def to_dict(self) -> dict[str, Any]:
        """The arguments that make an equal transform, as plain values."""
        return {
            "energy": energy_dict(self.energy),
            "p": self.p,
            **asdict(self.options),
            "channel_axis": self.channel_axis,
            "alpha": self.alpha,
            "seed": self.seed,
        }

    def fingerprint_parts(self) -> dict[str, Any]:
        """What its copies follow from, for keys of what is kept; see `rankwise._fingerprints`."""
        return self.to_dict()

    def __repr__(self) -> str:
        return (
            f"RandomLowRank({self.energy}, p={self.p:g}, {self.options.energy_of},"
            f" {self.options.rank_rule}, {self.options.channels}, seed={self.seed})"
        )

    def draw(
        self,
        count: int,
        source_ids: Any = None,
        epoch: int = 0,
        marks: Sequence[bytes] | None = None,
    ) -> NDArray[np.float64]:
        """Energies for `count` images; NaN for those left alone.

        Parameters
        ----------
        count : int
        source_ids : sequence of str or int (also an array or a tensor), optional
            What each image derives from. With them an image's draw depends on the seed, its
            source id and `epoch` only; images of one source have one draw, unless `marks` tell
            them apart.
        epoch : int
            Which round over the data.
        marks : sequence of bytes, optional
            With source ids: at most 16 bytes for each image, empty for none.

        Returns
        -------
        energies : ndarray of float64, (count,)

        Raises
        ------
        OptionError
            If the numbers of images and ids differ.
        """
        if source_ids is None:
            uniform = self._own_generator().random((count, 2))
        else:
            if len(source_ids) != count:
                raise OptionError(f"{len(source_ids)} source ids for {count} images")
            seed = 0 if self.seed is None else self.seed
            some = repeat(b"", count) if marks is None else marks
            uniform = np.empty((count, 2))
            for row, (source, mark) in enumerate(zip(source_ids, some, strict=True)):
                known = source.item() if is_tensor(source) else source
                uniform[row] = uniforms_for(seed, known, epoch, mark)
        energies = self.energy.of(uniform[:, 1])
        return np.where(uniform[:, 0] < self.p, energies, np.nan)

    def __call__(self, *inputs: Any, source_id: Any = None, epoch: int = 0) -> Any:
        """Transform an image or a batch.

        Parameters
        ----------
        *inputs
            The image: a tensor ``(…, C, H, W)``, an array ``(…, H, W[, C])``, or a PIL image.
            What follows it (labels, boxes) is passed on; so is the rest of a sample that is a
            tuple or list with the image first, or a dict with the image under ``"image"``.
        source_id : str or int, or a sequence of them for a batch, optional
            See `draw`.
        epoch : int
            See `draw`.

        Returns
        -------
        outputs
            As `inputs`: the same types, dtypes, shapes and devices. An image left alone is the
            same object; no image is modified.
        """
        if not inputs:
            raise TypeError("RandomLowRank needs an image")
        first, *rest = inputs
        if isinstance(first, dict | tuple | list):
            _check_sample(first)
        changed: Any
        if isinstance(first, dict):
            changed = {**first, "image": self._transform(first["image"], source_id, epoch)}
        elif isinstance(first, tuple | list):
            parts = [self._transform(first[0], source_id, epoch), *first[1:]]
            kind = type(first)
            changed = kind(*parts) if hasattr(first, "_fields") else kind(parts)
        else:
            changed = self._transform(first, source_id, epoch)
        return (changed, *rest) if rest else changed

    def at(self, image: Any, energy: float) -> Any:
        """Approximate an image, or every image of a batch, at a given energy; no draw is made.

        Parameters
        ----------
        image : torch.Tensor, ndarray or PIL image
        energy : float
            In (0, 1].
        """
        if not _is_pil(image):
            shape = layout_of(image, self.channel_axis, self.alpha).batch
            return self.apply(image, np.full(math.prod(shape), energy))
        _check_mode(image)
        array = np.asarray(image)
        layout = layout_of(array, -1 if array.ndim == 3 else None, _PIL_ALPHA[image.mode])
        copy = approximate(array, layout, Wanted(np.full((1, 1), energy)), self.options)[0][0]
        return _to_pil(copy, image)

    def apply(self, images: Any, energies: NDArray[np.float64]) -> Any:
        """Approximate each image of a batch at its own energy; NaN leaves it alone.

        Parameters
        ----------
        images : torch.Tensor or ndarray
        energies : ndarray of float64, (images,)
            In the order of the flattened batch axes.
        """
        layout = layout_of(images, self.channel_axis, self.alpha)
        chosen = np.flatnonzero(~np.isnan(energies))
        if chosen.size == 0:
            return images
        depth = len(layout.batch)
        if depth == 0:
            copy = approximate(images, layout, Wanted(energies[None]), self.options)[0][0]
            return typed_like(copy, images)
        flat = images.reshape(-1, *images.shape[depth:])
        everything = chosen.size == len(flat)
        part = flat if everything else flat[chosen]
        wanted = Wanted(energies[None, chosen])
        layout = layout_of(part, layout.channel_axis, layout.alpha)
        copies = approximate(part, layout, wanted, self.options)[0][0]
        if everything:
            return typed_like(copies.reshape(images.shape), images)
        result = flat.clone() if is_tensor(flat) else flat.copy()
        result[chosen] = copies
        return typed_like(result.reshape(images.shape), images)

    def _transform(self, image: Any, source_id: Any, epoch: int) -> Any:
        pil = _is_pil(image)
        if pil:
            _check_mode(image)
        batch = () if pil else layout_of(image, self.channel_axis, self.alpha).batch
        several = np.ndim(source_id) > 0
        if source_id is not None and several != bool(batch):
            needed = "a batch needs a source id for every image, not one"
            raise OptionError(needed if batch else "one image needs one source id, not several")
        ids = source_id if batch or source_id is None else [source_id]
        before = self._own_generator().bit_generator.state
        try:
            energies = self.draw(math.prod(batch), ids, epoch)
            if np.isnan(energies).all():
                return image
            return self.at(image, float(energies[0])) if pil else self.apply(image, energies)
        except BaseException:
            self._generator.bit_generator.state = before  # what is refused has drawn nothing
            raise

    def _own_generator(self) -> np.random.Generator:
        # Each worker of a DataLoader holds the same copy: its seed from torch tells them apart.
        data = sys.modules.get("torch.utils.data")
        worker = data.get_worker_info() if data is not None else None
        if worker is not None and self._worker != worker.seed:
            self._worker = worker.seed
            entropy = [worker.seed] if self.seed is None else [self.seed, worker.seed]
            self._generator = np.random.default_rng(entropy)
        return self._generator


def _check_mode(image: Any) -> None:
    if image.mode not in _PIL_ALPHA:
        raise OptionError(f"PIL images of mode {image.mode!r} have no channels to approximate")


def _check_sample(sample: Any) -> None:
    if isinstance(sample, dict) and "image" not in sample:
        raise OptionError(
            "a sample that is a dict has its image under 'image', and this one has the keys"
            f" {', '.join(map(repr, sample)) or 'none'}"
        )
    if not sample:
        raise OptionError("a sample that is a tuple or list has its image first; this one is empty")


def _is_pil(image: Any) -> bool:
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(image, pil.Image)


def _to_pil(array: NDArray, like: Any) -> Any:
    from PIL import Image

    return Image.frombytes(like.mode, like.size, np.ascontiguousarray(array).tobytes())
