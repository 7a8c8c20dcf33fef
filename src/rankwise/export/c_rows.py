"""What a row of maps adds to the rows that come out of a convolution, in C.

The forms of a unit are slid one axis after the other: its channels are mixed at each place of a
row, then its columns summed, then the result added to the rows of output that it reaches. No
filter is ever composed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.export.c_mix import Mix
from rankwise.export.c_program import C_TYPES, Program, indented, numbers
from rankwise.export.c_slide import Slide, zeros_slid
from rankwise.networks.graph import Convolve, ConvolveForms

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Stored:
    """Weights in a table: its C name, the C type, and for int8 the name of the scales' table."""

    table: str
    kind: str
    scales: str


class Rows(Program):
    """Emits what convolutions do with a row, in places that a chain has taken for them."""

    _places: dict[str, tuple[int, int]]

    def _at_place(self, name: str, base: str = "S") -> str:
        return f"{base} + {self._places[name][0]}"

    def _dense_row(
        self, i: int, op: Convolve, before: Shape, after: Shape, complete: Sequence[str]
    ) -> list[str]:
        """Filters over patches of the last rows: all numbers of a patch lie together."""
        n_out, per_group, height, width = op.weight.shape
        units = n_out // op.groups
        (_, across), (_, left) = numbers(op.stride), numbers(op.padding)
        bias = self._bias(op.bias)
        encoded = self._quantised.of(op.weight)
        # (groups, columns, rows, channels, units): as a patch lies, then units side by side.
        values = encoded.values.reshape(op.groups, units, per_group, height, width)
        stored = self._store(np.transpose(values, (0, 4, 3, 2, 1)), encoded.scales, "kernel")
        pointwise = is_pointwise(op)
        n_inputs = per_group * height * width
        mix = Mix(
            n_inputs,
            units,
            after[2],
            before[0] if pointwise else across * height * per_group,
            n_out,
            stored.kind,
        )
        source = f"row + g * {per_group}"
        lines = []
        if not pointwise:
            wide = before[2] + 2 * left
            source = f"patch + g * {wide * height * per_group}"
            lines += self._patches(i, before, height, left, op.groups)
        scales = f"{stored.scales} + g * {units}"
        call = self._mix(
            mix,
            source,
            f"{stored.table} + g * {n_inputs * units}",
            scales,
            "out + g * " + str(units),
        )
        summed = [
            f"for (int i = 0; i < {after[2] * n_out}; ++i) out[i] = {bias}[i % {n_out}];",
            f"for (int g = 0; g < {op.groups}; ++g) {call}",
        ]
        if complete:
            summed = [f"if ({' && '.join(complete)}) {{", *indented(summed), "}"]
        return [*lines, *summed]

    def _patches(self, i: int, before: Shape, height: int, left: int, groups: int) -> list[str]:
        """A new row moves into the patches, the oldest out of them."""
        channels, _, columns = before
        per_group = channels // groups
        wide, high = columns + 2 * left, height * per_group
        at = f"patch + (g * {wide} + x + {left}) * {high}"
        value = f"row ? row[x * {channels} + g * {per_group} + c] : 0.0f"
        moved = []
        if height > 1:
            moved.append(
                f"        memmove(to, to + {per_group}, {high - per_group} * sizeof(float));"
            )
        return [
            f"float *patch = {self._at_place(f'own{i}')};",
            f"for (int g = 0; g < {groups}; ++g)",
            f"    for (int x = 0; x < {columns}; ++x) {{",
            f"        float *to = {at};",
            *moved,
            f"        for (int c = 0; c < {per_group}; ++c) to[{high - per_group} + c] = {value};",
            "    }",
        ]

    def _forms_by_rows(self, i: int, op: ConvolveForms, before: Shape, after: Shape) -> list[str]:
        """Mix the channels of a row, sum its columns, add it to the rows that it reaches."""
        channels, _, columns = before
        units, rank = op.channel.shape[:2]
        height, width = sides(op)
        (_, across), (_, left) = numbers(op.stride), numbers(op.padding)
        bias = self._bias(op.bias)
        mixing = self._vectors(op.channel, "channel")
        row, column = self._vectors(op.row, "row"), self._vectors(op.column, "column")
        mix = Mix(channels, units, columns, channels, units, mixing.kind)
        table = f"{mixing.table} + r * {channels * units}"
        scales = f"{mixing.scales} + r * {units}"
        decoding, u, v = self._decoded_vectors(row, column, height, width, units, mix.decoded)
        sums = self._at_place(f"own{i}") if height > 1 else ""
        slid = []
        for first in (True, False)[: min(rank, 2)]:
            slide = Slide(units, after[2], width, across, height, first)
            self._define(f"{self._name}_{slide.name}", self._named(slide.definition()))
            slid.append(self._named([slide.call("t", v, u, bias, sums, "out")])[0])
        loop = [
            *self._mixing(mix, "row", table, scales, columns, left, units),
            *decoding,
            *([f"if (r == 0) {slid[0]}", f"else {slid[1]}"] if rank > 1 else slid),
        ]
        zeros = zeros_slid(units, after[2], height)
        zeros = [line.replace("bias[", f"{bias}[") for line in zeros]
        if sums:
            zeros = [f"float *sums = {sums};", *zeros]
        with_row = [f"for (int r = 0; r < {rank}; ++r) {{", *indented(loop), "}"]
        if not numbers(op.padding)[0]:
            return with_row
        return ["if (row) {", *indented(with_row), "} else {", *indented(zeros), "}"]

    def _forms_of_patches(
        self, i: int, op: ConvolveForms, before: Shape, after: Shape, complete: Sequence[str]
    ) -> list[str]:
        """Mix rows and channels of a patch at once, then sum its columns.

        The products of their vectors stand in the table: few, and in float32.
        """
        channels, _, columns = before
        units, rank = op.channel.shape[:2]
        height, width = sides(op)
        (_, across), (_, left) = numbers(op.stride), numbers(op.padding)
        bias = self._bias(op.bias)
        a, u = (self._quantised.of(v).decode() for v in (op.channel, op.row))
        products = np.einsum("orc,ork->rkco", a, u)
        mixing = self._store(products, None, "patch")
        self.n_numbers += a.size + u.size - products.size
        column = self._vectors(op.column, "column")
        n_inputs, wide = height * channels, columns + 2 * left
        mix = Mix(n_inputs, units, wide, n_inputs, units, mixing.kind)
        decoding, _, v = self._decoded_vectors(None, column, 0, width, units, 0)
        slid = []
        for first in (True, False)[: min(rank, 2)]:
            slide = Slide(units, after[2], width, across, 0, first)
            self._define(f"{self._name}_{slide.name}", self._named(slide.definition()))
            slid.append(self._named([slide.call("t", v, "", bias, "", "out")])[0])
        table = f"{mixing.table} + r * {n_inputs * units}"
        loop = [
            *self._mixing(mix, "patch", table, "", wide, 0, units),
            *decoding,
            *([f"if (r == 0) {slid[0]}", f"else {slid[1]}"] if rank > 1 else slid),
        ]
        forms = [f"for (int r = 0; r < {rank}; ++r) {{", *indented(loop), "}"]
        if complete:
            forms = [f"if ({' && '.join(complete)}) {{", *indented(forms), "}"]
        return [*self._patches(i, before, height, left, 1), *forms]

    # -- parts of a row -----------------------------------------------------------------------

    def _mixing(
        self, mix: Mix, source: str, table: str, scales: str, places: int, left: int, units: int
    ) -> list[str]:
        """A row mixed into `t`, with zeros on both sides."""
        whole = (places + 2 * left) * units
        return [
            f"float *t = {self._at_place('mixed')};",
            f"for (int i = 0; i < {whole}; ++i) t[i] = 0.0f;",
            self._mix(mix, source, table, scales, f"t + {left * units}"),
        ]

    def _mix(self, mix: Mix, source: str, table: str, scales: str, out: str) -> str:
        self._define(f"{self._name}_{mix.name}", self._named(mix.definition()))
        self.uses_half |= mix.stored == "uint16_t"
        decoded = self._at_place("decoded") if mix.decoded else ""
        return self._named([mix.call(source, table, scales, out, decoded)])[0]

    def _named(self, lines: Sequence[str]) -> list[str]:
        return [line.replace("@NAME@", self._name) for line in lines]

    def _vectors(self, vectors: np.ndarray, what: str) -> _Stored:
        """Vectors ``(units, r, n)`` in a table, as ``(r, n, units)``."""
        encoded = self._quantised.of(vectors)
        scales = None if encoded.scales is None else encoded.scales[:, :, 0].T
        return self._store(np.transpose(encoded.values, (1, 2, 0)), scales, what)

    def _store(self, values: np.ndarray, scales: np.ndarray | None, what: str) -> _Stored:
        self.n_numbers += values.size
        table = self._table(values, what)
        names = "" if scales is None else self._table(scales, "scale")
        return _Stored(table, C_TYPES[values.dtype.str[1:]], names)

    def _decoded_vectors(
        self,
        row: _Stored | None,
        column: _Stored,
        height: int,
        width: int,
        units: int,
        behind: int,
    ) -> tuple[list[str], str, str]:
        """Lines that decode the vectors of the form `r`, and the C names of `u` and `v`."""
        lines, names = [], []
        for stored, length in ((row, height), (column, width)):
            if stored is None:
                names.append("")
                continue
            first = f"{stored.table} + r * {length * units}"
            if stored.kind == "float":
                names.append(first)
                continue
            place = f"{self._at_place('decoded')} + {behind}"
            name = "uv"[len(names)]
            number = f"(float){stored.table}[(r * {length} + i) * {units} + o]"
            if stored.kind == "uint16_t":
                self.uses_half = True
                number = f"{self._name}_half({number.removeprefix('(float)')})"
            else:
                number += f" * {stored.scales}[r * {units} + o]"
            lines += [
                f"float *{name} = {place};",
                f"for (int i = 0; i < {length}; ++i)",
                f"    for (int o = 0; o < {units}; ++o) {name}[i * {units} + o] = {number};",
            ]
            behind += length * units
            names.append(name)
        return lines, names[0], names[1]


def sides(op: Convolve | ConvolveForms) -> tuple[int, int]:
    """Rows and columns of a filter."""
    if isinstance(op, Convolve):
        return int(op.weight.shape[2]), int(op.weight.shape[3])
    return int(op.row.shape[2]), int(op.column.shape[2])


def is_pointwise(op: Convolve) -> bool:
    """Whether each place is a sum over the channels of one place, with no steps over rows."""
    return sides(op) == (1, 1) and numbers(op.stride) == (1, 1) and numbers(op.padding) == (0, 0)
