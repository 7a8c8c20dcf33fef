"""Labelled features in blocks, whatever they come from: arrays, loaders, images and a backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from rankwise._arrays import Referred, blocks
from rankwise._process import torch_seeded
from rankwise._threads import blas_threads, in_threads
from rankwise.cluster import Fold, elsewhere
from rankwise.data.labels import label_values
from rankwise.heads.backbones import Backbone
from rankwise.heads.features import runner_of, to_float_batch
from rankwise.linear.statistics import as_float64
from rankwise.nets.borrowing import evaluating, on_device


class Block(NamedTuple):
    """Samples of a block: features (n, d) where the products run, labels, weights.

    Features are float64 unless a block is asked for as it is.
    """

    features: Any
    labels: np.ndarray
    weights: np.ndarray


class ArrayBlocks:
    """Blocks of arrays in memory or on disk; as often as wanted.

    Parameters
    ----------
    features : array of shape (n, d)
    labels : array of shape (n,)
    weights : array of shape (n,)
    block_size : int
    device : str
        ``"cpu"`` for NumPy's products, else a torch device (``"cpu:torch"`` under test).
    """

    repeatable = True

    def __init__(
        self,
        features: np.ndarray | Referred,
        labels: np.ndarray,
        weights: np.ndarray,
        block_size: int,
        device: str,
    ) -> None:
        self._features, self._labels, self._weights = features, labels, weights
        self._block_size, self._device = block_size, device

    def __iter__(self) -> Iterator[Block]:
        for part in self.parts:
            yield self.block(part)

    @property
    def parts(self) -> list[slice]:
        """Rows of each block."""
        return list(blocks(len(self._labels), self._block_size))

    @property
    def referred(self) -> bool:
        """Whether the features aren't here: workers read, or make, their own."""
        return isinstance(self._features, Referred)

    @property
    def on_cpu(self) -> bool:
        """Whether the products are NumPy's."""
        return self._device == "cpu"

    def block(self, part: slice) -> Block:
        """The samples of one block."""
        return self._block(part, part.start)

    def as_they_are(self) -> Iterator[Block]:
        """Blocks with features of their own type, where that is float32."""
        for part in blocks(len(self._labels), self._block_size):
            x = placed(self._features[part], self._device, own_type=True)
            yield Block(x, self._labels[part], self._weights[part])

    @property
    def fewer_than_features(self) -> bool:
        """Whether there are fewer samples than features: ``n × n`` is the smaller side."""
        n, d = self._features.shape
        return n < d and self._device == "cpu" and not isinstance(self._features, Referred)

    @property
    def less_than_statistics(self) -> bool:
        """Whether the samples take less memory than their Gram matrix."""
        d = self._features.shape[1]
        here = not isinstance(self._features, Referred) and self._device == "cpu"
        return here and self._features.nbytes <= 8 * d**2  # type: ignore[union-attr]

    def whole(self) -> Block:
        """All samples in one block, the caller's arrays copied."""
        block = self._block(slice(None), 0)
        x = np.array(self._features)  # of its own type: half of float64 where it is float32
        return Block(x, block.labels.copy(), block.weights.copy())

    def sample(self, stride: int) -> Block:
        """Every so-manieth sample."""
        return self._block(slice(None, None, stride), 0)

    def _block(self, part: slice, first: int) -> Block:
        x = placed(self._features[part], self._device)
        check_finite(x, first, part.step or 1)
        return Block(x, self._labels[part], self._weights[part])


Leaf = Callable[[Any, Block, int], Any]
"""``leaf(common, block, first)``: what a block comes to, whose first row is that of all samples."""


def summed(
    source: ArrayBlocks | LoaderBlocks,
    leaf: Leaf,
    add: Callable[[Any, Any], Any],
    common: Any,
    advance: Callable[[int], object],
) -> Any:
    """The sum over all blocks, in the one order of `rankwise.cluster.tree`; None of no blocks.

    Arrays are looked at by as many threads as BLAS has, one block and core each; what lies in
    shards, on the surrounding ``rankwise.cluster``. Neither changes a bit.
    """
    fold, any_block = Fold(add), False
    if isinstance(source, ArrayBlocks) and source.on_cpu:
        parts, away = source.parts, elsewhere()
        if away is not None and source.referred:
            size = parts[0].stop
            return away.tree(
                _on_part, parts, add, (source, leaf, common), lambda n: advance(n * size)
            )
        values = in_threads(partial(_on_part, (source, leaf, common)), parts, blas_threads())
        for part, value in zip(parts, values, strict=True):
            fold.push(value)
            advance(part.stop - part.start)
        return fold.total()
    first = 0
    for block in source:
        fold.push(leaf(common, block, first))
        first += len(block.labels)
        advance(len(block.labels))
        any_block = True
    return fold.total() if any_block else None


def _on_part(common: tuple[ArrayBlocks, Leaf, Any], part: slice) -> Any:
    source, leaf, own = common
    return leaf(own, source.block(part), part.start)


_END = object()


