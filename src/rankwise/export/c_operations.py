"""The operations of a graph as C statements, and where their values lie in the scratch array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rankwise.export.c_chain import ON_ROWS, ONE_BY_ONE, Chains, Sink
from rankwise.export.c_forms import contraction, packed_windows
from rankwise.export.c_program import C_TYPES, Value, c_float, indented
from rankwise.export.quantise import Encoded
from rankwise.networks.graph import (
    Add,
    Concatenate,
    Dense,
    Flatten,
    Multiply,
    Op,
    RankOneForms,
    ToMaps,
    output_shape,
)
from rankwise.networks.operations import branches_of

_STEPS = {Multiply: "*=", Add: "+=", Concatenate: "="}


class Emitter(Chains):
    """Translates the operations of a graph."""

    def emit_graph(self) -> str:
        """Emit all; gives the C expression of the logits."""
        graph = self._quantised.graph
        value = self._ops(graph.ops, Value(graph.image_shape, None), keep=True)
        return self._at(value)

    # -- operations ---------------------------------------------------------------------------

    def _ops(self, ops: Sequence[Op], value: Value, *, keep: bool) -> Value:
        """Emit operations; `keep` says that the value they start from is needed afterwards."""
        for part in _parts(ops, value.maps):
            after = self._part(part, value, keep)
            if after.offset != value.offset:
                keep = after.offset is None
            value = after
        return value

    def _part(self, part: tuple[Op, ...], value: Value, keep: bool) -> Value:
        """Emit one part; frees `value` unless it is kept, or is the result's place."""
        op = part[0]
        shape = output_shape(part, value.shape)
        if isinstance(op, ToMaps):
            value, part = (
                replace(value, shape=output_shape((op,), value.shape), maps=True),
                part[1:],
            )
            if not part:
                return value
            op = part[0]
        if value.maps and isinstance(op, (*ON_ROWS, Flatten)):
            if (
                not keep
                and value.offset is not None
                and all(isinstance(o, ONE_BY_ONE) for o in part)
            ):
                return self._each(part, value, keep)
            result = self._new(shape, maps=len(shape) == 3)
            self._chain_to(part, value, Sink(result.offset or 0, shape[0]))
        elif isinstance(op, RankOneForms):
            result = self._forms(op, value)
        elif isinstance(op, (Multiply, Add, Concatenate)):
            return self._branches(op, value, keep, shape)
        else:
            floats = self._as_floats(value)
            if floats is not value:
                value, keep = floats, False
            if isinstance(op, Flatten):
                return self._renamed(value, shape, keep)
            if isinstance(op, ONE_BY_ONE):
                return self._each(part, value, keep)
            assert isinstance(op, Dense)
            result = self._dense(op, value)
        if not keep:
            self._free(value)
        return result

    def _chain_to(self, part: Sequence[Op], value: Value, sink: Sink) -> None:
        if part and isinstance(part[-1], Flatten):
            part, sink = part[:-1], replace(sink, flat=True)
        self._chain(part, value, sink)

    def _renamed(self, value: Value, shape: tuple[int, ...], keep: bool) -> Value:
        """The same numbers under another shape; a copy where the value is needed afterwards."""
        if not keep:
            return Value(shape, value.offset)
        result = self._new(shape)
        self._copy(value, result.offset or 0)
        return result

    def _copy(self, value: Value, offset: int) -> None:
        self._say(f"memcpy(scratch + {offset}, {self._at(value)}, {value.size} * sizeof(float));")

    def _branches(
        self, op: Multiply | Add | Concatenate, value: Value, keep: bool, shape: tuple[int, ...]
    ) -> Value:
        branches = branches_of(op)
        # What reads the image itself takes no memory.
        if not all(_reads_the_image(branch, value) for branch in branches):
            floats = self._as_floats(value)
            if floats is not value:
                value, keep = floats, False
        result = self._new(shape, maps=_gives_maps(branches[0], value.maps))
        place = result.offset or 0
        channel = 0
        for i, branch in enumerate(branches):
            n = output_shape(branch, value.shape)[0]
            step = "=" if i == 0 else _STEPS[type(op)]
            self._into(branch, value, Sink(place, shape[0], channel, step=step))
            if isinstance(op, Concatenate):
                channel += n
        if not keep:
            self._free(value)
        return result

    def _into(self, branch: Sequence[Op], value: Value, sink: Sink) -> None:
        """A branch with its result in a place; the value that it starts from stays."""
        *before, last = _parts(branch, value.maps) or [()]
        start = self._ops([op for part in before for op in part], value, keep=True)
        maps = start.maps or (bool(last) and isinstance(last[0], ToMaps))
        if maps and (not last or isinstance(last[0], (*ON_ROWS, Flatten))):
            if last and isinstance(last[-1], Flatten):
                sink = replace(sink, offset=sink.offset + sink.first)
            self._chain_to(last, start, sink)
            if start.offset != value.offset:
                self._free(start)
            return
        place = sink.offset + sink.first
        if len(last) == 1 and isinstance(last[0], RankOneForms) and sink.step == "=":
            self._forms(last[0], start, place)
            if start.offset != value.offset:
                self._free(start)
            return
        result = self._ops(last, start, keep=start.offset == value.offset)
        if sink.step != "=":
            self._say(
                f"for (int i = 0; i < {result.size}; ++i)"
                f" scratch[{place} + i] {sink.step} scratch[{result.offset} + i];"
            )
        else:
            self._copy(result, place)
        if result.offset != value.offset:
            self._free(result)

    def _each(self, ops: Sequence[Op], value: Value, keep: bool) -> Value:
        """One number after another, in place where the value isn't needed afterwards."""
        result = self._new(value.shape, maps=value.maps) if keep else value
        source = value
        for op in ops:
            inner = value.size // value.shape[0]
            channel = (
                f"i % {value.shape[0]}" if value.maps else f"i / {inner}" if inner > 1 else "i"
            )
            formula, _ = self._one(op, f"scratch[{source.offset} + i]", channel)
            to = f"scratch[{result.offset} + i]"
            self._say(f"for (int i = 0; i < {value.size}; ++i) {to} = {formula};")
            source = result
        return result

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
        inner += contraction(value.strides, op.vector_of_axis, pixel)
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


def _parts(ops: Sequence[Op], maps: bool) -> list[tuple[Op, ...]]:
    """Operations that are emitted together: chains on maps, and single ones."""
    parts: list[list[Op]] = []
    together = False
    for op in ops:
        maps = maps or isinstance(op, ToMaps)
        on_rows = maps and isinstance(op, (*ON_ROWS, Flatten))
        if on_rows and together:
            parts[-1].append(op)
        else:
            parts.append([op])
        maps = _gives_maps((op,), maps)
        together = on_rows and maps
    return [tuple(part) for part in parts]


def _gives_maps(ops: Sequence[Op], maps: bool) -> bool:
    """Whether maps come out, from maps or something else."""
    for op in ops:
        if isinstance(op, ToMaps):
            maps = True
        elif isinstance(op, (Flatten, RankOneForms, Dense)):
            maps = False
        elif isinstance(op, (Multiply, Add)):
            maps = _gives_maps(op.left, maps)
        elif isinstance(op, Concatenate):
            maps = _gives_maps(op.branches[0], maps)
    return maps


def _reads_the_image(branch: Sequence[Op], value: Value) -> bool:
    """Whether a branch takes the image as it comes."""
    first = (ToMaps, RankOneForms)
    return bool(branch) and isinstance(branch[0], (*first, *ON_ROWS) if value.maps else first)
