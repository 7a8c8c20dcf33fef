"""A fit for people: a table that fits a terminal, a plot."""

from __future__ import annotations

from typing import Any

import numpy as np


def summary_table(fit: Any, coef: np.ndarray, coef_stderr: np.ndarray, level: float = 0.95) -> str:
    """Estimates, standard errors and intervals of one right-hand side, in at most 80 columns."""
    statistics, space = fit.statistics, fit.spec.space
    quantile = statistics.quantile(level)
    at_bound = space.at_bound(fit.params)
    rows = []
    for i, name in enumerate(fit.names):
        note = ""
        if name in space.fixed:
            note = "fixed"
        elif name in space.tied:
            note = "tied"
        elif at_bound[i]:
            note = "at bound"
        rows.append((name, fit.params[i], fit.stderr[i], note))
    bounded = any(d.linear_bounds is not None for d in fit.spec.data)
    for j, (value, error) in enumerate(zip(coef, coef_stderr, strict=True)):
        held = bounded and not np.isfinite(error)
        rows.append((f"column {j}", value, error, "at bound" if held else ""))
    lines = [
        f"{fit.status} after {fit.n_iterations} iterations, {fit.n_evaluations} evaluations",
        f"{statistics.n_observations} observations, {statistics.n_parameters:g} parameters, "
        f"{statistics.dof:g} degrees of freedom",
    ]
    if fit.spec.absolute_sigma:
        lines.append(f"chi-squared {fit.rss:.6g}, reduced {fit.variance:.6g}")
    else:
        lines.append(
            f"residual sum of squares {fit.rss:.6g}, standard deviation {np.sqrt(fit.variance):.6g}"
        )
    lines.append(f"AIC {fit.aic:.2f}, AICc {fit.aicc:.2f}, BIC {fit.bic:.2f}")
    if fit.spec.loss != "linear":
        lines.append(f"loss {fit.spec.loss}, f_scale {fit.spec.f_scale:g}")
    head = f"{'parameter':<18} {'estimate':>13} {'std. error':>11} {level:>10.0%} interval"
    lines += ["", head, "-" * 78]
    for name, value, error, note in rows:
        short = name if len(name) <= 18 else name[:17] + "…"
        line = f"{short:<18} {value:>13.6g}"
        if note in ("fixed", "at bound"):
            line += f" {'':>11}   {note}"
        else:
            half = quantile * error
            between = f"{value - half:.5g} to {value + half:.5g}"
            line += f" {error:>11.4g}   {between}" + (f"  ({note})" if note else "")
        lines.append(line[:80])
    return "\n".join(lines)


def draw(
    x: np.ndarray,
    targets: np.ndarray,
    residuals: np.ndarray,
    fine: np.ndarray,
    band: Any,
    level: float,
    axes: Any = None,
) -> Any:
    """Data, fit and band above, residuals below."""
    import matplotlib.pyplot as plt

    if axes is None:
        _, axes = plt.subplots(
            2, 1, sharex=True, figsize=(6.4, 4.8), height_ratios=[3, 1], layout="constrained"
        )
    upper, lower = axes
    order = np.argsort(fine)
    upper.fill_between(
        fine[order], band.lower[order], band.upper[order], alpha=0.3, label=f"{level:.0%} band"
    )
    upper.plot(fine[order], band.fit[order], label="fit")
    upper.plot(x, targets, ".", color="0.2", markersize=4, label="data")
    upper.legend()
    lower.axhline(0.0, color="0.6", linewidth=0.8)
    lower.plot(x, residuals, ".", color="0.2", markersize=4)
    lower.set_ylabel("residual")
    lower.set_xlabel("x")
    return upper.figure
