"""All that a study concludes: comparisons, of robustness too, main effects, summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankwise.study.compare import compare_conditions, obstacle
from rankwise.study.contrasts import Contrast, contrasts_of
from rankwise.study.infer import holm, spent_level
from rankwise.study.outcomes import OUTCOMES, primary_outcome
from rankwise.study.summary import summaries
from rankwise.study.verdict import Evidence, points, verdict

Record = dict[str, Any]

FACTOR_VERDICTS = {
    ("main", "helps"): "raises it",
    ("main", "harms"): "lowers it",
    ("interaction", "helps"): "more together than apart",
    ("interaction", "harms"): "less together than apart",
}
"""What a contrast's verdict is called; the others keep their names."""


def conclusions(results: Record, folder: Path | str, *, alpha: float = 0.05) -> Record:
    """What the finished cells of a study allow to be said.

    Parameters
    ----------
    results : dict
        As in ``results.json``. Not modified.
    folder : path
        Where the cells' ``predictions`` are.
    alpha : float
        Level of each outcome's family: comparisons, main effects and interactions together.

    Returns
    -------
    dict
        ``comparisons`` and ``robustness`` (`rankwise.study.compare.compare_conditions`, of the
        primary outcome and of degraded test images), ``factors`` (see `compare_factors`, of both
        outcomes) and ``summaries`` (`rankwise.study.summary.summaries`).
    """
    main = primary_outcome(results["study"]["protocol"])
    found: Record = {"factors": []}
    for name, outcome in (("robustness", "degraded"), ("comparisons", main)):
        contrasts = contrasts_of(results, folder, outcome)
        found[name] = compare_conditions(
            results,
            folder,
            outcome=outcome,
            alpha=alpha,
            beside=found.get("robustness", ()),
            further=[contrast.test.p_value for contrast in contrasts],
        )
        factors = compare_factors(results, contrasts, found[name], outcome=outcome, alpha=alpha)
        found["factors"] = factors + found["factors"]
    found["summaries"] = summaries(results, found["comparisons"])
    return found


def compare_factors(
    results: Record,
    contrasts: Sequence[Contrast],
    comparisons: Sequence[Record],
    *,
    outcome: str,
    alpha: float = 0.05,
) -> list[Record]:
    """Main effects and interactions as records, judged in one family with the comparisons.

    Parameters
    ----------
    results : dict
    contrasts : sequence of Contrast
    comparisons : sequence of dict
        The others of the family.
    outcome : str
    alpha : float

    Returns
    -------
    list of dict
        ``data_set``, ``model``, ``pair``, ``effect_of`` ("main" or "interaction"), ``arm``,
        ``outcome``, ``pairs``, ``differences``, ``effect``, ``corrected_t``, ``images``, ``bayes``,
        ``obstacle``, ``verdict`` and ``sentence``, as comparisons have them.
    """
    study = results["study"]
    folds, seeds = int(study["folds"]), len(study["seeds"])
    level = spent_level(alpha, int(results.get("look", 1)))
    known = [c["corrected_t"]["p_value"] for c in comparisons]
    family = [math.nan if p is None else float(p) for p in known]
    family += [contrast.test.p_value for contrast in contrasts]
    adjusted = holm(family)[len(known) :]
    found = []
    for contrast, p_adjusted in zip(contrasts, adjusted, strict=True):
        evidence = Evidence(
            test=contrast.test,
            p_adjusted=p_adjusted,
            posterior=contrast.posterior,
            rope=contrast.rope,
            seeds=seeds,
            seeds_to_tell=None,
            folds=folds,
            folds_to_tell=None,
            pairs=len(contrast.differences),
            missing=max(0, folds * seeds - len(contrast.differences)),
            alpha=level,
            outcome=OUTCOMES[outcome],
            obstacle=obstacle(results, list(contrast.weights), outcome),
        )
        found.append(_record(contrast, evidence, len(family), outcome))
    return found


def _record(contrast: Contrast, evidence: Evidence, n_family: int, outcome: str) -> Record:
    test = evidence.test
    plain = verdict(evidence)
    low, high = test.interval(1 - evidence.alpha / n_family)
    return {
        "data_set": contrast.data_set,
        "model": contrast.model,
        "pair": list(contrast.pair),
        "effect_of": contrast.effect,
        "arm": contrast.arm,
        "outcome": outcome,
        "pairs": evidence.pairs,
        "missing": evidence.missing,
        "differences": [float(value) for value in contrast.differences],
        "effect": {
            "mean": test.mean,
            "low": test.low,
            "high": test.high,
            "deviation": test.deviation,
            "simultaneous_low": low,
            "simultaneous_high": high,
        },
        "corrected_t": {
            "statistic": test.statistic,
            "degrees_of_freedom": test.degrees_of_freedom,
            "standard_error": test.standard_error,
            "p_value": test.p_value,
            "p_holm": evidence.p_adjusted,
        },
        "images": None if contrast.noise is None else asdict(contrast.noise),
        "bayes": {"rope": evidence.rope} | asdict(evidence.posterior),
        "obstacle": evidence.obstacle,
        "level": evidence.alpha,
        "verdict": FACTOR_VERDICTS.get((contrast.effect, plain), plain),
        "plain_verdict": plain,
        "sentence": _sentence(contrast, evidence, plain),
    }


def _sentence(contrast: Contrast, evidence: Evidence, plain: str) -> str:
    """The contrast in words."""
    test = evidence.test
    first, second = contrast.pair
    if contrast.effect == "main":
        other = second if contrast.arm == first else first
        what = f"Main effect of {contrast.arm}, with and without {other}, on {evidence.outcome}"
    else:
        what = f"Interaction of {first} and {second} on {evidence.outcome}"
    if evidence.pairs == 0:
        return f"{what}: no fold of all four arms is finished yet."
    if evidence.obstacle is not None:
        return f"{what}: cannot tell, {evidence.obstacle}."
    size = f"{points(test.mean)} points"
    if math.isnan(test.low):
        return f"{what}: {size}, with no spread to judge by."
    told = FACTOR_VERDICTS.get((contrast.effect, plain), plain)
    missing = f" Preliminary: {evidence.missing} folds missing." if evidence.missing else ""
    return (
        f"{what}: {size} (95% interval {points(test.low)} to {points(test.high)}): {told}.{missing}"
    )
