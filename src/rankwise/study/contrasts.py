"""Factorial designs: main effects of two arms and their interaction, fold by fold.

With scores ``y`` of no augmentation, of each arm, and of both at once, on the same fold and seed:

=============  =============================================
main effect A  ``½·[(y_A − y_none) + (y_A+B − y_B)]``
main effect B  ``½·[(y_B − y_none) + (y_A+B − y_A)]``
interaction    ``(y_A+B − y_B) − (y_A − y_none)``
=============  =============================================

Each is a difference like those of two arms, tested in the same way (`rankwise.study.infer`), and a
member of the same family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.study.crossed import both_name, four_conditions
from rankwise.study.infer import (
    ImageNoise,
    PairedTest,
    Posterior,
    corrected_t_test,
    correlated_posterior,
)
from rankwise.study.outcomes import Key, fold_scores, noise_of, region

Record = dict[str, Any]


@dataclass(frozen=True)
class Contrast:
    """A main effect or an interaction of two arms.

    Parameters
    ----------
    data_set, model : str
    pair : (str, str)
        Names of the arms.
    effect : str
        ``"main"`` or ``"interaction"``.
    arm : str
        Whose main effect; the name of both for the interaction.
    weights : dict
        From conditions to their weights.
    keys : list of (int, int)
        Seed and fold of each difference.
    differences : float array of shape (J,)
    rope : float
    noise : ImageNoise, optional
    test : PairedTest
    posterior : Posterior
    """

    data_set: str
    model: str
    pair: tuple[str, str]
    effect: str
    arm: str
    weights: Mapping[str, float]
    keys: list[Key]
    differences: NDArray[np.float64]
    rope: float
    noise: ImageNoise | None
    test: PairedTest
    posterior: Posterior


def contrasts_of(
    results: Record, folder: Path | str, outcome: str, rope: float | None = None
) -> list[Contrast]:
    """The planned contrasts of a study's factorial designs; finished or not.

    Parameters
    ----------
    results, folder, outcome, rope
        As in `rankwise.study.compare.compare_conditions`.

    Raises
    ------
    StudyError
        If a design doesn't compare like with like (`rankwise.study.crossed.four_conditions`).
    """
    pairs = [tuple(pair) for pair in results["study"].get("factorial") or ()]
    places = dict.fromkeys((c["data_set"], c["model"]) for c in results["conditions"])
    found = []
    for first, second in pairs:
        for data, model in places:
            ids = four_conditions(results["conditions"], (first, second), data, model)
            if ids is None:
                continue
            none, a, b, both = ids
            crossed = both_name((first, second))
            for effect, arm, weights in (
                ("main", first, {none: -0.5, a: 0.5, b: -0.5, both: 0.5}),
                ("main", second, {none: -0.5, a: -0.5, b: 0.5, both: 0.5}),
                ("interaction", crossed, {none: 1.0, a: -1.0, b: -1.0, both: 1.0}),
            ):
                found.append(
                    _contrast(
                        results, folder, outcome, rope, (data, model), (first, second), effect, arm,
                        weights,
                    )
                )  # fmt: skip
    return found


def _contrast(
    results: Record,
    folder: Path | str,
    outcome: str,
    rope: float | None,
    place: tuple[str, str],
    pair: tuple[str, str],
    effect: str,
    arm: str,
    weights: Mapping[str, float],
) -> Contrast:
    scores = {name: fold_scores(results, name, outcome) for name in weights}
    shared = sorted(set.intersection(*(set(known) for known in scores.values())))
    differences = np.array(
        [sum(w * scores[name][key] for name, w in weights.items()) for key in shared], float
    )
    ratio = 1 / (int(results["study"]["folds"]) - 1)
    noise = noise_of(results, weights, outcome, folder)
    baseline = list(scores[next(iter(weights))].values())
    half = region(results["study"], baseline) if rope is None else rope
    return Contrast(
        *place,
        pair=pair,
        effect=effect,
        arm=arm,
        weights=weights,
        keys=shared,
        differences=differences,
        rope=half,
        noise=noise,
        test=corrected_t_test(differences, ratio, noise=noise),
        posterior=correlated_posterior(differences, ratio, half, noise=noise),
    )
