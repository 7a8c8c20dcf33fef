"""``--cluster`` of several commands, ``rankwise shard`` and ``rankwise work``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, get_type_hints

import typer

from rankwise._files import json_text
from rankwise.cli._options import (
    Channels,
    Grey,
    ImageColumn,
    Json,
    LabelColumn,
    Size,
    SkipBad,
    SourcePattern,
    reading_of,
)
from rankwise.cli._output import say
from rankwise.cli._together import refuse_several

Cluster = Annotated[
    str | None,
    typer.Option(
        help="Where tasks run: tcp://HOST:8786 (Dask), ray://HOST:10001 or ray, folder:PATH, or "
        "local:4. Same numbers for any.",
        metavar="ADDRESS",
    ),
]
MixedKernels = Annotated[
    bool,
    typer.Option(
        "--mixed-kernels", help="Accept workers on processors of several kinds: same to rounding."
    ),
]


def clustered(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with ``--cluster`` and ``--mixed-kernels``, whose tasks run there."""

    @wraps(command)
    def run(*args: Any, cluster: str | None, mixed_kernels: bool, **kwargs: Any) -> Any:
        if cluster is None:
            if mixed_kernels:
                raise typer.BadParameter("--mixed-kernels is for --cluster, which isn't given")
            return command(*args, **kwargs)
        refuse_several(f"{command.__name__} --cluster")
        from rankwise.cluster import cluster as opened

        with opened(cluster, mixed_kernels=mixed_kernels):
            return command(*args, **kwargs)

    own = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter("cluster", kind, default=None, annotation=Cluster),
        inspect.Parameter("mixed_kernels", kind, default=False, annotation=MixedKernels),
    ]
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
    hints = get_type_hints(command, include_extras=True)
    run.__annotations__ = hints | {"cluster": Cluster, "mixed_kernels": MixedKernels}
    return run


def shard(
    source: Annotated[str, typer.Argument(help="Images, as for train.")],
    out: Annotated[
        str, typer.Argument(help="A new folder, or an address such as s3://bucket/name.")
    ],
    shard_mib: Annotated[float, typer.Option(help="MiB of decoded images in a file.")] = 64.0,
    workers: Annotated[int, typer.Option(help="Processes; -1 for one a core.")] = -1,
    size: Size = None,
    grey: Grey = False,
    channels: Channels = None,
    skip_bad: SkipBad = False,
    source_pattern: SourcePattern = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    as_json: Json = False,
) -> None:
    """Decode images once into files that many workers read rows of, by address."""
    from rankwise.data.sharding import shard as written

    if not 0 < shard_mib < math.inf:
        raise typer.BadParameter(f"--shard-mib takes a number above 0, got {shard_mib:g}")
    reading = reading_of(size, grey, skip_bad, source_pattern, channels, image_column, label_column)
    report = written(
        source, out, **reading, shard_bytes=int(shard_mib * 2**20), workers=workers, progress=True
    )
    from rankwise.data.telling import MOST_CLASSES

    names, shape = report["classes"], "×".join(map(str, report["image_shape"]))
    more = f" and {len(names) - MOST_CLASSES:,} more" if len(names) > MOST_CLASSES else ""
    say(
        f"{len(names):,} classes: {', '.join(names[:MOST_CLASSES])}{more}; images: {shape}",
        err=True,
    )
    for note in report["notes"]:
        say(f"note: {note}", err=True)
    for line in report["skipped"]:
        say(f"skipped {line}", err=True)
    if as_json:
        typer.echo(json_text(report))
        return
    for name, split in report["splits"].items():
        rows = sum(n for _, n in split["files"])
        n = len(split["files"])
        say(f"{name}: {rows:,} images in {n:,} file{'s' * (n != 1)}")
    say(f"Train on them by address: rankwise train {quote(str(out))} --out RUN --cluster ADDRESS")


def work(
    folder: Annotated[Path, typer.Argument(help="The PATH of --cluster folder:PATH.")],
    idle: Annotated[
        float | None,
        typer.Option(help="End after so many seconds without a task; default: with Ctrl-C."),
    ] = None,
) -> None:
    """Work off the tasks of a folder, beside any number of other processes that do."""
    from rankwise.cluster.folder import work as work_off

    done = work_off(folder, idle=idle)
    say(f"{done} tasks done")
