"""The operations of a graph as C statements, and where their values lie in the scratch array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankwise.export.c_forms import contraction, indented, packed_windows
from rankwise.export.c_pools import Pooled, numbers, pool_lines, with_pools
from rankwise.export.c_program import C_TYPES, Program, Value, c_float
from rankwise.export.quantise import Encoded
from rankwise.networks.graph import (
    Activate,
    Affine,
    Concatenate,
    Convolve,
    ConvolveForms,
    Dense,
    Flatten,
    Multiply,
    Op,
    Pool,
    RankOneForms,
    Square,
    ToMaps,
    output_shape,
)


class Emitter(Program):
    """Translates the operations of a graph."""

    def emit_graph(self) -> str:
        """Emit all; gives the C expression of the logits."""
        graph = self._quantised.graph
        value = self._ops(graph.ops, Value(graph.image_shape, None), keep=True)
        return self._at(value)

    # -- operations ---------------------------------------------------------------------------

    def _ops(self, ops: Sequence[Op], value: Value, *, keep: bool) -> Value:
        """Emit operations; `keep` says that the value they start from is needed afterwards."""
        for op in with_pools(ops):
            after = self._op(op, value, keep)
            if after is not value:
                keep = after.offset is None
            value = after
        return value

    def _op(self, op: Op | Pooled, value: Value, keep: bool) -> Value:
        """Emit one operation; frees `value` unless it is kept, or is the result's place."""
        pool = None
        if isinstance(op, Pooled):
            pool, op = op.pool, op.convolution
        shape = output_shape((op,), value.shape)
        if isinstance(op, RankOneForms):
            result = self._forms(op, value)
        elif isinstance(op, (Multiply, Concatenate)):
            return self._branches(op, value, keep, shape)
        elif isinstance(op, ToMaps) and (len(value.shape) == 2 or value.offset is None):
            if len(value.shape) == 3:
                result = self._to_maps(value, shape)
            else:
                floats = self._as_floats(value)
                return self._renamed(floats, shape, keep and floats is value)
        elif isinstance(op, Flatten):
            floats = self._as_floats(value)
            return self._renamed(floats, shape, keep and floats is value)
        else:
            floats = self._as_floats(value)
            if floats is not value:
                value, keep = floats, False
            if isinstance(op, (Activate, Square, Affine)):
                return self._each(op, value, keep)
            if isinstance(op, (Convolve, ConvolveForms)):
                result = self._convolve(op, value, shape, pool)
            elif isinstance(op, Pool):
                result = self._pool(op, value, shape)
            elif isinstance(op, ToMaps):
                result = self._to_maps(value, shape)
            else:
                assert isinstance(op, Dense)
                result = self._dense(op, value)
        if not keep:
            self._free(value)
        return result

    def _renamed(self, value: Value, shape: tuple[int, ...], keep: bool) -> Value:
        """The same numbers under another shape; a copy where the value is needed afterwards."""
        if not keep:
            return Value(shape, value.offset)
        result = self._new(shape)
        self._copy(value, result.offset or 0)
        return result

    def _copy(self, value: Value, offset: int) -> None:
        self._say(f"memcpy(scratch + {offset}, {self._at(value)}, {value.size} * sizeof(float));")

    def _to_maps(self, value: Value, shape: tuple[int, ...]) -> Value:
        """Channels from last to first, from the image (then scaled) or the scratch array."""
        channels, rows, columns = shape
        result = self._new(shape)
        scale = c_float(self._quantised.graph.scale)
        index = f"i * {channels} + c"
        number = (
            f"(float)image[{index}] / {scale}"
            if value.offset is None
            else f"scratch[{value.offset} + {index}]"
        )
        self._say(
            f"for (int c = 0; c < {channels}; ++c)",
            f"    for (int i = 0; i < {rows * columns}; ++i)",
            f"        scratch[{result.offset} + c * {rows * columns} + i] = {number};",
        )
        return result

    def _branches(
        self, op: Multiply | Concatenate, value: Value, keep: bool, shape: tuple[int, ...]
    ) -> Value:
        branches = (op.left, op.right) if isinstance(op, Multiply) else op.branches
        # Branches of nothing but rank-one forms read the image itself, which takes no memory.
        if not all(b and isinstance(b[0], (RankOneForms, ToMaps)) for b in branches):
            floats = self._as_floats(value)
            if floats is not value:
                value, keep = floats, False
        if isinstance(op, Multiply):
            result = self._product(op, value)
        else:
            result = self._new(shape)
            place = result.offset or 0
            for branch in op.branches:
                place += self._placed(branch, value, place)
        if not keep:
            self._free(value)
        return result

    def _product(self, op: Multiply, value: Value) -> Value:
        left, right = self._branch(op.left, value), self._branch(op.right, value)
        self._say(
            f"for (int i = 0; i < {left.size}; ++i)"
            f" scratch[{left.offset} + i] *= scratch[{right.offset} + i];"
        )
        self._free(right)
        return left

    def _placed(self, branch: Sequence[Op], value: Value, place: int) -> int:
        """A branch with its result at a place; gives its size."""
        if len(branch) == 1 and isinstance(branch[0], RankOneForms):
            return self._forms(branch[0], value, place).size
        result = self._branch(branch, value)
        self._copy(result, place)
        self._free(result)
        return result.size

    def _branch(self, branch: Sequence[Op], value: Value) -> Value:
        """A branch's result in a place of its own; the value that it starts from stays."""
        result = self._ops(branch, value, keep=True)
        if result.offset == value.offset:
            result = self._renamed(result, result.shape, keep=True)
        return result

    def _each(self, op: Activate | Square | Affine, value: Value, keep: bool) -> Value:
        """One number after another, in place where the value isn't needed afterwards."""
        result = self._new(value.shape) if keep else value
        x = f"scratch[{value.offset} + i]"
        if isinstance(op, Square):
            formula = f"{x} * {x}"
        elif isinstance(op, Activate):
            formula = self._activated(op.name, x)
        else:
            inner = value.size // value.shape[0]
            channel = f"i / {inner}" if inner > 1 else "i"
            scale, shift = self._bias(op.scale), self._bias(op.shift)
            formula = f"{x} * {scale}[{channel}] + {shift}[{channel}]"
        self._say(
            f"for (int i = 0; i < {value.size}; ++i) scratch[{result.offset} + i] = {formula};"
        )
        return result

    def _activated(self, name: str, x: str) -> str:
        if name == "identity":
            return x
        if name == "tanh":
            return f"tanhf({x})"
        self.activations.add(name)
        return f"{self._name}_{name}({x})"

    def _dense(self, op: Dense, value: Value) -> Value:
        n_out = op.weight.shape[1]
        encoded, _, load = self._weights(op.weight, "dense")
        bias = self._bias(op.bias)
        result = self._new((n_out,))
        factor = ""
        if encoded.scales is not None:
            factor = f" * {self._table(encoded.scales, 'scale')}[k]"
        weight = load.format(index=f"(size_t)i * {n_out} + (size_t)k")
        out = f"scratch[{result.offset} + k]"
        self._say(
            f"for (int k = 0; k < {n_out}; ++k) {out} = 0.0f;",
            f"for (int i = 0; i < {value.size}; ++i) {{",
            f"    const float x = scratch[{value.offset} + i];",
            f"    for (int k = 0; k < {n_out}; ++k) {out} += x * {weight};",
            "}",
            f"for (int k = 0; k < {n_out}; ++k) {out} = {out}{factor} + {bias}[k];",
        )
        return result

    def _convolve(
        self,
        op: Convolve | ConvolveForms,
        value: Value,
        shape: tuple[int, ...],
        pool: Pool | None,
    ) -> Value:
        """Filter by filter: its weights into the scratch array, then slide it over the maps.

        With a pool behind it there is one map at a time, so that not all lie in memory.
        """
        if isinstance(op, Convolve):
            n_out, per_group, height, width = op.weight.shape
            groups = op.groups
        else:
            (n_out, _, per_group), height, width = (
                op.channel.shape,
                *map(_side, (op.row, op.column)),
            )
            groups = 1
        _, rows, columns = value.shape
        length = per_group * height * width
        pooled = shape if pool is None else output_shape((pool,), shape)
        result, kernel = self._new(pooled), self._new((length,))
        one_map = None if pool is None else self._new(shape[1:])
        place = f"{result.offset} + o * {shape[1] * shape[2]}"
        if one_map is not None:
            place = f"{one_map.offset}"
        if isinstance(op, Convolve):
            filling, factor = self._filter(op, length)
        else:
            filling, factor = self._composed_filter(op), ""
        bias = self._bias(op.bias)
        (down, across), (above, left) = numbers(op.stride), numbers(op.padding)
        self._say(
            f"for (int o = 0; o < {n_out}; ++o) {{",
            f"    float *kernel = scratch + {kernel.offset};",
            f"    const float *in = scratch + {value.offset} + (o / {n_out // groups})"
            f" * {per_group * rows * columns};",
            f"    float *out = scratch + {place};",
            *indented(filling),
            f"    for (int y = 0; y < {shape[1]}; ++y) {{",
            f"        const int top = y * {down} - {above};",
            "        const int first = top < 0 ? -top : 0;",
            f"        const int last = top + {height} > {rows} ? {rows} - top : {height};",
            f"        for (int x = 0; x < {shape[2]}; ++x) {{",
            f"            const int side = x * {across} - {left};",
            "            const int from = side < 0 ? -side : 0;",
            f"            const int to = side + {width} > {columns} ? {columns} - side : {width};",
            "            float sum = 0.0f;",
            f"            for (int c = 0; c < {per_group}; ++c)",
            "                for (int a = first; a < last; ++a)",
            "                    for (int b = from; b < to; ++b)",
            f"                        sum += kernel[(c * {height} + a) * {width} + b]"
            f" * in[(c * {rows} + top + a) * {columns} + side + b];",
            f"            out[y * {shape[2]} + x] = sum{factor} + {bias}[o];",
            "        }",
            "    }",
        )
        if pool is not None and one_map is not None:
            self._say(*indented(pool_lines(pool, "out", "o", shape, pooled, result)))
            self._free(one_map)
        self._say("}")
        self._free(kernel)
        return result

    def _filter(self, op: Convolve, length: int) -> tuple[list[str], str]:
        encoded, _, load = self._weights(op.weight, "kernel")
        factor = ""
        if encoded.scales is not None:
            factor = f" * {self._table(encoded.scales, 'scale')}[o]"
        number = load.format(index=f"(size_t)o * {length} + (size_t)j")
        return [f"for (int j = 0; j < {length}; ++j) kernel[j] = {number};"], factor

    def _composed_filter(self, op: ConvolveForms) -> list[str]:
        _, rank, channels = op.channel.shape
        height, width = _side(op.row), _side(op.column)
        vectors = [
            self._weights(v, what)
            for v, what in ((op.channel, "channel"), (op.row, "row"), (op.column, "column"))
        ]
        loads = [
            load.format(index=f"(o * {rank} + r) * {n} + {i}")
            for (_, _, load), n, i in zip(vectors, (channels, height, width), "cab", strict=True)
        ]
        scale = ""
        if vectors[0][0].scales is not None:
            table = self._table(_scale_of_product([v[0] for v in vectors]), "scale")
            scale = f" * {table}[o * {rank} + r]"
        return [
            f"for (int j = 0; j < {channels * height * width}; ++j) kernel[j] = 0.0f;",
            f"for (int r = 0; r < {rank}; ++r) {{",
            f"    for (int a = 0; a < {height}; ++a) {{",
            f"        const float u = {loads[1]}{scale};",
            f"        for (int b = 0; b < {width}; ++b) {{",
            f"            const float uv = u * {loads[2]};",
            f"            for (int c = 0; c < {channels}; ++c)",
            f"                kernel[(c * {height} + a) * {width} + b] += uv * {loads[0]};",
            "        }",
            "    }",
            "}",
        ]

    def _pool(self, op: Pool, value: Value, shape: tuple[int, ...]) -> Value:
        result = self._new(shape)
        size = value.shape[1] * value.shape[2]
        self._say(
            f"for (int c = 0; c < {shape[0]}; ++c) {{",
            f"    const float *one = scratch + {value.offset} + c * {size};",
            *indented(pool_lines(op, "one", "c", value.shape, shape, result)),
            "}",
        )
        return result

    # -- rank-one forms -------------------------------------------------------------------------

    def _forms(self, op: RankOneForms, value: Value, place: int | None = None) -> Value:
        """Unit by unit, form by form: load the vectors inside their windows, then contract.

        `place` is where the result goes if there is a place for it already.
        """
        rank, n_units, _ = op.factors[0].shape
        encoded = [self._quantised.of(factor) for factor in op.distinct]
        windows, packed = packed_windows(encoded)
        sides = [e.values.shape[2] for e in encoded]
        n_vectors = len(encoded)
        self.n_numbers += packed.size
        name = self._table(packed, "vectors")
        load = self._load(encoded[0], name).format(index="next++")
        bias = self._bias(op.bias)
        whole = bool(np.all(windows == [[0, side] for side in sides]))
        table = ""
        if not whole:
            windows = windows.astype(np.min_scalar_type(max(sides)))
            table = self._table(windows, "windows")
        result = self._new((n_units,)) if place is None else Value((n_units,), place)
        lines = ["size_t next = 0;"]
        if table:
            lines.append(f"const {C_TYPES[windows.dtype.str[1:]]} *window = {table};")
        lines += [f"for (int i = 0; i < {n_units}; ++i) {{", "    float q = 0.0f;"]
        inner = []
        for j in range(n_vectors):
            first, length = (f"window[{2 * j}]", f"window[{2 * j + 1}]")
            if whole:
                first, length = "0", str(sides[j])
            inner += [
                f"const int s{j} = {first}, n{j} = {length};",
                f"float v{j}[{sides[j]}];",
                f"for (int j = 0; j < n{j}; ++j) v{j}[j] = {load};",
            ]
        pixel = "(float)image[{index}]"
        if value.offset is not None:
            pixel = f"scratch[{value.offset} + {{index}}]"
        inner += contraction(value.shape, op.vector_of_axis, pixel)
        if encoded[0].scales is not None:
            # One scale a form, the product of its vectors', unit by unit.
            product = _scale_of_product([encoded[j] for j in op.vector_of_axis])
            scale = self._table(np.swapaxes(product, 0, 1), "scale")
            position = f"i * {rank} + r" if rank > 1 else "i"
            inner.append(f"q += t0 * {scale}[{position}];")
        else:
            inner.append("q += t0;")
        if table:
            inner.append(f"window += {2 * n_vectors};")
        if rank > 1:
            inner = [f"for (int r = 0; r < {rank}; ++r) {{", *indented(inner), "}"]
        lines += indented(inner)
        if value.offset is None and self._quantised.graph.scale != 1.0:
            lines.append(f"    q /= {c_float(self._quantised.graph.scale)};")
        lines += [f"    scratch[{result.offset} + i] = q + {bias}[i];", "}"]
        self._say("{", *indented(lines), "}")
        return result


def _scale_of_product(encoded: Sequence[Encoded]) -> np.ndarray:
    """Scales of forms from those of their vectors, ``(n, m, 1)`` each, as ``(n, m)``."""
    product = np.ones(1)
    for one in encoded:
        assert one.scales is not None
        product = product * one.scales[..., 0].astype(np.float64)
    return product.astype(np.float32)


def _side(vectors: np.ndarray) -> int:
    return vectors.shape[-1]
