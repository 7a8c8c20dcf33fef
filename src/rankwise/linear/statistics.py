"""Streamed statistics of labelled features: all that a least-squares output layer needs.

For each class the sum of weights ``W_k`` and the mean ``m_k``, and the scatter within the classes,
``S = Σ_i w_i (x_i − m_k)(x_i − m_k)ᵀ``. Two such sets add up (Chan, Golub & LeVeque, 1983),

``S = S_a + S_b + Σ_k (W_ak·W_bk/W_k)·δ_k δ_kᵀ``, ``δ_k = m_bk − m_ak``,

and the same formula read backwards takes samples out again. Nothing is ever summed about the
origin, so features far from it lose no digits. Everything is float64, of a size that doesn't
depend on the number of samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from rankwise._arrays import own
from rankwise.linear.gram import EPS, GramStatistics

_CLEAR = 1e3
"""A variance counts where it is so many times the rounding that taken-out samples left."""


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Statistics of samples seen so far; they add up and subtract.

    Attributes
    ----------
    classes : array of shape (K,)
        Distinct labels, sorted.
    counts : int64 array of shape (K,)
        Samples of each class with a weight above zero.
    weights : float64 array of shape (K,)
        Their weights' sum.
    means : float64 array of shape (K, d)
        Weighted means; zero where a class has no sample.
    scatter : float64 array of shape (1, d, d) or (K, d, d)
        Scatter about the classes' means: of all classes together, or of each.
    by_class : bool
        Which of the two.
    rounding : float64 array of shape (d,)
        Rounding of each feature's squares in all that is larger than what is left of them: samples
        that were taken out leave that of the larger sums behind. Default: zero.
    feature_eps : float
        Relative rounding of the features as they came, float32's or float64's.
    """

    classes: np.ndarray
    counts: Int[np.ndarray, "K"]
    weights: Float[np.ndarray, "K"]
    means: Float[np.ndarray, "K d"]
    scatter: Float[np.ndarray, "groups d d"]
    by_class: bool = False
    rounding: Float[np.ndarray, "d"] | None = None
    feature_eps: float = EPS

    def __post_init__(self) -> None:
        own(self, "classes", "counts", "weights", "means", "scatter", copy=False)

    @property
    def left_by_removal(self) -> Float[np.ndarray, "d"]:
        """`rounding`, or the zeros that it stands for."""
        return np.zeros(self.n_features) if self.rounding is None else self.rounding

    @property
    def n_samples(self) -> int:
        """Samples seen, less those taken out."""
        return int(self.counts.sum())

    @property
    def n_features(self) -> int:
        """Features of a sample, ``d``."""
        return self.means.shape[1]

    @classmethod
    def empty(cls, classes: Any, n_features: int, *, by_class: bool = False) -> ClassStatistics:
        """No samples yet, of classes that are known beforehand."""
        names = np.unique(np.asarray(classes))
        k = len(names)
        return cls(
            names,
            np.zeros(k, dtype=np.int64),
            np.zeros(k),
            np.zeros((k, n_features)),
            np.zeros((k if by_class else 1, n_features, n_features)),
            by_class,
        )

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        """Both sets of samples together. Classes may differ."""
        a, b = _aligned(self, other)
        weights = a.weights + b.weights
        part = b.weights / _positive(weights)
        delta = b.means - a.means
        means = a.means + part[:, None] * delta
        scatter = a.scatter + b.scatter
        _add_outer(scatter, delta, a.weights * part)
        return ClassStatistics(
            a.classes,
            a.counts + b.counts,
            weights,
            means,
            scatter,
            a.by_class,
            a.left_by_removal + b.left_by_removal,
            max(a.feature_eps, b.feature_eps),
        )

    def __sub__(self, other: ClassStatistics) -> ClassStatistics:
        """Without samples that were added before; equal, to rounding, to never having seen them.

        Raises
        ------
        ValueError
            If `other` can't be a part of these samples.
        """
        a, b = _aligned(self, other)
        if len(a.classes) > len(self.classes):
            unknown = np.setdiff1d(other.classes, self.classes)
            raise ValueError(f"no sample of class {unknown[0]} was seen, so none can be removed")
        counts = a.counts - b.counts
        if (counts < 0).any():
            k = int(np.argmax(counts < 0))
            raise ValueError(
                f"{b.counts[k]} samples of class {a.classes[k]} can't be removed: "
                f"{a.counts[k]} were seen"
            )
        left = counts > 0
        weights = np.where(left, a.weights - b.weights, 0.0)
        if (weights < 0).any() or (left & (weights == 0)).any():
            raise ValueError("the samples to remove weigh more than those that were seen")
        shift = (a.means - b.means) * (b.weights / _positive(weights))[:, None]
        means = np.where(left[:, None], a.means + shift, 0.0)
        delta = np.where(left[:, None], b.means - means, 0.0)
        scatter = a.scatter - b.scatter
        _add_outer(scatter, delta, -weights * b.weights / _positive(a.weights))
        # A class of one sample has no scatter, whatever rounding says.
        if a.by_class:
            scatter[counts <= 1] = 0.0
        elif (counts <= 1).all():
            scatter[:] = 0.0
        was, now = (np.einsum("gii->i", s) for s in (a.scatter, scatter))
        rounding = a.left_by_removal + b.left_by_removal + EPS * was
        if (now < -1e-6 * was - _CLEAR * rounding).any():
            raise ValueError(
                "these samples weren't among those seen: without them a feature would have a "
                "negative variance"
            )
        return ClassStatistics(
            a.classes,
            counts,
            weights,
            means,
            scatter,
            a.by_class,
            rounding,
            max(a.feature_eps, b.feature_eps),
        )


