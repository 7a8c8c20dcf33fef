"""Bootstrapping (paper, section 5): guess the test labels, then train on the guesses.

This is *transductive*: the test images, not their labels, are trained on. Its accuracy is not
comparable to ordinary accuracy, and three numbers are always kept apart: the inductive accuracy
before, the agreement with the guesses after, and the transductive accuracy after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

MARGIN = 0.2
"""The paper's: a guess is clear if ``v¹ − v² > 0.2·v¹``."""


@dataclass(frozen=True)
class BootstrapReport:
    """What bootstrapping came to, the three kinds of accuracy apart.

    Attributes
    ----------
    inductive_accuracy : float or None
        Before: the test images had not been seen. None, as below, where no labels are known.
    agreement_with_guesses : float
        Fraction of test images whose label after the pass is the guess it was trained on. High
        whatever the guesses are worth.
    transductive_accuracy : float or None
        Against the true labels, where they are known. The test images were trained on.
    guess_accuracy : float or None
        Of the guesses, ambiguous ones drawn at random included.
    ambiguous_fraction : float
        Images whose guess was drawn at random.
    """

    inductive_accuracy: float | None
    agreement_with_guesses: float
    transductive_accuracy: float | None
    guess_accuracy: float | None
    ambiguous_fraction: float


@dataclass(frozen=True)
class TransductiveResult:
    """What `QuadraticClassifier.bootstrap_transductive` gives.

    Attributes
    ----------
    classifier : QuadraticClassifier
        Trained on the test images with guessed labels. Never report its accuracy as ordinary
        accuracy.
    labels : array of shape (n_samples,)
        Its labels for the test images.
    guesses : array of shape (n_samples,)
        The labels it was trained on.
    report : BootstrapReport
        Of the last round.
    rounds : tuple of BootstrapReport
        Of every round; each says "before" of the network that had not seen the images.
    """

    classifier: Any
    labels: np.ndarray
    guesses: np.ndarray
    report: BootstrapReport
    rounds: tuple[BootstrapReport, ...] = ()


def report_of(
    before: np.ndarray,
    after: np.ndarray,
    guesses: np.ndarray,
    ambiguous: Bool[np.ndarray, "n"],
    truth: Any = None,
) -> BootstrapReport:
    """Compare labels before and after the pass with the guesses and, where known, the truth.

    Parameters
    ----------
    before, after, guesses : arrays of shape (n,)
        Labels of the test images.
    ambiguous : bool array of shape (n,)
        Guesses that were drawn at random.
    truth : array of shape (n,), optional
    """

    def accuracy(labels: np.ndarray) -> float | None:
        return None if truth is None else float(np.mean(labels == np.asarray(truth)))

    return BootstrapReport(
        inductive_accuracy=accuracy(before),
        agreement_with_guesses=float(np.mean(after == guesses)),
        transductive_accuracy=accuracy(after),
        guess_accuracy=accuracy(guesses),
        ambiguous_fraction=float(np.mean(ambiguous)),
    )


def guess_labels(
    outputs: Float[np.ndarray, "n K"], rng: np.random.Generator, margin: float = MARGIN
) -> tuple[Int[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Guess labels from outputs.

    Outputs are normalised to sum 1; with ``v¹``, ``v²`` the two largest, the guess is the
    largest if ``v¹ − v² > margin·v¹``, else a label at random. Outputs whose sum isn't positive
    can't be normalised and count as ambiguous.

    Parameters
    ----------
    outputs : array of shape (n, K)
    rng : numpy.random.Generator
        Draws the labels of ambiguous images.
    margin : float

    Returns
    -------
    guesses : int array of shape (n,)
    ambiguous : bool array of shape (n,)
    """
    total = outputs.sum(axis=1, keepdims=True)
    positive = total > 0
    top = np.sort(outputs / np.where(positive, total, 1.0), axis=1)[:, -2:]
    ambiguous = ~(top[:, 1] - top[:, 0] > margin * top[:, 1]) | ~positive[:, 0]
    drawn = rng.integers(outputs.shape[1], size=len(outputs))
    return np.where(ambiguous, drawn, outputs.argmax(axis=1)), ambiguous
