"""The command line: reads arguments, calls a room, prints. No numerics here."""

from __future__ import annotations

import os
import sys

import typer

from rankwise.cli import export, lowrank, model, study
from rankwise.cli._stops import stoppable
from rankwise.cli.head import head
from rankwise.errors import RankwiseError

app = typer.Typer(
    name="rankwise",
    help="Image classification that treats images as matrices.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(model.demo)
app.command()(model.train)
app.command()(stoppable(model.evaluate))
app.command()(stoppable(model.predict))
app.command()(stoppable(lowrank.augment, "; the same command goes on where it stopped"))
app.command()(stoppable(lowrank.show))
app.command()(stoppable(export.export))
app.command()(stoppable(head, "; features that are complete are kept"))
app.add_typer(study.app, name="study")


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from rankwise._version import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors that are meant for people become one sentence and exit status 1."""
    try:
        app(args=[_expanded(argument) for argument in sys.argv[1:]])
    except (RankwiseError, ValueError) as error:
        _stop(str(error))
    except MemoryError:
        _stop(_NO_MEMORY)
    except RuntimeError as error:
        # What PyTorch raises, on a GPU and on a CPU.
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        _stop(_NO_MEMORY)
    except OSError as error:
        _stop(f"{error.filename or 'a file'}: {error.strerror or error}")


def _expanded(argument: str) -> str:
    """The home folder for a ``~`` that no shell has seen to: quoted, or behind ``--out=``."""
    name, equals, value = argument.partition("=")
    if name.startswith("--") and equals:
        return f"{name}={os.path.expanduser(value)}"
    return os.path.expanduser(argument)


_NO_MEMORY = (
    "not enough memory; less of --units, --samples-per-subnet, --workers, --batch-size, --size or "
    "--limit needs less, where the command has them"
)


def _stop(sentence: str) -> None:
    typer.echo(f"error: {sentence}", err=True)
    sys.exit(1)
