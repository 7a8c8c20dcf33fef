"""The models of `rivals.py` behind one face: uint8 images in, ``fit``, ``predict``, a count.

Each function gives a maker, ``make(seed, quick)``. ``quick`` shrinks what would take long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rankwise._arrays import as_float
from rankwise.estimators._classifier import ImageClassifier
from rankwise.estimators.options import classifier_of
from rankwise.linear.output_layer import solve_output_layer
from rankwise.networks.quadratic import glue
from rankwise.training.presets import PRESETS
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units

Maker = Callable[[int, bool], Any]


def flat(images: np.ndarray) -> np.ndarray:
    """Rows of pixels in [0, 1], float32."""
    return as_float(images).reshape(len(images), -1)


class FromScikitLearn:
    """A scikit-learn classifier on rows of pixels.

    Parameters
    ----------
    model : classifier or pipeline
    count : callable
        Its parameters, once fitted.
    """

    def __init__(self, model: Any, count: Callable[[Any], int]) -> None:
        self.model = model
        self.count = count

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Fit."""
        self.model.fit(flat(images), labels)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return self.model.predict(flat(images))

    @property
    def n_parameters(self) -> int:
        """Numbers that prediction needs."""
        return self.count(self.model)


def _linear_count(model: Any) -> int:
    return model.coef_.size + model.intercept_.size


def logistic() -> Maker:
    """Multinomial logistic regression."""

    def make(seed: int, quick: bool) -> FromScikitLearn:
        from sklearn.linear_model import LogisticRegression

        return FromScikitLearn(_without_warning(LogisticRegression)(max_iter=100), _linear_count)

    return make


def svm_rbf() -> Maker:
    """Exact SVM with Gaussian kernel."""

    def make(seed: int, quick: bool) -> FromScikitLearn:
        from sklearn.svm import SVC

        def count(model: Any) -> int:
            return model.support_vectors_.size + model.dual_coef_.size + model.intercept_.size

        return FromScikitLearn(SVC(C=5.0, gamma=0.02, cache_size=2000), count)

    return make


def svm_nystroem(n_components: int) -> Maker:
    """Linear SVM on Nyström features of the same kernel."""

    def make(seed: int, quick: bool) -> FromScikitLearn:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import SGDClassifier
        from sklearn.pipeline import make_pipeline

        size = 100 if quick else n_components

        def count(model: Any) -> int:
            kernel = model[0]
            return kernel.components_.size + kernel.normalization_.size + _linear_count(model[1])

        return FromScikitLearn(
            make_pipeline(
                Nystroem(gamma=0.02, n_components=size, random_state=seed),
                SGDClassifier(
                    alpha=1e-6,
                    average=True,
                    max_iter=10,
                    tol=None,
                    n_jobs=-1,
                    random_state=seed,
                ),
            ),
            count,
        )

    return make


def boosting() -> Maker:
    """Gradient boosting on histograms."""

    def make(seed: int, quick: bool) -> FromScikitLearn:
        from sklearn.ensemble import HistGradientBoostingClassifier

        def count(model: Any) -> int:
            # A threshold and a feature for each inner node, a value for each leaf.
            trees = [tree for round_ in model._predictors for tree in round_]
            leaves = sum(tree.get_n_leaf_nodes() for tree in trees)
            return leaves + 2 * (leaves - len(trees))

        return FromScikitLearn(
            HistGradientBoostingClassifier(
                max_iter=5 if quick else 60, learning_rate=0.2, early_stopping=False
            ),
            count,
        )

    return make


def mlp() -> Maker:
    """The paper's "Standard NN": one hidden layer of 800."""

    def make(seed: int, quick: bool) -> FromScikitLearn:
        from sklearn.neural_network import MLPClassifier

        def count(model: Any) -> int:
            return sum(w.size for w in [*model.coefs_, *model.intercepts_])

        return FromScikitLearn(
            _without_warning(MLPClassifier)(
                hidden_layer_sizes=(800,), batch_size=200, max_iter=15, random_state=seed
            ),
            count,
        )

    return make


def _without_warning(kind: type) -> type:
    """The same without a warning at its cap of iterations, which the result's notes name."""

    class Quiet(kind):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            import warnings

            from sklearn.exceptions import ConvergenceWarning

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return super().fit(X, y)

    return Quiet


