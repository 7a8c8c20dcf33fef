"""A convolutional network in whole numbers: int8 weights and activations, int32 sums.

For chains of forms, pools and activations, which the convolutional presets are. A unit's forms are
slid one axis after the other (`c_rows`), and each step has a scale of its own:

    t = (Σ_c A_mc·x_c + ½) >> t_shift        int16, A int8 with a scale for each form
    h = (Σ_k V_mk·t_k + ½) >> h_shift        int16, V int8 with a scale for each form
    q = Σ_r Σ_k U_ork·h_rk                   int32, U int8 with a scale for each unit, that takes
                                             up those of A and V
    y = ((q >> q_shift)·M_o + 2ᵏB_o + ½) >> shift  int8, clipped to [0, 127]

Other activations than the rectifier are read from a table of all 256 levels, and where what came in
is added, table and factor have a few more bits:

    y = (table[clip(y)] + F·x + ½) >> bits    int8, clipped to [−127, 127]

No sum can overflow: the shifts are chosen from the weights' absolute sums. The scales of the
activations are those of the largest ones on calibration images. Images come in as bytes, less the
byte that stands for 0 behind normalisation, which is what surrounds an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any

import numpy as np

from rankwise.export.calibration import as_pixels
from rankwise.export.integer_chain import Stage, chain_of
from rankwise.networks.graph import GRAPH_ACTIVATIONS, Graph, run_ops

ACCEPTED = "convolutional networks"
CALIBRATION_IMAGES = 300
"""More change no accuracy that was measured: the largest activations vary little."""

_LEVELS = {"int8": 127, "int4": 7}
_INT16 = 32767
_SKIP_BITS = 7
_FRACTION = 6  # biases of up to 512 levels, to a 64th of one


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One layer of units.

    Attributes
    ----------
    mixing : int8 array of shape (r, n, O)
        `A`; for images of few channels the products of `A` and `U`, with ``n = rows·channels``.
    columns : int8 array of shape (r, kw, O)
        `V`; where there are no `rows`, with a scale for each unit.
    rows : int8 array of shape (r, kh, O), or None
        `U`.
    multiplier : int16 array of shape (O,)
    bias : int16 array of shape (O,)
        In parts of an output's level, `fraction` bits of them.
    t_shift, h_shift, q_shift, shift, fraction : int
    height : int
        Rows of a filter.
    padding, pool : (int, int)
    table : int8 or int16 array of shape (256,), or None
        What an activation makes of the levels −128 to 127; None is the rectifier.
    skip, bits : int
        The factor of what came in, which is added; 0: nothing is. And the bits of fraction of both.
    """

    mixing: np.ndarray
    columns: np.ndarray
    rows: np.ndarray | None
    multiplier: np.ndarray
    bias: np.ndarray
    t_shift: int
    h_shift: int
    q_shift: int
    shift: int
    fraction: int
    height: int
    padding: tuple[int, int]
    pool: tuple[int, int]
    table: np.ndarray | None = None
    skip: int = 0
    bits: int = 0

    @property
    def lowest(self) -> int:
        """The least level of a sum."""
        return 0 if self.table is None else -128


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A whole network; `run_integers` computes it, `c_integers` writes it.

    Attributes
    ----------
    graph : Graph
        What it was made from: shapes, classes, output.
    precision : {"int8", "int4"}
        Of `mixing` of all layers but the first; other weights are int8.
    shrink : int
    zeros : int array of shape (C,)
        The byte that stands for 0, a channel.
    layers : tuple of IntegerLayer
    cell : (int, int)
    weight : int8 array of shape (features, K)
    scale : float
    bias : float32 array of shape (K,)
        Logits are ``scale·sums + bias``.
    """

    graph: Graph
    precision: str
    shrink: int
    zeros: np.ndarray
    layers: tuple[IntegerLayer, ...]
    cell: tuple[int, int]
    weight: np.ndarray
    scale: float
    bias: np.ndarray

    @property
    def table_bytes(self) -> int:
        """Of all tables."""
        total = self.weight.size + 4 * len(self.bias) + 4 + 2 * len(self.zeros)
        for i, layer in enumerate(self.layers):
            packed = self.precision == "int4" and i > 0
            total += ceil(layer.mixing.size / 2) if packed else layer.mixing.size
            total += layer.columns.size + (0 if layer.rows is None else layer.rows.size)
            total += 2 * layer.multiplier.size + 2 * layer.bias.size
            total += 0 if layer.table is None else layer.table.nbytes
        return total


def is_integral(graph: Graph) -> bool:
    """Whether a graph can be computed in whole numbers alone."""
    return chain_of(graph) is not None


def to_integers(graph: Graph, images: np.ndarray, precision: str = "int8") -> IntegerNetwork:
    """Round a network to whole numbers, with the scales of calibration images.

    Parameters
    ----------
    graph : Graph
        For which `is_integral`.
    images : uint8 array of shape (n, *graph.image_shape)
        Training images, a few hundred of all classes; see `as_pixels`.
    precision : {"int8", "int4"}

    Raises
    ------
    ValueError
        If the graph has another form, or holds what no export knows; if the images aren't its.
    """
    graph.check()
    chain = chain_of(graph)
    if chain is None:
        raise ValueError(f"only {ACCEPTED} are computed in whole numbers")
    images = as_pixels(images, graph.image_shape)
    zeros = np.rint(-255.0 * chain.affine.shift / chain.affine.scale).astype(np.int64)
    network = IntegerNetwork(
        graph,
        precision,
        chain.shrink,
        zeros,
        (),
        chain.cell,
        np.zeros((0, 0), np.int8),
        1.0,
        np.zeros(0, np.float32),
    )
    x = _first_values(network, images)
    real = run_ops(chain.head, images.astype("float32") / np.float32(graph.scale))
    # What one level of the input means, a channel; what it can be at most.
    unit, most = chain.affine.scale.astype(np.float64) / 255.0, 255
    scale = 1.0
    for i, stage in enumerate(chain.stages):
        sums = run_ops(stage.ops, real)
        came_in, real = real, GRAPH_ACTIVATIONS[stage.activation](sums)
        if stage.skip:
            real = real + came_in
        before, scale = scale, float(np.abs(real).max()) / 127.0 or 1.0
        rectified = stage.activation == "relu" and not stage.skip
        own = scale if rectified else _step_of(stage.activation, sums)
        levels = 127 if i == 0 else _LEVELS[precision]
        layer = _rounded(stage, unit, most, own, levels, patches=i == 0)
        if not rectified:
            layer = _activated(layer, stage, own, scale, before)
        # What rounding shifts on average, each unit's bias takes back.
        layer = _centred(layer, run_sums(layer, x), sums, own)
        x = run_layer(layer, x)
        network = replace(network, layers=(*network.layers, layer))
        unit, most = np.full(x.shape[3], scale), 127
    weight = chain.dense.weight.astype(np.float64)
    step = float(np.abs(weight).max()) / 127.0 or 1.0
    rounded = np.rint(weight / step).astype(np.int8)
    size = chain.cell[0] * chain.cell[1]
    return replace(
        network,
        weight=rounded,
        scale=float(np.float32(step * scale / size)),
        bias=chain.dense.bias.astype(np.float32),
    )


def _step_of(activation: str, sums: np.ndarray) -> float:
    """What one of 127 levels of a layer's sums means: they reach as far as anything changes."""
    low, high = float(sums.min()), float(sums.max())
    grid = np.linspace(low, high, 4096)
    found = np.asarray(GRAPH_ACTIVATIONS[activation](grid))
    little = float(np.abs(found).max()) / 127.0 / 4.0
    begin = grid[np.argmax(np.abs(found - found[0]) > little)]
    end = grid[len(grid) - 1 - np.argmax(np.abs(found - found[-1])[::-1] > little)]
    return float(max(-begin, end)) / 127.0 or 1.0


