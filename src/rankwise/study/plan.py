"""Before a study: how many folds and seeds tell an effect of a stated size, and what they cost.

A pilot is a small run of it. Its spreads, image noise, seconds and bytes are taken over;
its *means* are not: the effect to be told is stated beforehand. The plan is a file whose digest is
in the study's report, so nobody has to believe that the design was chosen before the results.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._files import write_json
from rankwise._reading import read_json_object
from rankwise.errors import RunError
from rankwise.study.design import Study, StudyError
from rankwise.study.infer import ImageNoise, spent_level
from rankwise.study.power import power
from rankwise.study.results import read_results

PLAN = 1
FOLDS = (5, 10)
MOST_SEEDS = 30
# The pilot's spread is an estimate: what four of five pilots would not exceed is planned with.
_QUANTILE = 0.2

_Record = dict[str, Any]


@dataclass(frozen=True)
class Option:
    """A design, what it tells and what it costs.

    Attributes
    ----------
    folds, seeds : int
    power : float
        Of the comparison that is hardest to tell.
    hours : float
        On this machine, with the workers that are planned with.
    disk : int
        Bytes.
    """

    folds: int
    seeds: int
    power: float
    hours: float
    disk: int


def plan_study(
    study: Study,
    pilot: Path | str,
    *,
    effect: float,
    wanted_power: float = 0.8,
    alpha: float = 0.05,
    workers: int = 1,
) -> _Record:
    """The cheapest folds and seeds that tell an effect, from a pilot.

    Parameters
    ----------
    study : Study
        What is planned; the pilot's conditions must be among its own.
    pilot : path
        Folder of a finished, smaller run: at least two folds of every arm.
    effect : float
        True difference to be found, a share of accuracy: 0.002 is 0.2 points.
    wanted_power : float
        Chance to find it.
    alpha : float
        Level of the whole family.
    workers : int
        Cells at a time.

    Returns
    -------
    dict
        ``format``, ``study`` (with the chosen folds and seeds), ``effect``, ``wanted_power``,
        ``alpha``, ``comparisons``, ``options`` (`Option`, cheapest first), ``chosen`` (one of them,
        or None where not even the largest tells), ``pilot`` (its fingerprints and spreads).

    Raises
    ------
    ValueError
        If the effect or the power can't be.
    StudyError
        If the pilot has nothing to compare.
    RunError
        If the folder holds no results.
    """
    if not 0 < effect < 1:
        raise ValueError(f"effect must be a share of accuracy between 0 and 1, got {effect}")
    if not 0 < wanted_power < 1:
        raise ValueError(f"power must lie between 0 and 1, got {wanted_power}")
    results = read_results(pilot)
    seen = [c for c in results["comparisons"] if c["pairs"] >= 2 and c["effect"]["deviation"]]
    if not seen:
        raise StudyError(
            f"the pilot {pilot} has no comparison with two finished folds that differ; run at "
            "least two folds of every arm"
        )
    level = spent_level(alpha, 1) / max(1, len(results["comparisons"]))
    seconds, size = _cost(results, Path(pilot))
    arms = len(results["conditions"])
    options = []
    for folds in FOLDS:
        for seeds in range(1, MOST_SEEDS + 1):
            cells = arms * seeds * (folds + bool(study.retrain))
            found = min(_power(c, effect, folds, seeds, level) for c in seen)
            hours = seconds * cells / workers / 3600
            options.append(Option(folds, seeds, found, hours, round(size * cells)))
    options.sort(key=lambda o: (o.hours, -o.power))
    telling = [o for o in options if o.power >= wanted_power and o.folds * o.seeds >= 15]
    chosen = telling[0] if telling else None
    planned = study
    if chosen is not None:
        first = study.seeds[0]
        planned = study.model_copy(
            update={
                "folds": chosen.folds,
                "seeds": tuple(range(first, first + chosen.seeds)),
            }
        )
    return {
        "format": PLAN,
        "study": planned.to_json(),
        "effect": effect,
        "wanted_power": wanted_power,
        "alpha": alpha,
        "comparisons": len(results["comparisons"]),
        "options": [asdict(option) for option in options],
        "chosen": None if chosen is None else asdict(chosen),
        "pilot": {
            "fingerprints": {d["name"]: d["fingerprint"] for d in results["data_sets"]},
            "deviations": {
                f"{c['condition']} against {c['baseline']}": c["effect"]["deviation"] for c in seen
            },
        },
    }


def _power(comparison: _Record, effect: float, folds: int, seeds: int, level: float) -> float:
    """Power of one comparison under another design, with a larger spread than the pilot's."""
    from scipy import stats

    count = comparison["pairs"]
    deviation = comparison["effect"]["deviation"] * np.sqrt(
        (count - 1) / stats.chi2.ppf(_QUANTILE, count - 1)
    )
    before = 1 / comparison["ratio"] + 1
    deviation *= np.sqrt((1 - 1 / folds) / (1 - 1 / before))
    images = comparison.get("images")
    noise = None if images is None else ImageNoise(**images)
    return power(effect, float(deviation), folds * seeds, 1 / (folds - 1), level, noise)


def _cost(results: _Record, folder: Path) -> tuple[float, float]:
    """Mean seconds and bytes of a cell."""
    cells = [c for c in results["cells"] if c.get("seconds")]
    places = [folder / Path(c["predictions"]).parent for c in cells if c.get("predictions")]
    sizes = [
        sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
        for place in places
        if place.is_dir()
    ]
    seconds = float(np.mean([c["seconds"] for c in cells])) if cells else 0.0
    return seconds, float(np.mean(sizes)) if sizes else 0.0


def digest_of(plan: _Record) -> str:
    """SHA-256 of a plan, whatever the order and spacing of its file."""
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_plan(plan: _Record, path: Path) -> str:
    """Write a plan; give its digest."""
    write_json(path, plan)
    return digest_of(plan)


def planned_digest(path: Path | str, study: Study) -> str:
    """The digest of a plan that a study follows.

    Raises
    ------
    RunError
        If the file is no plan.
    StudyError
        If the study is another than the planned one, with the choices that differ.
    """
    plan = read_json_object(Path(path), error=RunError, needs=("format", "study"))
    if plan["format"] != PLAN or not isinstance(plan["study"], dict):
        raise RunError(f"{path} is no plan; 'rankwise study plan' writes one")
    ours, theirs = study.to_json(), plan["study"]
    different = [key for key in ours if _plain(ours, key) != _plain(theirs, key)]
    if different:
        raise StudyError(
            f"the study isn't the planned one (different: {', '.join(different)}); change the "
            "study, or plan anew"
        )
    return digest_of(plan)


def _plain(study: _Record, key: str) -> Any:
    """A choice without the places of data, which may differ from machine to machine."""
    value = study.get(key)
    if key == "data" and isinstance(value, dict):
        return {
            name: {k: v for k, v in part.items() if k != "source"} for name, part in value.items()
        }
    return value
