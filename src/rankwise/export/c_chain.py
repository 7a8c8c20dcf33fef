"""Operations on maps as a chain that rows run through: no map lies in memory that needn't.

Maps lie row by row, the channels of a place together. Each operation of a chain is a C function
that takes one row of its input and hands each row that it finishes to the next function. Between
rows it keeps what later rows need, and no more: a convolution of ``k`` rows the ``k - 1`` rows
of sums that are not complete yet (forms), or the last ``k`` rows that came in (dense filters,
and forms of few channels); a pool the row that it is filling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.export.c_pools import pool_lines, pool_room
from rankwise.export.c_program import Value, c_float, indented, numbers
from rankwise.export.c_rows import Rows, Shape, is_pointwise, sides
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


class Chains(Rows):
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
        """Take places: rows that come out, in turn one of two; what is kept; what is shared.

        A filter that is done with rows of zeros alone hands a row on before it has read the one
        that it was given: then each has a row of its own.
        """
        early = any(not isinstance(op, Pool) and _is_done_early(op) for op, _ in stages)
        self._n_rows = len(stages) + 1 if early else 2
        sizes: dict[str, int] = {"mixed": 0, "decoded": 0}
        sizes |= {f"row{i}": 0 for i in range(self._n_rows)}
        self._kept_zero: list[str] = []
        if copied:
            sizes["row0"] = shapes[0][0] * shapes[0][2]
        for i, (op, _) in enumerate(stages):
            before, after = shapes[i], shapes[i + 1]
            row = f"row{(i + 1) % self._n_rows}"
            sizes[row] = max(sizes[row], 0 if isinstance(op, Pool) else after[0] * after[2])
            if isinstance(op, Pool):
                sizes[f"own{i}"] = pool_room(op, after)
                continue
            assert isinstance(op, (Convolve, ConvolveForms))
            (height, width), (_, across) = sides(op), numbers(op.padding)
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
                kept = 0 if is_pointwise(op) else wide * height * before[0]
            sizes[f"own{i}"] = kept
            self._kept_zero.append(f"own{i}")
        self._places = {name: (self._take(n), n) for name, n in sizes.items() if n}

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
        out = f"float *out = {self._at_place(f'row{(i + 1) % self._n_rows}')};"
        height = sides(op)[0]
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


def _is_done_early(op: Any) -> bool:
    """Whether the rows of zeros above an image are as many as a filter has."""
    return numbers(op.padding)[0] >= sides(op)[0]


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
