"""The recorded studies: the paper's experiments, each by one `rankwise study run`.

Every entry of `STUDIES` is one command line. The study's own folder (under ``--runs``) keeps its
cells, so that the same command goes on after a stop; what it ended with goes into
``results/study_NAME.json``. They stand in the order of their cost, cheapest first. Titles say by
how much a study is smaller than the paper's.

    python benchmarks/studies.py --list
    python benchmarks/studies.py --only digits --data ../shared/data
    nice -n 15 taskset -c 0 python benchmarks/studies.py --workers 1 --only mnist-full-sound
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from common import RESULTS, Table, argument_parser, gpu_name, say, write_result
from rankwise.study.compare import interval_of, retrained


@dataclass(frozen=True)
class Recorded:
    """A study that is recorded.

    Parameters
    ----------
    title : str
    design : str
        And options of ``rankwise study run``; ``{data}`` and ``{here}`` are the folders of the data
        sets and of the designs.
    """

    title: str
    design: str


_SEEDS = "--seeds 42,43,44"
_FULL = {
    "mnist": ("MNIST", "mnist={data}/mnist"),
    "fashion-mnist": ("Fashion-MNIST", "fashion-mnist={data}/fashion_mnist"),
    "malaria": ("malaria", "malaria={data}/malaria"),
    "cats-vs-dogs": ("cats vs dogs", "cats-vs-dogs={data}/cats_vs_dogs"),
}


def _full(experiment: int, name: str, protocol: str) -> Recorded:
    """A data set of one of the paper's experiments, as it is written."""
    words, source = _FULL[name]
    said = "the paper's protocol" if protocol == "paper" else "the sound protocol"
    return Recorded(
        f"Experiment {'I' * experiment}, {words}, {said}, five folds × three seeds",
        f"experiment-{experiment} --only {name} --data {source} --protocol {protocol} {_SEEDS}",
    )


