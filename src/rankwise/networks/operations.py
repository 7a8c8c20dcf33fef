"""The operations of a `Graph`: what each computes, the shapes it takes, the weights it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from rankwise.units.activations import ACTIVATIONS

GRAPH_ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        **{name: activation.value for name, activation in ACTIVATIONS.items()},
        "identity": lambda x: x,
    }
)
"""Activations that every export knows: those of units, and none. Nothing can be added: an export
would have no word for it."""


def _pair(value: int | tuple[int, int], name: str, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{name} must be one or two numbers of at least {least}, got {value}")
    return pair


@dataclass(frozen=True, eq=False)
class ToMaps:
    """Images ``(n, H, W)`` or ``(n, H, W, C)`` as maps ``(n, C, H, W)``."""


@dataclass(frozen=True, eq=False)
class Flatten:
    """Maps or images as features ``(n, d)``, in the order of memory (channels, rows, columns)."""


@dataclass(frozen=True, eq=False)
class Square:
    """``x²``, of each value."""


@dataclass(frozen=True, eq=False)
class Activate:
    """``σ(x)``, of each value; `name` is one of `GRAPH_ACTIVATIONS`."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in GRAPH_ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.name!r}; accepted: {', '.join(GRAPH_ACTIVATIONS)}"
            )


@dataclass(frozen=True, eq=False)
class Convolve:
    """Cross-correlation of maps, as `torch.nn.functional.conv2d`.

    Parameters
    ----------
    weight : array of shape (O, I / groups, kh, kw)
    bias : array of shape (O,)
    stride, padding : int or (int, int)
        Along the rows and the columns; the padding is of zeros, on both sides.
    groups : int
    """

    weight: Float[np.ndarray, "O I kh kw"]
    bias: Float[np.ndarray, " O"]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", _pair(self.stride, "stride", 1))
        object.__setattr__(self, "padding", _pair(self.padding, "padding", 0))
        if self.groups < 1 or len(self.weight) % self.groups:
            raise ValueError(
                f"groups must divide the {len(self.weight)} output channels, got {self.groups}"
            )


@dataclass(frozen=True, eq=False)
class ConvolveForms:
    """`Convolve` with filters that are sums of rank-one forms, stored as their vectors.

    ``W_ocyx = Σ_ρ a_oρc · u_oρy · v_oρx``: for 64 channels and 5×5 pixels 74 numbers instead of
    1600 a filter.

    Parameters
    ----------
    channel, row, column : arrays of shape (O, r, I), (O, r, kh), (O, r, kw)
    bias : array of shape (O,)
    stride, padding : int or (int, int)
        As in `Convolve`.
    """

    channel: Float[np.ndarray, "O r I"]
    row: Float[np.ndarray, "O r kh"]
    column: Float[np.ndarray, "O r kw"]
    bias: Float[np.ndarray, " O"]
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", _pair(self.stride, "stride", 1))
        object.__setattr__(self, "padding", _pair(self.padding, "padding", 0))

    def composed(self) -> Convolve:
        """The same with filters multiplied out."""
        weight = np.einsum("orc,ory,orx->ocyx", self.channel, self.row, self.column)
        return Convolve(weight, self.bias, self.stride, self.padding)


@dataclass(frozen=True, eq=False)
class Pool:
    """Mean or maximum over rectangles of maps; what doesn't fill a rectangle is left out.

    Parameters
    ----------
    kind : {"mean", "max"}
    size : int or (int, int)
    stride : int or (int, int), optional
        Default `size`.
    """

    kind: str
    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("mean", "max"):
            raise ValueError(f"unknown pooling {self.kind!r}; accepted: mean, max")
        object.__setattr__(self, "size", _pair(self.size, "size", 1))
        stride = self.size if self.stride is None else self.stride
        object.__setattr__(self, "stride", _pair(stride, "stride", 1))


@dataclass(frozen=True, eq=False)
class Dense:
    """Features times ``weight (in, out)``, plus ``bias (out,)``."""

    weight: Float[np.ndarray, "i o"]
    bias: Float[np.ndarray, " o"]


