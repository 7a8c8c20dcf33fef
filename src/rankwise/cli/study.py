"""``rankwise study run``, ``extend``, ``plan``, ``status``, ``report``, ``compare``, ``tune``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankwise._files import json_text
from rankwise._seeds import checked_seed
from rankwise.cli._options import Device, Json
from rankwise.cli._output import say
from rankwise.cli._stops import stoppable
from rankwise.cli._study_text import (
    duration,
    percent_or_pruned,
    print_options,
    print_plan,
    print_results,
    print_written,
    wrapped,
)
from rankwise.cli.cluster import clustered

if TYPE_CHECKING:
    from rankwise.study.design import Study

app = typer.Typer(
    help="Does an augmentation help? Controlled studies, the paper's experiments among them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Design = Annotated[
    str, typer.Argument(help="experiment-1, experiment-2, experiment-3, or a TOML file.")
]
Folder = Annotated[Path, typer.Argument(help="Folder of a study.")]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", help="Source of a data set; may be repeated.", metavar="NAME=SOURCE"),
]
Only = Annotated[
    list[str] | None, typer.Option(help="Only this data set; may be repeated.", metavar="NAME")
]
Limit = Annotated[
    int | None, typer.Option(help="Images of each data set, drawn by class; marks it as reduced.")
]
Size = Annotated[
    int | None, typer.Option(help="Side of the images, pixels; marks a preset as reduced.")
]
Factor = Annotated[
    float | None, typer.Option(help="Multiplies all epochs; marks the study as reduced.")
]
Folds = Annotated[int | None, typer.Option(help="Folds of the training part.")]
Seeds = Annotated[str | None, typer.Option(help="Such as 42,43,44.")]
Arms = Annotated[
    str | None, typer.Option(help="Only these arms, such as none,low-rank,jpeg; may add kinds.")
]
Protocol = Annotated[str | None, typer.Option(help="sound, paper, or notebook (leaks on purpose).")]
Workers = Annotated[
    int, typer.Option(help="Cells at a time; -1 for one a core. Same numbers for any.")
]


def run(
    design: Design,
    out: Annotated[Path, typer.Option(help="Folder of the study; the same one goes on.")],
    data: Data = None,
    only: Only = None,
    limit: Limit = None,
    size: Size = None,
    epochs_factor: Factor = None,
    folds: Folds = None,
    seeds: Seeds = None,
    arms: Arms = None,
    protocol: Protocol = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Equal convergence: end after so many epochs without a lower loss."),
    ] = None,
    rope: Annotated[
        float | None,
        typer.Option(
            help="Arms closer than this share are practically equal; 0.005 is half a point."
        ),
    ] = None,
    workers: Workers = -1,
    device: Device = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events of every training.")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="The plan that it follows: folds, seeds and images are its own, and its digest is "
            "in the report."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study; interrupted, the same command goes on where it stopped."""
    from rankwise.study.run import run_study

    study = _study(
        design, data, only, limit, size, epochs_factor, folds, seeds, arms, protocol, rope, patience
    )
    if plan is not None:
        from rankwise.study.preregistration import as_planned, read_plan

        study = as_planned(
            read_plan(plan), study, folds=folds is None, seeds=seeds is None, limits=limit is None
        )
    with importable(design):
        results = run_study(
            study,
            out,
            workers=workers,
            device=device,
            tensorboard=tensorboard,
            progress=True,
            command=shlex.join(["rankwise", *sys.argv[1:]]),
            plan=plan,
        )
    print_results(results, out, as_json)


app.command()(stoppable(clustered(run), "; finished cells are kept, and the same command goes on"))


