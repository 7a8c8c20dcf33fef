"""`SeparableRegressor`: scikit-learn's face of fits of curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from rankwise.varpro.curves import CurveFit
from rankwise.varpro.models import FunctionModel
from rankwise.varpro.projection import VariableProjection


class SeparableRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A separable model as a scikit-learn regressor.

    Parameters
    ----------
    function : callable
        ``f(x, *nonlinear)`` gives the columns, as in `FunctionModel`; ``x`` is ``X[:, 0]`` where
        there is one feature, else ``X``.
    start : array of shape (P,)
        Of the nonlinear parameters.
    bounds, linear_bounds : (lower, upper), optional
        As in `VariableProjection.fit`.
    derivatives : str or callable, default="complex-step"
        As in `FunctionModel`.
    solver, ridge, loss, f_scale
        As in `VariableProjection`.
    max_iterations : int, optional
        Default: the solver's own.

    Attributes
    ----------
    fit_ : CurveFit
        With standard errors, bands and the rest.
    params_ : array of shape (P,)
    coef_ : array of shape (m,) or (m, K)
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from rankwise import SeparableRegressor
    >>> X = np.linspace(0, 4, 50)[:, None]
    >>> y = 2.5 * np.exp(-1.3 * X[:, 0]) + 0.5
    >>> model = SeparableRegressor(lambda x, k: (np.exp(-k * x), 1.0), [1.0]).fit(X, y)
    >>> model.params_.round(6).tolist(), model.coef_.round(6).tolist()
    ([1.3], [2.5, 0.5])
    """

    def __init__(
        self,
        function: Any,
        start: Any,
        *,
        bounds: Any = None,
        linear_bounds: Any = None,
        derivatives: Any = "complex-step",
        solver: Any = "levenberg-marquardt",
        ridge: Any = 0.0,
        loss: Any = "linear",
        f_scale: Any = 1.0,
        max_iterations: Any = None,
    ) -> None:
        self.function = function
        self.start = start
        self.bounds = bounds
        self.linear_bounds = linear_bounds
        self.derivatives = derivatives
        self.solver = solver
        self.ridge = ridge
        self.loss = loss
        self.f_scale = f_scale
        self.max_iterations = max_iterations

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SeparableRegressor:
        """Fit, and return itself.

        Parameters
        ----------
        X : array of shape (n, d)
        y : array of shape (n,) or (n, K)
        sample_weight : array of shape (n,), optional
            Of squared residuals.

        Raises
        ------
        ValueError
            As `VariableProjection.fit`; and if the fit can't be evaluated at the start.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        projection = VariableProjection(
            self.solver,
            ridge=self.ridge,
            loss=self.loss,
            f_scale=self.f_scale,
            max_iterations=self.max_iterations,
        )
        names = [f"p{i}" for i in range(np.size(self.start))]
        model = FunctionModel(self.function, names, self.derivatives)
        fit = projection.fit(
            model.at(_as_x(X)),
            y,
            np.atleast_1d(np.asarray(self.start, dtype=np.float64)),
            weights=sample_weight,
            bounds=self.bounds,
            linear_bounds=self.linear_bounds,
        )
        if fit.status == "non-finite":
            raise ValueError("the model isn't finite at the start; pass another start")
        assert isinstance(fit, CurveFit)  # a single fit is one
        self.fit_ = fit
        self.params_ = fit.params
        self.coef_ = fit.coef[:, 0] if y.ndim == 1 else fit.coef
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Fitted values, shape (n,) or (n, K) as ``y`` had."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        found = self.fit_.predict(_as_x(X))
        return found[:, 0] if self.coef_.ndim == 1 else found


def _as_x(X: np.ndarray) -> np.ndarray:
    return X[:, 0] if X.shape[1] == 1 else X
