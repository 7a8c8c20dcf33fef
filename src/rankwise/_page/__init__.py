"""What the package's pages share: one HTML file each that opens offline, on a phone too.

A page holds everything it needs: style (``base.css``: the colours of all pages, light and dark;
``controls.css``: type and buttons of pages that are used rather than read), scripts
(``shared.js``), pictures as data. Its security policy forbids it to fetch anything. Names that
come from a source are text: `templates` escapes them, `for_script` keeps them from ending the
script that they stand in, and scripts put them into the page as text nodes alone.
"""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise._files import atomic_path

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src blob: mediastream:"
)
"""Content security policy of a page: what stands in it, and nothing from elsewhere."""


def part(room: str, name: str) -> str:
    """The text of a style, a script or a template that lies in a room of the package.

    Parameters
    ----------
    room : str
        A package with its folder, such as ``"rankwise.export/page"``.
    name : str
    """
    package, *folders = room.split("/")
    return files(package).joinpath(*folders, name).read_text(encoding="utf-8")


shared = partial(part, __name__)
"""The text of one of this package's own parts: ``base.css``, ``controls.css``, ``shared.js``."""


def templates(**filters: Any) -> Environment:
    """An environment of jinja2 that escapes every value and refuses unknown names.

    Parameters
    ----------
    **filters
        Functions that templates may use.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    return environment


def render(room: str, name: str, *, filters: dict[str, Any] | None = None, **values: Any) -> str:
    """A page from a template, whose values are escaped unless they are `jinja2`'s markup.

    Parameters
    ----------
    room, name : str
        The template, as for `part`.
    filters : dict, optional
        As for `templates`.
    **values
        What the template names; ``policy`` is there always.
    """
    template = templates(**filters or {}).from_string(part(room, name))
    return template.render(policy=markup(POLICY), **values)


def markup(*parts: str) -> Any:
    """Our own style or script, put into a template as it is."""
    from markupsafe import Markup

    return Markup("".join(parts))  # the package's own text


def for_script(value: Any) -> str:
    r"""A value as JSON that may stand in a script element, whatever its text holds.

    >>> for_script({"name": "</script>"})
    '{"name":"\\u003c/script>"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them, such as ``data:image/png;base64,…``."""
    return f"data:{kind};base64," + b64encode(data).decode("ascii")


def write(path: Path | str, html: str) -> None:
    """Write a page, whole or not at all; what no file can hold in UTF-8 is spelled."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")
