"""Spoil files, arrays, arguments and options; see that each ends well or in one clear sentence.

Every reader, estimator and command gets small inputs of which something was changed, by a seed.
An input fails if it ends in an error that isn't the package's own kind (or an estimator's
ValueError or TypeError), in several lines or none, takes over 20 seconds, or over 1 GB of memory;
or if a spoilt model is accepted and gives probabilities that are none.

python benchmarks/fuzz.py                 20,000 inputs
python benchmarks/fuzz.py --inputs 500    what the tests run
python benchmarks/fuzz.py --only head --inputs 500
python benchmarks/fuzz.py --again 1234    one input, with its traceback
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import peak_memory_mb, reset_peak_memory
from fuzz_targets import CALLS, READERS, Call, CommandError, Target, WrongResultError, make_samples
from rankwise.errors import RankwiseError

SEED = 2026
SECONDS = 20
MEGABYTES = 1024
BATCH = 200
"""Inputs of a process; it is a fork, so that none leaves anything behind for those after it."""


class HangError(BaseException):
    """An input took too long."""


def main() -> None:
    """Feed all inputs; exit status 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", help="only this reader or call")
    parser.add_argument("--again", type=int, help="this input alone, with its traceback")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        failures, fed, seconds = _all(Path(place).resolve(), args)
    for number, name, what in failures[:60]:
        print(f"  {number:>6} {name}: {what}")
    print(
        f"{sum(fed.values()):,} inputs in {seconds:.0f} s, seed {args.seed}: "
        f"{len(failures)} ended otherwise than well or in one sentence"
    )
    print("  " + ", ".join(f"{name} {n:,}" for name, n in sorted(fed.items())))
    raise SystemExit(1 if failures else 0)


def _all(
    place: Path, args: argparse.Namespace
) -> tuple[list[tuple[int, str, str]], Counter[str], float]:
    samples = place / "samples"
    samples.mkdir()
    os.environ["TMPDIR"] = str(place)
    tempfile.tempdir = None
    warnings.simplefilter("ignore")
    make_samples(samples)
    numbers = (
        [args.again]
        if args.again is not None
        else list(range(args.first, args.first + args.inputs))
    )
    begin, failures, fed = time.perf_counter(), [], Counter[str]()
    while numbers:
        batch, numbers = numbers[:BATCH], numbers[BATCH:]
        done = 0
        for number, name, what in _in_a_fork(place, samples, batch, args):
            done += 1
            fed[name] += 1
            if what:
                failures.append((number, name, what))
        numbers = batch[done:] + numbers
    return failures, fed, time.perf_counter() - begin


def _in_a_fork(
    place: Path, samples: Path, numbers: list[int], args: argparse.Namespace
) -> list[tuple[int, str, str]]:
    """Feed some inputs in a fork; if it dies, the input that it died of is the last one."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w", encoding="utf-8", errors="replace") as pipe:
                for number in numbers:
                    _one(number, place / "work", samples, args, pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    found: list[tuple[int, str, str]] = []
    begun = None
    with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
        for line in pipe:
            number, name, state, what = line.rstrip("\n").split("\t", 3)
            if state == "begun":
                begun = int(number), name
            else:
                found.append((int(number), name, what))
                begun = None
    _, status = os.waitpid(child, 0)
    if begun is not None:
        found.append((*begun, f"the process died: {os.waitstatus_to_exitcode(status)}"))
    return found


def _one(number: int, work: Path, samples: Path, args: argparse.Namespace, pipe: Any) -> None:
    random = Random(f"{args.seed}-{number}")
    drawn = random.choices(_drawn_from(args.only), [t.weight for t in _drawn_from(args.only)])[0]
    pipe.write(f"{number}\t{drawn.name}\tbegun\t\n")
    pipe.flush()
    here = work.with_name("here")
    for folder in (work, here):
        shutil.rmtree(folder, ignore_errors=True)
    # Names that are drawn may be relative ones.
    here.mkdir()
    os.chdir(here)
    what = _judged(drawn, random, work, samples, show=args.again is not None)
    for folder in (work, here):
        shutil.rmtree(folder, ignore_errors=True)
    flat = " ".join(what.split())[:300]
    pipe.write(f"{number}\t{drawn.name}\tended\t{flat}\n")
    pipe.flush()


def _drawn_from(only: str | None) -> tuple[Target | Call, ...]:
    everything = (*READERS, *CALLS)
    chosen = tuple(t for t in everything if only is None or t.name == only)
    if not chosen:
        raise SystemExit(f"no {only}; accepted: {', '.join(sorted({t.name for t in everything}))}")
    return chosen


def _judged(drawn: Target | Call, random: Random, work: Path, samples: Path, *, show: bool) -> str:
    """What was wrong with how an input ended; empty if nothing."""
    label = ""

    def too_long(*_: object) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, too_long)
    reset_peak_memory()
    before = peak_memory_mb()
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)
    try:
        if isinstance(drawn, Target):
            shutil.copytree(samples / drawn.name, work)
            label = drawn.spoil(work, random)
            drawn.use(work)
        else:
            if drawn.reads:
                shutil.copytree(samples, work)
            else:
                work.mkdir()
            label = drawn.make(random, work)
        wrong = ""
    except HangError:
        wrong = f"took over {SECONDS} s"
    except (CommandError, WrongResultError) as error:
        wrong = str(error)
    except (RankwiseError, ValueError, TypeError) as error:
        wrong = _sentence(error, drawn)
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error}"
        if show:
            traceback.print_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    taken = peak_memory_mb() - before
    if not wrong and taken > MEGABYTES:
        wrong = f"took {taken:.0f} MB"
    return f"{label}: {wrong}" if wrong else ""


def _sentence(error: Exception, drawn: Target | Call) -> str:
    """Empty if an error's message is a sentence of the package, or of what it checks with."""
    text = str(error)
    kinds: tuple[type[Exception], ...] = (RankwiseError, ValueError)
    if isinstance(drawn, Call):
        kinds = (RankwiseError, ValueError, TypeError)
    if not isinstance(error, kinds):
        return f"{type(error).__name__}: {text}"
    several = getattr(error, "several_lines", False) or isinstance(drawn, Call)
    if len(text) < 10 or len(text) > 2000 or ("\n" in text and not several):
        return f"no sentence: {text[:200]!r}"
    return ""


if __name__ == "__main__":
    main()
