"""A graph as one web page that needs no network and no server: draw, open or film, and see why.

The page holds the operations as JSON, the weights as base64, and a plain JavaScript program that
runs them: forms are slid over maps one axis after the other, channels last, as in the C export.
Its script offers ``rankwise.predict(pixels)``, ``{label, probabilities}``.
"""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import _page
from rankwise._version import __version__
from rankwise.export.quantise import quantise
from rankwise.export.weights import structure_of
from rankwise.networks.graph import Graph
from rankwise.networks.probabilities import SMOOTHING
from rankwise.units.activations import ACTIVATIONS

_ROOM = "rankwise.export/page"
_SCRIPTS = ("network.js", "pixels.js", "page.js")


def write_html(
    graph: Graph,
    path: Path,
    *,
    precision: str = "float32",
    title: str = "",
    facts: str = "",
    levels: tuple[float, float] | None = None,
) -> None:
    """Write a graph as a page.

    Parameters
    ----------
    graph : Graph
    path : Path
    precision : {"float32", "float16", "int8"}
        Of the weights in the page; it computes in float.
    title, facts : str
        The page's heading, and a sentence below it.
    levels : (float, float), optional
        What a model of floats takes for black and white. Default: 0 and 1.
    """
    quantised = quantise(graph, precision)
    structure, arrays = structure_of(quantised.graph)
    about: dict[str, Any] = {}
    blob = b""
    for name, array in arrays.items():
        encoded = quantised.of(array)
        entry: dict[str, Any] = {}
        if encoded.scales is not None:
            scales = f"{name}.scales"
            about[scales] = _placed(encoded.scales, len(blob))
            blob += _little_endian(encoded.scales)
            entry = {"scales": scales}
        about[name] = _placed(encoded.values, len(blob)) | entry
        blob += _little_endian(encoded.values)
    values = {
        "STYLE": "".join(map(_page.shared, ("base.css", "controls.css")))
        + _page.part(_ROOM, "page.css"),
        "SCRIPT": _page.shared("shared.js")
        + constants_in_js()
        + "".join(_page.part(_ROOM, name) for name in _SCRIPTS),
        "POLICY": escape(_page.POLICY, quote=False),
        "WEIGHTS": b64encode(blob).decode(),
        # A class name can't end the script that it stands in.
        "NETWORK": _page.for_script(structure | {"levels": levels or (0, 1), "arrays": about}),
        "FACTS": escape(facts or f"Made by rankwise {__version__}."),
        "TITLE": escape(title or "An image classifier"),
    }
    parts = _page.part(_ROOM, "page.html").split("@")
    # Every second part is a name: what is put in isn't searched for names again.
    text = "".join(values.get(part, part) if i % 2 else part for i, part in enumerate(parts))
    _page.write(path, text)


def constants_in_js() -> str:
    """What the package has one table of, as constants of JavaScript."""
    known = "".join(f"  {name}: (x) => {a.js},\n" for name, a in ACTIVATIONS.items())
    return (
        f"const SMOOTHING = {SMOOTHING};\n"
        f"const ACTIVATIONS = {{\n{known}  identity: (x) => x,\n}};\n"
    )


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _placed(array: np.ndarray, offset: int) -> dict[str, Any]:
    return {"kind": array.dtype.str[1:], "shape": list(array.shape), "offset": offset}
