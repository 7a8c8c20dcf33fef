"""``rankwise nets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankwise._files import json_text
from rankwise.cli._options import Json
from rankwise.cli._output import say


def nets(
    out: Annotated[
        Path | None, typer.Option(help="Picture to write: .png, .pdf, .svg …, or .html, a page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the first paper's networks: its figure A.2, and its Table 5 beside what is here."""
    from rankwise.lowrank.pictures import save_picture
    from rankwise.nets.diagram import diagram_facts, diagram_text, draw_diagram, drawn_networks

    networks = drawn_networks()
    if out is not None:
        save_picture(draw_diagram(networks), out, title="The networks of figure A.2")
    if as_json:
        say(json_text({"networks": diagram_facts(networks), "out": out and str(out)}))
        return
    say(diagram_text(networks) if out is None else str(out))
