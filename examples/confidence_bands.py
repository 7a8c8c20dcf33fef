"""How well a fitted curve is known: standard errors, bands, and intervals by refitting.

Asked for at geo-ant/varpro, issue 29. The band of the fit, and how often such bands hold the truth.
"""

from __future__ import annotations

import numpy as np

from rankwise import VariableProjection
from rankwise.varpro import SeparableModel


def main() -> None:
    """Print a summary, a band, a profile interval, and the coverage over 200 simulated fits."""
    x = np.linspace(0, 5, 40)
    truth = 2.0 * np.exp(-0.9 * x) + 0.5
    model = SeparableModel(["rate"]).term(lambda x, rate: np.exp(-rate * x)).constant()
    rng = np.random.default_rng(0)
    fit = VariableProjection().fit(model.at(x), truth + rng.normal(scale=0.05, size=40), [2.0])
    print(fit.summary())
    band = fit.confidence_band([0.0, 2.5, 5.0])
    for at, low, high in zip((0.0, 2.5, 5.0), band.lower, band.upper, strict=True):
        print(f"at {at:3.1f} between {low:.3f} and {high:.3f}")
    interval = fit.profile("rate")
    print(f"rate by its profile: {interval.lower:.3f} to {interval.upper:.3f}")

    held = []
    for _ in range(200):
        again = VariableProjection().fit(
            model.at(x), truth + rng.normal(scale=0.05, size=40), [2.0]
        )
        band = again.confidence_band()
        held.append((band.lower <= truth) & (truth <= band.upper))
    print(f"95% bands held the truth {100 * np.mean(held):.1f}% of the time")


if __name__ == "__main__":
    main()