def _activated(
    layer: IntegerLayer, stage: Stage, own: float, scale: float, before: float
) -> IntegerLayer:
    """A layer with its table, and the factor of what came in."""
    bits = _SKIP_BITS if stage.skip else 0
    found = np.asarray(GRAPH_ACTIVATIONS[stage.activation](np.arange(-128, 128) * own))
    table = np.rint(found / scale * 2.0**bits)
    if not stage.skip:
        return replace(layer, table=np.clip(table, -127, 127).astype(np.int8))
    table = np.clip(table, -_INT16, _INT16).astype(np.int16)
    skip = int(np.clip(np.rint(before / scale * 2.0**bits), 1, _INT16))
    return replace(layer, table=table, skip=skip, bits=bits)


def _rounded(
    stage: Stage, unit: np.ndarray, most: int, scale: float, levels: int, *, patches: bool
) -> IntegerLayer:
    """One layer in whole numbers; `unit` is what a level of each input channel means."""
    a, u, v = (w.astype(np.float64) for w in (stage.channel, stage.row, stage.column))
    a = a * unit
    height = u.shape[2]
    mixing = np.einsum("orc,ork->orkc", a, u).reshape(*a.shape[:2], -1) if patches else a
    if stage.patch is not None:
        mixing = stage.patch.astype(np.float64) * np.tile(unit, height)
    mixing, a_steps = _with_steps(mixing, levels, axis=2)
    t_bound = np.abs(mixing).sum(axis=2) * most
    t_shift = _shift_for(float(t_bound.max()))
    t_bound = t_bound / 2.0**t_shift + 1
    if patches:
        # The scale of a unit takes up those of its forms' mixing.
        columns, steps = _with_steps(v * a_steps[:, :, None], 127, axis=(1, 2))
        rows, h_shift = None, 0
        q_bound = (np.abs(columns).sum(axis=2) * t_bound).sum(axis=1)
    else:
        columns, v_steps = _with_steps(v, 127, axis=2)
        h_bound = np.abs(columns).sum(axis=2) * t_bound
        h_shift = _shift_for(float(h_bound.max()))
        h_bound = h_bound / 2.0**h_shift + 1
        rows, steps = _with_steps(u * (a_steps * v_steps)[:, :, None], 127, axis=(1, 2))
        q_bound = (np.abs(rows).sum(axis=2) * h_bound).sum(axis=1)
    q_shift = _shift_for(float(q_bound.max()))
    factor = steps * 2.0 ** (t_shift + h_shift + q_shift) / scale
    # The largest multiplier has 15 bits, and with the sum no more than 31.
    shift = int(np.clip(14 - ceil(log2(factor.max())), 1, 20))
    multiplier = np.rint(factor * 2.0**shift)
    fraction = min(shift, _FRACTION)
    bias = np.rint(stage.bias.astype(np.float64) / scale * 2.0**fraction)
    return IntegerLayer(
        np.transpose(mixing, (1, 2, 0)).astype(np.int8),
        np.transpose(columns, (1, 2, 0)).astype(np.int8),
        None if rows is None else np.transpose(rows, (1, 2, 0)).astype(np.int8),
        np.clip(multiplier, 0, _INT16).astype(np.int16),
        np.clip(bias, -_INT16, _INT16).astype(np.int16),
        t_shift,
        h_shift,
        q_shift,
        shift,
        fraction,
        height,
        stage.padding,
        stage.pool,
    )


