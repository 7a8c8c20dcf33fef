"""Models of curves: columns as functions of ``x`` and named nonlinear parameters.

Two ways to say one. `FunctionModel` takes a plain function ``f(x, *parameters)`` that gives all
columns. `SeparableModel` is built term by term, so that it knows which function depends on which
parameters, and refuses what can't be right before anything runs. ``model.at(x)`` is the basis that
`VariableProjection` fits; a fit of it can predict at other ``x``.

Derivatives come from the caller, from complex steps (exact to rounding, for functions that are
analytic), from ``torch.func``, or from central differences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

DERIVATIVES = ("complex-step", "finite-differences", "torch")
_STEP = 1e-20
_CENTRAL = float(np.finfo(float).eps ** (1 / 3))


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
        return _central(lambda p: self.model.columns(self.x, p), params, factor)


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

            values = self._in_torch(torch.as_tensor(x), torch.as_tensor(np.asarray(params)))
            return values.detach().numpy().astype(np.float64)
        return stack_columns(self.function(x, *_apart(params)), len(x), np.ndim(params) == 2)

    def derivatives_of_pairs(self, x: Any, params: Any) -> np.ndarray:
        """``D``, shape ``(…, n, P·m)``."""
        params = np.asarray(params, dtype=np.float64)
        batch = params.ndim == 2
        if self.derivatives == "complex-step":
            return side_by_side(
                [
                    _complex_step(
                        lambda *p: stack_columns(self.function(x, *p), len(x), batch, complex),
                        _apart(params),
                        i,
                    )
                    for i in range(len(self.names))
                ]
            )
        if self.derivatives == "finite-differences":
            d = _central(lambda p: self.columns(x, p), params)
            return np.concatenate(np.moveaxis(d, -1, 0), axis=-1)
        if self.derivatives == "torch":
            return self._torch_derivatives(x, params)
        assert callable(self.derivatives)
        given = self.derivatives(x, *_apart(params))
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
        values = _apart(params)
        given = tuple(t.function(x, *self._own(t, values)) for t in self.terms)
        return stack_columns(given, len(x), np.ndim(params) == 2)

    def derivatives_of_pairs(self, x: Any, params: Any) -> np.ndarray:
        """``D``, shape ``(…, n, Q)``."""
        params = np.asarray(params, dtype=np.float64)
        batch, values = params.ndim == 2, _apart(params)
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

                found[..., q, :] = _complex_step(column, own, i)[..., 0]
                q += 1
        return found.swapaxes(-1, -2)

    def _own(self, term: Term, values: list[Any]) -> list[Any]:
        return [values[self.names.index(name)] for name in term.parameters]


def arguments_after_x(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's positional arguments after the first."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ValueError("the function's arguments can't be read; pass parameters=[…]") from error
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if any(a.kind not in kinds for a in arguments) or not arguments:
        raise ValueError(
            "the function must have the arguments (x, *parameters) with a name for each parameter, "
            "or pass their names as parameters=[…]"
        )
    return tuple(a.name for a in arguments[1:])


def checked_names(names: Any) -> tuple[str, ...]:
    """Names of parameters: text, each once."""
    if isinstance(names, str):
        raise ValueError(f"parameters must be a list of names, got the text {names!r}")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"parameters must be names such as 'rate', got {name!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"parameters must have different names, twice: {', '.join(twice)}")
    return names


def stack_columns(given: Any, n: int, batch: bool = False, dtype: type = float) -> np.ndarray:
    """Columns as a function gave them, as one array of shape (…, n, m).

    Parameters
    ----------
    given : tuple or list of arrays, or array of shape (n, m) or (n,)
    n : int
        Rows.
    batch : bool
        Whether each column may have a leading axis.
    dtype : {float, complex}
    """
    if isinstance(given, (tuple, list)):
        columns = [np.asarray(c) for c in given]
        if batch:
            size = max((c.shape[0] for c in columns if c.ndim == 2), default=1)
            shape: tuple[int, ...] = (size, n)
        else:
            shape = (n,)
        # One column after another in memory: numpy's loops run along rows then.
        found: np.ndarray = np.empty((*shape[:-1], len(columns), n), dtype=dtype)
        for j, c in enumerate(columns):
            put_column(found, j, c, n)
        return found.swapaxes(-1, -2)
    array = np.asarray(given)
    _refuse(array, dtype)
    if batch:
        raise ValueError(
            "many fits at once need a model whose function gives a tuple of columns, one function "
            "of x and the parameters each, not an array (n, m)"
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != n:
        raise ValueError(
            f"the model must give columns of shape ({n}, m), one row for each x, got shape "
            f"{array.shape}"
        )
    return array.astype(dtype)


def side_by_side(parts: list[np.ndarray]) -> np.ndarray:
    """Columns (…, n, m) joined, one after another in memory."""
    return np.concatenate([p.swapaxes(-1, -2) for p in parts], axis=-2).swapaxes(-1, -2)


def put_column(found: np.ndarray, j: int, column: Any, n: int) -> None:
    """Write a column into row ``j`` of an array (…, m, n)."""
    column = np.asarray(column)
    _refuse(column, complex if found.dtype.kind == "c" else float)
    try:
        found[..., j, :] = column
    except ValueError:
        raise ValueError(
            f"the model's columns must each have {n} rows, as x has, got shape {column.shape}"
        ) from None


def _refuse(column: np.ndarray, dtype: type) -> None:
    if column.dtype.kind == "c" and dtype is float:
        raise ValueError(
            "the model gave complex numbers, and fits are real; stack real and imaginary parts "
            "as rows of one real problem"
        )
    if column.dtype.kind not in "biufc":
        raise ValueError(f"the model must give numbers, got {column.dtype}")


def _apart(params: Any) -> list[Any]:
    """One value a parameter; of a batch, one column (G, 1) each, which broadcasts against x."""
    params = np.asarray(params)
    if params.ndim == 2:
        return [params[:, i : i + 1] for i in range(params.shape[1])]
    return list(params)


def _complex_step(function: Callable[..., np.ndarray], values: list[Any], i: int) -> np.ndarray:
    """``Im f(θ + i·h·e_i)/h``, with a step relative to the parameter."""
    size = np.abs(values[i])
    h = _STEP * np.where(size > 0, size, 1.0)
    shifted = list(values)
    shifted[i] = values[i] + 1j * h
    try:
        d = function(*shifted)
    except TypeError as error:
        raise ValueError(
            f"the model can't be evaluated at complex parameters ({error}); pass "
            "derivatives='finite-differences', 'torch' or your own"
        ) from error
    return d.imag / (h[..., None] if np.ndim(h) else h)


def _central(
    function: Callable[[np.ndarray], np.ndarray], params: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """Central differences, shape ``(…, n, m, P)``."""
    parts = []
    for i in range(params.shape[-1]):
        size = np.abs(params[..., i])
        h = factor * _CENTRAL * np.where(size > 0, size, 1.0)
        up, down = params.copy(), params.copy()
        up[..., i] += h
        down[..., i] -= h
        width = (up[..., i] - down[..., i])[..., None, None]
        parts.append((function(up) - function(down)) / width)
    return np.stack(parts, axis=-1)
