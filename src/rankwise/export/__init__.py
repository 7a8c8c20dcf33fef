"""Deploying: a fitted classifier as ONNX, C, a page or bare weights, in fewer bits if wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise._files import atomic_path, expanded
from rankwise._version import __version__
from rankwise.export.quantise import PRECISIONS
from rankwise.networks.graph import Graph

if TYPE_CHECKING:
    import numpy as np

    from rankwise.data import ImageSet
    from rankwise.export.integers import IntegerNetwork

__all__ = [
    "C_PRECISIONS",
    "ENDINGS",
    "FORMATS",
    "PRECISIONS",
    "export_model",
    "footprint",
    "needs_calibration",
    "to_graph",
]

C_PRECISIONS = (*PRECISIONS, "int4")
"""Of a C export. In `int8` and `int4` convolutional networks compute in whole numbers alone."""

FORMATS = {"onnx": ".onnx", "c": ".h", "html": ".html", "safetensors": ".safetensors"}
"""Formats and the endings of their files."""

ENDINGS = {
    "onnx": (".onnx",),
    "c": (".h", ".hh", ".hpp", ".c", ".inc"),
    "html": (".html", ".htm"),
    "safetensors": (".safetensors",),
}
"""Endings that a name may have which somebody chose."""


def to_graph(model: Any) -> Graph:
    """What a fitted model computes, from pixels to probabilities.

    Parameters
    ----------
    model : a classifier, or anything with ``as_graph()``

    Raises
    ------
    ValueError
        If the model isn't fitted or has no graph.
    """
    if hasattr(model, "as_graph"):
        return model.as_graph()
    raise ValueError(
        f"a {type(model).__name__} can't be exported: a fitted classifier or head, or anything "
        "with as_graph(), is accepted"
    )


def footprint(model: Any) -> dict[str, int]:
    """Bytes that a fitted model takes as C in float32: ``flash_bytes`` and ``ram_bytes``.

    Raises
    ------
    ValueError
        If the model isn't fitted or has no graph.
    """
    from rankwise.export.c_source import c_source

    source = c_source(to_graph(model))
    return {"flash_bytes": source.flash_bytes, "ram_bytes": source.ram_bytes}


def export_model(
    model: Any,
    file_format: str,
    out: str | Path,
    *,
    precision: str = "float32",
    batch: int | None = None,
    calibration: np.ndarray | None = None,
    images: ImageSet | None = None,
) -> dict[str, Any]:
    """Write a fitted model for use elsewhere, and compare it with the original.

    Parameters
    ----------
    model : a classifier or head, or anything with ``as_graph()``
    file_format : {"onnx", "c", "html", "safetensors"}
    out : str or Path
        The file to write. For C its name is the prefix of everything in it.
    precision : {"float32", "float16", "int8", "int4"}
        Of the weights; int4 is for C. For C, int8 and int4 are for all computations too where
        `integers.is_integral`.
    batch : int, optional
        ONNX: a fixed number of images.
    calibration : uint8 array of shape (n, *image_shape), optional
        Training images, a few hundred of all classes, that such computations take their scales
        from. Other types are accepted where they hold the same whole numbers.
    images : ImageSet, optional
        What to compare on.

    Returns
    -------
    dict
        ``files``, ``bytes``, ``format``, ``precision``, ``n_parameters``, ``fingerprint``; for C
        ``flash_bytes`` and ``ram_bytes``; with `images` what `check.check_export` gives.

    Raises
    ------
    ValueError
        If a choice is unknown, the model can't be exported, or `calibration` isn't as its images.
    rankwise.errors.MissingDependencyError
        If a library, or the C compiler of a check, isn't there.
    """
    from rankwise.export.weights import fingerprint

    if file_format not in FORMATS:
        raise ValueError(f"unknown format {file_format!r}; accepted: {', '.join(FORMATS)}")
    known = C_PRECISIONS if file_format == "c" else PRECISIONS
    if precision not in known:
        raise ValueError(f"unknown precision {precision!r}; accepted: {', '.join(known)}")
    if batch is not None and file_format != "onnx":
        raise ValueError("batch is for the format onnx only")
    out = expanded(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; give the file to write")
    try:
        graph = to_graph(model)
    except ValueError:
        # A backbone beyond the graph's operations has an ONNX form of its own.
        whole = file_format == "onnx" and precision == "float32" and hasattr(model, "as_onnx")
        if not whole or model._backbone() is None:
            raise
        return _write_whole(model, out, batch, images)
    digest = fingerprint(graph)
    report: dict[str, Any] = {
        "format": file_format,
        "precision": precision,
        "files": [str(out)],
        "n_parameters": _n_parameters(model, graph),
        "fingerprint": digest,
    }
    if file_format == "onnx":
        from rankwise.export.onnx import write_onnx

        write_onnx(graph, out, precision=precision, batch=batch, metadata={"fingerprint": digest})
    elif file_format == "c":
        from rankwise.export.c_source import write_c

        provenance = f"Model {digest[:16]}, {report['n_parameters']} parameters."
        program = _in_integers(graph, precision, calibration)
        source = write_c(program or graph, out, precision=precision, provenance=provenance)
        report |= {
            "flash_bytes": source.flash_bytes,
            "ram_bytes": source.ram_bytes,
            "integers_only": program is not None,
        }
    elif file_format == "html":
        from rankwise.export.html import write_html

        sides = " × ".join(map(str, graph.image_shape))
        facts = f"{report['n_parameters']:,} parameters, for images of {sides}."
        title = _question(graph.classes)
        levels = _levels_of(model, graph)
        if levels is not None:
            facts += f" Black and white are the model's {levels[0]:g} and {levels[1]:g}."
        write_html(graph, out, precision=precision, title=title, facts=facts, levels=levels)
    else:
        from rankwise.export.weights import write_weights

        write_weights(graph, out, precision=precision)
    report["bytes"] = out.stat().st_size
    if images is not None:
        from rankwise.export.check import check_export

        report |= check_export(model, out, file_format, images)
    return report


def _levels_of(model: Any, graph: Graph) -> tuple[float, float] | None:
    """What a page takes for black and white, of a model of floats: the scale of its fit.

    From 0 to 1 or, where there were larger numbers, to the largest; where some were below 0, from
    the smallest to the largest. None for a model of pixels from 0 to 255, and for one of floats
    that doesn't know (of an earlier version, or a head), whose pixels are from 0 to 1.
    """
    known = getattr(model, "_value_range", None)
    if graph.scale != 1 or known is None:
        return None
    low, high = known
    return (min(low, 0.0), max(high, 1.0) if low >= 0 else high)


def needs_calibration(model: Any, file_format: str, precision: str) -> bool:
    """Whether an export takes the scales of its computations from training images."""
    from rankwise.export.integers import is_integral

    return file_format == "c" and precision.startswith("int") and is_integral(to_graph(model))


def _in_integers(
    graph: Graph, precision: str, calibration: np.ndarray | None
) -> IntegerNetwork | None:
    """The network in whole numbers, where it is asked for and the graph is one that can be."""
    from rankwise.export.integers import ACCEPTED, is_integral, to_integers

    if not precision.startswith("int"):
        return None
    if not is_integral(graph):
        if precision == "int4":
            raise ValueError(f"int4 is for {ACCEPTED}; int8 stores the weights of any model")
        return None
    if calibration is None:
        raise ValueError(
            f"{precision} as C computes in whole numbers, and needs training images to choose "
            "their scales: give some as calibration"
        )
    return to_integers(graph, calibration, precision)


def _write_whole(
    model: Any, out: Path, batch: int | None, images: ImageSet | None
) -> dict[str, Any]:
    """A head with its backbone in one ONNX file, and its report."""
    digest = model._backbone().fingerprint
    classes = [str(c) for c in model.classes_]
    metadata = {
        "classes": json.dumps(classes),
        "rankwise_version": __version__,
        "precision": "float32",
        "fingerprint": digest,
    }
    content = model.as_onnx(metadata, batch)
    with atomic_path(out) as temporary:
        temporary.write_bytes(content)
    report: dict[str, Any] = {
        "format": "onnx",
        "precision": "float32",
        "files": [str(out)],
        "n_parameters": int(model.n_parameters_total_),
        "fingerprint": digest,
        "bytes": len(content),
    }
    if images is not None:
        from rankwise.export.check import check_export

        report |= check_export(model, out, "onnx", images)
    return report


def _question(classes: tuple[str, ...]) -> str:
    """``0, 1, … or 9?``: what a page asks of an image."""
    if len(classes) < 4:
        return f"{' or '.join(classes)}?"
    return f"{classes[0]}, {classes[1]}, … or {classes[-1]}?"


def _n_parameters(model: Any, graph: Graph) -> int:
    """The model's own count; without one, every number of the graph."""
    from rankwise.networks.graph import arrays_of

    counted = getattr(model, "n_parameters_total_", None)
    return sum(a.size for a in arrays_of(graph.ops)) if counted is None else int(counted)
