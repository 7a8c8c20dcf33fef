"""Every solver on one MNIST sub-network, from one start to one objective, one thread each.

There are two targets: 1.02 times what MINPACK with the full Jacobian, the paper's solver, reaches
within its budget, and 1.02 times what the package's own solver reaches in 25 iterations. Every
rival stops when both are reached or its budget is spent; one that didn't get there has its time
so far as a lower bound. Joint Adam works on the full functional, ``½‖τ − ΦA‖² +
½μ‖A‖²`` over units *and* output weights, full batch, and starts from the same units and their
optimal output weights.

    python benchmarks/solver_race.py --settings pereyra --minpack-budget 60
    python benchmarks/solver_race.py --damping
"""

from __future__ import annotations

import argparse
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.linalg import blas

from common import (
    WIDTH,
    argument_parser,
    data_sets,
    describe,
    say,
    timed,
    write_result,
)
from rankwise._threads import one_thread
from rankwise.training.groups import SubnetPlan, draw_group
from rankwise.training.presets import PRESETS
from rankwise.units.basis import UnitBasis
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start
from rankwise.varpro import SeparableProblem
from rankwise.varpro.functional import cross_products, gradient, linearise
from rankwise.varpro.solvers import (
    LBFGS,
    GradientDescent,
    LevenbergMarquardt,
    MarquardtDamping,
    Minpack,
    NielsenDamping,
    Search,
    Solver,
    StoppingRule,
    cholesky_solve,
)
from rankwise.varpro.solvers.damping import Damping
from solver_race_tables import (
    COMPARISON_NOTE,
    EARLY,
    MINPACK,
    OURS,
    RACE_NOTES,
    comparison_table,
    floor_table,
    race_table,
    racer,
    thinned,
    verdict,
    which_jacobian,
)

JACOBIANS = ("golub-pereyra", "kaufman")
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
MARGIN = 1.02
ENDLESS = 10**9


# -- the sub-network --------------------------------------------------------------------------


@dataclass(frozen=True)
class Subnetwork:
    """A sub-network of a preset before training."""

    units: Any
    images: np.ndarray
    targets: np.ndarray
    params: np.ndarray
    active: np.ndarray
    ridge: float

    @property
    def basis(self) -> UnitBasis:
        """Its units on its images."""
        every = bool(self.active.all())
        return UnitBasis(self.units, self.images, self.params, None if every else self.active)

    def problem(self, jacobian: str) -> tuple[SeparableProblem, np.ndarray]:
        """The functional, and the start as a vector."""
        basis = self.basis
        problem = SeparableProblem(
            basis,
            self.targets,
            jacobian=jacobian,
            ridge=self.ridge,
            rcond=len(self.images) * float(np.finfo(np.float32).eps),
        )
        return problem, basis.pack(self.params)


def subnetwork(
    setting: str, images: np.ndarray, labels: np.ndarray, args: argparse.Namespace, seed: int
) -> Subnetwork:
    """Sub-network 0 of a preset, or of ``bilinear``: windowed without windows and smoothing."""
    preset = PRESETS["pereyra" if setting == "pereyra" else "windowed"]
    plain = setting == "bilinear"
    plan = SubnetPlan(
        units=make_units(preset.unit, images.shape[1:], activation=preset.activation),
        n_units=args.units,
        n_samples=args.samples,
        start=Start(None if plain else preset.window, 0 if plain else preset.smooth),
    )
    rows, batch, params, active = draw_group(images, plan, seed, 0, None)
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels[rows]]
    return Subnetwork(plan.units, batch, targets, params, active, preset.subnet_ridge * len(batch))


# -- the race ---------------------------------------------------------------------------------


class RaceOverError(Exception):
    """The target is reached or the budget spent."""


class Recorder:
    """A problem that notes when each objective became known; solvers see no difference."""

    def __init__(self, problem: SeparableProblem, budget: float, target: float) -> None:
        self._problem = problem
        self._budget = budget
        self._target = target
        self._begin = time.perf_counter()
        self.trace: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def objective(self, params: Any) -> Any:
        """The objective, noted."""
        value = self._problem.objective(params)
        self.note(float(value))
        return value

    def residual(self, params: Any) -> Any:
        """The residual vector, its objective noted."""
        vector = self._problem.residual(params)
        self.note(0.5 * float(vector @ vector))
        return vector

    def note(self, value: float) -> None:
        """Note an objective; stop the race where it is over."""
        seconds = time.perf_counter() - self._begin
        self.trace.append((seconds, value))
        if seconds > self._budget or value <= self._target:
            raise RaceOverError


def race(
    solver: Solver, jacobian: str, net: Subnetwork, budget: float, target: float
) -> list[tuple[float, float]]:
    """Times and objectives of one solver."""
    problem, start = net.problem(jacobian)
    recorder = Recorder(problem, budget, target)
    with suppress(RaceOverError):
        solver.minimise(recorder, start)
    return recorder.trace


