"""Softmax losses and their slopes of many layers at once, in one look at a block of samples.

Minimised is ``Σ w·ℓ(o, y) + ½μ‖U‖²``, ``ℓ = −log softmax(o)_y``, with outputs ``o = U z + b`` of
features ``z = (x − centre)/scale``. Two classes have one row of ``U``, the difference of both, and
half the penalty: the minimum is the same, since there both rows are opposite.

The products run in the features' own type, float32 or float64, the sums over samples in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, softmax

from rankwise.linear.scaling import Scaling
from rankwise.linear.statistics import like, to_numpy

_BYTES = 2**20
"""Of a part of a block, so that both products find it in the cache of a core."""

_SMALL, _FEW = 900_000, 12

_OUTPUTS = 2**18
"""Outputs of a part of a block at most."""


class Pass:
    """Sums over the blocks of one look: values, slopes, losses of what is held out, curvature.

    Parameters
    ----------
    scaling : Scaling
    layers : array of shape (a, free)
    """

    def __init__(self, scaling: Scaling, layers: Float[np.ndarray, "a free"]) -> None:
        a, rows, d = len(layers), scaling.n_rows, len(scaling.centre)
        self._scaling = scaling
        self._coef, self._offsets = scaling.raw(layers)
        self.values, self.held = np.zeros(a), np.zeros(a)
        self.curvature = np.zeros(a)
        self._slopes, self._sums = np.zeros((a * rows, d)), np.zeros(a * rows)

    def add(
        self,
        x: Any,
        codes: Int[np.ndarray, "n"],
        weights: Float[np.ndarray, "n"],
        held: np.ndarray | None = None,
    ) -> None:
        """A block: features (n, d), positions of the labels, weights with the classes' factors.

        Parameters
        ----------
        held : bool array of shape (a, n), optional
            What a layer isn't fitted on.
        """
        dtype = self._scaling.dtype_of(x)
        if isinstance(x, np.ndarray):
            x = x.astype(dtype, copy=False)
        coef = like(self._coef.astype(dtype), x)
        d, columns = self._coef.shape[1], len(self._coef)
        rows = max(64, min(_BYTES // (4 * d), _OUTPUTS // columns))
        if columns <= _FEW:
            # Below this size OpenBLAS multiplies without packing, two to three times as fast.
            rows = max(16, min(rows, _SMALL // (d * columns)))
        for first in range(0, len(codes), rows):
            part = slice(first, first + rows)
            self._add(
                x[part], coef, codes[part], weights[part], None if held is None else held[:, part]
            )

    def _add(
        self, x: Any, coef: Any, codes: np.ndarray, weights: np.ndarray, held: np.ndarray | None
    ) -> None:
        a, n = len(self.values), len(codes)
        outputs = to_numpy(coef @ x.T)
        outputs += self._offsets.astype(outputs.dtype)[:, None]
        losses, residuals, curvature = _losses(outputs.reshape(a, -1, n), codes)
        losses = losses.astype(np.float64)
        if held is None:
            self.values += losses @ weights
            self.curvature += curvature.astype(np.float64) @ weights
            residuals *= weights.astype(residuals.dtype)
        else:
            used = np.where(held, 0.0, weights)
            self.values += np.einsum("an,an->a", losses, used)
            self.held += losses @ weights - np.einsum("an,an->a", losses, used)
            residuals *= used.astype(residuals.dtype)[:, None, :]
        flat = residuals.reshape(-1, n)
        self._slopes += to_numpy(like(flat, x) @ x)
        self._sums += flat.sum(axis=1, dtype=np.float64)

    def gradients(self) -> Float[np.ndarray, "a free"]:
        """Of the values, without the penalty."""
        s = self._scaling
        slopes = (self._slopes - self._sums[:, None] * s.centre) / s.scale
        if s.fit_intercept:
            slopes[:, s.constant] = 0.0
        sums = self._sums if s.fit_intercept else np.zeros_like(self._sums)
        both = np.concatenate([slopes, sums[:, None]], axis=1)
        return both.reshape(len(self.values), -1)


def penalised(
    scaling: Scaling, found: Pass, layers: np.ndarray, ridges: Float[np.ndarray, "a"]
) -> tuple[np.ndarray, np.ndarray]:
    """Values and gradients with the penalty ``½μ‖U‖²``."""
    factor = ridges * (0.5 if scaling.n_rows == 1 else 1.0)
    by_row = layers.reshape(len(layers), scaling.n_rows, -1).copy()
    by_row[:, :, -1] = 0.0
    weights = by_row.reshape(len(layers), -1)
    values = found.values + 0.5 * factor * np.einsum("aj,aj->a", weights, weights)
    return values, found.gradients() + factor[:, None] * weights


def block_hessian(
    scaling: Scaling, x: Any, weights: Float[np.ndarray, "n"], layer: Float[np.ndarray, "free"]
) -> Float[np.ndarray, "free free"]:
    """Second derivatives of a block's value, float64; of few parameters."""
    rows = (np.asarray(to_numpy(x), dtype=np.float64) - scaling.centre) / scaling.scale
    if scaling.fit_intercept:
        rows[:, scaling.constant] = 0.0
    rows = np.concatenate([rows, np.full((len(rows), 1), float(scaling.fit_intercept))], axis=1)
    outputs = layer.reshape(scaling.n_rows, -1) @ rows.T
    k, size = outputs.shape[0], rows.shape[1]
    p = expit(outputs) if k == 1 else softmax(outputs, axis=0)
    found = np.empty((k, size, k, size))
    for i in range(k):
        for j in range(i + 1):
            curved = weights * p[i] * ((i == j) - p[j])
            found[i, :, j] = (rows * curved[:, None]).T @ rows
            found[j, :, i] = found[i, :, j].T
    return found.reshape(k * size, k * size)


