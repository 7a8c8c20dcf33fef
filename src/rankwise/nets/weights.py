"""Weights of a pre-trained network: a safetensors file, local or of the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rankwise.errors import ModelFileError

HUB_FILE = "model.safetensors"


def read_weights(source: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file by name, on the CPU.

    Parameters
    ----------
    source : str or Path
        A local ``.safetensors`` file, or a hub id such as ``timm/vgg16.tv_in1k``, whose
        ``model.safetensors`` is downloaded once into the hub's cache.

    Raises
    ------
    ModelFileError
        If there is no such file, it is damaged, or the hub can't be reached.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(source)
    if not path.is_file():
        text = str(source)
        looks_local = (
            path.suffix or len(path.parts) != 2 or path.is_absolute() or text[:1] in (".", "~")
        )
        if path.exists() or (looks_local and not _is_hub_id(text)):
            raise ModelFileError(
                f"{source} is no file; weights are a local .safetensors file or a hub id such as "
                "timm/vgg16.tv_in1k"
            )
        path = _download(text)
    try:
        return load_file(os.fspath(path))
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} can't be read as a safetensors file ({error}); download or copy it again"
        ) from error


def _is_hub_id(text: str) -> bool:
    owner, slash, name = text.partition("/")
    return bool(
        slash and owner and name and "/" not in name and not text.endswith(".safetensors")
    ) and text[0] not in (".", "~", os.sep)


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, HUB_FILE))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        # Besides its own errors the hub raises those of its HTTP client, which are OSErrors.
        reason = str(error).strip().split("\n")[0]
        raise ModelFileError(
            f"{name} has no {HUB_FILE} in the hub's cache and it can't be downloaded ({reason}); "
            "a local .safetensors file works as well"
        ) from error
