"""Pictures of a model: what its units look at, and what it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rankwise._arrays import as_rgb, blocks
from rankwise._files import atomic_path
from rankwise._process import ignoring_warnings
from rankwise._text import spelled
from rankwise.networks.convolutional import ConvolutionalNetwork, as_maps, shrunk, tensors_of
from rankwise.networks.sliding import slid
from rankwise.units.activations import ACTIVATIONS
from rankwise.units.convolutional import compose

_LOOKED_AT = 500
_PLACES_AT_ONCE = 16
_LINE = 22  # characters over a picture


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
    shape = "×".join(str(s) for s in network.units.shape)
    title = (
        f"The {len(pictures)} units that weigh most, of {network.n_units}: forms of the whole "
        f"image ({shape})"
    )
    sheet = _Sheet(len(pictures), 12, (0.75, 0.75), title)
    for i, form in enumerate(pictures):
        _draw_form(sheet, i, form)
    _save(sheet.figure, path)


def _save_patches(
    network: ConvolutionalNetwork, path: Path, images: np.ndarray | None, most: int
) -> None:
    order, pictures = network.forms(most)
    if network.whitening is not None:
        pictures = linear_parts(network, order)
    found = [] if images is None or not len(images) else strongest_places(network, images, order)
    stage, shrink = network.units.stages[0], network.units.shrink
    sides = "×".join(str(side + _wider(network)) for side in stage.sides)
    some = f"The {stage.maps}" if len(order) == stage.maps else f"{len(order)} of the {stage.maps}"
    first = f"{some} units of the first layer: patches of {sides}"
    if shrink > 1:
        first += f", of images averaged over {shrink}×{shrink}"
    below = "\nbelow each, what it answers to most (in the box)" if found else ""
    each = 2 if found else 1
    sheet = _Sheet(len(order), min(12, len(order)), (0.85, 0.85 * each), first + below, each)
    for i, form in enumerate(pictures):
        _draw_form(sheet, i, form)
    for i, (place, box) in enumerate(found):
        sheet.show(i, place, row=1, box=box)
    _save(sheet.figure, path)


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
        result.append((as_rgb(patch) if patch.ndim == 3 else patch, box))
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


def _draw_form(sheet: _Sheet, place: int, form: np.ndarray) -> None:
    limit = float(np.abs(form).max()) or 1.0
    sheet.show(place, form, colours="PuOr_r", limits=(-limit, limit))


def save_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix: true class down, predicted across, shaded by share."""
    k = len(names)
    size = min(10.0, 2.2 + 0.42 * k)
    figure = _figure((size, size), layout="constrained")
    axis = figure.subplots()
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
    """Draw uint8 images ``(n, H, W[, C])`` on one sheet, ten in a row, each under its title.

    Lines of a title that are longer than a picture is wide are cut.
    """
    sheet = _Sheet(len(images), min(10, len(images)), (1.3, 1.7), above=0.4)
    for i, (image, title) in enumerate(zip(images, titles, strict=False)):
        lines = [spelled(line) for line in title.split("\n")]
        lines = [line if len(line) <= _LINE else line[: _LINE - 1] + "…" for line in lines]
        sheet.show(i, image[..., :3] if image.ndim == 3 else image, "\n".join(lines))
    _save(sheet.figure, path)


class _Sheet:
    """Pictures in rows, on one pair of axes: a pair for each takes twenty times as long to draw.

    Parameters
    ----------
    n, columns : int
        Cells in all, and in a row.
    cell : (float, float)
        Width and height of one, in inches.
    title : str
        Above all.
    each : int
        Pictures below each other in a cell.
    above : float
        Inches of a cell that are left to the title of its picture.
    """

    def __init__(
        self, n: int, columns: int, cell: tuple[float, float], title: str = "", each: int = 1,
        above: float = 0.0,
    ) -> None:  # fmt: skip
        width, height = max(4.5, columns * cell[0]), -(-n // columns) * cell[1]
        head = 0.1 + 0.2 * (title.count("\n") + 1) if title else 0.0
        self.columns, self.cell, self.each, self.above = columns, cell, each, above
        self.left = (width - columns * cell[0]) / 2
        self.figure = _figure((width, height + head))
        self.axes = self.figure.add_axes((0, 0, 1, height / (height + head)))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)  # inches
        if title:
            self.figure.text(
                0.5, 1 - 0.08 / (height + head), title, ha="center", va="top", fontsize=9
            )

    def show(
        self, place: int, picture: np.ndarray, title: str = "", *, row: int = 0,
        colours: str = "gray", limits: tuple[float, float] = (0, 255),
        box: tuple[int, int, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Draw a picture true to its sides; its cell, and the row in it, count from 0."""
        width, height = self.cell[0], self.cell[1] / self.each
        scale = min(
            0.92 * width / picture.shape[1], (0.92 * height - self.above) / picture.shape[0]
        )
        down, across = divmod(place, self.columns)
        x = self.left + width * across + (width - scale * picture.shape[1]) / 2
        room = height - self.above - scale * picture.shape[0]
        y = height * (down * self.each + row) + self.above + room / 2
        right, bottom = x + scale * picture.shape[1], y + scale * picture.shape[0]
        self.axes.imshow(
            picture, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto",
            extent=(x, right, bottom, y),
        )  # fmt: skip
        if title:
            self.axes.text(
                (x + right) / 2, y - 0.05, title, fontsize=7, ha="center", va="bottom",
                parse_math=False,
            )  # fmt: skip
        if box is not None:
            from matplotlib.patches import Rectangle

            corner = (x + scale * box[0], y + scale * box[1])
            self.axes.add_patch(
                Rectangle(
                    corner, scale * box[2], scale * box[3], fill=False, edgecolor="#ff8c28",
                    linewidth=1.2,
                )
            )  # fmt: skip


def _figure(size: tuple[float, float], layout: Literal["constrained"] | None = None) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)  # no display, no pyplot state
    return figure


def _save(figure: Any, path: Path) -> None:
    # Class names may be in scripts that the font lacks; the figures stay readable.
    with atomic_path(path) as temporary, ignoring_warnings("Glyph .* missing"):
        figure.savefig(temporary, format="png", dpi=130)
