"""A network of whole numbers as one C99 header: no float but for the probabilities, no libm.

Rows run through it as they do in `c_chain`. What lies in memory is a struct of typed arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankwise.export.c_program import c_float, indented
from rankwise.export.integers import IntegerLayer, IntegerNetwork, shapes_of

_TYPES = {"int8": "int8_t", "int16": "int16_t"}


class IntegerEmitter:
    """Writes the tables, the struct and the functions of one network.

    Attributes
    ----------
    tables, functions, statements, members : list of str
        Constant arrays; functions, each behind those that it calls; the body of the forward
        pass; the struct's members.
    flash_bytes, ram_bytes, n_numbers : int
    """

    def __init__(self, network: IntegerNetwork, name: str) -> None:
        self._network = network
        self._name = name
        self.tables: list[str] = []
        self.functions: list[str] = []
        self.statements: list[str] = []
        self.members: list[str] = []
        self.flash_bytes = 0
        self.ram_bytes = 0
        self.n_numbers = 0
        self._emit()

    def _emit(self) -> None:
        network, shapes = self._network, shapes_of(self._network)
        layers = network.layers
        self._member("int32_t", "n", len(layers) + 1)
        wide = [s[1] + 2 * one.padding[1] for s, one in zip(shapes, layers, strict=False)]
        mixed = [w * one.columns.shape[2] for w, one in zip(wide, layers, strict=True)]
        places = [
            (w - one.columns.shape[1] + 1) * one.columns.shape[2]
            for w, one in zip(wide, layers, strict=True)
        ]
        self._member("int32_t", "row", max(places))
        rows, columns, channels = shapes[-1]
        cells = (rows // network.cell[0]) * (columns // network.cell[1])
        self._member("int32_t", "features", channels * cells)
        self._member("int16_t", "mixed", max(mixed))
        first = layers[0]
        self._member("int16_t", "patch", wide[0] * first.height * shapes[0][2])
        for i, layer in enumerate(layers):
            if layer.rows is not None and layer.height > 1:
                self._member("int32_t", f"sums{i}", (layer.height - 1) * places[i])
        outs = [0, 0]
        for i, layer in enumerate(layers):
            outs[i % 2] = max(outs[i % 2], places[i])
            if layer.pool != (1, 1):
                self._member("int8_t", f"pool{i}", shapes[i + 1][1] * shapes[i + 1][2])
            if layer.skip:
                kept = (layer.padding[0] + 1) * shapes[i][1] * shapes[i][2]
                self._member("int8_t", f"kept{i}", kept)
        for i, size in enumerate(outs):
            if size:
                self._member("int8_t", f"out{i}", size)
        self._last(shapes[-1])
        for i in reversed(range(len(layers))):
            self._layer(i, layers[i], shapes[i], shapes[i + 1])
        self._source(shapes[0], first)

    # -- text ---------------------------------------------------------------------------------

    def _member(self, kind: str, name: str, size: int) -> None:
        self.members.append(f"{kind} {name}[{size}];")
        self.ram_bytes += size * int(kind[3:-2]) // 8

    def _table(self, values: np.ndarray, what: str) -> str:
        values = np.ascontiguousarray(values).reshape(-1)
        name = f"{self._name}_{what}_{len(self.tables)}"
        self.flash_bytes += values.nbytes
        self.n_numbers += values.size
        kind = {"f4": "float"}.get(values.dtype.str[1:], _TYPES.get(values.dtype.name, ""))
        written = [c_float(v) if kind == "float" else str(v) for v in values.tolist()]
        lines = [", ".join(written[i : i + 20]) for i in range(0, len(written), 20)]
        body = ",\n    ".join(lines)
        self.tables.append(f"static const {kind} {name}[{len(written)}] = {{\n    {body}\n}};")
        return name

    def _function(self, name: str, parameters: Sequence[str], lines: Sequence[str]) -> str:
        head = f"static void {self._name}_{name}({', '.join(parameters)}) {{"
        self.functions.append("\n".join([head, *indented(lines), "}"]) + "\n")
        return f"{self._name}_{name}"

    # -- both ends ----------------------------------------------------------------------------

    def _source(self, shape: tuple[int, int, int], first: IntegerLayer) -> None:
        """Each row of pixels into the patches of the first layer, less the byte that means 0."""
        rows, columns, channels = shape
        network = self._network
        side, width = network.shrink, network.graph.image_shape[1] * channels
        zeros = self._table(network.zeros.astype(np.int16), "zero")
        (above, left), high = first.padding, first.height * channels
        moved = []
        if first.height > 1:
            moved = [f"memmove(to, to + {channels}, {high - channels} * sizeof(int16_t));"]
        value = f"image[y * {width} + x * {channels} + c]"
        pixel = [f"const int32_t sum = {value};"]
        if side > 1:
            value = f"image[(y * {side} + a) * {width} + (x * {side} + b) * {channels} + c]"
            pixel = [
                f"int32_t sum = {side * side // 2};",
                f"for (int a = 0; a < {side}; ++a)",
                f"    for (int b = 0; b < {side}; ++b) sum += {value};",
                f"sum /= {side * side};",
            ]
        zeros_in = [f"for (int c = 0; c < {channels}; ++c) to[{high - channels} + c] = 0;"]
        given = [
            f"for (int c = 0; c < {channels}; ++c) {{",
            *indented(pixel),
            f"    to[{high - channels} + c] = (int16_t)(sum - {zeros}[c]);",
            "}",
        ]
        inside = [f"if (y >= 0 && y < {rows}) {{", *indented(given), "} else {"]
        inside += [*indented(zeros_in), "}"]
        self.statements += [
            "memset(m, 0, sizeof *m);",
            f"for (int y = -{above}; y < {rows + above}; ++y) {{"
            if above
            else f"for (int y = 0; y < {rows}; ++y) {{",
            f"    for (int x = 0; x < {columns}; ++x) {{",
            f"        int16_t *to = m->patch + (x + {left}) * {high};",
            *indented(indented(moved + (inside if above else given))),
            "    }",
            f"    if (y >= {first.height - 1 - above}) {self._name}_layer0(m);",
            "}",
        ]
        weight = self._table(network.weight, "dense")
        bias = self._table(network.bias, "bias")
        self.flash_bytes += 4  # the scale, which the compiler puts beside the code
        n, k = network.weight.shape
        self.statements += [
            f"for (int k = 0; k < {k}; ++k) {{",
            "    int32_t sum = 0;",
            f"    for (int i = 0; i < {n}; ++i) sum += m->features[i] * {weight}[i * {k} + k];",
            f"    logits[k] = (float)sum * {c_float(network.scale)} + {bias}[k];",
            "}",
        ]

    def _last(self, shape: tuple[int, int, int]) -> None:
        """Sums over the rectangles of the grid."""
        rows, columns, channels = shape
        down, across = self._network.cell
        high, wide = rows // down, columns // across
        place = f"(c * {high} + y / {down}) * {wide} + x / {across}"
        lines = [
            f"const int y = (int)m->n[{len(self._network.layers)}]++;",
            f"if (y >= {high * down}) return;" if rows > high * down else "",
            f"for (int x = 0; x < {wide * across}; ++x)",
            f"    for (int c = 0; c < {channels}; ++c)",
            f"        m->features[{place}] += given[x * {channels} + c];",
        ]
        memory = f"{self._name}_memory *m"
        self._function("end", [memory, "const int8_t *given"], [line for line in lines if line])

    # -- layers -------------------------------------------------------------------------------

    def _layer(
        self,
        i: int,
        layer: IntegerLayer,
        before: tuple[int, int, int],
        after: tuple[int, int, int],
    ) -> None:
        (above, left), height = layer.padding, layer.height
        rank, width, units = layer.columns.shape
        n_inputs = layer.mixing.shape[1]
        wide = before[1] + 2 * left
        places = wide - width + 1
        patches = layer.rows is None
        mix = self._mix(i, layer, before, wide if patches else before[1])
        slide = self._slide(i, layer, places)
        packed = self._network.precision == "int4" and not patches
        bytes_an_input = units // 4 * 2 + (units % 4 + 1) // 2 if packed else units
        per_form = n_inputs * bytes_an_input
        mixing = self._table(_in_blocks(layer.mixing, packed), "mixing")
        columns = self._table(layer.columns, "columns")
        given = [f"m->mixed + {left * units}" if left and not patches else "m->mixed"]
        given = ["m->patch" if patches else "row", f"{mixing} + r * {per_form}", *given]
        loop = []
        if not patches and left:
            loop.append(f"for (int i = 0; i < {wide * units}; ++i) m->mixed[i] = 0;")
        loop.append(f"{mix}({', '.join(given)});")
        arguments = ["m->mixed", f"{columns} + r * {width * units}"]
        if layer.rows is not None:
            rows = self._table(layer.rows, "rows")
            arguments.append(f"{rows} + r * {height * units}")
        arguments += [f"m->sums{i}"] if not patches and height > 1 else []
        arguments.append("m->row")
        call = f"({', '.join(arguments)});"
        slid = [f"{slide}_first{call}"]
        if rank > 1:
            slid = [f"if (r == 0) {slide}_first{call}", f"else {slide}_more{call}"]
        with_row = [f"for (int r = 0; r < {rank}; ++r) {{", *indented(loop + slid), "}"]
        complete = self._complete(i, layer, places, after)
        if layer.skip:
            size, number = before[1] * before[2], f"(int)({count_of(i)} - {above}) % {above + 1}"
            keep = f"memcpy(m->kept{i} + {number} * {size}, row, {size});"
            with_row = [keep, *with_row]
        if patches:
            self._function(f"layer{i}", [f"{self._name}_memory *m"], [*with_row, *complete])
            return
        count = count_of(i)
        step = [*with_row]
        if above:
            step = ["if (row) {", *indented(with_row), "} else {"]
            step += [*indented(self._zeros(i, layer, places * units)), "}"]
        if height > 1:
            complete = [f"if ({count} >= {height - 1}) {{", *indented(complete), "}"]
        lines = [*step, *complete, f"++{count};"]
        if above:
            last = above + before[0]
            row = f"const int8_t *row = {count} >= {above} && {count} < {last} ? given : NULL;"
            more = f"{count} <= {above} || ({count} >= {last} && {count} < {last + above})"
            lines = ["do {", *indented([row, *lines]), f"}} while ({more});"]
        parameter = "const int8_t *given" if above else "const int8_t *row"
        self._function(f"layer{i}", [f"{self._name}_memory *m", parameter], lines)

    def _complete(
        self, i: int, layer: IntegerLayer, places: int, after: tuple[int, int, int]
    ) -> list[str]:
        """A row of sums is complete: rounded, pooled, handed on."""
        units = layer.columns.shape[2]
        last = i + 1 == len(self._network.layers)
        following = f"{self._name}_end" if last else f"{self._name}_layer{i + 1}"
        multiplier = self._table(layer.multiplier, "multiplier")
        bias = self._table(layer.bias, "bias")
        level, half = 1 << layer.shift - layer.fraction, 1 << layer.shift >> 1
        out, lowest = f"m->out{i % 2}", layer.lowest
        lines = [
            f"for (int i = 0; i < {places * units}; i += {units})",
            f"    for (int o = 0; o < {units}; ++o) {{",
            f"        const int32_t y = ((m->row[i + o] >> {layer.q_shift}) * {multiplier}[o]"
            f" + {bias}[o] * {level} + {half}) >> {layer.shift};",
            f"        {out}[i + o] = (int8_t)(y < {lowest} ? {lowest} : y > 127 ? 127 : y);",
            "    }",
        ]
        (down, across), (rows, columns, _) = layer.pool, after
        if layer.pool == (1, 1):
            read = self._activated(i, layer, out, places * units)
            return [*lines, *read, f"{following}(m, {out});"]
        counter = f"m->n[{i}]" if layer.rows is not None else "m->n[0]++"
        before = layer.height - 1 if layer.rows is not None else 0
        index = f"(int){counter}" + (f" - {before}" if before else "")
        return [
            *lines,
            f"const int y = {index};",
            f"for (int x = 0; x < {columns * across} && y < {rows * down}; ++x) {{",
            f"    int8_t *to = m->pool{i} + x / {across} * {units};",
            f"    const int8_t *v = {out} + x * {units};",
            f"    const int begins = y % {down} == 0 && x % {across} == 0;",
            f"    for (int o = 0; o < {units}; ++o) if (begins || v[o] > to[o]) to[o] = v[o];",
            "}",
            f"if (y < {rows * down} && y % {down} == {down - 1}) {{",
            *indented(self._activated(i, layer, f"m->pool{i}", columns * units)),
            f"    {following}(m, m->pool{i});",
            "}",
        ]

    def _activated(self, i: int, layer: IntegerLayer, place: str, size: int) -> list[str]:
        """What the table makes of a row of levels, and what came in added to it."""
        if layer.table is None:
            return []
        table = self._table(layer.table, "table")
        each = f"for (int i = 0; i < {size}; ++i)"
        if not layer.skip:
            return [f"{each} {place}[i] = {table}[{place}[i] + 128];"]
        (above, _), half = layer.padding, 1 << layer.bits >> 1
        number = f"(int)({count_of(i)} - {layer.height - 1}) % {above + 1}"
        return [
            f"const int8_t *kept = m->kept{i} + {number} * {size};",
            f"{each} {{",
            f"    const int32_t sum = ({table}[{place}[i] + 128] + {layer.skip} * kept[i] + {half})"
            f" >> {layer.bits};",
            f"    {place}[i] = (int8_t)(sum < -127 ? -127 : sum > 127 ? 127 : sum);",
            "}",
        ]

    def _zeros(self, i: int, layer: IntegerLayer, length: int) -> list[str]:
        """What a row of zeros does to the sums."""
        if layer.height == 1:
            return [f"for (int i = 0; i < {length}; ++i) m->row[i] = 0;"]
        kept = (layer.height - 2) * length
        lines = [f"memcpy(m->row, m->sums{i}, {length} * sizeof(int32_t));"]
        if kept:
            lines.append(f"memmove(m->sums{i}, m->sums{i} + {length}, {kept} * sizeof(int32_t));")
        return [*lines, f"for (int i = 0; i < {length}; ++i) m->sums{i}[{kept} + i] = 0;"]

    def _mix(self, i: int, layer: IntegerLayer, before: tuple[int, int, int], places: int) -> str:
        """Four units at a time, their sums in registers."""
        n_inputs, units = layer.mixing.shape[1:]
        patches = layer.rows is None
        packed = self._network.precision == "int4" and not patches
        step = n_inputs if patches else before[2]
        half, shift = 1 << layer.t_shift >> 1, layer.t_shift
        loads = [f"v[{k}]" for k in range(4)]
        stride = 4
        if packed:
            stride = 2
            low = "((int32_t)((uint32_t)v[{}] << 28) >> 28)"
            loads = [low.format(0), "(v[0] >> 4)", low.format(1), "(v[1] >> 4)"]
        blocks, rest = units // 4, units % 4

        def block(n: int) -> list[str]:
            names = "abcd"[:n]
            sums = ", ".join(f"{s} = 0" for s in names)
            bytes_a_turn = {4: stride}.get(n, (n + 1) // 2 if packed else n)
            added = [f"    {s} += p * {loads[k]};" for k, s in enumerate(names)]
            stored = [
                f"to[{k}] = (int16_t)(({s} + {half}) >> {shift});" for k, s in enumerate(names)
            ]
            return [
                f"int32_t {sums};",
                f"for (int j = 0; j < {n_inputs}; ++j, v += {bytes_a_turn}) {{",
                "    const int32_t p = in[j];",
                *added,
                "}",
                *stored,
                f"to += {n};",
            ]

        lines = [
            f"for (int x = 0; x < {places}; ++x, in += {step}) {{",
            "    const int8_t *v = w;",
            f"    int16_t *to = out + x * {units};",
        ]
        if blocks:
            lines += [f"    for (int o = 0; o < {blocks}; ++o) {{", *indented(indented(block(4)))]
            lines += ["    }"]
        if rest:
            lines += ["    {", *indented(indented(block(rest))), "    }"]
        kind = "int16_t" if patches else "int8_t"
        restrict = f"{self._name}_RESTRICT"
        parameters = [f"const {kind} *{restrict} in", f"const int8_t *{restrict} w"]
        return self._function(f"mix{i}", [*parameters, f"int16_t *{restrict} out"], [*lines, "}"])

    def _slide(self, i: int, layer: IntegerLayer, places: int) -> str:
        """Columns summed, and the result added to the rows of sums that it reaches."""
        rank, width, units = layer.columns.shape
        rows = 0 if layer.rows is None else layer.height
        length = places * units
        restrict = f"{self._name}_RESTRICT"
        total = " + ".join(
            f"v[{k * units} + o] * a[{k * units} + o]" if k else "v[o] * a[o]" for k in range(width)
        )
        half = 1 << layer.h_shift >> 1
        h = f"const int32_t h = ({total} + {half}) >> {layer.h_shift};"
        if layer.h_shift == 0:
            h = f"const int32_t h = {total};"
        names = ["const int16_t *{} t", "const int8_t *{} v"]
        names += ["const int8_t *{} u"] if rows else []
        names += ["int32_t *{} sums"] if rows > 1 else []
        parameters = [p.format(restrict) for p in [*names, "int32_t *{} out"]]
        for first in (True, False)[: min(rank, 2)]:
            assign = "=" if first else "+="
            body = [h]
            if rows == 0:
                body.append(f"to[o] {assign} h;")
            else:
                before = "part[o] + " if first and rows > 1 else ""
                body.append(f"to[o] {assign} {before}u[{(rows - 1) * units} + o] * h;")
            for j in range(rows - 1):
                later = f"part[{(j + 1) * length} + o] + " if first and j < rows - 2 else ""
                body.append(
                    f"part[{j * length} + o] {assign} {later}u[{(rows - 2 - j) * units} + o] * h;"
                )
            part = [f"    int32_t *part = sums + x * {units};"] if rows > 1 else []
            lines = [
                f"for (int x = 0; x < {places}; ++x) {{",
                f"    const int16_t *a = t + x * {units};",
                f"    int32_t *to = out + x * {units};",
                *part,
                f"    for (int o = 0; o < {units}; ++o) {{",
                *indented(indented(body)),
                "    }",
                "}",
            ]
            self._function(f"slide{i}_{'first' if first else 'more'}", parameters, lines)
        return f"{self._name}_slide{i}"


def count_of(i: int) -> str:
    """How many rows a layer was given, those of zeros too."""
    return f"m->n[{i}]"


def _in_blocks(mixing: np.ndarray, packed: bool) -> np.ndarray:
    """``(r, n, O)`` as four units after four, each input's weights together; int4 two a byte."""
    rank, n_inputs, units = mixing.shape
    parts = []
    for r in range(rank):
        form = []
        for o in range(0, units, 4):
            block = mixing[r, :, o : o + 4]
            if packed:
                if block.shape[1] % 2:
                    block = np.concatenate([block, np.zeros((n_inputs, 1), np.int8)], axis=1)
                low, high = block[:, 0::2].astype(np.int16), block[:, 1::2].astype(np.int16)
                block = ((low & 15) | ((high & 15) << 4)).astype(np.uint8).view(np.int8)
            form.append(block.reshape(-1))
        parts.append(np.concatenate(form))
    return np.concatenate(parts)
