"""Operations on maps as a chain that rows run through: no map lies in memory that needn't.

Maps lie row by row, the channels of a place together. Each operation of a chain is a C function
that takes one row of its input and hands each row that it finishes to the next function. Between
rows it keeps what later rows need, and no more: a convolution of ``k`` rows the ``k - 1`` rows
of sums that are not complete yet (forms), or the last ``k`` rows that came in (dense filters,
and forms of few channels); a pool the row that it is filling.

The forms of a unit are slid one axis after the other: its channels are mixed at each place of a
row, then its columns summed, then the result added to the rows of output that it reaches. No
filter is ever composed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.export.c_mix import Mix
from rankwise.export.c_pools import pool_lines, pool_room
from rankwise.export.c_program import C_TYPES, Program, Value, c_float, indented, numbers
from rankwise.export.c_slide import Slide, zeros_slid
from rankwise.networks.graph import (
    Activate,
    Affine,
    Convolve,
    ConvolveForms,
    Op,
    Pool,
    Square,
    ToMaps,
    output_shape,
)

ON_ROWS = (ToMaps, Affine, Activate, Square, Convolve, ConvolveForms, Pool)
ONE_BY_ONE = (Affine, Activate, Square)

_FEW_CHANNELS = 4
"""Forms over so few channels are slid over patches of the rows that came in: these take less
memory than rows of sums, and mixing a handful of channels again for each row costs little."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sink:
    """Where the rows of a chain end.

    Attributes
    ----------
    offset : int
        Place in the scratch array.
    channels, first : int
        Channels of the maps there, and the first of this chain's: branches lie side by side.
    flat : bool
        Features, in the order of channels, rows, columns.
    step : {"=", "*=", "+="}
        What rows do to what lies there already.
    """

    offset: int
    channels: int
    first: int = 0
    flat: bool = False
    step: str = "="


@dataclass(frozen=True)
class _Stored:
    """Weights in a table: its C name, the C type, and for int8 the name of the scales' table."""

    table: str
    kind: str
    scales: str


