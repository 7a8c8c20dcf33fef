"""The innermost loops of a C program: weighted sums of a few numbers at many places.

``out[x][o] += Σ_j in[x·step + j]·w[j][o]``: what comes in are a place's channels, or all of its
patch, and `o` runs over units, which lie side by side in `w` and in `out`. Four inputs and two
places at a time, so that a weight is read for two places and a sum is written for four inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

_INPUTS, _PLACES = 4, 2


@dataclass(frozen=True)
class Mix:
    """Sizes of one such loop; programs hold one function for each that differs.

    Attributes
    ----------
    inputs, units, places, step, out_step : int
        Numbers summed, sums a place, places, and how far apart their inputs and their sums lie.
    stored : {"float", "uint16_t", "int8_t"}
        Type of the weights in their table; floats, halves, or int8 with a scale a unit.
    """

    inputs: int
    units: int
    places: int
    step: int
    out_step: int
    stored: str = "float"

    @property
    def name(self) -> str:
        """Of the function, behind the program's prefix."""
        kind = {"float": "", "uint16_t": "h", "int8_t": "q"}[self.stored]
        sizes = (self.inputs, self.units, self.places, self.step, self.out_step)
        return f"mix{kind}_{'_'.join(map(str, sizes))}"

    @property
    def decoded(self) -> int:
        """Floats of scratch that the weights of one turn take where they aren't stored as such."""
        return 0 if self.stored == "float" else min(_INPUTS, self.inputs) * self.units

    def call(self, source: str, weights: str, scales: str, out: str, decoded: str) -> str:
        """A call; `scales` and `decoded` are left out where there are none."""
        given = [source, weights, *([scales] if self.stored == "int8_t" else []), out]
        given += [] if self.stored == "float" else [decoded]
        return f"@NAME@_{self.name}({', '.join(given)});"

    def definition(self) -> list[str]:
        """The function."""
        n = self.inputs
        parameters = ["const float *@NAME@_RESTRICT in", f"const {self.stored} *@NAME@_RESTRICT w"]
        parameters += ["const float *@NAME@_RESTRICT scale"] if self.stored == "int8_t" else []
        parameters += ["float *@NAME@_RESTRICT out"]
        parameters += [] if self.stored == "float" else ["float *@NAME@_RESTRICT decoded"]
        lines = [f"static void @NAME@_{self.name}({', '.join(parameters)}) {{"]
        whole = n // _INPUTS * _INPUTS
        if whole == _INPUTS:
            lines += ["    {", "        const int j = 0;", *self._turn(_INPUTS), "    }"]
        elif whole:
            lines += [
                f"    for (int j = 0; j < {whole}; j += {_INPUTS}) {{",
                *self._turn(_INPUTS),
                "    }",
            ]
        if n > whole:
            lines += ["    {", f"        const int j = {whole};", *self._turn(n - whole), "    }"]
        return [*lines, "}"]

    def _turn(self, k: int) -> list[str]:
        """A few inputs, at all places."""
        units, step = self.units, self.step
        lines = []
        if self.stored == "float":
            lines.append(f"        const float *u = w + j * {units};")
        else:
            number = {"uint16_t": "@NAME@_half({})", "int8_t": "(float){} * scale[o]"}[self.stored]
            lines += [
                "        const float *u = decoded;",
                f"        for (int i = 0; i < {k}; ++i)",
                f"            for (int o = 0; o < {units}; ++o)",
                f"                decoded[i * {units} + o] = "
                + number.format(f"w[(j + i) * {units} + o]")
                + ";",
            ]
        pairs = self.places // _PLACES
        if pairs:
            loop = f"        for (int x = 0; x < {pairs * _PLACES}; x += {_PLACES}) {{"
            lines += [loop, *self._places(k, _PLACES, step), "        }"]
        if self.places % _PLACES:
            x = f"            const int x = {pairs * _PLACES};"
            lines += ["        {", x, *self._places(k, self.places % _PLACES, step), "        }"]
        return lines

    def _places(self, k: int, places: int, step: int) -> list[str]:
        units, pad = self.units, " " * 12
        lines = [
            f"{pad}const float *a = in + x * {step} + j;",
            f"{pad}float *to = out + x * {self.out_step};",
        ]
        for p in range(places):
            names = ", ".join(f"a{p}{i} = a[{p * step + i}]" for i in range(k))
            lines.append(f"{pad}const float {names};")
        lines.append(f"{pad}for (int o = 0; o < {units}; ++o) {{")
        for p in range(places):
            place = f"to[{p * self.out_step} + o]" if p else "to[o]"
            total = " + ".join(f"u[{i * units} + o] * a{p}{i}" for i in range(k))
            lines.append(f"{pad}    {place} += {total};")
        return [*lines, f"{pad}}}"]
