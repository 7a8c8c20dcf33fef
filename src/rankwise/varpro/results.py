"""What every fit returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FitResult:
    """What a fit returns: the model and an honest account of how it ended.

    Attributes
    ----------
    params : array of shape (..., P), float64
        Nonlinear parameters ``θ``.
    coef : array of shape (..., m, K), float64
        Linear parameters ``A``; a list of arrays with several data sets.
    objective : float or array
        ``½(‖τ − ΦA‖² + μ‖A‖²)`` at the end, weighted; with a robust loss
        ``½Σs²ρ(r²/s²)``; squashed ``½‖τ − σ(ΦA)‖²``.
    status : str or tuple of str
        ``converged``, ``max-iterations``, ``stalled`` (no step improves any more, away from a
        minimum) or ``non-finite`` (the start could not be evaluated).
    n_iterations, n_evaluations : int
        Steps, and evaluations of the functional.
    history : list of dict
        One entry an iteration; with a robust loss, one a reweighting.
    rank : int or array
        Numerical rank of ``Φ`` at the end, of its ``m`` columns; a list with several data sets.
    condition : float or array
        ``s₁/s_rank`` of ``Φ``, its columns scaled to one norm where there is no ridge.
    """

    params: Any
    coef: Any
    objective: Any
    status: Any
    n_iterations: int
    n_evaluations: int
    history: list[dict[str, Any]]
    rank: Any
    condition: Any

    @property
    def converged(self) -> bool:
        """Whether every problem of the fit converged."""
        statuses = (self.status,) if isinstance(self.status, str) else self.status
        return all(s == "converged" for s in statuses)
