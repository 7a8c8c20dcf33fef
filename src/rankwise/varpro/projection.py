"""`VariableProjection`: fit any separable model, with any of the solvers.

This is the procedure of the paper's sections 2 and 3 on its own, for units of images and for
every other model that is linear in some of its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rankwise.varpro.functional import JACOBIANS
from rankwise.varpro.problem import Basis, SeparableProblem
from rankwise.varpro.solvers import Solver, make_solver


@dataclass(frozen=True)
class FitResult:
    """What a fit returns: the model and an honest account of how it ended.

    Attributes
    ----------
    params : array of shape (..., P), float64
        Nonlinear parameters ``θ``.
    coef : array of shape (..., m, K), float64
        Linear parameters ``A``.
    objective : float or array
        ``½(‖τ − ΦA‖² + μ‖A‖²)`` at the end.
    status : str or tuple of str
        ``converged``, ``max-iterations``, ``stalled`` (no step improves any more) or
        ``non-finite`` (the start could not be evaluated).
    n_iterations, n_evaluations : int
        Steps, and evaluations of the functional.
    history : list of dict
        One entry an iteration.
    rank : int or array
        Numerical rank of ``Φ`` at the end, of its ``m`` columns.
    condition : float or array
        ``s₁/s_rank`` of ``Φ``.
    """

    params: Any
    coef: Any
    objective: Any
    status: Any
    n_iterations: int
    n_evaluations: int
    history: list[dict[str, Any]]
    rank: Any
    condition: Any

    @property
    def converged(self) -> bool:
        """Whether every problem of the fit converged."""
        statuses = (self.status,) if isinstance(self.status, str) else self.status
        return all(s == "converged" for s in statuses)


class VariableProjection:
    """Separable nonlinear least squares, ``min_{θ, A} ‖τ − Φ(θ)A‖²``, by variable projection.

    The linear parameters are eliminated, ``A = Φ⁺τ``, and a solver minimises
    ``‖(I − ΦΦ⁺)τ‖²`` over ``θ`` alone (Golub & Pereyra 1973; paper, eq. 2.2).

    Parameters
    ----------
    solver : str or Solver, default="levenberg-marquardt"
        ``"levenberg-marquardt"``, ``"minpack"`` (the paper's), ``"lbfgs"``,
        ``"gradient-descent"``, ``"search"``, or any object with ``minimise``.
    jacobian : {"golub-pereyra", "kaufman"}, default="golub-pereyra"
        The exact Gauss–Newton matrix, or the one without the term that the paper drops because
        residuals are small. In one-hot classification they are not, and in this form the term
        costs next to nothing; which of the two gets further in a few steps depends on the
        damping (``docs/results.md``, solver race).
    ridge : float, default=0.0
        ``μ`` on the linear parameters.
    rcond : float, optional
        Singular values of ``Φ`` under ``rcond·s₁`` are dropped; default ``n·ε`` of ``Φ``'s dtype.
    max_iterations : int, optional
        Default: the solver's own.
    ftol : float, optional
        Relative decrease of the objective under which a fit has converged; default: the solver's.

    Raises
    ------
    ValueError
        If the Jacobian isn't one of the two, or the ridge is negative. An unknown name of a
        solver is refused by `fit`.

    Examples
    --------
    NIST's Misra1a, ``y = b₁(1 − exp(−b₂x))``:

    >>> import numpy as np
    >>> from rankwise import VariableProjection
    >>> from rankwise.varpro import FunctionBasis
    >>> x = np.linspace(50, 700, 14)
    >>> y = 240 * (1 - np.exp(-5.5e-4 * x))
    >>> basis = FunctionBasis(
    ...     lambda b: 1 - np.exp(-b[0] * x)[:, None],
    ...     lambda b: (x * np.exp(-b[0] * x))[:, None],
    ...     owner=np.array([0]),
    ... )
    >>> fit = VariableProjection(ftol=1e-12, max_iterations=50).fit(basis, y, [1e-4])
    >>> round(float(fit.coef[0, 0]), 3), round(float(fit.params[0]), 7)
    (240.0, 0.00055)
    """

    def __init__(
        self,
        solver: str | Solver = "levenberg-marquardt",
        *,
        jacobian: str = "golub-pereyra",
        ridge: float = 0.0,
        rcond: float | None = None,
        max_iterations: int | None = None,
        ftol: float | None = None,
    ) -> None:
        if jacobian not in JACOBIANS:
            raise ValueError(f"unknown jacobian {jacobian!r}; accepted: {', '.join(JACOBIANS)}")
        if not ridge >= 0:
            raise ValueError(f"ridge must be at least 0, got {ridge}")
        self.solver = solver
        self.jacobian = jacobian
        self.ridge = ridge
        self.rcond = rcond
        self.max_iterations = max_iterations
        self.ftol = ftol

    def fit(self, basis: Basis, targets: Any, start: Any) -> FitResult:
        """Fit from a start.

        Parameters
        ----------
        basis : Basis
            ``features(θ)``, ``derivative_blocks(θ)`` and ``owner``; see `FunctionBasis` and
            `UnitBasis`.
        targets : array of shape (n,), (n, K) or, for a batch, (G, n, K)
            ``τ``. One-dimensional targets count as one column.
        start : array of shape (P,) or (G, P)
            Only Levenberg–Marquardt takes a batch.

        Returns
        -------
        FitResult

        Raises
        ------
        ValueError
            If targets or start are not finite, or their shapes don't fit the basis; if the
            solver's name isn't known, or the solver can't take the problem (``"minpack"`` needs
            as many residuals as parameters).
        """
        if isinstance(start, (list, tuple)) or np.isscalar(start):
            start = np.atleast_1d(np.asarray(start, dtype=np.float64))
        if isinstance(start, np.ndarray):
            start = start.astype(np.float64)
            targets = np.asarray(targets)
            if targets.ndim == 1:
                targets = targets[:, None]
            for name, array in (("targets", targets), ("start", start)):
                if not np.isfinite(array).all():
                    raise ValueError(f"{name} must be finite, found NaN or infinity")
        if start.shape[-1] != len(basis.owner):
            raise ValueError(
                f"start has {start.shape[-1]} parameters, the basis has {len(basis.owner)}"
            )
        rcond = self.rcond
        if rcond is None:
            # float32 features carry rounding of ε₃₂; singular values below it are noise.
            eps = np.finfo(getattr(basis, "dtype", np.float64)).eps
            rcond = float(targets.shape[-2] * eps)
        problem = SeparableProblem(
            basis, targets, jacobian=self.jacobian, ridge=self.ridge, rcond=rcond
        )
        solver = self.solver
        if isinstance(solver, str):
            solver = make_solver(solver, max_iterations=self.max_iterations, ftol=self.ftol)
        outcome = solver.minimise(problem, start)
        final = problem.project(outcome.params)
        single = len(outcome.params.shape) == 1
        return FitResult(
            params=outcome.params,
            coef=final.coef,
            objective=outcome.objective,
            status=outcome.status,
            n_iterations=outcome.n_iterations,
            n_evaluations=problem.n_evaluations,
            history=outcome.history,
            rank=int(final.rank) if single else final.rank,
            condition=float(final.condition) if single else final.condition,
        )
