"""Every arm of a study against its baseline, by the paper's rule and by the sound ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.study.convergence import (
    any_learned,
    late_share,
    least_patience,
    near_chance,
    unfinished,
)
from rankwise.study.infer import (
    ImageNoise,
    PairedTest,
    Posterior,
    corrected_t_test,
    correlated_posterior,
    holm,
    paper_interval,
    paper_rule,
    spent_level,
)
from rankwise.study.mcnemar import mcnemar_of
from rankwise.study.outcomes import (
    OUTCOMES,
    Key,
    fold_cells,
    fold_scores,
    noise_between,
    primary_outcome,
    region,
    retrained,
)
from rankwise.study.power import (
    MOST_FOLDS,
    Pilot,
    folds_to_tell,
    images_would_tell,
    repeats_to_tell,
)
from rankwise.study.spans import points, span
from rankwise.study.verdict import (
    CERTAINTY,
    FEWEST_FOLDS,
    FEWEST_SEEDS,
    Control,
    Evidence,
    sentence,
    verdict,
)

_Record = dict[str, Any]

Told = dict[tuple[str, ...], tuple[int, bool]]
"""From what is compared to the look that has told, and whether the effect was above 0."""


@dataclass(frozen=True)
class _Pair:
    """Two conditions, their scores on the folds that both have finished, and the tests of them."""

    first: _Record
    second: _Record
    role: str
    shared: list[Key]
    first_scores: list[float]
    second_scores: list[float]
    rope: float
    noise: ImageNoise | None
    test: PairedTest
    posterior: Posterior

    @property
    def differences(self) -> np.ndarray:
        return np.subtract(self.first_scores, self.second_scores)


def compare_conditions(
    results: _Record,
    folder: Path | str,
    *,
    outcome: str | None = None,
    rope: float | None = None,
    alpha: float = 0.05,
    beside: Sequence[_Record] = (),
    further: Sequence[float] = (),
    established: Told | None = None,
) -> list[_Record]:
    """Compare every condition with its baseline and, if it has one, its duplicate control.

    Compared are scores of the same fold with the same seed. Pairs that aren't finished are left
    out and counted. Controls are judged first: whether an effect is one of the augmentation
    depends on them.

    Parameters
    ----------
    results : dict
        As in ``results.json``: ``study``, ``conditions``, ``cells``, ``data_sets``. Not modified.
    folder : path
        Where the cells' ``predictions`` are.
    outcome : str, optional
        One of `rankwise.study.outcomes.OUTCOMES`. Default: the protocol's primary one.
    rope : float, optional
        Half width of the region in which two arms are practically equal, a share of accuracy.
        Default: the study's, or where it names none a tenth of the baseline's mean error.
    alpha : float
        Level of the family of all planned comparisons, held by Holm's procedure. A study that was
        extended has looked before: each look has its part (`spent_level`).
    beside : sequence of dict
        Comparisons of another outcome, such as robustness; where they contradict a verdict, the
        sentence says so.
    further : sequence of float
        P-values of what else the family has, such as a factorial design's contrasts; nan where
        they can't be tested yet.
    established : dict, optional
        From condition and baseline to an earlier look that has told them apart, and whether the
        effect was above 0 then.

    Returns
    -------
    list of dict
        ``condition``, ``baseline``, ``role`` ("baseline" or "control"), ``data_set``, ``model``,
        ``arm``, ``baseline_arm``, ``outcome``; ``pairs``, ``missing``, ``seeds``, ``folds``,
        ``finished_seeds``, ``ratio``, ``correlation``, ``look``, ``level``, ``established``;
        ``paper`` (`PaperRule`, or None with fewer than two folds), ``published`` (what the paper
        says of the same two rows, or None); ``differences`` (of every pair); ``effect`` (mean, low,
        high, deviation; and the ends of the interval that covers together with those of all
        comparisons), ``corrected_t`` and ``plain_t`` (statistic, degrees of freedom, p; the first
        also Holm's), ``images`` (variance and sources of the images, or None), ``bayes`` (rope,
        harm, equal, help), ``mcnemar`` (`mcnemar_of`), ``test`` (mean test accuracies of the
        re-trained models), ``seeds_to_tell``, ``folds_to_tell``, ``obstacle``, ``verdict``,
        ``sentence``. What can't be computed is None.

    Raises
    ------
    ValueError
        For a level outside (0, 1), a negative `rope` or an unknown outcome.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if rope is not None and rope < 0:
        raise ValueError(f"rope must be at least 0, not {rope}")
    study = results["study"]
    outcome = primary_outcome(study["protocol"]) if outcome is None else outcome
    if outcome not in OUTCOMES:
        raise ValueError(f"unknown outcome {outcome!r}; accepted: {', '.join(OUTCOMES)}")
    look = int(results.get("look", 1))
    level, next_level = spent_level(alpha, look), spent_level(alpha, look + 1)
    pairs = list(_pairs(results, Path(folder), outcome, rope))
    adjusted = holm([*(pair.test.p_value for pair in pairs), *further])
    n_comparisons, certainty = len(pairs) + len(further), certainty_at(level, alpha)
    other = {(c["condition"], c["baseline"]): c for c in beside}
    controls: dict[str, Control] = {}
    found: dict[int, _Record] = {}
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].role != "control")
    for i in order:
        pair = pairs[i]
        evidence = _evidence(
            results,
            pair,
            adjusted[i],
            outcome=outcome,
            level=level,
            next_level=next_level,
            next_certainty=certainty_at(next_level, alpha),
            certainty=certainty,
            established=still(established, (pair.first["id"], pair.second["id"]), pair.test.mean),
            n_comparisons=n_comparisons,
            control=controls.get(pair.first["id"]) if pair.role == "baseline" else None,
            contradictions=_contradictions(
                results,
                Path(folder),
                pair,
                other.get((pair.first["id"], pair.second["id"])),
                level,
                certainty,
                degraded=outcome == "degraded",
            ),
        )
        if pair.role == "control":
            controls[pair.first["id"]] = Control(pair.test, verdict(evidence))
        record = _comparison(results, Path(folder), pair, evidence, n_comparisons)
        found[i] = record | {"outcome": outcome, "look": look, "level": level}
    return [found[i] for i in range(len(pairs))]


