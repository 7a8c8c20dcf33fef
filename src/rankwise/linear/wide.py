"""The problem of fewer samples than features, on the samples' side: ``n × n`` instead of ``d × d``.

``ZᵀZ`` and ``ZZᵀ`` have the same eigenvalues above zero, and ``q = Zᵀu/√λ``; so one
decomposition of the smaller one serves every ridge, and nothing of ``d²`` is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular

from rankwise.linear.design import Design, size_by_deviation, squares_of_targets
from rankwise.linear.gram import EPS, GramStatistics
from rankwise.linear.scaling import Scaling, scaling_of_samples
from rankwise.linear.statistics import eps_of


def wide_design(
    features: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray,
    classes: np.ndarray,
    **choices: Any,
) -> Design:
    """What `rankwise.linear.design.design` gives, with the samples as `rows`.

    Parameters
    ----------
    features, codes, sample_weight, classes, **choices
        As in `rankwise.linear.scaling.scaling_of_samples`.
    """
    scaling = scaling_of_samples(features, codes, sample_weight, classes, **choices)
    weights, total = scaling.class_weights, scaling.total
    weight = sample_weight * scaling.class_factors[codes]
    if scaling.fit_intercept:
        priors, squared = weights / total, squares_of_targets(weights)
    else:
        priors, squared = np.zeros(len(classes)), total
    rows = scaling.rows(np.asarray(features, dtype=np.float64), weight)
    gram = GramStatistics(
        gram=rows @ rows.T,
        cross=np.sqrt(weight)[:, None] * (np.eye(len(classes))[codes] - priors),
        targets_squared=squared,
        n=float(sample_weight.sum()),
        eps=EPS,
        max_rank=scaling.n_samples - int(scaling.fit_intercept),
        feature_eps=eps_of(features)
        * size_by_deviation(scaling.mean, scaling.variance, scaling.constant),
    )
    return Design(
        scaling.centre,
        scaling.scale,
        priors,
        total,
        scaling.class_factors,
        gram,
        scaling.fit_intercept,
        rows,
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
    rows = scaling.rows(np.asarray(features, dtype=np.float64))
    gram = rows @ rows.T
    # Directions that the samples lack, as after centring, get a share that changes nothing.
    gram[np.diag_indices(len(gram))] += 1e-11 * max(float(np.trace(gram)) / len(gram), 1e-300)
    factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    return factor, solve_triangular(factor, rows, lower=True, check_finite=False) / scaling.scale
