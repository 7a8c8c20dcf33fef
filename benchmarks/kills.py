"""End every resumable command at every one of its file operations, and give it again.

Each call that changes a file or a folder, whichever library makes it, is counted by `kills.c`,
which is loaded before libc's own functions. A command is killed before it, in the middle of a write
and after the last one (after any other is before the next: nothing on the disk changes in between;
``--moments before after within`` does all three); then the same command is given again. It has to
end well, with the same files as one that nobody interrupted, equal but for times and dates, and
with nothing left over, neither in its folder nor in the temporary one. Commands run in forks of one
warmed-up process.

python benchmarks/kills.py                     every command, every operation: hours
python benchmarks/kills.py train head --every 5
python benchmarks/kills.py --quick             a few of each: what the tests run
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MOMENTS = ("before", "after", "within")
TIMES = re.compile(r"second|^(date|started|finished|peak_memory_mb|earlier|now|per_fold)$")
"""Keys that may differ: times, dates, and how much memory a process took."""

FAST = "--units 12 --subnets 2 --max-iter 2 --limit 60 --workers 1"
STUDY = """
name = "small"
protocol = "sound"
models = ["simple-cnn"]
arms = ["none", "low-rank"]
epochs = 2
folds = 2
batch_size = 20
degraded = "none"
[data.digits]
source = "digits"
limit = 60
"""
OWN = """
import torch
from torch import nn


def make(image_shape, n_classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1], n_classes))


def noise(batch):
    return batch + 0.1 * torch.randn_like(batch)
"""
CALLABLES = """
name = "own"
protocol = "paper"
epochs = 2
folds = 2
batch_size = 20
degraded = "none"
[data.digits]
source = "digits"
limit = 60
[models.own]
network = "kills_own:make"
[arms.none]
[arms.noise]
kind = "callable"
function = "kills_own:noise"
"""
TUNING = """
name = "tuning"
protocol = "paper"
arms = ["none", "low-rank"]
epochs = 2
folds = 2
batch_size = 40
[data.digits]
source = "digits"
limit = 60
[models.own]
network = "kills_own:make"
"""


@dataclass(frozen=True)
class Command:
    """What is ended: its arguments, and commands that come before it and aren't ended."""

    arguments: str
    before: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(f"train digits --out out {FAST}"),
    "train-bootstrap": Command(f"train digits --out out {FAST} --bootstrap"),
    "train-convolutional": Command(
        "train digits --out out --preset tiny --max-iter 3 --limit 60 --workers 1"
    ),
    "train-refined": Command(f"train digits --out out {FAST} --refine 2 --grow 2"),
    "train-overwrite": Command(
        f"train digits --out out {FAST} --overwrite",
        (f"train digits --out out {FAST} --seed 7 --bootstrap",),
    ),
    "demo": Command("demo --out out"),
    "head": Command("head digits --backbone ../small.safetensors --size 16 --limit 60 --out out"),
    "head-again": Command(
        "head digits --backbone ../small.safetensors --size 16 --limit 60 --out out --alpha 3",
        ("head digits --backbone ../small.safetensors --size 16 --limit 60 --out out",),
    ),
    "augment": Command("augment digits out --limit 60 --skip-threshold 0.2"),
    "augment-folder": Command("augment digits out --limit 60 --skip-threshold 0.2 --format folder"),
    "study": Command("study run ../study.toml --out out --workers 1 --device cpu"),
    "study-own": Command("study run ../own.toml --out out --workers 1 --device cpu"),
    "study-report": Command(
        "study report out", ("study run ../own.toml --out out --workers 1 --device cpu",)
    ),
    "tune": Command("study tune ../tuning.toml --out out --trials 2 --device cpu"),
    "export-onnx": Command("export out --format onnx", (f"train digits --out out {FAST}",)),
    "export-c": Command("export out --format c --no-check", (f"train digits --out out {FAST}",)),
    "export-safetensors": Command(
        "export out --format safetensors --precision int8", (f"train digits --out out {FAST}",)
    ),
}
QUICK = {"train": 19, "head": 37, "augment": 25, "export-c": 7}
"""With ``--quick``: one in so many operations of these."""


