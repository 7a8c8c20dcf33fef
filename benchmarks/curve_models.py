"""The convolutional networks of `curve.py`: ours, and rivals that are trained by the same code.

A rival is a list of blocks of dense or depthwise convolutions, with or without skips. It is trained
by `JointTraining` as our presets are: the same batches, rule of moves, label smoothing, schedule,
epochs or minutes and precision, its own optimiser AdamW at the best of three rates by validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from graph_runner import GraphRunner
from rankwise.networks.convolutional import channels_last
from rankwise.networks.graph import (
    Activate,
    Add,
    Affine,
    Convolve,
    Dense,
    Flatten,
    Graph,
    Op,
    Pool,
    ToMaps,
)
from rankwise.training.augment import channel_statistics
from rankwise.training.convolutional_presets import plan_convolutional
from rankwise.training.joint import JointTraining
from rankwise.training.validation import validation_split
from rival_models import Rankwise

RATES = (3e-3, 1e-2, 3e-2)
_EPS = 1e-5


@dataclass(frozen=True)
class Slide:
    """One convolution with its normalisation; `groups` of 0 is one a map: depthwise."""

    maps: int
    side: int = 3
    stride: int = 1
    groups: int = 1
    pool: int = 1
    active: bool = True


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; with a skip, what comes in is added, then the activation."""

    slides: tuple[Slide, ...]
    skip: bool = False


def plain(width: int) -> tuple[Block, ...]:
    """A CNN of three stages of two dense 3×3 convolutions, the first of each pooled."""
    return tuple(
        Block((Slide(m, pool=2), Slide(m))) for m in (width, round(2.5 * width), 3 * width)
    )


def separable(width: int) -> tuple[Block, ...]:
    """The same stages of depthwise and pointwise convolutions, as MobileNet has them."""
    blocks = [Block((Slide(width),))]
    for m in (2 * width, 4 * width, 6 * width):
        for pool in (2, 1):
            blocks.append(Block((Slide(0, groups=0), Slide(m, side=1, pool=pool))))
    return tuple(blocks)


def resnet(width: int) -> tuple[Block, ...]:
    """ResNet-20 with stages of other widths."""
    blocks = [Block((Slide(width),))]
    for stage in range(3):
        for i in range(3):
            m, stride = width * 2**stage, 2 if stage and not i else 1
            blocks.append(Block((Slide(m, stride=stride), Slide(m, active=False)), skip=True))
    return tuple(blocks)