def block_statistics(
    features: Any,
    labels: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    by_class: bool = False,
) -> ClassStatistics:
    """Statistics of one block of samples.

    Parameters
    ----------
    features : array of shape (n, d)
        NumPy's, or a PyTorch tensor: then the products run on its device. They are done in
        float64 whatever the type.
    labels : array of shape (n,)
    sample_weight : array of shape (n,), optional
        Not negative. A sample of weight 2 counts as two equal samples do, one of weight 0 as none.
    by_class : bool
        Keep a scatter for each class, for class weights: ``K·d²`` numbers instead of ``d²``.
    """
    weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, float)
    classes, codes = np.unique(labels, return_inverse=True)
    x = as_float64(features)
    k, d = len(classes), x.shape[1]
    weights = np.bincount(codes, weight, minlength=k)
    counts = np.bincount(codes[weight > 0], minlength=k).astype(np.int64)
    # Means about a sample of the block, so that a large offset costs no digits.
    origin = x[:1]
    shifted = x - origin
    offsets = _class_means(shifted, codes, weight / _positive(weights)[codes], k)
    centred = shifted - offsets[like(codes, x)]
    centred = centred * like(np.sqrt(weight), x)[:, None]
    groups = [centred]
    if by_class:
        groups = [centred[like(np.flatnonzero(codes == j), x)] for j in range(k)]
    # An overflow is told, with the feature's number, where the statistics are used.
    with np.errstate(over="ignore", invalid="ignore"):
        scatter = np.stack([to_numpy(g.T @ g) for g in groups])
    means = np.where((weights > 0)[:, None], to_numpy(offsets + origin), 0.0)
    eps = eps_of(features)
    return ClassStatistics(
        classes, counts, weights, means.reshape(k, d), scatter, by_class, None, eps
    )


def _class_means(x: Any, codes: np.ndarray, shares: np.ndarray, k: int) -> Any:
    """``Σ_i s_i x_i`` of each class, of shape (k, d): a look at each sample, whatever ``k``."""
    if isinstance(x, np.ndarray):
        membership = sparse.csr_array((shares, (codes, np.arange(len(codes)))), (k, len(codes)))
        return membership @ x
    dense = np.zeros((k, len(codes)))
    dense[codes, np.arange(len(codes))] = shares
    return like(dense, x) @ x


@dataclass(frozen=True, eq=False)
class Design:
    """The least-squares problem that statistics pose: centred, scaled, weighted.

    Attributes
    ----------
    centre, scale : float64 arrays of shape (d,)
        Features are used as ``(x − centre)/scale``.
    priors : float64 array of shape (K,)
        Weighted mean of the one-hot targets, the outputs at `centre`; zero without intercept.
    total : float
        Sum of all weights, class weights included.
    class_factors : float64 array of shape (K,)
        Weight of a sample of each class.
    gram : GramStatistics
        Of those features and the one-hot targets less `priors`. Its `n` is the sum of the
        samples' own weights.
    fit_intercept : bool
    rows : float64 array of shape (n, d), optional
        The weighted, centred, scaled samples, where they are fewer than the features. Then the
        Gram matrix in `gram` is theirs, ``n × n``, and ``cross`` their weighted targets, (n, K).
    """

    centre: Float[np.ndarray, "d"]
    scale: Float[np.ndarray, "d"]
    priors: Float[np.ndarray, "K"]
    total: float
    class_factors: Float[np.ndarray, "K"]
    gram: GramStatistics
    fit_intercept: bool
    rows: Float[np.ndarray, "n d"] | None = None

    @property
    def free_leverage(self) -> float:
        """Leverage of the intercept, the same for a unit of every sample's weight."""
        return 1.0 / self.total if self.fit_intercept else 0.0