def _evidence(
    results: _Record,
    pair: _Pair,
    p_adjusted: float,
    *,
    outcome: str,
    level: float,
    next_level: float,
    next_certainty: float,
    certainty: float,
    established: int | None,
    n_comparisons: int,
    control: Control | None,
    contradictions: tuple[str, ...],
) -> Evidence:
    study = results["study"]
    folds, seeds = int(study["folds"]), len(study["seeds"])
    data: _Record = next(
        (d for d in results["data_sets"] if d["name"] == pair.first["data_set"]), {}
    )
    each = next_level / n_comparisons  # Following the advice is another look.
    pilot = Pilot(pair.differences, 1 / (folds - 1), folds, pair.noise)
    needed = instead = images = None
    if folds >= FEWEST_FOLDS:
        rule = {"alpha": each, "certainty": next_certainty}
        needed = repeats_to_tell(pilot, pair.rope, **rule)
        most = min(MOST_FOLDS, data.get("most_folds", 0))
        if needed is None:
            instead = folds_to_tell(pilot, pair.rope, seeds=seeds, most=most, **rule)
            images = images_would_tell(pilot, pair.rope, **rule)
    return Evidence(
        test=pair.test,
        p_adjusted=p_adjusted,
        posterior=pair.posterior,
        rope=pair.rope,
        seeds=seeds,
        seeds_to_tell=None if needed is None else max(needed, FEWEST_SEEDS),
        folds=folds,
        folds_to_tell=instead,
        images_would_tell=images,
        pairs=len(pair.first_scores),
        finished_seeds=finished_seeds(pair.shared),
        missing=max(0, folds * seeds - len(pair.first_scores)),
        alpha=level,
        certainty=certainty,
        established=established,
        outcome=OUTCOMES[outcome],
        copies=copies_of(pair.first) if pair.role == "baseline" else None,
        control=control,
        obstacle=obstacle(results, (pair.first["id"], pair.second["id"]), outcome)
        if pair.first_scores
        else None,
        contradictions=contradictions,
    )


def certainty_at(level: float, alpha: float) -> float:
    """What ``no practical difference`` needs at a look of this level, which has its share of 5%."""
    return 1 - (1 - CERTAINTY) * level / spent_level(alpha, 1)


