"""Statistics of a fit of curves: covariances, degrees of freedom, bands.

With ``J = [∂Φ·A, Φ]`` the Jacobian in all parameters, the covariance is ``s²(JᵀJ)⁻¹``. Of its
blocks the nonlinear one is ``s²(KᵀK)⁻¹``, ``K = P⊥∂Φ·A`` being Kaufman's Jacobian (the Schur
complement), and with ``B = Φ⁺∂Φ·a`` that of a right-hand side's linear parameters is
``s²(ΦᵀΦ)⁻¹ + B·cov(θ)·Bᵀ``, the cross block ``−B·cov(θ)``. So nothing of the size of all linear
parameters is formed, however many right-hand sides there are. Parameters at a bound count as
known: they have no standard error, and the others' are conditional on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from rankwise.varpro.composed import SumOfProblems
from rankwise.varpro.losses import robust_factor, robust_weights
from rankwise.varpro.specification import DataSet, Specification

_MOST_ENTRIES = 20_000_000
"""Of a Jacobian that is formed whole for its covariance: 160 MB. Beyond, from ``KᵀK``."""


@dataclass(frozen=True)
class Piece:
    """Right-hand sides whose linear parameters have one covariance structure."""

    columns: np.ndarray
    inverse: np.ndarray
    slope: np.ndarray
    free: np.ndarray


class Statistics:
    """What follows from a solution, computed where it's asked for.

    Parameters
    ----------
    spec : Specification
    problem : problem in all nonlinear parameters, with robust weights where there are any
    params : array of shape (P,)
    coef : list of arrays (m, K)
    """

    def __init__(
        self, spec: Specification, problem: Any, params: np.ndarray, coef: list[np.ndarray]
    ) -> None:
        self.spec, self.problem, self.params, self.coef = spec, problem, params, coef
        self._parts = problem.problems if isinstance(problem, SumOfProblems) else [problem]

    @cached_property
    def n_observations(self) -> int:
        """Targets with a weight above 0, of all right-hand sides."""
        total = 0
        for d in self.spec.data:
            n, k = d.targets.shape
            if d.roots is None or d.whitened:
                total += n * k
            else:
                total += int(np.sum(d.roots > 0)) * (1 if d.roots.ndim == 2 else k)
        return total

    @cached_property
    def free(self) -> np.ndarray:
        """Positions of nonlinear parameters that are free and not at a bound."""
        at = self.spec.space.free
        return at[~self.spec.space.at_bound(self.params)[at]]

    @cached_property
    def n_parameters(self) -> float:
        """Nonlinear and linear parameters that the data determine; with ridge, effective ones."""
        linear = 0.0
        for d, part in zip(self.spec.data, self._parts, strict=True):
            for s in part.solutions(self.params[d.place]):
                count = d.targets.shape[1] if d.streamed else len(s.columns)
                linear += float(np.sum(s.projection.filters)) * count
        whole = round(linear)
        return float(len(self.free) + (whole if abs(linear - whole) < 1e-9 else linear))

    @cached_property
    def dof(self) -> float:
        """Degrees of freedom: observations less parameters."""
        return self.n_observations - self.n_parameters

    @cached_property
    def rss(self) -> float:
        """Weighted residual sum of squares, without robust weights."""
        if self.spec.loss != "linear":
            return float(sum(np.sum(r**2) for r in self._residuals))
        return float(
            sum(
                np.sum(s.projection.residual**2)
                for d, part in zip(self.spec.data, self._parts, strict=True)
                for s in part.solutions(self.params[d.place])
            )
        )

    @cached_property
    def _residuals(self) -> list[np.ndarray]:
        return self.spec.residuals(self.params, self.problem, self.spec.data)

    def _counted(self) -> list[tuple[np.ndarray, Any]]:
        """Residuals of each data set, and which have a weight above 0."""
        found: list[tuple[np.ndarray, Any]] = []
        for d, r in zip(self.spec.data, self._residuals, strict=True):
            seen = d.roots is None or d.whitened or d.roots > 0
            found.append(
                (
                    r,
                    np.broadcast_to(np.reshape(seen, (-1, 1)), r.shape)
                    if np.ndim(seen) < 2
                    else seen,
                )
            )
        return found

    @cached_property
    def variance(self) -> float:
        """``s²``: residual variance of a unit weight; NaN without degrees of freedom."""
        return self.rss / self.dof if self.dof > 0 else float("nan")

    @cached_property
    def scale(self) -> float:
        """What ``(JᵀJ)⁻¹`` is multiplied by."""
        if self.spec.loss != "linear":
            residual = np.concatenate([r[counted].ravel() for r, counted in self._counted()])
            weights = robust_weights(self.spec.loss, residual, self.spec.f_scale)
            factor = robust_factor(self.spec.loss, residual, self.spec.f_scale, int(self.dof))
            return factor * float(np.mean(weights))
        return 1.0 if self.spec.absolute_sigma else self.variance

    @cached_property
    def covariance_of_params(self) -> np.ndarray:
        """Of the nonlinear parameters, shape (P, P); 0 for fixed ones and those at a bound."""
        space = self.spec.space
        slope = space.slope(self.params[space.free])[:, np.isin(space.free, self.free)]
        if slope.shape[1] == 0:
            return np.zeros((len(self.params),) * 2)
        size = self.problem.n_residuals * len(self.params)
        if size <= _MOST_ENTRIES:
            jacobian = self.problem.dense_jacobian(self.params, "kaufman") @ slope
            inverse = _inverse_gram(jacobian)
        else:
            _, matrix = self.problem.linearise(self.params, "kaufman")
            full = np.triu(matrix) + np.triu(matrix, 1).T
            inverse = _inverse_of(slope.T @ full @ slope)
        with np.errstate(invalid="ignore"):
            found = self.scale * (slope @ inverse @ slope.T)
        return np.where(np.isnan(found) & ~np.isnan(self.scale), np.inf, found)

    def stderr(self, variances: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Roots of variances; NaN for what is known: fixed, or at a bound."""
        return np.where(known, np.nan, np.sqrt(np.maximum(variances, 0.0)))

    @cached_property
    def params_stderr(self) -> np.ndarray:
        """Standard errors of the nonlinear parameters."""
        space = self.spec.space
        moving = np.isin(np.arange(len(self.params)), self.free)
        for name, (_, arguments) in space.tied.items():
            i = space.names.index(name)
            moving[i] = any(moving[space.names.index(a)] for a in arguments)
        return self.stderr(np.diag(self.covariance_of_params), ~moving)

    def pieces(self, dataset: int) -> Iterator[Piece]:
        """Structures of the linear parameters of a data set."""
        d, part = self.spec.data[dataset], self._parts[dataset]
        for s in part.solutions(self.params[d.place]):
            columns = np.arange(d.targets.shape[1]) if d.streamed else s.columns
            inverse = s.projection.inverse_gram
            free = np.ones(len(inverse), bool) if s.free is None else s.free
            slope = inverse @ (s.features.T @ s.derivatives)
            yield Piece(columns, inverse, slope, free)

    def coef_stderr(self, dataset: int) -> np.ndarray:
        """Standard errors of the linear parameters, shape (m, K); NaN at a bound."""
        d = self.spec.data[dataset]
        owner, parameter = _pairs(d)
        inner = self.covariance_of_params[np.ix_(d.place, d.place)]
        between = inner[np.ix_(parameter, parameter)]
        found = np.full(self.coef[dataset].shape, np.nan)
        for piece in self.pieces(dataset):
            values = self.coef[dataset][owner][:, piece.columns]
            for j in np.flatnonzero(piece.free):
                table = np.outer(piece.slope[j], piece.slope[j]) * between
                moved = np.einsum("qk,qr,rk->k", values, table, values, optimize=True)
                found[j, piece.columns] = np.sqrt(
                    np.maximum(self.scale * piece.inverse[j, j] + moved, 0.0)
                )
        return found

    def covariance(self, dataset: int, column: int) -> np.ndarray:
        """Of nonlinear and then a right-hand side's linear parameters, shape (P + m, P + m)."""
        d = self.spec.data[dataset]
        owner, parameter = _pairs(d)
        nonlinear = self.covariance_of_params
        for piece in self.pieces(dataset):
            if column not in piece.columns:
                continue
            a = self.coef[dataset][:, column]
            move = np.zeros((len(a), len(self.params)))
            np.add.at(move.T, d.place[parameter], (piece.slope * a[owner]).T)
            cross = -move @ nonlinear
            own = self.scale * piece.inverse + move @ nonlinear @ move.T
            own[~piece.free] = own[:, ~piece.free] = 0.0
            cross[~piece.free] = 0.0
            return np.block([[nonlinear, cross.T], [cross, own]])
        raise ValueError(f"no right-hand side {column}; there are {self.coef[dataset].shape[1]}")

    def quantile(self, level: float, simultaneous: bool = False, n_parameters: int = 1) -> float:
        """Half-widths in standard errors: Student's t, or Scheffé's for a whole curve."""
        check_level(level)
        known = self.spec.absolute_sigma
        if simultaneous:
            if known:
                return float(np.sqrt(stats.chi2.ppf(level, n_parameters)))
            return float(np.sqrt(n_parameters * stats.f.ppf(level, n_parameters, self.dof)))
        if known:
            return float(stats.norm.ppf(0.5 + level / 2))
        return float(stats.t.ppf(0.5 + level / 2, self.dof)) if self.dof > 0 else float("nan")

    @cached_property
    def log_likelihood(self) -> float:
        """Gaussian, with the variance's best value or, with absolute sigma, the one given."""
        n = self.n_observations
        log_roots = 0.0
        for d in self.spec.data:
            if d.roots is None:
                continue
            k = d.targets.shape[1]
            if d.whitened:
                log_roots -= k * float(np.sum(np.log(np.diag(d.roots))))
            else:
                some = d.roots[d.roots > 0]
                log_roots += float(np.sum(np.log(some))) * (1 if d.roots.ndim == 2 else k)
        if self.spec.absolute_sigma:
            return log_roots - 0.5 * self.rss - 0.5 * n * np.log(2 * np.pi)
        with np.errstate(divide="ignore"):
            return log_roots - 0.5 * n * (np.log(2 * np.pi * self.rss / n) + 1)

    @property
    def n_estimated(self) -> float:
        """Parameters, the variance among them where it's estimated."""
        return self.n_parameters + (0 if self.spec.absolute_sigma else 1)


