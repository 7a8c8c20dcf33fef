"""A graph as one C99 header: weights and forward pass, without malloc, for watches and the like.

Maps run through the program row by row (`c_chain`). Rank-one forms of the whole image are stored
as what lies inside each unit's window, and computed by loops over the windows, so that neither
memory nor time goes to zeros. Values between operations live in one scratch array, whose places
are used again as soon as they are free.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path

from rankwise._files import atomic_path
from rankwise._text import spelled
from rankwise._version import __version__
from rankwise.export.c_integers import IntegerEmitter
from rankwise.export.c_operations import Emitter
from rankwise.export.c_templates import (
    ACTIVATIONS,
    EXAMPLE,
    HALF,
    HEADER,
    INTEGER_HEADER,
    INTEGER_HELPERS,
    INTEGER_PROBABILITIES,
    PROBABILITIES,
)
from rankwise.export.integers import IntegerNetwork
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
    _check_name(name)
    quantised = quantise(graph, precision)
    emitter = Emitter(quantised, name)
    logits = emitter.emit_graph()
    tables, statements = emitter.tables, emitter.statements
    flash, ram = emitter.flash_bytes, 4 * max(1, emitter.scratch_floats)
    helpers = [HALF] if emitter.uses_half else []
    helpers += [ACTIVATIONS[kind] for kind in sorted(emitter.activations)]
    values = {
        "PRECISION": precision,
        "N_NUMBERS": f"{emitter.n_numbers}",
        "FLASH": str(flash),
        "RAM": str(ram),
        "SCRATCH": str(max(1, emitter.scratch_floats)),
        "HELPERS": "\n".join(helpers),
        "TABLES": "\n".join(tables),
        "FUNCTIONS": "\n".join(emitter.functions.values()),
        "STATEMENTS": _indented(statements),
        "LOGITS": logits,
        "NORMALISE": PROBABILITIES[graph.output],
    }
    return CSource(_filled(HEADER, graph, name, provenance, values), name, flash, ram)


def c_integer_source(
    network: IntegerNetwork, name: str = "rankwise_model", *, provenance: str = ""
) -> CSource:
    """Write a network of whole numbers as C99; the header is used as that of `c_source` is.

    Parameters
    ----------
    network : IntegerNetwork
        From `to_integers`.
    name, provenance : str
        As in `c_source`.
    """
    _check_name(name)
    emitter = IntegerEmitter(network, name)
    flash, ram = emitter.flash_bytes, emitter.ram_bytes
    normalise = INTEGER_PROBABILITIES[network.graph.output]
    needed = {"exp"} if "_sigmoid(" in normalise else set()
    needed |= {what for what in INTEGER_HELPERS if f"_{what}(" in normalise}
    values = {
        "PRECISION": network.precision,
        "N_NUMBERS": str(emitter.n_numbers),
        "FLASH": str(flash),
        "RAM": str(ram),
        "MEMBERS": _indented(emitter.members),
        "TABLES": "\n".join(emitter.tables),
        "HELPERS": "\n".join(text for what, text in INTEGER_HELPERS.items() if what in needed),
        "FUNCTIONS": "\n".join(emitter.functions),
        "STATEMENTS": _indented(emitter.statements),
        "NORMALISE": normalise,
    }
    text = _filled(INTEGER_HEADER, network.graph, name, provenance, values)
    return CSource(text, name, flash, ram)


def _filled(template: str, graph: Graph, name: str, provenance: str, values: dict[str, str]) -> str:
    """A template with what all headers say, and `values`."""
    weights_digest = sha256(values["TABLES"].encode()).hexdigest()
    values = {
        "EXAMPLE": _example(graph),
        **values,
        "NAME": name,
        "VERSION": __version__,
        "PROVENANCE": _comment(provenance or f"weights {weights_digest[:16]}"),
        "IMAGE": " x ".join(map(str, graph.image_shape)),
        "PIXEL": "uint8_t" if graph.scale != 1.0 else "float",
        "PIXELS": str(prod(graph.image_shape)),
        "CLASSES": str(len(graph.classes)),
        "LABELS": ", ".join(_string(label) for label in graph.classes),
    }
    # What holds names itself comes first.
    for key in ("EXAMPLE", "NORMALISE", "HELPERS", "FUNCTIONS", *values):
        template = template.replace(f"@{key}@", values[key])
    return template


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" if line else "" for line in lines)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, flags=re.ASCII):
        raise ValueError(f"name must be a C identifier, got {name!r}")


def write_c(
    graph: Graph | IntegerNetwork,
    path: Path,
    *,
    precision: str = "float32",
    provenance: str = "",
) -> CSource:
    """Write a graph, or a network of whole numbers, as a C header named after the file."""
    name = c_identifier(path.stem)
    if isinstance(graph, IntegerNetwork):
        source = c_integer_source(graph, name, provenance=provenance)
    else:
        source = c_source(graph, name, precision=precision, provenance=provenance)
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
    for byte in spelled(text).encode("utf-8"):
        character = chr(byte)
        plain = 32 <= byte < 127 and character not in '"\\?'
        parts.append(character if plain else f"\\{byte:03o}")
    return '"' + "".join(parts) + '"'


def _comment(text: str) -> str:
    """Text that can't end a comment."""
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /").replace("/*", "/ *")
