"""Simulated studies image by image: a score that is measured on the images that chose its epoch.

Two arms of the same true accuracy in every epoch. The decisions of one of them flip more from epoch
to epoch, so its validation accuracy wobbles more, and the best of its epochs looks better without
being it. `rankwise.study.outcomes` says which scores there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.study.infer import ImageNoise, image_noise
from rankwise.study.simulate import Scores

# Shares of the variance of an image's score that all models have in common, that an arm has in all
# its folds, and that is left for a model's own part and what flips between its epochs.
_COMMON, _OF_ARM = 0.6, 0.1


@dataclass(frozen=True)
class SimulatedStudies:
    """Fold scores of two equal arms by one outcome, and the noise of each study's images.

    Parameters
    ----------
    alternative, baseline : ndarray, (n_studies, folds · seeds)
    noises : list of ImageNoise, (n_studies,)
    """

    alternative: Scores
    baseline: Scores
    noises: list[ImageNoise]


def simulated_images(
    n_studies: int,
    *,
    folds: int = 5,
    seeds: int = 3,
    epochs: int = 10,
    flips: tuple[float, float] = (0.2, 0.02),
    accuracy: float = 0.95,
    n_images: int = 400,
    seed: int = 42,
) -> dict[str, SimulatedStudies]:
    """Scores of two arms of the same accuracy, as a study would measure them.

    Image *i* is labelled right by arm *a* in fold *j* and epoch *t* where

    ``c + √0.6·u_i + √0.1·k_ai + √(0.3 − f_a)·v_aji + √f_a·x_ajti > 0``,

    all letters but ``c`` and ``f`` standard normal: the share of images that are labelled right is
    ``Φ(c)`` in every epoch of every model. The epoch of highest validation accuracy is chosen.

    Parameters
    ----------
    n_studies, folds, seeds : int
        Seeds share the folds' images.
    epochs : int
    flips : tuple of float
        ``f`` of the alternative and of the baseline, from 0 to 0.3.
    accuracy : float
        ``Φ(c)``.
    n_images : int
        Of the test part, and of each fold's validation part.
    seed : int

    Returns
    -------
    dict
        `SimulatedStudies` by outcome, ``"validation"`` and ``"test"``.

    Raises
    ------
    ValueError
        If a share can't be.
    """
    from scipy.stats import norm

    rest = 1 - _COMMON - _OF_ARM
    if not all(0 <= flip <= rest + 1e-12 for flip in flips):
        raise ValueError(f"flips must lie between 0 and {rest:g}, got {flips}")
    rng = np.random.default_rng(seed)
    bound = float(norm.ppf(accuracy))
    scores = {name: np.empty((2, n_studies, folds * seeds)) for name in ("validation", "test")}
    noises: dict[str, list[ImageNoise]] = {"validation": [], "test": []}
    for study in range(n_studies):
        # Parts 0 to folds − 1 validate, the last is the test part.
        common = bound + math.sqrt(_COMMON) * rng.standard_normal((folds + 1, n_images))
        right = np.empty((2, 2, seeds, folds, n_images), bool)
        for arm, flip in enumerate(flips):
            known = common + math.sqrt(_OF_ARM) * rng.standard_normal(common.shape)
            right[arm] = _chosen(rng, known, folds, seeds, epochs, flip, rest)
        for i, name in enumerate(("validation", "test")):
            scores[name][:, study] = right[:, i].mean(axis=-1).reshape(2, -1)
            difference = (right[0, i].astype(float) - right[1, i]).mean(axis=0)
            shared = name == "test"
            of_image = difference.mean(axis=0) if shared else difference.ravel()
            noises[name].append(image_noise(of_image, shared=shared))
    return {
        name: SimulatedStudies(scores[name][0], scores[name][1], noises[name]) for name in scores
    }


def _chosen(
    rng: np.random.Generator,
    known: NDArray[np.float64],
    folds: int,
    seeds: int,
    epochs: int,
    flip: float,
    rest: float,
) -> NDArray[np.bool_]:
    """Right or wrong on validation and test images, in the epoch of highest validation accuracy."""
    found = np.empty((2, seeds, folds, known.shape[1]), bool)
    own, turn = math.sqrt(max(0.0, rest - flip)), math.sqrt(flip)
    for s in range(seeds):
        model = own * rng.standard_normal((2, folds, known.shape[1]))
        turns = turn * rng.standard_normal((folds, epochs, known.shape[1]))
        right = (known[:folds] + model[0])[:, None] + turns > 0
        best = right.sum(axis=-1).argmax(axis=1)
        found[0, s] = right[np.arange(folds), best]
        # The test images had no part in the choice: one epoch of theirs is like another.
        found[1, s] = known[-1] + model[1] + turn * rng.standard_normal(model[1].shape) > 0
    return found
