"""The assembled network: all units, one output layer, and its outputs in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from rankwise._arrays import Images, Targets, as_float, blocks, own, part_rows
from rankwise._threads import thread_pool
from rankwise.cluster import elsewhere
from rankwise.linear.gram import Features
from rankwise.linear.output_layer import OutputLayer, solve_output_layer
from rankwise.networks.graph import Activate, Dense, Graph, RankOneForms
from rankwise.networks.probabilities import calibrated_layer
from rankwise.units.multilinear import Units

_BLOCK = 1024
_BLOCKS_A_TASK = 8


@dataclass(frozen=True)
class QuadraticNetwork:
    """One hidden layer of units and a linear output layer: ``O = σ(q(X))·A`` (paper, section 1).

    Parameters
    ----------
    units : Units
    params : float32 array of shape (p, I)
    coef : float64 array of shape (I + 1, K)
        Output layer, the constant's row last.
    n_active : int
        Parameters of the units that were fitted: inside the windows, and the biases.
    """

    units: Units
    params: np.ndarray
    coef: np.ndarray
    n_active: int

    def __post_init__(self) -> None:
        own(self, "params", "coef")

    @property
    def n_parameters_units(self) -> int:
        """Parameters of the hidden units, the only ones that the paper counts."""
        return self.n_active

    @property
    def n_parameters_total(self) -> int:
        """With the output layer."""
        return self.n_active + self.coef.size

    @property
    def n_units(self) -> int:
        """Hidden units."""
        return int(self.params.shape[1])

    def outputs(
        self,
        images: Images,
        *,
        workers: int = 1,
        advance: Callable[[int], object] = lambda n: None,
    ) -> Float[np.ndarray, "n K"]:
        """Outputs ``ΦA`` for images ``(n, *shape)``, block by block."""
        features = network_features(self.units, self.params, images)
        coef = self.coef.astype(self.params.dtype)
        return outputs_in_blocks(features, coef, len(images), _BLOCK, workers, advance)

    @property
    def own_probabilities(self) -> str:
        """How its outputs become probabilities where nothing else is asked for."""
        return "sum-to-one"

    def forms(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The units that weigh most in the output layer, at most so many, as pictures.

        Returns
        -------
        order : int array of shape (k,)
        pictures : float64 array of shape (k, height, width)
            ``Σ_ρ u^ρ ⊗ v^ρ``, summed over channels and any further axes.
        """
        order = np.argsort(-np.linalg.norm(self.coef[:-1], axis=1), kind="stable")[:most]
        kernel = self.units.form(self.params[:, order].astype(np.float64))
        return order, kernel

    def as_graph(
        self,
        classes: Iterable[Any],
        *,
        scale: float = 1.0,
        probabilities: str = "sum-to-one",
        temperature: float | None = None,
    ) -> Graph:
        """The network as a list of operations, for exports.

        Parameters
        ----------
        classes : iterable
            Labels, turned to text.
        scale : float
            Pixels are divided by it: 255 for a model of uint8 images.
        probabilities, temperature
            As in `log_probabilities`.
        """
        coef, output = calibrated_layer(self.coef, probabilities, temperature)
        return graph_of_units(self.units, self.params, coef, classes, scale=scale, output=output)


@dataclass(frozen=True)
class NetworkFeatures:
    """Features of a slice of the images with a constant last, ``(n_block, I + 1)``.

    The images are converted block by block.

    Parameters
    ----------
    units : Units
    params : array of shape (p, I)
        Their dtype is that of the features.
    images : array of shape (n, *units.shape)
    """

    units: Units
    params: np.ndarray
    images: Images

    @cached_property
    def _kernel(self) -> Any:
        return self.units.kernel(self.params)

    def __getstate__(self) -> dict[str, Any]:
        """Without the kernel, which a worker forms again: it is large."""
        return {k: v for k, v in self.__dict__.items() if k != "_kernel"}

    @property
    def row_bytes(self) -> int:
        """Of an image in floating point, and of its features."""
        numbers = int(np.prod(self.units.shape)) + self.params.shape[1] + 1
        return numbers * self.params.dtype.itemsize

    def __call__(self, block: slice) -> np.ndarray:
        """Features of some images."""
        params = self.params
        rows = self.units.flatten(as_float(self.images[block], str(params.dtype)))
        result = np.empty((len(rows), params.shape[1] + 1), dtype=params.dtype)
        q = result[:, :-1]
        np.matmul(rows, self._kernel, out=q)
        q += params[-1]
        q[...] = self.units.activate(q)
        result[:, -1] = 1.0
        return result