def main() -> None:
    """End each command at each operation; exit status 1 if one of them wasn't equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--every", type=int, default=1, help="one in so many operations")
    parser.add_argument("--first", type=int, default=1, help="the first operation")
    parser.add_argument("--last", type=int, help="the last operation; default every one")
    parser.add_argument("--moments", nargs="+", choices=MOMENTS)
    parser.add_argument("--quick", action="store_true", help="a few operations of a few commands")
    args = parser.parse_args()
    unknown = sorted(set(args.commands) - set(COMMANDS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; accepted: {', '.join(COMMANDS)}")
    if "KILLS_LIBRARY" not in os.environ:
        _again_with_library()
    names = args.commands or (list(QUICK) if args.quick else list(COMMANDS))
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        failed = Killer(Path(place).resolve(), args).run(names)
    raise SystemExit(1 if failed else 0)


def _again_with_library() -> None:
    """The program again, in a process that has the library of `kills.c` from its start."""
    with tempfile.TemporaryDirectory(prefix="kills-library-") as folder:
        library = Path(folder) / "kills.so"
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise SystemExit("a C compiler is needed: cc or gcc")
        flags = ["-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "kills.c"), "-ldl"]
        subprocess.run([compiler, *flags], check=True)
        more = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        more |= {"LD_PRELOAD": str(library), "KILLS_LIBRARY": str(library), "COLUMNS": "80"}
        done = subprocess.run([sys.executable, *sys.argv], env=os.environ | more, check=False)
    raise SystemExit(done.returncode)


class Killer:
    """Runs commands in forks of this process, each in a folder of its own.

    Parameters
    ----------
    place : Path
        Where those folders lie.
    args : Namespace
        As the command line gives it.
    """

    def __init__(self, place: Path, args: argparse.Namespace) -> None:
        self.place, self.args = place, args
        self.library = ctypes.CDLL(os.environ["KILLS_LIBRARY"])
        self.library.kills_disarm.restype = ctypes.c_long
        (place / "study.toml").write_text(STUDY, encoding="utf-8")
        (place / "own.toml").write_text(CALLABLES, encoding="utf-8")
        (place / "tuning.toml").write_text(TUNING, encoding="utf-8")
        (place / "kills_own.py").write_text(OWN, encoding="utf-8")
        self.n = 0

    def run(self, names: list[str]) -> int:
        """Every command of a list; the number of kills that went wrong."""
        _warm_up(self.place)
        total, wrong = 0, 0
        for name in names:
            step = QUICK.get(name, self.args.every) if self.args.quick else self.args.every
            kills, failures, operations, seconds = self._command(COMMANDS[name], step)
            total, wrong = total + kills, wrong + len(failures)
            print(
                f"{name:<20} {operations:>5} operations {kills:>6} kills "
                f"{kills - len(failures):>6} equal {seconds:>6.0f} s",
                flush=True,
            )
            for failure in failures[:12]:
                print(f"    {failure}")
        print(f"{total} kills, {wrong} not equal to an uninterrupted run")
        return wrong

    def _command(self, command: Command, step: int) -> tuple[int, list[str], int, float]:
        begin = time.perf_counter()
        prepared = self._prepared(command)
        whole = self._copy(prepared)
        code, operations, words, _ = self._fork(whole, command.arguments, 0, 0)
        if code != 0:
            raise SystemExit(f"{command.arguments!r} ends with {code}: {words}")
        wanted = contents(whole)
        kills, failures = 0, []
        for operation in range(self.args.first, (self.args.last or operations) + 1, step):
            last = operation > operations - step
            names = self.args.moments or [m for m in MOMENTS if m != "after" or last]
            where = "write"
            for moment in map(MOMENTS.index, names):
                if moment == 2 and "write" not in where:
                    continue  # only a write has a middle
                folder = self._copy(prepared)
                code, _, words, where = self._fork(folder, command.arguments, operation, moment)
                label = f"{MOMENTS[moment]} {operation}: {where.replace(str(folder), '')}"
                if moment == 2 and "write" not in where:
                    shutil.rmtree(folder)
                    continue  # only a write has a middle
                if code != -signal.SIGKILL:
                    shutil.rmtree(folder)
                    continue  # a run of fewer operations than the first one
                kills += 1
                code, _, words, _ = self._fork(folder, command.arguments, 0, 0)
                found = contents(folder)
                if code != 0:
                    failures.append(f"{label}: ends with {code}: {words}")
                elif found != wanted:
                    failures.append(f"{label}: {_difference(found, wanted)}")
                shutil.rmtree(folder)
        shutil.rmtree(whole)
        shutil.rmtree(prepared)
        return kills, failures, operations, time.perf_counter() - begin

    def _prepared(self, command: Command) -> Path:
        folder = self.place / "prepared"
        (folder / "tmp").mkdir(parents=True)
        for arguments in command.before:
            code, _, words, _ = self._fork(folder, arguments, 0, 0)
            if code != 0:
                raise SystemExit(f"{arguments!r} ends with {code}: {words}")
        return folder

    def _copy(self, prepared: Path) -> Path:
        self.n += 1
        folder = self.place / f"{self.n:06d}"
        shutil.copytree(prepared, folder, symlinks=True)
        return folder

    def _fork(
        self, folder: Path, arguments: str, operation: int, moment: int
    ) -> tuple[int, int, str, str]:
        """Run a command; its exit status, operations, last words, and where it was ended."""
        with tempfile.TemporaryFile() as words, tempfile.TemporaryFile() as where:
            reading, writing = os.pipe()
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                os.setsid()  # so that its own workers can be ended with it
                try:
                    self._child(
                        folder, arguments, operation, moment, writing, words.fileno(),
                        where.fileno(),
                    )  # fmt: skip
                finally:
                    os._exit(70)
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                counted = pipe.read()
            _, status = os.waitpid(child, 0)
            with suppress(ProcessLookupError):  # workers that outlive it would wait for minutes
                os.killpg(child, signal.SIGKILL)
            words.seek(0)
            where.seek(0)
            said = words.read().decode("utf-8", "replace").strip().splitlines()
            place = where.read().decode("utf-8", "replace")
        code = os.waitstatus_to_exitcode(status)
        return code, int(counted or 0), " | ".join(said[-3:]), place

    def _child(
        self, folder: Path, arguments: str, operation: int, moment: int, pipe: int, words: int,
        where: int,
    ) -> None:  # fmt: skip
        import faulthandler
        import weakref

        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # those of the parent
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder / "tmp")
        # Known: otherwise Python tries whether it can write there, by a file of four bytes.
        tempfile.tempdir = str(folder / "tmp")
        os.dup2(words, 1)
        os.dup2(words, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8", line_buffering=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", line_buffering=True)
        sys.argv = ["rankwise", *arguments.split()]
        faulthandler.dump_traceback_later(100, exit=True, file=sys.stderr)
        root = str(folder).encode() + b"/"
        self.library.kills_arm(ctypes.c_long(operation), moment, where, root, root)
        code: Any = 0
        try:
            from rankwise.cli import main as command_line

            command_line()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 71
        # As at the end of an interpreter: images in files of their own go.
        weakref.finalize._exitfunc()  # type: ignore[attr-defined]  # what atexit calls
        counted = self.library.kills_disarm()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(pipe, str(counted).encode())
        os._exit(code if isinstance(code, int) else 1)


def _warm_up(place: Path) -> None:
    """Load what commands load, so that a fork begins at once; and make a backbone."""
    import torch

    torch.set_num_threads(1)
    # What only some commands load costs each fork its time.
    for name in (
        "rankwise.cli", "rankwise.runs", "rankwise.runs.heads", "rankwise.plots",
        "rankwise.training.batched", "rankwise.training.joint", "rankwise.training.refinement",
        "rankwise.estimators.files", "rankwise.heads.files", "rankwise.lowrank.export",
        "rankwise.export.onnx", "rankwise.export.c_source", "rankwise.export.weights",
        "rankwise.export.check", "rankwise.study.run", "rankwise.study.tune",
        "rankwise.study.report", "rankwise.nets._lightning", "rankwise.study.gallery",
        "rankwise.lowrank.pictures", "datasets", "optuna", "sqlalchemy", "onnxruntime",
        "matplotlib.figure", "matplotlib.backends.backend_agg", "sklearn.datasets", "rich.table",
        "rich.progress", "safetensors.torch", "pyarrow.parquet", "psutil", "filelock", "jinja2",
    ):  # fmt: skip
        with suppress(ImportError):
            import_module(name)
    from rankwise.heads.backbones import SmallResNet, save_backbone

    torch.manual_seed(0)
    options = {"width": 4, "n_features": 8}
    record = {"architecture": "small-resnet", "n_classes": 4, "options": options}
    save_backbone(SmallResNet(4, **options), place / "small.safetensors", record)
    sys.path.insert(0, str(place))


# -- what lies in a folder, without times --------------------------------------------------------


def contents(folder: Path) -> dict[str, Any]:
    """Every file and folder below one, with what of it has to be equal."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else _content(path)
        for path in sorted(folder.rglob("*"))
    }


