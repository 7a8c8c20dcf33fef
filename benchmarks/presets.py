"""The two presets as a user runs them: ``rankwise train MNIST --preset … --bootstrap --json``.

Each run is a process of its own in a fresh folder. Bars are those that the project set itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import Table, argument_parser, percent, say, spread, write_result

BARS = {
    "pereyra": {"accuracy": 0.92, "seconds": 180.0, "memory_mb": 4096.0},
    "windowed": {"accuracy": 0.975, "seconds": 180.0, "memory_mb": 4096.0},
}
PAPER = "90.15"
"""Per cent, before bootstrapping (paper, section 6.1)."""


def main() -> None:
    """Run both presets for each seed and compare with the bars."""
    parser = argument_parser(__doc__, "presets")
    parser.add_argument("--presets", nargs="+", choices=list(BARS), default=list(BARS))
    args = parser.parse_args()
    seeds = args.seeds[:1] if args.quick else args.seeds
    reports: list[dict[str, Any]] = []
    # Seeds outside, presets inside: both see the same state of the machine.
    for seed in seeds:
        for preset in args.presets:
            say(f"{preset}, seed {seed}")
            reports.append(train(args.data, preset, seed, quick=args.quick))
    tables = [table(preset, reports, judged=not args.quick) for preset in args.presets]
    for t in tables:
        print(t.text(), end="\n\n")
    known = {
        "seeds": seeds,
        "n": {
            r["run"]["preset"]: {key: r[key]["n_samples"] for key in ("train", "test")}
            for r in reports
        },
        "spread": "mean (min–max) over the seeds",
    }
    notes = [
        "The inductive accuracy never saw the test images. The bootstrap is transductive: it "
        "trains on the test images with guessed labels, and agreement with those guesses is not "
        "accuracy.",
        "Peak memory is the largest sum of the resident memory of all processes, sampled every "
        "0.1 s; shared pages count once a process, so it is an upper bound.",
    ]
    write_result(args, "The paper's scheme on MNIST", tables, reports, known, notes)


def train(data: str, preset: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """One run of the command line; its report."""
    source = "digits" if quick else str(Path(data) / "mnist")
    command = [str(Path(sys.executable).with_name("rankwise")), "train", source]
    command += ["--preset", preset, "--seed", str(seed), "--bootstrap", "--json"]
    if quick:
        command += ["--subnets", "2", "--samples-per-subnet", "300"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--out", folder], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def table(preset: str, reports: list[dict[str, Any]], *, judged: bool) -> Table:
    """Measured against the bars, which are for MNIST."""
    runs = [r for r in reports if r["run"]["preset"] == preset]
    bars = BARS[preset]
    accuracy = [r["inductive_accuracy"] for r in runs]
    seconds = [r["seconds"]["subnets"] + r["seconds"]["glue"] for r in runs]
    memory = [r["peak_memory_mb"] for r in runs]
    bootstrap = [r["bootstrap"] for r in runs]

    def met(worst: bool) -> str:
        return ("yes" if worst else "no") if judged else "–"

    rows = [
        (
            "inductive accuracy, %",
            percent(accuracy),
            f"≥ {100 * bars['accuracy']:g}",
            met(min(accuracy) >= bars["accuracy"]),
        ),
        (
            "sub-networks and glue, s",
            spread(seconds, 1),
            f"< {bars['seconds']:g}",
            met(max(seconds) < bars["seconds"]),
        ),
        (
            "peak memory, MB",
            spread(memory, 0),
            f"< {bars['memory_mb']:g}",
            met(max(memory) < bars["memory_mb"]),
        ),
        ("training accuracy, %", percent([r["train_accuracy"] for r in runs]), "", ""),
        ("bootstrap: agreement with guesses, %", *_of(bootstrap, "agreement_with_guesses")),
        ("bootstrap: accuracy of the guesses, %", *_of(bootstrap, "guess_accuracy")),
        ("bootstrap: transductive accuracy, %", *_of(bootstrap, "transductive_accuracy")),
        ("bootstrap: ambiguous guesses, %", *_of(bootstrap, "ambiguous_fraction")),
        ("sub-networks alone, s", spread([r["seconds"]["subnets"] for r in runs], 1), "", ""),
        ("glue alone, s", spread([r["seconds"]["glue"] for r in runs], 1), "", ""),
        (
            "whole run, reading included, s",
            spread([r["seconds"]["total"] for r in runs], 1),
            "",
            "",
        ),
        ("parameters of the units", f"{runs[0]['n_parameters_units']:,}", "", ""),
        ("parameters in all", f"{runs[0]['n_parameters_total']:,}", "", ""),
    ]
    if preset == "pereyra":
        rows.insert(1, ("the paper's accuracy there, %", PAPER, "", ""))
    return Table(f"--preset {preset}", ("", "measured", "bar", "met"), rows)


def _of(bootstraps: list[dict[str, Any]], key: str) -> tuple[str, str, str]:
    return percent([b[key] for b in bootstraps]), "", ""


if __name__ == "__main__":
    main()