class Rival(nn.Module):
    """A network of blocks, as `JointTraining` sees one.

    Parameters
    ----------
    blocks : tuple of Block
    images : array of shape (n, H, W[, C])
        For the channels' centre and scale.
    generator : torch.Generator
    activation : {"relu", "gelu"}
    """

    def __init__(
        self,
        blocks: tuple[Block, ...],
        images: np.ndarray,
        generator: torch.Generator,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        center, scale = channel_statistics(images)
        self.register_buffer("center", torch.as_tensor(center)[:, None, None])
        self.register_buffer("scale", torch.as_tensor(scale)[:, None, None])
        self.blocks, self.activation = blocks, activation
        self.filters, self.shifts = nn.ParameterList(), nn.ParameterList()
        channels = len(center)
        for block in blocks:
            before = channels
            for slide in block.slides:
                channels = self._add(slide, channels, generator)
            if block.skip and self.is_projected(block, before):
                self._add(self.projection(block), before, generator)
        self.n_features = channels

    def _add(self, slide: Slide, channels: int, generator: torch.Generator) -> int:
        maps, groups = slide.maps or channels, slide.groups or channels
        size = (maps, channels // groups, slide.side, slide.side)
        share = (2.0 / (size[1] * size[2] * size[3])) ** 0.5
        i = len(self.filters)
        self.filters.append(nn.Parameter(torch.randn(*size, generator=generator) * share))
        self.shifts.append(nn.Parameter(torch.zeros(maps)))
        self.register_buffer(f"mean{i}", torch.zeros(maps))
        self.register_buffer(f"variance{i}", torch.ones(maps))
        return maps

    @staticmethod
    def is_projected(block: Block, channels: int) -> bool:
        """Whether what comes in needs another shape to be added."""
        return block.slides[-1].maps != channels or block.slides[0].stride > 1

    @staticmethod
    def projection(block: Block) -> Slide:
        """The 1×1 convolution that gives it that shape."""
        first, last = block.slides[0], block.slides[-1]
        return Slide(last.maps, side=1, stride=first.stride, active=False)

    def forward(
        self, maps: torch.Tensor, moments: Any = None, precision: torch.dtype | None = None
    ) -> torch.Tensor:
        """Features ``(n, m)``: maps averaged over all places."""
        x = (maps - self.center) / self.scale
        x = channels_last(x.to(precision or x.dtype))
        turn = iter(range(len(self.filters)))
        for block in self.blocks:
            before, channels = x, x.shape[1]
            for slide in block.slides:
                x = self._slid(slide, next(turn), x, moments)
            if block.skip:
                if self.is_projected(block, channels):
                    before = self._slid(self.projection(block), next(turn), before, moments)
                x = self._active(x + before)
        return x.mean(dim=(2, 3)).to(self.center.dtype)

    def _active(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) if self.activation == "relu" else F.gelu(x)

    def _slid(self, slide: Slide, i: int, x: torch.Tensor, moments: Any) -> torch.Tensor:
        groups = slide.groups or x.shape[1]
        weight, pad = self.filters[i].to(x.dtype), slide.side // 2
        x = F.conv2d(x, weight, stride=slide.stride, padding=pad, groups=groups)
        x = F.max_pool2d(x, slide.pool) if slide.pool > 1 else x
        shift = self.shifts[i]
        if moments is None:
            mean, variance = getattr(self, f"mean{i}"), getattr(self, f"variance{i}")
            x = F.batch_norm(x, mean, variance, None, shift, eps=_EPS)
        else:
            mean, variance = torch.zeros_like(shift), torch.ones_like(shift)
            x = F.batch_norm(x, mean, variance, None, shift, True, 1.0, _EPS)
            moments.append((mean.detach(), variance.detach()))
        return self._active(x) if slide.active else x

    def matrices(self) -> list[nn.Parameter]:
        """None: rivals are trained by AdamW."""
        return []

    def set_moments(self, moments: Any, share: float = 1.0) -> None:
        """Move the kept moments towards these by a share of the way."""
        for i, (mean, variance) in enumerate(moments):
            getattr(self, f"mean{i}").lerp_(mean, share)
            getattr(self, f"variance{i}").lerp_(variance, share)

    def graph(self, coef: np.ndarray, shape: tuple[int, ...]) -> Graph:
        """The fitted network, with the normalisation folded in."""
        center, scale = (b.flatten().cpu().numpy() for b in (self.center, self.scale))
        turn = iter(range(len(self.filters)))

        def slid(slide: Slide, channels: int) -> tuple[list[Op], int]:
            i = next(turn)
            factor = (getattr(self, f"variance{i}") + _EPS).rsqrt()
            weight = self.filters[i].detach() * factor[:, None, None, None]
            bias = self.shifts[i].detach() - getattr(self, f"mean{i}") * factor
            groups = slide.groups or channels
            arrays = (weight.numpy(), bias.numpy())
            found: list[Op] = [Convolve(*arrays, slide.stride, slide.side // 2, groups)]
            found += [Pool("max", slide.pool)] if slide.pool > 1 else []
            found += [Activate(self.activation)] if slide.active else []
            return found, len(bias)

        ops: list[Op] = [ToMaps(), Affine(1 / scale, -center / scale)]
        channels = len(center)
        for block in self.blocks:
            before, inner = channels, []
            for slide in block.slides:
                found, channels = slid(slide, channels)
                inner += found
            if block.skip:
                other: list[Op] = []
                if self.is_projected(block, before):
                    other, _ = slid(self.projection(block), before)
                inner = [Add(tuple(inner), tuple(other)), Activate(self.activation)]
            ops += inner
        rows, columns = _size_after(ops, shape)
        ops += [Pool("mean", (rows, columns)), Flatten(), Dense(coef[:-1], coef[-1])]
        return Graph(shape, tuple(ops), tuple(map(str, range(coef.shape[1]))), 255.0, "softmax")


def _size_after(ops: list[Op], shape: tuple[int, ...]) -> tuple[int, int]:
    from rankwise.networks.graph import output_shape

    _, rows, columns = output_shape(ops, shape)
    return rows, columns


def n_parameters_of(
    make: Callable[[int], tuple[Block, ...]], width: int, shape: Any, k: int
) -> int:
    """Of a family's network of a width, on images of a shape with `k` classes."""
    some = np.zeros((1, *shape), np.uint8)
    network = Rival(make(width), some, torch.Generator())
    numbers = sum(p.numel() for p in network.parameters())
    return numbers + (network.n_features + 1) * k + 2 * len(network.center)


def widest(
    make: Callable[[int], tuple[Block, ...]], most: int, shape: tuple[int, ...], k: int
) -> int:
    """The largest width of a family with at most so many parameters."""
    width = 1
    while n_parameters_of(make, width + 1, shape, k) <= most:
        width += 1
    return width


class RivalNetwork:
    """A rival of at most so many parameters, trained as our preset of that size is.

    Parameters
    ----------
    make : callable
        `plain`, `separable` or `resnet`.
    most : int
        Parameters.
    preset : str
        Whose recipe.
    given : dict
        Epochs or minutes, and precision, as `plan_convolutional` takes them.
    seed, workers : int
    rates : sequence of float
        Learning rates, each tried with all of the epochs or minutes.
    """

    def __init__(
        self,
        make: Callable[[int], tuple[Block, ...]],
        most: int,
        preset: str,
        given: dict[str, Any],
        seed: int,
        workers: int,
        rates: Sequence[float] = RATES,
    ) -> None:
        self.make, self.most, self.preset, self.given = make, most, preset, given
        self.seed, self.workers, self.rates = seed, workers, rates

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Train at every rate; the best by validation stays, and its seconds."""
        begin = time.perf_counter()
        labels = labels.astype(np.int64)
        n_classes, shape = int(labels.max()) + 1, images.shape[1:]
        blocks = self.make(widest(self.make, self.most, shape, n_classes))
        fit, held = validation_split(labels, self.seed)
        whole = plan_convolutional(self.preset, self.given, shape, n_samples=len(labels))
        plan = replace(whole.joint_for(images[fit], labels[fit], self.seed), optimiser="adamw")
        prepared, best = time.perf_counter() - begin, -1.0
        for rate in self.rates:
            begin = time.perf_counter()
            generator = torch.Generator().manual_seed(self.seed)
            network = Rival(blocks, images[fit], generator, self.activation)
            at_rate = replace(plan, learning_rate=rate)
            training = JointTraining(
                network, at_rate, n_classes, seed=self.seed, workers=self.workers
            )
            result = training.fit(images[fit], labels[fit], validation=(images[held], labels[held]))
            chosen = result.chosen_epoch  # 0 where no epoch had a finite loss
            accuracy = result.history[chosen - 1]["validation_accuracy"] if chosen else 0.0
            if accuracy > best:
                best, self.training, self.learning_rate = accuracy, training, rate
                self.fit_seconds = prepared + time.perf_counter() - begin
        self.shape = shape
        self.runner = GraphRunner(self.graph())

    @property
    def activation(self) -> str:
        """That of the preset whose recipe it is."""
        from rankwise.training.convolutional_presets import CONVOLUTIONAL_PRESETS

        return CONVOLUTIONAL_PRESETS[self.preset].activation

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return self.runner.predict(images)

    def graph(self) -> Graph:
        """The fitted network, normalisation folded in."""
        return self.training.module.graph(self.training.coef.detach().numpy(), self.shape)

    @property
    def n_parameters(self) -> int:
        """All weights; the normalisation folds into filters and biases."""
        return sum(p.numel() for p in self.training.trained) + 2 * len(self.training.module.center)


class Convolutional(Rankwise):
    """One of our convolutional presets, predicting by the code that the rivals predict by."""

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Fit."""
        super().fit(images, labels)
        self.runner = GraphRunner(self.graph())

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return self.model.classes_[self.runner.predict(images)]

    def graph(self) -> Graph:
        """The fitted network."""
        return self.model.network_.as_graph(self.model.classes_, scale=255.0)
