"""Pools in C, row by row."""

from __future__ import annotations

from math import ceil

from rankwise.export.c_program import c_float, numbers
from rankwise.networks.graph import Pool


def pool_room(op: Pool, after: tuple[int, ...]) -> int:
    """Floats that a pool keeps between rows: its rectangles' rows that are being filled."""
    return pool_rows(op) * after[0] * after[2]


def pool_rows(op: Pool) -> int:
    """Rows of output that one row of input takes part in, at most."""
    (height, _), (down, _) = numbers(op.size), numbers(op.stride)
    return ceil(height / down)


def pool_lines(op: Pool, after: tuple[int, ...], kept: int, count: str) -> list[str]:
    """Take one row of input, `row`; with `done`, the row of output `out` is finished.

    Parameters
    ----------
    op : Pool
    after : tuple of int
        Shape of the maps that it gives.
    kept : int
        Place of its rows in the scratch array.
    count : str
        C expression of the number of rows that came before.
    """
    (height, width), (down, across) = numbers(op.size), numbers(op.stride)
    channels, rows, columns = after
    length = columns * channels
    mean = op.kind == "mean"
    slots = pool_rows(op)
    slot = f" + (z % {slots}) * {length}" if slots > 1 else ""
    step = "to[c] += v[c]" if mean else "to[c] = v[c] > to[c] ? v[c] : to[c]"
    lines = [
        f"const int y = {count};",
        "float *out = NULL;",
        f"for (int z = y / {down}; z >= 0 && z * {down} + {height} > y; --z) {{",
        f"    float *part = S + {kept}{slot};",
        f"    if (z >= {rows}) continue;",
        f"    for (int x = 0; x < {columns}; ++x) {{",
        f"        float *to = part + x * {channels};",
        f"        for (int b = 0; b < {width}; ++b) {{",
        f"            const float *v = row + (x * {across} + b) * {channels};",
        f"            if (y == z * {down} && b == 0) {{",
        f"                for (int c = 0; c < {channels}; ++c) to[c] = v[c];",
        "            } else {",
        f"                for (int c = 0; c < {channels}; ++c) {step};",
        "            }",
        "        }",
        "    }",
        f"    if (z * {down} + {height - 1} == y) out = part;",
        "}",
    ]
    if mean:
        size = c_float(height * width)
        lines.append(f"for (int i = 0; out && i < {length}; ++i) out[i] /= {size};")
    return lines
