"""Checkpoints: tensors and what is known beside them in one file, whole or absent."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._arrays import Images, Referred, Rows, Targets, blocks
from rankwise._files import atomic_path, write_json
from rankwise._fingerprints import fingerprint
from rankwise._reading import parse_json, read_json_object
from rankwise.errors import RunError

if TYPE_CHECKING:
    import torch

CHECKPOINT = "joint.safetensors"
"""Name of a joint training's checkpoint in its folder."""

TEACHER = "teacher"
"""Name of the folder in it that keeps the training of its teacher."""

SECONDS = "seconds.json"
"""Name of the file that keeps how long the sub-networks of a folder have taken so far."""


def write_checkpoint(
    path: Path, key: str, tensors: dict[str, torch.Tensor], known: dict[str, Any]
) -> None:
    """Replace the checkpoint at a path.

    Parameters
    ----------
    path : Path
    key : str
        Names the fit that it belongs to.
    tensors : dict of tensors
    known : dict
        Anything that JSON can hold.
    """
    from safetensors.torch import save_file

    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, metadata={"key": key, "known": json.dumps(known)})


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Read a checkpoint; None if there is none, or if it is damaged.

    Raises
    ------
    RunError
        If it belongs to another fit.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found, known = metadata["key"], parse_json(metadata["known"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, LookupError, TypeError, ValueError):
        return None
    if found != key:
        raise RunError(
            f"{path.parent} holds the training of another fit (other images, labels, settings, "
            "seed, device or version); use another folder, or empty this one"
        )
    return tensors, known


def known_of(path: Path) -> dict[str, Any]:
    """What is known beside a checkpoint's tensors, whichever fit it belongs to; none if damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="np") as file:
            known = parse_json((file.metadata() or {})["known"])
    except (SafetensorError, LookupError, TypeError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def fit_key(images: Images, encoded: Targets, *settings: Any) -> str:
    """Digest of all that a fit follows from, the package's code included."""
    digest = hashlib.sha256()
    lies = images.array if isinstance(images, Rows) else images
    if isinstance(lies, Referred):  # known by what was read when the shards were made
        digest.update(fingerprint(images).encode())
    for block in blocks(len(images)):
        if not isinstance(lies, Referred):
            digest.update(np.ascontiguousarray(images[block]).data)
        digest.update(np.ascontiguousarray(encoded[block]).data)
    kinds = (images.shape, images.dtype, encoded.shape, encoded.dtype)
    return fingerprint(digest.hexdigest(), kinds, settings)


def earlier_seconds(folder: Path) -> float:
    """Seconds of the attempts before the last one in a folder; see `timed_on_disk`."""
    return _seconds_kept(folder).get("earlier", 0.0)


@contextmanager
def timed_on_disk(folder: Path, key: str | None) -> Iterator[Callable[[], None]]:
    """Keep the time of a block in a folder, beside that of earlier attempts at the same fit.

    Yields what to call when a part is finished, so that a process that is killed loses no more
    than the time of its unfinished parts. An exception loses nothing.
    """
    kept, begin = _seconds_kept(folder), time.perf_counter()
    earlier = kept["earlier"] + kept["now"] if kept.get("key") == key else 0.0

    def keep() -> None:
        spent = {"earlier": earlier, "now": time.perf_counter() - begin}
        write_json(folder / SECONDS, {"key": key, **spent})

    try:
        yield keep
    finally:
        keep()


def _seconds_kept(folder: Path) -> dict[str, Any]:
    with suppress(RunError, ValueError, KeyError, TypeError):
        found = read_json_object(folder / SECONDS, error=RunError)
        return {"key": found["key"], **{k: float(found[k]) for k in ("earlier", "now")}}
    return {}  # a damaged file is as good as none
