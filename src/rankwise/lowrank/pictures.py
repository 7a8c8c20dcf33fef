"""Pictures of what an energy means: the paper's figures 2.1, 2.2 and 3.1, and a scree plot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from io import StringIO
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankwise._files import atomic_path
from rankwise._text import spelled
from rankwise.lowrank.draws import NormalEnergy
from rankwise.lowrank.options import OptionError
from rankwise.lowrank.quality import psnr
from rankwise.lowrank.ranks import energy_fractions, rank_for_energy
from rankwise.lowrank.reconstruct import low_rank_approximation
from rankwise.lowrank.sets import (
    CHANNEL_NAMES,
    FIGURE_ENERGY,
    DrawnSet,
    colours_of,
    law_of,
)
from rankwise.lowrank.spectra import spectrum
from rankwise.lowrank.transforms import RandomLowRank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANNEL_COLOURS = {"grey": "0.25", "red": "#c23b22", "green": "#2e8b57", "blue": "#2a5db0"}
_CHANNEL_MAPS = {"grey": "gray", "red": "Reds_r", "green": "Greens_r", "blue": "Blues_r"}
_MARKED = (0.8, 0.9, 0.975, 0.99)
_COPY = "#e07b00"
_RATIOS = (0.25, 2.5)  # height over width as drawn: beyond, images are stretched
_UNIT = 2.74  # inches


def draw_image(
    image: NDArray[np.uint8], *, energy: float = 0.975, energy_std: float = 0.025, seed: int = 42
) -> Figure:
    """All four pictures of one image, on one sheet.

    Parameters
    ----------
    image : ndarray of uint8, (H, W) or (H, W, C)
        Grey or colour; transparency is left out. Drawn true to scale where one side is at most
        2.5 times as high or 4 times as wide as the other, else stretched, and the sheet says so.
    energy, energy_std : float
        Of every copy drawn: of the channels' copies the energy, of the random ones mean and
        standard deviation. Default: the paper's, N(0.975, 0.025) (section 3.3).
    seed : int
        Of the random copies.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    OptionError
        If the image has neither one nor three colours.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    planes = colours_of(image)
    ratio = _drawn_ratio(planes)
    heights = [0.35 + 1.25 * ratio, 0.35 + 0.5 * ratio, 0.45 + 1.3 * ratio, 1.1]
    sheet = Figure(figsize=(11, _UNIT * sum(heights)), layout=ConstrainedLayoutEngine(h_pad=0.1))
    parts: Any = sheet.subfigures(4, 1, height_ratios=heights, hspace=0.03)
    draw_channels(parts[0], planes, energy)
    draw_ranks(parts[1], planes)
    law = NormalEnergy(energy, energy_std)
    draw_copies(parts[2], [planes], transform=RandomLowRank(law, p=0.5, seed=seed))
    draw_scree(parts[3], planes)
    return sheet


def draw_channels(figure: Any, image: NDArray[np.uint8], energy: float = 0.975) -> None:
    """The paper's figure 2.1: the channels (top) and their low-rank copies (bottom)."""
    planes = colours_of(image)
    names = CHANNEL_NAMES[planes.shape[-1]]
    copy, ranks = low_rank_approximation(planes, energy=energy, return_rank=True, alpha=False)
    axes = figure.subplots(2, len(names) + (len(names) > 1), squeeze=False)
    if len(names) > 1:
        _show(axes[0, 0], planes, "image")
        _show(axes[1, 0], copy, f"copy, {_decibels(planes, copy)}")
    for c, name in enumerate(names):
        colours = _CHANNEL_MAPS[name]
        _show(axes[0, c - len(names)], planes[..., c], name, colours)
        full = min(planes.shape[:2])
        _show(axes[1, c - len(names)], copy[..., c], f"rank {ranks[c]} of {full}", colours)
    height, width = planes.shape[:2]
    true = _drawn_ratio(planes) == height / width
    scale = "" if true else f"; {height}×{width} pixels, stretched"
    figure.suptitle(f"Channels, and each at an energy of {energy:.4g}{scale}", fontsize=11)


