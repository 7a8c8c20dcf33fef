"""Recipes with a name for convolutional units: sizes, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf, prod
from numbers import Real
from typing import TYPE_CHECKING, Any

from rankwise.units.convolutional import ConvolutionalUnits, Layer

if TYPE_CHECKING:
    import numpy as np

    from rankwise._arrays import Images
    from rankwise.training.augment import Augmentation
    from rankwise.training.joint_plan import JointPlan

OWN = ("precision", "time_budget", "patience", "teacher")
"""Choices that only convolutional presets have."""

ACCEPTED = (
    *("activation", "rank", "n_units", "max_iter", "ridge", "glue_rcond", "augmentation"),
    *OWN,
)
"""Choices of a convolutional preset that a user can give instead."""

AUGMENTATIONS = ("moves", "low-rank", "moves+low-rank", "none")
"""What joint training does to each image of a batch: random moves, low-rank copies."""

DEFAULT_AUGMENTATION = "moves"

_LONGEST_SIDE, _LONGEST_LED = 64, 128
_LED_FROM = 48
_LARGEST_LAST_MAP = 8
_SHORTEST_SIDE, _SHORTEST_WHITENED = 4, 8
_LARGEST_SHARE_WHITENING = 0.1
_USUAL_EPOCHS = 24
_FEWEST_UPDATES = 800
_MOST_EPOCHS = 100
_MOST_IN_A_BUDGET = 200
_ENOUGH_FOR_SHIFTS = 10_000
_TEACHERS_SHARE = 0.4
_SMALLEST_BATCH, _BATCHES_AN_EPOCH = 32, 40
_SHARDS, _ENOUGH_FOR_ALL = 4, 180_000


@dataclass(frozen=True)
class ConvolutionalPreset:
    """Sizes and training of a convolutional network, for images of any shape.

    Parameters
    ----------
    layers : tuple of Layer
        Further layers like the last follow where its maps are larger than 8 × 8.
    images_seen : int
        Training images times epochs: 12 epochs of MNIST for 720,000. At most 24 epochs or, where
        the images are few, as many as make 800 updates, at most 100.
    smoothing : float
        Of labels; see `JointPlan`.
    activation : str
    batch_size : int
        Smaller where the images are few: 40 batches an epoch, of at least 32.
    by_heart : bool
        Whether images that are moved by two pixels are learned by heart in a long training.
    leads : int
        Maps of a light block before the others, two layers of which the first is pooled, for images
        with more than 48 pixels a side, whose fine detail is seen so at little cost. 0: none.
    """

    layers: tuple[Layer, ...]
    images_seen: int
    activation: str = "gelu"
    batch_size: int = 125
    smoothing: float = 0.05
    by_heart: bool = False
    leads: int = 0


def _three_blocks(*maps: int) -> tuple[Layer, ...]:
    """Blocks of two layers of rank 1, the first pooled, as in airbench, the second with a skip."""
    return tuple(layer for m in maps for layer in _block(m))


def _block(maps: int) -> tuple[Layer, Layer]:
    return Layer(maps, rank=1, pool=2), Layer(maps, rank=1, skip=True)


_WHITENED = 2
"""The side of the patches that are whitened; see `ConvolutionalUnits`. Not for images with a side
below 8, nor where the fixed filters would be more than a tenth of the units' parameters, as in
`nano` on colour images."""

_STEPS: dict[str, Any] = {
    "optimiser": "muon",
    "learning_rate": 1e-2,
    "matrix_rate": 0.03,
    "schedule": "triangle",
}
"""How all are trained; see `JointPlan`."""

_LARGE: dict[str, Any] = {"batch_size": 250, "smoothing": 0.2, "by_heart": True}
"""Airbench's, where they were at least as good here: networks that could learn images by heart."""

# Sizes and training were chosen on images cut from MNIST's and CIFAR-10's training images
# (``benchmarks/recipe.py``), moves of few images on cats and dogs.
CONVOLUTIONAL_PRESETS: dict[str, ConvolutionalPreset] = {
    "wide": ConvolutionalPreset(
        _three_blocks(96, 288, 384), images_seen=1_500_000, leads=40, **_LARGE
    ),
    "accurate": ConvolutionalPreset(
        _three_blocks(56, 144, 176), images_seen=1_200_000, leads=24, **_LARGE
    ),
    "small": ConvolutionalPreset(_three_blocks(24, 56, 80), images_seen=720_000),
    "tiny": ConvolutionalPreset(_three_blocks(12, 28, 32), images_seen=720_000),
    "nano": ConvolutionalPreset(_three_blocks(5, 9, 12), images_seen=720_000),
}
"""All have airbench's recipe, where it was at least as good here."""


