"""Run every benchmark in turn, each as a process of its own; options are passed on.

What was measured with this code and data stays; what wasn't is measured anew.

python benchmarks/run_all.py --quick
python benchmarks/run_all.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OTHERS = ("fashion_mnist", "cats_vs_dogs", "malaria")
_OF_PHOTOGRAPHS = ("--on", "cats_vs_dogs", "--epochs", "14", "--rows", "base", "affine")
_OF_LONG = ("--epochs", "60", "--rows", "base", "shifts")
COMMANDS = (
    ("presets.py",),
    ("probes.py",),
    ("probes.py", "--power", "0.5"),
    ("expansion.py",),
    ("solver_race.py",),
    ("solver_race.py", "--damping"),
    ("nist.py",),
    ("coverage.py",),
    ("separable_speed.py",),
    ("scaling.py",),
    ("ablation.py",),
    ("cifar10.py",),
    ("rivals.py",),
    ("default_model.py",),
    ("accurate.py",),
    ("accurate.py", "--datasets", "cifar10", "--presets", "accurate", "wide"),
    ("accurate.py", "--datasets", *OTHERS, "--presets", "accurate"),
    ("choices.py",),
    ("joint_race.py",),
    ("curve.py", "--minutes", "1"),
    ("curve.py", "--dataset", "cifar10", "--minutes", "2"),
    ("curve.py", "--dataset", "photographs-64", "--minutes", "2"),
    ("curve.py", "--dataset", "photographs-96", "--minutes", "2"),
    ("recipe.py",),
    ("recipe.py", *_OF_PHOTOGRAPHS, "--out", str(HERE / "results" / "recipe_photographs.json")),
    ("recipe.py", *_OF_LONG, "--out", str(HERE / "results" / "recipe_long.json")),
    ("epoch_choice.py",),
    ("ways.py",),
    ("muon.py",),
    ("frontier.py", "--tta", "shifts"),
    ("airbench.py",),
    ("training_overhead.py",),
    ("inference_simulation.py",),
    ("pretrain_backbone.py",),
    ("studies.py",),
    ("study_costs.py",),
    ("head.py",),
    ("head_memory.py",),
    ("head_scale.py",),
    ("head_grid.py",),
    ("projected_loss.py",),
    ("wrong_labels.py",),
    ("explore.py",),
    ("device.py",),
    ("cluster.py",),
)
RESUMABLE = (
    "ablation.py",
    "cifar10.py",
    "rivals.py",
    "default_model.py",
    "accurate.py",
    "choices.py",
    "joint_race.py",
    "curve.py",
    "recipe.py",
    "epoch_choice.py",
    "frontier.py",
    "airbench.py",
    "head.py",
    "probes.py",
    "expansion.py",
    "head_grid.py",
    "projected_loss.py",
    "wrong_labels.py",
)


def main() -> None:
    """Run all, the failed ones named at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--quick", action="store_true", help="smoke test, nothing written")
    args = parser.parse_args()
    passed_on = ["--data", args.data, *(["--quick"] if args.quick else [])]
    others = ((path.name,) for path in sorted(HERE.glob("lowrank_*.py")))
    failed = []
    for name, *options in (*COMMANDS, *others):
        print(f"\n== {' '.join([name, *options])}\n", flush=True)
        if args.quick and "--minutes" in options:  # one epoch takes less
            at = options.index("--minutes")
            del options[at : at + 2]
        command = [sys.executable, str(HERE / name), *options, *passed_on]
        if name in RESUMABLE:
            command.append("--renew")
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