def draw_ranks(figure: Any, image: NDArray[np.uint8], ranks: Sequence[int] | None = None) -> None:
    """The paper's figure 2.2: approximations of growing rank."""
    planes = colours_of(image)
    full = min(planes.shape[:2])
    if ranks is None:
        ranks = sorted({min(full, max(1, round(full**power))) for power in np.linspace(0, 1, 7)})
    fractions = energy_fractions(spectrum(planes, channel_axis=-1, alpha=False)).mean(axis=0)
    copies = low_rank_approximation(planes, rank=list(ranks), channel_axis=-1, alpha=False)
    axes = figure.subplots(1, len(ranks), squeeze=False)[0]
    for axis, rank, copy in zip(axes, ranks, copies, strict=True):
        share = f"{100 * fractions[min(rank, full) - 1]:.4g}% of Σσ"
        _show(axis, copy, f"rank {rank}\n{share}\n{_decibels(planes, copy)}")
    figure.suptitle("Cumulative ranks", fontsize=11)


def draw_copies(
    figure: Any,
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
    *,
    transform: RandomLowRank | None = None,
    columns: int = 7,
    seed: int = 42,
) -> None:
    """The paper's figure 3.1: originals (left half) and what an augmentation makes of them.

    Its energies are N(0.90, 0.10) there, and so they are here by default; its skip threshold of 80%
    would leave nearly all of a single image's draws alone, so half are. Copies have a border.
    """
    if transform is None:
        transform = RandomLowRank(FIGURE_ENERGY, p=0.5, seed=seed)
    rows = 3
    axes = figure.subplots(rows, columns + 1, squeeze=False, gridspec_kw={"wspace": 0.05})
    energies = transform.draw(rows * columns, list(range(rows * columns)))
    for row in range(rows):
        for column in range(columns + 1):
            axis = axes[row, column]
            original = colours_of(images[row % len(images)])
            if column == 0:
                _show(axis, original, "original" if row == 0 or len(images) > 1 else "")
                axis.set_visible(row == 0 or len(images) > 1)
                continue
            energy = energies[row * columns + column - 1]
            if np.isnan(energy):
                _show(axis, original, "left alone")
                continue
            copy, ranks = low_rank_approximation(
                original, energy=energy, return_rank=True, channel_axis=-1, alpha=False
            )
            listed = "/".join(map(str, ranks))
            _show(axis, copy, f"{100 * energy:.1f}%: {listed}")
            _frame(axis)
    law = law_of(transform)
    figure.suptitle(f"Augmented ({law}); percentages: energy and ranks of the copies", fontsize=11)