@dataclass(frozen=True)
class ConvolutionalPlan:
    """What to train: the units, how, the ridge of the glue and its truncation; see the preset.

    `mirrored` takes the place of the moves of `joint` where mirror images are found to be images of
    the same class: `SHIFTS` from 10,000 images on, `NEARER` for fewer, which need stronger moves.
    `mirrored_long` does then in long trainings: `FARTHER` in the place of `SHIFTS`, in the presets
    that could learn images by heart. A `teacher` is trained first, as its own plan says.
    """

    units: ConvolutionalUnits
    joint: JointPlan
    ridge: float | str
    rcond: float | None = None
    mirrored: Augmentation | None = None
    mirrored_long: Augmentation | None = None
    teacher: ConvolutionalPlan | None = None

    def joint_for(self, images: Images, encoded: np.ndarray, seed: int) -> JointPlan:
        """Joint training whose moves these training images were asked about.

        Parameters
        ----------
        images : array of shape (n, H, W[, C])
        encoded : int array of shape (n,)
        seed : int
            Of the probe; see `rankwise.training.augment.with_mirrors`.
        """
        from rankwise.training.augment import with_mirrors

        if self.joint.augmentation is None:
            return self.joint
        usual, other = self.joint.augmentation, self.mirrored
        moves = with_mirrors(usual, images, encoded, seed, mirrored=other)
        long = self.mirrored_long if moves.mirror else None
        if long is not None:
            long = replace(long, mirror=moves.mirror, flip=moves.flip)
        return replace(self.joint, augmentation=moves, long=long)