def design(
    statistics: ClassStatistics,
    *,
    class_weight: Mapping[Any, Any] | str | None = None,
    fit_intercept: bool = True,
    standardise: bool = True,
) -> Design:
    """Centre, scale and weigh, from the statistics alone.

    Parameters
    ----------
    statistics : ClassStatistics
    class_weight : mapping, "balanced" or None
        Weight of each class, 1 where it isn't named; ``"balanced"``: all classes weigh the same
        in all. Needs statistics by class.
    fit_intercept : bool
    standardise : bool
        Divide features by their weighted standard deviation. Features that don't vary are left
        out.

    Raises
    ------
    ValueError
        If there are no samples, or class weights meet statistics that aren't by class.
    """
    if statistics.n_samples == 0:
        raise ValueError("there are no samples left to fit; add some")
    factors = class_factors(statistics, class_weight)
    weights = factors * statistics.weights
    total = float(weights.sum())
    mean = weights @ statistics.means / total
    from_mean = statistics.means - mean
    within = statistics.scatter[0]
    if statistics.by_class:
        within = np.tensordot(factors, statistics.scatter, axes=1)
    with np.errstate(over="ignore", invalid="ignore"):
        scatter = within + from_mean.T @ (weights[:, None] * from_mean)
    variance = scatter.diagonal() / total
    n = statistics.n_samples
    constant = constant_features(mean, variance, n)
    removal = statistics.left_by_removal / total
    constant |= variance <= _CLEAR * removal
    scale = np.sqrt(np.where(constant, 1.0, variance)) if standardise else np.ones(len(mean))
    priors = weights / total
    if fit_intercept:
        centre, cross = mean, from_mean.T * weights
        cross[constant] = 0.0
        scatter[constant] = 0.0
        scatter[:, constant] = 0.0
        squared = squares_of_targets(weights)
    else:
        centre, cross = np.zeros(len(mean)), statistics.means.T * weights
        scatter += total * np.outer(mean, mean)
        priors = np.zeros_like(priors)
        squared = total
    gram = GramStatistics(
        gram=scatter / scale / scale[:, None],
        cross=cross / scale[:, None],
        targets_squared=squared,
        n=float(statistics.weights.sum()),
        eps=max(EPS, _mean(removal[~constant] / variance[~constant])),
        max_rank=n - int(fit_intercept),
        feature_eps=statistics.feature_eps * size_by_deviation(mean, variance, constant),
    )
    return Design(centre, scale, priors, total, factors, gram, fit_intercept)


def constant_features(
    mean: Float[np.ndarray, "d"], variance: Float[np.ndarray, "d"], n_samples: int
) -> Bool[np.ndarray, "d"]:
    """Features that don't vary: under this bound, scikit-learn's, a variance is rounding.

    Raises
    ------
    ValueError
        If a variance is no number.
    """
    if not np.isfinite(variance).all():
        worst = int(np.argmax(~np.isfinite(variance)))
        raise ValueError(f"feature {worst} is too large: its variance exceeds what a float64 holds")
    return variance <= n_samples * EPS * variance + (n_samples * mean * EPS) ** 2


def squares_of_targets(weights: Float[np.ndarray, "K"]) -> float:
    """``Σ w(1 − w/W)``, of one-hot targets less their means.

    The bracket is without a difference: one class may hold nearly all.
    """
    others = np.where(np.eye(len(weights), dtype=bool), 0.0, weights).sum(axis=1)
    return float(np.sum(weights * others) / weights.sum())


def size_by_deviation(
    mean: Float[np.ndarray, "d"], variance: Float[np.ndarray, "d"], constant: Bool[np.ndarray, "d"]
) -> float:
    """Root mean square size of features, in deviations: they were rounded at their size."""
    return sqrt(_mean(1.0 + mean[~constant] ** 2 / variance[~constant]))


