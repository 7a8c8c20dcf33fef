"""All that a study concludes: comparisons, of robustness too, main effects, summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankwise.study.compare import (
    Told,
    certainty_at,
    compare_conditions,
    copies_of,
    finished_seeds,
    obstacle,
    still,
)
from rankwise.study.contrasts import Contrast, contrasts_of
from rankwise.study.infer import holm, spent_level
from rankwise.study.outcomes import OUTCOMES, primary_outcome
from rankwise.study.protocols import protocol_of
from rankwise.study.spans import most_of, points, span
from rankwise.study.summary import summaries
from rankwise.study.verdict import FEWEST_SEEDS, Evidence, looked, verdict

Record = dict[str, Any]

FACTOR_VERDICTS = {
    ("main", "helps"): "raises it",
    ("main", "harms"): "lowers it",
    ("main", "copies help"): "raises it, as unchanged copies may",
    ("main", "copies harm"): "lowers it, as unchanged copies may",
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
        primary outcome and of degraded test images, the latter empty where the folds' models aren't
        tested on them), ``factors`` (see `compare_factors`, of both outcomes) and ``summaries``
        (`rankwise.study.summary.summaries`).
    """
    protocol = results["study"]["protocol"]
    main = primary_outcome(protocol)
    found: Record = {"factors": []}
    asked = [("comparisons", main)]
    if (results["study"].get("degraded") or protocol_of(protocol).degraded) == "all":
        asked.insert(0, ("robustness", "degraded"))
    else:
        found["robustness"] = []  # nobody has asked
    for name, outcome in asked:
        earlier = [_judged(then, folder, outcome, alpha, {}, ()) for then in earlier_looks(results)]
        beside = found.get("robustness", ())
        both = _judged(results, folder, outcome, alpha, _told(earlier), beside)
        compared, factors = (
            [
                _with_looks(item, [look[part][i] for look in (*earlier, both)], alpha)
                for i, item in enumerate(both[part])
            ]
            for part in (0, 1)
        )
        found[name], found["factors"] = compared, factors + found["factors"]
    found["summaries"] = summaries(results, found["comparisons"])
    return found


def earlier_looks(results: Record) -> list[Record]:
    """The results as they were at each look before the last: without the seeds that came later."""
    found = []
    for look, seeds in enumerate((results.get("looks") or [])[:-1], 1):
        cells = [cell for cell in results["cells"] if cell["seed"] in seeds]
        study = results["study"] | {"seeds": list(seeds)}
        found.append({**results, "study": study, "cells": cells, "look": look, "looks": None})
    return found


def _judged(
    results: Record,
    folder: Path | str,
    outcome: str,
    alpha: float,
    told: Told,
    beside: Sequence[Record],
) -> tuple[list[Record], list[Record]]:
    """Comparisons and contrasts of an outcome, one family, at one look."""
    contrasts = contrasts_of(results, folder, outcome)
    compared = compare_conditions(
        results,
        folder,
        outcome=outcome,
        alpha=alpha,
        beside=beside,
        further=[contrast.test.p_value for contrast in contrasts],
        established=told,
    )
    return compared, compare_factors(
        results, contrasts, compared, outcome=outcome, alpha=alpha, established=told
    )


def _told(earlier: Sequence[tuple[list[Record], list[Record]]]) -> Told:
    """The first look at which each test was below that look's level, and the sign then.

    Only a look that could have had a verdict tells: with all its cells, three seeds of five folds
    and no obstacle.
    """
    found: Told = {}
    for look, (compared, factors) in enumerate(earlier, 1):
        for item in (*compared, *factors):
            p = item["corrected_t"]["p_holm"]
            able = item["finished_seeds"] >= FEWEST_SEEDS and not item["obstacle"]
            if able and p is not None and p < item["level"] and not item["missing"]:
                found.setdefault(_key(item), (look, item["effect"]["mean"] > 0))
    return found


def _key(item: Record) -> tuple[str, ...]:
    if "baseline" in item:
        return item["condition"], item["baseline"]
    return item["data_set"], item["model"], *item["pair"], item["effect_of"], item["arm"]


