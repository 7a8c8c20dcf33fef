"""Why a model gives an image its outputs: the sum that they are, laid over the image.

An output is ``o_k = b_k + Σ_i a_ik φ_i``, a sum over units. Each unit's part is laid where the
unit looks, so that the numbers of a map, with ``b_k``, add up to the output:

- a unit of a quadratic network sees ``q_i = Σ_p W_ip X_p + b``: pixel ``p`` gets the share
  ``|W_ip| X_p / Σ_p |W_ip| X_p`` of ``a_ik φ_i``, an even share of its window where that is black;
- a convolutional unit of the last layer is a mean over places of a cell: each place gets its own
  term of that mean.

Neither asks whether another image would have had the same unit; `occlusion` does, by covering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rankwise._arrays import as_float
from rankwise.explore.seen import outputs_of
from rankwise.networks.convolutional import ConvolutionalNetwork

LARGEST = 14
"""Rows and columns of a map at most: neighbours are then summed."""
_BLOCK = 64
_NUMBERS = 2**22
_BYTES = 2**25


@dataclass(frozen=True)
class Reasons:
    """Maps whose numbers add up to outputs.

    Parameters
    ----------
    bias : float64 array of shape (K,)
        What each output has without any unit.
    maps : float64 array of shape (n, K, rows, columns)
        ``bias + maps.sum((2, 3))`` are the outputs.
    units : int array of shape (n, t)
        Of each image the units whose parts differ most between its two classes.
    unit_parts : float64 array of shape (n, t, 2)
        Their parts in the outputs for those two.
    unit_maps : float64 array of shape (n, t, rows, columns)
        Where the first part less the second comes from.
    """

    bias: Float[np.ndarray, "K"]
    maps: Float[np.ndarray, "n K rows columns"]
    units: Int[np.ndarray, "n t"]
    unit_parts: Float[np.ndarray, "n t 2"]
    unit_maps: Float[np.ndarray, "n t rows columns"]


def explains(model: Any) -> bool:
    """Whether a model's outputs are a sum of units that look somewhere in a picture.

    Not where it averages over copies of each image (``tta``), which its units see too.
    """
    network = getattr(model, "network_", None)
    averages = getattr(model, "tta", None) is not None
    return network is not None and not averages and len(network.units.shape) in (2, 3)


def reasons(
    model: Any, images: np.ndarray, pairs: Int[np.ndarray, "n 2"], *, n_units: int = 4
) -> Reasons:
    """Why images get their outputs.

    Parameters
    ----------
    model : QuadraticClassifier or ConvolutionalClassifier
    images : uint8 array of shape (n, height, width[, channels])
    pairs : int array of shape (n, 2)
        For each image the two classes by whose difference its units are chosen.
    n_units : int
        Units shown of each, at most.
    """
    network = model.network_
    images = model._validated_predict(images)
    parts_of = _convolutional if isinstance(network, ConvolutionalNetwork) else _quadratic
    found = [
        parts_of(network, images[i : i + _BLOCK], pairs[i : i + _BLOCK], n_units)
        for i in range(0, len(images), _BLOCK)
    ]
    joined = [np.concatenate(arrays) for arrays in zip(*found, strict=True)]
    return Reasons(network.coef[-1].astype(np.float64), *joined)


def _convolutional(
    network: ConvolutionalNetwork, images: np.ndarray, pairs: np.ndarray, n_units: int
) -> tuple[np.ndarray, ...]:
    units = network.units
    rows, columns = units.stages[-1].out
    cell = units.cell
    maps = units.stages[-1].maps
    # The same network with a cell for each place: its features are the last maps themselves.
    each = replace(network, units=replace(units, grid=max(rows, columns)))
    places = each.features(images)(slice(0, len(images)))[:, :-1]
    places = places.astype(np.float64).reshape(len(images), maps, rows, columns)
    k = network.coef.shape[1]
    coarse = network.coef[:-1].reshape(maps, rows // cell[0], columns // cell[1], k)
    fine = np.zeros((maps, rows, columns, k))
    used = coarse.shape[1] * cell[0], coarse.shape[2] * cell[1]
    fine[:, : used[0], : used[1]] = coarse.repeat(cell[0], axis=1).repeat(cell[1], axis=2)
    fine /= cell[0] * cell[1]
    total = np.einsum("ncyx,cyxk->nkyx", places, fine)
    sums = np.einsum("ncyx,cyxk->nck", places, fine)
    chosen, parts = _strongest(sums, pairs, n_units)
    at = np.arange(len(images))[:, None]
    weight = fine[..., pairs[:, 0]] - fine[..., pairs[:, 1]]  # (maps, rows, columns, n)
    unit_maps = places[at, chosen] * np.moveaxis(weight, -1, 0)[at, chosen]
    return _coarse(total), chosen, parts, _coarse(unit_maps)


def _quadratic(
    network: Any, images: np.ndarray, pairs: np.ndarray, n_units: int
) -> tuple[np.ndarray, ...]:
    units, params = network.units, network.params.astype(np.float64)
    n, shape = len(images), units.shape
    pixels = as_float(images, "float64")
    features = units.features(units.flatten(pixels), params)[:, : network.n_units]
    flat = np.abs(pixels).reshape(n, -1)
    coef = network.coef[:-1].astype(np.float64)
    total = np.zeros((n, coef.shape[1], flat.shape[1]))
    step = max(1, _NUMBERS // flat.shape[1])
    for i in range(0, network.n_units, step):
        some = slice(i, i + step)
        seen, window, share, even = _shares(units, params[:, some], flat, features[:, some])
        for k, c in enumerate(coef[some].T):
            total[:, k] += flat * ((share * c) @ seen.T) + (even * c) @ window.T
    sums = features[:, :, None] * coef[None]
    chosen, parts = _strongest(sums, pairs, n_units)
    unit_maps = np.empty((*chosen.shape, flat.shape[1]))
    for i, some in enumerate(chosen):
        one = slice(i, i + 1)
        seen, window, share, even = _shares(units, params[:, some], flat[one], features[one, some])
        weight = coef[some, pairs[i, 0]] - coef[some, pairs[i, 1]]
        own = flat[one] * (share * seen).T + (even * window).T
        unit_maps[i] = weight[:, None] * own

    def as_pictures(values: np.ndarray) -> np.ndarray:
        found = values.reshape(*values.shape[:2], *shape)
        return _coarse(found if len(shape) == 2 else found.sum(axis=-1))

    return as_pictures(total), chosen, parts, as_pictures(unit_maps)


def _shares(
    units: Any, params: np.ndarray, flat: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What units weigh pixels by, and where at all; what a weighed pixel gets, and any pixel.

    Two arrays (pixels, I), two (n, I). ``features = Σ_p flat_p·seen_p·share + window_p·even``.
    """
    seen = np.abs(_forms(units, params)).reshape(flat.shape[1], -1)
    window = (seen > 0).astype(np.float64)
    reach = flat @ seen
    dark = reach <= 0
    share = np.where(dark, 0.0, features / np.where(dark, 1.0, reach))
    # A unit of no weights at all lies over the whole image.
    window[:, ~window.any(axis=0)] = 1.0
    even = np.where(dark, features / window.sum(axis=0), 0.0)
    return seen, window, share, even


