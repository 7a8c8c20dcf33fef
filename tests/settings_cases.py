"""What a process may have set in PyTorch around a call, and has to keep."""

from contextlib import contextmanager

import torch


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def bfloat16():
    return torch.autocast("cpu", dtype=torch.bfloat16)
