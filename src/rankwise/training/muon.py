"""Muon: steps along gradients whose singular values are all set to about one.

K. Jordan's optimiser (2024), with the numbers of his and of `torch.optim.Muon`, which is the same
step. That one rounds its products to bfloat16, which takes a processor without instructions for it
several times as long (`benchmarks/muon.py`); here they are float32, and each matrix is a step by
itself, so that several threads may share them.
"""

from __future__ import annotations

import torch

_QUINTIC = (3.4445, -4.775, 2.0315)
_ITERATIONS = 5
_SHORTEST = 1e-7


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """About ``UVᵀ`` of a matrix ``USVᵀ``: singular values come to lie between 0.5 and 1.5.

    Five Newton–Schulz iterations ``X ← aX + (bG + cG²)X`` with ``G = XXᵀ``, whose polynomial is
    steep at zero. Singular values under about a thousandth of the matrix' norm stay smaller.

    Parameters
    ----------
    matrix : tensor of shape (rows, columns)
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=_SHORTEST)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def step(
    matrix: torch.Tensor,
    gradient: torch.Tensor,
    buffer: torch.Tensor,
    *,
    rate: float,
    momentum: float,
) -> None:
    """One step of a matrix, in place, with Nesterov's momentum.

    Parameters
    ----------
    matrix : tensor of shape (rows, columns)
        With more rows than columns it moves ``√(rows / columns)`` times as far.
    gradient : tensor of the same shape
    buffer : tensor of the same shape
        The mean of the gradients so far, zeros at first; changed in place.
    rate, momentum : float
    """
    rows, columns = matrix.shape
    buffer.lerp_(gradient, 1 - momentum)
    along = orthogonalised(gradient.lerp(buffer, momentum))
    matrix.add_(along, alpha=-rate * max(1.0, rows / columns) ** 0.5)
