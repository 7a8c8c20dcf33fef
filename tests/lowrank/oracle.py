"""A slow, obvious reference: the float64 SVD of every channel."""

import numpy as np


def rank_from_sigma(
    sigma: np.ndarray,
    energy: float,
    energy_of: str = "sigma",
    rank_rule: str = "reach",
    shared: bool = False,
) -> np.ndarray:
    """Rank of each row of singular values (channels, n)."""
    weights = sigma if energy_of == "sigma" else sigma**2
    fractions = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
    if shared:
        fractions = np.repeat(fractions.mean(0, keepdims=True), len(fractions), 0)
    if rank_rule == "reach":
        return np.array([np.flatnonzero(f >= energy)[0] + 1 for f in fractions])
    return np.abs(fractions - energy).argmin(-1) + 1


def svd_rank(planes: np.ndarray, energy: float, **options: object) -> np.ndarray:
    """Rank of each plane (channels, height, width)."""
    return rank_from_sigma(np.linalg.svd(planes.astype(float), compute_uv=False), energy, **options)


def svd_copy(plane: np.ndarray, rank: int) -> np.ndarray:
    u, s, vt = np.linalg.svd(plane.astype(float), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]