def _content(path: Path) -> Any:
    reader = READERS.get(path.suffix)
    try:
        return path.read_bytes() if reader is None else reader(path)
    except Exception as error:
        return f"unreadable: {type(error).__name__}"


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not TIMES.search(k)}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


def _json(path: Path) -> Any:
    return _timeless(json.loads(path.read_text(encoding="utf-8")))


def _safetensors(path: Path) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in sorted(file.keys())}
        metadata = file.metadata() or {}
    known = {}
    for key, text in metadata.items():
        try:
            known[key] = _timeless(json.loads(text))
        except ValueError:
            known[key] = text
    return tensors, known


def _csv(path: Path) -> Any:
    import csv

    with path.open(newline="", encoding="utf-8") as file:
        return [_timeless(row) for row in csv.DictReader(file)]


def _html(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    # An explorer's card: what it says of time.
    text = re.sub("<dt>(µs an image|minutes to train)</dt><dd>[^<]*</dd>", "", text)
    return re.sub(r"\d{4}-\d\d-\d\d(T[\d:]+[+-]?\d*)?|[\d.]+ (s|min|h)\b", "", text)


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _json,
    ".safetensors": _safetensors,
    ".csv": _csv,
    ".html": _html,
    ".sqlite3": lambda path: "a database",
}


def _difference(found: Any, wanted: Any) -> str:
    more = sorted(found.keys() - wanted.keys())
    less = sorted(wanted.keys() - found.keys())
    other = [name for name in wanted if name in found and found[name] != wanted[name]]
    parts = [
        f"{word} {', '.join(names[:4])}"
        for word, names in (("left over:", more), ("lost:", less), ("other content:", other))
        if names
    ]
    if other:
        parts.append(next(_first_difference(found[other[0]], wanted[other[0]], ""), "")[:200])
    return "; ".join(parts)


def _first_difference(found: Any, wanted: Any, place: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys(), key=str):
            yield from _first_difference(found.get(key), wanted.get(key), f"{place}.{key}")
    elif isinstance(found, (list, tuple)) and type(found) is type(wanted):
        if len(found) != len(wanted):
            yield f"{place}: {len(found)} instead of {len(wanted)}"
        for i, pair in enumerate(zip(found, wanted, strict=False)):
            yield from _first_difference(*pair, f"{place}[{i}]")
    elif found != wanted:
        yield f"{place}: {found!r:.60} instead of {wanted!r:.60}"


if __name__ == "__main__":
    main()
