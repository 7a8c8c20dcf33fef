"""Which device computes."""

from __future__ import annotations


def resolve_device(device: str) -> str:
    """Where to train: ``"auto"`` is a GPU where PyTorch finds one, else the CPU.

    Raises
    ------
    ValueError
        If the name isn't accepted, or a GPU was asked for and there is none.
    """
    if device in ("cpu", "cpu:torch"):
        return device
    named = isinstance(device, str) and (device in ("auto", "cuda") or device.startswith("cuda:"))
    if not named:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    import torch

    if torch.cuda.is_available():
        return "cuda" if device == "auto" else device
    if device == "auto":
        return "cpu"
    raise ValueError("device 'cuda' was asked for, but PyTorch finds no GPU here; use 'cpu'")
