"""Checkpoints: tensors and what is known beside them in one file, whole or absent."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise._files import atomic_path
from rankwise.errors import RunError
from rankwise.varpro.output_layer import blocks
from rankwise.varpro.rows import Images

if TYPE_CHECKING:
    import torch

CHECKPOINT = "joint.safetensors"
"""Name of a joint training's checkpoint in its folder."""


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
            found, known = metadata["key"], json.loads(metadata["known"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, KeyError, ValueError):
        return None
    if found != key:
        raise RunError(
            f"{path.parent} holds the training of another fit (other images, labels, settings or "
            "seed); use another folder, or empty this one"
        )
    return tensors, known


def known_of(path: Path) -> dict[str, Any]:
    """What is known beside a checkpoint's tensors, whichever fit it belongs to; none if damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="np") as file:
            known = json.loads((file.metadata() or {})["known"])
    except (SafetensorError, KeyError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def fit_key(images: Images, encoded: np.ndarray, *settings: Any) -> str:
    """Digest of all that a fit follows from."""
    digest = hashlib.sha256(repr((settings, images.shape, str(images.dtype))).encode())
    for block in blocks(len(images)):
        digest.update(np.ascontiguousarray(images[block]).data)
        digest.update(np.ascontiguousarray(encoded[block]).data)
    return digest.hexdigest()
