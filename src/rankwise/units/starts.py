"""Starts: random vectors, windows, smoothing, and the scale that the data ask for.

The recipe: Gaussian vectors, once smoothed with (¼, ½, ¼), zero outside a
window placed uniformly on each axis, scaled so that every pre-activation has unit deviation on
the data and shifted so that it has zero mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from rankwise.units.multilinear import Units

WINDOW = (5 / 28, 14 / 28)
"""Smallest and largest side of a window as a fraction of the axis: 5 to 14 of MNIST's 28 pixels."""

SOURCES = ("gaussian", "images")


@dataclass(frozen=True)
class Start:
    """How units start.

    Parameters
    ----------
    window : tuple of two floats, optional
        Smallest and largest side of the random sub-rectangle a unit sees, as fractions of the
        axis; None for the whole image. A colour axis is never cut.
    smooth : int
        How often vectors are smoothed with (¼, ½, ¼) along their axis.
    deviation : float
        Standard deviation that each pre-activation gets on the data.
    source : {"gaussian", "images"}
        Gaussian vectors or, for each unit, the leading singular vectors of what one image, less
        the mean image, shows in the unit's window.
    bias : bool
        False for units without one (second paper, section 1): it is zero, and isn't fitted.
    """

    window: tuple[float, float] | None = None
    smooth: int = 0
    deviation: float = 1.0
    source: str = "gaussian"
    bias: bool = True

    def __post_init__(self) -> None:
        if self.window is not None:
            low, high = self.window
            if not 0 < low <= high <= 1:
                raise ValueError(
                    f"window must be two fractions of an axis with 0 < low <= high <= 1, "
                    f"got {self.window}"
                )
        if self.smooth < 0:
            raise ValueError(f"smooth must be at least 0, got {self.smooth}")
        if self.deviation <= 0:
            raise ValueError(f"deviation must be positive, got {self.deviation}")
        if self.source not in SOURCES:
            raise ValueError(f"unknown source {self.source!r}; accepted: {', '.join(SOURCES)}")


def random_units(
    units: Units,
    n_units: int,
    images: Float[np.ndarray, "n ..."],
    start: Start,
    rng: np.random.Generator,
    weights: Float[np.ndarray, "n"] | None = None,
) -> tuple[Float[np.ndarray, "p I"], Bool[np.ndarray, "p I"]]:
    """Draw `n_units` units and scale them to the images.

    Parameters
    ----------
    units : Units
    n_units : int
    images : array of shape (n, *units.shape)
        Data that the pre-activations are scaled on.
    start : Start
    rng : numpy.random.Generator
    weights : array of shape (n,), optional
        How often each image counts; default once.

    Returns
    -------
    params : float64 array of shape (p, n_units)
    active : bool array of shape (p, n_units)
        True inside the windows and for every bias that there is: the parameters to fit.
    """
    n_space = _n_space_axes(units)
    in_space = [axes[0] < n_space for axes in units.axes_of_vector]
    # All forms of a rank-r unit look through one window.
    windows = [
        _windows(length, n_units, start.window if space else None, rng)
        for length, space in zip(units.lengths, in_space, strict=True)
    ]
    seen = _singular_vectors(units, windows, images, rng) if start.source == "images" else None
    blocks, masks = [], []
    for rho in range(units.rank):
        for j, (mask, space) in enumerate(zip(windows, in_space, strict=True)):
            values = rng.standard_normal(mask.shape) * mask if seen is None else seen[rho][j]
            for _ in range(start.smooth if space else 0):
                values = _smoothed(values) * mask
            blocks.append(values)
            masks.append(mask)
    bias = np.zeros((1, n_units))
    params = np.concatenate([*blocks, bias], axis=0)
    active = np.concatenate([*masks, np.full((1, n_units), start.bias)], axis=0)
    scaled = _scaled(units, params, images, start.deviation, weights)
    if not start.bias:
        scaled[-1] = 0.0
    return scaled, active


def _singular_vectors(
    units: Units,
    windows: list[np.ndarray],
    images: Float[np.ndarray, "n ..."],
    rng: np.random.Generator,
) -> list[list[Float[np.ndarray, "length I"]]]:
    """For each form ρ and vector, the ρ-th singular vectors of one image's window a unit.

    A vector's matrix is the image with the vector's axis first, all others in a row. Where a
    window has fewer singular vectors than forms, or the image is blank there, the vector is
    random.
    """
    n_units = windows[0].shape[1]
    result = [[np.zeros(w.shape) for w in windows] for _ in range(units.rank)]
    mean = images.mean(axis=0, dtype=np.float64)
    drawn = rng.integers(len(images), size=(n_units,))
    for i in range(n_units):
        patch = images[drawn[i]] - mean
        for axis, j in enumerate(units.vector_of_axis):
            shape = [1] * patch.ndim
            shape[axis] = -1
            patch = patch * windows[j][:, i].reshape(shape)
        for j, axes in enumerate(units.axes_of_vector):
            rows = np.moveaxis(patch, axes[0], 0).reshape(units.lengths[j], -1)
            left, values, _ = np.linalg.svd(rows, full_matrices=False)
            for rho in range(units.rank):
                found = rho < len(values) and values[rho] > 1e-6 * max(values[0], 1e-6)
                random = rng.standard_normal(units.lengths[j])
                result[rho][j][:, i] = (left[:, rho] if found else random) * windows[j][:, i]
    return result


def _scaled(
    units: Units,
    params: Float[np.ndarray, "p I"],
    images: Float[np.ndarray, "n ..."],
    deviation: float,
    weights: Float[np.ndarray, "n"] | None,
) -> Float[np.ndarray, "p I"]:
    """Scale vectors and set biases so that ``q`` has zero mean and the given deviation."""
    q = units.scalarize(units.flatten(images), params.astype(images.dtype))
    if weights is None:
        mean = q.mean(axis=0, dtype=np.float64)
        spread = q.std(axis=0, dtype=np.float64)
    else:
        mean = np.average(q.astype(np.float64), axis=0, weights=weights)
        spread = np.sqrt(np.average((q - mean) ** 2, axis=0, weights=weights))
    # A unit that sees nothing but constant pixels keeps its scale.
    seen = spread > 1e-6 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    factor = np.where(seen, deviation / np.where(seen, spread, 1.0), 1.0)
    result = params.copy()
    result[:-1] *= factor ** (1.0 / len(units.shape))
    result[-1] = -mean * factor
    return result


def _n_space_axes(units: Units) -> int:
    """Axes that windows cut: all but a colour axis, that is, a third one of one to four."""
    is_colour = len(units.shape) == 3 and units.shape[2] <= 4
    return 2 if is_colour else len(units.shape)


def _windows(
    length: int, n_units: int, window: tuple[float, float] | None, rng: np.random.Generator
) -> Bool[np.ndarray, "length I"]:
    if window is None:
        return np.ones((length, n_units), dtype=bool)
    low = min(length, max(2, round(window[0] * length)))
    high = max(low, round(window[1] * length))
    side = rng.integers(low, high, size=n_units, endpoint=True)
    first = np.floor(rng.random(n_units) * (length - side + 1)).astype(int)
    position = np.arange(length)[:, None]
    return (position >= first) & (position < first + side)


def _smoothed(values: Float[np.ndarray, "length I"]) -> Float[np.ndarray, "length I"]:
    padded = np.pad(values, ((1, 1), (0, 0)))
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
