"""The paper's studies at full size, on a GPU that is lent for a quarter of an hour at a time.

Runs one of the large studies until the minutes are over, then stops it and packs what is finished
into one small file: results, predictions and histories, without weights and checkpoints. The next
time that file is unpacked first, and the study goes on with the cells that are left. Once it is
finished, `studies.py --only NAME --device cuda` records it. Prints one JSON: cells done and left,
seconds of a cell, and how many more such turns it takes.

    python benchmarks/gpu_study.py --study malaria-full --archive malaria.tar.gz
    python benchmarks/gpu_study.py --study mnist-full-sound --workers 10 --archive mnist.tar.gz
    python benchmarks/gpu_study.py --quick --archive quick.tar.gz   # the same without a GPU

Needs the package with its dependencies and the data sets as `rankwise.load_images` reads them;
VGG16 needs ``vgg16.safetensors`` in the current folder (`designs/vgg16.toml`).
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from rankwise.study import study_status
from studies import STUDIES

HERE = Path(__file__).parent
VGG16 = "cats-vgg16"
NAMES = (*(name for name in STUDIES if "-full" in name and "transfer" not in name), VGG16)
QUICK = "experiment-1 --only mnist --data mnist=digits --limit 100 --epochs-factor 0.1 --folds 2"
KEPT = ("study.json", "record.json", "results.json")
KEPT_OF_CELLS = ("cell.json", "result.json", "predictions.npz", "history.csv", "history-frozen.csv")
_GRACE = 30.0


def main() -> None:
    """Unpack, run until the time is over, pack, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=NAMES, default="malaria-full")
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets")
    parser.add_argument("--archive", type=Path, required=True, help="of finished cells; goes on")
    parser.add_argument("--minutes", type=float, default=13.0, help="of the run, default 13")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--workers", type=int, default=4, help="cells at a time on the one GPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a tiny study on the CPU")
    args = parser.parse_args()
    name = "quick" if args.quick else args.study
    out = args.runs / name
    if args.archive.exists():
        unpack(args.archive, out)
    before = cells_done(out)
    begin = time.monotonic()
    stopped = run(command(args, out), args.minutes * 60)
    seconds = time.monotonic() - begin
    pack(out, args.archive)
    print(json.dumps(report(name, out, before, seconds, stopped), indent=2))


def command(args: argparse.Namespace, out: Path) -> list[str]:
    """The study's command line."""
    if args.quick:
        design = QUICK
    elif args.study == VGG16:
        design = "{here}/designs/vgg16.toml --data cats-vs-dogs={data}/cats_vs_dogs"
    else:
        design = STUDIES[args.study].design
    words = shlex.split(design.format(data=args.data, here=HERE))
    device, workers = ("cpu", 1) if args.quick else (args.device, args.workers)
    run = [sys.executable, "-m", "rankwise", "study", "run", *words]
    return [*run, "--out", str(out), "--device", device, "--workers", str(workers)]


def run(words: list[str], seconds: float) -> bool:
    """Run a command for so long, then stop it; whether it had to be stopped.

    Raises
    ------
    SystemExit
        If it failed by itself.
    """
    process = subprocess.Popen(words, stdout=sys.stderr)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return True
    if code:
        raise SystemExit(f"the study ended with {code}; what is finished stays in its folder")
    return False


def pack(out: Path, archive: Path) -> int:
    """Put the finished cells of a study's folder into one file; how many cells they are."""
    files = [out / name for name in KEPT if (out / name).exists()]
    done = sorted(path.parent for path in out.rglob("result.json"))
    files += [cell / name for cell in done for name in KEPT_OF_CELLS if (cell / name).exists()]
    temporary = archive.with_name(f"{archive.name}.new")
    with tarfile.open(temporary, "w:gz") as tar:
        for path in files:
            tar.add(path, arcname=path.relative_to(out).as_posix())
    temporary.replace(archive)
    return len(done)


def unpack(archive: Path, out: Path) -> None:
    """Bring the finished cells of earlier turns back; what is there stays."""
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if not (out / member.name).exists():
                tar.extract(member, out, filter="data")


def cells_done(out: Path) -> int:
    """Finished cells of a folder."""
    return sum(1 for _ in out.rglob("result.json"))


def report(name: str, out: Path, before: int, seconds: float, stopped: bool) -> dict[str, Any]:
    """How far the study is, and how many more such turns it takes."""
    status = study_status(out)
    now = status["done"] - before
    each = seconds / now if now else None
    left = status["cells"] - status["done"]
    turns = None if each is None or not seconds else math.ceil(left * each / seconds)
    return {
        "study": name,
        "cells": status["cells"],
        "done": status["done"],
        "done_this_turn": now,
        "seconds": round(seconds, 1),
        "stopped": stopped,
        "seconds_a_cell": None if each is None else round(each, 1),
        "more_turns": 0 if left == 0 else turns,
        "failures": status["failures"],
    }


if __name__ == "__main__":
    main()
