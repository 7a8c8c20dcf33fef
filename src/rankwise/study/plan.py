"""Before a study: how many folds, seeds and images tell an effect, and what they cost.

A pilot is a small run of it (`rankwise.study.pilots`). Its spreads, image noise, seconds and bytes
are taken over and scaled; its *means* are not: the effect to be told is stated beforehand. The plan
is a file whose digest is in the study's report, and whose seeds the pilot hasn't used, so nobody
has to believe that the design was chosen before the results (`rankwise.study.preregistration`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.data import ImageSet, stratified_limit
from rankwise.study.arms import with_pipelines
from rankwise.study.claim import weight_files
from rankwise.study.conditions import Condition, both_name, conditions_of
from rankwise.study.design import Study, StudyError
from rankwise.study.infer import spent_level
from rankwise.study.pilots import PilotRun, Rates, Spread, read_pilot
from rankwise.study.planned_power import Asked, chance, contrast_chances
from rankwise.study.preregistration import PLAN
from rankwise.study.protocols import hold_out, most_folds, protocol_of, reserved
from rankwise.study.results import timestamp
from rankwise.study.run import check_sources, load_data
from rankwise.study.verdict import FEWEST_FOLDS, FEWEST_SEEDS

FOLDS = tuple(folds for folds in (5, 10) if folds >= FEWEST_FOLDS)
MOST_SEEDS = 30
ALPHA = 0.05
"""Level of a study's whole family, as `rankwise.study.conclusions.conclusions` holds it."""

_Record = dict[str, Any]


@dataclass(frozen=True)
class Option:
    """A design, what it tells and what it costs.

    Attributes
    ----------
    folds, seeds : int
    images : dict
        Of each data set.
    power : float
        Of the arm that is hardest to tell.
    hours : float
        On this machine, with the workers that are planned with.
    disk : int
        Bytes.
    """

    folds: int
    seeds: int
    images: dict[str, int]
    power: float
    hours: float
    disk: int


@dataclass(frozen=True)
class Amount:
    """So many images of each data set.

    Parameters
    ----------
    images, sources : dict
        By data set; where every image is a source of its own, the same.
    most_folds : int
        Into which all of them can be cut.
    """

    images: dict[str, int]
    sources: dict[str, int]
    most_folds: int


