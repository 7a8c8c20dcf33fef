r"""The models that come with the package on emulated microcontrollers, as a table.

Each is exported as C in float32, int8 and int4, compiled at ``-O2`` and run on test images under
QEMU, which counts the instructions; flash and RAM are those of the compiled object, code included.
Answers must be the host's. What isn't installed is left out, and said.

    python benchmarks/boards.py            # prints the table
    python benchmarks/boards.py --write    # and puts it into docs/deploying.md
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import rankwise
from board_runner import BOARDS, measure, missing
from common import say
from rankwise import pretrained
from rankwise.export import export_model
from rankwise.export.check import run_c
from rankwise.export.integers import CALIBRATION_IMAGES

DATA = {"mnist": "mnist", "fashion": "fashion_mnist", "cifar10": "cifar10"}
PAGE = Path(__file__).parents[1] / "docs" / "deploying.md"
BEGIN, END = "<!-- boards: written by benchmarks/boards.py -->", "<!-- end of boards -->"

PUBLISHED = (
    "| BitNetMCU 16×16, published | 48 MHz RISC-V | own | 99.28%, MNIST | 57 ms | 7.3 kB | – |",
    "| MLPerf Tiny ResNet-8, published | Cortex-M | int8 | 85%, CIFAR-10 | 55–227 ms | 96 kB | – |",
)


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets")
    parser.add_argument(
        "--names", nargs="+", choices=pretrained.names(), default=pretrained.names()
    )
    parser.add_argument("--images", type=int, default=5, help="that each board is given")
    parser.add_argument("--quick", action="store_true", help="one model on one board, digits")
    parser.add_argument("--write", action="store_true", help="write docs/deploying.md")
    args = parser.parse_args()
    boards = dict(BOARDS)
    for name, board in BOARDS.items():
        if missing(board):
            say(f"{board.title} is left out: {missing(board)} isn't installed")
            del boards[name]
    rows = []
    for name in args.names[:1] if args.quick else args.names:
        rows += model_rows(name, boards, args)
    head = (
        "| model | processor | precision | accuracy | million instructions an image | flash | RAM |"
    )
    table = "\n".join([head, "| --- | --- | --- | --- | ---: | ---: | ---: |", *rows, *PUBLISHED])
    print(table)
    if args.write:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def model_rows(name: str, boards: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """A model's rows, one a board and precision."""
    model = rankwise.load(name)
    source = str(Path(args.data) / DATA[name.split("-")[0]])
    if args.quick:
        shape, rng = model.image_shape_, np.random.default_rng(0)
        images = rng.integers(0, 256, (args.images, *shape), dtype=np.uint8)
        calibration, labels = images, np.zeros(args.images)
    else:
        train = rankwise.load_images(source, split="train", limit=CALIBRATION_IMAGES)
        test = rankwise.load_images(source, split="test")
        images, calibration = test.images, train.images
        labels = np.asarray(test.class_names)[test.labels]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "int8", "int4"):
            header = Path(folder) / f"m_{precision}.h"
            export_model(model, "c", header, precision=precision, calibration=calibration)
            host = run_c(header, images)
            right = np.mean(np.asarray(model.classes_, str)[host.argmax(axis=1)] == labels)
            for board in boards.values():
                found = measure(board, header, images[: args.images])
                if np.abs(found.probabilities - host[: args.images]).max() > 1e-5:
                    raise SystemExit(f"{board.title} answers otherwise than the host for {name}")
                row = f"| `{name}` | {board.title} | {precision} | {100 * right:.2f}% |"
                row += f" {found.instructions / 1e6:.1f} | {found.flash_bytes / 1000:.1f} kB |"
                rows.append(f"{row} {found.ram_bytes / 1000:.1f} kB |")
                say(rows[-1])
    return rows


if __name__ == "__main__":
    main()
