"""Models of curves: columns as functions of ``x`` and named nonlinear parameters.

Two ways to say one. `FunctionModel` takes a plain function ``f(x, *parameters)`` that gives all
columns. `SeparableModel` is built term by term, so that it knows which function depends on which
parameters, and refuses what can't be right before anything runs. ``model.at(x)`` is the basis that
`VariableProjection` fits; a fit of it can predict at other ``x``.

Derivatives come from the caller, from complex steps (exact to rounding, for functions that are
analytic), from ``torch.func``, or from central differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rankwise.varpro.columns import (
    arguments_after_x,
    central_differences,
    checked_names,
    complex_step,
    one_each,
    put_column,
    side_by_side,
    stack_columns,
)
from rankwise.varpro.model_basis import ModelBasis

DERIVATIVES = ("complex-step", "finite-differences", "torch")


@dataclass(frozen=True)
class FunctionModel:
    """A model from a plain function of ``x`` and the nonlinear parameters.

    Parameters
    ----------
    function : callable
        ``f(x, *parameters)`` gives the columns: an array ``(n, m)``, one column ``(n,)``, or a
        tuple or list of columns, each of which broadcasts to ``(n,)``.
    parameters : sequence of str, optional
        Their names; by default those of the function's arguments after the first.
    derivatives : str or callable, default="complex-step"
        ``"complex-step"``: ``Im f(θ + ih)/h``, exact to rounding; held against finite differences
        once at the start of a fit, and refused where they differ. ``"torch"``: the function is
        written in torch, and ``torch.func.jacfwd`` differentiates it. ``"finite-differences"``:
        central ones. Or a function of the same arguments that gives, for each parameter, the
        derivative of all columns, each as the function gives the columns.

    Raises
    ------
    TypeError
        If the function can't be called.
    ValueError
        If its parameters can't be told, or the derivatives aren't one of the above.

    Examples
    --------
    >>> import numpy as np
    >>> from rankwise.varpro import FunctionModel
    >>> model = FunctionModel(lambda x, k1, k2: (np.exp(-k1 * x), np.exp(-k2 * x), 1.0))
    >>> model.names
    ('k1', 'k2')
    """

    # What callers give is checked below, not by its annotation.
    function: Any
    parameters: Any = None
    derivatives: Any = "complex-step"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"a model needs a function f(x, *parameters), got {self.function!r}")
        if not callable(self.derivatives) and self.derivatives not in DERIVATIVES:
            raise ValueError(
                f"unknown derivatives {self.derivatives!r}; accepted: {', '.join(DERIVATIVES)} or "
                "a function"
            )
        names = self.parameters
        if names is None:
            names = arguments_after_x(self.function)
        object.__setattr__(self, "parameters", checked_names(names))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nonlinear parameters."""
        return tuple(self.parameters or ())

    @property
    def checks_itself(self) -> bool:
        """Whether its derivatives need no look before a fit."""
        return self.derivatives != "complex-step"

    def at(self, x: Any) -> ModelBasis:
        """The basis at given ``x``."""
        return ModelBasis(self, x)

    def pairs(self, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Every column may depend on every parameter."""
        n = len(self.names)
        return np.tile(np.arange(n_columns), n), np.repeat(np.arange(n), n_columns)

    def columns(self, x: Any, params: Any) -> np.ndarray:
        """``Φ``, shape ``(…, n, m)``."""
        if self.derivatives == "torch":
            import torch

            if np.ndim(params) == 2:  # a function in torch needn't take several at once
                return np.stack([self.columns(x, each) for each in np.asarray(params)])
            values = self._in_torch(torch.as_tensor(x), torch.as_tensor(np.asarray(params)))
            return values.detach().numpy().astype(np.float64)
        return stack_columns(self.function(x, *one_each(params)), len(x), np.ndim(params) == 2)

    def derivatives_of_pairs(self, x: Any, params: Any) -> np.ndarray:
        """``D``, shape ``(…, n, P·m)``."""
        params = np.asarray(params, dtype=np.float64)
        batch = params.ndim == 2
        if self.derivatives == "complex-step":
            return side_by_side(
                [
                    complex_step(
                        lambda *p: stack_columns(self.function(x, *p), len(x), batch, complex),
                        one_each(params),
                        i,
                    )
                    for i in range(len(self.names))
                ]
            )
        if self.derivatives == "finite-differences":
            d = central_differences(lambda p: self.columns(x, p), params)
            return np.concatenate(np.moveaxis(d, -1, 0), axis=-1)
        if self.derivatives == "torch":
            return self._torch_derivatives(x, params)
        assert callable(self.derivatives)
        given = self.derivatives(x, *one_each(params))
        if len(given) != len(self.names):
            raise ValueError(
                f"derivatives gives {len(given)} entries; it must give one for each of the "
                f"parameters {', '.join(self.names)}, each with all columns"
            )
        return side_by_side([stack_columns(d, len(x), batch) for d in given])

    def _in_torch(self, x: Any, params: Any) -> Any:
        import torch

        given = self.function(x, *params.unbind(-1))
        if isinstance(given, (tuple, list)):
            columns = [torch.as_tensor(c, dtype=torch.float64).expand(len(x)) for c in given]
            return torch.stack(columns, dim=-1)
        return given[:, None] if given.ndim == 1 else given

    def _torch_derivatives(self, x: Any, params: np.ndarray) -> np.ndarray:
        import torch

        if params.ndim == 2:
            return np.stack([self._torch_derivatives(x, each) for each in params])
        at = torch.as_tensor(x)
        d = torch.func.jacfwd(lambda p: self._in_torch(at, p))(torch.as_tensor(params))
        return np.concatenate(list(d.detach().numpy().transpose(2, 0, 1)), axis=-1)


@dataclass(frozen=True)
class Term:
    """One column of a `SeparableModel`."""

    function: Callable[..., Any]
    parameters: tuple[str, ...]
    derivatives: tuple[Callable[..., Any], ...] | None


@dataclass(frozen=True)
class SeparableModel:
    """A model built term by term; each says on which parameters it depends.

    Parameters
    ----------
    parameters : sequence of str
        Names of all nonlinear parameters, in the order of starts and results.
    terms : tuple of Term
        Filled by `term` and `constant`.

    Raises
    ------
    ValueError
        If a name isn't one or stands twice; if a term asks for a parameter that the model hasn't,
        or gives derivatives in others than its own; from `at`, if there are no terms, or a
        parameter is used by none.
    TypeError
        If a term's function or derivative can't be called.

    Examples
    --------
    Sine and cosine of one frequency, a constant:

    >>> import numpy as np
    >>> from rankwise.varpro import SeparableModel
    >>> model = (
    ...     SeparableModel(["frequency"])
    ...     .term(lambda x, frequency: np.cos(frequency * x))
    ...     .term(lambda x, frequency: np.sin(frequency * x))
    ...     .constant()
    ... )
    >>> len(model.terms)
    3
    """

    parameters: Any  # checked below
    terms: tuple[Term, ...] = ()
    checks_itself = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", checked_names(self.parameters))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nonlinear parameters."""
        return tuple(self.parameters)

    def term(
        self,
        function: Any,
        parameters: Sequence[str] | None = None,
        derivatives: Mapping[str, Any] | None = None,
    ) -> SeparableModel:
        """The model with one more column.

        Parameters
        ----------
        function : callable
            ``f(x, *parameters)`` gives the column ``(n,)``.
        parameters : sequence of str, optional
            Of the model's parameters, those that it depends on, in the order of its arguments; by
            default its arguments' names.
        derivatives : dict of callables, optional
            For each of its parameters a function of the same arguments. Without, complex steps,
            checked at the start of a fit.
        """
        if not callable(function):
            raise TypeError(f"a term needs a function f(x, *parameters), got {function!r}")
        names = checked_names(arguments_after_x(function) if parameters is None else parameters)
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(
                f"a term depends on {', '.join(unknown)}; the model's parameters are "
                f"{', '.join(self.names) or 'none'}"
            )
        own = None
        if derivatives is not None:
            if set(derivatives) != set(names):
                raise ValueError(
                    f"derivatives are given in {', '.join(derivatives) or 'none'}; the term needs "
                    f"one in each of {', '.join(names) or 'none'} and no other"
                )
            for name, d in derivatives.items():
                if not callable(d):
                    raise TypeError(f"the derivative in {name} must be a function, got {d!r}")
            own = tuple(derivatives[name] for name in names)
        return replace(self, terms=(*self.terms, Term(function, names, own)))

    def constant(self) -> SeparableModel:
        """The model with a column of ones more."""
        return self.term(lambda x: np.ones(len(x)), ())

    def at(self, x: Any) -> ModelBasis:
        """The basis at given ``x``."""
        if not self.terms:
            raise ValueError("the model has no terms; add some with .term(...)")
        used = {name for term in self.terms for name in term.parameters}
        unused = [name for name in self.names if name not in used]
        if unused:
            raise ValueError(f"no term depends on {', '.join(unused)}; leave it out")
        return ModelBasis(self, x)

    def pairs(self, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Term by term."""
        owner = [j for j, term in enumerate(self.terms) for _ in term.parameters]
        parameter = [self.names.index(name) for term in self.terms for name in term.parameters]
        return np.array(owner, dtype=int), np.array(parameter, dtype=int)

    def columns(self, x: Any, params: Any) -> np.ndarray:
        """``Φ``, shape ``(…, n, m)``."""
        values = one_each(params)
        given = tuple(t.function(x, *self._own(t, values)) for t in self.terms)
        return stack_columns(given, len(x), np.ndim(params) == 2)

    def derivatives_of_pairs(self, x: Any, params: Any) -> np.ndarray:
        """``D``, shape ``(…, n, Q)``."""
        params = np.asarray(params, dtype=np.float64)
        batch, values = params.ndim == 2, one_each(params)
        shape = (*params.shape[:-1], sum(len(t.parameters) for t in self.terms), len(x))
        found: np.ndarray = np.empty(shape)
        q = 0
        for term in self.terms:
            own = self._own(term, values)
            for i in range(len(own)):
                if term.derivatives is not None:
                    put_column(found, q, term.derivatives[i](x, *own), len(x))
                    q += 1
                    continue

                def column(*p: Any, function: Callable[..., Any] = term.function) -> np.ndarray:
                    return stack_columns((function(x, *p),), len(x), batch, complex)

                found[..., q, :] = complex_step(column, own, i)[..., 0]
                q += 1
        return found.swapaxes(-1, -2)

    def _own(self, term: Term, values: list[Any]) -> list[Any]:
        return [values[self.names.index(name)] for name in term.parameters]
