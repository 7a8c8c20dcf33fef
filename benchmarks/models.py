r"""Train the models that come with the package, and write their folders and cards.

Each is one call of ``rankwise train`` for each seed; the weights of the first seed are shipped,
whatever the others reach, and the card says what all of them reach on the test images, which
nothing was chosen on. Finished runs are kept in ``--runs`` and not trained again. What is shipped
of ``tiny`` and ``small`` has the layers that these presets had before; trained again it would have
today's.

    python benchmarks/models.py
    python benchmarks/models.py --names mnist-tiny --seeds 42
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import SEEDS, percent, say
from rankwise import runs
from rankwise._hub import CARD, model_card
from rankwise._model_files import DESCRIPTION, WEIGHTS
from rankwise.estimators.models import load_model
from rankwise.export import to_graph
from rankwise.export.c_source import c_source

SHIPPED = Path(__file__).parents[1] / "src" / "rankwise" / "pretrained"
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Shipped:
    """One of the models: its data set's folder and name, its preset, and what it isn't for."""

    data: str
    about: str
    preset: str
    limits: str


MODELS = {
    "mnist-tiny": Shipped(
        "mnist",
        "MNIST, handwritten digits (Y. LeCun, C. Cortes, C. Burges)",
        "tiny",
        "white digits on black, centred, 28×28 pixels; anything else gets a digit's label too",
    ),
    "mnist-small": Shipped(
        "mnist",
        "MNIST, handwritten digits (Y. LeCun, C. Cortes, C. Burges)",
        "small",
        "white digits on black, centred, 28×28 pixels; anything else gets a digit's label too",
    ),
    "fashion-small": Shipped(
        "fashion_mnist",
        "Fashion-MNIST, pictures of Zalando's articles (H. Xiao, K. Rasul, R. Vollgraf)",
        "small",
        "one article on black, 28×28 grey pixels; photos of worn clothes are something else",
    ),
    "cifar10-accurate": Shipped(
        "cifar10",
        "CIFAR-10, small photos of ten kinds (A. Krizhevsky)",
        "accurate",
        "32×32 colour pixels, one thing in the middle; it errs on every seventh or so test photo",
    ),
}


def main() -> None:
    """Train what isn't trained yet, then write the folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--names", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/models"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="smoke test: digits, nothing kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if args.quick:
            args.out, args.runs, args.seeds = Path(temporary) / "out", Path(temporary), [42]
        for name in args.names:
            write(name, MODELS[name], args)
        total = sum(p.stat().st_size for p in args.out.glob(f"*/{WEIGHTS}"))
        say(f"{total:,} bytes of weights in all, of at most {MOST_BYTES:,}")
        if total > MOST_BYTES:
            raise SystemExit("the models are too large for the wheel")


def write(name: str, shipped: Shipped, args: argparse.Namespace) -> None:
    """One model's folder: the first seed's weights, and the card of all seeds."""
    source = "digits" if args.quick else str(Path(args.data) / shipped.data)
    reports = []
    for seed in args.seeds:
        parameters: dict[str, Any] = {"precision": "auto"} | ({"max_iter": 1} if args.quick else {})
        run = runs.TrainingRun(source, preset=shipped.preset, parameters=parameters, seed=seed)
        folder = args.runs / f"{name}-{seed}"
        reports.append(runs.train(run, folder, workers=-1))
        say(f"{name}, seed {seed}: {percent([reports[-1]['inductive_accuracy']])}%")
    first = args.runs / f"{name}-{args.seeds[0]}"
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    for file in (WEIGHTS, DESCRIPTION):
        shutil.copyfile(first / file, out / file)
    model = load_model(out)
    (out / CARD).write_text(model_card(model, name, facts(model, shipped, reports, args.seeds)))


def facts(
    model: Any, shipped: Shipped, reports: list[dict[str, Any]], seeds: list[int]
) -> dict[str, str]:
    """What the card says of the training, from its reports alone."""
    accuracies = [report["inductive_accuracy"] for report in reports]
    train, test = reports[0]["train"]["n_samples"], reports[0]["test"]["n_samples"]
    source = c_source(to_graph(model))
    rows = {
        "data": f"{shipped.about}; {train:,} training and {test:,} test images",
        "command": f"`rankwise train DATA --preset {shipped.preset} --precision auto "
        f"--seed {seeds[0]}`",
        "accuracy": f"{percent(accuracies[:1])}% of the test images, never seen in training",
    }
    if len(seeds) > 1:
        rows["seeds"] = f"{percent(accuracies)}% over the seeds {', '.join(map(str, seeds))}"
    else:
        rows["seeds"] = f"one, {seeds[0]}"
    rows["size"] = (
        f"{source.flash_bytes:,} bytes of tables and {source.ram_bytes:,} of scratch as C, float32"
    )
    rows["limits"] = shipped.limits
    return rows


if __name__ == "__main__":
    main()
