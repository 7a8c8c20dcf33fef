"""Which choice brings how much: from the paper's recipe to ``windowed``, one choice at a time.

Only MNIST's training images are used: the first 50,000 to train, the last 10,000 to validate. The
test images are left to `presets.py`. Rows of an interrupted run are kept.

    python benchmarks/ablation.py --rows path
    python benchmarks/ablation.py --rows symmetric bilinear --subnets 26 --seeds 42
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from common import (
    Table,
    argument_parser,
    data_sets,
    describe,
    earlier,
    percent,
    spread,
    timed,
    to_measure,
    write_result,
)
from rankwise.linear.gram import accumulate_gram
from rankwise.linear.output_layer import solve_gram
from rankwise.linear.ridge_choice import leave_one_out_errors, ridge_path
from rankwise.networks.quadratic import QuadraticNetwork, glue, network_features
from rankwise.training.groups import SubnetPlan
from rankwise.training.subnetworks import stack, train_subnets
from rankwise.units.multilinear import make_units
from rankwise.units.starts import WINDOW, Start


@dataclass(frozen=True)
class Recipe:
    """The choices that a row changes; the defaults are those of ``windowed``."""

    unit: str = "bilinear"
    activation: str = "tanh"
    rank: int = 1
    window: tuple[float, float] | None = WINDOW
    smooth: int = 1
    jacobian: str = "golub-pereyra"
    subnet_ridge: float = 1e-4
    iterations: int = 6

    def plan(self, shape: tuple[int, ...], n_samples: int) -> SubnetPlan:
        """The sub-networks of this recipe."""
        return SubnetPlan(
            units=make_units(self.unit, shape, rank=self.rank, activation=self.activation),
            n_units=50,
            n_samples=n_samples,
            start=Start(window=self.window, smooth=self.smooth),
            jacobian=self.jacobian,
            max_iterations=self.iterations,
            ridge=self.subnet_ridge,
        )


BASE = Recipe()
PAPER = Recipe(
    unit="symmetric",
    window=None,
    smooth=0,
    jacobian="kaufman",
    subnet_ridge=0.0,
    iterations=15,
)

# Each row adds one choice to the row above.
PATH = {
    "symmetric": ("the paper's: symmetric, Kaufman", PAPER),
    "golub-pereyra": ("+ Golub–Pereyra", replace(PAPER, jacobian="golub-pereyra")),
    "subnet-ridge": (
        "+ ridge in the sub-networks",
        replace(PAPER, jacobian="golub-pereyra", subnet_ridge=1e-4),
    ),
    "bilinear": ("+ bilinear", replace(BASE, window=None, smooth=0, iterations=15)),
    "window": ("+ windows", replace(BASE, smooth=0, iterations=15)),
    "smooth": ("+ smooth starts", replace(BASE, iterations=15)),
    "windowed": ("+ 6 iterations: windowed", BASE),
}

# Each row changes one choice of ``windowed``.
SINGLE = {
    "kaufman": ("Kaufman instead", replace(BASE, jacobian="kaufman")),
    "no-subnet-ridge": ("no ridge in the sub-networks", replace(BASE, subnet_ridge=0.0)),
    "iterations-0": ("untrained units", replace(BASE, iterations=0)),
    "iterations-3": ("3 iterations", replace(BASE, iterations=3)),
    "iterations-12": ("12 iterations", replace(BASE, iterations=12)),
    "iterations-20": ("20 iterations", replace(BASE, iterations=20)),
    "logistic": ("logistic instead of tanh", replace(BASE, activation="logistic")),
    "rank-2": ("rank 2", replace(BASE, rank=2)),
}

# Rows that need no training of their own: fewer sub-networks, and other ridges of the glue.
SIZES = (13, 26, 52)
RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
WITHOUT_TRAINING = "windowed-glue"

GROUPS = {"path": list(PATH), "single": list(SINGLE), "glue": [WITHOUT_TRAINING]}


@dataclass(frozen=True)
class Data:
    """Training and validation parts."""

    images: np.ndarray
    labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    n_classes: int
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> np.ndarray:
        """One-hot."""
        return np.eye(self.n_classes, dtype=np.float32)[self.labels]


def main() -> None:
    """Measure the rows asked for and print what each choice changes."""
    args = _arguments()
    data = _data(args)
    same = {
        "n": data.known["n"],
        "data": data.known["data"],
        "subnets": args.subnets,
        "samples_per_subnet": args.samples,
    }
    known = same | {
        "seeds": args.seeds,
        "spread": "mean (min–max) over the seeds",
        "workers": args.workers,
    }
    results = earlier(args, same)
    for key, seed in to_measure(args.rows, args.seeds, results):
        if key == WITHOUT_TRAINING:
            results += without_training(data, args, seed)
        else:
            results.append(with_training(key, data, args, seed))
        write_result(args, TITLE, tables(results, args.subnets), results, known, NOTES)
    for t in tables(results, args.subnets):
        print(t.text(), end="\n\n")


TITLE = "Which choice brings how much"
NOTES = [
    "Accuracy on validation images cut from the training images; no test image was read.",
    "`Δ` is the difference to the row above in the first table, to `windowed` in the others, seed "
    "by seed.",
]


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__, "ablation", resumable=True)
    every = [*GROUPS, *PATH, *SINGLE, WITHOUT_TRAINING]
    parser.add_argument(
        "--rows", nargs="+", choices=every, default=list(GROUPS), help="rows or groups of rows"
    )
    parser.add_argument("--subnets", type=int, default=104)
    parser.add_argument("--samples", type=int, default=2000, help="of each sub-network")
    parser.add_argument("--limit", type=int, help="training images; default all")
    parser.add_argument("--workers", type=int, default=-1)
    args = parser.parse_args()
    args.rows = list(dict.fromkeys(r for given in args.rows for r in GROUPS.get(given, [given])))
    if args.quick:
        args.subnets, args.samples, args.seeds = 2, 300, args.seeds[:1]
    return args


def _data(args: argparse.Namespace) -> Data:
    train, _ = data_sets(args)
    cut = len(train) * 5 // 6
    n = cut if args.limit is None else min(cut, args.limit)
    return Data(
        train.images[:n],
        train.labels[:n],
        train.images[cut:],
        train.labels[cut:],
        train.n_classes,
        {"n": {"train": n, "validation": len(train) - cut}, "data": describe(train)},
    )


def with_training(key: str, data: Data, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train and glue one recipe."""
    recipe = (PATH | SINGLE)[key][1]
    plan = recipe.plan(data.images.shape[1:], args.samples)
    seconds, subnets = timed(lambda: _train(plan, data, args, seed))
    params, active = stack(subnets)
    glue_seconds, (network, layer) = timed(
        lambda: glue(
            plan.units,
            params,
            data.images,
            data.targets,
            workers=_threads(args.workers),
            n_active=int(active.sum()),
        )
    )
    return {
        "row": key,
        "seed": seed,
        "accuracy": _accuracy(network, data, args.workers),
        "seconds": {"subnets": seconds, "glue": glue_seconds},
        "n_parameters_units": network.n_parameters_units,
        "n_parameters_total": network.n_parameters_total,
        "mean_residual": float(
            np.mean([2 * s.report["objective"] for s in subnets])
            / min(args.samples, len(data.images))
        ),
        "ridge": layer.ridge / len(data.images),
        "condition": layer.condition,
    }


