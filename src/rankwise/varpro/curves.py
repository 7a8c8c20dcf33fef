"""`CurveFit`: a fit of curves with all that can be asked of it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rankwise.varpro.model_basis import ModelBasis
from rankwise.varpro.report import draw, summary_table
from rankwise.varpro.resampling import Bootstrap, Interval, bootstrap, profile
from rankwise.varpro.results import FitResult
from rankwise.varpro.specification import Specification
from rankwise.varpro.statistics import Statistics, rows_of


@dataclass(frozen=True)
class Band:
    """A curve and how well it's known.

    Attributes
    ----------
    fit, lower, upper : arrays of shape (n,)
    """

    fit: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


_DEPENDENT = 1e-9


def _rank_of(covariance: np.ndarray) -> int:
    """How many parameters a covariance is of, less those that follow from others."""
    size = np.sqrt(np.diag(covariance))
    some = size > 0
    scaled = covariance[np.ix_(some, some)] / np.outer(size[some], size[some])
    if not np.isfinite(scaled).all():
        return int(np.sum(some))
    return int(np.linalg.matrix_rank(scaled, tol=_DEPENDENT, hermitian=True))


@dataclass(frozen=True)
class CurveFit(FitResult):
    """A `FitResult` of one fit, with its statistics.

    Attributes
    ----------
    names : tuple of str
        Of the nonlinear parameters.
    statistics : Statistics
        Behind the methods.

    Notes
    -----
    Right-hand sides are told by `column`, data sets by `dataset`; both default to the first where
    there is only one, and must be given where there are more.
    """

    names: tuple[str, ...]
    statistics: Statistics
    spec: Specification

    # -- values ------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, float]:
        """Nonlinear parameters by name."""
        return dict(zip(self.names, map(float, self.params), strict=True))

    @property
    def stderr(self) -> np.ndarray:
        """Standard errors of the nonlinear parameters; NaN where fixed or at a bound."""
        return self.statistics.params_stderr

    @cached_property
    def coef_stderr(self) -> Any:
        """Standard errors of the linear parameters, as `coef`; NaN where at a bound."""
        found = [self.statistics.coef_stderr(i) for i in range(len(self.spec.data))]
        return found if self.spec.several else found[0]

    def covariance(self, column: int | None = None, dataset: int | None = None) -> np.ndarray:
        """Covariance of all parameters: nonlinear first, then the linear ones of a right-hand side.

        Returns
        -------
        array of shape (P + m, P + m)
            0 for what is fixed or at a bound; infinite where the data don't determine it.
        """
        i, k = self._which(dataset, column)
        return self.statistics.covariance(i, k)

    def correlation(self, column: int | None = None, dataset: int | None = None) -> np.ndarray:
        """`covariance` scaled to a unit diagonal; NaN for what is fixed or at a bound."""
        covariance = self.covariance(column, dataset)
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.sqrt(np.diag(covariance))
            return covariance / np.outer(size, size)

    @property
    def dof(self) -> float:
        """Degrees of freedom."""
        return self.statistics.dof

    @property
    def rss(self) -> float:
        """Weighted residual sum of squares."""
        return self.statistics.rss

    @property
    def variance(self) -> float:
        """``s² = rss/dof``; with absolute sigmas the reduced chi-squared."""
        return self.statistics.variance

    @property
    def aic(self) -> float:
        """Akaike's criterion from the Gaussian likelihood, an estimated variance counted."""
        return 2 * self.statistics.n_estimated - 2 * self.statistics.log_likelihood

    @property
    def aicc(self) -> float:
        """`aic` corrected for few observations."""
        p, n = self.statistics.n_estimated, self.statistics.n_observations
        return self.aic + 2 * p * (p + 1) / (n - p - 1) if n > p + 1 else float("inf")

    @property
    def bic(self) -> float:
        """Schwarz's criterion."""
        n = self.statistics.n_observations
        return np.log(n) * self.statistics.n_estimated - 2 * self.statistics.log_likelihood

    def residuals(self, dataset: int | None = None) -> np.ndarray:
        """``τ − ΦA``, unweighted, shape (n, K)."""
        i = self._dataset(dataset)
        d = self.spec.data[i]
        return d.targets - d.basis.features(self.params[d.place]) @ self.statistics.coef[i]

    # -- predictions -------------------------------------------------------------------------

    def predict(self, x: Any = None, dataset: int | None = None) -> np.ndarray:
        """The fitted curves, shape (n, K), at the data's own ``x`` or at others."""
        i = self._dataset(dataset)
        d = self.spec.data[i]
        return self._basis(i, x).features(self.params[d.place]) @ self.statistics.coef[i]

    def confidence_band(
        self,
        x: Any = None,
        *,
        level: float = 0.95,
        simultaneous: bool = False,
        column: int | None = None,
        dataset: int | None = None,
    ) -> Band:
        """Where the true curve lies, by linear propagation of the covariance.

        Parameters
        ----------
        x : array, optional
            Default: the data's own.
        level : float
        simultaneous : bool
            For the whole curve at once (Scheffé) instead of each point by itself.
        column, dataset : int, optional

        Returns
        -------
        Band
        """
        i, k = self._which(dataset, column)
        fit, error, size = self._spread(i, k, x)
        half = self.statistics.quantile(level, simultaneous, size) * error
        return Band(fit, fit - half, fit + half)

    def prediction_band(
        self,
        x: Any = None,
        *,
        level: float = 0.95,
        sigma: Any = None,
        column: int | None = None,
        dataset: int | None = None,
    ) -> Band:
        """Where a further observation lies.

        Parameters
        ----------
        x, level, column, dataset
            As in `confidence_band`.
        sigma : array, optional
            Its standard deviation in the unit of the sigmas that were given to the fit; needed at
            other ``x`` where the fit was weighted.

        Raises
        ------
        ValueError
            If it's needed and missing.
        """
        i, k = self._which(dataset, column)
        d = self.spec.data[i]
        fit, error, _ = self._spread(i, k, x)
        if sigma is None:
            if d.roots is None:
                sigma = 1.0
            elif x is None and not d.whitened:
                own = d.roots if d.roots.ndim == 1 else d.roots[:, k]
                with np.errstate(divide="ignore"):
                    sigma = 1.0 / own
            elif x is None:
                sigma = np.sqrt(np.sum(np.square(np.tril(d.roots)), axis=1))
            else:
                raise ValueError("the fit was weighted: pass the sigma of the new observations")
        unit = 1.0 if self.spec.absolute_sigma else self.variance
        noise = unit * np.square(np.asarray(sigma, np.float64))
        half = self.statistics.quantile(level) * np.sqrt(error**2 + noise)
        return Band(fit, fit - half, fit + half)

    # -- intervals by refitting --------------------------------------------------------------

    def profile(
        self,
        parameter: Any,
        *,
        level: float = 0.95,
        column: int | None = None,
        dataset: int | None = None,
    ) -> Interval:
        """An interval from the profile likelihood: all others fitted anew at each value.

        Parameters
        ----------
        parameter : str or int
            Name of a nonlinear parameter, or the column of ``Φ`` whose linear parameter is meant.
        level : float
        column, dataset : int, optional
            Of a linear parameter.

        Returns
        -------
        Interval
            A side that the data leave open is infinite, or ends at a bound.

        Raises
        ------
        ValueError
            If the parameter isn't known or isn't free, or the fit has a ridge or a robust loss.
        """
        if isinstance(parameter, str):
            return profile(self.spec, self.statistics, parameter, level, 0, 0)
        try:
            parameter = operator.index(parameter)
        except TypeError:
            raise ValueError(
                "parameter must be the name of a nonlinear parameter or the number of a column, "
                f"got {parameter!r}"
            ) from None
        return profile(self.spec, self.statistics, parameter, level, *self._which(dataset, column))

    def bootstrap(
        self,
        n: int = 200,
        *,
        kind: str = "residuals",
        seed: int = 42,
        advance: Any = lambda n: None,
    ) -> Bootstrap:
        """Fit anew to resampled data.

        Parameters
        ----------
        n : int
            Refits.
        kind : {"residuals", "wild", "pairs"}
            Residuals drawn with replacement, inflated by ``√(n/dof)``; residuals with random signs,
            where variances differ; or rows drawn with replacement.
        seed : int
        advance : callable
            Told the number of refits done.

        Returns
        -------
        Bootstrap
        """
        return bootstrap(self.spec, self.statistics, n, kind, seed, advance)

    # -- for people --------------------------------------------------------------------------

    def summary(self, column: int | None = None, dataset: int | None = None) -> str:
        """A table of at most 80 columns: estimates, standard errors, intervals, how it ended."""
        i, k = self._which(dataset, column)
        coef = self.statistics.coef[i][:, k]
        error = self.statistics.coef_stderr(i)[:, k]
        return summary_table(self, coef, error)

    def plot(
        self,
        *,
        level: float = 0.95,
        column: int | None = None,
        dataset: int | None = None,
        axes: Any = None,
    ) -> Any:
        """Data, fit and confidence band above, residuals below.

        Parameters
        ----------
        level : float
            Of the band.
        column, dataset : int, optional
        axes : pair of matplotlib axes, optional
            To draw on; default a new figure.

        Returns
        -------
        matplotlib.figure.Figure
        """
        i, k = self._which(dataset, column)
        d = self.spec.data[i]
        x = d.basis.x if isinstance(d.basis, ModelBasis) else np.arange(len(d.targets))
        if np.ndim(x) == 2:
            x = np.arange(len(d.targets))
        fine: Any = None
        if isinstance(d.basis, ModelBasis) and d.basis.x.ndim == 1:
            fine = np.linspace(x.min(), x.max(), 400)
        band = self.confidence_band(fine, level=level, column=k, dataset=i)
        return draw(
            np.asarray(x),
            d.targets[:, k],
            self.residuals(i)[:, k],
            np.asarray(x) if fine is None else fine,
            band,
            level,
            axes,
        )

    def __str__(self) -> str:
        """The summary, where there is one data set of one right-hand side."""
        if len(self.spec.data) == 1 and self.spec.data[0].targets.shape[1] == 1:
            return self.summary()
        return repr(self)

    def __repr__(self) -> str:
        """Short."""
        values = ", ".join(f"{n}={v:.6g}" for n, v in self.values.items())
        return f"CurveFit({values}; {self.status}, objective {float(self.objective):.6g})"

    # -- helpers -----------------------------------------------------------------------------

    def _spread(self, i: int, k: int, x: Any) -> tuple[np.ndarray, np.ndarray, int]:
        """Fitted values, their standard errors, and how many parameters those come from."""
        d, coef = self.spec.data[i], self.statistics.coef[i][:, k]
        basis = self._basis(i, x)
        rows = rows_of(d, basis, self.params, coef, len(self.params))
        covariance = self.statistics.covariance(i, k)
        error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", rows, covariance, rows), 0.0))
        size = _rank_of(covariance)
        return rows[:, len(self.params) :] @ coef, error, size

    def _basis(self, i: int, x: Any) -> Any:
        basis = self.spec.data[i].basis
        if x is None:
            return basis
        if not hasattr(basis, "at"):
            raise ValueError(
                "other x need a model: fit FunctionModel(…).at(x) or SeparableModel(…).at(x); "
                f"{type(basis).__name__} knows its own rows only"
            )
        return basis.at(x)

    def _dataset(self, dataset: int | None) -> int:
        n = len(self.spec.data)
        if dataset is None:
            if n > 1:
                raise ValueError(f"there are {n} data sets; pass dataset=0 to {n - 1}")
            return 0
        if not 0 <= dataset < n:
            raise ValueError(f"no data set {dataset}; there are {n}, from 0 on")
        return dataset

    def _which(self, dataset: int | None, column: int | None) -> tuple[int, int]:
        i = self._dataset(dataset)
        n = self.spec.data[i].targets.shape[1]
        if column is None:
            if n > 1:
                raise ValueError(f"there are {n} right-hand sides; pass column=0 to {n - 1}")
            return i, 0
        if not 0 <= column < n:
            raise ValueError(f"no right-hand side {column}; there are {n}, from 0 on")
        return i, column


def curve_fit_of(spec: Specification, start: np.ndarray | None = None) -> CurveFit:
    """Run a specification."""
    outcome, problem, evaluations = spec.run(start)
    params = spec.space.expand(outcome.params)
    finite = np.isfinite(outcome.objective)
    if finite:
        coef = spec.coefficients(params, problem)
        parts = getattr(problem, "problems", [problem])
        looks = [
            p.rank_and_condition(params[d.place]) for p, d in zip(parts, spec.data, strict=True)
        ]
    else:
        coef = [np.full((d.n_columns, d.targets.shape[1]), np.nan) for d in spec.data]
        looks = [(0, float("nan"))] * len(coef)
    ranks, conditions = [int(r) for r, _ in looks], [float(c) for _, c in looks]
    return CurveFit(
        params=params,
        coef=coef if spec.several else coef[0],
        objective=float(outcome.objective),
        status=outcome.status,
        n_iterations=outcome.n_iterations,
        n_evaluations=evaluations,
        history=outcome.history,
        rank=ranks if spec.several else ranks[0],
        condition=conditions if spec.several else conditions[0],
        names=spec.space.names,
        statistics=Statistics(spec, problem, params, coef),
        spec=spec,
    )
