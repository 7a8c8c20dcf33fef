"""The power of a planned design: of an arm's verdict, and of main effects and interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.study.pilots import PlannedContrast, Spread
from rankwise.study.power import chance_to_help


@dataclass(frozen=True)
class Asked:
    """The comparisons that an arm's verdict rests on, with the spreads that may be theirs.

    Parameters
    ----------
    data_set : str
    comparisons : sequence of sequence of Spread
        Against the baseline and, where there is one, the control.
    condition : str, optional
        Its id.
    obstacle : str, optional
        Why it would get no verdict under any of the designs; its chance is 0 then.
    """

    data_set: str
    comparisons: Sequence[Sequence[Spread]]
    condition: str = ""
    obstacle: str | None = None


def chance(
    arm: Asked, effect: float, folds: int, seeds: int, level: float, more: Mapping[str, float]
) -> float:
    """The least chance that an arm's verdict is ``helps``, under a design.

    Parameters
    ----------
    arm : Asked
    effect : float
    folds, seeds : int
    level : float
        Of one comparison: its share of the family's.
    more : dict
        How many times the pilot's images (or sources) there are, by data set.
    """
    if arm.obstacle is not None:
        return 0.0
    missed = 0.0
    for spreads in arm.comparisons:
        chances = []
        for spread in spreads:
            deviation, noise = spread.under(folds, more[arm.data_set])
            chances.append(
                chance_to_help(
                    effect,
                    deviation,
                    folds * seeds,
                    1 / (folds - 1),
                    spread.rope,
                    alpha=level,
                    noise=noise,
                )
            )
        missed += 1 - min(chances)
    return max(0.0, 1 - missed)


def contrast_chances(
    contrasts: Sequence[PlannedContrast],
    effect: float,
    folds: int,
    seeds: int,
    level: float,
    more: Mapping[str, float],
) -> dict[str, float | None]:
    """The chance to find each main effect and interaction, were it as large as `effect`.

    Parameters
    ----------
    contrasts : sequence of PlannedContrast
    effect, folds, seeds, level, more
        As in `chance`.

    Returns
    -------
    dict
        By name; None for one of which the pilot shows no spread.
    """
    return {
        contrast.name: None
        if contrast.spread is None
        else chance(
            Asked(contrast.data_set, [[contrast.spread]]), effect, folds, seeds, level, more
        )
        for contrast in contrasts
    }
