"""Model folders: weights as safetensors, the rest as JSON that vouches for them.

Reading runs nothing that a file holds; whatever is wrong with one ends in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._claims import checksum
from rankwise._files import atomic_path, expanded, write_json
from rankwise._reading import (
    blamed_on,
    check_numbers,
    check_regular,
    read_json,
    read_tensors,
)
from rankwise._text import plain
from rankwise._version import __version__
from rankwise.errors import ModelFileError

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
_NO_SIZES = ("classes", "parameters")
"""Entries whose numbers are labels, seeds and choices, of any size; no array is made as large."""


def write_model(
    folder: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    format_name: str,
    version: int,
    description: Mapping[str, Any],
) -> None:
    """Write the weights, then the description with their checksum.

    Parameters
    ----------
    folder : Path
        Made if it isn't there. An earlier model in it is replaced.
    tensors : mapping of str to array
    format_name, version
        What `read_description` asks for.
    description : mapping
        Anything JSON can hold.
    """
    from safetensors.numpy import save_file

    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, temporary)
        written = checksum(temporary)
    head = {
        "format": format_name,
        "format_version": version,
        "rankwise_version": __version__,
        "weights_sha256": written,
    }
    write_json(folder / DESCRIPTION, head | dict(description))


def read_description(
    folder: Path, *, format_name: str, version: int | tuple[int, ...], kind: str, hint: str = ""
) -> dict[str, Any]:
    """Read and check the JSON of a model folder.

    Parameters
    ----------
    folder : Path
    format_name, version
        As it was written with; several versions, the newest last, where each can be read.
    kind : str
        What it should be, for the error: "a rankwise model".
    hint : str
        Ends the error where the file can't be read.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    path = expanded(folder) / DESCRIPTION
    check_regular(path, ModelFileError, hint)
    description = read_json(path, error=ModelFileError)
    if not isinstance(description, dict) or description.get("format") != format_name:
        raise ModelFileError(f"{path} isn't {kind}: its format isn't {format_name!r}")
    versions = version if isinstance(version, tuple) else (version,)
    if description.get("format_version") not in versions:
        raise ModelFileError(
            f"{path} has format version {description.get('format_version')!r}, but this rankwise "
            f"({__version__}) reads version {' and '.join(map(str, versions))}"
        )
    sizes = {key: value for key, value in description.items() if key not in _NO_SIZES}
    check_numbers(path, sizes, ModelFileError)
    return description


def read_weights(folder: Path, description: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a model folder, if they are those that its description vouches for.

    Raises
    ------
    ModelFileError
        If they can't be read, or their checksum is another, or they aren't finite.
    """
    path = expanded(folder) / WEIGHTS
    check_regular(path, ModelFileError)
    if checksum(path) != description.get("weights_sha256"):
        raise ModelFileError(
            f"{path} is damaged or belongs to another model: its checksum isn't the one in "
            f"{DESCRIPTION}"
        )
    return read_tensors(path, error=ModelFileError)[0]


def check_class(folder: Path, saved: str | None, kind: type) -> None:
    """Refuse to bring a subclass's model back as a class that isn't one of its kind.

    Raises
    ------
    ModelFileError
        Files of rankwise 0.1 don't say whose they are, and pass.
    """
    if saved is not None and saved not in (base.__name__ for base in kind.__mro__):
        raise ModelFileError(
            f"{folder} holds a {plain(str(saved))}, which {kind.__name__}.load can't bring back; "
            f"load it with {plain(str(saved))}.load"
        )


def built_from(folder: Path) -> AbstractContextManager[None]:
    """Whatever goes wrong while a model is put together is its description's fault."""
    return blamed_on(folder / DESCRIPTION, ModelFileError)
