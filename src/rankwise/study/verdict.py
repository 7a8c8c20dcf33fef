"""A verdict in words: helps, harms, no practical difference, or cannot tell yet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankwise.study.infer import PairedTest, Posterior

VERDICTS = ("helps", "harms", "no practical difference", "cannot tell")
CERTAINTY = 0.95


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on.

    Parameters
    ----------
    test : PairedTest
        The corrected t-test.
    p_adjusted : float
        Its p after Holm; nan where it couldn't be tested.
    posterior : Posterior
        Of the Bayesian correlated t-test.
    rope : float
        Half width of the region of practical equivalence.
    seeds, seeds_to_tell : int, int or None
        Seeds there are; seeds in all that would tell, None if no number would.
    folds, folds_to_tell : int, int or None
        Folds there are; folds in their place that would tell where no number of seeds would, None
        if none would or it isn't known.
    pairs, missing : int
        Pairs of folds compared; pairs that the study has planned but not finished.
    alpha : float
        Level of the family of comparisons.
    """

    test: PairedTest
    p_adjusted: float
    posterior: Posterior
    rope: float
    seeds: int
    seeds_to_tell: int | None
    folds: int
    folds_to_tell: int | None
    pairs: int
    missing: int = 0
    alpha: float = 0.05


def verdict(evidence: Evidence) -> str:
    """One of `VERDICTS`.

    ``helps`` and ``harms`` need both the corrected t-test after Holm (below α) and 95% of the
    posterior beyond the region of practical equivalence; ``no practical difference`` needs 95% of
    the posterior within it. All else is ``cannot tell``. Both thresholds are those of Benavoli,
    Corani, Demšar and Zaffalon (JMLR 2017).
    """
    mass = evidence.posterior
    if math.isnan(mass.equal):
        return "cannot tell"
    if mass.equal >= CERTAINTY:
        return "no practical difference"
    if evidence.p_adjusted < evidence.alpha:
        if mass.help >= CERTAINTY:
            return "helps"
        if mass.harm >= CERTAINTY:
            return "harms"
    return "cannot tell"


def sentence(evidence: Evidence, arm: str, baseline: str) -> str:
    """The verdict and its reason in words, for a reader who knows no statistics.

    Parameters
    ----------
    arm, baseline : str
        Names of what is compared, such as "low-rank" and "none".
    """
    found = verdict(evidence)
    test = evidence.test
    if evidence.pairs == 0:
        return f"No fold of {arm} and {baseline} is finished yet: nothing can be said."
    if evidence.pairs == 1:
        return (
            f"One pair of folds alone ({_points(test.mean)} for {arm} against {baseline}) shows no "
            "spread: at least two are needed."
        )
    if math.isnan(test.p_value):
        same = (
            f"scored the same as {baseline}"
            if test.mean == 0
            else f"differ from {baseline} by the same {_points(test.mean)}"
        )
        text = (
            f"Cannot tell whether {arm} matters: all {evidence.pairs} pairs of folds {same}, which "
            "leaves no spread to judge by. More folds, seeds or images would show one."
        )
    else:
        size = (
            f"{_points(test.mean)} of validation accuracy against {baseline} "
            f"(95% interval {points(test.low)} to {_points(test.high)})"
        )
        text = {
            "helps": f"{arm} helps: {size}.",
            "harms": f"{arm} harms: {size}.",
            "no practical difference": (
                f"{arm} makes no practical difference: {size}; "
                f"{_share(evidence.posterior.equal)} certain within "
                f"±{_bare(evidence.rope)} points."
            ),
            "cannot tell": f"Cannot tell whether {arm} matters: {size}.{_why(evidence)}",
        }[found]
    if evidence.missing:
        pairs = "pair" if evidence.missing == 1 else "pairs"
        text += f" Preliminary: {evidence.missing} {pairs} of folds missing."
    return text


def _why(evidence: Evidence) -> str:
    mass, text = evidence.posterior, ""
    if evidence.p_adjusted < evidence.alpha and max(mass.help, mass.harm) < CERTAINTY:
        direction = "better" if evidence.test.mean > 0 else "worse"
        text = (
            f" It is {direction} beyond chance, but perhaps by less than "
            f"{_bare(evidence.rope)} points."
        )
    if evidence.seeds_to_tell is None:
        text += (
            " No number of further seeds would tell at this mean and spread: folds share their "
            "training images."
        )
        if evidence.folds_to_tell is None:
            return text + " More images would."
        return text + (
            f" About {evidence.folds_to_tell} folds instead of {evidence.folds} would, if the mean "
            "stays and the spread grows only by what smaller validation parts add. More images "
            "would as well."
        )
    more = max(1, evidence.seeds_to_tell - evidence.seeds)
    return text + (
        f" About {more} more seed{'s' if more > 1 else ''} (all folds repeated) would tell, if "
        "mean and spread stay as they are."
    )


def points(fraction: float) -> str:
    """A difference of fractions in points of per cent, with its sign; zero has a plus."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}".replace("-", "−")


def _points(fraction: float) -> str:
    return f"{points(fraction)} points"


def _bare(fraction: float) -> str:
    return f"{100 * fraction:.3g}"


def _share(probability: float) -> str:
    return "over 99.9%" if probability > 0.999 else f"{100 * probability:.1f}%"