def without_training(data: Data, args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Fewer sub-networks and other ridges, from one training of ``windowed``."""
    plan = BASE.plan(data.images.shape[1:], args.samples)
    subnets = _train(plan, data, args, seed)
    rows: list[dict[str, Any]] = [{"row": WITHOUT_TRAINING, "seed": seed}]
    threads = _threads(args.workers)
    for size in (*(s for s in SIZES if s < args.subnets), args.subnets):
        params = stack(subnets[:size])[0].astype(np.float32)
        features = network_features(plan.units, params, data.images)
        seconds, statistics = timed(
            lambda f=features: accumulate_gram(f, data.targets, workers=threads)
        )
        solve_seconds, layer = timed(lambda s=statistics: solve_gram(s, "gcv"))
        found = {f"subnets-{size}": (layer, seconds + solve_seconds)}
        if size == args.subnets:
            for value in RIDGES:
                solve_seconds, layer = timed(
                    lambda s=statistics, v=value: solve_gram(s, v * len(data.images))
                )
                found[f"ridge-{value:g}"] = (layer, seconds + solve_seconds)
            path = ridge_path(statistics)
            loo_seconds, errors = timed(
                lambda s=statistics, f=features, p=path: leave_one_out_errors(s, f, data.targets, p)
            )
            best = min(errors, key=lambda pair: pair[1])[0]
            found["ridge-loo"] = (solve_gram(statistics, best), seconds + loo_seconds)
        for key, (layer, glue_seconds) in found.items():
            network = QuadraticNetwork(plan.units, params, layer.coef, params.size)
            rows.append(
                {
                    "row": key,
                    "seed": seed,
                    "accuracy": _accuracy(network, data, args.workers),
                    "seconds": {"glue": glue_seconds},
                    "ridge": layer.ridge / len(data.images),
                    "condition": layer.condition,
                }
            )
    return rows


def tables(results: list[dict[str, Any]], n_subnets: int) -> list[Table]:
    """The path, the single changes, and what needs only the glue."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for r in results:
        found.setdefault(r["row"], {})[r["seed"]] = r
    whole = f"subnets-{n_subnets}"
    path = [(key, PATH[key][0]) for key in PATH]
    single = [("windowed", "windowed"), *((key, SINGLE[key][0]) for key in SINGLE)]
    counts = dict.fromkeys((*SIZES, n_subnets))
    sizes = [(f"subnets-{n}", f"{n} sub-networks, {50 * n} units") for n in counts]
    ridges = [
        (whole, "ridge by GCV"),
        ("ridge-loo", "ridge by leave-one-out"),
        *((f"ridge-{v:g}", f"ridge {v:g}·n") for v in RIDGES),
    ]
    made = [
        _trained("From the paper's recipe to windowed", path, found, previous=True),
        _trained("windowed with one choice changed", single, found, previous=False),
        _glued("Size: the first sub-networks of windowed", sizes, found, whole),
        _glued("Ridge of the glue", ridges, found, whole),
    ]
    return [t for t in made if t.rows]


def _trained(
    title: str,
    rows: list[tuple[str, str]],
    found: dict[str, dict[int, dict[str, Any]]],
    *,
    previous: bool,
) -> Table:
    lines = []
    reference = None
    for key, label in rows:
        if key not in found:
            continue
        runs = found[key]
        lines.append(
            (
                label,
                percent([r["accuracy"] for r in runs.values()]),
                _change(runs, reference),
                f"{np.mean([r['mean_residual'] for r in runs.values()]):.3f}",
                f"{np.mean([r['seconds']['subnets'] for r in runs.values()]):.0f}",
            )
        )
        if previous or reference is None:
            reference = runs
    columns = ("choice", "accuracy, %", "Δ", "resid.", "s")
    return Table(f"{title} (mean squared residual of a sub-network)", columns, lines)


def _glued(
    title: str,
    rows: list[tuple[str, str]],
    found: dict[str, dict[int, dict[str, Any]]],
    whole: str,
) -> Table:
    lines = [
        (
            label,
            percent([r["accuracy"] for r in found[key].values()]),
            _change(found[key], found[whole]),
            f"{np.mean([r['ridge'] for r in found[key].values()]):.1e}",
            spread([r["seconds"]["glue"] for r in found[key].values()], 0),
        )
        for key, label in rows
        if key in found
    ]
    return Table(title, ("choice", "accuracy, %", "Δ", "ridge/n", "glue, s"), lines)


def _change(runs: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]] | None) -> str:
    """Mean difference over the seeds that both have."""
    if reference is None or runs is reference:
        return ""
    both = [s for s in runs if s in reference]
    if not both:
        return ""
    return f"{100 * np.mean([runs[s]['accuracy'] - reference[s]['accuracy'] for s in both]):+.2f}"


def _train(plan: SubnetPlan, data: Data, args: argparse.Namespace, seed: int) -> list[Any]:
    return train_subnets(
        data.images, data.targets, plan, args.subnets, seed=seed, workers=args.workers
    )


def _accuracy(network: QuadraticNetwork, data: Data, workers: int) -> float:
    outputs = network.outputs(data.validation_images, workers=_threads(workers))
    return float(np.mean(outputs.argmax(axis=1) == data.validation_labels))


def _threads(workers: int) -> int:
    from joblib import effective_n_jobs

    return int(effective_n_jobs(workers))


if __name__ == "__main__":
    main()
