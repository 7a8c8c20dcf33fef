"""The solver race from its traces on: what each rival came to, tables, verdict and notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from common import Table, middle

OURS = ("LM, GP", "LM, Kaufman")
MINPACK = ("minpack, GP", "minpack, Kaufman")
SHORT = {"golub-pereyra": "GP", "kaufman": "Kaufman"}
EARLY = 12
BAR = 100.0


def racer(
    name: str, runs: list[list[tuple[float, float]]], near: float, far: float, budget: float
) -> dict[str, Any]:
    """What a rival's runs came to: seconds to both targets, its best and its trace."""

    def reached(target: float) -> list[float] | None:
        times = [next((t for t, value in run if value <= target), None) for run in runs]
        return None if None in times else times

    return {
        "name": name,
        "seconds": {"near": reached(near), "far": reached(far)},
        "seconds_run": [run[-1][0] for run in runs],
        "stopped_early": min(run[-1][0] for run in runs) < budget,
        "evaluations": [len(run) for run in runs],
        "best": min(value for run in runs for _, value in run),
        "trace": thinned(runs[0]),
    }


def thinned(run: list[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    """Objective against time, its improvements only, at most so many."""
    best, kept = np.inf, []
    for t, value in run:
        if value < best:
            best = value
            kept.append((round(t, 4), round(value, 4)))
    return kept[:: max(1, len(kept) // most)]


def race_table(result: dict[str, Any]) -> Table:
    """Seconds to both targets, and how many times the package's own they are."""
    ours = next(r for r in result["racers"] if r["name"] == OURS[0])
    rows = []
    for r in result["racers"]:
        cells = []
        for target in ("near", "far"):
            own, seconds = ours["seconds"][target], r["seconds"][target]
            if seconds is None and r["stopped_early"]:
                cells += ["never", ""]
                continue
            if seconds is None:
                least, sign = max(r["seconds_run"]), "> "
                cells.append(f"> {least:.1f}")
            else:
                least, sign = float(np.median(seconds)), ""
                cells.append(middle(seconds, 2) if r["name"] in OURS else f"{least:.2f}")
            cells.append("" if own is None else f"{sign}{least / np.median(own):.3g}")
        rows.append((r["name"], *cells, f"{2 * r['best'] / result['samples']:.3f}"))
    start, near, far = (
        2 * value / result["samples"] for value in (result["start"], *result["targets"].values())
    )
    title = (
        f"{result['setting']}: {result['parameters']} parameters, residual {start:.3f}, "
        f"targets {near:.3f} and {far:.3f}"
    )
    columns = ("solver", "near, s", "× ours", "far, s", "× ours", "best")
    return Table(title, columns, rows)


def comparison_table(rows: list[dict[str, Any]], iterations: int) -> Table:
    """Mean squared residual per sample, acceptance and time."""
    lines = []
    for setting, jacobian, rule in dict.fromkeys(
        (r["setting"], r["jacobian"], r["damping"]) for r in rows
    ):
        of = [
            r
            for r in rows
            if (r["setting"], r["jacobian"], r["damping"]) == (setting, jacobian, rule)
        ]
        lines.append(
            (
                f"{setting}, {SHORT[jacobian]}, {rule.removesuffix('Damping')}",
                f"{np.median([r['first'] for r in of]):.3f}",
                f"{np.median([r['early'] for r in of]):.3f}",
                middle([r["last"] for r in of], 3),
                f"{100 * np.mean([r['accepted'] for r in of]):.0f}%",
                f"{np.median([r['seconds_to_common'] for r in of]):.2f}",
            )
        )
    columns = ("units, Jacobian, damping", "start", f"@{EARLY}", f"@{iterations}", "taken", "s")
    return Table("Jacobian and damping: residual after so many steps tried", columns, lines)


def which_jacobian(rows: list[dict[str, Any]]) -> list[str]:
    """For each kind of unit and damping: which Jacobian ends lower, which is sooner, who stalls."""
    notes = []
    for setting, rule in dict.fromkeys((r["setting"], r["damping"]) for r in rows):
        full, kaufman = (
            {
                r["start"]: r
                for r in rows
                if (r["setting"], r["damping"], r["jacobian"]) == (setting, rule, jacobian)
            }
            for jacobian in SHORT
        )
        lower = sum(kaufman[i]["last"] < full[i]["last"] for i in full)
        sooner = np.median(
            [full[i]["seconds_to_common"] / kaufman[i]["seconds_to_common"] for i in full]
        )
        stalled = [
            sum(r["status"] != "max-iterations" for r in of.values()) for of in (full, kaufman)
        ]
        notes.append(
            f"{setting}, {rule.removesuffix('Damping')}: Kaufman ends lower in {lower} of "
            f"{len(full)} starts and takes {1 / sooner:.2f} of GP's seconds to the common "
            f"objective; stopped before the last iteration: GP {stalled[0]}, Kaufman {stalled[1]}."
        )
    return notes


def floor_table(results: list[dict[str, Any]]) -> Table:
    """Milliseconds of one iteration, part by part."""
    floors = [r["floor"] for r in results]

    def row(name: str, value: Callable[[dict[str, Any]], str]) -> tuple[str, ...]:
        return (name, *(value(f) for f in floors))

    def part(name: str, key: str, factor: float = 1e3) -> tuple[str, ...]:
        return row(name, lambda f: f"{factor * f['seconds'][key]:.1f}")

    rows = [
        part("objective at the trial point, ms", "objective, twice", 500),
        part("derivatives D, ms", "derivatives"),
        part("gradient alone, ms", "gradient"),
        part("gradient and matrix, ms", "gradient and matrix, Golub–Pereyra"),
        part("  the same, Kaufman, ms", "gradient and matrix, Kaufman"),
        part("damped solve, ms", "damped solve"),
        row("one iteration, ms", lambda f: f"{1e3 * f['iteration']:.1f}"),
        part("DᵀD alone (ssyrk), ms", "DᵀD alone"),
        row("  its GFLOP", lambda f: f"{f['flops_of_DtD'] / 1e9:.2f}"),
        row("  its GFLOP/s", lambda f: f"{f['gflops_per_second_of_DtD']:.0f}"),
        row("  share of an iteration, %", lambda f: f"{100 * f['share_of_DtD']:.0f}"),
        row(
            "dense Jacobian (not formed), MB", lambda f: f"{f['bytes_of_dense_jacobian'] / 1e6:.0f}"
        ),
    ]
    return Table("The floor of one iteration", ("", *(r["setting"] for r in results)), rows)


def verdict(result: dict[str, Any]) -> str:
    """One line on the bar."""
    by_name = {r["name"]: r["seconds"]["near"] for r in result["racers"]}
    ours, rival = by_name[OURS[0]], by_name[MINPACK[0]]
    if result["targets"]["near"] >= result["start"]:
        return f"{result['setting']}: {MINPACK[0]} made no progress within its budget"
    if ours is None:
        return f"{result['setting']}: {OURS[0]} did not reach minpack's objective"
    return (
        f"{result['setting']}: {OURS[0]} is {rival[0] / np.median(ours):.0f} times faster than "
        f"{MINPACK[0]} to its objective (bar: {BAR:.0f})"
    )


RACE_NOTES = [
    "GP: the full Golub–Pereyra Jacobian. Near: 1.02 times what minpack reached within its "
    "budget. Far: 1.02 times what the package's own LM, GP reaches in the iterations of the "
    "comparison. The number beside joint Adam is its learning rate. One start, the first seed's; "
    "only the package's own was repeated, between the rivals.",
    "`>`: not reached within the budget; the time so far is a lower bound. never: "
    "it stopped before, since no step improved any more.",
    "lbfgs, gradient-descent and search have no Gauss–Newton matrix, so the Jacobians don't "
    "concern them.",
]
COMPARISON_NOTE = (
    "Residual: mean squared residual per sample, ridge included. taken: steps accepted. s: "
    "median seconds to the objective at which the worst row of that start ended."
)
