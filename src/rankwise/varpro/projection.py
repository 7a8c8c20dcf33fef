"""`VariableProjection`: fit any separable model, with any of the solvers.

This is the procedure of the paper's sections 2 and 3 on its own, for units of images and for
every other model that is linear in some of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from rankwise.varpro.curves import CurveFit, curve_fit_of
from rankwise.varpro.functional import JACOBIANS
from rankwise.varpro.inputs import checked_basis, checked_targets, data_sets
from rankwise.varpro.losses import check_loss
from rankwise.varpro.many import ManyFits, fit_each
from rankwise.varpro.multistart import Multistart, draw_starts, given_starts, multistart
from rankwise.varpro.parameters import checked_fixed, parameter_space
from rankwise.varpro.problem import SeparableProblem, n_params_of
from rankwise.varpro.results import FitResult
from rankwise.varpro.solvers import Solver, make_solver
from rankwise.varpro.specification import Specification
from rankwise.varpro.squashed import SquashedProblem


class VariableProjection:
    """Separable nonlinear least squares, ``min_{θ, A} ‖τ − Φ(θ)A‖²``, by variable projection.

    The linear parameters are eliminated, ``A = Φ⁺τ``, and a solver minimises
    ``‖(I − ΦΦ⁺)τ‖²`` over ``θ`` alone (Golub & Pereyra 1973; paper, eq. 2.2).

    This object holds choices and learns nothing: `fit` returns its result and leaves the object as
    it is. The scikit-learn face, whose ``fit`` returns itself, is `SeparableRegressor`.

    Parameters
    ----------
    solver : str or Solver, default="levenberg-marquardt"
        ``"levenberg-marquardt"``, ``"minpack"`` (the paper's), ``"trust-region"``, ``"lbfgs"``,
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
        Without ridge the columns are scaled to one norm first, so that units don't matter.
    max_iterations : int, optional
        Default: the solver's own.
    ftol : float, optional
        Relative decrease of the objective under which a fit has converged; default: the solver's.
    atol : float, optional
        Fraction of ``½‖τ‖²`` under which the objective counts as nothing; Levenberg–Marquardt only.
    loss : {"linear", "huber", "soft_l1", "cauchy", "arctan"}, default="linear"
        Robust losses as in ``scipy.optimize.least_squares``, by reweighting.
    f_scale : float, default=1.0
        Residuals, in units of sigma where there is one, beyond which a robust loss bends.
    squash : bool, default=False
        Minimise ``½‖τ − σ(ΦΦ⁺τ)‖²`` instead, the outputs behind a logistic function (paper, 8.1):
        for targets of 0 and 1. The linear parameters stay those of the plain functional. Its
        Gauss–Newton matrix costs ``K`` times as much; fits have no statistics, and take no
        weights, bounds, fixed or tied parameters.

    Raises
    ------
    ValueError
        If the Jacobian or the loss isn't one of the above, or a number is out of range. An
        unknown name of a solver is refused by `fit`.

    Examples
    --------
    NIST's Misra1a, ``y = b₁(1 − exp(−b₂x))``:

    >>> import numpy as np
    >>> from rankwise import VariableProjection
    >>> from rankwise.varpro import FunctionModel
    >>> x = np.linspace(50, 700, 14)
    >>> y = 240 * (1 - np.exp(-5.5e-4 * x))
    >>> model = FunctionModel(lambda x, b: 1 - np.exp(-b * x))
    >>> fit = VariableProjection().fit(model.at(x), y, [1e-4])
    >>> round(float(fit.coef[0, 0]), 3), round(float(fit.params[0]), 7)
    (240.0, 0.00055)
    """

    def __init__(
        self,
        solver: Any = "levenberg-marquardt",
        *,
        jacobian: str = "golub-pereyra",
        ridge: float = 0.0,
        rcond: float | None = None,
        max_iterations: int | None = None,
        ftol: float | None = None,
        atol: float | None = None,
        loss: str = "linear",
        f_scale: Any = 1.0,
        squash: bool = False,
    ) -> None:
        if not isinstance(jacobian, str) or jacobian not in JACOBIANS:
            raise ValueError(f"unknown jacobian {jacobian!r}; accepted: {', '.join(JACOBIANS)}")
        if not _is_number(ridge) or not 0 <= ridge < np.inf:
            raise ValueError(f"ridge must be at least 0 and finite, got {ridge}")
        if rcond is not None and not (_is_number(rcond) and 0 <= rcond < 1):
            raise ValueError(f"rcond must be at least 0 and below 1, got {rcond}")
        check_loss(loss, f_scale)
        if loss != "linear" and ridge > 0:
            raise ValueError("a robust loss can't be combined with a ridge; leave one out")
        if loss != "linear" and squash:
            raise ValueError("a robust loss can't be combined with squash; leave one out")
        self.solver = solver
        self.jacobian = jacobian
        self.ridge = ridge
        self.rcond = rcond
        self.max_iterations = max_iterations
        self.ftol = ftol
        self.atol = atol
        self.loss = loss
        self.f_scale = f_scale
        self.squash = squash

    def fit(
        self,
        basis: Any,
        targets: Any,
        start: Any,
        *,
        weights: Any = None,
        sigma: Any = None,
        covariance: Any = None,
        absolute_sigma: bool = False,
        bounds: Any = None,
        fixed: Any = (),
        tied: Any = None,
        linear_bounds: Any = None,
    ) -> FitResult:
        """Fit from a start, and return the result.

        Parameters
        ----------
        basis : Basis, or list of them
            ``model.at(x)`` of a `FunctionModel` or `SeparableModel`, a `FunctionBasis`, a
            `UnitBasis`, or anything with ``features(θ)``, ``derivative_blocks(θ)`` and ``owner``.
            A list for several data sets, of any lengths, whose parameters of one name are shared;
            `targets`, and what follows of weights and linear bounds, are lists then too.
        targets : array of shape (n,), (n, K) or, for a batch, (G, n, K)
            ``τ``. One-dimensional targets count as one column. All ``K`` share the nonlinear
            parameters; many more than rows are streamed.
        start : array of shape (P,), dict by name, or array of shape (G, P)
            Only Levenberg–Marquardt takes a batch, and none of the options below does.
        weights : array of shape (n,) or (n, K), optional
            Of squared residuals, at least 0.
        sigma : array of shape (n,) or (n, K), optional
            Standard deviations of the targets: weights ``1/sigma²``.
        covariance : array of shape (n, n), optional
            Of the targets, for all right-hand sides. At most one of the three.
        absolute_sigma : bool, default=False
            Whether `sigma` or `covariance` are in the targets' unit, or only relative and scaled to
            the residuals (as in ``scipy.optimize.curve_fit``). For standard errors only.
        bounds : (lower, upper) or dict of pairs, optional
            On the nonlinear parameters. The start must be within.
        fixed : sequence of str
            Nonlinear parameters that keep their start.
        tied : dict, optional
            Nonlinear parameters that equal another, ``{"b": "a"}``, or follow from others,
            ``{"b": lambda a: 2 * a}``; by functions without complex numbers, such as ``abs`` and
            those of ``math``, the slopes come from differences.
        linear_bounds : (lower, upper), optional
            On the linear parameters: numbers, or arrays of shape (m,) or (m, K). ``(0, np.inf)``
            keeps them from being negative. Equal bounds fix one.

        Returns
        -------
        FitResult
            Of a single fit a `CurveFit`, which has standard errors, bands and the rest, unless its
            outputs are squashed.

        Raises
        ------
        ValueError
            If targets or start are not finite or not real, or shapes don't fit the basis; if the
            targets' squares are out of range, under 1e-270 or above 1e270; if the solver's name
            isn't known, or the solver can't take the problem (``"minpack"`` needs as many residuals
            as parameters and keeps no bounds).
        TypeError
            If the basis isn't one.
        """
        fixed = checked_fixed(fixed)
        options = (weights, sigma, covariance, bounds, tied, linear_bounds)
        several = isinstance(basis, (list, tuple))
        if not several and getattr(start, "ndim", 1) > 1:
            if any(o is not None for o in options) or len(fixed) or self.loss != "linear":
                raise ValueError(
                    "a batch of starts takes no weights, bounds, fixed or tied parameters and no "
                    "robust loss; use fit_each"
                )
            return self._fit_plain(basis, targets, start)
        if self.squash:
            if several or any(o is not None for o in options) or len(fixed):
                raise ValueError(
                    "squash takes one data set, and no weights, bounds, fixed or tied parameters"
                )
            spec = self.specify(basis, targets, start)  # for what it checks
            tau = np.asarray(spec.data[0].targets, dtype=np.float64)
            return self._fit_plain(basis, tau, spec.space.start)
        spec = self.specify(
            basis,
            targets,
            start,
            weights=weights,
            sigma=sigma,
            covariance=covariance,
            absolute_sigma=absolute_sigma,
            bounds=bounds,
            fixed=fixed,
            tied=tied,
            linear_bounds=linear_bounds,
        )
        return curve_fit_of(spec)

    def fit_each(
        self,
        basis: Any,
        targets: Any,
        start: Any,
        *,
        weights: Any = None,
        sigma: Any = None,
        bounds: Any = None,
        advance: Callable[[int], object] = lambda n: None,
    ) -> ManyFits:
        """Fit each right-hand side with nonlinear parameters of its own.

        Parameters
        ----------
        basis : ModelBasis
            ``model.at(x)``. The model's functions must take parameters of shape (G, 1) as they
            take numbers, which arithmetic of numpy does.
        targets : array of shape (n, K)
        start : array of shape (P,) or (K, P)
        weights, sigma : array of shape (n,) or (n, K), optional
        bounds : (lower, upper) or dict of pairs, optional
        advance : callable
            Told the number of fits done.

        Returns
        -------
        ManyFits

        Raises
        ------
        ValueError
            As `fit`; and for another solver than Levenberg–Marquardt, a ridge or a robust loss.
        TypeError
            If the basis isn't a model at its ``x``.
        """
        if self.ridge > 0 or self.loss != "linear" or self.squash:
            raise ValueError("fit_each takes no ridge, no robust loss and no squash")
        return fit_each(
            basis,
            targets,
            start,
            self._solver(),
            jacobian=self.jacobian,
            rcond=self.rcond,
            weights=weights,
            sigma=sigma,
            bounds=bounds,
            advance=advance,
        )

    def fit_multistart(
        self,
        basis: Any,
        targets: Any,
        start: Any,
        *,
        starts: Any = None,
        n_starts: int = 20,
        seed: int = 42,
        scale: str = "linear",
        rtol: float = 1e-6,
        advance: Callable[[int], object] = lambda n: None,
        **options: Any,
    ) -> Multistart:
        """Fit from many starts, and report the minima found.

        Parameters
        ----------
        basis, targets, start
            As in `fit`; `start` is the first of the starts.
        starts : array of shape (n, P), optional
            The others, in which fixed parameters stay as in `start`. Default: drawn within the
            bounds.
        n_starts : int
            How many are drawn, by a Latin hypercube.
        seed : int
        scale : {"linear", "log"}
            Whether they are spread uniformly or in their logarithms.
        rtol : float
            Relative difference under which two objectives are one minimum.
        advance : callable
            Told the number of fits done.
        **options
            Weights, bounds and the rest of `fit`.

        Returns
        -------
        Multistart

        Raises
        ------
        ValueError
            As `fit`; if starts are to be drawn for a parameter without bounds; or if `starts` are
            outside the bounds or change a fixed parameter.
        """
        if self.squash:
            raise ValueError("fit_multistart takes no squash; fit from each start")
        spec = self.specify(basis, targets, start, **options)
        if starts is None:
            more = draw_starts(spec, n_starts, seed, scale)
        else:
            more = given_starts(spec.space, starts)
        every = np.vstack([spec.space.start, more])
        return multistart(spec, every, rtol, advance)

    def specify(self, basis: Any, targets: Any, start: Any, **options: Any) -> Specification:
        """What `fit` would do, checked and as data; its arguments."""
        data, names = data_sets(basis, targets, start, options)
        space = parameter_space(
            names, start, options.get("bounds"), options.get("fixed", ()), options.get("tied")
        )
        return Specification(
            data=data,
            space=space,
            solver=self._solver(),
            jacobian=self.jacobian,
            ridge=self.ridge,
            rcond=self.rcond,
            loss=self.loss,
            f_scale=float(self.f_scale),
            absolute_sigma=bool(options.get("absolute_sigma", False)),
            several=isinstance(basis, (list, tuple)),
        )

    def _solver(self) -> Solver:
        if isinstance(self.solver, str):
            return make_solver(
                self.solver,
                max_iterations=self.max_iterations,
                ftol=self.ftol,
                atol=self.atol,
            )
        if not callable(getattr(self.solver, "minimise", None)):
            raise ValueError(
                f"solver must be a name or an object with minimise(problem, start), got "
                f"{self.solver!r}"
            )
        given = [n for n in ("max_iterations", "ftol", "atol") if getattr(self, n) is not None]
        if given:
            raise ValueError(f"{', '.join(given)} must be given to the solver object itself")
        return self.solver

    def _fit_plain(self, basis: Any, targets: Any, start: Any) -> FitResult:
        """Many problems in step, numpy or torch; or one whose outputs are squashed."""
        checked_basis(basis)
        if isinstance(start, np.ndarray):
            start = start.astype(np.float64)
            targets = checked_targets(targets, batch=True)
            if not np.isfinite(start).all():
                raise ValueError("start must be finite, found NaN or infinity")
        if start.shape[-1] != n_params_of(basis):
            raise ValueError(
                f"start has {start.shape[-1]} parameters, the basis has {n_params_of(basis)}"
            )
        eps = np.finfo(getattr(basis, "dtype", np.float64)).eps
        rcond = float(targets.shape[-2] * eps) if self.rcond is None else self.rcond
        kind = SquashedProblem if self.squash else SeparableProblem
        # As `Specification` scales columns; batches are of units, which have one scale.
        alone = self.squash and self.ridge == 0 and getattr(basis, "dtype", None) is None
        problem = kind(
            basis,
            targets,
            jacobian=self.jacobian,
            ridge=self.ridge,
            rcond=rcond,
            equilibrate=alone,
        )
        outcome = self._solver().minimise(problem, start)
        final = problem.project(outcome.params)
        rank, condition = final.rank, final.condition
        if targets.ndim == 2:
            rank, condition = int(rank), float(condition)
        return FitResult(
            params=outcome.params,
            coef=final.coef,
            objective=outcome.objective if targets.ndim > 2 else float(outcome.objective),
            status=outcome.status,
            n_iterations=outcome.n_iterations,
            n_evaluations=problem.n_evaluations,
            history=outcome.history,
            rank=rank,
            condition=condition,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


__all__ = ["CurveFit", "FitResult", "VariableProjection"]
