"""An export against the model it came from, on real images, by the tool that will run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import temporary_folder
from rankwise.data import ImageSet
from rankwise.errors import DataError, MissingDependencyError, RankwiseError
from rankwise.export.c_source import c_identifier
from rankwise.export.onnx import run_onnx
from rankwise.export.weights import read_weights
from rankwise.networks.graph import run
from rankwise.networks.probabilities import probabilities

C_FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",  # as root, in a container, there is no other way
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_COMPILERS = ("cc", "gcc", "clang")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BLOCK = 256

PAGE_IMAGES = 500
"""A page is compared on so many images at most: a browser is slow to start, not to compute."""


def check_export(model: Any, path: Path, file_format: str, images: ImageSet) -> dict[str, Any]:
    """Compare an exported file with its model.

    Parameters
    ----------
    model : fitted classifier
        With ``predict_proba`` and ``classes_``.
    path : Path
        The exported file.
    file_format : {"onnx", "c", "html", "safetensors"}
        Run by onnxruntime, by a program that the C compiler makes, by Chromium (at most
        `PAGE_IMAGES` images, evenly over all), or by numpy.
    images : ImageSet
        Of the model's image shape; classes are matched by name.

    Returns
    -------
    dict
        ``max_abs_difference`` of any probability, ``agreement`` (share of images with the same
        label), ``accuracy_original``, ``accuracy_exported``, ``n_images``.
    """
    known = {str(c): i for i, c in enumerate(model.classes_)}
    unknown = {images.class_names[i] for i in np.unique(images.labels)} - set(known)
    if unknown:
        raise DataError(
            f"{images.name} has classes that the model doesn't know: "
            f"{', '.join(sorted(unknown)[:5])}"
        )
    if file_format == "html" and len(images) > PAGE_IMAGES:
        images = images.subset(np.linspace(0, len(images) - 1, PAGE_IMAGES).astype(int))
    # A class may have a name but no image.
    truth = np.array([known.get(name, -1) for name in images.class_names])[images.labels]
    pixels: Any = images.images
    if getattr(model, "image_shape_", None) == (*pixels.shape[1:], 1):
        pixels = pixels[...][..., None]  # a set of grey images has no axis for their channel
    original = model.predict_proba(pixels)
    exported = run_export(path, file_format, pixels)
    first, second = original.argmax(axis=1), exported.argmax(axis=1)
    return {
        "max_abs_difference": float(np.abs(exported - original).max()),
        "agreement": float(np.mean(first == second)),
        "accuracy_original": float(np.mean(first == truth)),
        "accuracy_exported": float(np.mean(second == truth)),
        "n_images": len(images),
    }


def run_export(path: Path, file_format: str, images: np.ndarray) -> np.ndarray:
    """Probabilities ``(n, n_classes)`` of an exported file for images."""
    if file_format == "onnx":
        return run_onnx(path, images)["probabilities"]
    if file_format == "c":
        return run_c(path, images)
    if file_format == "html":
        return run_page(path, images)
    graph = read_weights(path)
    return probabilities(run(graph, images), graph.output)


def run_c(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities of an exported C header: compiled to a program, fed with the raw images.

    Raises
    ------
    rankwise.errors.MissingDependencyError
        If there is no C compiler. ``CC`` in the environment names another one.
    """
    compiler = shlex.split(os.environ.get("CC", ""))
    compiler = compiler or [c for c in _COMPILERS if shutil.which(c)][:1]
    if not compiler or shutil.which(compiler[0]) is None:
        raise MissingDependencyError(
            f"checking a C export needs a C compiler ({', '.join(_COMPILERS)}, or CC in the "
            "environment), and none was found"
        )
    name = c_identifier(path.stem)
    dtype = np.float32 if "const float *image" in path.read_text(encoding="utf-8") else images.dtype
    rows: list[list[str]] = []
    with temporary_folder() as folder:
        program = folder / "model"
        command = [*compiler, *C_FLAGS, f"-D{name}_MAIN", "-x", "c", str(path), "-x", "none"]
        _called([*command, "-lm", "-o", str(program)], b"")
        for start in range(0, len(images), _BLOCK):
            pixels = np.ascontiguousarray(images[start : start + _BLOCK], dtype=dtype)
            output = _called([str(program), "raw"], pixels.tobytes())
            rows += [line.split("\t")[1:] for line in output.decode().rstrip("\n").split("\n")]
    return np.array(rows, dtype=np.float64).reshape(len(images), -1)


def run_page(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities of an exported page: its own ``rankwise.predict``, in headless Chromium.

    Raises
    ------
    rankwise.errors.MissingDependencyError
        If there is no Chromium.
    """
    browser = next((b for b in _BROWSERS if shutil.which(b)), None)
    if browser is None:
        raise MissingDependencyError(
            f"checking a page needs a browser ({', '.join(_BROWSERS)}), and none was found"
        )
    kind = "Uint8Array" if images.dtype == np.uint8 else "Float32Array"
    values = images if kind == "Uint8Array" else images.astype(np.float32)
    pixels = b64encode(np.ascontiguousarray(values).tobytes()).decode()
    script = f"""<script>
    const bytes = Uint8Array.from(atob("{pixels}"), (c) => c.charCodeAt(0));
    const all = new {kind}(bytes.buffer), size = all.length / {len(images)};
    const found = Array.from({{ length: {len(images)} }}, (_, i) =>
      rankwise.predict(all.subarray(i * size, (i + 1) * size)).probabilities);
    document.title = JSON.stringify(found);
    </script>"""
    with temporary_folder() as folder:
        page = folder / "page.html"
        page.write_text(path.read_text(encoding="utf-8") + script, encoding="utf-8")
        profile = f"--user-data-dir={folder / 'profile'}"
        output = _called([browser, *BROWSER_FLAGS, profile, "--dump-dom", page.as_uri()], b"")
    match = re.search(r"<title>(\[.*?\])</title>", output.decode(errors="replace"), re.DOTALL)
    if match is None:
        raise RankwiseError(f"{browser} ran the page, but it gave no answer")
    return np.array(json.loads(match[1]), dtype=np.float64)


def _called(command: list[str], data: bytes) -> bytes:
    try:
        result = subprocess.run(command, input=data, capture_output=True, check=False)
    except OSError as error:  # of another processor, or in a folder that runs nothing
        raise RankwiseError(f"{Path(command[0]).name} can't be run: {error.strerror}") from error
    if result.returncode:
        lines = result.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise RankwiseError(f"{Path(command[0]).name} failed: {lines[0]}")
    return result.stdout
