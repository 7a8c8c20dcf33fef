"""Many fits of one model at once: each right-hand side with nonlinear parameters of its own.

The traces of a plate reader, the pixels of a lifetime image. They run through Levenberg–Marquardt
in step, in chunks that stay in the processor's cache; those that haven't converged are gathered
and go on together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rankwise.varpro.functional import FEW_COLUMNS, Blocks, Projection, small_grams
from rankwise.varpro.inputs import checked_basis, checked_roots, checked_targets
from rankwise.varpro.magnitude import checked_squares, unit_of
from rankwise.varpro.model_basis import ModelBasis
from rankwise.varpro.parameters import parameter_space, real_array
from rankwise.varpro.problem import SeparableProblem
from rankwise.varpro.solvers import MAX_ITERATIONS, LevenbergMarquardt, NielsenDamping, Solver

_ENTRIES = 150_000
"""Of features or derivatives in a chunk: 1.2 MB, about a core's cache."""
_FIRST_DAMPING = 1e-3
"""Of the default rule: one start for all is near most, and a third of the steps is saved
(``benchmarks/separable_speed.py``)."""
_FIRST_ROUND = 12
"""Steps after which those that are done are left out."""


@dataclass(frozen=True)
class ManyFits:
    """What many fits return.

    Attributes
    ----------
    params : array of shape (K, P), float64
    coef : array of shape (K, m)
    objective : array of shape (K,)
    status : array of str of shape (K,)
        As in `FitResult`.
    n_iterations : int array of shape (K,)
    stderr : array of shape (K, P)
        Standard errors of the nonlinear parameters, each fit with a variance of its own; NaN at a
        bound.
    names : tuple of str
    """

    params: np.ndarray
    coef: np.ndarray
    objective: np.ndarray
    status: np.ndarray
    n_iterations: np.ndarray
    stderr: np.ndarray
    names: tuple[str, ...]

    @property
    def converged(self) -> np.ndarray:
        """Bool array of shape (K,)."""
        return self.status == "converged"


class _Batch:
    """A model at its ``x`` for a batch of parameters, weighted."""

    def __init__(self, basis: ModelBasis, roots: np.ndarray | None) -> None:
        self._basis, self._roots = basis, roots
        self.owner, self.parameter, self.n_params = basis.owner, basis.parameter, basis.n_params

    def features(self, params: np.ndarray) -> np.ndarray:
        """``Φ``, shape ``(G, n, m)``."""
        phi = self._basis.features(params)
        if len(phi) == 1 < len(params):
            phi = np.repeat(phi, len(params), axis=0)
        return phi if self._roots is None else self._roots * phi

    def derivative_blocks(self, params: np.ndarray) -> Blocks:
        """``D``, shape ``(G, n, Q)``."""
        for rows, d in self._basis.derivative_blocks(params):
            if len(d) == 1 < len(params):
                d = np.repeat(d, len(params), axis=0)
            yield rows, d if self._roots is None else self._roots * d


class _InStep(SeparableProblem):
    """Many small problems of one right-hand side each, projected by batched matrix products.

    LAPACK's QR takes its matrices one by one, which for three columns costs several times their
    arithmetic. Where columns are nearly dependent, LAPACK's way it is, for the chunk.
    """

    _room: np.ndarray | None = None

    def _projected(self, phi: np.ndarray) -> Projection:
        # The same memory every time: only the last projection is ever asked for, and fresh memory
        # costs more than the arithmetic.
        if self._room is None or self._room.shape[1:] != phi.swapaxes(-1, -2).shape:
            self._room = np.empty((2, *phi.swapaxes(-1, -2).shape))
        found = project_in_step(phi, self.targets, self._room)
        return super()._projected(phi) if found is None else found


_LEAST_PIVOT = 1e-5
"""Norm left of a unit column beside those before it, under which Cholesky isn't trusted."""
_GOOD_PIVOT = 0.03
"""Above which one factorisation is: a basis is orthonormal to ``ε`` over its square, 10⁻¹³."""


