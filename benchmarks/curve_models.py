"""The convolutional networks of `curve.py`: ours, and a CNN that shares their code."""

from __future__ import annotations

from typing import Any

import numpy as np

from graph_runner import GraphRunner
from rankwise.networks.graph import (
    Activate,
    Affine,
    Convolve,
    Dense,
    Flatten,
    Graph,
    Pool,
    ToMaps,
)
from rival_models import Rankwise

RATES = (3e-3, 1e-2)


class DenseNetwork:
    """A CNN with dense filters in the place of our rank-r ones, trained by the same code.

    Parameters
    ----------
    maps : tuple of int
        Of each layer; 5×5 filters in the first, 3×3 behind.
    pool : tuple of int
        Of each layer.
    seed : int
    epochs : int
    workers : int
    """

    def __init__(
        self, maps: tuple[int, ...], pool: tuple[int, ...], seed: int, epochs: int, workers: int
    ) -> None:
        self.maps, self.pool, self.seed = maps, pool, seed
        self.epochs, self.workers = epochs, workers

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Train."""
        import torch

        from rankwise.training.augment import Augmentation, channel_statistics, with_mirrors
        from rankwise.training.joint import JointPlan, JointTraining
        from rankwise.training.modules import ConvolutionalModule
        from rankwise.training.validation import validation_split
        from rankwise.units.convolutional import ConvolutionalUnits, Layer, compose

        class Dense(ConvolutionalModule):
            """The same layers, each filter a parameter of its own."""

            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                vectors = zip(self.channel, self.row, self.column, strict=True)
                composed = [compose(*v).detach().clone() for v in vectors]
                self.dense = torch.nn.ParameterList(map(torch.nn.Parameter, composed))
                self.channel, self.row, self.column = (torch.nn.ParameterList() for _ in range(3))

            def _slid(self, i: int, x: torch.Tensor) -> torch.Tensor:
                padding = self.units.stages[i].padding
                return torch.nn.functional.conv2d(x, self.dense[i].to(x.dtype), padding=padding)

        labels = labels.astype(np.int64)
        n_classes = int(labels.max()) + 1
        best = -1.0
        layers = tuple(
            Layer(m, side=3 if i else 5, pool=p)
            for i, (m, p) in enumerate(zip(self.maps, self.pool, strict=True))
        )
        fit, held = validation_split(labels, self.seed)
        augmentation = with_mirrors(Augmentation(), images[fit], labels[fit], self.seed)
        units = ConvolutionalUnits(images.shape[1:], layers)
        batch = min(125, max(32, len(fit) // 40))
        for rate in RATES:
            generator = torch.Generator().manual_seed(self.seed)
            module = Dense(units, *channel_statistics(images[fit]), generator)
            plan = JointPlan(
                epochs=self.epochs,
                batch_size=batch,
                learning_rate=rate,
                augmentation=augmentation,
            )
            training = JointTraining(module, plan, n_classes, seed=self.seed, workers=self.workers)
            result = training.fit(images[fit], labels[fit], validation=(images[held], labels[held]))
            accuracy = max(entry["validation_accuracy"] for entry in result.history)
            if accuracy > best:
                best, self.training, self.learning_rate = accuracy, training, rate
        self.runner = GraphRunner(self.graph())

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return self.runner.predict(images)

    def graph(self) -> Graph:
        """The fitted network, normalisation folded in."""
        module = self.training.module
        units = module.units
        center, scale = (b.flatten().numpy() for b in (module.center, module.scale))
        ops: list[Any] = [ToMaps(), Pool("mean", units.shrink), Affine(1 / scale, -center / scale)]
        for i, stage in enumerate(units.stages):
            factor, bias = module.folded(i)
            weight = module.dense[i].detach() * factor[:, None, None, None]
            ops.append(Convolve(weight.numpy(), bias.numpy(), padding=stage.padding))
            ops += [Pool("max", stage.pool), Activate(units.activation)]
        coef = self.training.coef.detach().numpy()
        ops += [Pool("mean", units.cell), Flatten(), Dense(coef[:-1], coef[-1])]
        classes = tuple(map(str, range(coef.shape[1])))
        return Graph(units.shape, tuple(ops), classes, 255.0, "softmax")

    @property
    def n_parameters(self) -> int:
        """All weights; the normalisation folds into filters and biases."""
        centre_and_scale = 2 * self.training.module.units.channels
        return sum(p.numel() for p in self.training.trained) + centre_and_scale


class Convolutional(Rankwise):
    """One of our convolutional presets, predicting by the code that the CNNs predict by."""

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
