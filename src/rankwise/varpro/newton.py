"""Gauss–Newton for all units together, by conjugate gradients: no ``P × P`` matrix is formed.

The matrix of the functional (docs/method.md, section 5) is
``(DᵀP⊥D) ∘ (AAᵀ ⊗ 1) + (MᵀM) ∘ ((ΦᵀΦ + μI)⁻¹ ⊗ 1)``. Its product with ``δ`` needs ``D`` twice:

    E = Dδ, unit by unit (n × I);   Y = P⊥ E A;   first part: Dᵀ(Y Aᵀ), unit by unit
    s_ki = Σ_{l of i} M_kl δ_l;     second part: Σ_k M_kl ((ΦᵀΦ + μI)⁻¹ s_k)_{owner(l)}

Both products with ``D`` are one forward and one reverse derivative of the features. So a product
costs about as much as a gradient, where the matrix costs ``P`` times as much; it pays where there
are few units and the batch fits into memory, since each step sees all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from rankwise.varpro.functional import Projection, project

Features = Callable[[torch.Tensor], torch.Tensor]
"""From float64 parameters (p, I) to features (n, I), each column of one of the other."""

_RCOND = 1e-10
_MOST_TRIES = 9


@dataclass(frozen=True)
class NewtonResult:
    """How `refine_newton` ended.

    Attributes
    ----------
    params : float64 array of shape (p, I)
    objectives : list of float
        Of the start, and after each iteration; never rising.
    n_products : int
        Products with the Gauss–Newton matrix.
    status : {"max-iterations", "converged", "stalled"}
    """

    params: np.ndarray
    objectives: list[float]
    n_products: int
    status: str


class Linearisation:
    """The functional at one point: objective, gradient, products with its Gauss–Newton matrix.

    Parameters
    ----------
    features : callable
        From parameters (p, I) to features (n, I) in torch; column ``i`` depends on column ``i``.
    params : float64 tensor of shape (p, I)
    active : bool tensor of shape (p, I)
        Parameters that count; directions are zero elsewhere.
    targets : float64 tensor of shape (n, K)
    ridge : float
        ``μ``.
    """

    def __init__(
        self,
        features: Features,
        params: torch.Tensor,
        active: torch.Tensor,
        targets: torch.Tensor,
        ridge: float,
    ) -> None:
        self.active = active
        self._features = features
        self._params = params
        phi, self._pull = torch.func.vjp(features, params)[:2]
        constant = torch.ones_like(phi[:, :1])
        self.projection: Projection = project(
            torch.cat([phi, constant], dim=1), targets, ridge=ridge, rcond=_RCOND
        )
        self.coef = self.projection.coef[:-1]
        self.inverse = self.projection.inverse_gram[:-1, :-1]
        # M = RᵀD, one row a target, laid out as the parameters.
        n_units = phi.shape[1]
        residual = self.projection.residual
        self.cross = torch.stack(
            [
                self._pulled(residual[:, k : k + 1].expand(-1, n_units))
                for k in range(residual.shape[1])
            ]
        )

    @property
    def objective(self) -> float:
        """``½(‖R‖² + μ‖A‖²)``."""
        return float(self.projection.objective)

    @property
    def gradient(self) -> torch.Tensor:
        """``−Σ_k a_ik (D_ilᵀ r_k)``, of shape (p, I)."""
        return -torch.einsum("kpi,ik->pi", self.cross, self.coef)

    def product(self, direction: torch.Tensor) -> torch.Tensor:
        """The Gauss–Newton matrix times a direction, both of shape (p, I)."""
        direction = direction * self.active
        change = torch.func.jvp(self._features, (self._params,), (direction,))[1]
        left, filters = self.projection.left, self.projection.filters
        moved = change @ self.coef
        behind = moved - left @ (filters[:, None] * (left.T @ moved))
        first = self._pulled(behind @ self.coef.T)
        shared = torch.einsum("kpi,pi->ki", self.cross, direction) @ self.inverse
        return first + torch.einsum("kpi,ki->pi", self.cross, shared)

    def _pulled(self, cotangent: torch.Tensor) -> torch.Tensor:
        return self._pull(cotangent)[0] * self.active


def refine_newton(
    features: Features,
    params: Float[np.ndarray, "p I"],
    active: np.ndarray,
    targets: Float[np.ndarray, "n K"],
    *,
    ridge: float = 1e-4,
    iterations: int = 10,
    products: int = 20,
    tolerance: float = 1e-4,
    advance: Callable[[int], object] = lambda n: None,
) -> NewtonResult:
    """Levenberg–Marquardt on all units at once, each step by conjugate gradients.

    Parameters
    ----------
    features : callable
        From float64 parameters (p, I) to features (n, I) of all samples, in torch.
    params, active : arrays of shape (p, I)
    targets : array of shape (n, K)
    ridge : float
        Per sample, above 0.
    iterations, products : int
        Steps at most, and products with the matrix a step at most.
    tolerance : float
        Relative decrease of the objective under which it has converged.
    advance : callable
        Told the number of steps done.
    """
    tau = torch.as_tensor(np.asarray(targets, dtype=np.float64))
    mask = torch.as_tensor(active)

    def at(point: torch.Tensor) -> Linearisation:
        return Linearisation(features, point, mask, tau, ridge * len(tau))

    here = torch.as_tensor(np.asarray(params, dtype=np.float64).copy())
    now = at(here)
    objectives, used, status, damping = [now.objective], 0, "max-iterations", 1e-2
    for _ in range(iterations):
        if float(now.gradient.norm()) == 0.0:
            status = "converged"
            break
        new = None
        for _ in range(_MOST_TRIES):
            step, n = _conjugate_gradients(now, damping, products)
            used += n
            tried = at(here + step)
            if tried.objective < now.objective:
                new = tried
                break
            damping *= 4
        if new is None:
            status = "stalled"
            break
        decrease = (now.objective - new.objective) / now.objective
        here, now, damping = here + step, new, damping / 6
        objectives.append(now.objective)
        advance(1)
        if decrease < tolerance:
            status = "converged"
            break
    return NewtonResult(here.numpy(), objectives, used, status)


def _conjugate_gradients(
    at: Linearisation, damping: float, products: int
) -> tuple[torch.Tensor, int]:
    """Solve ``(H + λ·h·I)δ = −g``, ``h`` the curvature along ``g``, to a tenth of ``‖g‖``.

    Gives the step and the number of products it took.
    """
    gradient = at.gradient
    squared = float(gradient.square().sum())
    curvature = float((gradient * at.product(gradient)).sum()) / squared
    shift = damping * max(curvature, float(np.finfo(float).tiny))
    step, residual = torch.zeros_like(gradient), -gradient
    search, norm, used = residual.clone(), squared, 1
    while used <= products and norm > 1e-2 * squared:
        image = at.product(search) + shift * search
        used += 1
        length = norm / float((search * image).sum())
        step = step + length * search
        residual = residual - length * image
        before, norm = norm, float(residual.square().sum())
        search = residual + (norm / before) * search
    return step, used
