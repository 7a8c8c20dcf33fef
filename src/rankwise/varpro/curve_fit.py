"""`curve_fit_separable`: variable projection behind the call that users of SciPy know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rankwise.varpro.curves import CurveFit
from rankwise.varpro.inputs import checked_targets
from rankwise.varpro.models import FunctionModel
from rankwise.varpro.projection import VariableProjection
from rankwise.varpro.solvers import Solver


def curve_fit_separable(
    f: Callable[..., Any],
    x: Any,
    y: Any,
    p0: Any,
    *,
    sigma: Any = None,
    absolute_sigma: bool = False,
    bounds: Any = (-np.inf, np.inf),
    linear_bounds: Any = None,
    jac: str | Callable[..., Any] = "complex-step",
    solver: str | Solver = "levenberg-marquardt",
    loss: str = "linear",
    f_scale: Any = 1.0,
    full_output: bool = False,
) -> Any:
    """Fit ``y ≈ f(x, *nonlinear) @ linear``; no start for the linear parameters is needed.

    As ``scipy.optimize.curve_fit``, for models that are linear in some of their parameters.

    Parameters
    ----------
    f : callable
        ``f(x, *nonlinear)`` gives the columns that the linear parameters multiply: an array
        ``(n, m)``, one column ``(n,)``, or a tuple of columns.
    x : array of shape (n,) or (n, d)
    y : array of shape (n,)
    p0 : array of shape (P,)
        Start of the nonlinear parameters.
    sigma : array of shape (n,) or (n, n), optional
        Standard deviations of ``y``, or their covariance.
    absolute_sigma : bool, default=False
        Whether `sigma` is in the unit of ``y``, or only relative.
    bounds : (lower, upper)
        On the nonlinear parameters.
    linear_bounds : (lower, upper), optional
        On the linear ones, ``(0, np.inf)`` to keep them from being negative.
    jac : str or callable, default="complex-step"
        Derivatives of the columns, see `FunctionModel`.
    solver, loss, f_scale
        As in `VariableProjection`.
    full_output : bool, default=False
        Whether the `CurveFit` is returned as well.

    Returns
    -------
    popt : array of shape (P + m,)
        Nonlinear parameters first, then the linear ones.
    pcov : array of shape (P + m, P + m)
        Their covariance; 0 for those at a bound, infinite where the data don't determine it.
    fit : CurveFit
        Only with `full_output`.

    Raises
    ------
    ValueError
        If an argument can't be used; as `VariableProjection.fit`.
    RuntimeError
        If the fit didn't converge, as in SciPy.

    Examples
    --------
    >>> import numpy as np
    >>> from rankwise import curve_fit_separable
    >>> x = np.linspace(0, 4, 50)
    >>> y = 2.5 * np.exp(-1.3 * x) + 0.5
    >>> popt, pcov = curve_fit_separable(lambda x, k: (np.exp(-k * x), 1.0), x, y, [1.0])
    >>> popt.round(6).tolist()
    [1.3, 2.5, 0.5]
    """
    targets = checked_targets(y, name="y")
    if targets.shape[1] != 1:
        raise ValueError(
            f"y must have shape (n,), got {np.shape(y)}; VariableProjection fits many right-hand "
            "sides"
        )
    start = np.atleast_1d(np.asarray(p0))
    model = _model(f, jac, len(start) if start.ndim == 1 else 0)
    weighting: dict[str, Any] = {"sigma": sigma}
    if sigma is not None and np.ndim(sigma) == 2:
        weighting = {"covariance": sigma}
    fit = VariableProjection(solver, loss=loss, f_scale=f_scale).fit(
        model.at(x),
        targets,
        start,
        absolute_sigma=absolute_sigma,
        bounds=bounds,
        linear_bounds=linear_bounds,
        **weighting,
    )
    assert isinstance(fit, CurveFit)
    if not fit.converged:
        raise RuntimeError(
            f"the fit ended as {fit.status} after {fit.n_iterations} iterations; try another start "
            "or solver"
        )
    popt = np.concatenate([fit.params, fit.coef[:, 0]])
    pcov = fit.covariance()
    return (popt, pcov, fit) if full_output else (popt, pcov)


def _model(f: Any, jac: Any, n: int) -> FunctionModel:
    """With names from the function or, where it takes ``*args``, made up."""
    try:
        return FunctionModel(f, derivatives=jac)
    except ValueError as error:
        if "parameters=" not in str(error):
            raise
        return FunctionModel(f, [f"p{i}" for i in range(n)], derivatives=jac)
