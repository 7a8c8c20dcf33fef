"""The precision that joint training computes in: float32, or bfloat16 where it pays.

bfloat16 has float32's range and 8 bits of fraction. Maps and filters are rounded to it, so that a
processor with AMX convolves faster; with AVX-512 BF16 alone, as AMD's have it,
a training is hardly faster. Weights, their steps, moments of the normalisation, output layer and
loss stay in float32, and so does every prediction.
"""

from __future__ import annotations

from pathlib import Path

from rankwise.errors import RunError

PRECISIONS = ("float32", "bfloat16", "auto")


def resolve_precision(name: str, device: str = "cpu") -> str:
    """``"float32"`` or ``"bfloat16"``: a precision as given, ``"auto"`` as the processor has it.

    Parameters
    ----------
    name : {"float32", "bfloat16", "auto"}
        ``"auto"`` is bfloat16 where the device has instructions for it.
    device : str
        A torch device.

    Raises
    ------
    ValueError
        If the precision is unknown.
    """
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; accepted: {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    return "bfloat16" if _is_native(device) else "float32"


def precision_begun(asked: str, begun: str, folder: Path) -> str:
    """What a training goes on in that a folder keeps: what it was begun in.

    Parameters
    ----------
    asked : {"float32", "bfloat16", "auto"}
        ``"auto"`` goes on in either, whatever this processor has instructions for.
    begun : {"float32", "bfloat16"}
    folder : Path

    Raises
    ------
    RunError
        If another one was asked for.
    """
    if asked not in ("auto", begun):
        raise RunError(
            f"{folder} holds a training begun in {begun}, and precision {asked!r} was asked for; "
            f"{begun!r} or 'auto' go on with it, or use another folder"
        )
    return begun


def _is_native(device: str) -> bool:
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public word for it.
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
