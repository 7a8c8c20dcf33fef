"""An output layer kept by running statistics: variable projection on mini-batches."""

from __future__ import annotations

import torch

_WINDOW = 60


class DivergedError(ValueError):
    """Features that aren't finite, so that no output layer fits them."""


def solve_layer(
    gram: torch.Tensor, cross: torch.Tensor, ridge: torch.Tensor | float, *, floor: float = 1e-12
) -> torch.Tensor:
    """``(G + μI)⁻¹B`` by Cholesky; the last row, the constant's, has no ridge.

    Parameters
    ----------
    gram, cross : float64 tensors of shape (m + 1, m + 1) and (m + 1, K)
    ridge : float
        ``μ``, in all.
    floor : float, default=1e-12
        Of the largest diagonal entry, added: a feature that is zero on every sample so far still
        needs a pivot.

    Returns
    -------
    float64 tensor of shape (m + 1, K)

    Raises
    ------
    DivergedError
        If features aren't finite.
    ValueError
        If they are dependent beyond what the ridge mends.
    """
    damped = gram.clone()
    diagonal = damped.diagonal()
    diagonal[:-1] += ridge + floor * diagonal.max()
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        if not torch.isfinite(gram).all():
            raise DivergedError(
                "the network's features aren't finite, so no output layer fits them; lower the "
                "learning rate, or look for NaN or infinity in the images"
            )
        raise ValueError(
            f"the output layer can't be solved with ridge {float(ridge):.3g}: features and "
            "constant are linearly dependent to rounding; give a larger ridge"
        )
    return torch.cholesky_solve(cross, factor)


def with_constant(features: torch.Tensor) -> torch.Tensor:
    """Features (n, m) with a column of ones, (n, m + 1)."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


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
        self.ridge, self.window, self.decay = ridge, window, 1.0 - 1.0 / window
        self.gram = torch.zeros(n_features + 1, n_features + 1, dtype=torch.float64)
        self.cross = torch.zeros(n_features + 1, n_outputs, dtype=torch.float64)
        self.weight = torch.zeros((), dtype=torch.float64)
        self.n_batches = 0

    def add(
        self, features: torch.Tensor, targets: torch.Tensor, roots: torch.Tensor | None = None
    ) -> None:
        """Count samples in: features ``(n, m)`` without the constant, targets ``(n, K)``.

        `roots` are those of the samples' weights, ``(n,)``; default 1.
        """
        rows = with_constant(features)
        if roots is not None:
            rows, targets = rows * roots[:, None], targets.to(rows) * roots[:, None]
        # Products in the features' type, sums in float64: the statistics of a batch are small.
        self.gram += (rows.T @ rows).cpu()
        self.cross += (rows.T @ targets.to(rows)).cpu()
        self.weight += len(rows) if roots is None else float(roots.square().sum())

    def fill(self, other: RunningLayer, batch_size: int) -> None:
        """Begin with the statistics of another one, as if they were the last batches'.

        Parameters
        ----------
        other : RunningLayer
            Of more samples than the window holds: weighed down to its size.
        batch_size : int
            Samples of a batch to come.
        """
        share = min(1.0, self.window * batch_size / max(float(other.weight), 1.0))
        self.gram, self.cross = other.gram * share, other.cross * share
        self.weight = other.weight * share

    def end_batch(self) -> None:
        """Let all that was counted fade by one batch."""
        self.gram *= self.decay
        self.cross *= self.decay
        self.weight *= self.decay
        self.n_batches += 1

    def solve(self) -> torch.Tensor:
        """``A`` of shape (m + 1, K), float32, the constant's row last."""
        # Products in float32 need a higher floor.
        layer = solve_layer(self.gram, self.cross, self.ridge * self.weight, floor=1e-10)
        return layer.float().contiguous()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps."""
        n = torch.tensor(self.n_batches)
        return {"gram": self.gram, "cross": self.cross, "weight": self.weight, "n_batches": n}

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from `tensors`."""
        self.gram, self.cross = tensors["gram"].clone(), tensors["cross"].clone()
        self.weight, self.n_batches = tensors["weight"].clone(), int(tensors["n_batches"])
