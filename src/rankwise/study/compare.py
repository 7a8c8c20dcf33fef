"""Every arm of a study against its baseline, by the paper's rule and by the sound ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.study.design import ROPE
from rankwise.study.infer import (
    McNemar,
    PairedTest,
    corrected_t_test,
    correlated_posterior,
    holm,
    mcnemar,
    paper_interval,
    paper_rule,
)
from rankwise.study.power import MOST_FOLDS, folds_to_tell, repeats_to_tell
from rankwise.study.verdict import Evidence, sentence, verdict

_Record = dict[str, Any]


@dataclass(frozen=True)
class _Pairs:
    """Two conditions, and their scores on the folds that both have finished."""

    first: _Record
    second: _Record
    role: str
    first_scores: list[float]
    second_scores: list[float]

    @property
    def differences(self) -> np.ndarray:
        return np.subtract(self.first_scores, self.second_scores)


def compare_conditions(
    results: _Record, folder: Path | str, *, rope: float | None = None, alpha: float = 0.05
) -> list[_Record]:
    """Compare every condition with its baseline and, if it has one, its duplicate control.

    What is compared are the validation accuracies of the best epochs, fold by fold with the same
    seed, as in the paper's tables. Pairs that aren't finished are left out and counted.

    Parameters
    ----------
    results : dict
        As in ``results.json``: ``study``, ``conditions``, ``cells``. Not modified.
    folder : path
        Where the cells' ``predictions`` are.
    rope : float, optional
        Half width of the region in which two arms are practically equal, a share of accuracy.
        Default: the study's.
    alpha : float
        Level of the family of all comparisons, held by Holm's procedure.

    Returns
    -------
    list of dict
        ``condition``, ``baseline``, ``role`` ("baseline" or "control"), ``data_set``, ``model``,
        ``arm``, ``baseline_arm``; ``pairs``, ``missing``, ``seeds``, ``folds``, ``ratio``,
        ``correlation``; ``paper`` (`PaperRule`, or None with fewer than two folds), ``published``
        (what the paper says of the same two rows, or None); ``effect`` (mean, low, high,
        deviation), ``corrected_t`` and ``plain_t`` (statistic, degrees of freedom, p; the first
        also Holm's), ``bayes`` (rope, harm, equal, help), ``mcnemar`` (`mcnemar_of`), ``test``
        (mean test accuracies of the re-trained models), ``seeds_to_tell``, ``folds_to_tell``,
        ``verdict``, ``sentence``. What can't be computed is None.

    Raises
    ------
    ValueError
        For a level outside (0, 1) or a negative `rope`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    study = results["study"]
    rope = study.get("rope", ROPE) if rope is None else rope
    if rope < 0:
        raise ValueError(f"rope must be at least 0, not {rope}")
    folds, seeds = int(study["folds"]), len(study["seeds"])
    planned, ratio = folds * seeds, 1 / (folds - 1)
    most = {
        data["name"]: min(MOST_FOLDS, data.get("most_folds", 0)) for data in results["data_sets"]
    }
    pairs = list(_pairs(results))
    tests = [corrected_t_test(p.differences, ratio, confidence=0.95) for p in pairs]
    adjusted = holm([test.p_value for test in tests])
    found = []
    for pair, test, p_adjusted in zip(pairs, tests, adjusted, strict=True):
        level = alpha / len(pairs)
        needed = repeats_to_tell(pair.differences, ratio, rope, folds=folds, alpha=level)
        noise: float | None = None
        instead: int | None = None
        if needed is None:
            noise = validation_noise(results, pair.first["id"], pair.second["id"], folder)
        if noise is not None:
            instead = folds_to_tell(
                pair.differences,
                rope,
                folds=folds,
                noise=noise,
                seeds=seeds,
                most=most[pair.first["data_set"]],
                alpha=level,
            )
        evidence = Evidence(
            test=test,
            p_adjusted=p_adjusted,
            posterior=correlated_posterior(pair.differences, ratio, rope),
            rope=rope,
            seeds=seeds,
            seeds_to_tell=needed,
            folds=folds,
            folds_to_tell=instead,
            pairs=len(pair.first_scores),
            missing=max(0, planned - len(pair.first_scores)),
            alpha=alpha,
        )
        found.append(_comparison(results, Path(folder), pair, evidence, ratio))
    return found


def fold_scores(results: _Record, condition: str) -> dict[tuple[int, int], float]:
    """Best validation accuracy of a condition's finished folds, by (seed, fold)."""
    return {
        (cell["seed"], cell["fold"]): float(cell["validation_accuracy"])
        for cell in results["cells"]
        if cell["condition"] == condition
        and cell["stage"] == "fold"
        and cell["status"] == "done"
        and cell.get("validation_accuracy") is not None
    }


def retrained(results: _Record, condition: str) -> dict[int, _Record]:
    """Finished re-trained cells of a condition, by seed."""
    return {
        cell["seed"]: cell
        for cell in results["cells"]
        if cell["condition"] == condition
        and cell["stage"] == "retrain"
        and cell["status"] == "done"
    }


def validation_noise(results: _Record, first: str, second: str, folder: Path | str) -> float | None:
    """How much of a fold's difference comes of its few validation images.

    The variance of an image's difference between the arms (1, 0 or −1), over the number of images;
    the mean over folds.

    Returns
    -------
    float or None
        None where the arms of some fold weren't validated on the same images, as with copies under
        ``notebook``, or their predictions aren't there.
    """
    cells: dict[tuple[int, int], list[_Record]] = {}
    for cell in results["cells"]:
        if (
            cell["condition"] in (first, second)
            and cell["stage"] == "fold"
            and cell["status"] == "done"
        ):
            cells.setdefault((cell["seed"], cell["fold"]), []).append(cell)
    found = []
    for pair in cells.values():
        if len(pair) < 2:
            continue
        parts = [_validated(cell, Path(folder)) for cell in pair]
        if parts[0] is None or parts[1] is None:
            return None
        (rows, right), (other_rows, other_right) = parts[0], parts[1]
        if len(rows) < 2 or not np.array_equal(rows, other_rows):
            return None
        found.append(np.subtract(right, other_right, dtype=float).var(ddof=1) / len(rows))
    return float(np.mean(found)) if found else None


def _validated(cell: _Record, folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows that a fold was validated on, and whether each was right."""
    path = folder / (cell.get("predictions") or "")
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return (
            stored["validation_index"],
            stored["validation_predicted"] == stored["validation_labels"],
        )


def mcnemar_of(first: dict[int, _Record], second: dict[int, _Record], folder: Path) -> Any:
    """McNemar's test of the re-trained models, seed by seed.

    Returns
    -------
    dict or None
        ``seeds``: `McNemar` by seed; ``p_value``: the largest of them, since a claim about both
        arms has to hold with every seed (their predictions aren't independent, so the p-values
        can't be pooled). None where no seed has both predictions.
    """
    found = {}
    for seed in sorted(first.keys() & second.keys()):
        test = _paired(first[seed], second[seed], folder)
        if test is not None:
            found[str(seed)] = asdict(test)
    if not found:
        return None
    return {"seeds": found, "p_value": max(test["p_value"] for test in found.values())}


def _paired(first: _Record, second: _Record, folder: Path) -> McNemar | None:
    paths = [folder / cell["predictions"] for cell in (first, second) if cell.get("predictions")]
    if len(paths) < 2 or not all(path.is_file() for path in paths):
        return None
    right = []
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            if "test_index" not in stored:
                return None
            correct = stored["test_labels"] == stored["test_predicted"]
            right.append(dict(zip(stored["test_index"].tolist(), correct.tolist(), strict=True)))
    shared = sorted(right[0].keys() & right[1].keys())
    return mcnemar([right[0][i] for i in shared], [right[1][i] for i in shared])


def _pairs(results: _Record) -> Iterator[_Pairs]:
    conditions = {condition["id"]: condition for condition in results["conditions"]}
    for first in conditions.values():
        for role in ("baseline", "control"):
            second = conditions.get(first.get(role) or "")
            if second is None:
                continue
            ours, theirs = (fold_scores(results, c["id"]) for c in (first, second))
            shared = sorted(ours.keys() & theirs.keys())
            yield _Pairs(
                first, second, role, [ours[key] for key in shared], [theirs[key] for key in shared]
            )


def _comparison(
    results: _Record, folder: Path, pair: _Pairs, evidence: Evidence, ratio: float
) -> _Record:
    first, second, test = pair.first, pair.second, evidence.test
    ours, theirs = (retrained(results, c["id"]) for c in (first, second))
    enough = evidence.pairs >= 2
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
        "ratio": ratio,
        "correlation": ratio / (1 + ratio),
        "paper": asdict(paper_rule(pair.first_scores, pair.second_scores)) if enough else None,
        "published": _published(first, second),
        "effect": _numbers(mean=test.mean, low=test.low, high=test.high, deviation=test.deviation),
        "corrected_t": _t(test) | _numbers(p_holm=evidence.p_adjusted),
        "plain_t": _t(corrected_t_test(pair.differences, 0.0)),
        "bayes": {"rope": evidence.rope} | _numbers(**asdict(evidence.posterior)),
        "mcnemar": mcnemar_of(ours, theirs, folder),
        "test": _test_accuracies(ours, theirs),
        "seeds_to_tell": evidence.seeds_to_tell,
        "folds_to_tell": evidence.folds_to_tell,
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
    scores = list(fold_scores(results, condition).values())
    return paper_interval(scores) if len(scores) >= 2 else None
