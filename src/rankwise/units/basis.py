"""Units on fixed images as a basis: features and derivatives of the active parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from rankwise.units.multilinear import Units

BLOCK = 4096
"""Samples whose derivatives are held at a time."""


class UnitBasis:
    """The units of a (sub-)network on fixed images, and a constant column last.

    Parameters
    ----------
    units : Units
    images : array of shape (..., n, *shape)
        In the dtype to compute in: float32 for speed, float64 for tests.
    start : array of shape (..., p, I)
        Parameters; those that are not active keep these values.
    active : bool array of shape (..., p, I), optional
        Parameters to fit (a windowed unit's, say); default all. With batch axes, whose members
        may differ in what is active, derivatives of inactive ones are zero instead of absent.
    weights : array of shape (..., n), optional
        How often each image counts: its row of ``Φ`` and of ``D`` is scaled by the root of it, as
        `weigh` scales targets.
    """

    def __init__(
        self, units: Units, images: Any, start: Any, active: Any = None, weights: Any = None
    ) -> None:
        self.units = units
        xp = array_namespace(images, start)
        self._start = xp.astype(start, images.dtype)
        self._views = units.views(images)
        self._flat = units.flatten(images)
        self.n_units = int(start.shape[-1])
        self.dtype = np.dtype(str(images.dtype).removeprefix("torch."))
        owner = np.tile(np.arange(self.n_units), units.n_params)
        self._roots = None if weights is None else xp.astype(xp.sqrt(weights), images.dtype)
        self._index: np.ndarray | None = None
        self._mask: Any = None
        if active is not None and start.ndim == 2:
            self._index = np.flatnonzero(np.asarray(active).ravel())
            owner = owner[self._index]
        elif active is not None:
            flat_mask = xp.reshape(active, (*active.shape[:-2], 1, -1))
            self._mask = xp.astype(flat_mask, images.dtype)
        # On a GPU the index travels once, not with every product.
        self.owner = owner if is_numpy_array(images) else xp.asarray(owner, device=device(images))

    def pack(self, params: Any) -> Any:
        """The active ones of parameters ``(…, p, I)`` as a float64 vector ``(…, P)``."""
        xp = array_namespace(params)
        flat = xp.reshape(params, (*params.shape[:-2], -1))
        return xp.astype(flat if self._index is None else flat[self._index], xp.float64)

    def unpack(self, vector: Any) -> Any:
        """Parameters ``(…, p, I)`` from the vector of active ones."""
        xp = array_namespace(vector)
        vector = xp.astype(vector, self._start.dtype)
        if self._index is None:
            return xp.reshape(vector, self._start.shape)
        full = np.array(self._start).ravel()
        full[self._index] = vector
        return full.reshape(self._start.shape)

    def features(self, params: Any) -> Any:
        """``Φ``, shape ``(…, n, I + 1)``."""
        phi = self._with_constant(self.units.features(self._flat, self.unpack(params)))
        return phi if self._roots is None else phi * self._roots[..., None]

    def weigh(self, targets: Any) -> Any:
        """Targets ``(…, n, K)`` as the features are scaled."""
        return targets if self._roots is None else targets * self._roots[..., None]

    def derivative_blocks(self, params: Any) -> Iterator[tuple[slice, Any]]:
        """``D``, `BLOCK` samples at a time."""
        full = self.unpack(params)
        n = self._views[0].shape[-3]
        for first in range(0, n, BLOCK):
            rows = slice(first, first + BLOCK)
            views = [view[..., rows, :, :] for view in self._views]
            _, d = self.units.derivatives(views, full, self._index)
            if self._mask is not None:
                d *= self._mask
            if self._roots is not None:
                d *= self._roots[..., rows, None]
            yield rows, d

    @staticmethod
    def _with_constant(phi: Any) -> Any:
        xp = array_namespace(phi)
        return xp.concat([phi, xp.ones_like(phi[..., :1])], axis=-1)
