"""How often intervals and bands of fitted curves hold the truth: they should at their level.

Curves are simulated with Gaussian noise and fitted; 95% bands, intervals from standard errors, from
profiles and for further observations are held against the truth they came from.

python benchmarks/coverage.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import Table, argument_parser, say, timed, write_result
from rankwise import VariableProjection
from rankwise._threads import one_thread
from rankwise.varpro import SeparableModel

LEVEL = 0.95


@dataclass(frozen=True)
class Case:
    """A model, its true parameters, its ``x`` and the noise."""

    model: SeparableModel
    params: tuple[float, ...]
    coef: tuple[float, ...]
    x: np.ndarray
    noise: Callable[[np.ndarray], np.ndarray]
    weighted: bool = False


DECAY = SeparableModel(["rate"]).term(lambda x, rate: np.exp(-rate * x)).constant()
BELLS = SeparableModel(["c1", "w1", "c2", "w2"])
for pair in (["c1", "w1"], ["c2", "w2"]):
    BELLS = BELLS.term(lambda x, c, w: np.exp(-(((x - c) / w) ** 2)), pair)
BELLS = BELLS.constant()
WAVE = (
    SeparableModel(["rate", "f"])
    .term(lambda x, rate, f: np.exp(-rate * x) * np.cos(f * x))
    .term(lambda x, rate, f: np.exp(-rate * x) * np.sin(f * x))
)
CASES = {
    "decay, 15 points": Case(
        DECAY, (0.9,), (2.0, 0.5), np.linspace(0, 5, 15), lambda x: np.full(len(x), 0.05)
    ),
    "decay, 40 points, uneven noise": Case(
        DECAY, (0.9,), (2.0, 0.5), np.linspace(0, 5, 40), lambda x: 0.02 + 0.05 * np.exp(-x), True
    ),
    "two bells, 80 points": Case(
        BELLS,
        (0.3, 0.1, 0.65, 0.15),
        (2.0, 1.0, 0.3),
        np.linspace(0, 1, 80),
        lambda x: np.full(len(x), 0.1),
    ),
    "damped wave, 50 points": Case(
        WAVE, (0.4, 5.0), (1.0, 0.7), np.linspace(0, 4, 50), lambda x: np.full(len(x), 0.1)
    ),
}


def main() -> None:
    """Simulate, print, write."""
    args = argument_parser(__doc__, "coverage", seeds=None).parse_args()
    n, n_profiles = (60, 5) if args.quick else (4000, 400)
    rows, data = [], []
    with one_thread():
        for name, case in CASES.items():
            seconds, found = timed(lambda c=case: coverage(c, n, n_profiles))
            say(f"{name}: {n} fits, {seconds:.1f} s")
            rows.append([name, *(f"{100 * found[key]:.1f}" for key in KINDS)])
            data.append({"case": name, "fits": n, "profiles": n_profiles} | found)
    table = Table(
        f"% of {n} fits in which what is said to hold at 95% holds", ("curve", *KINDS), rows
    )
    print(table.text())
    write_result(
        args,
        "Coverage of bands and intervals of fitted curves",
        [table],
        data,
        {"level": LEVEL, "seed": 42},
        notes=(
            "band: the curve, over its points; intervals: all parameters, by standard errors; "
            f"profile: the nonlinear ones, of {n_profiles} fits; further: new observations.",
        ),
    )


KINDS = ("band", "intervals", "profile", "further")


def coverage(case: Case, n: int, n_profiles: int) -> dict[str, float]:
    """Fractions that hold the truth."""
    basis = case.model.at(case.x)
    basis.prepare(np.array(case.params))
    truth = basis.features(np.array(case.params)) @ np.array(case.coef)
    sigma = case.noise(case.x)
    options: dict[str, Any] = {"sigma": sigma} if case.weighted else {}
    values = np.array([*case.params, *case.coef])
    counts: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for i in range(n):
        rng = np.random.default_rng([42, i])
        y = truth + sigma * rng.standard_normal(len(truth))
        fit: Any = VariableProjection().fit(basis, y, case.params, **options)
        band = fit.confidence_band(level=LEVEL)
        counts["band"].append(np.mean((band.lower <= truth) & (truth <= band.upper)))
        error = np.sqrt(np.diag(fit.covariance()))
        half = fit.statistics.quantile(LEVEL) * error
        off = np.abs(np.array([*fit.params, *fit.coef[:, 0]]) - values)
        counts["intervals"].append(np.mean(off <= half))
        new = truth + sigma * rng.standard_normal(len(truth))
        further = fit.prediction_band(level=LEVEL)
        counts["further"].append(np.mean((further.lower <= new) & (new <= further.upper)))
        if i < n_profiles:
            held = []
            for name, true in zip(fit.names, case.params, strict=True):
                interval = fit.profile(name, level=LEVEL)
                held.append(interval.lower <= true <= interval.upper)
            counts["profile"].append(np.mean(held))
    return {kind: float(np.mean(found)) for kind, found in counts.items()}


if __name__ == "__main__":
    main()
