"""Pictures of a model: what its units look at, and what it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import atomic_path
from rankwise._process import ignoring_warnings


def save_units(network: Any, path: Path, *, most: int = 48) -> None:
    """Draw the units that weigh most: the form each applies to the image, `most` at most.

    A pixel's colour is its weight in ``q``: orange raises it, purple lowers it. Forms are summed
    over channels. Of convolutional units those of the first layer are drawn.

    Parameters
    ----------
    network : QuadraticNetwork or ConvolutionalNetwork
    path : Path
    most : int
    """
    _, pictures = network.forms(most)
    columns = 12
    rows = -(-len(pictures) // columns)
    figure, axes = _subplots(rows, columns, (columns * 0.75, rows * 0.75 + 0.5))
    for axis, form in zip(axes.flat, pictures, strict=False):
        limit = np.abs(form).max() or 1.0
        axis.imshow(form, cmap="PuOr_r", vmin=-limit, vmax=limit)
    for axis in axes.flat:
        axis.axis("off")
    shape = "×".join(str(s) for s in network.units.shape)
    figure.suptitle(
        f"The {len(pictures)} units that weigh most, of {network.n_units} ({shape})", fontsize=10
    )
    _save(figure, path)


def save_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix: true class down, predicted across, errors shaded."""
    k = len(names)
    size = min(10.0, 2.2 + 0.42 * k)
    figure, axes = _subplots(1, 1, (size, size))
    axis = axes.flat[0]
    errors = counts.astype(float).copy()
    np.fill_diagonal(errors, 0.0)
    axis.imshow(errors, cmap="Oranges", vmin=0.0, vmax=max(1.0, errors.max()))
    if k <= 20:
        for i in range(k):
            for j in range(k):
                if counts[i, j]:
                    dark = errors[i, j] > 0.6 * max(1.0, errors.max())
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
        axis.set_title(title, fontsize=7, parse_math=False)
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
