"""A verdict in words: what an arm does, against what, how surely, and what speaks against it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankwise.study.infer import PairedTest, Posterior
from rankwise.study.spans import points, span

VERDICTS = (
    "helps",
    "harms",
    "copies help",
    "copies harm",
    "no practical difference",
    "cannot tell",
)
"""``copies help`` and ``copies harm``: unchanged copies may do the same."""

MARKS = dict(zip(VERDICTS, "▲▼△▽≈?", strict=True))
"""A sign for each, where there is no room for words."""

_IMAGES = {
    True: " Many more images, with more seeds, would.",
    False: " Nor would more images: trainings differ by too much.",
    None: "",
}
"""What is said where no number of seeds alone would tell."""

CERTAINTY = 0.95
FEWEST_FOLDS, FEWEST_SEEDS = 5, 3
"""Of a study that may say anything of an arm: fewer folds agree by chance."""


@dataclass(frozen=True)
class Control:
    """The same arm against unchanged copies of the same images.

    Parameters
    ----------
    test : PairedTest
    verdict : str
        One of `VERDICTS`.
    """

    test: PairedTest
    verdict: str


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
        Seeds planned; seeds in all that would tell, None if no number would.
    folds, folds_to_tell : int, int or None
        Folds planned; folds in their place that would tell where no number of seeds would, None
        if none would or it isn't known.
    images_would_tell : bool, optional
        Whether many more images would, with more seeds; None where it isn't known.
    pairs, missing : int
        Pairs of folds compared; pairs that the study has planned but not finished.
    finished_seeds : int
        Seeds of which at least `FEWEST_FOLDS` folds are compared.
    alpha : float
        Level of the family of comparisons, at this look.
    certainty : float
        Probability that ``no practical difference`` needs, at this look.
    established : int, optional
        An earlier look at which the test after Holm was below that look's level, in the same
        direction: what a look has found stands.
    outcome : str
        What is compared, in words.
    copies : str, optional
        For an arm of copies, what they are: ``"changed"`` or ``"unchanged"``.
    control : Control, optional
        For an arm of changed copies: what tells its effect from one of copies.
    obstacle : str, optional
        Why nothing can be concluded whatever the numbers say, such as too short a training.
    contradictions : tuple of str
        What else was measured and points the other way, in words.
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
    finished_seeds: int
    images_would_tell: bool | None = None
    missing: int = 0
    alpha: float = 0.05
    certainty: float = CERTAINTY
    established: int | None = None
    outcome: str = "test accuracy"
    copies: str | None = None
    control: Control | None = None
    obstacle: str | None = None
    contradictions: tuple[str, ...] = ()


def verdict(evidence: Evidence) -> str:
    """One of `VERDICTS`.

    ``helps`` and ``harms`` need both the corrected t-test after Holm (below α, now or at an earlier
    look) and 95% of the posterior beyond the region of practical equivalence, both thresholds those
    of Benavoli, Corani, Demšar and Zaffalon (JMLR 2017); and, where the arm is one of copies, the
    same against unchanged copies: else ``copies help`` or ``copies harm``. ``no practical
    difference`` needs 95% of the posterior within the region, more at later looks; it is a
    posterior's statement, so Holm's procedure has no part in it. All three need three seeds of five
    finished folds. All else is ``cannot tell``, and everything is where an obstacle is named.
    """
    if evidence.obstacle is not None or evidence.finished_seeds < FEWEST_SEEDS:
        return "cannot tell"
    found = _by_numbers(evidence)
    if found not in ("helps", "harms") or evidence.copies is None:
        return found
    if evidence.control is None or evidence.control.verdict != found:
        return {"helps": "copies help", "harms": "copies harm"}[found]
    return found


def _by_numbers(evidence: Evidence) -> str:
    mass = evidence.posterior
    if math.isnan(mass.equal):
        return "cannot tell"
    if mass.equal >= evidence.certainty:
        return "no practical difference"
    if evidence.p_adjusted < evidence.alpha or evidence.established is not None:
        if mass.help >= CERTAINTY:
            return "helps"
        if mass.harm >= CERTAINTY:
            return "harms"
    return "cannot tell"


def sentence(evidence: Evidence, arm: str, baseline: str) -> str:
    """The verdict and its reason in words, for a reader who knows no statistics.

    What contradicts it stands in the same sentence.

    Parameters
    ----------
    arm, baseline : str
        Names of what is compared, such as "low-rank" and "none".
    """
    test = evidence.test
    if evidence.pairs == 0:
        return f"No fold of {arm} and {baseline} is finished yet: nothing can be said."
    if evidence.obstacle is not None:
        return f"Cannot tell whether {arm} matters: {evidence.obstacle}.{_missing(evidence)}"
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
        return text + _missing(evidence)
    return _told(evidence, arm, baseline) + _missing(evidence)


def _told(evidence: Evidence, arm: str, baseline: str) -> str:
    found, test = verdict(evidence), evidence.test
    size = (
        f"{_points(test.mean)} of {evidence.outcome} against {baseline} "
        f"(95% interval {_interval(test)})"
    )
    against = "".join(f"; but {text}" for text in evidence.contradictions)
    if found in ("helps", "harms"):
        beyond = ""
        if evidence.control is not None:
            beyond = f", and {_points(evidence.control.test.mean)} against unchanged copies"
        return f"{arm} {found}: {size}{beyond}{against}.{looked(evidence)}"
    if found in ("copies help", "copies harm"):
        if evidence.copies == "unchanged":
            return f"{found.capitalize()}: {size}{against}.{looked(evidence)}"
        control = evidence.control
        told = "which this study doesn't have"
        if control is not None:
            told = f"{_points(control.test.mean)} against them ({_interval(control.test)})"
        return (
            f"{found.capitalize()}, but nothing shows that {arm} does more than unchanged copies, "
            f"{told}: {size}{against}.{looked(evidence)}"
        )
    if found == "no practical difference":
        return (
            f"{arm} makes no practical difference: {size}; {_share(evidence.posterior.equal)} "
            f"certain within ±{_bare(evidence.rope)} points{against}."
        )
    return f"Cannot tell whether {arm} matters: {size}{against}.{_why(evidence)}"


def looked(evidence: Evidence) -> str:
    """That an earlier look has told, where this one's smaller level wouldn't."""
    if evidence.established is None or evidence.p_adjusted < evidence.alpha:
        return ""
    return f" The test told so at look {evidence.established}, at its level, and that stands."


def _missing(evidence: Evidence) -> str:
    if not evidence.missing:
        return ""
    pairs = "pair" if evidence.missing == 1 else "pairs"
    return f" Preliminary: {evidence.missing} {pairs} of folds missing."


def _why(evidence: Evidence) -> str:
    mass, text = evidence.posterior, ""
    numbers = _by_numbers(evidence)
    if numbers != "cannot tell":
        said = {"helps": "it helps", "harms": "it harms"}.get(numbers, "it makes no difference")
        return (
            f" The numbers say that {said}, but {_count(evidence.pairs, 'pair')} of folds, "
            f"{_finished(evidence.finished_seeds)}, can agree by chance: a verdict needs "
            f"{FEWEST_FOLDS} folds and {FEWEST_SEEDS} seeds."
        )
    if evidence.p_adjusted < evidence.alpha and max(mass.help, mass.harm) < CERTAINTY:
        direction = "better" if evidence.test.mean > 0 else "worse"
        text = (
            f" It is {direction} beyond chance, but perhaps by less than "
            f"{_bare(evidence.rope)} points."
        )
    if evidence.folds < FEWEST_FOLDS:
        return text + (
            f" {_count(evidence.folds, 'fold')} are too few for a verdict, whatever the number of "
            f"seeds: it needs a study of {FEWEST_FOLDS} folds and {FEWEST_SEEDS} seeds."
        )
    if evidence.seeds_to_tell is None:
        text += (
            " No number of further seeds would tell at this mean and spread: folds share their "
            "training images."
        )
        if evidence.folds_to_tell is None:
            return text + _IMAGES[evidence.images_would_tell]
        return text + (
            f" About {evidence.folds_to_tell} folds instead of {evidence.folds} would, if the mean "
            "stays and the spread grows only by what smaller validation parts add."
            f"{_IMAGES[evidence.images_would_tell]}"
        )
    more = max(1, evidence.seeds_to_tell - evidence.seeds)
    return text + (
        f" About {more} more seed{'s' if more > 1 else ''} (all folds repeated) would tell in four "
        "of five such studies."
    )


def _points(fraction: float) -> str:
    return f"{points(fraction)} points"


def _interval(test: PairedTest) -> str:
    return "no interval" if math.isnan(test.low) else span(test.low, test.high)


def _bare(fraction: float) -> str:
    return f"{100 * fraction:.3g}"


def _finished(seeds: int) -> str:
    if seeds == 0:
        return f"no seed with {FEWEST_FOLDS} of them"
    return f"{_count(seeds, 'seed')} with {FEWEST_FOLDS} of them"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _share(probability: float) -> str:
    return "over 99.9%" if probability > 0.999 else f"{100 * probability:.1f}%"
