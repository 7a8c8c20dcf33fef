"""A graph as one C99 header: weights and forward pass, without malloc, for watches and the like.

Maps run through the program row by row (`c_chain`). Rank-one forms of the whole image are stored
as what lies inside each unit's window, and computed by loops over the windows, so that neither
memory nor time goes to zeros. Values between operations live in one scratch array, whose places
are used again as soon as they are free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path

from rankwise._files import atomic_path
from rankwise._version import __version__
from rankwise.export.c_operations import Emitter
from rankwise.export.c_templates import ACTIVATIONS, EXAMPLE, HALF, HEADER, PROBABILITIES
from rankwise.export.quantise import quantise
from rankwise.networks.graph import Graph


@dataclass(frozen=True)
class CSource:
    """A header's text, and what it needs on a device.

    Attributes
    ----------
    text : str
    name : str
        Prefix of everything in it.
    flash_bytes : int
        Weights, scales, biases and windows; without the code, a few KB.
    ram_bytes : int
        Scratch array; the stack holds one unit's vectors besides.
    """

    text: str
    name: str
    flash_bytes: int
    ram_bytes: int


def c_identifier(text: str) -> str:
    """A C identifier from a file's name; ``rankwise_model`` where nothing is left of it."""
    cleaned = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    if cleaned[:1].isdigit():
        cleaned = f"model_{cleaned}"
    return cleaned or "rankwise_model"


def c_source(
    graph: Graph,
    name: str = "rankwise_model",
    *,
    precision: str = "float32",
    provenance: str = "",
) -> CSource:
    """Write a graph as C99.

    The header gives ``int NAME_predict(const uint8_t *image, float *probabilities)``, which
    returns the position of the class, the same with a caller's scratch array
    (``NAME_predict_with``), ``NAME_label`` and macros with the sizes. Images of a model that
    wasn't fitted on uint8 are ``const float *``. With ``-DNAME_MAIN`` it is a program.

    Parameters
    ----------
    graph : Graph
    name : str
        Prefix; a C identifier.
    precision : {"float32", "float16", "int8"}
        Of the weights; it computes in float.
    provenance : str
        One line for the comment on top.

    Returns
    -------
    CSource
        The same graph gives the same text.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name, flags=re.ASCII):
        raise ValueError(f"name must be a C identifier, got {name!r}")
    quantised = quantise(graph, precision)
    emitter = Emitter(quantised, name)
    logits = emitter.emit_graph()
    tables, statements = emitter.tables, emitter.statements
    flash, ram = emitter.flash_bytes, 4 * max(1, emitter.scratch_floats)
    uint8 = graph.scale != 1.0
    sizes = "×".join(map(str, graph.image_shape))
    helpers = [HALF] if emitter.uses_half else []
    helpers += [ACTIVATIONS[kind] for kind in sorted(emitter.activations)]
    weights_digest = sha256("\n".join(tables).encode()).hexdigest()
    values = {
        "NAME": name,
        "VERSION": __version__,
        "PROVENANCE": _comment(provenance or f"weights {weights_digest[:16]}"),
        "PRECISION": precision,
        "N_NUMBERS": f"{emitter.n_numbers}",
        "FLASH": str(flash),
        "RAM": str(ram),
        "IMAGE": sizes.replace("×", " x "),
        "PIXEL": "uint8_t" if uint8 else "float",
        "PIXELS": str(prod(graph.image_shape)),
        "CLASSES": str(len(graph.classes)),
        "SCRATCH": str(max(1, emitter.scratch_floats)),
        "LABELS": ", ".join(_string(label) for label in graph.classes),
        "HELPERS": "\n".join(helpers),
        "TABLES": "\n".join(tables),
        "FUNCTIONS": "\n".join(emitter.functions.values()),
        "STATEMENTS": "\n".join(f"    {line}" if line else "" for line in statements),
        "LOGITS": logits,
        "NORMALISE": PROBABILITIES[graph.output],
        "EXAMPLE": _example(graph),
    }
    text = HEADER
    for key in ("EXAMPLE", "NORMALISE", "HELPERS", "FUNCTIONS", *values):
        text = text.replace(f"@{key}@", values[key])
    return CSource(text, name, flash, ram)


def write_c(
    graph: Graph, path: Path, *, precision: str = "float32", provenance: str = ""
) -> CSource:
    """Write a graph as a C header; the file's name gives the prefix. See `c_source`."""
    source = c_source(graph, c_identifier(path.stem), precision=precision, provenance=provenance)
    with atomic_path(path) as temporary:
        temporary.write_text(source.text, encoding="utf-8")
    return source


def _example(graph: Graph) -> str:
    """The program behind ``NAME_MAIN``; it reads portable maps where images are grey or RGB."""
    shape = graph.image_shape
    uint8 = graph.scale != 1.0
    kind = {2: "5", 3: "6"}.get(len(shape), "") if uint8 else ""
    if kind == "6" and shape[2] != 3:
        kind = ""
    maps = {"5": "portable grey maps (PGM)", "6": "portable pixel maps (PPM)"}.get(kind)
    values = {
        "MAP_KIND": kind or "0",
        "HEIGHT": str(shape[0]),
        "WIDTH": str(shape[1] if len(shape) > 1 else 1),
        "READABLE": "1" if kind else "0",
        "INPUT": f"{maps}, or with the argument raw" if maps else "read with the argument raw:",
        "EXPECTED": f"{maps}, or with the argument raw" if maps else "the argument raw, and",
    }
    text = EXAMPLE
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _string(text: str) -> str:
    """A C string literal, ASCII, whatever the label."""
    parts = []
    for byte in text.encode("utf-8"):
        character = chr(byte)
        plain = 32 <= byte < 127 and character not in '"\\?'
        parts.append(character if plain else f"\\{byte:03o}")
    return '"' + "".join(parts) + '"'


def _comment(text: str) -> str:
    """Text that can't end a comment."""
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /").replace("/*", "/ *")
