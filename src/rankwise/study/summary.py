"""One answer over several data sets: a hierarchical summary of effects, and ranks of arms.

*Effects.* The effect ``d_i`` of an arm on data set ``i`` has the variance ``v_i`` of its corrected
t-test, which is over folds, seeds and images; true effects vary between data sets with variance
``τ²``. The mean effect is ``Σ w_i d_i / Σ w_i``, ``w_i = 1/(v_i + τ²)``, with ``τ²`` of Paule and
Mandel and the interval of Hartung, Knapp, Sidik and Jonkman (Student's t, ``k − 1`` degrees of
freedom), which keeps its level with few data sets where others don't.

*Ranks.* Arms are ranked within each data set by their mean scores; Friedman's test says whether
mean ranks differ, and two arms differ where their mean ranks are apart by more than Nemenyi's
critical difference ``q_α·√(k(k + 1)/(6N))`` (Demšar 2006). Ranks forget how much arms differ and
how surely, and with fewer data sets than about ten they can hardly tell anything: that is said.

References
----------
Paule and Mandel, J. Research of the National Bureau of Standards 87 (1982).
IntHout, Ioannidis and Borm, "The Hartung-Knapp-Sidik-Jonkman method for random effects
meta-analysis is straightforward …", BMC Medical Research Methodology 14 (2014).
Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rankwise.study.compare import finished_seeds
from rankwise.study.convergence import convergence
from rankwise.study.counted_sets import Repeats, left_out
from rankwise.study.outcomes import fold_scores, primary_outcome
from rankwise.study.spans import held
from rankwise.study.verdict import FEWEST_FOLDS, FEWEST_SEEDS

Record = dict[str, Any]

FEWEST_FOR_RANKS = 10
"""Data sets from which Demšar takes Friedman's chi-square to be near its distribution."""

_TOO_FEW = f"fewer than {FEWEST_SEEDS} finished seeds of {FEWEST_FOLDS} folds"
_LATE = "not trained to the end"
_TWICE = "trained under several conditions"


@dataclass(frozen=True)
class RandomEffects:
    """A mean effect over data sets.

    Parameters
    ----------
    mean, standard_error, low, high, p_value : float
        Of the mean effect, by Hartung and Knapp; nan for fewer than two data sets.
    between : float
        ``τ``, the deviation of true effects between data sets.
    predicted : (float, float)
        Where the true effect on a further data set lies, with 95% chance; nan for fewer than three.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    p_value: float
    between: float
    predicted: tuple[float, float]


def random_effects(
    effects: ArrayLike, errors: ArrayLike, *, confidence: float = 0.95
) -> RandomEffects:
    """Combine effects of several data sets.

    Parameters
    ----------
    effects, errors : array_like, (k,)
        Effects and their standard errors, above 0.
    confidence : float

    Raises
    ------
    ValueError
        If the shapes differ, or an error isn't above 0.
    """
    from scipy import stats

    values, variances = np.asarray(effects, float), np.asarray(errors, float) ** 2
    if values.shape != variances.shape or values.ndim != 1 or not len(values):
        raise ValueError(f"effects and errors must be of one shape (k,), got {values.shape}")
    if not (variances > 0).all():
        raise ValueError("standard errors must be above 0")
    k, nan = len(values), math.nan
    if k < 2:
        return RandomEffects(float(values[0]), nan, nan, nan, nan, nan, (nan, nan))
    between = paule_mandel(values, variances)
    weights = 1 / (variances + between)
    mean = float(weights @ values / weights.sum())
    spread = float(weights @ (values - mean) ** 2 / (k - 1))
    # Never narrower than with the variances as they are (the usual guard of Hartung and Knapp).
    error = math.sqrt(max(1.0, spread) / float(weights.sum()))
    half = float(stats.t.ppf((1 + confidence) / 2, k - 1)) * error
    predicted = (nan, nan)
    if k > 2:
        reach = float(stats.t.ppf((1 + confidence) / 2, k - 2)) * math.sqrt(between + error**2)
        predicted = (mean - reach, mean + reach)
    p_value = 2 * float(stats.t.sf(abs(mean) / error, k - 1))
    return RandomEffects(
        mean, error, mean - half, mean + half, p_value, math.sqrt(between), predicted
    )


def paule_mandel(values: np.ndarray, variances: np.ndarray) -> float:
    """``τ²`` with which ``Σ (d_i − d̄)²/(v_i + τ²) = k − 1``; 0 where effects vary less."""
    from scipy.optimize import brentq

    def excess(between: float) -> float:
        weights = 1 / (variances + between)
        mean = weights @ values / weights.sum()
        return float(weights @ (values - mean) ** 2) - (len(values) - 1)

    if excess(0.0) <= 0:
        return 0.0
    most = float(np.ptp(values) ** 2) * len(values) + float(variances.max())
    return float(brentq(excess, 0.0, most))


@dataclass(frozen=True)
class Ranks:
    """Arms ranked over data sets.

    Parameters
    ----------
    arms : tuple of str
        Best first.
    mean_ranks : tuple of float
        1 is best.
    n : int
        Data sets.
    statistic, p_value : float
        Friedman's; nan for fewer than three arms or two data sets.
    critical_difference : float
        Nemenyi's, at the level given.
    """

    arms: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    n: int
    statistic: float
    p_value: float
    critical_difference: float

    @property
    def groups(self) -> list[tuple[int, int]]:
        """First and last of each longest run of arms that the critical difference doesn't part."""
        found: list[tuple[int, int]] = []
        for first, rank in enumerate(self.mean_ranks):
            last = max(
                i
                for i, other in enumerate(self.mean_ranks)
                if other - rank <= self.critical_difference
            )
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def ranked(arms: Sequence[str], scores: ArrayLike, *, alpha: float = 0.05) -> Ranks:
    """Rank arms by scores on several data sets.

    Parameters
    ----------
    arms : sequence of str, (k,)
    scores : array_like, (N, k)
        Higher is better.
    alpha : float

    Raises
    ------
    ValueError
        If the shapes differ, or there is no data set or arm.
    """
    from scipy import stats

    table = np.asarray(scores, float)
    if table.ndim != 2 or table.shape[1] != len(arms) or table.size == 0:
        raise ValueError(f"scores must be of shape (N, {len(arms)}), got {table.shape}")
    n, k = table.shape
    ranks = np.apply_along_axis(stats.rankdata, 1, -table).mean(axis=0)
    order = np.argsort(ranks, kind="stable")
    statistic = p_value = math.nan
    if k > 2 and n > 1:
        test = stats.friedmanchisquare(*table.T)
        statistic, p_value = float(test.statistic), float(test.pvalue)
    bound = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2) if k > 1 else 0
    return Ranks(
        tuple(arms[i] for i in order),
        tuple(float(ranks[i]) for i in order),
        n,
        statistic,
        p_value,
        bound * math.sqrt(k * (k + 1) / (6 * n)),
    )