def plan_study(
    study: Study,
    pilot: Path | str,
    *,
    effect: float,
    wanted_power: float = 0.8,
    workers: int = 1,
    progress: bool = False,
) -> _Record:
    """The cheapest folds, seeds and images that tell an effect, from a pilot.

    The power is that of the verdict ``helps`` (`rankwise.study.verdict`) on every arm, each taken
    to gain the effect over its baseline and over unchanged copies alike; whether both are found is
    bounded from below by Bonferroni's inequality. Losses are found as well as gains.

    Parameters
    ----------
    study : Study
        What is planned; the pilot's conditions must be among its own, and its images the first or
        all of those that its sources give.
    pilot : path
        Folder of a smaller run, finished or not: at least two folds of two arms on every data set
        and model.
    effect : float
        True difference to be found, a share of accuracy: 0.002 is 0.2 points.
    wanted_power : float
        Chance to find it.
    workers : int
        Cells at a time.
    progress : bool
        A bar over the images that are read on standard error.

    Returns
    -------
    dict
        ``format``, ``written`` (when), ``study`` (with the chosen folds, seeds and limits of
        images), ``fingerprints`` (of its images), ``files`` (digests of its
        code and weights, versions of libraries), ``effect``, ``wanted_power``, ``alpha``,
        ``comparisons`` and ``contrasts`` (how many the family has), ``contrast_power`` (of the
        chosen design, for main effects and interactions of that size; it isn't chosen by them, and
        one is None of which the pilot shows no spread), ``assumed`` (comparisons that
        the pilot doesn't show), ``obstacles`` (why arms of the pilot got no verdict, which more
        epochs may mend), ``standing`` (those of them that would keep
        a planned arm from a verdict too, since it isn't to train for longer: then no design tells),
        ``region`` (the widest region of equivalence), ``options``
        (`Option`, cheapest first; seeds up to the fewest that tell), ``chosen`` (one of them, or
        None where not even the largest tells), ``pilot`` (when it was begun, its fingerprints and
        spreads).

    Raises
    ------
    ValueError
        If the effect or the power can't be.
    StudyError
        If the pilot is none of this study, or has nothing to compare.
    DataError
        If a source can't be read.
    RunError
        If the folder holds no study, or a damaged one.
    """
    if not 0 < effect < 1:
        raise ValueError(f"effect must be a share of accuracy between 0 and 1, got {effect}")
    if not 0 < wanted_power < 1:
        raise ValueError(f"power must lie between 0 and 1, got {wanted_power}")
    study = with_pipelines(study)
    conditions = conditions_of(study)
    found = read_pilot(pilot, study)
    arms, spreads, assumed = _arms(found, conditions)
    standing = {arm.condition: arm.obstacle for arm in arms if arm.obstacle is not None}
    rates = {condition.id: found.rates(condition) for condition in conditions}
    check_sources(study, conditions)
    data_sets = load_data(study, conditions, progress=progress)
    sources = _pilot_sources(found, conditions, data_sets)
    contrasts = found.contrasts()
    n_comparisons = _n_comparisons(conditions)
    level = spent_level(ALPHA, 1) / (n_comparisons + len(contrasts))
    options, growth = [], {}
    for amount in _amounts(study, found.n_images, data_sets):
        more = {name: n / sources[name] for name, n in amount.sources.items()}
        growth[tuple(amount.images.values())] = more
        for folds in FOLDS:
            if folds > amount.most_folds:
                continue
            costs = _cost_of_a_seed(study, conditions, rates, folds, amount)
            for seeds in range(FEWEST_SEEDS, MOST_SEEDS + 1):
                power = min(chance(arm, effect, folds, seeds, level, more) for arm in arms)
                hours, disk = costs[0] * seeds / workers / 3600, round(costs[1] * seeds)
                options.append(Option(folds, seeds, amount.images, power, hours, disk))
                if power >= wanted_power or standing:
                    break  # More seeds only cost more, and mend no obstacle.
    if not options:
        raise StudyError(
            f"a verdict needs {FEWEST_FOLDS} folds, and the images can't be cut into so many"
        )
    options.sort(key=lambda o: (o.hours, -o.power))
    chosen = next((o for o in options if o.power >= wanted_power), None)
    chances: dict[str, float | None] = {}
    planned, fingerprints = study, {n: d.fingerprint for n, d in data_sets.items()}
    if chosen is not None:
        more = growth[tuple(chosen.images.values())]
        chances = contrast_chances(contrasts, effect, chosen.folds, chosen.seeds, level, more)
        planned = _with_choice(study, found, chosen, data_sets)
        if planned.data != study.data:
            read = load_data(planned, conditions, progress=progress)
            fingerprints = {n: d.fingerprint for n, d in read.items()}
    return {
        "format": PLAN,
        "written": timestamp(),
        "study": planned.to_json(),
        "fingerprints": fingerprints,
        "files": weight_files(planned),
        "effect": effect,
        "wanted_power": wanted_power,
        "alpha": ALPHA,
        "comparisons": n_comparisons,
        "contrasts": len(contrasts),
        "contrast_power": chances,
        "assumed": assumed,
        "obstacles": found.obstacles,
        "standing": standing,
        "region": max(s.rope for arm in arms for each in arm.comparisons for s in each),
        "options": [asdict(option) for option in options],
        "chosen": None if chosen is None else asdict(chosen),
        "pilot": {
            "started": found.results.get("started"),
            "fingerprints": found.fingerprints,
            "images": found.n_images,
            "deviations": {name: spread.deviation for name, spread in spreads.items()},
        },
    }


def _arms(
    pilot: PilotRun, conditions: Sequence[Condition]
) -> tuple[list[Asked], dict[str, Spread], list[str]]:
    """Arms to be told, the spreads that the pilot shows, and comparisons that it doesn't show.

    Controls, and what else the protocol adds, are compared too, but nobody asks for a verdict on
    them.
    """
    by_id = {condition.id: condition for condition in conditions}
    named = {*pilot.planned.arms, *(both_name(pair) for pair in pilot.planned.factorial)}
    controls = {condition.control for condition in conditions}
    compared = [c for c in conditions if c.baseline]
    arms, shown, assumed = [], {}, []
    asked = [c for c in compared if c.arm in named and c.id not in controls]
    for condition in asked or compared:
        comparisons, obstacle = [], None
        for other in (condition.baseline, condition.control):
            if other is None:
                continue
            name = f"{condition.id} against {other}"
            spread = pilot.spread(condition, by_id[other])
            obstacle = obstacle or pilot.obstacle(condition, by_id[other])
            if spread is None:
                assumed.append(name)
                comparisons.append(pilot.spreads_at((condition.data_set, condition.model)))
            else:
                shown[name] = spread
                comparisons.append([spread])
            if not comparisons[-1]:
                raise StudyError(
                    f"the pilot {pilot.folder} has no comparison with two finished folds that "
                    f"differ on {condition.data_set}/{condition.model}; run at least two folds of "
                    "two arms there"
                )
        arms.append(Asked(condition.data_set, comparisons, condition.id, obstacle))
    if not arms:
        raise StudyError(f"{pilot.planned.name} compares no arms: there is nothing to plan")
    return arms, shown, assumed