def draw_set(drawn: DrawnSet) -> Figure:
    """The paper's figure 3.1: a set of images (left), and the same augmented (right).

    Each image has one draw; copies stand where their originals do, with a border.

    Parameters
    ----------
    drawn : DrawnSet
        Of `rankwise.lowrank.sets.augmented_set`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    images = drawn.images
    columns = ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    sheet = Figure(figsize=(2 * columns + 1, 1.2 * rows + 1), layout="constrained")
    halves: Any = sheet.subfigures(1, 2, wspace=0.04)
    left, right = halves
    left.suptitle("Original", fontsize=11)
    before, after = (part.subplots(rows, columns, squeeze=False).ravel() for part in (left, right))
    for i, how in enumerate(drawn.drawn):
        _show(before[i], drawn.images[i], " ")
        _show(after[i], drawn.copies[i], how.text)
        if how.energy is not None:
            _frame(after[i])
    for axis in (*before[len(images) :], *after[len(images) :]):
        axis.axis("off")
    right.suptitle("Augmented; framed: copies, with energy and ranks", fontsize=11)
    sheet.suptitle(f"As in figure 3.1: {law_of(drawn.transform)}", fontsize=11)
    return sheet


def draw_scree(figure: Any, image: NDArray[np.uint8]) -> None:
    """Singular values of each channel, their cumulative energy, and ranks of usual energies."""
    planes = colours_of(image)
    sigma = spectrum(planes, channel_axis=-1, alpha=False)
    left, right = figure.subplots(1, 2)
    order = sigma.shape[-1]
    places = np.arange(1, order + 1)
    for values, name in zip(sigma, CHANNEL_NAMES[len(sigma)], strict=True):
        shown = values > values[0] * 1e-12
        style: dict[str, Any] = {"color": _CHANNEL_COLOURS[name], "label": name, "linewidth": 1.5}
        left.plot(places[shown], values[shown], **style, marker="o" if shown.sum() < 5 else None)
        style["marker"] = "o" if order < 5 else None
        right.plot(places, 100 * energy_fractions(values), **style)
    if sigma.any():
        left.set_yscale("log")
    else:
        left.text(0.5, 0.5, "all are 0", transform=left.transAxes, ha="center")
        left.set(yticks=[])
    mean = energy_fractions(sigma).mean(axis=0)
    for line, energy in enumerate(reversed(_MARKED)):
        rank = int(np.flatnonzero(mean >= energy)[0]) + 1
        height = [100 * energy, 100 * energy, 0]
        right.plot([0, rank, rank], height, color="0.6", linewidth=0.7, zorder=0)
        # The lower right corner is free: energies are concave, so above the diagonal.
        right.annotate(
            f"{100 * energy:g}%: {_ranks_text(rank_for_energy(sigma, energy))}",
            (1, 0),
            xycoords="axes fraction",
            xytext=(-4, 5 + 11 * line),
            textcoords="offset points",
            fontsize=8,
            ha="right",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )
    left.set(xlabel="i", ylabel="σ_i", title="Scree: singular values")
    right.set(xlabel="rank", ylabel="% of Σσ", title="Cumulative energy, and ranks that reach it")
    right.set_ylim(0, 103)
    for axis in (left, right):
        axis.set_xlim(0, 1.03 * max(order, 2))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.title.set_fontsize(10)
        axis.spines[["top", "right"]].set_visible(False)
    if sigma.any():
        left.legend(frameon=False, fontsize=8)


def save_picture(figure: Figure, path: str | os.PathLike[str], title: str = "") -> None:
    """Write a figure, whole or not at all; its ending chooses the format.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Of a kind that matplotlib writes, or ``.html``: a page of its own with the figure in it.
    title : str
        Of the page.

    Raises
    ------
    OptionError
        If neither can be written.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    path = Path(path)
    kinds = {*FigureCanvasBase.get_supported_filetypes(), "html"}
    kind = path.suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise OptionError(f"{path} doesn't end in one of {', '.join(sorted(kinds))}")
    with atomic_path(path) as temporary:
        if kind == "html":
            temporary.write_text(_page(figure, spelled(title)), encoding="utf-8")
            return
        figure.savefig(temporary, format=kind, dpi=130)


def _page(figure: Figure, title: str) -> str:
    """One page; where a screen is narrow the figure is moved across it, not shrunk past reading."""
    drawn = StringIO()
    figure.savefig(drawn, format="svg")
    picture = drawn.getvalue()
    picture = picture[picture.index("<svg") :]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        "<style>body{margin:0;padding:1rem;overflow-x:auto}"
        "svg{display:block;margin:auto;width:100%;min-width:780px;max-width:1100px;height:auto}"
        f"</style></head><body>\n{picture}</body></html>\n"
    )


def _show(axis: Any, pixels: NDArray[np.uint8], title: str, colours: str = "gray") -> None:
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    aspect = _drawn_ratio(pixels) * pixels.shape[1] / pixels.shape[0]
    axis.imshow(pixels, cmap=colours, vmin=0, vmax=255, interpolation="nearest", aspect=aspect)
    axis.set_title(title, fontsize=8)
    axis.axis("off")
    # Titles are placed over the ticks, also over those that aren't drawn: most of the time.
    axis.xaxis.set_visible(False)
    axis.yaxis.set_visible(False)


def _frame(axis: Any) -> None:
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color=_COPY, linewidth=2.5)


def _drawn_ratio(pixels: NDArray) -> float:
    """Height over width, within what a sheet has room for."""
    return float(np.clip(pixels.shape[0] / pixels.shape[1], *_RATIOS))


def _decibels(image: NDArray[np.uint8], copy: NDArray[np.uint8]) -> str:
    value = float(psnr(image, copy, channel_axis=-1, alpha=False))
    return "equal" if np.isinf(value) else f"{value:.1f} dB"


def _ranks_text(ranks: NDArray) -> str:
    return "rank " + "/".join(map(str, ranks.tolist()))
