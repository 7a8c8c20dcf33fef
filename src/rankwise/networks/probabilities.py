"""Outputs and logits as probabilities."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

SMOOTHING = 0.01
"""``ε`` of `normalise`."""
_LARGEST = 1e100

OUTPUTS = ("sum-to-one", "sigmoid", "softmax")
"""How logits become probabilities: the package's `normalise`, the same with ``squash``, softmax."""

PROBABILITIES = ("sum-to-one", "sigmoid", "calibrated")
"""What a classifier of images may be asked for: `calibrated` is a softmax of outputs divided by a
temperature that left-out outputs have chosen."""


def probabilities(logits: Float[np.ndarray, "n K"], output: str) -> Float[np.ndarray, "n K"]:
    """Logits as probabilities; `output` is one of `OUTPUTS`.

    Raises
    ------
    ValueError
        If logits aren't finite.
    """
    logits = _checked(logits)
    if output == "softmax":
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)
    return normalise(logits, squash=output == "sigmoid")


def log_probabilities(
    outputs: Float[np.ndarray, "n K"], how: str, temperature: float | None = None
) -> Float[np.ndarray, "n K"]:
    """Logarithms of probabilities; `how` is one of `OUTPUTS` or `PROBABILITIES`."""
    if how not in ("softmax", "calibrated"):
        return np.log(normalise(outputs, squash=how == "sigmoid"))
    scaled = outputs / temperature if how == "calibrated" else outputs
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def calibrated_layer(
    coef: Float[np.ndarray, "m K"], how: str, temperature: float | None
) -> tuple[Float[np.ndarray, "m K"], str]:
    """An output layer and one of `OUTPUTS` that come to the probabilities asked for."""
    return (coef / temperature, "softmax") if how == "calibrated" else (coef, how)


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n K"], encoded: np.ndarray, n_bins: int = 15
) -> float:
    """Mean distance between the largest probability and how often it is right (Guo et al., 2017).

    Samples are sorted into `n_bins` equal intervals of their largest probability; a bin's distance
    counts by its samples.

    Parameters
    ----------
    probabilities : array of shape (n, K)
    encoded : int array of shape (n,)
        True classes.
    n_bins : int, default=15
        As in that paper.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == encoded
    bins = confidence_bins(confidence, n_bins)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / max(len(encoded), 1))


def confidence_bins(confidence: Float[np.ndarray, "n"], n_bins: int) -> np.ndarray:
    """Which of so many equal intervals each confidence is in; one holds its upper end."""
    return np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)


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

    Raises
    ------
    ValueError
        If outputs aren't finite.
    """
    outputs = _checked(outputs)
    outputs = outputs + (1.0 - outputs.sum(axis=1, keepdims=True)) / outputs.shape[1]
    if squash:
        positive = 1.0 / (1.0 + np.exp(-outputs))
    else:
        positive = 0.5 * (outputs + np.sqrt(outputs**2 + SMOOTHING**2))
    return positive / positive.sum(axis=1, keepdims=True)


def _checked(outputs: np.ndarray) -> np.ndarray:
    """Outputs of which probabilities can be made: their squares have to be numbers."""
    if not (np.abs(outputs) < _LARGEST).all():
        raise ValueError(
            "the outputs for these images are too large or no numbers: the weights of the model "
            "are damaged, or the images are far from those that it was trained on"
        )
    return outputs