class Chains(Program):
    """Emits chains, and what operates on one number after another."""

    def _chain(self, ops: Sequence[Op], value: Value, sink: Sink) -> None:
        """Emit a chain from the image, or from maps in the scratch array, to a sink."""
        shape = value.shape if value.maps else output_shape((ToMaps(),), value.shape)
        head, stages = _stages([op for op in ops if not isinstance(op, ToMaps)])
        shapes = [shape]
        for op, _ in stages:
            shapes.append(output_shape((op,), shapes[-1]))
        self._begin_chain(stages, shapes, copied=value.offset is None or bool(head))
        # A function must stand before the one that calls it: the last comes first.
        following = self._sink(sink, shapes[-1])
        for i in reversed(range(len(stages))):
            following = self._stage(i, *stages[i], shapes[i], shapes[i + 1], following)
        self._source(value, head, shape, following, len(stages) + 1)
        for place, size in self._places.values():
            self._leave(place, size)

    def _begin_chain(
        self, stages: Sequence[tuple[Op, list[Op]]], shapes: Sequence[Shape], *, copied: bool
    ) -> None:
        """Take places: rows that come out, in turn one of two; what is kept; what is shared."""
        sizes: dict[str, int] = {"mixed": 0, "decoded": 0, "row0": 0, "row1": 0}
        self._kept_zero: list[str] = []
        if copied:
            sizes["row0"] = shapes[0][0] * shapes[0][2]
        for i, (op, _) in enumerate(stages):
            before, after = shapes[i], shapes[i + 1]
            row = f"row{(i + 1) % 2}"
            sizes[row] = max(sizes[row], 0 if isinstance(op, Pool) else after[0] * after[2])
            if isinstance(op, Pool):
                sizes[f"own{i}"] = pool_room(op, after)
                continue
            assert isinstance(op, (Convolve, ConvolveForms))
            (height, width), (_, across) = _sides(op), numbers(op.padding)
            wide = before[2] + 2 * across
            if isinstance(op, ConvolveForms):
                units = after[0]
                sizes["mixed"] = max(sizes["mixed"], wide * units)
                if self._quantised.of(op.channel).values.dtype != np.float32:
                    decoded = (min(4, before[0]) + height + width) * units
                    sizes["decoded"] = max(sizes["decoded"], decoded)
                by_rows = before[0] > _FEW_CHANNELS
                kept = (height - 1) * after[2] * units if by_rows else wide * height * before[0]
            else:
                if self._quantised.of(op.weight).values.dtype != np.float32:
                    sizes["decoded"] = max(sizes["decoded"], 4 * after[0])
                kept = 0 if _is_pointwise(op) else wide * height * before[0]
            sizes[f"own{i}"] = kept
            self._kept_zero.append(f"own{i}")
        self._places = {name: (self._take(n), n) for name, n in sizes.items() if n}

    def _at_place(self, name: str, base: str = "S") -> str:
        return f"{base} + {self._places[name][0]}"

    # -- both ends ----------------------------------------------------------------------------

    def _source(
        self, value: Value, head: Sequence[Op], shape: Shape, following: str, n_counters: int
    ) -> None:
        """The loop over rows that drives a chain."""
        channels, rows, columns = shape
        length = columns * channels
        self._say("{", f"    int n[{n_counters}] = {{0}};")
        for name in self._kept_zero:
            if name in self._places:
                place, size = self._places[name]
                self._say(f"    memset(scratch + {place}, 0, {size} * sizeof(float));")
        self._say(f"    for (int y = 0; y < {rows}; ++y) {{")
        if value.offset is None or head:
            scale = c_float(self._quantised.graph.scale)
            number = (
                f"(float)image[y * {length} + i] / {scale}"
                if value.offset is None
                else f"scratch[{value.offset} + y * {length} + i]"
            )
            self._say(
                f"        float *out = {self._at_place('row0', 'scratch')};",
                f"        for (int i = 0; i < {length}; ++i) out[i] = {number};",
                *indented(indented(self._row_tail(head, shape))),
                f"        {following}(scratch, n, out);",
            )
        else:
            self._say(f"        {following}(scratch, n, scratch + {value.offset} + y * {length});")
        self._say("    }", "}")

    def _sink(self, sink: Sink, shape: Shape) -> str:
        """The function of the last rows."""
        channels, rows, columns = shape
        length = columns * channels
        step = sink.step
        lines = ["const int y = n[0]++;"]
        if sink.flat:
            lines += [
                f"float *to = S + {sink.offset} + y * {columns};",
                f"for (int x = 0; x < {columns}; ++x)",
                f"    for (int c = 0; c < {channels}; ++c)",
                f"        to[c * {rows * columns} + x] {step} row[x * {channels} + c];",
            ]
        elif sink.channels == channels:
            lines += [
                f"float *to = S + {sink.offset} + y * {length};",
                f"for (int i = 0; i < {length}; ++i) to[i] {step} row[i];",
            ]
        else:
            lines += [
                f"float *to = S + {sink.offset + sink.first} + y * {columns * sink.channels};",
                f"for (int x = 0; x < {columns}; ++x)",
                f"    for (int c = 0; c < {channels}; ++c)",
                f"        to[x * {sink.channels} + c] {step} row[x * {channels} + c];",
            ]
        return self._row_function("end", lines)

    def _row_function(self, what: str, lines: Sequence[str], parameter: str = "row") -> str:
        name = f"{self._name}_{what}{len(self.functions)}"
        head = f"static void {name}(float *S, int *n, const float *{parameter}) {{"
        self._define(name, [head, *indented(lines), "}"])
        return name

    def _row_tail(self, ops: Sequence[Op], shape: Shape) -> list[str]:
        """Operations on one number after another, in the row `out`."""
        channels, _, columns = shape
        lines = []
        for op in ops:
            formula, whole = self._one(op, "out[i]", f"i % {channels}")
            if whole:
                lines.append(f"for (int i = 0; i < {columns * channels}; ++i) out[i] = {formula};")
        return lines

    def _one(self, op: Op, x: str, channel: str) -> tuple[str, bool]:
        """What an operation makes of one number, and whether it makes anything of it."""
        if isinstance(op, Square):
            return f"{x} * {x}", True
        if isinstance(op, Affine):
            scale, shift = self._bias(op.scale), self._bias(op.shift)
            return f"{x} * {scale}[{channel}] + {shift}[{channel}]", True
        assert isinstance(op, Activate)
        return self._activated(op.name, x), op.name != "identity"

    def _activated(self, name: str, x: str) -> str:
        if name == "identity":
            return x
        self.activations.add(name)
        return f"{self._name}_{name}({x})"

    # -- what stands between ------------------------------------------------------------------

    def _stage(
        self, i: int, op: Op, tail: Sequence[Op], before: Shape, after: Shape, following: str
    ) -> str:
        """The function of one operation and what follows it one number after another."""
        count = f"n[{i + 1}]"
        hand_on = [*self._row_tail(tail, after), f"{following}(S, n, out);"]
        if isinstance(op, Pool):
            place = self._places[f"own{i}"][0]
            lines = pool_lines(op, after, place, f"{count}++")
            return self._row_function("pool", [*lines, "if (out) {", *indented(hand_on), "}"])
        assert isinstance(op, (Convolve, ConvolveForms))
        out = f"float *out = {self._at_place(f'row{(i + 1) % 2}')};"
        height = _sides(op)[0]
        (down, _), (above, _) = numbers(op.stride), numbers(op.padding)
        complete = [f"{count} >= {height - 1}"] if height > 1 else []
        complete += [f"({count} - {height - 1}) % {down} == 0"] if down > 1 else []
        if isinstance(op, Convolve):
            step = self._dense_row(i, op, before, after, complete)
        elif before[0] > _FEW_CHANNELS:
            step = self._forms_by_rows(i, op, before, after)
        else:
            step = self._forms_of_patches(i, op, before, after, complete)
        condition = " && ".join(complete)
        done = [f"if ({condition}) {{", *indented(hand_on), "}"] if complete else hand_on
        lines = [out, *step, *done, f"++{count};"]
        if not above:
            return self._row_function("rows", lines)
        # Rows of zeros stand above the first row and below the last.
        last = above + before[1]
        row = f"const float *row = {count} >= {above} && {count} < {last} ? given : NULL;"
        more = f"{count} <= {above} || ({count} >= {last} && {count} < {last + above})"
        lines = ["do {", *indented([row, *lines]), f"}} while ({more});"]
        return self._row_function("rows", lines, parameter="given")

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
        pointwise = _is_pointwise(op)
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
        height, width = _sides(op)
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
        height, width = _sides(op)
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


def _stages(ops: Sequence[Op]) -> tuple[list[Op], list[tuple[Op, list[Op]]]]:
    """What comes before the first convolution or pool, and each of these with what follows it."""
    head: list[Op] = []
    stages: list[tuple[Op, list[Op]]] = []
    for op in ops:
        if isinstance(op, ONE_BY_ONE):
            (stages[-1][1] if stages else head).append(op)
        else:
            stages.append((op, []))
    return head, stages


def _sides(op: Convolve | ConvolveForms) -> tuple[int, int]:
    """Rows and columns of a filter."""
    if isinstance(op, Convolve):
        return int(op.weight.shape[2]), int(op.weight.shape[3])
    return int(op.row.shape[2]), int(op.column.shape[2])


def _is_pointwise(op: Convolve) -> bool:
    """Whether each place is a sum over the channels of one place, with no steps over rows."""
    return _sides(op) == (1, 1) and numbers(op.stride) == (1, 1) and numbers(op.padding) == (0, 0)
