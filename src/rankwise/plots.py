"""Pictures of a model: what its units look at, and what it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._arrays import blocks
from rankwise._files import atomic_path
from rankwise._process import ignoring_warnings
from rankwise._text import spelled
from rankwise.networks.convolutional import ConvolutionalNetwork, as_maps, shrunk, tensors_of
from rankwise.networks.sliding import slid
from rankwise.units.activations import ACTIVATIONS
from rankwise.units.convolutional import compose

_LOOKED_AT = 500
_PLACES_AT_ONCE = 16


def save_units(
    network: Any, path: Path, *, images: np.ndarray | None = None, most: int = 48
) -> None:
    """Draw the units that weigh most: the form each applies, `most` at most.

    A pixel's colour is its weight in ``q``: orange raises it, purple lowers it. Forms are summed
    over channels. Of convolutional units those of the first layer are drawn, whose forms are
    patches, and behind filters that whiten the part that is linear in the pixels; below each, the
    place of some images that it answers to most, in its surroundings.

    Parameters
    ----------
    network : QuadraticNetwork or ConvolutionalNetwork
    path : Path
    images : uint8 array of shape (n, height, width[, channels]), optional
        Where the places are looked for, in the first `_LOOKED_AT`.
    most : int
    """
    if isinstance(network, ConvolutionalNetwork):
        _save_patches(network, path, images, min(most, 24))
        return
    _, pictures = network.forms(most)
    columns = 12
    rows = -(-len(pictures) // columns)
    figure, axes = _subplots(rows, columns, (columns * 0.75, rows * 0.75 + 0.5))
    for axis, form in zip(axes.flat, pictures, strict=False):
        _draw_form(axis, form)
    for axis in axes.flat:
        axis.axis("off")
    shape = "×".join(str(s) for s in network.units.shape)
    figure.suptitle(
        f"The {len(pictures)} units that weigh most, of {network.n_units}: forms of the whole "
        f"image ({shape})",
        fontsize=10,
    )
    _save(figure, path)


def _save_patches(
    network: ConvolutionalNetwork, path: Path, images: np.ndarray | None, most: int
) -> None:
    order, pictures = network.forms(most)
    if network.whitening is not None:
        pictures = linear_parts(network, order)
    found = [] if images is None or not len(images) else strongest_places(network, images, order)
    across, each = min(12, len(order)), 2 if found else 1
    down = -(-len(order) // across)
    size = (max(4.5, 0.85 * across), 0.85 * each * down + 0.7)
    figure, axes = _subplots(each * down, across, size)
    for axis in axes.flat:
        axis.axis("off")
    for i, form in enumerate(pictures):
        _draw_form(axes[each * (i // across), i % across], form)
    for i, (place, box) in enumerate(found):
        axis = axes[each * (i // across) + 1, i % across]
        axis.imshow(place, cmap="gray", vmin=0, vmax=255)
        x, y, width, height = box
        axis.add_patch(_rectangle((x - 0.5, y - 0.5), width, height))
    stage, shrink = network.units.stages[0], network.units.shrink
    sides = "×".join(str(side + _wider(network)) for side in stage.sides)
    some = f"The {stage.maps}" if len(order) == stage.maps else f"{len(order)} of the {stage.maps}"
    first = f"{some} units of the first layer: patches of {sides}"
    if shrink > 1:
        first += f", of images averaged over {shrink}×{shrink}"
    below = "\nbelow each, what it answers to most (in the box)" if found else ""
    figure.suptitle(first + below, fontsize=9)
    _save(figure, path)


def linear_parts(network: ConvolutionalNetwork, order: Sequence[int] | np.ndarray) -> np.ndarray:
    """Forms of the first layer behind filters that whiten, as far as they are linear in the pixels.

    Of ``σ(z)`` and ``σ(-z)``, an answer with either sign, the difference is ``z`` for ReLU, GELU,
    SiLU and softplus; their sum, which has no sign, isn't shown.

    Parameters
    ----------
    network : ConvolutionalNetwork
    order : int array of shape (k,)
        Units.

    Returns
    -------
    float32 array of shape (k, rows + side - 1, columns + side - 1)
        Of filters with a side, summed over the channels of an image.
    """
    assert network.whitening is not None
    first, whitening = network.layers[0], network.whitening.filters.sum(axis=1)
    both = compose(first.channel, first.row, first.column)[order]
    odd = (both[:, : len(whitening)] - both[:, len(whitening) :]) / 2
    rows, columns = odd.shape[2:]
    side = whitening.shape[1]
    result = np.zeros((len(odd), rows + side - 1, columns + side - 1), odd.dtype)
    for y, x in np.ndindex(side, side):
        part = np.einsum("kmyx,m->kyx", odd, whitening[:, y, x])
        result[:, y : y + rows, x : x + columns] += part
    return result


def strongest_places(
    network: ConvolutionalNetwork, images: np.ndarray, order: Sequence[int] | np.ndarray
) -> list[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Where some images have the largest ``q`` of units of the first layer.

    Parameters
    ----------
    network : ConvolutionalNetwork
    images : uint8 array of shape (n, height, width[, channels])
    order : int array of shape (k,)
        Units.

    Returns
    -------
    list of (uint8 array, (x, y, width, height))
        Of each unit the patch with one of its size on every side, as far as the image goes, and
        where in it the patch lies.
    """
    units, stage = network.units, network.units.stages[0]
    rows, columns = stage.size
    best = np.full(len(order), -np.inf)
    at = np.zeros((len(order), 3), int)
    for block in blocks(min(len(images), _LOOKED_AT), _PLACES_AT_ONCE):
        found = _first_forms(network, images[block])[:, order]
        found = np.moveaxis(found, 1, 0).reshape(len(order), -1)
        largest = found.argmax(axis=1)
        value = found[np.arange(len(order)), largest]
        image, place = np.divmod(largest, rows * columns)
        new = np.column_stack([block.start + image, *np.divmod(place, columns)])
        at[value > best] = new[value > best]
        best = np.maximum(best, value)
    result = []
    for n, y, x in at:
        spans = []
        for center, side, length in zip((y, x), stage.sides, images.shape[1:3], strict=True):
            low = (center - side // 2) * units.shrink
            high = (center + side // 2 + 1 + _wider(network)) * units.shrink
            wide = high - low
            start, end = max(0, low - wide), min(length, high + wide)
            inside = max(low, 0)
            spans.append((start, end, inside - start, min(high, length) - inside))
        (top, bottom, *vertical), (left, right, *horizontal) = spans
        patch = images[n][top:bottom, left:right]  # of shards, too, one image is read
        box = (horizontal[0], vertical[0], horizontal[1], vertical[1])
        result.append((patch[..., :3] if patch.ndim == 3 else patch, box))
    return result


def _first_forms(network: ConvolutionalNetwork, images: np.ndarray) -> np.ndarray:
    """``q`` of the first layer at each of its places, ``(n, maps, rows, columns)``."""
    import torch
    from torch.nn import functional as F

    whitening, layers, center, scale = tensors_of(network)
    sigma = ACTIVATIONS[network.units.activation].value
    with torch.no_grad():
        x = (shrunk(as_maps(images), network.units.shrink) - center) / scale
        if whitening is not None:
            x = sigma(F.conv2d(x, *whitening))
        padding = network.units.stages[0].padding
        return slid(x, *layers[0], padding=padding, mixed=False).numpy()


def _wider(network: ConvolutionalNetwork) -> int:
    """By how many pixels the filters that whiten make a patch wider."""
    return max(0, network.units.whiten - 1)


def _draw_form(axis: Any, form: np.ndarray) -> None:
    limit = np.abs(form).max() or 1.0
    axis.imshow(form, cmap="PuOr_r", vmin=-limit, vmax=limit)


def _rectangle(corner: tuple[float, float], width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, fill=False, edgecolor="#ff8c28", linewidth=1.2)


def save_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix: true class down, predicted across, shaded by share."""
    k = len(names)
    size = min(10.0, 2.2 + 0.42 * k)
    figure, axes = _subplots(1, 1, (size, size))
    axis = axes.flat[0]
    # Each row as shares: right ones in blue, wrong ones in orange, whose shade grows with the root.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(k, dtype=bool)
    axis.imshow(np.ma.masked_array(np.sqrt(shares), right), cmap="Oranges", vmin=0.0, vmax=1.2)
    axis.imshow(np.ma.masked_array(shares, ~right), cmap="Blues", vmin=0.0, vmax=1.6)
    if k <= 20:
        for i in range(k):
            for j in range(k):
                if counts[i, j]:
                    dark = i != j and shares[i, j] > 0.5
                    axis.text(
                        j,
                        i,
                        str(counts[i, j]),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else "black",
                        fontweight="bold" if i == j else "normal",
                    )
        names = [spelled(name) for name in names]
        # Names may hold dollars, which aren't formulae here.
        turned = 90 if max(map(len, names)) > 2 else 0
        axis.set_xticks(range(k), names, rotation=turned, parse_math=False)
        axis.set_yticks(range(k), names, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    accuracy = np.trace(counts) / max(1, counts.sum())
    axis.set_title(f"{100 * accuracy:.2f}% of {counts.sum()} test images", fontsize=10)
    _save(figure, path)


def save_labelled(images: np.ndarray, titles: Sequence[str], path: Path) -> None:
    """Draw uint8 images ``(n, H, W[, C])`` on one sheet, ten in a row, each under its title."""
    columns = min(10, len(images))
    rows = -(-len(images) // columns)
    figure, axes = _subplots(rows, columns, (1.3 * columns, 1.75 * rows))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image[..., :3] if image.ndim == 3 else image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(spelled(title), fontsize=7, parse_math=False)
    _save(figure, path)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # no display, no pyplot state
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    # Class names may be in scripts that the font lacks; the figures stay readable.
    with atomic_path(path) as temporary, ignoring_warnings("Glyph .* missing"):
        figure.savefig(temporary, format="png", dpi=130)
