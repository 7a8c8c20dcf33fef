"""All separable problems of NIST's Statistical Reference Datasets for nonlinear regression.

The files in ``nist/`` are NIST's own: data, two starts, certified parameters, standard deviations
and residual sums of squares, to eleven digits. They are a work of the United States government and
in the public domain: https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml. All 27 problems with
one response are separable, three after a change of parameters (Chwirut1, Chwirut2, MGH09).

Each problem here is a separable model, and how NIST's parameters follow from its two kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.varpro import SeparableModel

FOLDER = Path(__file__).parent / "nist"


@dataclass(frozen=True)
class Problem:
    """A problem of NIST's.

    Attributes
    ----------
    model : SeparableModel
    x, y : arrays
        ``y`` as it's fitted (Nelson's is the logarithm).
    starts : tuple of arrays of shape (p,)
        In NIST's parameters.
    certified, deviations : arrays of shape (p,)
    rss : float
    full : callable
        ``full(x, b)``: the whole model in NIST's parameters.
    nonlinear : callable
        From NIST's parameters to the model's.
    join : callable
        From nonlinear and linear parameters to NIST's.
    linear_bounds : pair, or None
    alike : tuple of tuples of int
        Groups of NIST's parameters that a fit may find in another order.
    """

    name: str
    model: SeparableModel
    x: np.ndarray
    y: np.ndarray
    starts: tuple[np.ndarray, ...]
    certified: np.ndarray
    deviations: np.ndarray
    rss: float
    full: Callable[..., Any]
    nonlinear: Callable[[np.ndarray], Any]
    join: Callable[[Any, Any], Any]
    linear_bounds: tuple[Any, Any] | None = None
    alike: tuple[tuple[int, ...], ...] = ()

    def found(self, fit) -> tuple[np.ndarray, np.ndarray]:
        """A fit's parameters and standard errors as NIST has them, by the delta method."""
        theta, coef = np.asarray(fit.params), fit.coef[:, 0]
        both = np.concatenate([theta, coef])
        values = np.real(np.asarray(self.join(theta, coef)))
        slope = np.empty((len(values), len(both)))
        for i in range(len(both)):
            h = 1e-20 * (abs(both[i]) or 1.0)
            moved = both.astype(complex)
            moved[i] += 1j * h
            slope[:, i] = np.imag(np.asarray(self.join(*np.split(moved, [len(theta)])))) / h
        errors = np.sqrt(np.einsum("ij,jk,ik->i", slope, fit.covariance(), slope))
        return self.in_order(values), errors[self.order(values)]

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """NIST's order of terms that are alike."""
        return values[self.order(values)]

    def order(self, values: np.ndarray) -> np.ndarray:
        """Positions of terms that are alike, in NIST's order."""
        order = np.arange(len(values))
        if self.alike:
            first = np.array([group[0] for group in self.alike])
            wanted = np.argsort(np.argsort(self.certified[first]))
            given = np.argsort(values[first])
            for place, rank in enumerate(wanted):
                order[list(self.alike[place])] = self.alike[given[rank]]
        return order


def digits(found: np.ndarray, certified: np.ndarray) -> float:
    """The fewest correct digits (log relative error), at most 11."""
    with np.errstate(divide="ignore"):
        lost = -np.log10(np.abs(found - certified) / np.abs(certified))
    return float(np.clip(np.min(np.where(np.isnan(lost), 0.0, lost)), 0.0, 11.0))


def _read(name: str) -> dict[str, Any]:
    """A file of NIST's."""
    lines = (FOLDER / f"{name}.dat").read_text(encoding="ascii").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("Data:") and i > 40)
    rows = []
    for line in lines:
        label, _, rest = line.partition("=")
        if label.strip().startswith("b") and label.strip()[1:].isdigit():
            numbers = rest.split()
            if len(numbers) == 4:
                rows.append([float(v) for v in numbers])
    table = np.array(rows)
    data = np.array(
        [[float(v) for v in line.split()] for line in lines[first + 1 :] if line.strip()]
    )
    rss = next(line for line in lines if line.startswith("Residual Sum of Squares"))
    return {
        "x": data[:, 1] if data.shape[1] == 2 else data[:, 1:],
        "y": data[:, 0],
        "starts": (table[:, 0], table[:, 1]),
        "certified": table[:, 2],
        "deviations": table[:, 3],
        "rss": float(rss.split()[-1]),
    }


def _plain(nonlinear: Sequence[int], linear: Sequence[int]) -> dict[str, Any]:
    """NIST's parameters, numbered from 1, are the model's in another order."""
    theta, coef = [i - 1 for i in nonlinear], [i - 1 for i in linear]

    def join(t: Any, a: Any) -> Any:
        values: list[Any] = [None] * (len(theta) + len(coef))
        for i, v in zip([*theta, *coef], [*t, *a], strict=True):
            values[i] = v
        return values

    return {"nonlinear": lambda b: b[theta], "join": join}