class Rankwise:
    """Our own classifier, on all cores."""

    def __init__(self, model: ImageClassifier) -> None:
        self.model = model

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Fit."""
        self.model.fit(images, labels)
        self.model.set_params(n_jobs=1)  # prediction is timed on one thread

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return self.model.predict(images)

    @property
    def n_parameters(self) -> int:
        """Units and output layer."""
        return self.model.n_parameters_total_


def rankwise_classifier(preset: str, n_subnets: int | None = None) -> Maker:
    """The classifier of a preset, by fewer sub-networks than its own if given."""

    def make(seed: int, quick: bool) -> Rankwise:
        given: dict[str, Any] = {} if n_subnets is None else {"n_subnets": n_subnets}
        if quick:
            subnets = preset in PRESETS
            given = {"n_subnets": 2, "samples_per_subnet": 300} if subnets else {"max_iter": 1}
        return Rankwise(classifier_of(preset, n_jobs=-1, random_state=seed, **given))

    return make


class UntrainedUnits:
    """The units of a preset as they start, and the glue: what training is compared with."""

    def __init__(self, kind: str, n_units: int, seed: int) -> None:
        self.preset = PRESETS["pereyra" if kind == "symmetric" else "windowed"]
        self.n_units = n_units
        self.seed = seed

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Draw units, solve the output layer."""
        units = make_units(self.preset.unit, images.shape[1:], activation=self.preset.activation)
        rng = np.random.default_rng(self.seed)
        start = Start(self.preset.window, self.preset.smooth)
        few = rng.choice(len(images), min(2000, len(images)), replace=False)
        params, active = random_units(units, self.n_units, as_float(images[few]), start, rng)
        self.network, _ = glue(
            units, params, images, _one_hot(labels), workers=_cores(), n_active=int(active.sum())
        )

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return self.network.outputs(images).argmax(axis=1)

    @property
    def n_parameters(self) -> int:
        """Random units and output layer."""
        return self.network.n_parameters_total


def untrained_units(kind: str) -> Maker:
    """Random units, symmetric or windowed, and ridge."""
    return lambda seed, quick: UntrainedUnits(kind, 100 if quick else 5200, seed)


class DenseRandom:
    """``tanh(xW + b)`` with random weights on all pixels, and the same output layer."""

    def __init__(self, n_units: int, seed: int) -> None:
        self.n_units = n_units
        self.seed = seed

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Draw weights scaled as our units are, solve the output layer."""
        rng = np.random.default_rng(self.seed)
        few = flat(images[rng.choice(len(images), min(2000, len(images)), replace=False)])
        weights = rng.standard_normal((few.shape[1], self.n_units)).astype(np.float32)
        weights /= (few @ weights).std(axis=0)
        self.weights, self.bias = weights, -(few @ weights).mean(axis=0)
        layer = solve_output_layer(
            lambda block: self._features(images[block]), _one_hot(labels), workers=_cores()
        )
        self.coef = layer.coef.astype(np.float32)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        return (self._features(images) @ self.coef).argmax(axis=1)

    def _features(self, images: np.ndarray) -> np.ndarray:
        phi = np.tanh(flat(images) @ self.weights + self.bias)
        return np.concatenate([phi, np.ones((len(phi), 1), dtype=np.float32)], axis=1)

    @property
    def n_parameters(self) -> int:
        """Random weights and output layer."""
        return self.weights.size + self.bias.size + self.coef.size


def dense_random(n_units: int) -> Maker:
    """Dense random features and ridge."""
    return lambda seed, quick: DenseRandom(100 if quick else n_units, seed)


class ConvolutionalNetwork:
    """3×3 convolutions with ReLU and pooling, then linear layers; Adam, one-cycle."""

    def __init__(self, channels: tuple[int, ...], hidden: int | None, epochs: int, seed: int):
        self.channels, self.hidden, self.epochs, self.seed = channels, hidden, epochs, seed

    def fit(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Train."""
        import torch
        from torch import nn

        torch.manual_seed(self.seed)
        layers: list[nn.Module] = []
        inside, height, width = 1, *images.shape[1:3]
        for outside in self.channels:
            layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            inside, height, width = outside, height // 2, width // 2
        layers.append(nn.Flatten())
        size, n_classes = inside * height * width, int(labels.max()) + 1
        if self.hidden is not None:
            layers += [nn.Linear(size, self.hidden), nn.ReLU()]
            size = self.hidden
        layers.append(nn.Linear(size, n_classes))
        # Channels last: the faster order of a CPU, in training and in prediction.
        self.net = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        x, y = self._tensor(images), torch.as_tensor(labels)
        batch = min(128, len(x))
        steps = self.epochs * -(-len(x) // batch)
        optimiser = torch.optim.Adam(self.net.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x)).split(batch):
                optimiser.zero_grad()
                nn.functional.cross_entropy(self.net(x[rows]), y[rows]).backward()
                optimiser.step()
                schedule.step()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels."""
        import torch

        with torch.no_grad():
            parts = [self.net(part).argmax(dim=1) for part in self._tensor(images).split(100)]
        return torch.cat(parts).numpy()

    @staticmethod
    def _tensor(images: np.ndarray) -> Any:
        import torch

        return torch.as_tensor(as_float(images))[:, None]

    @property
    def n_parameters(self) -> int:
        """All weights."""
        return sum(p.numel() for p in self.net.parameters())


def cnn(channels: tuple[int, ...], hidden: int | None) -> Maker:
    """A small CNN in plain PyTorch."""

    def make(seed: int, quick: bool) -> ConvolutionalNetwork:
        import torch  # noqa: F401  # here, so that fitting isn't timed with it

        return ConvolutionalNetwork(channels, hidden, 1 if quick else 6, seed)

    return make


def _one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]


def _cores() -> int:
    from joblib import cpu_count

    return cpu_count()