def plan_convolutional(
    name: str,
    given: Mapping[str, Any],
    image_shape: tuple[int, ...],
    *,
    n_samples: int,
    low_rank: Callable[..., Any] | None = None,
) -> ConvolutionalPlan:
    """A convolutional preset with what was given instead, for images of one shape.

    Parameters
    ----------
    name : str
        One of `CONVOLUTIONAL_PRESETS`.
    given : mapping
        Values for any of `ACCEPTED`. ``n_units`` scales all layers alike; ``max_iter`` is the
        number of epochs; ``time_budget`` is in minutes, and as many epochs as fit, at most 200,
        are trained in it where ``max_iter`` isn't given. ``teacher`` is a larger preset that is
        trained first, for as many epochs or two fifths of the minutes.
    image_shape : tuple of int
        ``(H, W)`` or ``(H, W, C)``. Images with a side above 64, or 128 where a light block leads,
        are averaged over squares first, as far as the other side has 4 left. Those with a side
        below 4 aren't moved unless asked for.
    n_samples : int
        Images, for batches and epochs: without a validation part that was given, which is never
        trained on.
    low_rank : callable, optional
        What makes low-rank copies, where the augmentation given has them; see `JointPlan.extra`.

    Raises
    ------
    ValueError
        If the images or a value don't fit; one sentence says what does.
    """
    from rankwise.training.augment import FARTHER, NEARER, SHIFTS, Augmentation
    from rankwise.training.joint_plan import JointPlan

    refuse_foreign(name, given)
    preset = CONVOLUTIONAL_PRESETS[name]
    if len(image_shape) not in (2, 3):
        raise ValueError(
            f"preset {name!r} needs images (height, width) or (height, width, channels), got shape "
            f"{image_shape}; sub-networks of multilinear units take tensors of any shape"
        )
    layers = preset.layers
    shrink, led = _shrink_of(image_shape, preset)
    if led:
        layers = (*_block(preset.leads), *layers)
    if "rank" in given:
        layers = tuple(replace(layer, rank=int(given["rank"])) for layer in layers)
    if "n_units" in given:
        layers = scaled_to(layers, int(given["n_units"]))
    units = ConvolutionalUnits(
        image_shape,
        layers,
        shrink=shrink,
        activation=given.get("activation", preset.activation),
    )
    if min(units.stages[0].size) >= _SHORTEST_WHITENED:
        whitened = replace(units, whiten=_WHITENED)
        if whitened.n_whitening**2 <= _LARGEST_SHARE_WHITENING * units.n_parameters:
            units = whitened
    while max(units.stages[-1].out) > _LARGEST_LAST_MAP:
        units = replace(units, layers=(*units.layers, replace(layers[-1], pool=2, skip=False)))
    # A row of values, or two, is no picture that could be turned.
    usual_moves = DEFAULT_AUGMENTATION if min(image_shape[:2]) >= _SHORTEST_SIDE else "none"
    moves, copies = parts_of(given.get("augmentation", usual_moves))
    batch = min(preset.batch_size, max(_SMALLEST_BATCH, n_samples // _BATCHES_AN_EPOCH))
    usual = min(_USUAL_EPOCHS, ceil(preset.images_seen / n_samples))
    enough = min(_MOST_EPOCHS, ceil(_FEWEST_UPDATES * batch / n_samples))
    minutes = given.get("time_budget")
    most = max(usual, enough) if minutes is None else _MOST_IN_A_BUDGET
    epochs = int(given.get("max_iter", most))
    pixels = prod(side // shrink for side in image_shape[:2])
    joint = JointPlan(
        epochs=epochs,
        batch_size=batch,
        **_STEPS,
        smoothing=preset.smoothing,
        augmentation=Augmentation() if moves else None,
        extra=low_rank if copies else None,
        precision=given.get("precision", "float32"),
        time_budget=None if minutes is None else 60.0 * float(minutes),
        patience=given.get("patience"),
        # A shard of few pixels is over before the next one's thread has begun.
        n_shards=_SHARDS if batch * pixels >= _ENOUGH_FOR_ALL else _SHARDS // 2,
    )
    many = n_samples >= _ENOUGH_FOR_SHIFTS
    teacher = _teacher_of(given, epochs, image_shape, n_samples=n_samples, low_rank=low_rank)
    if teacher is not None and teacher.units.n_parameters <= units.n_parameters:
        larger = ", ".join(_larger_than(units, image_shape))
        raise ValueError(
            f"the units of teacher {given['teacher']!r} have {teacher.units.n_parameters:,} "
            f"parameters and those that learn from it {units.n_parameters:,}; "
            + (f"a larger preset is accepted: {larger}" if larger else "no preset is larger")
        )
    return ConvolutionalPlan(
        units,
        joint,
        given.get("ridge", "gcv"),
        given.get("glue_rcond"),
        mirrored=SHIFTS if many else NEARER,
        mirrored_long=FARTHER if many and preset.by_heart else None,
        teacher=teacher,
    )


def _shrink_of(image_shape: tuple[int, ...], preset: ConvolutionalPreset) -> tuple[int, bool]:
    """The side of the squares that an image is averaged over, and whether a light block leads."""
    longest, shortest = max(image_shape[:2]), min(image_shape[:2])
    finer = ceil(longest / _LONGEST_LED)
    if preset.leads and shortest // finer > _LED_FROM:
        return finer, True
    return min(ceil(longest / _LONGEST_SIDE), max(1, shortest // _SHORTEST_SIDE)), False


def _teacher_of(
    given: Mapping[str, Any], epochs: int, image_shape: tuple[int, ...], **options: Any
) -> ConvolutionalPlan | None:
    """What is trained first, on the same images; None where none was asked for.

    It has its preset's units and moves, and at most the epochs of the one that it teaches. What it
    is asked is about images as that one sees them.
    """
    if "teacher" not in given:
        return None
    shared = {k: given[k] for k in ("augmentation", "precision", "patience") if k in given}
    if given.get("time_budget") is not None:
        shared["time_budget"] = _TEACHERS_SHARE * given["time_budget"]
    if "max_iter" in given or "time_budget" not in shared:
        shared["max_iter"] = epochs
    return plan_convolutional(given["teacher"], shared, image_shape, **options)


def _larger_than(units: ConvolutionalUnits, image_shape: tuple[int, ...]) -> list[str]:
    """Presets whose units have more parameters on images of a shape."""
    return [
        name
        for name in CONVOLUTIONAL_PRESETS
        if plan_convolutional(name, {}, image_shape, n_samples=1).units.n_parameters
        > units.n_parameters
    ]


def refuse_foreign(name: str, given: Mapping[str, Any]) -> None:
    """Refuse choices that only sub-networks have, and training for no epoch at all.

    Raises
    ------
    ValueError
    """
    foreign = [option for option in given if option not in ACCEPTED]
    if foreign:
        raise ValueError(
            f"preset {name!r} has convolutional units and takes no {', '.join(foreign)}; "
            f"accepted: {', '.join(ACCEPTED)}"
        )
    minutes = given.get("time_budget", 1.0)
    if not isinstance(minutes, Real) or isinstance(minutes, bool) or not 0 < float(minutes) < inf:
        raise ValueError(f"time_budget must be minutes above 0, got {minutes!r}")
    teacher = given.get("teacher", name)
    if not isinstance(teacher, str) or teacher not in CONVOLUTIONAL_PRESETS:
        raise ValueError(
            f"unknown teacher {teacher!r}; accepted: {', '.join(CONVOLUTIONAL_PRESETS)}"
        )
    epochs = given.get("max_iter", 1)
    whole = isinstance(epochs, Real) and not isinstance(epochs, bool)
    if not whole or not float(epochs).is_integer() or epochs < 1:
        raise ValueError(
            f"max_iter must be a whole number of epochs, at least 1, for preset {name!r}, got "
            f"{epochs!r}"
        )


def parts_of(augmentation: str) -> tuple[bool, bool]:
    """Whether an augmentation of `AUGMENTATIONS` moves images, and replaces some by copies."""
    return "moves" in augmentation, "low-rank" in augmentation


def scaled_to(layers: tuple[Layer, ...], n_units: int) -> tuple[Layer, ...]:
    """The same layers with so many units in all, shared out as before, at least one each.

    A layer with a skip has as many as the one before it, so there may be one fewer in all.
    """
    if n_units < len(layers):
        raise ValueError(
            f"n_units must be at least {len(layers)}, one a layer of the preset, got {n_units}"
        )
    total = sum(layer.maps for layer in layers)
    starts = [i for i, layer in enumerate(layers) if not layer.skip]
    sizes = [end - i for i, end in pairwise((*starts, len(layers)))]
    maps = [max(1, layers[i].maps * n_units // total) for i in starts]
    maps[-1] += (n_units - sum(m * size for m, size in zip(maps, sizes, strict=True))) // sizes[-1]
    each = [m for m, size in zip(maps, sizes, strict=True) for _ in range(size)]
    return tuple(replace(layer, maps=m) for layer, m in zip(layers, each, strict=True))