def _one(function: Callable[..., Any], *names: str) -> SeparableModel:
    return SeparableModel(names).term(function, names)


def _exponentials(n: int, constant: bool) -> SeparableModel:
    names = [f"k{i}" for i in range(n)]
    model = SeparableModel(names)
    if constant:
        model = model.constant()
    for name in names:
        model = model.term(lambda x, k: np.exp(-k * x), [name])
    return model


def _rational(numerator: int, denominator: int) -> SeparableModel:
    names = [f"q{i}" for i in range(1, denominator + 1)]
    model = SeparableModel(names)
    for power in range(numerator + 1):
        model = model.term(
            lambda x, *q, power=power: (
                x**power / (1 + sum(c * x ** (i + 1) for i, c in enumerate(q)))
            ),
            names,
        )
    return model


def _gauss() -> SeparableModel:
    model = SeparableModel(["k", "c1", "w1", "c2", "w2"]).term(lambda x, k: np.exp(-k * x))
    for names in (["c1", "w1"], ["c2", "w2"]):
        model = model.term(lambda x, c, w: np.exp(-(((x - c) / w) ** 2)), names)
    return model


def _enso() -> SeparableModel:
    model = SeparableModel(["p1", "p2"]).constant()
    model = model.term(lambda x: np.cos(2 * np.pi * x / 12), ())
    model = model.term(lambda x: np.sin(2 * np.pi * x / 12), ())
    for name in ("p1", "p2"):
        model = model.term(lambda x, p: np.cos(2 * np.pi * x / p), [name])
        model = model.term(lambda x, p: np.sin(2 * np.pi * x / p), [name])
    return model


def _exponential_sum(x: Any, b: Any) -> Any:
    return sum(b[i] * np.exp(-b[i + 1] * x) for i in range(0, len(b), 2))


def _gauss_full(x: Any, b: Any) -> Any:
    bells = b[2] * np.exp(-(((x - b[3]) / b[4]) ** 2)) + b[5] * np.exp(-(((x - b[6]) / b[7]) ** 2))
    return b[0] * np.exp(-b[1] * x) + bells


def _rational_full(n: int) -> Callable[..., Any]:
    def full(x: Any, b: Any) -> Any:
        top = sum(b[i] * x**i for i in range(n + 1))
        return top / (1 + sum(c * x ** (i + 1) for i, c in enumerate(b[n + 1 :])))

    return full


def _enso_full(x: Any, b: Any) -> Any:
    total = b[0]
    for p, c, s in ((12.0, b[1], b[2]), (b[3], b[4], b[5]), (b[6], b[7], b[8])):
        total = total + c * np.cos(2 * np.pi * x / p) + s * np.sin(2 * np.pi * x / p)
    return total


_CHWIRUT = {
    "model": _one(lambda x, b1, r: np.exp(-b1 * x) / (1 + r * x), "b1", "r"),
    "full": lambda x, b: np.exp(-b[0] * x) / (b[1] + b[2] * x),
    "nonlinear": lambda b: np.array([b[0], b[2] / b[1]]),
    "join": lambda t, a: [t[0], 1 / a[0], t[1] / a[0]],
}
_LANCZOS = {
    "model": _exponentials(3, constant=False),
    "full": _exponential_sum,
    "alike": ((1, 0), (3, 2), (5, 4)),
    **_plain([2, 4, 6], [1, 3, 5]),
}
_GAUSS = {"model": _gauss(), "full": _gauss_full, **_plain([2, 4, 5, 7, 8], [1, 3, 6])}
_FIRST = _plain([2], [1])

