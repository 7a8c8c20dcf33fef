"""Weights in fewer bits: float16, or int8 with one scale for each channel, unit or column.

Only weights are rounded; computations stay in float32. Biases, and numbers that are few, stay
float32. With ``s = max|w| / 127`` over the weights that share a scale, int8 holds
``k = round(w / s)``, so that ``|w − s·k| ≤ s/2``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rankwise.networks.graph import (
    Activate,
    Affine,
    Concatenate,
    Dense,
    Graph,
    RankOneForms,
    Square,
    arrays_of,
    map_weights,
)

PRECISIONS = ("float32", "float16", "int8")
OUTLIER = 64.0
"""Measured on the digits, 100 windowed units, four seeds: with all units in int8 1.1 to 5.9 points
of accuracy are lost, with the 5 to 10% that exceed this in float16 at most 0.3; 16 to 128 do as
well.
"""

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_ONE_BY_ONE = (Activate, Square, Affine)


@dataclass(frozen=True, eq=False)
class Encoded:
    """An array of weights as it is stored.

    Attributes
    ----------
    values : float32, float16 or int8 array
    scales : float32 array or None
        For int8: as many axes as `values`, of length 1 along those that share a scale.
    axes : tuple of int
        The axes along which scales differ.
    """

    values: np.ndarray
    scales: np.ndarray | None = None
    axes: tuple[int, ...] = ()

    def decode(self) -> np.ndarray:
        """The weights that it stands for, float32."""
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * self.scales

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


def encode(weights: np.ndarray, axes: tuple[int, ...], precision: str) -> Encoded:
    """Round weights to a precision.

    Parameters
    ----------
    weights : float array
    axes : tuple of int
        For int8: the axes along which each weight has a scale of its own.
    precision : {"float32", "float16", "int8"}

    Raises
    ------
    ValueError
        If the precision is unknown, a weight isn't finite, or one is too large for float16.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; accepted: {', '.join(PRECISIONS)}")
    if not np.isfinite(weights).all():
        raise ValueError("the model holds weights that aren't finite, and can't be exported")
    if precision == "float32":
        return Encoded(weights.astype(np.float32))
    largest = float(np.abs(weights).max(initial=0.0))
    if precision == "float16":
        if largest > _FLOAT16_MAX:
            raise ValueError(
                f"float16 holds numbers up to 65504, but the model has a weight of {largest:.3g}; "
                "use int8 or float32"
            )
        return Encoded(weights.astype(np.float16))
    shared = tuple(a for a in range(weights.ndim) if a not in axes)
    peak = np.abs(weights.astype(np.float64)).max(axis=shared, keepdims=True, initial=0.0)
    scales = (peak / 127).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 1.0  # nothing but zeros: any scale does
    levels = np.rint(weights / scales.astype(np.float64))
    return Encoded(np.clip(levels, -127, 127).astype(np.int8), scales, tuple(axes))


@dataclass(frozen=True, eq=False)
class Quantised:
    """A graph and how each of its weight arrays is stored.

    Attributes
    ----------
    graph : Graph
        Computes what the original computes; its hidden units may stand in another order.
    precision : {"float32", "float16", "int8"}
    encoded : dict
        From the `id` of an array of `graph` to its `Encoded`.
    """

    graph: Graph
    precision: str
    encoded: dict[int, Encoded]

    def of(self, array: np.ndarray) -> Encoded:
        """How an array of `graph` is stored: float32 where it is a bias or the like."""
        return self.encoded.get(id(array), Encoded(array.astype(np.float32)))

    def rounded(self) -> Graph:
        """The graph with its weights as they are after rounding, float32: what exports compute."""
        ops = map_weights(self.graph.ops, lambda array, axes: self.of(array).decode())
        return replace(self.graph, ops=ops)


def quantise(graph: Graph, precision: str) -> Quantised:
    """Round all weights of a graph to a precision.

    For int8, hidden units with a vector whose largest number is more than `OUTLIER` times its
    median stay in float16: half of such a vector would be less than two of int8's 127 levels.
    Variable projection makes a few of them, on pixels that are nearly always zero. Numbers that
    float16 doesn't hold, above 65504, take all of these units to float32.

    Parameters
    ----------
    graph : Graph
    precision : {"float32", "float16", "int8"}

    Raises
    ------
    ValueError
        If the graph holds what no export knows, or a weight doesn't fit the precision.
    """
    graph.check()
    kept: set[int] = set()
    if precision == "int8":
        graph, kept = _outliers_apart(graph)
    largest = max((np.abs(a).max() for a in arrays_of(graph.ops) if id(a) in kept), default=0.0)
    finer = "float16" if largest <= _FLOAT16_MAX else "float32"
    encoded: dict[int, Encoded] = {}

    def record(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        encoded[id(array)] = encode(array, axes, finer if id(array) in kept else precision)
        return array

    map_weights(graph.ops, record)
    return Quantised(graph, precision, encoded)


def _outliers_apart(graph: Graph) -> tuple[Graph, set[int]]:
    """Rank-one forms that int8 holds badly as a branch of their own, and its arrays' ids."""
    for position, op in enumerate(graph.ops):
        rest = graph.ops[position + 1 :]
        n_between = next((i for i, o in enumerate(rest) if not isinstance(o, _ONE_BY_ONE)), None)
        if not isinstance(op, RankOneForms) or n_between is None:
            continue
        between, dense, behind = rest[:n_between], rest[n_between], rest[n_between + 1 :]
        hard = np.any([_has_outlier(f) for f in op.distinct], axis=0)
        if not isinstance(dense, Dense) or not hard.any():
            continue
        if hard.all():
            return graph, {id(f) for f in op.factors}
        easy_forms, hard_forms = _units(op, ~hard), _units(op, hard)
        order = np.concatenate([np.flatnonzero(~hard), np.flatnonzero(hard)])
        ops = (
            *graph.ops[:position],
            Concatenate(((easy_forms,), (hard_forms,))),
            *(
                Affine(o.scale[order], o.shift[order]) if isinstance(o, Affine) else o
                for o in between
            ),
            Dense(dense.weight[order], dense.bias),
            *behind,
        )
        return replace(graph, ops=ops), {id(f) for f in hard_forms.factors}
    return graph, set()


def _has_outlier(factor: np.ndarray) -> np.ndarray:
    """Whether a unit has a vector with an outlier, ``(n_units,)``, from ``(r, n_units, side)``."""
    sizes = np.abs(factor.astype(np.float64))
    # Zeros stand outside the window: the median is that of the other numbers.
    ordered = np.sort(sizes, axis=2)
    n_zeros = (sizes == 0).sum(axis=2)
    middle = np.minimum(n_zeros + (sizes.shape[2] - n_zeros) // 2, sizes.shape[2] - 1)
    median = np.take_along_axis(ordered, middle[..., None], axis=2)[..., 0]
    return np.any(ordered[..., -1] > OUTLIER * median, axis=0).astype(bool)


def _units(forms: RankOneForms, chosen: np.ndarray) -> RankOneForms:
    """Some units of the forms; axes that share an array go on sharing one."""
    arrays = [np.ascontiguousarray(f[:, chosen]) for f in forms.distinct]
    return RankOneForms(tuple(arrays[j] for j in forms.vector_of_axis), forms.bias[chosen])
