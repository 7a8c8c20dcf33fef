"""The problem of fewer samples than features, on the samples' side: ``n × n`` instead of ``d × d``.

``ZᵀZ`` and ``ZZᵀ`` have the same eigenvalues above zero, and ``q = Zᵀu/√λ``; so one
decomposition of the smaller one serves every ridge, and nothing of ``d²`` is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular

from rankwise.linear.gram import EPS, GramStatistics
from rankwise.linear.scaling import Scaling, scaling_of_samples
from rankwise.linear.statistics import Design, eps_of


def wide_design(
    features: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray,
    classes: np.ndarray,
    *,
    class_weight: Mapping[Any, Any] | str | None = None,
    fit_intercept: bool = True,
    standardise: bool = True,
) -> Design:
    """What `rankwise.linear.statistics.design` gives, with the samples as `rows`.

    Parameters
    ----------
    features : array of shape (n, d)
    codes : int array of shape (n,)
        Positions of the labels in `classes`.
    sample_weight : array of shape (n,)
    classes : array of shape (K,)
    class_weight, fit_intercept, standardise
        As in `design`.
    """
    scaling = scaling_of_samples(
        features,
        codes,
        sample_weight,
        classes,
        class_weight=class_weight,
        fit_intercept=fit_intercept,
        standardise=standardise,
    )
    k, total = len(classes), scaling.total
    mean, variance, constant = scaling.mean, scaling.variance, scaling.constant
    weight = sample_weight * scaling.class_factors[codes]
    weights, scale = scaling.class_weights, scaling.scale
    priors = weights / total
    x = np.asarray(features, dtype=np.float64)
    root = np.sqrt(weight)[:, None]
    targets = np.eye(k)[codes]
    if fit_intercept:
        rows = root * (x - mean) / scale
        rows[:, constant] = 0.0
        others = np.where(np.eye(k, dtype=bool), 0.0, weights).sum(axis=1)
        squared = float(np.sum(weights * others) / total)
    else:
        rows = root * x / scale
        priors, squared = np.zeros(k), total
    spread = 1.0 + mean[~constant] ** 2 / variance[~constant]
    gram = GramStatistics(
        gram=rows @ rows.T,
        cross=root * (targets - priors),
        targets_squared=squared,
        n=float(sample_weight.sum()),
        eps=EPS,
        max_rank=scaling.n_samples - int(fit_intercept),
        feature_eps=eps_of(features) * np.sqrt(float(spread.mean()) if len(spread) else 0.0),
    )
    return Design(
        scaling.centre, scale, priors, total, scaling.class_factors, gram, fit_intercept, rows
    )


def samples_side(
    features: np.ndarray, scaling: Scaling
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n d"]]:
    """Features (n, n) that make the same penalised problem as (n, d), and the way back.

    With ``Z`` the scaled samples and ``ZZᵀ = LLᵀ``, a layer ``v`` on ``L`` has the outputs and the
    norm of ``ZᵀL⁻ᵀv`` on ``Z``.

    Returns
    -------
    features : array of shape (n, n)
        ``L``.
    back : array of shape (n, d)
        ``L⁻¹Z`` over the scale: coefficients for the features as they are, for each of ``v``.
    """
    rows = (np.asarray(features, dtype=np.float64) - scaling.centre) / scaling.scale
    if scaling.fit_intercept:
        rows[:, scaling.constant] = 0.0
    gram = rows @ rows.T
    # Directions that the samples lack, as after centring, get a share that changes nothing.
    gram[np.diag_indices(len(gram))] += 1e-11 * max(float(np.trace(gram)) / len(gram), 1e-300)
    factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    return factor, solve_triangular(factor, rows, lower=True, check_finite=False) / scaling.scale