def still(told: Told | None, key: tuple[str, ...], mean: float) -> int | None:
    """The earlier look that has told, where the effect has the sign that it had."""
    look, above = (told or {}).get(key, (None, False))
    return look if above == (mean > 0) else None


def finished_seeds(keys: Iterable[Key]) -> int:
    """Seeds of which at least `FEWEST_FOLDS` of these folds, (seed, fold), are."""
    return sum(n >= FEWEST_FOLDS for n in Counter(seed for seed, _ in keys).values())


def copies_of(condition: _Record) -> str | None:
    """What a condition's arm adds: ``"changed"`` copies, ``"unchanged"`` ones, or none."""
    kind = condition.get("copies")
    return None if kind is None else "unchanged" if kind == "duplicate" else "changed"


def obstacle(results: _Record, ids: Sequence[str], outcome: str) -> str | None:
    """Why the numbers of some conditions allow no conclusion, in words; None where they do.

    They have one data set and model. Whether those were learned at all is told by what verdicts
    rest on, by clean images, and by all arms: one that ends near chance beside one that doesn't,
    and degraded images that are too hard, ask for no longer training.
    """
    if any(not fold_scores(results, name, outcome) for name in ids):
        return None
    clean = primary_outcome(results["study"]["protocol"])
    first = next(c for c in results["conditions"] if c["id"] == ids[0])
    if all(near_chance(results, name, clean) for name in ids) and not any_learned(
        results, first, clean
    ):
        updates = max(c.get("n_updates") or 0 for c in fold_cells(results, ids[0]).values())
        after = f" after {updates} updates" if updates else ""
        return f"{'both' if len(ids) == 2 else 'all'} arms are near chance{after}: train longer"
    for condition in (c for name in ids for c in results["conditions"] if c["id"] == name):
        if unfinished(results, condition["id"]):
            late, folds = late_share(results, condition["id"])
            least = least_patience(results, condition)
            if least is not None:
                return (
                    f"in {late} of {folds} folds {condition['arm']} was stopped by a patience of "
                    f"{results['study']['patience']}, too short to tell a plateau from a wobble in "
                    f"{condition['epochs']} epochs, or was best in the last tenth of its training: "
                    f"set patience to {least} or more"
                )
            return (
                f"in {late} of {folds} folds {condition['arm']} was best in the last tenth of its "
                "training, so it wasn't trained to the end: train longer, or set "
                f"{'a longer ' if results['study'].get('patience') else ''}patience to train every "
                "arm to its own plateau"
            )
    return None


def _contradictions(
    results: _Record,
    folder: Path,
    pair: _Pair,
    other: _Record | None,
    level: float,
    certainty: float,
    *,
    degraded: bool,
) -> tuple[str, ...]:
    """What points the other way: robustness, and the re-trained models.

    Where there is no practical difference in accuracy, any verdict on robustness does.
    """
    found = []
    direction = np.sign(pair.test.mean)
    told = other is not None and other["verdict"] != "no practical difference"
    if other is not None and told and other["effect"]["low"] is not None:
        effect = other["effect"]
        beyond = effect["low"] > 0 or effect["high"] < 0
        opposite = np.sign(effect["mean"]) == -direction
        equal = pair.posterior.equal >= certainty and other["verdict"] != "cannot tell"
        if beyond and (opposite or equal):
            found.append(
                f"on degraded test images {points(effect['mean'])} points "
                f"({span(effect['low'], effect['high'])})"
            )
    ours, theirs = (retrained(results, c["id"]) for c in (pair.first, pair.second))
    tested, paired = _test_accuracies(ours, theirs), mcnemar_of(ours, theirs, folder)
    if tested and paired and paired["p_value"] < level:
        difference = tested["difference"]
        if np.sign(difference) == -direction:
            of = " on clean test images" if degraded else ""
            found.append(f"the re-trained models differ by {points(difference)} points{of}")
    return tuple(found)


