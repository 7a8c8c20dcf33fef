"""McNemar's test of two arms on the same test images, each a sample or by source.

References
----------
McNemar, Psychometrika 12 (1947); Edwards, Psychometrika 13 (1948), for the continuity correction.
Durkalski, Palesch, Lipsitz and Rust, "Analysis of clustered matched-pair data", Statistics in
Medicine 22 (2003), for samples that share sources.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankwise._reading import blamed_on, read_arrays
from rankwise.errors import RunError
from rankwise.study.cells import REMEDY

_Record = dict[str, Any]

# Below this many discordant pairs the exact binomial test; the usual bound for the approximation.
_EXACT_BELOW = 25


@dataclass(frozen=True)
class McNemar:
    """McNemar's test on paired predictions.

    Parameters
    ----------
    gained, lost : int
        Samples that only the alternative, only the baseline gets right.
    statistic : float
        The smaller count (exact), or chi-square.
    p_value : float
        Two-sided.
    method : {"exact", "chi-square", "by source"}
        Binomial below 25 discordant pairs; else chi-square with Edwards's continuity correction.
        Durkalski's chi-square where samples share sources.
    """

    gained: int
    lost: int
    statistic: float
    p_value: float
    method: str


def mcnemar(
    correct: ArrayLike, baseline_correct: ArrayLike, sources: ArrayLike | None = None
) -> McNemar:
    """McNemar's test of two arms on the same test samples.

    Only samples that exactly one of the arms gets right carry information: of ``n = gained + lost``
    the gained ones are Binomial(n, ½) if the arms have the same accuracy. It takes the trained
    models as given: a difference says nothing about other seeds.

    Where several samples share a source (a slide, a patient), they aren't independent, and
    ``(Σ_c d_c)² / Σ_c d_c²`` is chi-square with one degree of freedom (Durkalski et al. 2003),
    where ``d_c`` is gained minus lost of source ``c``; with few sources that differ, each sign of
    theirs is as likely, and all of them are counted.

    Parameters
    ----------
    correct, baseline_correct : array_like of bool, (n,)
        Whether each arm is right.
    sources : array_like, (n,), optional
        Default: every sample is a source of its own.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    from scipy import stats

    first, second = np.asarray(correct, dtype=bool), np.asarray(baseline_correct, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"predictions aren't paired: shapes {first.shape} and {second.shape}")
    gained, lost = int((first & ~second).sum()), int((~first & second).sum())
    discordant = gained + lost
    if sources is not None and len(np.unique(sources)) < len(first):
        codes = np.unique(sources, return_inverse=True)[1]
        sums = np.bincount(codes, first.astype(float) - second)
        squares = float(np.sum(sums**2))
        statistic = float(sums.sum()) ** 2 / squares if squares else 0.0
        some = np.abs(sums[sums != 0]).astype(int)
        if len(some) < _EXACT_BELOW:
            p_value = _by_signs(some, int(sums.sum()))
        else:
            p_value = float(stats.chi2.sf(statistic, 1))
        return McNemar(gained, lost, statistic, p_value, "by source")
    if discordant < _EXACT_BELOW:
        few = min(gained, lost)
        p_value = min(1.0, 2 * float(stats.binom.cdf(few, discordant, 0.5))) if discordant else 1.0
        return McNemar(gained, lost, float(few), p_value, "exact")
    statistic = max(0, abs(gained - lost) - 1) ** 2 / discordant
    return McNemar(gained, lost, statistic, float(stats.chi2.sf(statistic, 1)), "chi-square")


def _by_signs(sizes: NDArray[np.int64], total: int) -> float:
    """Chance of a sum as far from 0, where every size has either sign."""
    chances = np.ones(1)
    for size in sizes:
        wider = np.zeros(len(chances) + 2 * int(size))
        wider[: len(chances)] += chances / 2
        wider[2 * int(size) :] += chances / 2
        chances = wider
    reach = len(chances) // 2
    return float(min(1.0, chances[np.abs(np.arange(-reach, reach + 1)) >= abs(total)].sum()))


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
    right: list[dict[int, bool]] = []
    sources: dict[int, int] = {}
    for path in paths:
        stored = read_arrays(path, None, error=RunError, hint=REMEDY)
        with blamed_on(path, RunError, REMEDY):
            if "test_index" not in stored:
                return None
            rows = stored["test_index"].tolist()
            correct = stored["test_labels"] == stored["test_predicted"]
            right.append(dict(zip(rows, correct.tolist(), strict=True)))
            # Predictions of earlier versions name no sources: then each image is one.
            codes = stored["test_source"].tolist() if "test_source" in stored else rows
            sources |= dict(zip(rows, codes, strict=True))
    shared = sorted(right[0].keys() & right[1].keys())
    return mcnemar(
        [right[0][i] for i in shared], [right[1][i] for i in shared], [sources[i] for i in shared]
    )
