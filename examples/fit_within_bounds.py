"""Bounds, fixed and tied parameters: two decays through an instrument whose delay is known.

Asked for at geo-ant/varpro, issues 39 and 51. The second rate would run away; it's kept below 12.
"""

from __future__ import annotations

import numpy as np

from rankwise import VariableProjection
from rankwise.varpro import SeparableModel


def main() -> None:
    """Fit freely within bounds, with the delay fixed, and with one rate tied to the other."""
    t = np.linspace(0, 4, 120)
    y = 2.0 * np.exp(-0.8 * (t - 0.1)) + 0.7 * np.exp(-15.0 * (t - 0.1))
    y += np.random.default_rng(0).normal(scale=0.02, size=len(t))
    model = (
        SeparableModel(["slow", "fast", "delay"])
        .term(lambda x, slow, delay: np.exp(-slow * (x - delay)))
        .term(lambda x, fast, delay: np.exp(-fast * (x - delay)))
    )
    basis, start = model.at(t), {"slow": 1.0, "fast": 5.0, "delay": 0.1}
    bounds = {"slow": (0.0, 2.0), "fast": (2.0, 12.0)}
    fits = {
        "free": VariableProjection().fit(basis, y, start, fixed=["delay"]),
        "bounds": VariableProjection().fit(basis, y, start, fixed=["delay"], bounds=bounds),
        "tied": VariableProjection().fit(
            basis, y, start, fixed=["delay"], tied={"fast": lambda slow: 10 * slow}
        ),
    }
    for name, fit in fits.items():
        slow, fast = fit.params[:2]
        print(f"{name:8} slow {slow:6.3f}  fast {fast:6.3f}  rss {fit.rss:.4f}  {fit.status}")


if __name__ == "__main__":
    main()
