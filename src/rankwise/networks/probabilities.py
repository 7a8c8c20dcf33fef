"""Outputs and logits as probabilities."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_SMOOTHING = 0.01

OUTPUTS = ("sum-to-one", "sigmoid", "softmax")
"""How logits become probabilities: the package's `normalise`, the same with ``squash``, softmax."""


def probabilities(logits: Float[np.ndarray, "n K"], output: str) -> Float[np.ndarray, "n K"]:
    """Logits as probabilities; `output` is one of `OUTPUTS`."""
    if output == "softmax":
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)
    return normalise(logits, squash=output == "sigmoid")


def normalise(outputs: Float[np.ndarray, "n K"], *, squash: bool = False) -> np.ndarray:
    """Outputs as probabilities: positive, each row's sum 1 (paper, section 1).

    The paper makes the sum 1, which leaves what is negative negative. Here the sum, 1 but for the
    ridge, is made 1 by the same shift of all outputs, and each then passes ``½(v + √(v² + ε²))``
    with ``ε = 0.01``: close to ``max(v, 0)``, but increasing everywhere, so that the order of the
    outputs is kept.

    Parameters
    ----------
    outputs : array of shape (n, K)
    squash : bool
        Pass the outputs through a sigmoid instead (paper, section 8.1).

    Returns
    -------
    array of shape (n, K)
    """
    outputs = outputs + (1.0 - outputs.sum(axis=1, keepdims=True)) / outputs.shape[1]
    if squash:
        positive = 1.0 / (1.0 + np.exp(-outputs))
    else:
        positive = 0.5 * (outputs + np.sqrt(outputs**2 + _SMOOTHING**2))
    return positive / positive.sum(axis=1, keepdims=True)