def summaries(results: Record, comparisons: Sequence[Record]) -> Record:
    """Effects over data sets, and ranks of arms; empty where there is one data set.

    What counts in them is what may have a verdict: three finished seeds of five folds, trained to
    the end; and of data sets that hold the same images the first
    (`rankwise.study.counted_sets`). They are outside the level that the verdicts share.

    Parameters
    ----------
    results : dict
        As in ``results.json``.
    comparisons : sequence of dict
        Of one outcome.

    Returns
    -------
    dict
        ``effects``: an entry for each model, arm and baseline of which two data sets or more count,
        with ``rows`` (effect, interval and, seed by seed, mean difference of each data set),
        `mean` … (`RandomEffects`) and ``note``; ``ranks``: an entry for each model, with `Ranks`,
        ``groups`` and ``note``; ``notes``: where there is no mean, or are no ranks, why. Notes name
        what is left out. Intervals are held to what is possible.
    """
    repeats = Repeats(results["data_sets"])
    effects, without_mean = _effects(results, comparisons, repeats)
    ranks, without_ranks = _ranks(results, repeats)
    return {"effects": effects, "ranks": ranks, "notes": [*without_mean, *without_ranks]}


def _effects(
    results: Record, comparisons: Sequence[Record], repeats: Repeats
) -> tuple[list[Record], list[str]]:
    """Entries, and in words of what there is no mean."""
    together: dict[tuple[str, str, str], list[Record]] = {}
    for item in comparisons:
        key = (item["model"], item["arm"], item["baseline_arm"])
        together.setdefault(key, []).append(item)
    found = []
    without: dict[tuple[str, str], list[str]] = {}
    for (model, arm, baseline), planned in together.items():
        if len({item["data_set"] for item in planned}) < 2:
            continue
        reasons = {i["data_set"]: why for i in planned if (why := _why_not(results, i))}
        reasons |= _twice(item["data_set"] for item in planned)
        usable = (i["data_set"] for i in planned if i["data_set"] not in reasons)
        reasons |= repeats.among(usable)
        items = [item for item in planned if item["data_set"] not in reasons]
        if len(items) < 2:
            without.setdefault((model, left_out(reasons)), []).append(f"{arm} against {baseline}")
            continue
        summary = random_effects(
            [item["effect"]["mean"] for item in items],
            [item["corrected_t"]["standard_error"] for item in items],
        )
        found.append(
            {
                "model": model,
                "arm": arm,
                "baseline_arm": baseline,
                "outcome": items[0]["outcome"],
                "rows": [
                    {
                        "data_set": item["data_set"],
                        "mean": item["effect"]["mean"],
                        **{key: held(item["effect"][key]) for key in ("low", "high")},
                        "rope": item["bayes"]["rope"],
                        "seeds": _by_seed(results, item),
                    }
                    for item in items
                ],
                **asdict(summary),
                "low": held(summary.low),
                "high": held(summary.high),
                "predicted": [held(end) for end in summary.predicted],
                "note": " ".join(filter(None, (left_out(reasons), _few(len(items))))),
            }
        )
    return found, [
        f"{model}: no mean over data sets of {', '.join(arms)}. {why}"
        for (model, why), arms in without.items()
    ]