def adam(net: Subnetwork, rate: float, budget: float, target: float) -> list[tuple[float, float]]:
    """Adam on units and output weights jointly; its times and objectives."""
    problem, start = net.problem("kaufman")
    coef = problem.project(start).coef
    flat = torch.as_tensor(net.units.flatten(net.images))
    tau = torch.as_tensor(net.targets)
    mask = torch.as_tensor(net.active)
    params = torch.tensor(net.params, dtype=torch.float32, requires_grad=True)
    weights = torch.tensor(coef, dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([params, weights], lr=rate)
    recorder = Recorder(problem, budget, target)
    try:
        while True:
            optimiser.zero_grad()
            outputs = net.units.features(flat, params) @ weights[:-1] + weights[-1]
            loss = 0.5 * ((tau - outputs).square().sum() + net.ridge * weights.square().sum())
            loss.backward()
            recorder.note(loss.item())
            params.grad *= mask
            optimiser.step()
    except RaceOverError:
        return recorder.trace


def solvers(args: argparse.Namespace) -> dict[str, tuple[Solver, str]]:
    """Rivals by name, each with its Jacobian, and with budgets of iterations that never bind."""
    lm = LevenbergMarquardt(StoppingRule(max_iterations=ENDLESS, ftol=0.0, gtol=0.0))
    minpack = Minpack(max_iterations=ENDLESS, ftol=1e-12)
    found: dict[str, tuple[Solver, str]] = {
        OURS[0]: (lm, "golub-pereyra"),
        OURS[1]: (lm, "kaufman"),
        MINPACK[0]: (minpack, "golub-pereyra"),
        "lbfgs": (LBFGS(max_iterations=ENDLESS, ftol=0.0), "golub-pereyra"),
        "gradient-descent": (GradientDescent(max_iterations=ENDLESS, ftol=0.0), "golub-pereyra"),
        "search": (Search(max_evaluations=ENDLESS, ftol=0.0), "golub-pereyra"),
    }
    if args.minpack_kaufman:
        found[MINPACK[1]] = (minpack, "kaufman")
    return found


def run_setting(setting: str, net: Subnetwork, args: argparse.Namespace) -> dict[str, Any]:
    """MINPACK sets the near target, our own solver the far one; then everyone runs to both.

    The package's own runs again before each rival, so that both see the same machine.
    """
    problem, start = net.problem("golub-pereyra")
    problem.linearise(start)  # warm-up of BLAS and of the allocator
    rivals = solvers(args)
    minpack = rivals.pop(MINPACK[0])
    say(f"{setting}: {MINPACK[0]}")
    traces = {MINPACK[0]: [race(*minpack, net, args.minpack_budget, -np.inf)]}
    stopping = StoppingRule(max_iterations=args.iterations, ftol=0.0, gtol=0.0)
    reached = LevenbergMarquardt(stopping).minimise(problem, start).objective
    near = MARGIN * min(value for _, value in traces[MINPACK[0]][0])
    far = MARGIN * reached
    last = min(near, far)

    def ours() -> None:
        for name in OURS:
            traces.setdefault(name, []).append(race(*rivals[name], net, args.budget, last))

    for name, (solver, jacobian) in rivals.items():
        if name in OURS:
            continue
        ours()
        say(f"{setting}: {name}")
        budget = args.minpack_budget if name in MINPACK else args.budget
        traces[name] = [race(solver, jacobian, net, budget, last)]
    for rate in LEARNING_RATES:
        ours()
        say(f"{setting}: joint Adam, rate {rate:g}")
        traces[f"joint Adam, {rate:g}"] = [adam(net, rate, args.budget, last)]
    return {
        "setting": setting,
        "start": traces[OURS[0]][0][0][1],
        "targets": {"near": near, "far": far},
        "samples": len(net.images),
        "parameters": len(start),
        "racers": [
            racer(name, runs, near, far, args.minpack_budget if name in MINPACK else args.budget)
            for name, runs in traces.items()
        ],
        "floor": floor(net),
    }


# -- which Jacobian and which damping win where ------------------------------------------------


def compare(
    setting: str, nets: list[Subnetwork], iterations: int, rules: Sequence[Damping]
) -> list[dict[str, Any]]:
    """Both Jacobians under each damping rule, from the same starts."""
    rows = []
    for i, net in enumerate(nets):
        made = []
        for jacobian, rule in product(JACOBIANS, rules):
            problem, start = net.problem(jacobian)
            recorder = Recorder(problem, np.inf, -np.inf)
            stopping = StoppingRule(max_iterations=iterations, ftol=0.0, gtol=0.0)
            outcome = LevenbergMarquardt(stopping, damping=rule).minimise(recorder, start)
            made.append((jacobian, type(rule).__name__, outcome, recorder.trace))
        common = max(outcome.objective for *_, outcome, _ in made)
        for jacobian, rule_name, outcome, trace in made:
            rows.append(
                {
                    "setting": setting,
                    "start": i,
                    "jacobian": jacobian,
                    "damping": rule_name,
                    "first": 2 * trace[0][1] / len(net.images),
                    "early": 2 * min(v for _, v in trace[: EARLY + 1]) / len(net.images),
                    "last": 2 * outcome.objective / len(net.images),
                    "status": outcome.status,
                    "seconds": trace[-1][0],
                    "seconds_to_common": next(t for t, value in trace if value <= common),
                    "accepted": float(np.mean([h["accepted"] for h in outcome.history])),
                    "trace": thinned(trace),
                }
            )
    return rows


# -- the floor --------------------------------------------------------------------------------


def floor(net: Subnetwork, repeats: int = 5) -> dict[str, Any]:
    """What one iteration costs and how much of it is ``DᵀD``, the product it can't do without."""
    problem, start = net.problem("golub-pereyra")
    projection = problem.project(start)
    block = list(problem.basis.derivative_blocks(start))
    ((_, d),) = block
    owner = problem.basis.owner
    g, matrix = linearise(projection, block, owner, "golub-pereyra")
    # Border pixels that no image uses have a zero diagonal; Levenberg–Marquardt floors it too.
    scale = np.diagonal(matrix).astype(np.float64)
    rhs, diagonal = -g, 0.1 * np.maximum(scale, 1e-10 * scale.max())
    nudged = start * (1 + 1e-9)
    n, n_params = d.shape

    def evaluate() -> None:
        # Two points in turn, since the last one is remembered.
        problem.objective(nudged)
        problem.objective(start)

    parts: dict[str, Callable[[], Any]] = {
        "objective, twice": evaluate,
        "derivatives": lambda: list(problem.basis.derivative_blocks(start)),
        "gradient": lambda: gradient(projection, cross_products(projection, block), owner),
        "gradient and matrix, Golub–Pereyra": lambda: linearise(
            projection, block, owner, "golub-pereyra"
        ),
        "gradient and matrix, Kaufman": lambda: linearise(projection, block, owner, "kaufman"),
        "damped solve": lambda: cholesky_solve(matrix, diagonal, rhs),
        "DᵀD alone": lambda: blas.ssyrk(1.0, d.T, lower=1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats + 1):
        for name, call in parts.items():
            seconds[name].append(timed(call)[0])
    middles = {name: float(np.median(values[1:])) for name, values in seconds.items()}
    iteration = (
        0.5 * middles["objective, twice"]
        + middles["derivatives"]
        + middles["gradient and matrix, Golub–Pereyra"]
        + middles["damped solve"]
    )
    flops = float(n) * n_params * (n_params + 1)
    return {
        "n": n,
        "P": n_params,
        "flops_of_DtD": flops,
        "gflops_per_second_of_DtD": flops / middles["DᵀD alone"] / 1e9,
        "seconds": middles,
        "iteration": iteration,
        "share_of_DtD": middles["DᵀD alone"] / iteration,
        "bytes_of_dense_jacobian": 8 * n * n_params * net.targets.shape[1],
    }


def main() -> None:
    """Race and compare Jacobians; with ``--damping`` compare the damping rules instead."""
    parser = argument_parser(__doc__, "solver_race")
    parser.add_argument(
        "--settings", nargs="+", choices=("pereyra", "windowed"), default=["pereyra", "windowed"]
    )
    parser.add_argument("--minpack-budget", type=float, default=90.0, help="seconds each")
    parser.add_argument("--minpack-kaufman", action="store_true", help="with that Jacobian too")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of each other rival")
    parser.add_argument("--iterations", type=int, default=25, help="of the comparison")
    parser.add_argument("--damping", action="store_true", help="compare damping rules instead")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--units", type=int, default=50)
    args = parser.parse_args()
    if args.quick:
        args.samples, args.units = 300, 8
        args.minpack_budget, args.budget = 1.0, 0.3
    if args.damping:
        args.name = "damping"
    train, _ = data_sets(args)

    def nets(setting: str) -> list[Subnetwork]:
        return [subnetwork(setting, train.images, train.labels, args, s) for s in args.seeds]

    rules: list[Damping] = [NielsenDamping()]
    if args.damping:
        rules.append(MarquardtDamping())
    with one_thread():
        results = [] if args.damping else [run_setting(s, nets(s)[0], args) for s in args.settings]
        say("Jacobians and damping")
        settings = list(dict.fromkeys([*args.settings, "bilinear"]))
        compared = [r for s in settings for r in compare(s, nets(s), args.iterations, rules)]
    tables = [race_table(r) for r in results] + [comparison_table(compared, args.iterations)]
    if results:
        tables.append(floor_table(results))
    notes = [
        *map(verdict, results),
        *which_jacobian(compared),
        *(RACE_NOTES if results else []),
        COMPARISON_NOTE,
    ]
    known = {
        "n": {"samples": args.samples, "units": args.units, "starts": len(args.seeds)},
        "seeds": args.seeds,
        "data": describe(train),
        "threads": 1,
        "spread": "median (min–max)",
    }
    title = "Damping rules" if args.damping else "Solver race on one sub-network"
    write_result(args, title, tables, {"races": results, "compared": compared}, known, notes)
    for t in tables:
        print(t.text(), end="\n\n")
    for note in notes:
        print(textwrap.fill(note, WIDTH))


if __name__ == "__main__":
    main()
