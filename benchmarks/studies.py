"""The recorded studies: the paper's experiments, each by one `rankwise study run`.

Every entry of `STUDIES` is one command line. The study's own folder (under ``--runs``) keeps its
cells, so that the same command goes on after a stop; what it ended with goes into
``results/study_NAME.json``. Titles say by how much a study is smaller than the paper's; those
that train ResNet25 or a backbone are cut to what two cores do in about a quarter of an hour.

    python benchmarks/studies.py --only mnist-paper --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from common import RESULTS, Table, argument_parser, say, write_result
from rankwise.study.compare import interval_of, retrained

# Name → title, then design and options of `rankwise study run`; a source is a folder of --data.
STUDIES = {
    "mnist-paper": (
        "Experiment I, MNIST in full, the paper's protocol",
        "experiment-1 --only mnist --data mnist={data}/mnist --protocol paper",
    ),
    "mnist-sound": (
        "Experiment I, MNIST in full, the sound protocol",
        "experiment-1 --only mnist --data mnist={data}/mnist --protocol sound",
    ),
    "leak-sound": (
        "The leak experiment, MNIST, 3000 images: sound, equal updates",
        "experiment-1 --only mnist --data mnist={data}/mnist --protocol sound --limit 3000",
    ),
    "leak-paper": (
        "The leak experiment, MNIST, 3000 images: the paper's protocol, updates grow with copies",
        "experiment-1 --only mnist --data mnist={data}/mnist --protocol paper --limit 3000",
    ),
    "leak-notebook": (
        "The leak experiment, MNIST, 3000 images: the notebook's leaks, updates grow with copies",
        "experiment-1 --only mnist --data mnist={data}/mnist --protocol notebook --limit 3000",
    ),
    "fashion-sound": (
        "Experiment I, Fashion-MNIST, smaller: 5000 images, a fifth of the epochs",
        "experiment-1 --only fashion-mnist --data fashion-mnist={data}/fashion_mnist "
        "--protocol sound --limit 5000 --epochs-factor 0.2",
    ),
    "malaria-sound": (
        "Experiment I, malaria, much smaller: 2000 images of 48 × 48 pixels, 3 folds, a fifth of "
        "the epochs",
        "experiment-1 --only malaria --data malaria={data}/malaria --protocol sound "
        "--limit 2000 --size 48 --folds 3 --epochs-factor 0.2",
    ),
    "cats-sound": (
        "Experiment I, cats vs dogs, much smaller: 2000 images of 48 × 48 pixels, 3 folds, a "
        "tenth of the epochs",
        "experiment-1 --only cats-vs-dogs --data cats-vs-dogs={data}/cats_vs_dogs "
        "--protocol sound --limit 2000 --size 48 --folds 3 --epochs-factor 0.1",
    ),
    "malaria-default": (
        "Experiment II, malaria, much smaller: 1500 images of 48 × 48 pixels, 3 folds, a "
        "fifth of the epochs",
        "experiment-2 --only malaria --data malaria={data}/malaria --protocol sound "
        "--limit 1500 --size 48 --folds 3 --epochs-factor 0.2",
    ),
    "cats-transfer": (
        "Experiment III, cats vs dogs, much smaller: 1500 images of 48 × 48 pixels, 3 folds, a "
        "fifth of the epochs, a backbone pre-trained here, not VGG16",
        "{here}/experiment_3_own.toml --data cats-vs-dogs={data}/cats_vs_dogs",
    ),
}

CELL = (
    "condition",
    "stage",
    "fold",
    "seed",
    "epochs",
    "status",
    "best_epoch",
    "validation_accuracy",
    "test_accuracy",
    "test_loss",
    "degraded",
    "n_train",
    "n_copies",
    "n_updates",
    "seconds",
    "device",
)
HISTORY = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")

# What `rankwise study run`, a process of its own, has loaded.
RAN = ("rankwise.study.run", "rankwise.study.cells")

# Under the studies of the leak experiment.
LEAK_NOTE = (
    "Protocols differ in more than leaks: 'sound' gives all arms equal epochs and updates, 'paper' "
    "and 'notebook' train low-rank arms for twice the epochs, with updates that grow with the "
    "copies. So the leaks show in 'notebook' against 'paper': in the validation accuracies copies "
    "made before the folds, in the test accuracies test images in the re-training (whose number of "
    "epochs the notebook truncates)."
)


def main() -> None:
    """Run the studies asked for, one after another."""
    parser = argument_parser(__doc__, "studies", seeds=None)
    parser.add_argument("--only", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--runs", default="runs", help="folder of the studies' own folders")
    parser.add_argument("--workers", type=int, default=-1)
    args = parser.parse_args()
    for name in args.only:
        title, design = STUDIES[name]
        here = Path(__file__).parent.name
        options = shlex.split(design.format(data=args.data, here=here))
        out = Path(args.runs) / name
        if args.quick:
            options += ["--limit", "120", "--epochs-factor", "0.01", "--folds", "2"]
            out = out.with_name(f"{name}-quick")
        command = ["run", *options, "--out", str(out), "--workers", str(args.workers)]
        say(f"== rankwise study {shlex.join(command)}")
        run = [sys.executable, "-m", "rankwise", "study", *command]
        if subprocess.run(run, check=False).returncode:
            raise SystemExit(f"{name} failed; the same command goes on from its finished cells")
        record(args, name, title, out)


def record(args: argparse.Namespace, name: str, title: str, out: Path) -> None:
    """Write a study's outcome as the other benchmarks' are written."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    found = tables(results)
    if not args.quick:
        args.out = RESULTS / f"study_{name.replace('-', '_')}.json"
    known = {
        "study": results["command"],
        "protocol": results["study"]["protocol"],
        "n": {d["name"]: d["n_images"] for d in results["data_sets"]},
        "folds": results["study"]["folds"],
        "seeds": results["study"]["seeds"],
        "started": results["started"],
        "finished": results["finished"],
        "spread": "the paper's interval: mean ± deviation over the folds",
    }
    notes = [f"{d['name']}: {note}." for d in results["data_sets"] for note in d["notes"]]
    notes += [c["sentence"] for c in results["comparisons"]]
    notes.append(leak_line(results))
    if name.startswith("leak-"):
        notes.append(LEAK_NOTE)
    data = {k: results[k] for k in ("conditions", "comparisons")}
    data["cells"] = [published(cell) for cell in results["cells"]]
    write_result(args, title, found, data, known, notes, also=RAN)
    for table in found:
        print(table.text())
    print(*notes, sep="\n")


