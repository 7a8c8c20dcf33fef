"""The command line: reads arguments, calls a room, prints. No numerics here."""

from __future__ import annotations

import sys

import typer

from rankwise.cli import export, lowrank, model, study
from rankwise.cli.head import head
from rankwise.errors import RankwiseError

app = typer.Typer(
    name="rankwise",
    help="Image classification that treats images as matrices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(model.demo)
app.command()(model.train)
app.command()(model.evaluate)
app.command()(model.predict)
app.command()(lowrank.augment)
app.command()(lowrank.show)
app.command()(export.export)
app.command()(head)
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
        app()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except (RankwiseError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except MemoryError:
        typer.echo(
            "error: not enough memory; use fewer --units, --samples-per-subnet or --workers",
            err=True,
        )
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(1)
