"""Spectra that decay with shared rates, and whose amplitudes can't be negative.

Asked for at pyglotaran, issue 42. 60 wavelengths share two rates; the derivative is exact where an
amplitude is held at 0.
"""

from __future__ import annotations

import numpy as np

from rankwise import VariableProjection
from rankwise.varpro import SeparableModel


def main() -> None:
    """Fit the same traces with and without the constraint."""
    t, wavelength = np.linspace(0, 10, 80), np.linspace(0, 1, 60)
    bands = np.stack([np.exp(-(((wavelength - c) / 0.12) ** 2)) for c in (0.3, 0.6)])
    y = np.exp(-np.outer(t, [0.4, 0.9])) @ bands
    y += np.random.default_rng(0).normal(scale=0.03, size=y.shape)
    model = SeparableModel(["k1", "k2"])
    for name in model.names:
        model = model.term(lambda x, k: np.exp(-k * x), [name])

    for what, linear_bounds in (("any sign", None), ("not negative", (0.0, np.inf))):
        fit = VariableProjection().fit(model.at(t), y, [0.2, 2.0], linear_bounds=linear_bounds)
        error = np.sqrt(np.mean((fit.coef - bands) ** 2))
        print(
            f"{what:13} rates {fit.params[0]:.3f} {fit.params[1]:.3f}  "
            f"smallest amplitude {fit.coef.min():6.3f}  error of spectra {error:.4f}"
        )


if __name__ == "__main__":
    main()
