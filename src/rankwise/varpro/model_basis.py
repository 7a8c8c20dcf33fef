"""A model of curves at given ``x``: the basis that a fit takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from rankwise.varpro.columns import central_differences


class Model(Protocol):
    """What `ModelBasis` asks of a model."""

    names: tuple[str, ...]
    checks_itself: bool

    def pairs(self, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
        """``owner`` and ``parameter`` of each column of derivatives."""
        ...

    def columns(self, x: Any, params: Any) -> np.ndarray:
        """``Φ``, shape ``(…, n, m)``."""
        ...

    def derivatives_of_pairs(self, x: Any, params: Any) -> np.ndarray:
        """``D``, shape ``(…, n, Q)``."""
        ...


class ModelBasis:
    """A model at given ``x``: the basis that a fit takes. Made by ``model.at(x)``.

    Parameters
    ----------
    model : FunctionModel or SeparableModel
    x : array of shape (n,) or (n, d)

    Attributes
    ----------
    names : tuple of str
        Of the nonlinear parameters.
    n_params : int
    n_rows : int
    """

    def __init__(self, model: Any, x: Any) -> None:
        x = np.asarray(x)
        if x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or len(x) == 0:
            raise ValueError(
                "x must be real numbers of shape (n,) or (n, d), at least one, got "
                f"{x.dtype} of shape {x.shape}"
            )
        x = x.astype(np.float64)
        if not np.isfinite(x).all():
            raise ValueError("x must be finite, found NaN or infinity")
        self.model, self.x = model, x
        self.names: tuple[str, ...] = model.names
        self.n_params = len(self.names)
        self.n_rows = len(x)
        self._pairs: tuple[np.ndarray, np.ndarray] | None = None
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def owner(self) -> np.ndarray:
        """Column of each pair."""
        return self._known()[0]

    @property
    def parameter(self) -> np.ndarray:
        """Parameter of each pair."""
        return self._known()[1]

    def prepare(self, params: np.ndarray) -> None:
        """Learn how many columns there are, at a start; refuse what can't be fitted."""
        phi = self.model.columns(self.x, params)
        if phi.shape[-2] != self.n_rows:
            raise ValueError(
                f"the model gives {phi.shape[-2]} rows for {self.n_rows} values of x; it must give "
                "columns of the length of x"
            )
        self._pairs = self.model.pairs(phi.shape[-1])
        if not self.model.checks_itself and np.isfinite(phi).all():
            self.check_derivatives(params)

    def features(self, params: Any) -> np.ndarray:
        """``Φ(θ)``, shape ``(n, m)``."""
        with np.errstate(all="ignore"):  # steps that are tried and refused overflow
            return self.model.columns(self.x, params)

    def derivative_blocks(self, params: Any) -> Iterator[tuple[slice, np.ndarray]]:
        """``D`` in one block."""
        with np.errstate(all="ignore"):
            yield slice(None), self.model.derivatives_of_pairs(self.x, params)

    def check_derivatives(self, params: Any, rtol: float = 1e-3) -> float:
        """Hold the derivatives against central differences.

        Parameters
        ----------
        params : array of shape (P,)
        rtol : float
            Of the norm of each derivative over all rows.

        Returns
        -------
        float
            The largest relative difference that was found where central differences can be trusted.

        Raises
        ------
        ValueError
            If one differs by more, naming its column and parameter.
        """
        params = np.asarray(params, dtype=np.float64)
        if self._pairs is None:
            self._pairs = self.model.pairs(self.model.columns(self.x, params).shape[-1])
        with np.errstate(all="ignore"):
            found = self.model.derivatives_of_pairs(self.x, params)
            coarse, fine = (
                self._differences(params, factor)[:, self.owner, self.parameter]
                for factor in (1.0, 0.25)
            )
        worst = 0.0
        for q, (column, i) in enumerate(zip(self.owner, self.parameter, strict=True)):
            d, c, f = found[:, q], coarse[:, q], fine[:, q]
            size = max(np.linalg.norm(d), np.linalg.norm(f))
            own = np.linalg.norm(c - f)
            if size == 0 or not own <= 1e-2 * size:
                continue  # differences that don't agree with themselves prove nothing
            error = np.linalg.norm(d - f)
            if not error <= rtol * size + 2 * own:
                raise ValueError(
                    f"the derivative of column {column} in {self.names[i]} differs from finite "
                    f"differences by {error / size:.0%}; "
                    + (
                        "correct it"
                        if self.model.checks_itself
                        else "complex steps need a function without abs, real parts or "
                        "comparisons; pass derivatives='finite-differences', 'torch' or your own"
                    )
                )
            worst = max(worst, float(error / size))
        return worst

    def at(self, x: Any) -> ModelBasis:
        """The same model at other ``x``."""
        basis = ModelBasis(self.model, x)
        basis._pairs = self._pairs
        return basis

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        if self._pairs is None:
            raise ValueError("call prepare(start) first: the number of columns isn't known yet")
        return self._pairs

    def _differences(self, params: np.ndarray, factor: float) -> np.ndarray:
        return central_differences(lambda p: self.model.columns(self.x, p), params, factor)
