"""Fit a sum of two exponentials and a constant: variable projection without any image.

Only the decay rates need a start. The amplitudes and the constant are eliminated.
"""

from __future__ import annotations

import numpy as np

from rankwise import VariableProjection
from rankwise.varpro import FunctionBasis


def main() -> None:
    """Recover the rates and amplitudes behind noisy samples."""
    t = np.linspace(0, 5, 200)
    noise = np.random.default_rng(0).normal(scale=0.005, size=len(t))
    y = 2.0 * np.exp(-0.5 * t) + 1.0 * np.exp(-3.0 * t) + 0.25 + noise

    def features(rates: np.ndarray) -> np.ndarray:
        return np.column_stack([np.exp(-rates[0] * t), np.exp(-rates[1] * t), np.ones_like(t)])

    def derivatives(rates: np.ndarray) -> np.ndarray:
        return -t[:, None] * features(rates)[:, :2]

    basis = FunctionBasis(features, derivatives, owner=np.array([0, 1]))
    fit = VariableProjection(ftol=1e-10, max_iterations=50).fit(basis, y, [0.1, 5.0])

    print(f"{fit.status} after {fit.n_iterations} iterations, rank {fit.rank} of 3")
    print(f"{'':10}  true  fitted")
    names = ("rate 1", "rate 2", "weight 1", "weight 2", "constant")
    fitted = [*fit.params, *fit.coef[:, 0]]
    for name, true, value in zip(names, (0.5, 3.0, 2.0, 1.0, 0.25), fitted, strict=True):
        print(f"{name:10}  {true:4.2f}  {value:6.3f}")


if __name__ == "__main__":
    main()