def published(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell as it goes into the result file: what spread and convergence are seen from."""
    known = {key: cell.get(key) for key in CELL}
    history = {key: [entry.get(key) for entry in cell["history"]] for key in HISTORY}
    return known | {"history": history}


def tables(results: dict[str, Any]) -> list[Table]:
    """The paper's table beside what was measured; verdicts; accuracy on degraded test images."""
    return [
        accuracy_table(results),
        verdict_table(results),
        *degraded_table(results),
    ]


def accuracy_table(results: dict[str, Any]) -> Table:
    """One row a condition."""
    lines = []
    for condition in results["conditions"]:
        again = retrained(results, condition["id"]).values()
        tested = [c["test_accuracy"] for c in again if c["test_accuracy"] is not None]
        published = condition.get("published") or {}
        cells = [c for c in results["cells"] if c["condition"] == condition["id"]]
        folds = [c for c in cells if c["stage"] == "fold"]
        lines.append(
            (
                _label(condition),
                str(condition["epochs"]),
                f"{mean(c['n_updates'] for c in folds):,.0f}" if folds else "–",
                _interval(interval_of(results, condition["id"])),
                _interval(published.get("interval")),
                _percent(mean(tested)) if tested else "–",
                _percent(published.get("test_accuracy")),
                f"{sum(c['seconds'] for c in cells):,.0f}",
            )
        )
    columns = (
        "arm",
        "epochs",
        "updates",
        "validation, %",
        "paper",
        "test, %",
        "paper's",
        "s, all cells",
    )
    return Table("Mean k-fold best validation accuracy, re-trained test accuracy", columns, lines)


def verdict_table(results: dict[str, Any]) -> Table:
    """One row a comparison: the paper's rule beside the sound ones."""
    names = {c["id"]: _label(c) for c in results["conditions"]}
    lines = []
    for c in results["comparisons"]:
        rule, effect, bayes = c["paper"], c["effect"], c["bayes"]
        lines.append(
            (
                f"{names[c['condition']]} against {names[c['baseline']]}",
                "–" if rule is None else ("rejects" if rule["rejects"] else "retains"),
                "–"
                if effect["low"] is None
                else f"{100 * effect['mean']:+.2f} "
                f"({100 * effect['low']:+.2f} to {100 * effect['high']:+.2f})",
                _small(c["corrected_t"]["p_holm"]),
                " / ".join(_share(bayes[k]) for k in ("harm", "equal", "help")),
                _small(c["mcnemar"]["p_value"]) if c["mcnemar"] else "–",
                c["verdict"],
            )
        )
    columns = (
        "comparison",
        "paper's rule",
        "effect, points (95%)",
        "p, Holm",
        "harm / equal / help, %",
        "McNemar's p",
        "verdict",
    )
    return Table("Verdicts", columns, lines)


def degraded_table(results: dict[str, Any]) -> list[Table]:
    """Test accuracy of the re-trained models, mean over the five severities; none if unmeasured."""
    lines = []
    kinds: list[str] = []
    for condition in results["conditions"]:
        cells = [c["degraded"] for c in retrained(results, condition["id"]).values()]
        found = [d for d in cells if d]
        if found:
            kinds = [k for k in found[0] if k != "clean"]
            lines.append(
                (
                    _label(condition),
                    _percent(mean(d["clean"] for d in found)),
                    *(_percent(mean(mean(d[k]) for d in found)) for k in kinds),
                    *(_percent(mean(d[k][-1] for d in found)) for k in kinds),
                )
            )
    if not lines:
        return []
    columns = ("arm", "clean", *kinds, *(f"{k}, worst" for k in kinds))
    return [
        Table("Degraded test images, %: mean of five severities, then the worst", columns, lines)
    ]


def leak_line(results: dict[str, Any]) -> str:
    """Counts of what is shared between the parts, over all cells."""
    keys = [k for k in results["leaks"][0] if k not in ("condition", "seed", "fold")]
    counts = {k: sum(leak[k] or 0 for leak in results["leaks"]) for k in keys}
    said = ", ".join(f"{k.replace('_', ' ')} {n:,}" for k, n in counts.items())
    return f"Shared sources, summed over {len(results['leaks'])} cells: {said}."


def _label(condition: dict[str, Any]) -> str:
    return f"{condition['arm']}, {condition['model']}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _interval(bounds: Any) -> str:
    return "–" if bounds is None else f"[{100 * bounds[0]:.2f}, {100 * bounds[1]:.2f}]"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


if __name__ == "__main__":
    main()