class OwnDraws:
    """Reads loaders, one or several times, and leaves PyTorch's generator as it was.

    A `DataLoader` draws from it: its order, if it shuffles, and a number for its workers in any
    case. What is drawn here is what would have been drawn from the generator itself.
    """

    def __init__(self) -> None:
        self._state = torch.get_rng_state()

    def read(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The items; while the caller works on one, the generator is the caller's."""
        with self._drawing():
            items = iter(loader)
        while True:
            with self._drawing():
                item = next(items, _END)
            if item is _END:
                return
            yield item

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        with torch_seeded():
            torch.set_rng_state(self._state)
            yield
            self._state = torch.get_rng_state()


class LoaderBlocks:
    """Blocks that an iterable gives: (features or images, labels[, sample weights]).

    A `torch.utils.data.DataLoader` can be iterated again; a generator can't, and then the samples
    are seen once.
    """

    def __init__(self, loader: Any, backbone: Backbone | None, device: str) -> None:
        self._loader, self._device = loader, device
        self._draws = OwnDraws()
        self._backbone = backbone_on(backbone, device)
        self.repeatable = not hasattr(loader, "__next__")  # an iterator runs out

    def __iter__(self) -> Iterator[Block]:
        return self._blocks(own_type=False)

    def as_they_are(self) -> Iterator[Block]:
        """Blocks with features of their own type, where that is float32."""
        return self._blocks(own_type=True)

    def _blocks(self, own_type: bool) -> Iterator[Block]:
        first = 0
        for item in self._draws.read(self._loader):
            if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
                raise ValueError(
                    "each block of an iterable is (features, labels) or (features, labels, "
                    f"sample weights), got {type(item).__name__}"
                )
            x = loaded_features(item[0], self._backbone, self._device, own_type=own_type)
            labels = _labels(item[1], first)
            weights = to_array(item[2]).astype(float) if len(item) == 3 else np.ones(len(labels))
            if weights.ndim != 1:
                raise ValueError(
                    f"weights of a block after sample {first} have shape {weights.shape}; one "
                    "weight a sample, shape (n,), is accepted"
                )
            if not len(x) == len(labels) == len(weights):
                raise ValueError(
                    f"a block after sample {first} holds {len(x)} samples, {len(labels)} labels "
                    f"and {len(weights)} weights"
                )
            if (weights < 0).any() or not np.isfinite(weights).all():
                raise ValueError(
                    f"a block after sample {first} holds a weight below 0 or no number"
                )
            check_finite(x, first)
            yield Block(x, labels, weights)
            first += len(labels)


def _labels(values: Any, first: int) -> np.ndarray:
    """Class labels of a block: one a sample, text or whole numbers."""
    given = values if isinstance(values, (list, tuple)) else to_array(values)
    labels = to_array(checked_labels(given, f"a block after sample {first}"))
    if labels.ndim != 1:
        raise ValueError(
            f"labels of a block after sample {first} have shape {labels.shape}; one label a "
            "sample, shape (n,), is accepted"
        )
    if labels.dtype.kind == "f":
        odd = labels[~np.isfinite(labels) | (labels != np.floor(labels))]
        if len(odd):
            raise ValueError(
                f"a block after sample {first} has label {odd[0]}; class labels are text or whole "
                "numbers"
            )
    return labels


def checked_labels(labels: Any, where: str) -> Any:
    """Labels as they are, unless NumPy can't sort them, or would make one text of all of them.

    Objects that are no text become what they are: integers or truth values.

    Raises
    ------
    DataError
        Where some are none, or they are of several kinds, as `label_values` says of a set's.
    """
    array = np.asarray(labels)
    listed = isinstance(labels, (list, tuple))
    if array.dtype.kind not in ("OTU" if listed else "OT"):
        return labels
    given = labels if listed else array
    text = (isinstance(v, str) for v in np.asarray(given, dtype=object).ravel())
    if array.dtype.kind != "T" and all(text):
        return labels
    label_values(given, where)
    return np.array(array.tolist())


def loaded_features(
    batch: Any, backbone: Backbone | None, device: str, *, own_type: bool = False
) -> Any:
    """Features of one block from a loader, where products and backbone are; see `placed`."""
    if backbone is None:
        x = placed(batch, device, own_type=own_type)
        if x.ndim != 2:
            raise ValueError(
                f"features have shape (n, d), got {tuple(x.shape)}; images need a backbone"
            )
        return x
    target = torch.device(device.removesuffix(":torch"))
    with evaluating(backbone):
        images = to_float_batch(batch, target)
        features = runner_of(backbone, images)(images)
    return placed(features, device, own_type=own_type)


def backbone_on(backbone: Backbone | None, device: str) -> Any:
    """The backbone where it is on the device already, else a copy of it there."""
    return None if backbone is None else on_device(backbone, device.removesuffix(":torch"))


def placed(x: Any, device: str, *, own_type: bool = False) -> Any:
    """A NumPy array for ``"cpu"``, else a tensor on the device; float64, or the float32 it is."""
    if device == "cpu":
        array = to_array(x)
        return array if own_type and array.dtype == np.float32 else as_float64(array)
    target = torch.device(device.removesuffix(":torch"))
    tensor = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.array(x))
    tensor = tensor.detach().to(target)
    return tensor if own_type and tensor.dtype == torch.float32 else as_float64(tensor)


def check_finite(x: Any, first: int, step: int = 1) -> None:
    """Raise where a feature is NaN or infinite, naming its row, counted from `first`."""
    if np.isfinite(float(x.sum())):
        return
    bad = np.argwhere(~np.isfinite(to_array(x)))
    if len(bad):
        row, column = int(bad[0, 0]), int(bad[0, 1])
        value = float(x[row, column])
        raise ValueError(
            f"Input X contains NaN or infinity: row {first + row * step}, feature {column} is "
            f"{value}; {len(np.unique(bad[:, 0]))} row(s) of its block are not finite"
        )


def to_array(x: Any) -> np.ndarray:
    """An array of NumPy's; a tensor of a type that NumPy lacks, such as bfloat16, as float32."""
    if not isinstance(x, torch.Tensor):
        return np.asarray(x)
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