def newton_step(
    scaling: Scaling, hessian: np.ndarray, gradient: Float[np.ndarray, "free"], ridge: float
) -> Float[np.ndarray, "free"]:
    """``(H + μ)⁻¹g``, the penalty's own part added to ``H``."""
    k, size = scaling.n_rows, len(gradient) // scaling.n_rows
    at = np.arange(k * size)
    last = at % size == size - 1
    full = hessian.copy()
    full[at, at] += np.where(last, 0.0, max(ridge, 1e-300) * (0.5 if k == 1 else 1.0))
    # What all intercepts share changes nothing, and an absent intercept has no slope.
    full[np.ix_(last, last)] += max(scaling.total, 1.0)
    if k == 1 and scaling.fit_intercept:
        full[-1, -1] -= max(scaling.total, 1.0)
    constant = np.append(scaling.constant, False)
    full[at, at] += np.where(np.tile(constant, k), 1.0, 0.0)
    return np.linalg.lstsq(full, gradient, rcond=None)[0]


def outputs_of(
    scaling: Scaling, x: Any, layers: Float[np.ndarray, "a free"]
) -> Float[np.ndarray, "a rows n"]:
    """Outputs of some layers, in the features' own type."""
    coef, offsets = scaling.raw(layers)
    dtype = scaling.dtype_of(x)
    if isinstance(x, np.ndarray):
        x = x.astype(dtype, copy=False)
    found = to_numpy(like(coef.astype(dtype), x) @ x.T).astype(np.float64) + offsets[:, None]
    return found.reshape(len(layers), scaling.n_rows, -1)


def _losses(outputs: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``ℓ`` (a, n), its derivative in the outputs (a, rows, n), and ``tr J``; outputs are lost."""
    if outputs.shape[1] == 1:
        sign = np.where(codes == 1, 1.0, -1.0).astype(outputs.dtype)
        margins = outputs[:, 0] * sign
        # p of the wrong class, from the smaller exponential so that nothing overflows.
        small = np.exp(-np.abs(margins))
        losses = np.log1p(small) + np.maximum(-margins, 0.0)
        wrong = np.where(margins >= 0, small, 1.0) / (1.0 + small)
        return losses, (-sign * wrong)[:, None, :], 2.0 * wrong * (1.0 - wrong)
    n = np.arange(len(codes))
    outputs -= outputs.max(axis=1, keepdims=True)
    own = outputs[:, codes, n]
    np.exp(outputs, out=outputs)
    sums = outputs.sum(axis=1)
    losses = np.log(sums) - own
    outputs /= sums[:, None, :]
    curvature = 1.0 - np.einsum("akn,akn->an", outputs, outputs)
    outputs[:, codes, n] -= 1.0
    return losses, outputs, curvature