def network_features(units: Units, params: np.ndarray, images: Images) -> NetworkFeatures:
    """Features of a slice of the images; see `NetworkFeatures`."""
    return NetworkFeatures(units, params, images)


def outputs_in_blocks(
    features: Features,
    coef: np.ndarray,
    n: int,
    size: int,
    workers: int,
    advance: Callable[[int], object],
) -> Float[np.ndarray, "n K"]:
    """Outputs ``ΦA`` of `n` images, float64, a block of so many in each thread.

    On the surrounding ``rankwise.cluster`` a task takes a few blocks.

    Parameters
    ----------
    features : callable
        As `network_features` gives it.
    coef : array of shape (I + 1, K)
        In the dtype to multiply in.
    n, size : int
        Images, and images a block; large ones are fewer.
    workers : int
        Threads.
    advance : callable
        Told the number of images done.
    """
    if n == 0:
        return np.zeros((0, coef.shape[1]))
    size = part_rows(getattr(features, "row_bytes", 0), size)
    away, parts = elsewhere(), []
    if away is not None:
        some = list(blocks(n, size * _BLOCKS_A_TASK))
        for part in away.map(_outputs_of, some, (features, coef, size)):
            parts.append(part)
            advance(len(part))
        return np.concatenate(parts).astype(np.float64)

    def one(block: slice) -> np.ndarray:
        result = features(block) @ coef
        advance(len(result))
        return result

    with thread_pool(workers) as pool:
        parts = list(pool.map(one, blocks(n, size)))
    return np.concatenate(parts).astype(np.float64)


def _outputs_of(common: tuple[Features, np.ndarray, int], rows: slice) -> np.ndarray:
    features, coef, size = common
    found = [
        features(slice(rows.start + b.start, rows.start + b.stop)) @ coef
        for b in blocks(rows.stop - rows.start, size)
    ]
    return np.concatenate(found)


def glue(
    units: Units,
    params: np.ndarray,
    images: Images,
    targets: Targets,
    *,
    ridge: float | str = "gcv",
    method: str = "auto",
    rcond: float | None = None,
    weights: Float[np.ndarray, "n"] | None = None,
    workers: int = 1,
    dtype: str = "float32",
    n_active: int | None = None,
    advance: Callable[[int], object] = lambda n: None,
) -> tuple[QuadraticNetwork, OutputLayer]:
    """Assemble all units into one network by one least-squares solve (paper, section 4).

    Parameters
    ----------
    units, params
        All units side by side, ``(p, I)``.
    images : array of shape (n, *units.shape)
    targets : array of shape (n, K)
    ridge, method, rcond, weights, workers, advance
        As in `output_layer.solve_output_layer`.
    dtype : str
        Of the features.
    n_active : int, optional
        Fitted parameters of the units; default all.
    """
    given, cast = params, partial(np.ascontiguousarray, dtype=dtype)
    params, away = cast(given), elsewhere()
    if away is not None and params is not given:
        away.same(params, cast, [given])
    layer = solve_output_layer(
        network_features(units, params, images),
        targets,
        ridge=ridge,
        method=method,
        rcond=rcond,
        weights=weights,
        workers=workers,
        advance=advance,
    )
    active = params.size if n_active is None else int(n_active)
    return QuadraticNetwork(units, params, layer.coef, active), layer


def graph_of_units(
    units: Units,
    params: Float[np.ndarray, "p I"],
    coef: Float[np.ndarray, "I1 K"],
    classes: Iterable[Any],
    *,
    scale: float = 1.0,
    output: str = "sum-to-one",
) -> Graph:
    """The graph of one hidden layer of units and its output layer, ``σ(q(X))·A``.

    Parameters
    ----------
    units : Units
    params : array of shape (p, I)
    coef : array of shape (I + 1, K)
        Output layer, the constant's row last.
    classes : iterable
        Labels, turned to text.
    scale, output
        As in `Graph`.
    """
    vectors, bias = units.split(params)
    arrays = [np.ascontiguousarray(np.moveaxis(v, 0, -1)) for v in vectors]
    forms = RankOneForms(tuple(arrays[j] for j in units.vector_of_axis), bias)
    ops = (forms, Activate(units.activation), Dense(coef[:-1], coef[-1]))
    return Graph(units.shape, ops, tuple(str(c) for c in classes), scale=scale, output=output)