def rows_of(d: DataSet, basis: Any, params: np.ndarray, coef: np.ndarray, n_params: int) -> Any:
    """Derivatives of the fitted values in all parameters, shape (n, P + m)."""
    phi = np.asarray(basis.features(params[d.place]), np.float64)
    derivatives = np.concatenate([b for _, b in basis.derivative_blocks(params[d.place])])
    owner, parameter = _pairs(d)
    move = np.zeros((len(phi), n_params))
    np.add.at(move.T, d.place[parameter], (derivatives * coef[owner]).T)
    return np.hstack([move, phi])


def check_level(level: float) -> None:
    """Refuse a confidence level that isn't a fraction."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, got {level}")


def _pairs(d: DataSet) -> tuple[np.ndarray, np.ndarray]:
    owner = np.asarray(d.basis.owner)
    shared = getattr(d.basis, "parameter", None)
    return owner, np.arange(len(owner)) if shared is None else np.asarray(shared)


def _inverse_gram(jacobian: np.ndarray) -> np.ndarray:
    """``(JᵀJ)⁻¹`` by QR, columns scaled to one norm; infinite where a column is lost."""
    norms = np.linalg.norm(jacobian, axis=0)
    if not np.isfinite(norms).all():
        return np.full((jacobian.shape[1],) * 2, np.inf)
    safe = np.where(norms > 0, norms, 1.0)
    _, r = np.linalg.qr(jacobian / safe)
    return _from_triangle(r, safe, max(jacobian.shape) * np.finfo(float).eps)


def _inverse_of(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a Gram matrix, scaled to a unit diagonal."""
    norms = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    if not np.isfinite(matrix).all():
        return np.full(matrix.shape, np.inf)
    safe = np.where(norms > 0, norms, 1.0)
    values, vectors = np.linalg.eigh(matrix / np.outer(safe, safe))
    if values[0] <= len(matrix) * np.finfo(float).eps * values[-1]:
        return np.full(matrix.shape, np.inf)
    return (vectors / values) @ vectors.T / np.outer(safe, safe)


def _from_triangle(r: np.ndarray, norms: np.ndarray, rcond: float) -> np.ndarray:
    if r.shape[0] < r.shape[1]:
        return np.full((r.shape[1],) * 2, np.inf)
    _, s, vt = np.linalg.svd(r)
    if s[-1] <= rcond * s[0]:
        return np.full((r.shape[1],) * 2, np.inf)
    half = vt.T / s / norms[:, None]
    return half @ half.T
