"""Random affine maps of batches of images, and which mirror images the classes survive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import pi, prod

import numpy as np
import torch

from rankwise._arrays import Images, blocks, chosen, images_at_a_time
from rankwise.linear.gram import accumulate_gram
from rankwise.linear.output_layer import solve_gram
from rankwise.networks.convolutional import ConvolutionalNetwork, as_maps
from rankwise.training.affine import FILLS, affine_maps
from rankwise.units.convolutional import ConvolutionalUnits, Layer, LayerWeights

_PROBE_SAMPLES = 3000
_PROBE_UNITS = 48
_FEWEST = 200
_STATISTICS_BLOCK = 256
_KEPT = 0.8
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Augmentation:
    """How far the images of a batch are moved at random, each by itself.

    Parameters
    ----------
    rotation : float
        Degrees to either side; 12, of the recipe that this package began with.
    scale, shear : float
        To either side of 1 and of 0; 0.12 and 0.15 there.
    shift : float
        To either side, as a fraction of an axis; 2 of 28 pixels there.
    mirror : bool
        Exchange left and right with probability ½.
    flip : bool
        Exchange top and bottom with probability ½.
    alternate : bool
        Exchange left and right in every other epoch instead, in half of the images in the odd
        ones: each is seen both ways in any two epochs (K. Jordan's airbench).
    whole : bool
        Shifts are whole pixels, so that nothing is interpolated where nothing else is done.
    fill : {"nearest", "reflect", "constant"}
        What lies outside an image.
    erase : float
        Side of the square of each image that gets its mean, as a fraction of the shorter axis, at
        most 1 (T. DeVries' cutout: 0.5 there); 0 for none. Its centre is anywhere in the image,
        so a square may be cut off.
    """

    rotation: float = 12.0
    scale: float = 0.12
    shear: float = 0.15
    shift: float = 2 / 28
    mirror: bool = False
    flip: bool = False
    alternate: bool = False
    whole: bool = False
    fill: str = "nearest"
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "shear", "shift", "erase"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be a number at least 0, got {getattr(self, name)}")
        if self.scale >= 1:
            raise ValueError(f"scale must be below 1, got {self.scale}")
        if self.erase > 1:
            raise ValueError(f"erase must be at most 1, got {self.erase}")
        if self.fill not in FILLS:
            raise ValueError(f"unknown fill {self.fill!r}; accepted: {', '.join(FILLS)}")

    def draw(
        self,
        n: int,
        size: tuple[int, int],
        generator: torch.Generator,
        turned: np.ndarray | None = None,
    ) -> torch.Tensor:
        """Affine maps ``(n, 2, 3)`` of images of one size, as `torch.nn.functional` takes them.

        Parameters
        ----------
        n : int
        size : (int, int)
        generator : torch.Generator
        turned : bool array of shape (n,), optional
            Which images are mirrored if mirror images alternate; see `turned_in`. Default drawn.
        """

        def uniform(most: float) -> torch.Tensor:
            return (2 * torch.rand(n, generator=generator, dtype=torch.float32) - 1) * most

        def sign(drawn: bool) -> torch.Tensor:
            heads = torch.rand(n, generator=generator, dtype=torch.float32) < 0.5
            return 1 - 2 * (heads & drawn).float()

        angle, factor = uniform(self.rotation * pi / 180), 1 + uniform(self.scale)
        shear = uniform(self.shear)
        right, down = uniform(2 * self.shift), uniform(2 * self.shift)
        mirror, flip = sign(self.mirror), sign(self.flip)
        if self.mirror and self.alternate and turned is not None:
            mirror = 1.0 - 2.0 * torch.from_numpy(turned).float()
        if self.whole:
            # Half an axis is 1, so a pixel of `side` is 2 / side.
            right, down = (
                torch.round(share * side / 2) * 2 / side
                for share, side in zip((right, down), size[::-1], strict=True)
            )
        return affine_maps(
            size, angle, 1 / factor, shear=shear, right=right, down=down, mirror=mirror, flip=flip
        )

    def squares(
        self, n: int, size: tuple[int, int], generator: torch.Generator
    ) -> torch.Tensor | None:
        """First row and column and those behind the last, ``(n, 4)``, of the squares to erase.

        None, and nothing drawn, where there are none.
        """
        if self.erase == 0:
            return None
        side = max(1, round(self.erase * min(size)))
        first = [torch.randint(length, (n,), generator=generator) - side // 2 for length in size]
        return torch.stack([*first, *(begin + side for begin in first)], dim=1)


def erased(maps: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """Maps ``(n, C, H, W)`` whose squares ``(n, 4)`` have their image's mean in each channel."""
    squares = squares.to(maps.device)

    def inside(axis: int) -> torch.Tensor:
        places = torch.arange(maps.shape[2 + axis], device=maps.device)
        return (squares[:, axis, None] <= places) & (places < squares[:, axis + 2, None])

    square = (inside(0)[:, :, None] & inside(1)[:, None, :]).unsqueeze(1)
    return torch.where(square, maps.mean(dim=(2, 3), keepdim=True), maps)


SHIFTS = Augmentation(
    rotation=0.0, scale=0.0, shear=0.0, shift=2 / 32, alternate=True, whole=True, fill="reflect"
)
"""Airbench's moves of photographs: two of 32 pixels, mirror images in turn."""

FARTHER = replace(SHIFTS, shift=4 / 32, erase=3 / 8)
"""Those of long trainings, in which images that are moved by two pixels are learned by heart."""

NEARER = Augmentation(scale=0.4)
"""Moves of under 10,000 images whose mirror images are of the same class, photographs mostly: what
is on them is near or far."""


def turned_in(epoch: int, rows: np.ndarray, coins: np.ndarray) -> np.ndarray:
    """Which images alternating mirror images show mirrored in an epoch.

    Parameters
    ----------
    epoch : int
    rows : int array of shape (n,)
        Places of the images among all of them.
    coins : bool array of shape (n_all,)
        Which images are mirrored in the first epoch; the others are in the second.
    """
    return np.asarray(coins[rows] ^ bool(epoch % 2))


def unprobed(augmentation: Augmentation | None, n: int) -> str | None:
    """Why no probe of mirror images is run on `n` training images; None where one is."""
    if augmentation is None:
        return "images aren't moved at random here, as augmentation 'moves' does"
    return f"{n} images are trained on, fewer than {_FEWEST}" if n < _FEWEST else None


def with_mirrors(
    augmentation: Augmentation,
    images: Images,
    encoded: np.ndarray,
    seed: int,
    *,
    mirrored: Augmentation | None = None,
) -> Augmentation:
    """Add the mirror images that the classes survive, as a quick probe finds.

    Untrained convolutional units and their closed-form output layer are fitted to most of a
    sample of the training images; if the mirror images of the rest are labelled nearly as well
    above chance as the rest itself (80%), mirror images are images too. So digits are not
    mirrored, cats are, and cells are turned upside down as well.

    Parameters
    ----------
    augmentation : Augmentation
    images : array of shape (n, H, W[, C])
        Training images. Under 200 of them nothing is probed or added.
    encoded : int array of shape (n,)
    seed : int
    mirrored : Augmentation, optional
        In the place of `augmentation` where the classes survive mirror images.
    """
    if unprobed(augmentation, len(images)) is not None:
        return augmentation
    rng = np.random.default_rng([seed, 2])
    drawn = rng.permutation(len(images))[:_PROBE_SAMPLES]
    encoded = encoded[drawn]
    n_fit = len(drawn) * 2 // 3
    n_classes = int(encoded.max()) + 1
    network = _probe(chosen(images, drawn[:n_fit]), encoded[:n_fit], n_classes, rng)
    chance = float(np.bincount(encoded).max() / len(encoded))
    rest, right = chosen(images, drawn[n_fit:]), np.zeros(3)
    for block in blocks(len(rest), images_at_a_time(rest)):
        part, labels = rest[block], encoded[n_fit:][block]
        for i, seen in enumerate((part, part[:, :, ::-1], part[:, ::-1])):
            right[i] += np.sum(network.outputs(seen).argmax(axis=1) == labels)
    kept, *others = right / len(rest) - chance
    mirror, flip = (bool(other >= _KEPT * max(kept, 1e-9)) for other in others)
    moves = mirrored if mirror and mirrored is not None else augmentation
    return replace(moves, mirror=mirror, flip=flip)


def _probe(
    images: Images, encoded: np.ndarray, n_classes: int, rng: np.random.Generator
) -> ConvolutionalNetwork:
    """One layer of untrained units with a grid of pooled maps, and their output layer."""
    shape = images.shape[1:]
    shrink = max(1, min(shape[:2]) // 24)
    units = ConvolutionalUnits(shape, (Layer(_PROBE_UNITS, 5, 2, 3),), shrink=shrink, grid=4)
    stage = units.stages[0]

    def vectors(length: int) -> np.ndarray:
        return rng.standard_normal((stage.maps, stage.rank, length)).astype(np.float32)

    channel, row, column = (vectors(length) for length in (stage.channels, *stage.sides))
    layer = LayerWeights(channel, row, column, np.zeros(stage.maps, np.float32))
    center, scale = channel_statistics(images)
    coef = np.zeros((units.n_features + 1, n_classes))
    network = ConvolutionalNetwork(units, (layer,), center, scale, coef, softmax=False)
    targets = np.eye(n_classes, dtype=np.float32)[encoded]
    solved = solve_gram(accumulate_gram(network.features(images), targets))
    return replace(network, coef=solved.coef)


def channel_statistics(images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel, ``(C,)`` each; a constant channel gets deviation 1.

    Parameters
    ----------
    images : array of shape (n, H, W[, C])
        The first 30,000 count, in two passes of blocks. Constant is what deviates by less than
        10⁻⁶ or, where no value is as large as 1, than 10⁻⁶ of the largest.
    """
    n = min(len(images), 10 * _PROBE_SAMPLES)
    size = images_at_a_time(images, _STATISTICS_BLOCK, bytes_a_number=8)
    largest = 0.0

    def mean_of(values: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for block in blocks(n, size):
            maps = as_maps(images[block])
            total = total + values(maps.double()).sum(dim=(0, 2, 3))
        return total / (n * prod(images.shape[1:3]))

    def seen(maps: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, float(maps.abs().max()))
        return maps

    center = mean_of(seen)
    spread = mean_of(lambda maps: (maps - center[:, None, None]).square()).sqrt()
    least = max(_CONSTANT * min(largest, 1.0), torch.finfo(torch.float32).tiny)
    spread = torch.where(spread > least, spread, torch.ones_like(spread))
    return center.float().numpy(), spread.float().numpy()