def class_factors(
    statistics: ClassStatistics, class_weight: Mapping[Any, Any] | str | None
) -> np.ndarray:
    """Weight of a sample of each class, of shape (K,)."""
    k = len(statistics.classes)
    if class_weight is None:
        return np.ones(k)
    if isinstance(class_weight, Mapping):
        known = {str(c) for c in statistics.classes}
        unknown = [name for name in class_weight if str(name) not in known]
        if unknown:
            raise ValueError(
                f"class_weight names class {unknown[0]!r}, which the labels don't hold; classes: "
                f"{', '.join(sorted(known)[:10])}"
            )
        by_name = {str(name): float(value) for name, value in class_weight.items()}
        factors = np.array([by_name.get(str(c), 1.0) for c in statistics.classes])
        if not (np.isfinite(factors).all() and (factors >= 0).all() and (factors > 0).any()):
            raise ValueError("class weights must be finite numbers, none below 0, one above")
    elif class_weight == "balanced":
        present = statistics.weights > 0
        mean_weight = statistics.weights.sum() / max(1, int(present.sum()))
        factors = np.where(present, mean_weight / _positive(statistics.weights), 1.0)
    else:
        raise ValueError(
            f"class_weight must be None, 'balanced' or a dict of label and weight, got "
            f"{class_weight!r}"
        )
    if not statistics.by_class and not np.allclose(factors, factors[0]):
        raise ValueError("class weights need statistics by class, and these are of all classes")
    return factors


def eps_of(features: Any) -> float:
    """Relative rounding of features of NumPy or PyTorch; whole numbers have float64's."""
    dtype = str(getattr(features, "dtype", "float64")).removeprefix("torch.")
    return {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(dtype, EPS)


def as_float64(features: Any) -> Any:
    """A float64 array, or tensor on the device where it is."""
    if hasattr(features, "detach"):
        import torch

        return features.detach().to(torch.float64)
    return np.asarray(features, dtype=np.float64)


def like(array: np.ndarray, x: Any) -> Any:
    """`array` of the kind of `x`: NumPy's, or a tensor on its device."""
    if hasattr(x, "detach"):
        import torch

        return torch.as_tensor(array, device=x.device)
    return array


def to_numpy(x: Any) -> np.ndarray:
    """An array in main memory."""
    return x.cpu().numpy() if hasattr(x, "detach") else x


def _aligned(a: ClassStatistics, b: ClassStatistics) -> tuple[ClassStatistics, ClassStatistics]:
    """Both with the classes of both, and scatter of the kind that both can give."""
    if a.n_features != b.n_features:
        raise ValueError(
            f"statistics of {a.n_features} features and of {b.n_features} can't be combined"
        )
    if a.classes.dtype.kind != b.classes.dtype.kind and "U" in (
        a.classes.dtype.kind + b.classes.dtype.kind
    ):
        raise ValueError("statistics of text labels and of numbers can't be combined")
    classes = np.union1d(a.classes, b.classes)
    by_class = a.by_class and b.by_class
    return _spread(a, classes, by_class), _spread(b, classes, by_class)


def _spread(s: ClassStatistics, classes: np.ndarray, by_class: bool) -> ClassStatistics:
    """The same statistics over more classes, with pooled scatter unless `by_class`."""
    same = len(classes) == len(s.classes)
    if same and by_class == s.by_class:
        return s
    at = np.searchsorted(classes, s.classes)
    empty = ClassStatistics.empty(classes, s.n_features, by_class=by_class)
    wide = replace(empty, rounding=s.rounding, feature_eps=s.feature_eps)
    wide.counts[at], wide.weights[at], wide.means[at] = s.counts, s.weights, s.means
    if by_class:
        wide.scatter[at] = s.scatter
    else:
        wide.scatter[0] = s.scatter.sum(axis=0)
    return wide


def _add_outer(scatter: np.ndarray, delta: np.ndarray, factors: np.ndarray) -> None:
    """Add ``Σ_k f_k·δ_k δ_kᵀ``, or each to its class's own scatter."""
    moved = np.flatnonzero(factors)
    if len(scatter) == 1:
        scatter[0] += delta[moved].T @ (factors[moved, None] * delta[moved])
        return
    for k in moved:
        scatter[k] += factors[k] * np.outer(delta[k], delta[k])


def _mean(values: np.ndarray) -> float:
    """Of no values: zero."""
    return float(values.mean()) if len(values) else 0.0


def _positive(weights: np.ndarray) -> np.ndarray:
    """Safe to divide by: a weight of zero divides a zero."""
    return np.where(weights > 0, weights, 1.0)
