"""Problems made of others: weights, bounds on linear parameters, several data sets, fixed and tied
parameters. Each is again a problem, so the solvers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from rankwise.varpro.bounded import projections_within
from rankwise.varpro.functional import (
    Blocks,
    Projection,
    dense_jacobian,
    linearise,
    pairs_to_parameters,
    project,
)
from rankwise.varpro.problem import LARGEST, Basis, Solution, n_params_of

_MOST_ENTRIES = 4_000_000
"""Of weighted features and residuals that are held at a time: 32 MB."""


class WeightedBasis:
    """A basis whose rows are weighted, or whitened by a covariance's Cholesky factor.

    Parameters
    ----------
    basis : Basis
    roots : array of shape (n,) or (n, n)
        Square roots of the weights; or the lower factor ``L`` of the data's covariance, whose
        inverse is applied.
    """

    def __init__(self, basis: Basis, roots: np.ndarray) -> None:
        self._basis, self._roots = basis, roots
        self.owner = basis.owner
        if getattr(basis, "parameter", None) is not None:
            self.parameter = basis.parameter  # type: ignore[attr-defined]  # optional, see Basis
        self.n_params = n_params_of(basis)

    def features(self, params: Any) -> np.ndarray:
        """``WΦ``."""
        return whiten(self._roots, self._basis.features(params))

    def derivative_blocks(self, params: Any) -> Blocks:
        """``WD``, in one block."""
        yield slice(None), whiten(self._roots, all_rows(self._basis, params))


def whiten(roots: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """Rows times the roots of their weights, or ``L⁻¹`` times the rows."""
    if roots is None:
        return values
    if roots.ndim == 1:
        return roots[:, None] * values
    return solve_triangular(roots, values, lower=True, check_finite=False)


def all_rows(basis: Basis, params: Any) -> np.ndarray:
    """``D``, its blocks joined."""
    return np.concatenate([np.asarray(d, np.float64) for _, d in basis.derivative_blocks(params)])


class ColumnwiseProblem:
    """A problem whose right-hand sides differ in more than their targets.

    Each may have weights of its own, and linear parameters within bounds. Right-hand sides are
    streamed, so that no more than 32 MB of weighted features are held.

    Parameters
    ----------
    basis : Basis
        Unweighted, where `roots` are given.
    targets : array of shape (n, K)
        Likewise.
    jacobian, ridge, rcond, equilibrate
        As in `SeparableProblem`.
    roots : array of shape (n, K), optional
        Square roots of the weights.
    linear_bounds : pair of arrays of shape (m, K), optional
    """

    def __init__(
        self,
        basis: Basis,
        targets: np.ndarray,
        *,
        jacobian: str,
        ridge: float,
        rcond: float,
        equilibrate: bool,
        roots: np.ndarray | None = None,
        linear_bounds: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.basis, self.targets, self.jacobian = basis, targets, jacobian
        self.ridge, self.rcond, self.equilibrate = ridge, rcond, equilibrate
        self.roots, self.linear_bounds = roots, linear_bounds
        self.n_params = n_params_of(basis)
        self.n_evaluations = 0
        weighted = targets if roots is None else roots * targets
        self.scale = 0.5 * np.sum(np.square(weighted))
        self.n_residuals = targets.size
        self.bounds = None
        self._state: np.ndarray | None = None
        self._last: tuple[np.ndarray, np.ndarray, float] | None = None

    def objective(self, params: np.ndarray) -> Any:
        """``½Σ(‖R‖² + μ‖A‖²)``; infinite where the features are not finite."""
        if self._last is None or not np.array_equal(self._last[0], params):
            self.n_evaluations += 1
            phi = self.basis.features(params)
            if not (np.abs(phi) < LARGEST).all():
                return np.float64(np.inf)
            total = sum(float(np.sum(p.objective)) for _, _, p, _ in self._slabs(phi))
            self._last = np.array(params), phi, total
        return np.float64(self._last[2])

    def gradient(self, params: np.ndarray) -> np.ndarray:
        """Gradient, shape ``(P,)``."""
        return self.linearise(params)[0]

    def linearise(
        self, params: np.ndarray, jacobian: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Gauss–Newton matrix."""
        kind = self.jacobian if jacobian is None else jacobian
        d = all_rows(self.basis, params)
        owner = self.basis.owner
        g, h = np.zeros(len(owner)), np.zeros((len(owner), len(owner)))
        for columns, _, projection, _ in self._slabs(self._features(params)):
            gradient, matrix = linearise(
                projection, [(slice(None), self._weighted(d, columns, projection))], owner, kind
            )
            g += gradient.reshape(-1, len(owner)).sum(axis=0)
            h += matrix.reshape(-1, len(owner), len(owner)).sum(axis=0)
        shared = getattr(self.basis, "parameter", None)
        if shared is None:
            return g, np.triu(h) + np.triu(h, 1).T
        return pairs_to_parameters(g, h, shared, self.n_params)

    def residual(self, params: np.ndarray) -> np.ndarray:
        """Weighted residuals by right-hand side; with ridge ``−√μ·a`` below each."""
        rows: list[np.ndarray] = [np.empty(0)] * self.targets.shape[1]
        for solution in self.solutions(params):
            found = solution.projection.residual
            if self.ridge > 0:
                found = np.vstack([found, -np.sqrt(self.ridge) * solution.projection.coef])
            for k, column in zip(solution.columns, found.T, strict=True):
                rows[k] = column
        return np.concatenate(rows)

    def dense_jacobian(self, params: np.ndarray, jacobian: str | None = None) -> np.ndarray:
        """Jacobian of `residual`, formed whole."""
        kind = self.jacobian if jacobian is None else jacobian
        rows: list[np.ndarray] = [np.empty(0)] * self.targets.shape[1]
        for s in self.solutions(params):
            whole = dense_jacobian(
                s.projection, s.features, s.derivatives, self.basis.owner, kind, self.ridge
            )
            for k, block in zip(s.columns, np.split(whole, len(s.columns)), strict=True):
                rows[k] = block
        pairs = np.concatenate(rows)
        shared = getattr(self.basis, "parameter", None)
        return pairs if shared is None else pairs @ np.eye(self.n_params)[shared]

    def solutions(self, params: np.ndarray) -> Iterator[Solution]:
        """What statistics need, for each pattern or right-hand side."""
        d = all_rows(self.basis, params)
        for columns, phi, projection, free in self._slabs(self._features(params)):
            weighted = self._weighted(d, columns, projection)
            if projection.coef.ndim == 2:
                yield Solution(columns, phi, weighted, projection, free)
                continue
            for i, k in enumerate(columns):
                one = Projection(**{n: getattr(projection, n)[i] for n in projection.__dict__})
                yield Solution(np.array([k]), phi[i], weighted[i], one, None)

    def coefficients(self, params: np.ndarray) -> np.ndarray:
        """``A``, shape ``(m, K)``."""
        phi = self._features(params)
        coef = np.empty((phi.shape[1], self.targets.shape[1]))
        for columns, _, projection, _ in self._slabs(phi):
            found = projection.coef
            coef[:, columns] = found if found.ndim == 2 else found[..., 0].T
        return coef

    def rank_and_condition(self, params: np.ndarray) -> tuple[int, float]:
        """Of the unweighted ``Φ``."""
        projection = project(
            self._features(params),
            self.targets[:, :1],
            rcond=self.rcond,
            equilibrate=self.equilibrate,
        )
        return int(projection.rank), float(projection.condition)

    def _features(self, params: np.ndarray) -> np.ndarray:
        self.objective(params)
        if self._last is None or not np.array_equal(self._last[0], params):
            raise ValueError("the features are not finite there")
        return self._last[1]

    def _weighted(self, d: np.ndarray, columns: np.ndarray, projection: Projection) -> np.ndarray:
        """``D`` for a slab: weighted as its right-hand sides are."""
        if self.roots is None:
            return d
        if projection.coef.ndim == 2:
            return self.roots[:, columns] * d  # one right-hand side
        return self.roots[:, columns].T[..., None] * d

    def _slabs(
        self, phi: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Projection, np.ndarray | None]]:
        """Right-hand sides that are treated together, their features and projection."""
        n, k = self.targets.shape
        options = {"ridge": self.ridge, "rcond": self.rcond, "equilibrate": self.equilibrate}
        if self.linear_bounds is None:
            assert self.roots is not None
            width = max(phi.shape[1], len(self.basis.owner), 1)
            step = max(1, _MOST_ENTRIES // (n * width))
            for first in range(0, k, step):
                columns = np.arange(first, min(first + step, k))
                roots = self.roots[:, columns].T[..., None]
                weighted = roots * phi
                tau = roots * self.targets[:, columns].T[..., None]
                yield columns, weighted, project(weighted, tau, **options), None  # type: ignore[arg-type]
                # (mypy reads the mixed dict's values as one type)
            return
        if self._state is None:
            self._state = np.zeros((phi.shape[1], k), dtype=np.int8)
        step = max(1, _MOST_ENTRIES // n) if self.roots is None else 1
        for first in range(0, k, step):
            columns = np.arange(first, min(first + step, k))
            roots = np.ones((n, 1)) if self.roots is None else self.roots[:, columns]
            weighted = phi if self.roots is None else roots * phi
            lower, upper = (b[:, columns] for b in self.linear_bounds)
            state, found = projections_within(
                weighted,
                roots * self.targets[:, columns],
                lower,
                upper,
                state=self._state[:, columns],
                **options,  # type: ignore[arg-type]  # as above
            )
            self._state[:, columns] = state
            for inner, projection, free in found:
                yield columns[inner], weighted, projection, free


class SumOfProblems:
    """Several data sets that share nonlinear parameters: their objectives added.

    Parameters
    ----------
    problems : sequence of problems
    places : sequence of int arrays
        For each, where its parameters stand among all.
    n_params : int
        How many there are.
    """

    def __init__(
        self, problems: Sequence[Any], places: Sequence[np.ndarray], n_params: int
    ) -> None:
        self.problems, self.places, self.n_params = list(problems), list(places), n_params
        self.bounds = None
        self.scale = sum(p.scale for p in self.problems)
        self.n_residuals = sum(p.n_residuals for p in self.problems)

    @property
    def n_evaluations(self) -> int:
        """Of the first: they are evaluated together."""
        return self.problems[0].n_evaluations

    def objective(self, params: np.ndarray) -> Any:
        """The sum."""
        return np.float64(sum(self._each(lambda p, own: p.objective(own), params)))

    def gradient(self, params: np.ndarray) -> np.ndarray:
        """The sum, each in its own parameters."""
        total = np.zeros(self.n_params)
        for place, g in zip(
            self.places, self._each(lambda p, own: p.gradient(own), params), strict=True
        ):
            total[place] += g
        return total

    def linearise(
        self, params: np.ndarray, jacobian: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The sums."""
        total, matrix = np.zeros(self.n_params), np.zeros((self.n_params, self.n_params))
        found = self._each(lambda p, own: p.linearise(own, jacobian), params)
        for place, (g, h) in zip(self.places, found, strict=True):
            total[place] += g
            matrix[np.ix_(place, place)] += np.triu(h) + np.triu(h, 1).T
        return total, matrix

    def residual(self, params: np.ndarray) -> np.ndarray:
        """One data set after another."""
        return np.concatenate(self._each(lambda p, own: p.residual(own), params))

    def dense_jacobian(self, params: np.ndarray, jacobian: str | None = None) -> np.ndarray:
        """Likewise."""
        parts = []
        found = self._each(lambda p, own: p.dense_jacobian(own, jacobian), params)
        for place, part in zip(self.places, found, strict=True):
            whole = np.zeros((len(part), self.n_params))
            whole[:, place] = part
            parts.append(whole)
        return np.concatenate(parts)

    def _each(self, call: Callable[[Any, np.ndarray], Any], params: np.ndarray) -> list[Any]:
        return [call(p, params[at]) for p, at in zip(self.problems, self.places, strict=True)]


class ReparametrisedProblem:
    """A problem in other parameters, ``θ = T(φ)``: some fixed, some tied, the others free.

    Parameters
    ----------
    problem : problem in ``θ``
    expand : callable
        ``T``.
    slope : callable
        ``∂T/∂φ``, shape ``(P, F)``.
    bounds : pair of arrays of shape (F,), optional
    """

    def __init__(
        self,
        problem: Any,
        expand: Callable[[np.ndarray], np.ndarray],
        slope: Callable[[np.ndarray], np.ndarray],
        bounds: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        self.problem, self._expand, self._slope, self.bounds = problem, expand, slope, bounds
        self.scale, self.n_residuals = problem.scale, problem.n_residuals

    @property
    def n_evaluations(self) -> int:
        """Of the problem inside."""
        return self.problem.n_evaluations

    def objective(self, free: np.ndarray) -> Any:
        """``f(T(φ))``."""
        return self.problem.objective(self._expand(free))

    def gradient(self, free: np.ndarray) -> np.ndarray:
        """``T'ᵀg``."""
        return self._slope(free).T @ self.problem.gradient(self._expand(free))

    def linearise(
        self, free: np.ndarray, jacobian: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``T'ᵀg`` and ``T'ᵀHT'``."""
        slope = self._slope(free)
        g, h = self.problem.linearise(self._expand(free), jacobian)
        full = np.triu(h) + np.triu(h, 1).T
        return slope.T @ g, slope.T @ full @ slope

    def residual(self, free: np.ndarray) -> np.ndarray:
        """``r(T(φ))``."""
        return self.problem.residual(self._expand(free))

    def dense_jacobian(self, free: np.ndarray, jacobian: str | None = None) -> np.ndarray:
        """``J·T'``."""
        return self.problem.dense_jacobian(self._expand(free), jacobian) @ self._slope(free)