def _with_looks(item: Record, looks: Sequence[Record], alpha: float) -> Record:
    """A comparison or contrast with what each look told of it, the last one its own.

    *No practical difference* needs more certainty at each look, and what a look has told of it
    isn't taken back without a word.
    """
    told = item["sentence"]
    plain = [look.get("plain_verdict", look["verdict"]) for look in looks]
    equal = [n for n, verdict in enumerate(plain, 1) if verdict == "no practical difference"]
    if equal and plain[-1] == "cannot tell" and item["bayes"]["equal"] is not None:
        told += (
            f" Look {equal[0]} told of no practical difference; for that, look {len(looks)} needs "
            f"{100 * certainty_at(item['level'], alpha):.1f}% certainty, and has "
            f"{100 * item['bayes']['equal']:.1f}%."
        )
    return item | {"sentence": told, "looks": [_at_look(look) for look in looks]}


def _at_look(item: Record) -> Record:
    """What a look had: for a table of looks."""
    p = item["corrected_t"]["p_holm"]
    plain = {key: item[key] for key in ("plain_verdict",) if key in item}
    return {
        "look": item["look"],
        "level": item["level"],
        "p_holm": p,
        "verdict": item["verdict"],
    } | plain


def compare_factors(
    results: Record,
    contrasts: Sequence[Contrast],
    comparisons: Sequence[Record],
    *,
    outcome: str,
    alpha: float = 0.05,
    established: Told | None = None,
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
    established : dict, optional
        What earlier looks have told.

    Returns
    -------
    list of dict
        ``data_set``, ``model``, ``pair``, ``effect_of`` ("main" or "interaction"), ``arm``,
        ``outcome``, ``pairs``, ``finished_seeds``, ``differences``, ``effect``,
        ``corrected_t``, ``images``, ``bayes``, ``obstacle``, ``verdict`` and ``sentence``, as
        comparisons have them.
    """
    study = results["study"]
    folds, seeds = int(study["folds"]), len(study["seeds"])
    look = int(results.get("look", 1))
    level = spent_level(alpha, look)
    certainty = certainty_at(level, alpha)
    known = [c["corrected_t"]["p_value"] for c in comparisons]
    family = [math.nan if p is None else float(p) for p in known]
    family += [contrast.test.p_value for contrast in contrasts]
    adjusted = holm(family)[len(known) :]
    found = []
    for contrast, p_adjusted in zip(contrasts, adjusted, strict=True):
        place = _place(contrast)
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
            finished_seeds=finished_seeds(contrast.keys),
            alpha=level,
            certainty=certainty,
            established=still(established, _key(place), contrast.test.mean),
            outcome=OUTCOMES[outcome],
            copies=_copies(results, contrast),
            obstacle=obstacle(results, list(contrast.weights), outcome),
        )
        found.append(_record(contrast, evidence, len(family), outcome, look))
    return found


def _place(contrast: Contrast) -> Record:
    return {
        "data_set": contrast.data_set,
        "model": contrast.model,
        "pair": list(contrast.pair),
        "effect_of": contrast.effect,
        "arm": contrast.arm,
    }


def _copies(results: Record, contrast: Contrast) -> str | None:
    """What the arms add whose effect it is: a main effect of copies has no control of its own."""
    if contrast.effect != "main":
        return None
    arms = (c for c in results["conditions"] if c["id"] in contrast.weights)
    return next((copies_of(c) for c in arms if c["arm"] == contrast.arm), None)


def _record(
    contrast: Contrast, evidence: Evidence, n_family: int, outcome: str, look: int
) -> Record:
    test = evidence.test
    plain = verdict(evidence)
    low, high = test.interval(1 - evidence.alpha / n_family)
    return {
        **_place(contrast),
        "outcome": outcome,
        "pairs": evidence.pairs,
        "missing": evidence.missing,
        "finished_seeds": evidence.finished_seeds,
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
        "look": look,
        "level": evidence.alpha,
        "established": evidence.established,
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
    between = span(test.low, test.high, most_of(contrast.effect))
    earlier = looked(evidence) if plain != "cannot tell" else ""
    return f"{what}: {size} (95% interval {between}): {told}.{earlier}{missing}"
