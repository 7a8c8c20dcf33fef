"""A C program in the making: its constant tables, its statements, and its scratch array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from rankwise.export.quantise import Encoded, Quantised

C_TYPES = {
    "f4": "float",
    "f2": "uint16_t",
    "i1": "int8_t",
    "u1": "uint8_t",
    "u2": "uint16_t",
    "u4": "uint32_t",
}


@dataclass(frozen=True)
class Value:
    """A value between operations: its shape for one image, and where it lies.

    `offset` counts floats of the scratch array; None is the image itself, pixels unscaled. `maps`
    says that the shape is (C, H, W): then the channels of a place lie together, row by row.
    """

    shape: tuple[int, ...]
    offset: int | None
    maps: bool = False

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Numbers from one position of an axis to the next."""
        if self.maps:
            channels, _, columns = self.shape
            return (1, columns * channels, channels)
        return tuple(prod(self.shape[a + 1 :]) for a in range(len(self.shape)))


class Program:
    """What a program consists of so far.

    Attributes
    ----------
    tables, statements : list of str
        Definitions of constant arrays; the lines of the forward pass.
    functions : dict of str to str
        Definitions of what the forward pass calls, by name, each behind those that it calls.
    activations : set of str
        Names of the activations that need a function.
    uses_half : bool
        Whether a table holds float16.
    flash_bytes, n_numbers : int
        Bytes of all tables, and how many weights and biases they hold.
    scratch_floats : int
        Length of the scratch array.
    """

    def __init__(self, quantised: Quantised, name: str) -> None:
        self._quantised = quantised
        self._name = name
        self.tables: list[str] = []
        self.statements: list[str] = []
        self.functions: dict[str, str] = {}
        self.activations: set[str] = set()
        self.uses_half = False
        self.flash_bytes = 0
        self.n_numbers = 0
        self.scratch_floats = 0
        self._live: list[tuple[int, int]] = []

    # -- places -------------------------------------------------------------------------------

    def _take(self, size: int) -> int:
        """The first gap of the scratch array that is large enough, until `_leave`."""
        offset = 0
        for start, stop in sorted(self._live):
            if start - offset >= size:
                break
            offset = max(offset, stop)
        self._live.append((offset, offset + size))
        self.scratch_floats = max(self.scratch_floats, offset + size)
        return offset

    def _new(self, shape: tuple[int, ...], *, maps: bool = False) -> Value:
        return Value(shape, self._take(prod(shape)), maps)

    def _leave(self, offset: int, size: int) -> None:
        self._live.remove((offset, offset + size))

    def _free(self, value: Value) -> None:
        if value.offset is not None:
            self._leave(value.offset, value.size)

    def _at(self, value: Value) -> str:
        return f"scratch + {value.offset}"

    def _as_floats(self, value: Value) -> Value:
        """The image divided by its scale, in the scratch array; other values as they are."""
        if value.offset is not None:
            return value
        result = self._new(value.shape, maps=value.maps)
        scale = c_float(self._quantised.graph.scale)
        self._say(
            f"for (int i = 0; i < {value.size}; ++i)"
            f" scratch[{result.offset} + i] = (float)image[i] / {scale};"
        )
        return result

    # -- text ---------------------------------------------------------------------------------

    def _say(self, *lines: str) -> None:
        self.statements.extend(lines)

    def _table(self, values: np.ndarray, what: str) -> str:
        """A constant array; gives its C name."""
        values = np.ascontiguousarray(values).reshape(-1)
        name = f"{self._name}_{what}_{len(self.tables)}"
        self.flash_bytes += values.nbytes
        kind = values.dtype.str[1:]
        if kind == "f2":
            self.uses_half = True
            written = values.view(np.uint16).tolist()
        else:
            written = values.tolist()
        numbers = [c_float(v) for v in values] if kind == "f4" else [str(v) for v in written]
        rows = [", ".join(numbers[i : i + 12]) for i in range(0, len(numbers), 12)]
        body = ",\n    ".join(rows)
        self.tables.append(
            f"static const {C_TYPES[kind]} {name}[{len(numbers)}] = {{\n    {body}\n}};"
        )
        return name

    def _define(self, name: str, lines: Sequence[str]) -> None:
        """A function, once."""
        self.functions.setdefault(name, "\n".join(lines) + "\n")

    def _weights(self, array: np.ndarray, what: str) -> tuple[Encoded, str, str]:
        """How an array is stored, its C name, and an expression of one number with an {index}."""
        encoded = self._quantised.of(array)
        self.n_numbers += encoded.values.size
        name = self._table(encoded.values, what)
        return encoded, name, self._load(encoded, name)

    def _load(self, encoded: Encoded, name: str) -> str:
        return {
            "f4": f"{name}[{{index}}]",
            "f2": f"{self._name}_half({name}[{{index}}])",
            "i1": f"(float){name}[{{index}}]",
        }[encoded.values.dtype.str[1:]]

    def _bias(self, bias: np.ndarray) -> str:
        self.n_numbers += bias.size
        return self._table(bias.astype(np.float32), "bias")


def indented(lines: Sequence[str]) -> list[str]:
    """One step to the right."""
    return [f"    {line}" for line in lines]


def numbers(pair: Any) -> tuple[int, int]:
    """Two plain integers of an operation's stride, padding or size."""
    return int(pair[0]), int(pair[1])


def c_float(value: Any) -> str:
    """The shortest decimal that gives this float32 back, as a C literal."""
    return f"{np.float32(value)!s}f"
