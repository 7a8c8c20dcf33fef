"""An output layer kept by running statistics: variable projection on mini-batches."""

from __future__ import annotations

import torch

_WINDOW = 60


class RunningLayer:
    """Ridge solution over an exponentially weighted window of batches.

    With ``φ`` a batch's features and a constant, ``G ← ρG + φᵀφ``, ``B ← ρB + φᵀτ``,
    ``n ← ρn + n_batch``, and ``A = (G + μ·n·I)⁻¹B``; the constant isn't shrunk.

    Parameters
    ----------
    n_features, n_outputs : int
    ridge : float
        ``μ``, per sample.
    window : float
        Batches that the weights add up to: ``ρ = 1 − 1/window``.
    """

    def __init__(
        self, n_features: int, n_outputs: int, *, ridge: float = 1e-4, window: float = _WINDOW
    ) -> None:
        if not window >= 1:
            raise ValueError(f"window must be at least 1 batch, got {window}")
        self.ridge, self.decay = ridge, 1.0 - 1.0 / window
        self.gram = torch.zeros(n_features + 1, n_features + 1, dtype=torch.float64)
        self.cross = torch.zeros(n_features + 1, n_outputs, dtype=torch.float64)
        self.weight = torch.zeros((), dtype=torch.float64)
        self.n_batches = 0

    def add(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        """Count samples in: features ``(n, m)`` without the constant, targets ``(n, K)``."""
        rows = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
        # Products in the features' type, sums in float64: the statistics of a batch are small.
        self.gram += (rows.T @ rows).cpu()
        self.cross += (rows.T @ targets.to(rows)).cpu()
        self.weight += len(rows)

    def end_batch(self) -> None:
        """Let all that was counted fade by one batch."""
        self.gram *= self.decay
        self.cross *= self.decay
        self.weight *= self.decay
        self.n_batches += 1

    def solve(self) -> torch.Tensor:
        """``A`` of shape (m + 1, K), float32, the constant's row last."""
        damped = self.gram.clone()
        diagonal = damped.diagonal()
        # A feature that is zero on every sample so far still needs a pivot.
        floor = 1e-10 * diagonal.max()
        diagonal[:-1] += self.ridge * self.weight + floor
        factor = torch.linalg.cholesky(damped)
        return torch.cholesky_solve(self.cross, factor).float().contiguous()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps."""
        n = torch.tensor(self.n_batches)
        return {"gram": self.gram, "cross": self.cross, "weight": self.weight, "n_batches": n}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from `tensors`."""
        self.gram, self.cross = tensors["gram"].clone(), tensors["cross"].clone()
        self.weight, self.n_batches = tensors["weight"].clone(), int(tensors["n_batches"])
