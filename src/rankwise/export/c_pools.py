"""Pools in C, alone and right behind a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.export.c_program import Value, c_float
from rankwise.networks.graph import Convolve, ConvolveForms, Op, Pool


@dataclass(frozen=True, eq=False)
class Pooled:
    """A convolution and the pool right behind it, emitted together."""

    convolution: Convolve | ConvolveForms
    pool: Pool


def with_pools(ops: Sequence[Op]) -> list[Op | Pooled]:
    """The operations, each convolution that a pool follows joined with it."""
    joined: list[Op | Pooled] = []
    for op in ops:
        if joined and isinstance(op, Pool) and isinstance(joined[-1], (Convolve, ConvolveForms)):
            joined[-1] = Pooled(joined[-1], op)
        else:
            joined.append(op)
    return joined


def pool_lines(
    op: Pool,
    source: str,
    channel: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
    result: Value,
) -> list[str]:
    """Pool one map, at the C pointer `source`, into its place in the result."""
    (height, width), (down, across) = numbers(op.size), numbers(op.stride)
    columns = before[2]
    mean = op.kind == "mean"
    step = "pooled += v" if mean else "pooled = v > pooled ? v : pooled"
    start = "0.0f" if mean else f"{source}[y * {down * columns} + x * {across}]"
    end = f"pooled / {c_float(height * width)}" if mean else "pooled"
    return [
        f"for (int y = 0; y < {after[1]}; ++y)",
        f"    for (int x = 0; x < {after[2]}; ++x) {{",
        f"        float pooled = {start};",
        f"        for (int a = 0; a < {height}; ++a)",
        f"            for (int b = 0; b < {width}; ++b) {{",
        f"                const float v = {source}[(y * {down} + a) * {columns}"
        f" + x * {across} + b];",
        f"                {step};",
        "            }",
        f"        scratch[{result.offset} + ({channel} * {after[1]} + y) * {after[2]} + x]"
        f" = {end};",
        "    }",
    ]


def numbers(pair: Any) -> tuple[int, int]:
    """Two plain integers of an operation's stride, padding or size."""
    return int(pair[0]), int(pair[1])