@dataclass(frozen=True, eq=False)
class Affine:
    """``scale·x + shift``, one number a channel of maps, or one a feature."""

    scale: Float[np.ndarray, " C"]
    shift: Float[np.ndarray, " C"]


@dataclass(frozen=True, eq=False)
class RankOneForms:
    """``q_i = Σ_ρ ⟨X, v₁^ρi ⊗ … ⊗ v_d^ρi⟩ + b_i`` for images of d axes.

    Parameters
    ----------
    factors : tuple of arrays (r, n_units, side)
        One an axis of the image. Axes that share their vectors hold the *same* array, which is
        stored once. A vector is zero outside its unit's window; exports skip what is zero.
    bias : array of shape (n_units,)
    """

    factors: tuple[Float[np.ndarray, "r u _"], ...]
    bias: Float[np.ndarray, " u"]

    @property
    def distinct(self) -> list[np.ndarray]:
        """The arrays of the factors, shared ones once."""
        return list({id(f): f for f in self.factors}.values())

    @property
    def vector_of_axis(self) -> tuple[int, ...]:
        """Position in `distinct` of each axis's factor."""
        position = {id(f): j for j, f in enumerate(self.distinct)}
        return tuple(position[id(f)] for f in self.factors)


@dataclass(frozen=True, eq=False)
class Multiply:
    """The product, value by value, of what two branches make of the same input.

    A bilinear convolution ``(u * X)·(v * X)`` is ``Multiply((Convolve(u),), (Convolve(v),))``; a
    sum over ranks behind it is a grouped 1×1 `Convolve`.
    """

    left: tuple[Op, ...]
    right: tuple[Op, ...]


@dataclass(frozen=True, eq=False)
class Add:
    """The sum, value by value, of what two branches make of the same input; none is the input.

    A residual connection is ``Add((…,), ())``.
    """

    left: tuple[Op, ...]
    right: tuple[Op, ...]


@dataclass(frozen=True, eq=False)
class Concatenate:
    """What branches make of the same input side by side, along the channels or features."""

    branches: tuple[tuple[Op, ...], ...]


Op = (
    ToMaps
    | Flatten
    | Square
    | Activate
    | Convolve
    | ConvolveForms
    | Pool
    | Dense
    | Affine
    | RankOneForms
    | Multiply
    | Add
    | Concatenate
)


def check_known(ops: Sequence[Any]) -> None:
    """Refuse what an export has no word for, before it is written as something else.

    Raises
    ------
    ValueError
        If an operation, also one inside a branch, is of another class than those of `Op` (one that
        inherits from them may compute something else), or holds a choice that isn't accepted.
    """
    for op in ops:
        if type(op) not in get_args(Op):
            known = ", ".join(kind.__name__ for kind in get_args(Op))
            raise ValueError(f"unknown operation {type(op).__name__!r}; accepted: {known}")
        getattr(op, "__post_init__", lambda: None)()
        for branch in branches_of(op):
            check_known(branch)


def branches_of(op: Any) -> tuple[Any, ...]:
    """The branches of an operation that has some."""
    if isinstance(op, (Multiply, Add)):
        return (op.left, op.right)
    return op.branches if isinstance(op, Concatenate) else ()


# -- shapes and weights -----------------------------------------------------------------------


