"""A softmax layer on frozen features: the ridge chosen on held-out parts, then the layer itself.

L-BFGS (`rankwise.linear.descents`) on several ridges and parts at once takes all its values from
one look at the samples (`rankwise.linear.logistic_pass`), ``n·d·K`` operations each. Where the Gram
matrix is known, or pays, L-BFGS begins each step from ``(cG + μ)⁻¹``, ``c`` the softmax's mean
curvature where nothing is known yet: near the inverse Hessian, so about ten looks do. Memory is
that of a block and of ``d²``.

Leaving a sample out is one Newton step from the solution (Rad & Maleki, 2020), with the Hessian
``cΛ + μ`` in the directions of a `RidgeFamily`: ``o₋ = o + h(I − hJ)⁻¹(p − e_y)``,
``h = Σ_j z_j²/(cλ_j + μ)``, ``J = diag(p) − ppᵀ``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs
from scipy.special import softmax

from rankwise.linear.class_ridge import RidgeFamily
from rankwise.linear.descents import MEMORY, Descents, Precondition
from rankwise.linear.logistic_folds import N_FOLDS, folds_needed, usable_folds
from rankwise.linear.logistic_pass import (
    Pass,
    block_hessian,
    newton_step,
    outputs_of,
    penalised,
)
from rankwise.linear.scaling import Scaling

TOLERANCE = 1e-8, 1e-6
"""What one more step gains at most of a layer that has converged: mean loss, share of the loss."""

_ROUGH = 3e-5, 1e-3
"""The same, where held-out losses are compared."""

_ALL_AT_ONCE = 5
"""So many ridges are all tried; of more those that can be the best."""

_FEW_PARAMETERS = 256
"""Of so many or fewer the layer is brought to the last digit by Newton's method."""

_NEAR = 11.0
"""Ridges that share a preconditioner differ by this factor at most."""

_KEPT_BYTES = 2**26
"""Of the pairs that L-BFGS keeps, beyond the least number of them."""

_LEAST_MEMORY = 4
_NEWTON_STEPS = 6

Samples = tuple[Any, np.ndarray, np.ndarray, np.ndarray]
"""Features (n, d), positions of the labels, weights with the classes' factors, parts (`Folds`)."""


@dataclass(frozen=True)
class LogisticFit:
    """A softmax layer, and what held-out parts said.

    Attributes
    ----------
    ridge : float
        ``μ``; scikit-learn's ``1/C`` and, of two classes, half of it.
    coef, intercept : float64 arrays of shape (K, d) and (K,)
        For the samples' features as they are.
    curvature : float
        ``c`` at the solution: mean of ``tr J/(K − 1)`` over the samples.
    converged : bool
    criterion : list of (float, float)
        Ridges that were tried and their mean held-out losses.
    held_outputs, held_codes, held_weights : arrays of shape (m, K), (m,), (m,)
        Of some samples, by the layer with this ridge that was fitted without them.
    n_passes : int
        Looks at the samples.
    """

    ridge: float
    coef: Float[np.ndarray, "K d"]
    intercept: Float[np.ndarray, "K"]
    curvature: float
    converged: bool
    criterion: list[tuple[float, float]]
    held_outputs: Float[np.ndarray, "m K"]
    held_codes: np.ndarray
    held_weights: np.ndarray
    n_passes: int


@dataclass(frozen=True)
class LogisticLayer:
    """A layer in the directions of a family, for leaving samples out.

    Attributes
    ----------
    ridge : float
        ``μ``; scikit-learn's ``1/C``.
    directions : float64 array of shape (r, K)
        ``Uᵀ``.
    intercept : float64 array of shape (K,)
        Outputs at the features' centre.
    curvature : float
        As in `LogisticFit`.
    """

    ridge: float
    directions: Float[np.ndarray, "r K"]
    intercept: Float[np.ndarray, "K"]
    curvature: float

    def outputs(self, rotated: Float[np.ndarray, "n r"]) -> np.ndarray:
        """Logits (n, K) of features in the family's directions."""
        return rotated @ self.directions + self.intercept


def logistic_path(trace: float) -> list[float]:
    """Ridges to choose from: ``10⁻⁸`` to ``10⁻²`` times the Gram matrix's trace, 13 of them."""
    return (np.geomspace(1e-8, 1e-2, 13) * max(trace, float(np.finfo(float).tiny))).tolist()