def _pairs(results: _Record, folder: Path, outcome: str, rope: float | None) -> Iterator[_Pair]:
    conditions = {condition["id"]: condition for condition in results["conditions"]}
    ratio = 1 / (int(results["study"]["folds"]) - 1)
    for first in conditions.values():
        for role in ("baseline", "control"):
            second = conditions.get(first.get(role) or "")
            if second is None:
                continue
            ours, theirs = (fold_scores(results, c["id"], outcome) for c in (first, second))
            shared = sorted(ours.keys() & theirs.keys())
            scores = [ours[key] for key in shared], [theirs[key] for key in shared]
            differences = np.subtract(*scores)
            noise = noise_between(results, first["id"], second["id"], outcome, folder)
            half = region(results["study"], list(theirs.values())) if rope is None else rope
            yield _Pair(
                first,
                second,
                role,
                shared,
                *scores,
                rope=half,
                noise=noise,
                test=corrected_t_test(differences, ratio, noise=noise),
                posterior=correlated_posterior(differences, ratio, half, noise=noise),
            )


def _comparison(
    results: _Record, folder: Path, pair: _Pair, evidence: Evidence, n_comparisons: int
) -> _Record:
    first, second, test = pair.first, pair.second, evidence.test
    ours, theirs = (retrained(results, c["id"]) for c in (first, second))
    enough = evidence.pairs >= 2
    ratio = 1 / (evidence.folds - 1)
    low, high = test.interval(1 - evidence.alpha / n_comparisons)
    return {
        "condition": first["id"],
        "baseline": second["id"],
        "role": pair.role,
        "data_set": first["data_set"],
        "model": first["model"],
        "arm": first["arm"],
        "baseline_arm": second["arm"],
        "pairs": evidence.pairs,
        "missing": evidence.missing,
        "seeds": evidence.seeds,
        "folds": evidence.folds,
        "finished_seeds": evidence.finished_seeds,
        "established": evidence.established,
        "ratio": ratio,
        "correlation": ratio / (1 + ratio),
        "paper": asdict(paper_rule(pair.first_scores, pair.second_scores)) if enough else None,
        "published": _published(first, second),
        "differences": [float(value) for value in pair.differences],
        "effect": _numbers(
            mean=test.mean,
            low=test.low,
            high=test.high,
            deviation=test.deviation,
            simultaneous_low=low,
            simultaneous_high=high,
        ),
        "corrected_t": _t(test) | _numbers(p_holm=evidence.p_adjusted),
        "plain_t": _t(corrected_t_test(pair.differences, 0.0)),
        "images": None if pair.noise is None else asdict(pair.noise),
        "bayes": {"rope": evidence.rope} | _numbers(**asdict(evidence.posterior)),
        "mcnemar": mcnemar_of(ours, theirs, folder),
        "test": _test_accuracies(ours, theirs),
        "seeds_to_tell": evidence.seeds_to_tell,
        "folds_to_tell": evidence.folds_to_tell,
        "obstacle": evidence.obstacle,
        "verdict": verdict(evidence),
        "sentence": sentence(evidence, first["arm"], second["arm"]),
    }


def _published(first: _Record, second: _Record) -> _Record | None:
    """The paper's rule on the paper's own intervals."""
    rows = [c.get("published") for c in (first, second)]
    if not all(row and row.get("interval") for row in rows):
        return None
    ours, theirs = (tuple(row["interval"]) for row in rows if row)
    return {
        "interval": list(ours),
        "baseline_interval": list(theirs),
        "rejects": ours[0] > theirs[1],
    }


def _test_accuracies(ours: dict[int, _Record], theirs: dict[int, _Record]) -> _Record | None:
    seeds = [
        seed
        for seed in sorted(ours.keys() & theirs.keys())
        if None not in (ours[seed].get("test_accuracy"), theirs[seed].get("test_accuracy"))
    ]
    if not seeds:
        return None
    first = float(np.mean([ours[seed]["test_accuracy"] for seed in seeds]))
    second = float(np.mean([theirs[seed]["test_accuracy"] for seed in seeds]))
    return {"accuracy": first, "baseline_accuracy": second, "difference": first - second}


def _t(test: PairedTest) -> _Record:
    return _numbers(
        statistic=test.statistic,
        degrees_of_freedom=test.degrees_of_freedom,
        standard_error=test.standard_error,
        p_value=test.p_value,
    )


def _numbers(**values: float) -> _Record:
    """For JSON, which knows no nan."""
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def interval_of(results: _Record, condition: str) -> tuple[float, float] | None:
    """The paper's interval of a condition's finished folds; None with fewer than two."""
    scores = list(fold_scores(results, condition, "validation").values())
    return paper_interval(scores) if len(scores) >= 2 else None
