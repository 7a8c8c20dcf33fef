"""What Levenberg–Marquardt is made of: rules of damping, and solves of the damped equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from scipy.linalg import lapack


@runtime_checkable
class Damping(Protocol):
    """How the damping ``λ`` starts and follows each step."""

    @property
    def initial(self) -> float:
        """``λ`` of the first step."""
        ...

    @property
    def maximum(self) -> float:
        """``λ`` beyond which the solver gives up: no step improves."""
        ...

    def update(self, damping: Any, accepted: Any, gain: Any) -> Any:
        """The next ``λ``, from whether the step was taken and actual/predicted decrease."""
        ...


@dataclass(frozen=True)
class MarquardtDamping:
    """Divide ``λ`` by `decrease` after a success, multiply by `increase` after a failure.

    Defaults are those of the first prototypes.
    """

    initial: float = 1e-2
    decrease: float = 6.0
    increase: float = 4.0
    minimum: float = 1e-12
    maximum: float = 1e10

    def update(self, damping: Any, accepted: Any, gain: Any) -> Any:
        """``λ/decrease`` where accepted, ``λ·increase`` elsewhere."""
        xp = array_namespace(damping)
        changed = xp.where(accepted, damping / self.decrease, damping * self.increase)
        return xp.where(changed < self.minimum, xp.full_like(changed, self.minimum), changed)


@dataclass(frozen=True)
class NielsenDamping:
    """Nielsen's rule: ``λ·max(⅓, 1 − (2ρ − 1)³)`` after a success with gain ratio ``ρ``.

    After a failure ``λ·increase``. The default: it rejects far fewer steps on the sub-networks of
    the paper than Marquardt's rule (``benchmarks/solver_race.py --damping``).
    """

    initial: float = 1e-1
    increase: float = 4.0
    minimum: float = 1e-16
    maximum: float = 1e10

    def update(self, damping: Any, accepted: Any, gain: Any) -> Any:
        """The next ``λ``."""
        xp = array_namespace(damping)
        factor = 1.0 - (2.0 * gain - 1.0) ** 3
        third = xp.full_like(factor, 1.0 / 3.0)
        factor = xp.where(factor > third, factor, third)
        factor = xp.where(accepted, factor, xp.full_like(factor, self.increase))
        changed = damping * factor
        return xp.where(changed < self.minimum, xp.full_like(changed, self.minimum), changed)


@runtime_checkable
class LinearSolve(Protocol):
    """Solves the damped normal equations."""

    def __call__(self, matrix: Any, diagonal: Any, rhs: Any) -> tuple[Any, Any]:
        """Solve ``(matrix + diag(diagonal))·x = rhs``; give ``x`` and whether it worked."""
        ...


def cholesky_solve(matrix: Any, diagonal: Any, rhs: Any) -> tuple[Any, Any]:
    """Solve by Cholesky in float64, reading the upper triangle of `matrix` only.

    Returns
    -------
    solution : array of shape (..., P)
    worked : bool array of shape (...)
        False where the damped matrix isn't positive definite; the solution is zero there.
    """
    if is_numpy_array(matrix) and matrix.ndim == 2:
        return cholesky_with_pivot(matrix, diagonal, rhs)[:2]
    if is_numpy_array(matrix):
        return _cholesky_batch(matrix, diagonal, rhs)
    return _cholesky_torch(matrix, diagonal, rhs)


def cholesky_with_pivot(
    matrix: np.ndarray, diagonal: np.ndarray, rhs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Solution, whether it worked, and the smallest pivot, each relative to its own diagonal."""
    damped = matrix.astype(np.float64)
    damped.flat[:: len(rhs) + 1] += diagonal
    before = damped.diagonal().copy()
    # Row-major upper is column-major lower: potrf works in place on the transpose.
    factor, info = lapack.dpotrf(damped.T, lower=1, overwrite_a=1, clean=0)
    if info != 0:
        return np.zeros_like(rhs), np.asarray(False), 0.0
    solution, _ = lapack.dpotrs(factor, rhs, lower=1)
    return solution, np.asarray(True), float(np.min(factor.diagonal() ** 2 / before, initial=1.0))


def _cholesky_batch(
    matrix: np.ndarray, diagonal: np.ndarray, rhs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Many small systems at once; where one fails, each by itself."""
    upper = np.triu(matrix.astype(np.float64))
    damped = upper + np.triu(upper, 1).swapaxes(-1, -2)
    np.einsum("...ii->...i", damped)[...] += diagonal
    try:
        factor = np.linalg.cholesky(damped)
    except np.linalg.LinAlgError:
        solved = [cholesky_with_pivot(*one) for one in zip(matrix, diagonal, rhs, strict=True)]
        return np.stack([s[0] for s in solved]), np.stack([s[1] for s in solved])
    solution = rhs.copy()
    size = rhs.shape[-1]
    for i in range(size):  # forward, then back: few parameters, many problems
        solution[:, i] -= np.sum(factor[:, i, :i] * solution[:, :i], axis=-1)
        solution[:, i] /= factor[:, i, i]
    for i in range(size - 1, -1, -1):
        solution[:, i] -= np.sum(factor[:, i + 1 :, i] * solution[:, i + 1 :], axis=-1)
        solution[:, i] /= factor[:, i, i]
    return solution, np.ones(len(rhs), dtype=bool)


def _cholesky_torch(matrix: Any, diagonal: Any, rhs: Any) -> tuple[Any, Any]:
    import torch

    damped = matrix.to(torch.float64) + torch.diag_embed(diagonal)
    factor, info = torch.linalg.cholesky_ex(damped, upper=True)
    good = info == 0
    identity = torch.eye(damped.shape[-1], dtype=damped.dtype, device=damped.device)
    factor = torch.where(good[..., None, None], factor, identity)
    solution = torch.cholesky_solve(rhs[..., None], factor, upper=True)[..., 0]
    solution = torch.where(good[..., None], solution, torch.zeros_like(solution))
    return solution, good
