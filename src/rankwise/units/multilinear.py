"""Quadratic units and their kin: one multilinear form of the image each, then an activation.

A unit sees an image ``X`` of shape ``shape`` (two axes for grey, three for colour, any number
for a tensor) and computes

    φ(X) = σ(q(X)),      q(X) = Σ_{ρ=1..r} ⟨X, v₁^ρ ⊗ v₂^ρ ⊗ … ⊗ v_d^ρ⟩ + b

with one vector an axis. Every unit of the paper is a case of this form, told apart by which axes
share a vector (`vector_of_axis`):

==================  =====================  ==============================  =====================
kind                image                  form                            `vector_of_axis`
==================  =====================  ==============================  =====================
symmetric           L×L                    wᵀXw + b (paper, section 1)      (0, 0)
bilinear            H×W                    uᵀXv + b (paper, section 8.2)    (0, 1)
colour              L×L×C                  wᵀ(Σ_c γ_c X_c)w + b (6.2)       (0, 0, 1)
colour-bilinear     H×W×C                  uᵀ(Σ_c γ_c X_c)v + b             (0, 1, 2)
multilinear         any tensor             one vector an axis (section 7)   (0, 1, …, d−1)
==================  =====================  ==============================  =====================

On a tensor whose dimensions are all equal, ``symmetric`` needs one vector only (section 7).

Parameters are an array of shape ``(p, I)``: one column a unit, its vectors stacked, the bias in
the last row. A unit knows its features and their derivatives in its own parameters, nothing else.
All functions take leading batch axes, on numpy arrays or torch tensors alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations
from math import factorial, prod
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from rankwise.units.activations import ACTIVATIONS, Activation

UNIT_KINDS = ("symmetric", "bilinear", "colour", "colour-bilinear", "multilinear")


@dataclass(frozen=True)
class Units:
    """A family of units: which image they see, which axes share a vector, rank and activation.

    Parameters
    ----------
    shape : tuple of int
        Shape of one image: ``(H, W)``, ``(H, W, C)`` or any tensor.
    vector_of_axis : tuple of int
        Which vector contracts each axis; axes with the same number share one.
    rank : int
        Number ``r`` of rank-one forms summed in a unit.
    activation : {"tanh", "logistic", "relu", "softplus", "silu", "gelu"}
        The paper's text says sigmoid, its derivative formula (8.2) is that of tanh. The others
        are for units that are trained jointly; see `rankwise.units.activations`.

    Raises
    ------
    ValueError
        If axes of different lengths share a vector, or the rank or the activation isn't accepted.
    """

    shape: tuple[int, ...]
    vector_of_axis: tuple[int, ...]
    rank: int = 1
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.vector_of_axis) or not self.shape:
            raise ValueError(f"shape {self.shape} and vector_of_axis {self.vector_of_axis} differ")
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}; accepted: {', '.join(ACTIVATIONS)}"
            )
        for axes in self.axes_of_vector:
            if len({self.shape[a] for a in axes}) > 1:
                raise ValueError(
                    f"axes {axes} of an image of shape {self.shape} can't share a vector: "
                    "their lengths differ; use bilinear units for images that aren't square"
                )

    # -- the layout of the parameters -------------------------------------------------------

    @cached_property
    def axes_of_vector(self) -> tuple[tuple[int, ...], ...]:
        """The axes that each vector contracts."""
        n_vectors = max(self.vector_of_axis) + 1
        return tuple(
            tuple(a for a, v in enumerate(self.vector_of_axis) if v == j) for j in range(n_vectors)
        )

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Length of each vector."""
        return tuple(self.shape[axes[0]] for axes in self.axes_of_vector)

    @property
    def n_params(self) -> int:
        """Parameters of one unit: ``p = r·Σ lengths + 1`` (29 for the paper's on MNIST)."""
        return self.rank * sum(self.lengths) + 1

    def split(self, params: Any) -> tuple[list[Any], Any]:
        """Cut parameters ``(…, p, I)`` into vectors ``(…, length, r, I)`` and bias ``(…, I)``."""
        xp = array_namespace(params)
        batch, n_units = params.shape[:-2], params.shape[-1]
        stacked = xp.reshape(params[..., :-1, :], (*batch, self.rank, sum(self.lengths), n_units))
        starts = np.cumsum([0, *self.lengths])
        vectors = [
            xp.moveaxis(stacked[..., int(a) : int(b), :], -3, -2) for a, b in pairwise(starts)
        ]
        return vectors, params[..., -1, :]

    # -- features ---------------------------------------------------------------------------

    @cached_property
    def _packed(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Upper-triangle indices when exactly the first two axes share a vector, else None."""
        if self.vector_of_axis[:2] == (0, 0) and 0 not in self.vector_of_axis[2:]:
            return np.triu_indices(self.shape[0])
        return None

    def flatten(self, images: Any) -> Any:
        """Images ``(…, n, *shape)`` as rows ``(…, n, features)`` for one matrix product.

        Where two axes share a vector only the symmetric part counts, so the rows hold the packed
        upper triangle of ``X + Xᵀ`` (406 of MNIST's 784 dimensions).
        """
        xp = array_namespace(images)
        d = len(self.shape)
        lead = images.shape[: images.ndim - d]
        if self._packed is None:
            return xp.reshape(images, (*lead, prod(self.shape)))
        flat = xp.reshape(images, (*lead, self.shape[0] ** 2, prod(self.shape[2:])))
        rows, columns = self._packed
        upper = flat[..., rows * self.shape[0] + columns, :]
        lower = flat[..., columns * self.shape[0] + rows, :]
        off_diagonal = xp.asarray((rows != columns)[:, None], dtype=flat.dtype)
        packed = upper + lower * _like(off_diagonal, flat)
        return xp.reshape(packed, (*lead, packed.shape[-2] * packed.shape[-1]))

    def kernel(self, params: Any) -> Any:
        """The form of each unit as one column: ``vec(Σ_ρ v₁⊗v₂⊗…)`` of shape ``(…, features, I)``.

        Laid out as `flatten` lays out the images.
        """
        xp = array_namespace(params)
        vectors, _ = self.split(params)
        if self._packed is not None:
            rows, columns = self._packed
            w = vectors[0]
            first = w[..., rows, :, :] * w[..., columns, :, :]
            factors = [first, *vectors[1:]]
        else:
            factors = [vectors[j] for j in self.vector_of_axis]
        outer = _outer(xp, factors)
        return xp.sum(outer, axis=-2)

    def form(self, params: Float[np.ndarray, "p I"]) -> Float[np.ndarray, "I height width"]:
        """The form of each unit as a picture ``Σ_ρ u^ρ ⊗ v^ρ``, summed over any further axes."""
        vectors, _ = self.split(params)
        factors = [vectors[j] for j in self.vector_of_axis]
        scale = np.ones_like(factors[0][0])
        for factor in factors[2:]:
            scale = scale * factor.sum(axis=0)
        column = factors[1] if len(factors) > 1 else np.ones((1, *scale.shape))
        return np.einsum("hri,wri,ri->ihw", factors[0], column, scale)

    def scalarize(self, flat_images: Any, params: Any) -> Any:
        """``q`` for every image and unit, ``(…, n, I)``; `flat_images` come from `flatten`."""
        return flat_images @ self.kernel(params) + params[..., -1:, :]

    def features(self, flat_images: Any, params: Any) -> Any:
        """``φ = σ(q)`` for every image and unit, ``(…, n, I)``."""
        return self.activate(self.scalarize(flat_images, params))

    def activate(self, q: Any) -> Any:
        """``σ(q)``."""
        return self._sigma.value(q)

    @property
    def _sigma(self) -> Activation:
        return ACTIVATIONS[self.activation]

    # -- derivatives ------------------------------------------------------------------------

    def views(self, images: Any) -> list[Any]:
        """The images once per vector, its axis first: arrays ``(…, n, length, rest)``.

        Over axes that share a vector the images are averaged over all transpositions, since
        only that part counts. Computed once for a data set, then used by every `derivatives`.
        """
        xp = array_namespace(images)
        d = len(self.shape)
        lead = images.ndim - d
        for axes in self.axes_of_vector:
            if len(axes) > 1:
                images = _symmetrised(xp, images, [lead + a for a in axes])
        result = []
        for axes in self.axes_of_vector:
            view = xp.moveaxis(images, lead + axes[0], lead)
            rest = prod(self.shape) // self.shape[axes[0]]
            result.append(xp.reshape(view, (*images.shape[:lead], self.shape[axes[0]], rest)))
        return result

    def derivatives(
        self, views: Sequence[Any], params: Any, active: Float[np.ndarray, "..."] | Any = None
    ) -> tuple[Any, Any]:
        """Features, and the derivative of each in its own parameters.

        ``∂φ_i/∂v_j = σ'(q_i) · m_j · X contracted with every vector of the unit but one v_j``,
        with ``m_j`` the number of axes that share ``v_j`` (2 for a symmetric unit), and
        ``∂φ_i/∂b = σ'(q_i)``.

        Parameters
        ----------
        views : list of arrays, each (..., n, length, rest)
            From `views`.
        params : array of shape (..., p, I)
        active : int array of shape (P,), optional
            Positions, increasing, in the flattened ``(p, I)`` of the parameters wanted; default
            all.

        Returns
        -------
        features : array of shape (..., n, I)
        derivatives : array of shape (..., n, P)
            Column ``l`` belongs to position ``active[l]``, that is, to unit ``active[l] % I``.
        """
        xp = array_namespace(params)
        vectors, bias = self.split(params)
        n_units = params.shape[-1]
        *batch, n = views[0].shape[:-2]
        contracted = []
        for j, (axes, view) in enumerate(zip(self.axes_of_vector, views, strict=True)):
            others = [self.vector_of_axis[a] for a in range(len(self.shape)) if a != axes[0]]
            length, rest = view.shape[-2:]
            if others:
                k = _outer(xp, [vectors[i] for i in others])
            else:
                k = xp.ones(
                    (*batch, 1, self.rank, n_units), dtype=params.dtype, device=_device(params)
                )
            k = xp.reshape(k, (*batch, rest, self.rank * n_units))
            rows = xp.reshape(view, (*batch, n * length, rest))
            contracted.append(xp.reshape(rows @ k, (*batch, n, length, self.rank, n_units)))
            if j == 0:
                v = xp.expand_dims(vectors[0], axis=-4)
                q = xp.sum(xp.sum(contracted[0] * v, axis=-2), axis=-2) + bias[..., None, :]
        phi, slope = self._sigma.value_and_slope(q)

        total = self.n_params * n_units if active is None else active.shape[0]
        out = xp.empty((*batch, n, total), dtype=params.dtype, device=_device(params))
        offset, written = 0, 0
        for rho in range(self.rank):
            for axes, block in zip(self.axes_of_vector, contracted, strict=True):
                part = block[..., rho, :] if self.rank > 1 else xp.squeeze(block, axis=-2)
                scaled_slope = slope * len(axes) if len(axes) > 1 else slope
                written = _write(xp, out, part, scaled_slope, active, offset, written)
                offset += part.shape[-2] * n_units
        _write(xp, out, xp.ones_like(slope)[..., None, :], slope, active, offset, written)
        return phi, out


def make_units(
    kind: str, shape: Sequence[int], *, rank: int = 1, activation: str = "tanh"
) -> Units:
    """Units of a named kind for images of one shape.

    Parameters
    ----------
    kind : {"symmetric", "bilinear", "colour", "colour-bilinear", "multilinear"}
        See the table above. On images with a colour axis ``symmetric`` and ``bilinear`` mean
        ``colour`` and ``colour-bilinear``.
    shape : sequence of int
        Shape of one image.
    rank, activation
        As in `Units`.

    Raises
    ------
    ValueError
        If the kind is unknown or does not fit the shape; the message says what fits.
    """
    shape = tuple(int(s) for s in shape)
    d = len(shape)
    if kind not in UNIT_KINDS:
        raise ValueError(f"unknown unit {kind!r}; accepted: {', '.join(UNIT_KINDS)}")
    if kind.startswith("colour") and d != 3:
        raise ValueError(
            f"unit {kind!r} needs colour images (height, width, channels), got shape {shape}"
        )
    if kind in ("symmetric", "colour") and d >= 2 and shape[0] != shape[1]:
        raise ValueError(
            f"unit {kind!r} needs square images, got {shape[0]}×{shape[1]}; "
            "use a bilinear unit, or resize the images to a square"
        )
    if kind in ("symmetric", "colour"):
        all_equal = len(set(shape)) == 1
        pattern = (0,) * d if all_equal else (0, 0, *range(1, d - 1))
    else:
        pattern = tuple(range(d))
    return Units(shape, pattern, rank=rank, activation=activation)


def _outer(xp: Any, factors: Sequence[Any]) -> Any:
    """Outer product of ``(…, a, r, I)``, ``(…, b, r, I)``, … as ``(…, a·b·…, r, I)``."""
    result = factors[0]
    for factor in factors[1:]:
        product = result[..., :, None, :, :] * factor[..., None, :, :, :]
        shape = product.shape
        result = xp.reshape(product, (*shape[:-4], shape[-4] * shape[-3], *shape[-2:]))
    return result


def _symmetrised(xp: Any, images: Any, axes: Sequence[int]) -> Any:
    """Mean over all permutations of `axes`."""
    letters = list(range(images.ndim))
    total = xp.zeros_like(images)
    for permuted in permutations(axes):
        order = list(letters)
        for a, b in zip(axes, permuted, strict=True):
            order[a] = b
        total = total + xp.permute_dims(images, tuple(order))
    return total / factorial(len(axes))


def _write(xp: Any, out: Any, part: Any, slope: Any, active: Any, offset: int, written: int) -> int:
    """Write ``slope · part`` (part of shape (…, n, length, I)) behind what `out` holds already."""
    length, n_units = part.shape[-2:]
    stop = offset + length * n_units
    if active is None:
        target = out[..., offset:stop]
        target[...] = xp.reshape(part * slope[..., None, :], (*part.shape[:-2], length * n_units))
        return stop
    low, high = np.searchsorted(active, [offset, stop])
    columns = active[low:high] - offset
    flat = xp.reshape(part, (*part.shape[:-2], -1)) if length > 1 else part[..., 0, :]
    end = written + len(columns)
    out[..., written:end] = flat[..., columns] * slope[..., columns % n_units]
    return end


def _device(x: Any) -> Any:
    from array_api_compat import device

    return device(x)


def _like(constant: Any, reference: Any) -> Any:
    from array_api_compat import to_device

    return to_device(constant, _device(reference))