DEFINITIONS: dict[str, dict[str, Any]] = {
    "Misra1a": {
        "model": _one(lambda x, b: 1 - np.exp(-b * x), "b"),
        "full": lambda x, b: b[0] * (1 - np.exp(-b[1] * x)),
        **_FIRST,
    },
    "Misra1b": {
        "model": _one(lambda x, b: 1 - (1 + b * x / 2) ** -2, "b"),
        "full": lambda x, b: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
        **_FIRST,
    },
    "Misra1c": {
        "model": _one(lambda x, b: 1 - (1 + 2 * b * x) ** -0.5, "b"),
        "full": lambda x, b: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
        **_FIRST,
    },
    "Misra1d": {
        "model": _one(lambda x, b: b * x / (1 + b * x), "b"),
        "full": lambda x, b: b[0] * b[1] * x / (1 + b[1] * x),
        **_FIRST,
    },
    "Chwirut1": _CHWIRUT,
    "Chwirut2": _CHWIRUT,
    "Lanczos1": _LANCZOS,
    "Lanczos2": _LANCZOS,
    "Lanczos3": _LANCZOS,
    "Gauss1": _GAUSS,
    "Gauss2": _GAUSS,
    "Gauss3": _GAUSS,
    "DanWood": {
        "model": _one(lambda x, b: x**b, "b"),
        "full": lambda x, b: b[0] * x ** b[1],
        **_FIRST,
    },
    "Kirby2": {
        "model": _rational(2, 2),
        "full": _rational_full(2),
        **_plain([4, 5], [1, 2, 3]),
    },
    "Hahn1": {
        "model": _rational(3, 3),
        "full": _rational_full(3),
        **_plain([5, 6, 7], [1, 2, 3, 4]),
    },
    "Thurber": {
        "model": _rational(3, 3),
        "full": _rational_full(3),
        **_plain([5, 6, 7], [1, 2, 3, 4]),
    },
    "Nelson": {
        "model": SeparableModel(["b3"])
        .constant()
        .term(lambda x, b3: -x[:, 0] * np.exp(-b3 * x[:, 1])),
        "full": lambda x, b: b[0] - b[1] * x[:, 0] * np.exp(-b[2] * x[:, 1]),
        **_plain([3], [1, 2]),
    },
    "MGH09": {
        "model": SeparableModel(["b3", "b4"])
        .term(lambda x, b3, b4: x**2 / (x**2 + x * b3 + b4))
        .term(lambda x, b3, b4: x / (x**2 + x * b3 + b4)),
        "full": lambda x, b: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
        "nonlinear": lambda b: b[2:],
        "join": lambda t, a: [a[0], a[1] / a[0], t[0], t[1]],
    },
    "MGH10": {
        "model": _one(lambda x, b2, b3: np.exp(b2 / (x + b3)), "b2", "b3"),
        "full": lambda x, b: b[0] * np.exp(b[1] / (x + b[2])),
        **_plain([2, 3], [1]),
    },
    "MGH17": {
        "model": _exponentials(2, constant=True),
        "full": lambda x, b: b[0] + b[1] * np.exp(-b[3] * x) + b[2] * np.exp(-b[4] * x),
        "alike": ((3, 1), (4, 2)),
        **_plain([4, 5], [1, 2, 3]),
    },
    "ENSO": {
        "model": _enso(),
        "full": _enso_full,
        **_plain([4, 7], [1, 2, 3, 5, 6, 8, 9]),
    },
    "Roszman1": {
        "model": SeparableModel(["b3", "b4"])
        .constant()
        .term(lambda x: -x, ())
        .term(lambda x, b3, b4: -np.arctan(b3 / (x - b4)) / np.pi),
        "full": lambda x, b: b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi,
        "nonlinear": lambda b: b[2:],
        "join": lambda t, a: [a[0], a[1], t[0], t[1]],
        "linear_bounds": ([-np.inf, -np.inf, 1.0], [np.inf, np.inf, 1.0]),
    },
    "BoxBOD": {
        "model": _one(lambda x, b: 1 - np.exp(-b * x), "b"),
        "full": lambda x, b: b[0] * (1 - np.exp(-b[1] * x)),
        **_FIRST,
    },
    "Eckerle4": {
        "model": _one(lambda x, w, c: np.exp(-0.5 * ((x - c) / w) ** 2) / w, "w", "c"),
        "full": lambda x, b: b[0] / b[1] * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
        **_plain([2, 3], [1]),
    },
    "Rat42": {
        "model": _one(lambda x, b2, b3: 1 / (1 + np.exp(b2 - b3 * x)), "b2", "b3"),
        "full": lambda x, b: b[0] / (1 + np.exp(b[1] - b[2] * x)),
        **_plain([2, 3], [1]),
    },
    "Rat43": {
        "model": _one(
            lambda x, b2, b3, b4: (1 + np.exp(b2 - b3 * x)) ** (-1 / b4), "b2", "b3", "b4"
        ),
        "full": lambda x, b: b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3]),
        **_plain([2, 3, 4], [1]),
    },
    "Bennett5": {
        "model": _one(lambda x, b2, b3: (b2 + x) ** (-1 / b3), "b2", "b3"),
        "full": lambda x, b: b[0] * (b[1] + x) ** (-1 / b[2]),
        **_plain([2, 3], [1]),
    },
}


@cache
def problem(name: str) -> Problem:
    """One by its name."""
    given = _read(name)
    if name == "Nelson":
        given["y"] = np.log(given["y"])
    return Problem(name=name, **given, **DEFINITIONS[name])


NAMES = tuple(DEFINITIONS)