def output_shape(ops: Sequence[Op], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that a batch's rows have behind `ops`, if they have `shape` before."""
    for op in ops:
        shape = shape_after(op, shape)
    return shape


def shape_after(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a row behind one operation."""
    name = type(op).__name__
    match op:
        case ToMaps():
            _require(len(shape) in (2, 3), name, "images (H, W) or (H, W, C)", shape)
            return (1, *shape) if len(shape) == 2 else (shape[2], *shape[:2])
        case Flatten():
            return (prod(shape),)
        case Activate() | Square():
            return shape
        case Convolve(weight=w):
            channels = w.shape[1] * op.groups
            _require(len(shape) == 3 and shape[0] == channels, name, f"{channels} maps", shape)
            return (len(w), *_slid(shape, w.shape[2:], op.stride, op.padding, name))
        case ConvolveForms():
            return shape_after(op.composed(), shape)
        case Pool():
            _require(len(shape) == 3, name, "maps (C, H, W)", shape)
            return (shape[0], *_slid(shape, op.size, op.stride, (0, 0), name))
        case Dense(weight=w):
            _require(shape == (len(w),), name, f"{len(w)} features", shape)
            return (w.shape[1],)
        case Affine(scale=scale):
            _require(shape[0] == len(scale), name, f"{len(scale)} channels", shape)
            return shape
        case RankOneForms(factors=factors):
            sides = tuple(f.shape[2] for f in factors)
            _require(shape == sides, name, f"images of shape {sides}", shape)
            return (len(op.bias),)
        case Multiply() | Add():
            left, right = output_shape(op.left, shape), output_shape(op.right, shape)
            _require(left == right, name, f"branches of one shape: one gives {left}", right)
            return left
        case Concatenate(branches=branches):
            shapes = [output_shape(branch, shape) for branch in branches]
            rest = shapes[0][1:]
            _require(all(s[1:] == rest for s in shapes), name, "branches of one size", shapes)
            return (sum(s[0] for s in shapes), *rest)


def _slid(shape: Any, size: Any, stride: Any, padding: Any, name: str) -> tuple[int, int]:
    """Rows and columns of places that a rectangle takes on maps."""
    sides = [
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip(shape[1:], size, stride, padding, strict=True)
    ]
    _require(min(sides) >= 1, name, f"maps of at least {size[0]}×{size[1]}", shape)
    return sides[0], sides[1]


def _require(fits: bool, name: str, wanted: str, shape: Any) -> None:
    if not fits:
        raise ValueError(f"{name} takes {wanted}, but its input has shape {shape}")


def map_weights(ops: Sequence[Op], change: Callable[[np.ndarray, Any], np.ndarray]) -> tuple:
    """The same operations with each large weight array `w` replaced by ``change(w, axes)``.

    Parameters
    ----------
    ops : sequence of operations
    change : callable
        Called once for each array, shared ones too. `axes` are those along which a weight may
        have scales of its own: output channels of `Convolve`, columns of `Dense`, vectors of
        `RankOneForms` and `ConvolveForms`. Biases, and the numbers of `Affine`, stay.
    """
    done: dict[int, np.ndarray] = {}

    def once(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        if id(array) not in done:
            done[id(array)] = change(array, axes)
        return done[id(array)]

    def one(op: Op) -> Op:
        match op:
            case Convolve():
                return Convolve(once(op.weight, (0,)), op.bias, op.stride, op.padding, op.groups)
            case ConvolveForms():
                channel, row, column = (once(v, (0, 1)) for v in (op.channel, op.row, op.column))
                return ConvolveForms(channel, row, column, op.bias, op.stride, op.padding)
            case Dense():
                return Dense(once(op.weight, (1,)), op.bias)
            case RankOneForms():
                return RankOneForms(tuple(once(f, (0, 1)) for f in op.factors), op.bias)
            case Multiply():
                return Multiply(tuple(map(one, op.left)), tuple(map(one, op.right)))
            case Add():
                return Add(tuple(map(one, op.left)), tuple(map(one, op.right)))
            case Concatenate():
                return Concatenate(tuple(tuple(map(one, b)) for b in op.branches))
            case _:
                return op

    return tuple(one(op) for op in ops)


def arrays_of(ops: Iterable[Op]) -> list[np.ndarray]:
    """All arrays of numbers of `ops`, shared ones once."""
    found: dict[int, np.ndarray] = {}

    def visit(op: Op) -> None:
        for branch in branches_of(op):
            for inner in branch:
                visit(inner)
        values = [*op.factors, op.bias] if isinstance(op, RankOneForms) else vars(op).values()
        found.update({id(a): a for a in values if isinstance(a, np.ndarray)})

    for op in ops:
        visit(op)
    return list(found.values())
