"""What `VariableProjection` is given, checked: one sentence for everything that can't be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rankwise.varpro.magnitude import checked_squares
from rankwise.varpro.model_basis import ModelBasis
from rankwise.varpro.parameters import real_vector
from rankwise.varpro.problem import checked_indices, n_params_of
from rankwise.varpro.specification import DataSet

_PER_DATA_SET = ("weights", "sigma", "covariance", "linear_bounds")


def checked_basis(basis: Any) -> None:
    """Refuse what isn't a basis."""
    missing = [
        name
        for name in ("features", "derivative_blocks", "owner")
        if isinstance(basis, type) or not (hasattr(type(basis), name) or hasattr(basis, name))
    ]
    if missing:
        hint = "; call .at(x) of the model" if hasattr(basis, "at") else ""
        raise TypeError(
            "basis must have features, derivative_blocks and owner, as model.at(x), FunctionBasis "
            f"and UnitBasis have{hint}; got {type(basis).__name__}"
        )


def checked_targets(targets: Any, *, batch: bool = False, name: str = "targets") -> np.ndarray:
    """Finite real targets, of shape (n, K) or, in a batch, (G, n, K)."""
    try:
        array = targets if isinstance(targets, np.ndarray) else np.asarray(targets)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind == "c":
        raise ValueError(
            f"{name} are complex, and fits are real; stack real and imaginary parts as rows of one "
            "real problem"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, got {type(targets).__name__}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim not in ((2, 3) if batch else (2,)) or 0 in array.shape:
        raise ValueError(
            f"{name} must have shape (n,) or (n, K), at least one row and one column, got "
            f"{array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, found NaN or infinity")
    return array


def data_sets(
    basis: Any, targets: Any, start: Any, options: Mapping[str, Any]
) -> tuple[tuple[DataSet, ...], tuple[str, ...]]:
    """Data sets, and the names of all nonlinear parameters in the order of their appearance."""
    several = isinstance(basis, (list, tuple))
    bases = list(basis) if several else [basis]
    for b in bases:
        checked_basis(b)
    if several:
        if not bases:
            raise ValueError("a list of data sets must have at least one")
        if not isinstance(targets, (list, tuple)) or len(targets) != len(bases):
            raise ValueError(
                f"{len(bases)} bases need a list of {len(bases)} targets, got "
                f"{len(targets) if isinstance(targets, (list, tuple)) else type(targets).__name__}"
            )
    each: list[dict[str, Any]] = [{} for _ in bases]
    for name in _PER_DATA_SET:
        value = options.get(name)
        if value is None:
            continue
        if several and (not isinstance(value, (list, tuple)) or len(value) != len(bases)):
            raise ValueError(f"{name} must be a list of {len(bases)}, one for each data set")
        for own, part in zip(each, value if several else [value], strict=True):
            own[name] = part
    names = [_names(b) for b in bases]
    order = tuple(dict.fromkeys(n for own in names for n in own))
    first = _first_values(order, start)
    found = []
    for b, its, t, extra in zip(bases, names, targets if several else [targets], each, strict=True):
        place = np.array([order.index(n) for n in its], dtype=int)
        found.append(_data_set(b, its, place, first[place], t, extra))
    return tuple(found), order


def _names(basis: Any) -> tuple[str, ...]:
    if getattr(basis, "names", None) is not None:
        return tuple(basis.names)
    if isinstance(basis.owner, np.ndarray) and basis.owner.ndim == 1:
        return tuple(f"p{i}" for i in range(n_params_of(basis)))
    checked_indices("owner", basis.owner)
    return tuple(f"p{i}" for i in range(n_params_of(basis)))


def _first_values(names: tuple[str, ...], start: Any) -> np.ndarray:
    """Values to look at the columns with; `parameter_space` checks the start itself."""
    if isinstance(start, Mapping):
        return np.array([_number(start.get(n, 1.0)) for n in names])
    values = real_vector("start", start)
    if len(values) != len(names):
        raise ValueError(f"start has {len(values)} parameters, the basis has {len(names)}")
    return values


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float, np.number)) else 1.0


def _data_set(
    basis: Any,
    names: tuple[str, ...],
    place: np.ndarray,
    params: np.ndarray,
    targets: Any,
    options: dict[str, Any],
) -> DataSet:
    targets = np.array(checked_targets(targets))  # the fit's own: the caller may change theirs
    n, k = targets.shape
    if isinstance(basis, ModelBasis):
        with np.errstate(all="ignore"):
            basis.prepare(params)
    phi = basis.features(params)
    if phi.shape[-2] != n:
        raise ValueError(f"targets have {n} rows, the basis has {phi.shape[-2]}")
    m = phi.shape[-1]
    owner = checked_indices("owner", basis.owner)
    if len(owner) and owner.max() >= m:
        raise ValueError(
            f"owner names column {owner.max()}, and the basis has columns 0 to {m - 1}"
        )
    roots, whitened = checked_roots(n, k, options)
    checked_squares(targets, roots, whitened)
    bounds = options.get("linear_bounds")
    if bounds is not None:
        bounds = _linear_bounds(bounds, m, k)
    return DataSet(basis, targets, roots, bounds, place, names, m, whitened)


def checked_roots(n: int, k: int, options: Mapping[str, Any]) -> tuple[np.ndarray | None, bool]:
    """Roots of weights, from weights, sigmas or a covariance; and whether from a covariance."""
    given = [o for o in ("weights", "sigma", "covariance") if options.get(o) is not None]
    if not given:
        return None, False
    if len(given) > 1:
        raise ValueError(f"give one of weights, sigma and covariance, not {' and '.join(given)}")
    (name,) = given
    value = options[name]
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be real numbers, got {type(value).__name__}") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, found NaN or infinity")
    if name == "covariance":
        if array.shape != (n, n):
            raise ValueError(f"covariance must have shape ({n}, {n}), got {array.shape}")
        if not np.allclose(array, array.T, rtol=1e-8, atol=1e-12 * np.abs(array).max()):
            raise ValueError("covariance must be symmetric")
        try:
            return np.linalg.cholesky(array), True
        except np.linalg.LinAlgError:
            raise ValueError("covariance must be positive definite") from None
    if array.shape not in ((n,), (n, 1), (n, k)):
        raise ValueError(f"{name} must have shape ({n},) or ({n}, {k}), got {array.shape}")
    if array.ndim == 2 and (k == 1 or array.shape[-1] == 1):
        array = array[:, 0]
    if name == "sigma":
        if not (array > 0).all():
            raise ValueError("sigma must be above 0")
        return 1.0 / array, False
    if not (array >= 0).all() or not (array > 0).any():
        raise ValueError("weights must be at least 0, and not all zero")
    return np.sqrt(array), False


def _linear_bounds(bounds: Any, m: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    accepted = (
        f"linear_bounds must be (lower, upper), each a number or an array of shape ({m},) or "
        f"({m}, {k})"
    )
    try:
        lower, upper = bounds
        sides = []
        for side in (lower, upper):
            side = np.asarray(side, dtype=np.float64)
            side = side[:, None] if side.ndim == 1 else side
            sides.append(np.array(np.broadcast_to(side, (m, k))))
    except (TypeError, ValueError):
        raise ValueError(f"{accepted}; got {bounds!r}") from None
    lower, upper = sides
    if not (lower <= upper).all():
        raise ValueError("a lower linear bound is above its upper one, or isn't a number")
    return lower, upper
