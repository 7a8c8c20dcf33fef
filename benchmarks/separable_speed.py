"""Time of separable fits beside SciPy's least squares on the whole problem.

Three exponentials in 10,000 traces, a lifetime image of 128 × 128 pixels and 256 times,
spectra at 500 wavelengths: each with rates that all right-hand sides share, the first
two also with their own. Seconds are those of one core (process time). SciPy's whole problem grows
with every right-hand side; it's timed on some of them and counted up in proportion, which favours
it where parameters are shared. Its Jacobian is analytic too, sparse where parameters are shared.

python benchmarks/separable_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, sparse

from common import Table, argument_parser, say, write_result
from rankwise import VariableProjection
from rankwise._threads import one_thread
from rankwise.varpro import SeparableModel

FTOL = 1e-8


@dataclass(frozen=True)
class Data:
    """Traces of exponentials: times, targets (n, K), true rates, a start."""

    t: np.ndarray
    y: np.ndarray
    rates: np.ndarray
    start: np.ndarray


def traces(n: int, k: int, rates: np.ndarray, spread: float, seed: int) -> Data:
    """Exponentials with random amplitudes; rates that vary by a relative spread, or don't."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 10, n)
    own = rates * np.exp(spread * rng.standard_normal((k, len(rates))))
    amplitudes = rng.uniform(1, 3, (k, len(rates)))
    y = np.empty((n, k))
    for first in range(0, k, 1000):
        part = slice(first, first + 1000)
        decays = np.exp(-t[None, :, None] * own[part, None, :])
        y[:, part] = np.einsum("knm,km->nk", decays, amplitudes[part])
    y += 0.005 * rng.standard_normal(y.shape)
    return Data(t, y, own, rates * np.linspace(0.8, 1.25, len(rates)))


def exponentials(m: int) -> SeparableModel:
    """A sum of exponentials with their derivatives."""
    names = [f"k{i}" for i in range(m)]
    model = SeparableModel(names)
    for name in names:
        model = model.term(
            lambda x, k: np.exp(-k * x), [name], {name: lambda x, k: -x * np.exp(-k * x)}
        )
    return model


def ours_shared(data: Data) -> np.ndarray:
    """One fit of all right-hand sides."""
    model = exponentials(len(data.start)).at(data.t)
    return np.sort(VariableProjection(ftol=FTOL).fit(model, data.y, data.start).params)


def ours_own(data: Data) -> np.ndarray:
    """One fit for each."""
    model = exponentials(len(data.start)).at(data.t)
    return VariableProjection(ftol=FTOL).fit_each(model, data.y, data.start).params


def scipy_own(method: str) -> Callable[[Data], np.ndarray]:
    """``least_squares`` on the whole model, one right-hand side after another."""

    def fit(data: Data) -> np.ndarray:
        t, m = data.t, len(data.start)
        found = []
        for y in data.y.T:

            def residual(p: np.ndarray, y: np.ndarray = y) -> np.ndarray:
                return np.exp(-np.outer(t, p[:m])) @ p[m:] - y

            def slope(p: np.ndarray) -> np.ndarray:
                decays = np.exp(-np.outer(t, p[:m]))
                return np.hstack([-t[:, None] * decays * p[m:], decays])

            start = np.concatenate([data.start, np.ones(m)])
            result = optimize.least_squares(
                residual, start, jac=slope, x_scale="jac", ftol=FTOL, method=method
            )
            found.append(result.x[:m])
        return np.array(found)

    return fit


