"""Weights of a pre-trained network: a safetensors file, local or of the Hugging Face hub."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from rankwise._reading import blamed_on
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
    with blamed_on(
        path, ModelFileError, "; download or copy it again", "can't be read as a safetensors file"
    ):
        return load_file(os.fspath(path))


def cached_or_reached(name: str, file: str) -> Path | None:
    """A hub file in its cache, or None if it isn't there and the hub answers.

    The hub is asked once: without a network a download itself would try for half a minute, and
    print every try. Where the hub answers, the download knows best what to make of the answer.

    Parameters
    ----------
    name : str
        A hub id, such as ``timm/vgg16.tv_in1k``.
    file : str

    Raises
    ------
    Exception
        What the hub's HTTP client raises where it can't be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError):
        return Path(hf_hub_download(name, file, local_files_only=True))
    with suppress(HfHubHTTPError):
        get_hf_file_metadata(hf_hub_url(name, file))
    return None


def _is_hub_id(text: str) -> bool:
    owner, slash, name = text.partition("/")
    return bool(
        slash and owner and name and "/" not in name and not text.endswith(".safetensors")
    ) and text[0] not in (".", "~", os.sep)


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return cached_or_reached(name, HUB_FILE) or Path(hf_hub_download(name, HUB_FILE))
    except Exception as error:  # its own kinds, those of its HTTP client, and the system's
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelFileError(
            f"{name} has no {HUB_FILE} in the hub's cache and it can't be downloaded ({reason}); "
            "a local .safetensors file works as well"
        ) from error