def gram_pays(n: int, d: int, n_rows: int) -> bool:
    """Whether a Gram matrix and five Cholesky factors cost less than the looks that they spare.

    They spare about 200 looks of one ridge and part, ``4·n·d·n_rows`` operations each.
    """
    return n * d**2 + 5 * d**3 / 3 < 800.0 * n * d * n_rows


def fit_logistic(
    samples: Callable[[], Iterable[Samples]],
    scaling: Scaling,
    ridges: Sequence[float],
    *,
    gram: Float[np.ndarray, "d d"] | None = None,
    max_passes: int,
    most_held: int = 5000,
    advance: Callable[[int], object] = lambda n: None,
) -> LogisticFit:
    """Choose a ridge by the loss on held-out parts, and fit the layer with it to all samples.

    Parameters
    ----------
    samples : callable
        Gives the blocks, the same samples each time.
    scaling : Scaling
    ridges : sequence of float
        Of more than five, those are tried that can have the least loss if it has one valley: from
        the largest down.
    gram : array of shape (d, d), optional
        Of the scaled features, at least nearly.
    max_passes : int
        Looks at the samples for a group of ridges, and for the layer, at most.
    most_held : int
        Held-out outputs to give at most.
    advance : callable
        Told the number of samples done, for a progress bar.
    """
    fitting = _Fitting(samples, scaling, gram, max_passes, advance)
    parts = fitting.survey()
    ordered = sorted(float(r) for r in ridges)
    losses: dict[int, float] = {}
    points: dict[int, np.ndarray] = {}
    while parts and (ask := _to_try(losses, len(ordered))):
        near = [_nearest(points, j) for j in ask]
        start = np.broadcast_to(scaling.start(), (len(parts), scaling.n_free))
        starts = np.concatenate([start if i is None else points[i] for i in near])
        several = np.repeat([ordered[j] for j in ask], len(parts))
        found, held, _ = fitting.descend(several, np.tile(parts, len(ask)), starts, _ROUGH)
        for j, layers, loss in zip(
            ask, np.split(found, len(ask)), np.split(held, len(ask)), strict=True
        ):
            points[j], losses[j] = layers, float(loss.sum() / fitting.held_weight(parts))
    best = min(losses, key=lambda i: (losses[i], -i), default=len(ordered) // 2)
    few = scaling.n_free <= _FEW_PARAMETERS
    if few and best in points:
        points[best] = np.concatenate(
            [
                fitting.newton(layer[None], ordered[best], part)
                for layer, part in zip(points[best], parts, strict=True)
            ]
        )
    held_out = fitting.held_out(points.get(best), parts, most_held)
    start = points[best].mean(axis=0) if best in points else scaling.start()
    # From where the parts' layers agree; with several, each has seen most of the samples.
    layer, _, converged = fitting.descend(
        np.array([ordered[best]]), np.array([-1]), start[None], TOLERANCE
    )
    if few:
        layer = fitting.newton(layer, ordered[best], -1)
    coef, intercept = scaling.all_classes(layer[0])
    return LogisticFit(
        ordered[best],
        coef,
        intercept,
        fitting.curvature,
        bool(converged[0]),
        [(ordered[i], losses[i]) for i in sorted(losses)],
        *held_out,
        fitting.n_passes,
    )


def left_out_outputs(
    family: RidgeFamily,
    layer: LogisticLayer,
    rotated: Float[np.ndarray, "n r"],
    codes: np.ndarray,
    sample_weight: np.ndarray,
) -> np.ndarray:
    """Output (n, K) for each sample of the layer fitted without it, to first order.

    What is left out is one unit of the sample's weight, as in the squared case.
    """
    outputs = layer.outputs(rotated)
    p = softmax(outputs, axis=1)
    c = layer.curvature
    h = rotated**2 @ (1.0 / np.maximum(c * family.values + layer.ridge, np.finfo(float).tiny))
    if family.design.fit_intercept:
        h += 1.0 / max(c * family.design.total, float(np.finfo(float).tiny))
    share = np.minimum(sample_weight, 1.0) * family.design.class_factors[codes]
    # I − hJ must stay positive; J's eigenvalues are at most twice its largest p(1 − p).
    bound = 2.0 * np.max(p * (1.0 - p), axis=1)
    h = np.minimum(share * h, 0.99 / np.maximum(bound, 1e-12))[:, None]
    residual = p.copy()
    residual[np.arange(len(codes)), codes] -= 1.0
    return outputs + h * _one_step(p, h, residual)


def _one_step(p: np.ndarray, h: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """``(I − h(diag(p) − ppᵀ))⁻¹ r``, sample by sample, by Sherman and Morrison.

    ``h·p`` may reach one while the matrix is still positive, so small steps keep off the pole.
    """
    diagonal = 1.0 - h * p
    diagonal = np.where(np.abs(diagonal) < 1e-9, 1e-9, diagonal)
    left, along = residual / diagonal, p / diagonal
    shrink = 1.0 + h * np.sum(p * along, axis=1, keepdims=True)
    return left - along * h * np.sum(p * left, axis=1, keepdims=True) / shrink


def _nearest(known: Iterable[int], j: int) -> int | None:
    return min(known, key=lambda i: abs(i - j), default=None)


def _to_try(losses: dict[int, float], n: int) -> list[int]:
    """Positions of increasing ridges whose losses are asked for next; none when all is known.

    With one valley, its floor is known once both neighbours of the least one are higher. Small
    ridges take longest, so large ones come first.
    """
    if not losses:
        return list(range(n)) if n <= _ALL_AT_ONCE else [n - 5, n - 2]
    if n <= _ALL_AT_ONCE:
        return []
    best = min(losses, key=lambda i: (losses[i], -i))
    if best == min(losses) and best >= 2:
        return [i for i in (best - 2, best + 1) if i not in losses]
    return [i for i in (best - 1, best + 1) if 0 <= i < n and i not in losses]


class _Fitting:
    """The looks at the samples, counted."""

    def __init__(
        self,
        samples: Callable[[], Iterable[Samples]],
        scaling: Scaling,
        gram: np.ndarray | None,
        max_passes: int,
        advance: Callable[[int], object],
    ) -> None:
        self._samples, self._scaling = samples, scaling
        self._gram, self._max_passes, self._advance = gram, max_passes, advance
        self._dtype: type = np.float64
        self.n_passes, self.curvature = 0, 1.0
        self._inverses: dict[float, np.ndarray] = {}
        shares = scaling.class_weights / scaling.total
        c = shares.prod() if scaling.n_rows == 1 else (1 - np.sum(shares**2)) / (len(shares) - 1)
        self._curvature = max(float(c), 1e-3)

    def survey(self) -> list[int]:
        """Parts to hold out."""
        self._by_fold = np.zeros((N_FOLDS, len(self._scaling.class_factors)))
        counts = np.zeros(N_FOLDS, dtype=int)
        for x, codes, weights, folds in self._samples():
            np.add.at(self._by_fold, (folds, codes), weights)
            counts += np.bincount(folds[weights > 0], minlength=N_FOLDS)
            self._dtype = self._scaling.dtype_of(x)
            self._advance(len(codes))
        self.n_passes += 1
        parts = usable_folds(self._by_fold, folds_needed(int(counts.sum())))
        self._n_held = int(counts[parts].sum())
        return parts

    def held_weight(self, parts: list[int]) -> float:
        """Of all samples in some parts."""
        return float(self._by_fold[parts].sum())

    def descend(
        self, ridges: np.ndarray, parts: np.ndarray, starts: np.ndarray, enough: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Layers (P, free), held-out losses (P,) and whether each converged; part −1 is none."""
        memory = _KEPT_BYTES // (16 * starts.size)
        descents = Descents(
            starts,
            enough[0] * self._scaling.total,
            share=enough[1],
            eps=float(np.finfo(self._dtype).eps),
            precondition=self._preconditioner(ridges),
            memory=int(np.clip(memory, _LEAST_MEMORY, MEMORY)),
        )
        held = np.full(len(ridges), np.inf)
        for _ in range(self._max_passes):
            at = descents.active
            if not len(at):
                break
            found = self._look(descents.trials, parts[at])
            values, gradients = penalised(self._scaling, found, descents.trials, ridges[at])
            better = descents.tell(values, gradients)
            held[at[better]] = found.held[better]
            if better[0] and parts[0] < 0:
                traces = float(found.curvature[0]) / self._scaling.total
                self.curvature = traces / max(len(self._scaling.class_factors) - 1, 1)
        descents.finish()
        return descents.points, held, descents.converged

    def newton(self, layer: np.ndarray, ridge: float, part: int) -> np.ndarray:
        """The minimum next to a layer that has nearly converged."""
        ridges, parts = np.array([ridge]), np.array([part])
        best, value = layer, np.inf
        for _ in range(_NEWTON_STEPS):
            found = self._look(layer, parts)
            values, gradients = penalised(self._scaling, found, layer, ridges)
            if values[0] > value:
                break
            hessian = np.zeros((layer.size, layer.size))
            for x, _, weights, folds in self._samples():
                used = np.where(folds == part, 0.0, weights)
                hessian += block_hessian(self._scaling, x, used, layer[0])
            self.n_passes += 1
            step = newton_step(self._scaling, hessian, gradients[0], ridge)
            best, value, layer = layer, values[0], layer - step
            if abs(step @ gradients[0]) <= 1e-15 * abs(value):
                break
        return best

    def held_out(
        self, layers: np.ndarray | None, parts: list[int], most: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Outputs, codes and weights of evenly spaced samples that the parts' layers held out."""
        k = len(self._scaling.class_factors)
        outputs, kept, kept_weights = [np.zeros((0, k))], [np.zeros(0, dtype=int)], [np.zeros(0)]
        if layers is None:
            return outputs[0], kept[0], kept_weights[0]
        n_seen, stride = 0, -(-self._n_held // most)
        for x, codes, weights, folds in self._samples():
            rows = np.flatnonzero(np.isin(folds, parts) & (weights > 0))
            rows, n_seen = rows[-n_seen % stride :: stride], n_seen + len(rows)
            for layer, part in zip(layers, parts, strict=True):
                own = rows[folds[rows] == part]
                found = outputs_of(self._scaling, x[own], layer[None])[0]
                outputs.append(self._scaling.all_outputs(found))
                kept.append(codes[own])
                kept_weights.append(weights[own])
        self.n_passes += 1
        return np.concatenate(outputs), np.concatenate(kept), np.concatenate(kept_weights)

    def _look(self, layers: np.ndarray, parts: np.ndarray) -> Pass:
        found = Pass(self._scaling, layers)
        holding = bool((parts >= 0).any())
        for x, codes, weights, folds in self._samples():
            held = folds == parts[:, None] if holding else None
            found.add(x, codes, weights, held)
            self._advance(len(codes))
        self.n_passes += 1
        return found

    def _preconditioner(self, ridges: np.ndarray) -> Precondition | None:
        if self._gram is None:
            return None
        d, scaling = len(self._gram), self._scaling
        half = 0.5 if scaling.n_rows == 1 else 1.0
        free = 1.0 / (self._curvature * scaling.total) if scaling.fit_intercept else 0.0
        inverses = {ridge: self._inverse_near(half * float(ridge)) for ridge in set(ridges)}

        def times(at: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            found = np.empty_like(vectors)
            for ridge, inverse in inverses.items():
                which = np.flatnonzero(ridges[at] == ridge)
                rows = vectors[which].reshape(-1, d + 1)
                after = np.empty_like(rows)
                after[:, :-1] = rows[:, :-1].astype(inverse.dtype, copy=False) @ inverse
                after[:, -1] = free * rows[:, -1]
                found[which] = after.reshape(-1, vectors.shape[1])
            return found

        return times

    def _inverse_near(self, ridge: float) -> np.ndarray:
        """``(cG + μ)⁻¹`` of this ridge, or of one that is near enough."""
        for known, inverse in self._inverses.items():
            if ridge / _NEAR <= known <= ridge * _NEAR:
                return inverse
        assert self._gram is not None
        self._inverses[ridge] = _inverse(self._curvature * self._gram, ridge, self._dtype)
        return self._inverses[ridge]


def _inverse(matrix: np.ndarray, ridge: float, dtype: type) -> np.ndarray:
    """``(M + μ)⁻¹``, with as much more on the diagonal as rounding asks for."""
    raised: Any = matrix.astype(dtype)
    at = np.diag_indices(len(raised))
    eps, largest = float(np.finfo(dtype).eps), float(raised[at].max(initial=0.0))
    raised[at] += max(ridge, eps * largest, 1e-20)
    more = eps * max(largest, 1e-20)
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (raised,))
    while True:
        factor, failed = potrf(raised, lower=True)
        if not failed:
            lower = np.tril(potri(factor, lower=True, overwrite_c=True)[0])
            return lower + np.tril(lower, -1).T
        more *= 100.0
        raised[at] += more
