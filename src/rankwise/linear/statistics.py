"""Streamed statistics of labelled features: all that a least-squares output layer needs.

For each class the sum of weights ``W_k`` and the mean ``m_k``, and the scatter within the classes,
``S = Σ_i w_i (x_i − m_k)(x_i − m_k)ᵀ``. Two such sets add up (Chan, Golub & LeVeque, 1983),

``S = S_a + S_b + Σ_k (W_ak·W_bk/W_k)·δ_k δ_kᵀ``, ``δ_k = m_bk − m_ak``,

and the same formula read backwards takes samples out again. Nothing is ever summed about the
origin, so features far from it lose no digits. Everything is float64, of a size that doesn't
depend on the number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from rankwise._arrays import own
from rankwise.linear.gram import EPS

CLEAR = 1e3
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
        part = b.weights / positive(weights)
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
        shift = (a.means - b.means) * (b.weights / positive(weights))[:, None]
        means = np.where(left[:, None], a.means + shift, 0.0)
        delta = np.where(left[:, None], b.means - means, 0.0)
        scatter = a.scatter - b.scatter
        _add_outer(scatter, delta, -weights * b.weights / positive(a.weights))
        # A class of one sample has no scatter, whatever rounding says.
        if a.by_class:
            scatter[counts <= 1] = 0.0
        elif (counts <= 1).all():
            scatter[:] = 0.0
        was, now = (np.einsum("gii->i", s) for s in (a.scatter, scatter))
        rounding = a.left_by_removal + b.left_by_removal + EPS * was
        if (now < -1e-6 * was - CLEAR * rounding).any():
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
    offsets = _class_means(shifted, codes, weight / positive(weights)[codes], k)
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


def positive(weights: np.ndarray) -> np.ndarray:
    """Safe to divide by: a weight of zero divides a zero."""
    return np.where(weights > 0, weights, 1.0)