def _twice(names: Iterable[Any]) -> dict[Any, str]:
    """Of some data sets those that are there more than once, and in words why none counts."""
    counts = Counter(names)
    return {name: _TWICE for name, n in counts.items() if n > 1}


def _why_not(results: Record, item: Record) -> str | None:
    """Why a comparison counts in no mean over data sets, in words; None where it does."""
    keys = (fold_scores(results, item[k], item["outcome"]) for k in ("condition", "baseline"))
    if finished_seeds(set.intersection(*map(set, keys))) < FEWEST_SEEDS:
        return _TOO_FEW
    if item["obstacle"]:
        return str(item["obstacle"])
    if not item["corrected_t"]["standard_error"]:
        return "no spread to judge by"
    return None


def _by_seed(results: Record, item: Record) -> list[float]:
    """Mean difference of each seed's folds."""
    outcome = item["outcome"]
    ours, theirs = (fold_scores(results, item[k], outcome) for k in ("condition", "baseline"))
    shared = ours.keys() & theirs.keys()
    return [
        float(np.mean([ours[key] - theirs[key] for key in shared if key[0] == seed]))
        for seed in dict.fromkeys(seed for seed, _ in sorted(shared))
    ]


def _few(n: int) -> str:
    if n >= 5:
        return ""
    return (
        f"{n} data sets tell little about others: the interval is as wide as Student's t with "
        f"{n - 1} degree{'s' if n > 2 else ''} of freedom makes it."
    )


def _ranks(results: Record, repeats: Repeats) -> tuple[list[Record], list[str]]:
    """Entries, and in words of what there are no ranks."""
    outcome = primary_outcome(results["study"]["protocol"])
    trained = {row["condition"]: row for row in convergence(results, outcome)}
    found, without = [], []
    for model in dict.fromkeys(c["model"] for c in results["conditions"]):
        own = [c for c in results["conditions"] if c["model"] == model]
        if len({c["data_set"] for c in own}) < 2:
            continue
        of_data, reasons = _rankable(results, own, outcome, trained)
        repeated = repeats.among(of_data)
        counted = {data: known for data, known in of_data.items() if data not in repeated}
        arms = dict.fromkeys(arm for known in counted.values() for arm in known)
        for arm in arms:
            if any(arm not in known for known in counted.values()):
                reasons.setdefault(arm, "not on every data set")
        ranking = [arm for arm in arms if arm not in reasons]
        why = left_out(reasons | repeated)
        if len(counted) < 2 or len(ranking) < 2:
            without.append(f"{model}: no ranks of arms over data sets. {why}")
            continue
        ranks = ranked(ranking, [[known[arm] for arm in ranking] for known in counted.values()])
        few = (
            f"{ranks.n} data sets are too few for ranks to tell much: Friedman's test and "
            f"Nemenyi's critical difference want about {FEWEST_FOR_RANKS}."
        ) * (ranks.n < FEWEST_FOR_RANKS)
        found.append(
            {"model": model, **asdict(ranks), "groups": [list(g) for g in ranks.groups]}
            | {"note": " ".join(filter(None, (why, few))), "data_sets": list(counted)}
        )
    return found, [text.strip() for text in without]


def _rankable(
    results: Record, conditions: Sequence[Record], outcome: str, trained: Mapping[str, Record]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Mean scores by data set and arm of a model's conditions, and of what there are none why.

    A data set without any counts as left out, and not each arm of it.
    """
    scores: dict[str, dict[str, float]] = {}
    missing: dict[str, dict[str, str]] = {}
    twice = _twice((condition["data_set"], condition["arm"]) for condition in conditions)
    for condition in conditions:
        row, data = trained[condition["id"]], condition["data_set"]
        if (data, condition["arm"]) in twice:
            missing.setdefault(data, {})[condition["arm"]] = _TWICE
            continue
        known = fold_scores(results, condition["id"], outcome)
        why = None
        if row["near_chance"]:
            why = "no arm is above chance"
        elif finished_seeds(known) < FEWEST_SEEDS:
            why = _TOO_FEW
        elif row["unfinished"]:
            why = _LATE
        if why is None:
            scores.setdefault(data, {})[condition["arm"]] = float(np.mean(list(known.values())))
        else:
            missing.setdefault(data, {})[condition["arm"]] = why
    reasons: dict[str, str] = {}
    for data, arms in missing.items():
        if data in scores:
            reasons |= arms
        else:
            reasons[data] = next(iter(arms.values()))
    return scores, reasons
