"""NIST's certified nonlinear problems: correct digits from both starts, beside SciPy and lmfit.

Each figure is the fewest digits that agree with NIST's certificate, over all parameters and all
standard errors; everyone is asked for the last digit (tolerances of 1e-15). Rivals fit the whole
model with derivatives by differences, as their users do.

python benchmarks/nist.py
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from common import Table, argument_parser, say, write_result
from rankwise import VariableProjection
from rankwise._threads import one_thread

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "varpro"))
import strd  # NIST's problems, which the tests share

TIGHT = 1e-15
FAILED = 4.0
"""Digits under which a fit is counted as lost."""
Estimates = tuple[np.ndarray, np.ndarray]


def by_projection(solver: str) -> Callable[[strd.Problem, np.ndarray], Estimates]:
    """Ours, with one of the solvers that go to the last digit."""

    def fit(problem: strd.Problem, start: np.ndarray) -> Estimates:
        result = VariableProjection(solver, max_iterations=1000).fit(
            problem.model.at(problem.x),
            problem.y,
            problem.nonlinear(start),
            linear_bounds=problem.linear_bounds,
        )
        return problem.found(result)

    return fit


def by_least_squares(problem: strd.Problem, start: np.ndarray) -> Estimates:
    """SciPy's trust region on the whole model."""
    found = optimize.least_squares(
        lambda b: problem.full(problem.x, b) - problem.y,
        start,
        x_scale="jac",
        ftol=TIGHT,
        xtol=TIGHT,
        gtol=TIGHT,
        max_nfev=10_000,
    )
    _, s, vt = np.linalg.svd(found.jac, full_matrices=False)
    variance = 2 * found.cost / (len(problem.y) - len(start))
    errors = np.sqrt(variance * np.sum((vt.T / s) ** 2, axis=1))
    return _ordered(problem, found.x, errors)


def by_curve_fit(problem: strd.Problem, start: np.ndarray) -> Estimates:
    """SciPy's ``curve_fit``: MINPACK on the whole model."""
    x = problem.x if problem.x.ndim == 1 else problem.x.T
    popt, pcov = optimize.curve_fit(
        lambda x, *b: problem.full(x if x.ndim == 1 else x.T, np.array(b)),
        x,
        problem.y,
        start,
        ftol=TIGHT,
        xtol=TIGHT,
        gtol=TIGHT,
        maxfev=20_000,
    )
    return _ordered(problem, popt, np.sqrt(np.diag(pcov)))


def by_lmfit(problem: strd.Problem, start: np.ndarray) -> Estimates:
    """The ``minimize`` of lmfit, its default method."""
    import lmfit

    names = [f"b{i + 1}" for i in range(len(start))]
    given = lmfit.Parameters()
    for name, value in zip(names, start, strict=True):
        given.add(name, value=value)

    def residual(params: Any) -> np.ndarray:
        b = np.array([params[name].value for name in names])
        return problem.full(problem.x, b) - problem.y

    found = lmfit.minimize(residual, given, ftol=TIGHT, xtol=TIGHT, gtol=TIGHT, max_nfev=20_000)
    values = np.array([found.params[name].value for name in names])
    errors = np.array([found.params[name].stderr or np.nan for name in names])
    return _ordered(problem, values, errors)


METHODS: dict[str, Callable[[strd.Problem, np.ndarray], Estimates]] = {
    "ours": by_projection("levenberg-marquardt"),
    "minpack": by_projection("minpack"),
    "trust": by_projection("trust-region"),
    "least_sq.": by_least_squares,
    "curve_fit": by_curve_fit,
    "lmfit": by_lmfit,
}


def main() -> None:
    """Fit all, print, write."""
    args = argument_parser(__doc__, "nist", seeds=None).parse_args()
    names = ("Misra1a", "Lanczos3", "MGH10") if args.quick else strd.NAMES
    rows, data = [], []
    with one_thread(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # rivals' overflows and covariances that can't be had
        for name in names:
            say(name)
            problem = strd.problem(name)
            cells = []
            for method, fit in METHODS.items():
                shown = []
                for number, start in enumerate(problem.starts, start=1):
                    row = _digits(problem, start, fit)
                    data.append({"problem": name, "method": method, "start": number} | row)
                    worst = min(row["parameters"], row["errors"])
                    shown.append("–" if row["parameters"] < FAILED else f"{worst:.1f}")
                cells.append(" ".join(shown))
            rows.append([name, *cells])
    lost = {m: sum(r["method"] == m and r["parameters"] < FAILED for r in data) for m in METHODS}
    six = {
        m: sum(r["method"] == m and min(r["parameters"], r["errors"]) >= 6 for r in data)
        for m in METHODS
    }
    rows.append(["lost starts", *(str(lost[m]) for m in METHODS)])
    rows.append(["six digits", *(str(six[m]) for m in METHODS)])
    seconds = {m: sum(r["seconds"] for r in data if r["method"] == m) for m in METHODS}
    rows.append(["seconds", *(f"{seconds[m]:.1f}" for m in METHODS)])
    table = Table("Correct digits from start 1 and start 2", ("problem", *METHODS), rows)
    print(table.text())
    write_result(
        args,
        "NIST's certified nonlinear problems",
        [table],
        data,
        {"tolerance": TIGHT},
        notes=(
            "The first three columns are variable projection: the package's solver, MINPACK and "
            "SciPy's trust region. The others fit the whole model, derivatives by differences.",
            f"Of {2 * len(names)} fits each. – : fewer than four digits of a parameter, or none.",
            "Of Lanczos1's standard errors double precision leaves about three digits: its "
            "residuals are 1e-13.",
        ),
    )


def _digits(
    problem: strd.Problem, start: np.ndarray, fit: Callable[..., Estimates]
) -> dict[str, float]:
    begin = time.perf_counter()
    try:
        values, errors = fit(problem, start)
    except (RuntimeError, ValueError, np.linalg.LinAlgError):  # a rival's way to say it's lost
        values = errors = np.full(len(problem.certified), np.nan)
    return {
        "parameters": strd.digits(values, problem.certified),
        "errors": strd.digits(errors, problem.deviations),
        "seconds": time.perf_counter() - begin,
    }


def _ordered(problem: strd.Problem, values: np.ndarray, errors: np.ndarray) -> Estimates:
    order = problem.order(values)
    return values[order], errors[order]


if __name__ == "__main__":
    main()