def _n_comparisons(conditions: Sequence[Condition]) -> int:
    """As `rankwise.study.compare.compare_conditions` counts them."""
    ids = {condition.id for condition in conditions}
    return sum(other in ids for c in conditions for other in (c.baseline, c.control))


def _pilot_sources(
    pilot: PilotRun, conditions: Sequence[Condition], data_sets: Mapping[str, ImageSet]
) -> dict[str, int]:
    """How many sources the pilot's images are of, from the planned study's own sources.

    Raises
    ------
    StudyError
        If these give other images than the pilot had.
    """
    theirs, ours = pilot.study, pilot.planned
    data = {
        name: each.model_copy(update={"limit": theirs.data[name].limit})
        if name in pilot.fingerprints
        else each
        for name, each in ours.data.items()
    }
    changed = ours.model_copy(update={"data": data, "split_seed": theirs.split_seed})
    same = all(data[n].limit == ours.data[n].limit for n in data_sets)
    same = same and theirs.split_seed == ours.split_seed
    read = data_sets if same else load_data(changed, conditions)
    for name, fingerprint in pilot.fingerprints.items():
        if read[name].fingerprint != fingerprint:
            raise StudyError(
                f"the pilot's images of {name!r} aren't those that {data[name].source} gives: its "
                "spreads and costs would be those of another study; run the pilot on this source"
            )
        if len(data_sets[name]) < len(read[name]):
            raise StudyError(
                f"the pilot has {len(read[name])} images of {name!r} and the study "
                f"{len(data_sets[name])}; a pilot has at most those of its study"
            )
    return {name: len(np.unique(images.source_ids)) for name, images in read.items()}


def _amounts(
    study: Study, n_pilot: Mapping[str, int], data_sets: Mapping[str, ImageSet]
) -> Iterator[Amount]:
    """Numbers of images from the pilot's to all that there are, each about twice the one before."""
    largest = max(len(images) / n_pilot[name] for name, images in data_sets.items())
    factors = [2.0**i for i in range(64) if 2.0**i < largest] + [largest]
    protocol = protocol_of(study.protocol)
    for factor in factors:
        chosen, sources, folds = {}, {}, []
        for name, images in data_sets.items():
            chosen[name] = min(len(images), round(factor * n_pilot[name]))
            rows = stratified_limit(images.labels, chosen[name], study.split_seed)
            labels, ids = images.labels[rows], images.source_ids[rows]
            sources[name] = len(np.unique(ids))
            rest, _ = hold_out(protocol, labels, ids, study.test_fraction, study.split_seed)
            kept, _ = reserved(protocol, labels[rest], ids[rest], study.reserve, study.split_seed)
            folds.append(most_folds(protocol, labels[rest][kept], ids[rest][kept]))
        yield Amount(chosen, sources, min(folds))


def _cost_of_a_seed(
    study: Study,
    conditions: Sequence[Condition],
    rates: Mapping[str, Rates],
    folds: int,
    amount: Amount,
) -> tuple[float, float]:
    """Seconds, one cell after another, and bytes."""
    design = study.model_copy(update={"folds": folds})
    seconds = size = 0.0
    for condition in conditions:
        n = amount.images[condition.data_set]
        for fold, cells in ((True, folds), (False, int(study.retrain))):
            each = rates[condition.id].cell(design, condition.epochs, n, fold=fold)
            seconds, size = seconds + cells * each[0], size + cells * each[1]
    return seconds, size


def _with_choice(
    study: Study, pilot: PilotRun, chosen: Option, data_sets: Mapping[str, ImageSet]
) -> Study:
    """The planned study; its seeds are its own first ones that the pilot hasn't used."""
    candidates = chain(study.seeds, count(max(study.seeds) + 1))
    unused = (seed for seed in candidates if seed not in pilot.study.seeds)
    data = {
        name: each
        if chosen.images.get(name, 0) == len(data_sets.get(name, ()))
        else each.model_copy(update={"limit": chosen.images[name]})
        for name, each in study.data.items()
    }
    return study.model_copy(
        update={"folds": chosen.folds, "seeds": tuple(islice(unused, chosen.seeds)), "data": data}
    )