def project_in_step(
    features: np.ndarray, targets: np.ndarray, room: np.ndarray | None = None
) -> Projection | None:
    """`functional.project` for features (G, n, m) and targets (G, n, 1); None if that's unsafe.

    The orthonormal basis is ``Q = ΦWᵀ`` from two Cholesky factorisations of Gram matrices, of ``Φ``
    with columns of one norm and of what comes of it (Yamamoto et al. 2015: as good as Householder's
    up to condition numbers of about 10⁷). One is enough where columns are far from dependent.
    `room`, of shape (2, G, m, n), is where it's written.
    """
    q = features.swapaxes(-1, -2)
    few = q.shape[-2] <= FEW_COLUMNS
    whole: np.ndarray | None = None
    for turn in range(2):
        gram = small_grams(q) if few else q @ q.swapaxes(-1, -2)
        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.sqrt(np.einsum("gmm->gm", gram))
            scaled = gram / (size[:, :, None] * size[:, None, :])
        try:
            lower = np.linalg.cholesky(scaled)
        except np.linalg.LinAlgError:
            return None
        least = np.einsum("gmm->gm", lower).min()
        if not least > _LEAST_PIVOT:
            return None
        step = np.linalg.inv(lower) / size[:, None, :]
        q = np.matmul(step, q, out=None if room is None else room[turn])
        whole = step if whole is None else step @ whole
        if least > _GOOD_PIVOT:
            break
    assert whole is not None
    along = q @ targets
    residual = targets - q.swapaxes(-1, -2) @ along
    again = q @ residual  # as `project` does, against what rounding leaves
    residual -= q.swapaxes(-1, -2) @ again
    back = whole.swapaxes(-1, -2)
    n_fits, m, _ = q.shape
    return Projection(
        left=q.swapaxes(-1, -2),
        filters=np.ones((n_fits, m)),
        coef=back @ (along + again),
        residual=residual,
        inverse_gram=back @ whole,
        objective=0.5 * np.einsum("gn,gn->g", residual[..., 0], residual[..., 0]),
        rank=np.full(n_fits, m),
        condition=np.full(n_fits, np.nan),  # not known without singular values, nor asked for
    )


