"""Sums over the columns of a mixed row, and over the rows of output that it reaches, in C."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slide:
    """One function: ``h = Σ_k v_k·t[x·step + k]``, then ``out`` and the sums that aren't complete.

    The row that came in is the last of ``rows`` for the row of output that is now complete, the
    last but one for the next, and so on: ``out = sums₀ + u_last·h``, ``sums_j = sums_j+1 + u·h``.

    Attributes
    ----------
    units, places, columns, step : int
        Sums a place, places, numbers summed along the row, and how far apart places begin.
    rows : int
        Rows of output that the row reaches; 0 where it is a whole patch, and `h` is the sum.
    first : bool
        The first form of the units: it begins the sums, with the bias.
    """

    units: int
    places: int
    columns: int
    step: int
    rows: int
    first: bool

    @property
    def name(self) -> str:
        """Of the function, behind the program's prefix."""
        kind = "first" if self.first else "more"
        sizes = (self.units, self.places, self.columns, self.step, self.rows)
        return f"{kind}_{'_'.join(map(str, sizes))}"

    def call(self, mixed: str, v: str, u: str, bias: str, sums: str, out: str) -> str:
        """A call; what such a function doesn't take is left out."""
        given = [mixed, v, *([u] if self.rows else []), *([bias] if self.first else [])]
        given += [sums] if self.rows > 1 else []
        return f"@NAME@_{self.name}({', '.join([*given, out])});"

    def definition(self) -> list[str]:
        """The function."""
        units, rows = self.units, self.rows
        names = ["t", "v", *(["u"] if rows else []), *(["bias"] if self.first else [])]
        parameters = [f"const float *@NAME@_RESTRICT {name}" for name in names]
        parameters += ["float *@NAME@_RESTRICT sums"] if rows > 1 else []
        parameters += ["float *@NAME@_RESTRICT out"]
        length = self.places * units
        total = " + ".join(
            f"v[{k * units} + o] * a[{k * units} + o]" if k else "v[o] * a[o]"
            for k in range(self.columns)
        )
        body = [f"const float h = {total};"]
        begin = "bias[o] + " if self.first else ""
        assign = "=" if self.first else "+="
        if not rows:
            body.append(f"to[o] {assign} {begin}h;")
        elif rows == 1:
            body.append(f"to[o] {assign} {begin}u[o] * h;")
        else:
            before = f"{begin}part[o] + " if self.first else ""
            body.append(f"to[o] {assign} {before}u[{(rows - 1) * units} + o] * h;")
            for j in range(rows - 1):
                place = f"part[{j * length} + o]" if j else "part[o]"
                later = f"part[{(j + 1) * length} + o] + " if self.first and j < rows - 2 else ""
                weight = f"u[{(rows - 2 - j) * units} + o]" if j < rows - 2 else "u[o]"
                body.append(f"{place} {assign} {later}{weight} * h;")
        part = [f"        float *part = sums + x * {units};"] if rows > 1 else []
        return [
            f"static void @NAME@_{self.name}({', '.join(parameters)}) {{",
            f"    for (int x = 0; x < {self.places}; ++x) {{",
            f"        const float *a = t + x * {self.step * units};",
            f"        float *to = out + x * {units};",
            *part,
            f"        for (int o = 0; o < {units}; ++o) {{",
            *(f"            {line}" for line in body),
            "        }",
            "    }",
            "}",
        ]


def zeros_slid(units: int, places: int, rows: int) -> list[str]:
    """What a row of zeros does: the sums move up, the first becomes the row of output."""
    length = places * units
    lines = [
        f"for (int i = 0; i < {length}; ++i) out[i] = bias[i % {units}]"
        + (" + sums[i];" if rows > 1 else ";")
    ]
    if rows > 2:
        moved = (rows - 2) * length
        lines.append(f"memmove(sums, sums + {length}, {moved} * sizeof(float));")
    if rows > 1:
        lines.append(f"memset(sums + {(rows - 2) * length}, 0, {length} * sizeof(float));")
    return lines