def _forms(units: Any, params: np.ndarray) -> np.ndarray:
    """What each unit weighs each pixel by, float64 of shape (*shape, I)."""
    vectors, _ = units.split(params.astype(np.float64))
    first, *others = [vectors[j] for j in units.vector_of_axis]
    form = first
    for factor in others:
        form = form[..., None, :, :] * factor
    return form.sum(axis=-2)


def _strongest(
    sums: Float[np.ndarray, "n I K"], pairs: np.ndarray, n_units: int
) -> tuple[np.ndarray, np.ndarray]:
    """Units whose parts differ most between two classes, and those parts."""
    at = np.arange(len(sums))
    first, second = sums[at, :, pairs[:, 0]], sums[at, :, pairs[:, 1]]
    chosen = np.argsort(-np.abs(first - second), axis=1, kind="stable")[:, :n_units]
    return chosen, np.stack([first[at[:, None], chosen], second[at[:, None], chosen]], axis=-1)


def _coarse(maps: np.ndarray) -> np.ndarray:
    """Maps of `LARGEST` rows and columns at most: neighbours are summed, so totals stay."""
    for axis in (-2, -1):
        length = maps.shape[axis]
        if length > LARGEST:
            step = -(-length // LARGEST)
            maps = np.add.reduceat(maps, np.arange(0, length, step), axis=axis)
    return maps


def occlusion(
    model: Any, images: np.ndarray, pairs: Int[np.ndarray, "n 2"], *, grid: int = 7
) -> Float[np.ndarray, "n rows columns"]:
    """How much each place matters: what covering it takes from one output's lead over another.

    Each cell of a grid is covered, a little past its edges, by the image's mean colour.

    Parameters
    ----------
    model
        As for `rankwise.explore.seen.seen`.
    images : uint8 array of shape (n, height, width[, channels])
    pairs : int array of shape (n, 2)
        The lead is that of the first class over the second.
    grid : int
        Rows and columns of the grid, at most a cell a pixel.

    Returns
    -------
    array of shape (n, rows, columns)
        Positive where the place speaks for the first class.
    """
    height, width = images.shape[1:3]
    rows, columns = min(grid, height), min(grid, width)
    found = np.empty((len(images), rows, columns))
    step = max(1, _BYTES // ((rows * columns + 1) * images[0].nbytes)) if len(images) else 1
    for start in range(0, len(images), step):
        block = slice(start, start + step)
        covered = np.stack([_covered(image, rows, columns) for image in images[block]])
        outputs = outputs_of(model, covered.reshape(-1, *images.shape[1:]))
        outputs = outputs.reshape(*covered.shape[:2], -1)
        at = np.arange(len(covered))
        a, b = pairs[block].T
        lead = outputs[at, :, a] - outputs[at, :, b]
        found[block] = (lead[:, :1] - lead[:, 1:]).reshape(-1, rows, columns)
    return found


def _covered(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """An image, and it with each cell of a grid covered."""
    height, width = image.shape[:2]
    mean = image.reshape(height * width, -1).mean(axis=0).round().astype(image.dtype)
    found = np.repeat(image[None], rows * columns + 1, axis=0)
    for y in range(rows):
        for x in range(columns):
            top, bottom = _edges(y, rows, height)
            left, right = _edges(x, columns, width)
            found[1 + y * columns + x, top:bottom, left:right] = (
                mean if image.ndim == 3 else mean[0]
            )
    return found


def _edges(cell: int, cells: int, length: int) -> tuple[int, int]:
    """Pixels of a cell with a quarter of it on either side."""
    side = length / cells
    low, high = (cell - 0.25) * side, (cell + 1.25) * side
    return max(0, round(low)), min(length, max(round(high), round(low) + 1))