_LEAK = "experiment-1 --only mnist --data mnist={data}/mnist --limit 3000"
STUDIES = {
    "digits": Recorded(
        "Digits, 600 images, the paper's simple CNN, every arm to its plateau",
        "{here}/designs/digits.toml",
    ),
    "leak-sound": Recorded(
        "The leak experiment, MNIST, 3000 images: sound, equal updates",
        f"{_LEAK} --protocol sound",
    ),
    "leak-paper": Recorded(
        "The leak experiment, MNIST, 3000 images: the paper's protocol, updates grow with copies",
        f"{_LEAK} --protocol paper",
    ),
    "leak-notebook": Recorded(
        "The leak experiment, MNIST, 3000 images: the notebook's leaks, updates grow with copies",
        f"{_LEAK} --protocol notebook",
    ),
    "cats-head": Recorded(
        "Cats vs dogs, smaller: 800 images, EfficientNet-Lite0 as it is, last layer solved",
        "{here}/designs/cats_head.toml --data cats-vs-dogs={data}/cats_vs_dogs",
    ),
    "malaria-head": Recorded(
        "Malaria by slide, smaller: 800 images, EfficientNet-Lite0 as it is, last layer solved",
        "{here}/designs/malaria_head.toml --data malaria={data}/malaria",
    ),
    "mnist-small": Recorded(
        "Experiment I, MNIST, smaller: 4000 images, every arm to its plateau",
        "{here}/designs/mnist_small.toml --data mnist={data}/mnist",
    ),
    "fashion-small": Recorded(
        "Experiment I, Fashion-MNIST, smaller: 4000 images, every arm to its plateau",
        "{here}/designs/fashion_mnist_small.toml --data fashion-mnist={data}/fashion_mnist",
    ),
    "mnist-full-sound": _full(1, "mnist", "sound"),
    "mnist-full-paper": _full(1, "mnist", "paper"),
    "fashion-full-sound": _full(1, "fashion-mnist", "sound"),
    "fashion-full-paper": _full(1, "fashion-mnist", "paper"),
    "malaria-full": _full(1, "malaria", "sound"),
    "cats-full": _full(1, "cats-vs-dogs", "sound"),
    "malaria-default-full": _full(2, "malaria", "sound"),
    "cats-default-full": _full(2, "cats-vs-dogs", "sound"),
    "cats-transfer-full": _full(3, "cats-vs-dogs", "sound"),
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
    parser.add_argument("--list", action="store_true", help="name the studies and their hours")
    parser.add_argument("--runs", default="runs", help="folder of the studies' own folders")
    parser.add_argument("--workers", type=int, default=-1)
    parser.add_argument("--device", default="cpu", help="a torch device")
    args = parser.parse_args()
    if args.list:
        for name in args.only:
            print(f"{name:<22} {hours_of(name):>8}  {STUDIES[name].title}")
        return
    for name in args.only:
        here = Path(__file__).parent.name
        options = shlex.split(STUDIES[name].design.format(data=args.data, here=here))
        out = Path(args.runs) / name
        if args.quick:
            options += ["--limit", "120", "--epochs-factor", "0.01", "--folds", "2"]
            out = out.with_name(f"{name}-quick")
        where = ["--workers", str(args.workers), "--device", args.device]
        command = ["run", *options, "--out", str(out), *where]
        say(f"== rankwise study {shlex.join(command)}")
        run = [sys.executable, "-m", "rankwise", "study", *command]
        if subprocess.run(run, check=False).returncode:
            raise SystemExit(f"{name} failed; the same command goes on from its finished cells")
        record(args, name, STUDIES[name].title, out)


def hours_of(name: str) -> str:
    """Hours that a study takes, as `study_costs.py` measured them on a pilot."""
    path = RESULTS / "study_costs.json"
    if not path.exists():
        return "–"
    known = json.loads(path.read_text(encoding="utf-8"))["data"]
    return next((f"{row['hours']:.1f} h" for row in known if row["study"] == name), "–")


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
        "devices": results["devices"],
        "gpu": gpu_name(args.device),
        "spread": "± is a deviation over folds and seeds; intervals are 95%",
    }
    notes = [f"{d['name']}: {note}." for d in results["data_sets"] for note in d["notes"]]
    notes += [c["sentence"] for c in results["comparisons"]]
    notes.append(leak_line(results))
    if name.startswith("leak-"):
        notes.append(LEAK_NOTE)
    data = {
        k: results[k]
        for k in ("conditions", "comparisons", "robustness", "convergence", "data_sets")
    }
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
    robust = [item for item in results["robustness"] if item["pairs"]]
    return [
        accuracy_table(results),
        verdict_table(results["comparisons"], results, "Verdicts on accuracy"),
        *([verdict_table(robust, results, "Verdicts on degraded test images")] if robust else []),
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
                _spread([c["test_accuracy"] for c in folds]),
                _interval(interval_of(results, condition["id"])),
                _interval(published.get("interval")),
                _spread(tested),
                _percent(published.get("test_accuracy")),
                f"{sum(c['seconds'] for c in cells):,.0f}",
            )
        )
    columns = (
        "arm",
        "epochs",
        "updates",
        "test of the folds, %",
        "best validation, %",
        "paper",
        "re-trained, test, %",
        "paper's",
        "s, all cells",
    )
    return Table("Accuracy of the folds' models and of the re-trained ones", columns, lines)


def verdict_table(items: list[dict[str, Any]], results: dict[str, Any], title: str) -> Table:
    """One row a comparison: the paper's rule beside the sound ones."""
    names = {c["id"]: _label(c) for c in results["conditions"]}
    lines = []
    for c in items:
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
    return Table(title, columns, lines)


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


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return _percent(values[0]) if values else "–"
    return f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f}"


def _interval(bounds: Any) -> str:
    return "–" if bounds is None else f"[{100 * bounds[0]:.2f}, {100 * bounds[1]:.2f}]"


def _small(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


if __name__ == "__main__":
    main()