def scipy_shared(data: Data) -> np.ndarray:
    """``least_squares`` on the whole problem, all right-hand sides at once, sparse."""
    t, m, k = data.t, len(data.start), data.y.shape[1]
    n = len(t)

    def residual(p: np.ndarray) -> np.ndarray:
        return (np.exp(-np.outer(t, p[:m])) @ p[m:].reshape(m, k) - data.y).T.ravel()

    def slope(p: np.ndarray) -> Any:
        decays, a = np.exp(-np.outer(t, p[:m])), p[m:].reshape(m, k)
        rates = (-t[:, None] * decays)[None] * a.T[:, None, :]
        blocks = [sparse.csr_array(rates.reshape(n * k, m))]
        for j in range(m):
            blocks.append(sparse.kron(sparse.eye_array(k), decays[:, j : j + 1]))
        return sparse.hstack(blocks).tocsr()

    start = np.concatenate([data.start, np.ones(m * k)])
    result = optimize.least_squares(
        residual, start, jac=slope, x_scale="jac", ftol=FTOL, tr_solver="lsmr"
    )
    return np.sort(result.x[:m])


THREE = np.array([0.15, 0.9, 6.0])
TWO = np.array([0.25, 1.5])
PROBLEMS: dict[str, dict[str, Any]] = {
    "3 exponentials, 10,000 traces": {"n": 256, "k": 10_000, "rates": THREE},
    "lifetime image 128 × 128 × 256": {"n": 256, "k": 128 * 128, "rates": TWO},
    "spectra, 500 wavelengths": {"n": 200, "k": 500, "rates": THREE},
}


def main() -> None:
    """Fit, print, write."""
    args = argument_parser(__doc__, "separable_speed", seeds=None).parse_args()
    shrink = 40 if args.quick else 1
    rows, data = [], []
    with one_thread():
        for name, options in PROBLEMS.items():
            given = options | {"k": max(20, options["k"] // shrink)}
            for kind, spread in (("shared", 0.0), ("own", 0.1)):
                if kind == "own" and "spectra" in name:
                    continue
                made = traces(**given, spread=spread, seed=42)
                row = compare(kind, made, 8 if args.quick else 40)
                say(f"{name}, {kind}: {row['ours']:.2f} s")
                data.append({"problem": name, "parameters": kind, "k": given["k"]} | row)
                rivals = [row["least_squares"], row["MINPACK"]]
                rows.append(
                    [
                        f"{name}, {kind}",
                        f"{row['ours']:.2f}",
                        *("–" if r is None else f"{r:.1f}" for r in rivals),
                        f"{row['least_squares'] / row['ours']:.0f}",
                    ]
                )
    table = Table(
        "Seconds of one core",
        ("problem, rates", "ours", "least_squares", "MINPACK", "times"),
        rows,
    )
    print(table.text())
    write_result(
        args,
        "Separable fits of many right-hand sides",
        [table],
        data,
        {"ftol": FTOL, "seed": 42},
        notes=(
            "least_squares is SciPy's with its default method (trf); MINPACK is its method 'lm', "
            "for single traces only. 'times': least_squares over ours.",
            "The Rust crate varpro wasn't measured: its registry can't be reached from here.",
        ),
    )


def compare(kind: str, data: Data, some: int) -> dict[str, Any]:
    """Seconds for all right-hand sides, SciPy's counted up from some; and whether they agree."""
    k = data.y.shape[1]
    part = Data(data.t, data.y[:, :some], data.rates[:some], data.start)
    if kind == "shared":
        seconds, ours = cpu(ours_shared, data)
        theirs, found = cpu(scipy_shared, part)
        away = np.max(np.abs(ours_shared(part) - found) / found)
        result: dict[str, Any] = {"ours": seconds, "MINPACK": None}
    else:
        seconds, ours = cpu(ours_own, data)
        theirs, found = cpu(scipy_own("trf"), part)
        lm, _ = cpu(scipy_own("lm"), part)
        away = np.median(np.abs(ours[: min(some, k)] - found) / found)
        result = {"ours": seconds, "MINPACK": lm * k / part.y.shape[1]}
    result["least_squares"] = theirs * k / part.y.shape[1]
    return result | {"difference": float(away)}


def cpu(fit: Callable[[Data], np.ndarray], data: Data) -> tuple[float, np.ndarray]:
    """Process time of a fit."""
    begin = time.process_time()
    found = fit(data)
    return time.process_time() - begin, found


if __name__ == "__main__":
    main()