def extend(
    folder: Folder,
    seeds: Annotated[str, typer.Option(help="Further seeds, such as 45,46.")],
    data: Data = None,
    workers: Workers = -1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Add seeds to a study; cells that are there are used, and the look is counted."""
    from rankwise.study.claim import claimed_study
    from rankwise.study.narrowing import narrowed
    from rankwise.study.run import run_study

    begun = claimed_study(folder)
    added = [seed for seed in _numbers(seeds) or () if seed not in begun.seeds]
    study = narrowed(begun, data=_sources(data), seeds=[*begun.seeds, *added])
    with importable():
        results = run_study(
            study,
            folder,
            workers=workers,
            device=device,
            progress=True,
            command=shlex.join(["rankwise", *sys.argv[1:]]),
            extend=True,
        )
    print_results(results, folder, as_json)
    if not added:
        say(f"{folder} has these seeds already: none was added, and no look is counted", err=True)


app.command()(
    stoppable(clustered(extend), "; finished cells are kept, and the same command goes on")
)


@app.command()
def plan(
    design: Design,
    pilot: Annotated[Path, typer.Option(help="Folder of a small run of it.")],
    effect: Annotated[
        float, typer.Option(help="Difference to be found, a share: 0.002 is 0.2 points.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write the plan.")] = Path("plan.json"),
    power: Annotated[float, typer.Option(help="Chance to find it.")] = 0.8,
    data: Data = None,
    only: Only = None,
    arms: Arms = None,
    workers: Annotated[int, typer.Option(help="Cells at a time.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Folds, seeds and images that tell an effect, their hours and disk, from a pilot."""
    from rankwise.study.plan import plan_study
    from rankwise.study.preregistration import refuse_place, write_plan

    refuse_place(out)
    study = _study(design, data, only, None, None, None, None, None, arms, None)
    with importable(design):
        found = plan_study(
            study, pilot, effect=effect, wanted_power=power, workers=workers, progress=True
        )
    if not as_json:
        print_options(found)
        print_plan(found)
    elif found["chosen"] is None:
        say(json_text(found | {"digest": None}))
    digest = write_plan(found, out)
    if as_json:
        say(json_text(found | {"digest": digest}))
    else:
        print_written(found, digest, out)


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show how many cells are done, running and left, and for how long still."""
    from rankwise.study.status import study_status

    found = study_status(folder)
    if as_json:
        typer.echo(json_text(found))
        return
    say(
        f"{found['name']} ({found['protocol']}): {found['done']} of {found['cells']} cells done, "
        f"{found['running']} running, {found['left']} left"
        + (f", {found['failed']} of them failed" if found["failed"] else "")
    )
    for condition in found["conditions"]:
        say(f"  {condition['done']:>4} of {condition['cells']:<4} {condition['id']}")
    for place, reason in found["failures"].items():
        say(f"  failed: {place}: {reason}")
    left = found["seconds_left"]
    say(
        f"{duration(found['seconds'])} of work done, "
        + ("no estimate yet" if left is None else f"about {duration(left)} left")
        + ", one cell at a time"
    )


@app.command()
def report(folder: Folder, as_json: Json = False) -> None:
    """Write the study's report, one HTML file that opens offline; of an unfinished study too."""
    from rankwise.study.report import write_report

    path = write_report(folder)
    typer.echo(json_text({"report": str(path)}) if as_json else str(path))


@app.command()
def compare(
    first: Folder,
    second: Folder,
    out: Annotated[
        Path | None, typer.Option(help="Also write a page, one HTML file that opens offline.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Two studies side by side: what differs in their designs, and what each found."""
    from rankwise.study.side_by_side import lines_of, side_by_side, write_page

    found = side_by_side(first, second)
    if out is not None:
        write_page(found, out)
    if as_json:
        typer.echo(json_text(found))
        return
    for line in lines_of(found):
        wrapped(line.strip(), line[: len(line) - len(line.lstrip())]) if line else say("")


def tune(
    design: Design,
    out: Annotated[Path, typer.Option(help="Folder of the search; the same one goes on.")],
    trials: Annotated[int, typer.Option(help="Of each data set and model.", min=1)] = 20,
    data: Data = None,
    only: Only = None,
    limit: Limit = None,
    size: Size = None,
    epochs_factor: Factor = None,
    folds: Folds = None,
    seeds: Seeds = None,
    protocol: Protocol = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Search energy and skip threshold of the low-rank arms, on the training part only."""
    from rankwise.study.tune import tune_study

    study = _study(design, data, only, limit, size, epochs_factor, folds, seeds, None, protocol)
    with importable(design):
        found = tune_study(study, out, trials=trials, device=device, progress=True)
    if as_json:
        typer.echo(json_text(found))
        return
    for search in found["searches"]:
        best, given = search["best"], search["given"]
        pruned = sum(trial["state"] == "pruned" for trial in search["trials"])
        say(search["condition"])
        say(
            f"  best:  energy {best['energy']:.4f}, skip threshold {best['skip_threshold']:.2f}: "
            f"{percent_or_pruned(best['validation_accuracy'])}"
        )
        say(
            f"  given: energy {given['energy']:.4f}, skip threshold "
            f"{given['skip_threshold']:.2f}: {percent_or_pruned(given['validation_accuracy'])}"
        )
        say(f"  {len(search['trials'])} trials, {pruned} pruned; the test part wasn't read")
    tuned = found["tuned"]
    if tuned["reserve"]:
        where = f"a reserve of {tuned['reserve']:g} of the training part, which no cell sees"
    else:
        where = "the study's own images: give it a reserve, or the study is no test of the values"
    wrapped(f"Searched on {where}. The table 'tuned' of {out / 'tune.json'} belongs to them.")


app.command()(stoppable(tune, "; finished trials are kept, and the same command goes on"))


@contextmanager
def importable(design: str | None = None) -> Iterator[None]:
    """Let ``package.module:name`` be found beside the study file, then in the current folder.

    Both come after what is installed, so that no file of theirs takes its place. joblib's worker
    processes are started with this process's path. A folder of a study doesn't say where its file
    is: then the current folder alone counts.
    """
    beside = () if design is None else (Path(design).resolve().parent,)
    folders = (*beside, Path.cwd())
    added = [str(f) for f in dict.fromkeys(folders) if f.is_dir() and str(f) not in sys.path]
    sys.path += added
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _study(
    design: str,
    data: list[str] | None,
    only: list[str] | None,
    limit: int | None,
    size: int | None,
    epochs_factor: float | None,
    folds: int | None,
    seeds: str | None,
    arms: str | None,
    protocol: str | None,
    rope: float | None = None,
    patience: int | None = None,
) -> Study:
    """The study of a preset or a file, with the options of the command line in it."""
    from rankwise.study.design import StudyError
    from rankwise.study.narrowing import narrowed
    from rankwise.study.presets import PRESET_NAMES, preset
    from rankwise.study.reading import read_study

    if design in PRESET_NAMES:
        study = preset(design)
    elif Path(design).suffix == ".toml" or Path(design).is_file():
        study = read_study(design)
    else:
        accepted = ", ".join(PRESET_NAMES)
        raise StudyError(f"{design!r} is no preset and no file; {accepted}, or a TOML file")
    return narrowed(
        study,
        data=_sources(data),
        only=only or (),
        limit=limit,
        size=size,
        epochs_factor=epochs_factor,
        folds=folds,
        seeds=_numbers(seeds),
        arms=[name.strip() for name in arms.split(",")] if arms else (),
        protocol=protocol,
        rope=rope,
        patience=patience,
    )


def _sources(data: list[str] | None) -> dict[str, str]:
    from rankwise.study.design import StudyError

    sources = {}
    for pair in data or ():
        name, equals, source = pair.partition("=")
        if not (name and equals and source):
            raise StudyError(f"--data {pair!r} isn't NAME=SOURCE, such as mnist=ylecun/mnist")
        sources[name] = source
    return sources


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds {text!r} isn't a list of numbers such as 42,43") from None
    for number in numbers:
        checked_seed(number)
    return numbers