def _with_steps(values: np.ndarray, levels: int, axis: Any) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, and what one of them means for all along the axes that share it."""
    peak = np.abs(values).max(axis=axis, keepdims=True)
    steps = np.where(peak > 0, peak, 1.0) / levels
    return np.rint(values / steps), np.squeeze(steps, axis=axis)


def _shift_for(bound: float) -> int:
    return max(0, ceil(log2(max(bound, 1.0) / _INT16)))


def _centred(
    layer: IntegerLayer, found: np.ndarray, wanted: np.ndarray, scale: float
) -> IntegerLayer:
    """The bias shifted by the mean error of a unit where it isn't clipped."""
    real = np.moveaxis(wanted, 1, 3).astype(np.float64) / scale
    active = (found > layer.lowest) & (found < 127) & (real > layer.lowest)
    n = active.sum(axis=(0, 1, 2))
    error = np.where(active, real - found, 0.0).sum(axis=(0, 1, 2)) / np.maximum(n, 1)
    moved = layer.bias + np.rint(error * 2.0**layer.fraction)
    return replace(layer, bias=np.clip(moved, -_INT16, _INT16).astype(np.int16))


# -- the slow reference ---------------------------------------------------------------------------


def run_integers(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    """Logits ``(n, K)`` in the same whole numbers as the C program, image by image the same.

    Parameters
    ----------
    network : IntegerNetwork
    images : uint8 array of shape (n, *graph.image_shape)
    """
    parts = []
    for start in range(0, len(images), 64):
        x = _first_values(network, images[start : start + 64])
        for layer in network.layers:
            x = run_layer(layer, x)
        down, across = network.cell
        rows, columns = x.shape[1] // down, x.shape[2] // across
        cells = x[:, : rows * down, : columns * across]
        cells = cells.reshape(len(x), rows, down, columns, across, -1).sum(axis=(2, 4))
        features = np.moveaxis(cells, 3, 1).reshape(len(x), -1)
        sums = features @ network.weight.astype(np.int64)
        parts.append(sums * network.scale + network.bias)
    return np.concatenate(parts)


def _first_values(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    """Bytes less those that stand for 0, ``(n, rows, columns, channels)``."""
    x = images.astype(np.int64)
    x = x[..., None] if x.ndim == 3 else x
    side = network.shrink
    if side > 1:
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x[:, : rows * side, : columns * side]
        x = x.reshape(len(x), rows, side, columns, side, -1).sum(axis=(2, 4))
        x = (x + side * side // 2) // (side * side)
    return x - network.zeros


def run_layer(layer: IntegerLayer, x: np.ndarray) -> np.ndarray:
    """One layer, ``(n, rows, columns, channels)`` in and out."""
    y = run_sums(layer, x)
    if layer.table is None:
        return y
    y = layer.table.astype(np.int64)[y + 128]
    if layer.skip:
        y = np.clip((y + layer.skip * x + (1 << layer.bits >> 1)) >> layer.bits, -127, 127)
    return y


def run_sums(layer: IntegerLayer, x: np.ndarray) -> np.ndarray:
    """The sums of one layer, rounded, clipped and pooled: a rectifier has nothing left to do."""
    (above, left), height = layer.padding, layer.height
    x = np.pad(x, ((0, 0), (above, above), (left, left), (0, 0)))
    width, places = layer.columns.shape[1], x.shape[2] - layer.columns.shape[1] + 1
    if layer.rows is None:
        n_rows = x.shape[1] - height + 1
        x = np.concatenate([x[:, k : k + n_rows] for k in range(height)], axis=3)
    t = _shifted(_mixed(x, layer.mixing), layer.t_shift)
    v = layer.columns.astype(np.int64)
    h = np.sum(
        [t[:, :, :, k : k + places] * v[:, k, None, None, None] for k in range(width)], axis=0
    )
    if layer.rows is None:
        q = h.sum(axis=0)
    else:
        h, u = _shifted(h, layer.h_shift), layer.rows.astype(np.int64)
        n_rows = x.shape[1] - height + 1
        parts = [h[:, :, k : k + n_rows] * u[:, k, None, None, None] for k in range(height)]
        q = np.sum(parts, axis=(0, 1))
    bias = (layer.bias.astype(np.int64) << layer.shift - layer.fraction) + (1 << layer.shift >> 1)
    y = ((q >> layer.q_shift) * layer.multiplier.astype(np.int64) + bias) >> layer.shift
    y = np.clip(y, layer.lowest, 127)
    down, across = layer.pool
    rows, columns = y.shape[1] // down, y.shape[2] // across
    y = y[:, : rows * down, : columns * across]
    return y.reshape(len(y), rows, down, columns, across, -1).max(axis=(2, 4))


def _mixed(x: np.ndarray, mixing: np.ndarray) -> np.ndarray:
    """Sums over channels ``(r, n, rows, columns, O)``: of whole numbers, so doubles are exact."""
    products = np.tensordot(x.astype(np.float64), mixing.astype(np.float64), axes=((3,), (1,)))
    return np.moveaxis(products, 3, 0).astype(np.int64)


def _shifted(values: np.ndarray, shift: int) -> np.ndarray:
    return (values + (1 << shift >> 1)) >> shift


def shapes_of(network: IntegerNetwork) -> list[tuple[int, int, int]]:
    """(rows, columns, channels) before each layer, and behind the last."""
    graph = network.graph
    channels = 1 if len(graph.image_shape) == 2 else graph.image_shape[2]
    rows, columns = (n // network.shrink for n in graph.image_shape[:2])
    shapes = [(rows, columns, channels)]
    for layer in network.layers:
        (above, left), (down, across) = layer.padding, layer.pool
        rows = (rows + 2 * above - layer.height + 1) // down
        columns = (columns + 2 * left - layer.columns.shape[1] + 1) // across
        shapes.append((rows, columns, layer.columns.shape[2]))
    return shapes