def fit_each(
    basis: Any,
    targets: Any,
    start: Any,
    solver: Solver,
    *,
    jacobian: str,
    rcond: float | None,
    weights: Any,
    sigma: Any,
    bounds: Any,
    advance: Callable[[int], object],
) -> ManyFits:
    """See `VariableProjection.fit_each`."""
    checked_basis(basis)
    if not isinstance(basis, ModelBasis):
        raise TypeError(
            "many fits at once need a model at its x, SeparableModel(…).at(x) or "
            f"FunctionModel(…).at(x); got {type(basis).__name__}"
        )
    if not isinstance(solver, LevenbergMarquardt):
        raise ValueError("many fits at once are for solver 'levenberg-marquardt'")
    if solver.damping == NielsenDamping():
        solver = replace(solver, damping=NielsenDamping(initial=_FIRST_DAMPING))
    targets = checked_targets(targets)
    n, k = targets.shape
    if n != basis.n_rows:
        raise ValueError(f"targets have {n} rows, the basis has {basis.n_rows}")
    first = real_array("start", start, most=2)
    one = first[0] if first.ndim == 2 and len(first) else first.ravel()
    space = parameter_space(basis.names, one, bounds)
    if first.ndim == 2 and first.shape != (k, len(space.names)):
        raise ValueError(
            f"start must have shape ({len(space.names)},) or ({k}, {len(space.names)}), got "
            f"{first.shape}"
        )
    starts = np.array(np.broadcast_to(first, (k, len(space.names))))
    if (starts < space.lower).any() or (starts > space.upper).any():
        raise ValueError("a start is outside the bounds")
    roots, _ = checked_roots(n, k, {"weights": weights, "sigma": sigma})
    unit = unit_of(checked_squares(targets, roots, whitened=False, each=True))
    n_observed = np.full(k, n if roots is None else np.sum(roots > 0, axis=0))
    basis.prepare(starts[0])
    m = basis.features(starts[0]).shape[-1]
    width = max(m, len(basis.owner), 1)
    size = max(1, _ENTRIES // (n * width))
    cut = float(n * np.finfo(float).eps) if rcond is None else rcond

    def problem(members: np.ndarray) -> SeparableProblem:
        tau = np.ascontiguousarray(targets[:, members].T, dtype=np.float64)[..., None]
        own = None
        if roots is not None:
            own = roots[None, :, None] if roots.ndim == 1 else roots[:, members].T[..., None]
            tau = own * tau
        tau = tau / unit[members, None, None]
        return _InStep(
            _Batch(basis, own),
            tau,
            jacobian=jacobian,
            ridge=0.0,
            rcond=cut,
            equilibrate=True,
            bounds=space.bounds,
        )

    params, coef = starts, np.zeros((k, m))
    objective, error = np.zeros(k), np.full((k, len(space.names)), np.nan)
    status = np.full(k, MAX_ITERATIONS, dtype=object)
    steps = np.zeros(k, dtype=int)
    left, budget, most = np.arange(k), _FIRST_ROUND, solver.stopping.max_iterations
    used = 0
    while len(left):
        budget = min(budget, most - used)
        last = used + budget >= most
        again = []
        for members in _chunks(left, size):
            here = problem(members)
            rule = replace(solver.stopping, max_iterations=budget)
            outcome = replace(solver, stopping=rule).minimise(here, params[members])
            params[members], objective[members] = outcome.params, outcome.objective
            status[members] = outcome.status
            steps[members] += outcome.n_iterations
            open_ones = (status[members] == MAX_ITERATIONS) & (not last)
            again.append(members[open_ones])
            done = members[~open_ones]
            coef[members] = here.coefficients(outcome.params)[..., 0]
            error[members] = _errors(
                here, outcome.params, objective[members], n_observed[members], space
            )
            advance(len(done))
        used += budget
        budget *= 2
        left = np.concatenate(again)
    coef, objective = coef * unit[:, None], objective * unit**2
    return ManyFits(params, coef, objective, status.astype(str), steps, error, space.names)


def _errors(
    problem: SeparableProblem,
    params: np.ndarray,
    objective: np.ndarray,
    n_observed: np.ndarray,
    space: Any,
) -> np.ndarray:
    """Standard errors from Kaufman's matrix, whose inverse is the nonlinear block.

    Degrees of freedom are counted as `Statistics` does: of each fit the rows of a weight above 0,
    less the rank of ``Φ`` and the parameters that aren't held.
    """
    _, matrix = problem.linearise(params, "kaufman")
    held = space.at_bound(params)
    size = np.sqrt(np.maximum(np.einsum("gii->gi", matrix), 0.0))
    held |= size == 0
    scale = np.where(held, 1.0, size)
    scaled = matrix / (scale[:, :, None] * scale[:, None, :])
    scaled = np.where(held[:, :, None] | held[:, None, :], np.eye(len(space.names)), scaled)
    dof = n_observed - problem.project(params).rank - np.sum(~held, axis=1)
    values, vectors = np.linalg.eigh(scaled)
    lost = values[:, 0] <= len(space.names) * np.finfo(float).eps
    safe = np.where(values > 0, values, 1.0)
    inverse = np.sum(vectors**2 / safe[:, None, :], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.sqrt(2 * objective / np.where(dof > 0, dof, np.nan))[:, None] * np.sqrt(inverse)
    found = np.where(lost[:, None], np.inf, found / scale)
    return np.where(held, np.nan, found)


def _chunks(members: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(members), size):
        yield members[first : first + size]
