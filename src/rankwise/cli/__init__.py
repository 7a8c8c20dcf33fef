"""The command line: reads arguments, calls a room, prints. No numerics here."""

from __future__ import annotations

import errno
import os
import sys

import typer

from rankwise._memory import keep_freed_memory
from rankwise._text import plain
from rankwise.cli import cluster, explore, export, lowrank, nets, study, train, use
from rankwise.cli._output import prepare_streams, say, warnings_in_words
from rankwise.cli._stops import ended_as_by_ctrl_c, stoppable
from rankwise.cli._together import one_speaks, refuse_several
from rankwise.cli.cluster import clustered
from rankwise.cli.head import head
from rankwise.errors import RankwiseError, is_shortage

app = typer.Typer(
    name="rankwise",
    help="Image classification that treats images as matrices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.demo)
app.command()(clustered(train.train))
app.command()(stoppable(use.evaluate))
app.command()(stoppable(clustered(use.predict)))
app.command()(stoppable(explore.explore))
app.command()(stoppable(clustered(lowrank.augment), "; the same command goes on where it stopped"))
app.command()(stoppable(lowrank.show))
app.command()(stoppable(nets.nets))
app.command()(stoppable(export.export))
app.command()(stoppable(clustered(head), "; features that are complete are kept"))
app.command()(stoppable(clustered(cluster.shard)))
app.command()(stoppable(cluster.work, "; a task that was under way is given to another"))
app.add_typer(study.app, name="study")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from rankwise._version import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in (None, "train"):  # which knows its own options
        refuse_several(str(context.invoked_subcommand))


def console() -> None:
    """What the installed command starts: `main` in a process of its own."""
    if sys.argv[1:2] == ["train"]:
        keep_freed_memory()
    main()


def main() -> None:
    """Entry point: errors that are meant for people become one sentence and exit status 1."""
    prepare_streams()
    with one_speaks():
        try:
            with ended_as_by_ctrl_c(), warnings_in_words():
                app(args=[_expanded(argument) for argument in sys.argv[1:]])
        except RankwiseError as error:
            _stop(plain(str(error), lines=error.several_lines))
        except ValueError as error:
            _stop(plain(str(error)))
        except Exception as error:
            sentence = _shortage(error)
            if sentence is not None:
                _stop(sentence)
            if not isinstance(error, OSError):
                raise
            _stop(plain(f"{error.filename or 'a file'}: {error.strerror or error}"))


def _expanded(argument: str) -> str:
    """The home folder for a ``~`` that no shell has seen to: quoted, or behind ``--out=``."""
    name, equals, value = argument.partition("=")
    if name.startswith("--") and equals:
        return f"{name}={os.path.expanduser(value)}"
    return os.path.expanduser(argument)


def _shortage(error: Exception) -> str | None:
    """What to say where the machine lacks something; None for any other error."""
    if not is_shortage(error):
        return None
    text = str(error).lower()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = plain(str(error.filename or "the disk"))
        return (
            f"{place}: {error.strerror}; what is finished is kept, and the same command goes on "
            "when there is room"
        )
    if "thread" in text or "resource temporarily unavailable" in text:
        return f"the system gives no more threads or processes ({error}); {_LESS}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"the system opens no more files ({error.strerror}); {_LESS}"
    return f"not enough memory; {_LESS}"


_LESS = (
    "less of --units, --samples-per-subnet, --workers, --batch-size, --size or "
    "--limit needs less, where the command has them"
)


def _stop(sentence: str) -> None:
    say(f"error: {sentence}", err=True)
    sys.exit(1)
