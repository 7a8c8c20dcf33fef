"""What a pilot shows of the study that it is for: spreads, noise of images, seconds and bytes.

A pilot is the study with fewer folds, seeds, images, epochs or arms. What it shows of a comparison
or a condition is taken for it; for those that it hasn't, what it shows of the others with the same
data set and model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._reading import blamed_on
from rankwise.errors import RunError
from rankwise.study.claim import STUDY, read_claim, weight_files
from rankwise.study.conditions import Condition, conditions_of
from rankwise.study.contrasts import contrasts_of
from rankwise.study.design import Study, StudyError
from rankwise.study.infer import ImageNoise, sample_deviation
from rankwise.study.outcomes import (
    Record,
    fold_cells,
    fold_scores,
    noise_between,
    primary_outcome,
    region,
)
from rankwise.study.power import with_images
from rankwise.study.protocols import protocol_of
from rankwise.study.results import RESULTS
from rankwise.study.status import current_results

# A pilot's spread is an estimate: what four of five pilots would not exceed is planned with.
_QUANTILE = 0.2
_SAME = (
    "protocol",
    "batch_size",
    "precision",
    "test_fraction",
    "reserve",
    "patience",
    "corruptions",
)
_READING = ("size", "grey", "source_pattern", "on_error")
_BYTES_A_PARAMETER = 4


@dataclass(frozen=True)
class Spread:
    """How the differences of two conditions vary.

    Parameters
    ----------
    pairs, folds : int
        Pairs of folds that were compared, and folds of the pilot.
    deviation : float
    noise : ImageNoise, optional
    rope : float
        Half width of the planned study's region of equivalence.
    """

    pairs: int
    folds: int
    deviation: float
    noise: ImageNoise | None
    rope: float

    def under(self, folds: int, images: float) -> tuple[float, ImageNoise | None]:
        """Deviation and noise with other folds and so many times as many images (or sources).

        The deviation is larger than the pilot's, which is an estimate (`_QUANTILE`), and scaled by
        folds as in `rankwise.study.power.folds_to_tell`. Images enter by their noise alone: what
        trainings differ by is taken to stay.
        """
        from scipy import stats

        freedom = self.pairs - 1
        square = self.deviation**2 * freedom / float(stats.chi2.ppf(_QUANTILE, freedom))
        own = 0.0
        if self.noise is not None and not self.noise.shared:
            own = min(self.folds * self.noise.variance, square)
        square += own * (folds / self.folds / images - 1)
        square *= (1 - 1 / folds) / (1 - 1 / self.folds)
        return float(np.sqrt(square)), with_images(self.noise, images)


@dataclass(frozen=True)
class PlannedContrast:
    """A main effect or an interaction of the planned study.

    Parameters
    ----------
    name, data_set : str
    spread : Spread, optional
        None where the pilot hasn't two folds of all four arms that differ.
    """

    name: str
    data_set: str
    spread: Spread | None


@dataclass(frozen=True)
class Rates:
    """What a fold of a condition costs.

    Parameters
    ----------
    training : float
        Seconds of an epoch and a training image.
    beside : float
        Seconds of copies and tests, for an image of the whole set.
    image_bytes, epoch_bytes, other_bytes : float
        On disk: for an image of the set, an epoch, and a cell.
    weight_bytes : float
        Of the re-trained network.
    best : float
        Mean best epoch, a share of the epochs.
    plateau : float or None
        Epochs after which `patience` ended the trainings; None where they went to the end.
    """

    training: float
    beside: float
    image_bytes: float
    epoch_bytes: float
    other_bytes: float
    weight_bytes: float
    best: float
    plateau: float | None

    def cell(self, study: Study, epochs: int, n_images: int, *, fold: bool) -> tuple[float, float]:
        """Seconds and bytes of a cell of the planned study."""
        trained: float = epochs
        if study.patience is not None and self.plateau is not None:
            trained = min(trained, self.plateau)
        n = n_images * (1 - study.test_fraction) * (1 - study.reserve)
        if fold:
            n *= 1 - 1 / study.folds
        else:
            trained *= self.best * protocol_of(study.protocol).retrain_factor
        seconds = self.training * trained * n + self.beside * n_images
        size = self.image_bytes * n_images + self.epoch_bytes * trained + self.other_bytes
        return seconds, size + (0 if fold else self.weight_bytes)


@dataclass(frozen=True)
class PilotRun:
    """A pilot's results beside the study that it is for.

    Parameters
    ----------
    study : Study
        The pilot itself.
    planned : Study
    results : dict
    folder : Path
    """

    study: Study
    planned: Study
    results: Record
    folder: Path

    @property
    def outcome(self) -> str:
        """What verdicts rest on."""
        return primary_outcome(self.planned.protocol)

    @property
    def n_images(self) -> dict[str, int]:
        """Images by data set."""
        return {d["name"]: int(d["n_images"]) for d in self.results["data_sets"]}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the images, by data set."""
        return {d["name"]: d["fingerprint"] for d in self.results["data_sets"]}

    @property
    def obstacles(self) -> dict[str, str]:
        """Why conditions got no verdict whatever their numbers say, such as late best epochs."""
        told = self.results.get("comparisons") or ()
        return {c["condition"]: c["obstacle"] for c in told if c.get("obstacle")}

    def obstacle(self, first: Condition, second: Condition) -> str | None:
        """What kept two planned conditions from a verdict, unless both are to train for longer."""
        pair = self.counterpart(first), self.counterpart(second)
        if pair[0] is None or pair[1] is None:
            return None
        longer = first.epochs > pair[0].epochs and second.epochs > pair[1].epochs
        wanted = (pair[0].id, pair[1].id)
        told = self.results.get("comparisons") or ()
        found = [c["obstacle"] for c in told if (c["condition"], c.get("baseline")) == wanted]
        return None if longer else next((text for text in found if text), None)

    def counterpart(self, condition: Condition) -> Condition | None:
        """The pilot's condition of the same data set, model and arm."""
        return next((c for c in conditions_of(self.study) if _alike(c, condition)), None)

    def spread(self, first: Condition, second: Condition) -> Spread | None:
        """Of two planned conditions; None where the pilot hasn't two folds of both that differ."""
        pair = self.counterpart(first), self.counterpart(second)
        return None if pair[0] is None or pair[1] is None else self._spread(pair[0].id, pair[1].id)

    def spreads_at(self, place: tuple[str, str]) -> list[Spread]:
        """Of all comparisons that the pilot makes on a data set and model."""
        found = [
            self._spread(c.id, other)
            for c in conditions_of(self.study)
            for other in (c.baseline, c.control)
            if (c.data_set, c.model) == place and other is not None
        ]
        return [spread for spread in found if spread is not None]

    def _spread(self, first: str, second: str) -> Spread | None:
        ours, theirs = (fold_scores(self.results, c, self.outcome) for c in (first, second))
        shared = sorted(ours.keys() & theirs.keys())
        differences = np.array([ours[key] - theirs[key] for key in shared])
        deviation = sample_deviation(differences) if len(shared) > 1 else 0.0
        if deviation == 0:
            return None
        noise = noise_between(self.results, first, second, self.outcome, self.folder)
        rope = region(self.planned.to_json(), list(theirs.values()))
        return Spread(len(shared), self.study.folds, deviation, noise, rope)

    def contrasts(self) -> list[PlannedContrast]:
        """Main effects and interactions of the planned study, with what the pilot shows of them."""
        conditions = [condition.to_json() for condition in conditions_of(self.planned)]
        study = self.planned.to_json() | {"folds": self.study.folds}
        empty = {"study": study, "conditions": conditions, "cells": [], "data_sets": []}
        own = {
            (c.data_set, c.model, c.pair, c.effect, c.arm): c
            for c in contrasts_of(self.results | {"study": study}, self.folder, self.outcome)
        }
        found = []
        for c in contrasts_of(empty, self.folder, self.outcome):
            name = f"{c.data_set}/{c.model}: {c.effect} effect of {c.arm}"
            if c.effect == "interaction":
                name = f"{c.data_set}/{c.model}: interaction of {' and '.join(c.pair)}"
            seen = own.get((c.data_set, c.model, c.pair, c.effect, c.arm))
            differences = np.zeros(0) if seen is None else seen.differences
            deviation = sample_deviation(differences) if differences.size > 1 else 0.0
            spread = None
            if seen is not None and deviation > 0:
                spread = Spread(
                    differences.size, self.study.folds, deviation, seen.noise, seen.rope
                )
            found.append(PlannedContrast(name, c.data_set, spread))
        return found

    def rates(self, condition: Condition) -> Rates:
        """Of a planned condition's folds.

        Raises
        ------
        StudyError
            If the pilot has no finished fold of its data set and model.
        """
        own = self.counterpart(condition)
        ids = [] if own is None or not fold_cells(self.results, own.id) else [own.id]
        place = (condition.data_set, condition.model)
        ids = ids or [c.id for c in conditions_of(self.study) if (c.data_set, c.model) == place]
        cells = [cell for name in ids for cell in fold_cells(self.results, name).values()]
        if not cells:
            raise StudyError(
                f"the pilot {self.folder} has no finished fold of {'/'.join(place)}; run it there "
                "too, or plan without it (--only, --arms)"
            )
        n_images = self.n_images[condition.data_set]
        trained = np.array([len(c["history"]) or c["epochs"] for c in cells], float)
        training = np.array([c.get("train_seconds", c["seconds"]) for c in cells])
        beside = np.array([c["seconds"] for c in cells]) - training
        sizes = [_sizes(self.folder / Path(c["predictions"]).parent) for c in cells]
        stopped = self.study.patience is not None and all(
            len(c["history"]) < c["epochs"] for c in cells
        )
        parameters = [
            c.get("n_parameters") or 0 for c in self.results["conditions"] if c["id"] in ids
        ]
        return Rates(
            training=float(np.mean(training / (trained * [c["n_train"] for c in cells]))),
            beside=float(np.mean(beside)) / n_images,
            image_bytes=float(np.mean([s[0] for s in sizes])) / n_images,
            epoch_bytes=float(np.mean([s[1] for s in sizes] / trained)),
            other_bytes=float(np.mean([s[2] for s in sizes])),
            weight_bytes=float(_BYTES_A_PARAMETER * max(parameters, default=0)),
            best=float(np.mean([c["best_epoch"] for c in cells] / trained)),
            plateau=float(np.mean(trained)) if stopped else None,
        )


def read_pilot(folder: Path | str, planned: Study) -> PilotRun:
    """A pilot's folder, finished or not.

    Parameters
    ----------
    folder : path
    planned : Study
        What it is a pilot of.

    Raises
    ------
    RunError
        If the folder holds no study, or a damaged one.
    StudyError
        If the pilot is one of another study, with what differs.
    """
    folder = Path(folder)
    results = current_results(folder)
    with blamed_on(folder / RESULTS, RunError):
        found = PilotRun(Study.model_validate(results["study"]), planned, results, folder)
        _ = found.n_images, found.fingerprints  # what a damaged file may lack
    _refuse_foreign(found)
    return found


def _refuse_foreign(pilot: PilotRun) -> None:
    mine, planned = pilot.study, pilot.planned
    ours, theirs = mine.to_json(), planned.to_json()
    different = [key for key in _SAME if ours[key] != theirs[key]]
    if any(pair[::-1] in planned.factorial for pair in mine.factorial):
        different.append("factorial: the same pair in another order")
    if _degraded(mine) != _degraded(planned):
        different.append("degraded")
    for table in ("data", "models", "arms"):
        for name, part in ours[table].items():
            keys: Sequence[str] = _READING if table == "data" else list(part)
            other = theirs[table].get(name)
            if other is None or any(part[key] != other[key] for key in keys):
                different.append(f"{table}.{name}")
    if not different and (pilot.folder / STUDY).is_file():
        own = read_claim(pilot.folder).get("files", {})
        files = weight_files(planned)
        different = [
            f"the code, weights or library of {place}"
            for place, digest in own.items()
            if place.startswith(("arms.", "models.")) and files.get(place) != digest
        ]
    if different:
        raise StudyError(
            f"the pilot {pilot.folder} is no part of the study (different: {', '.join(different)}"
            "); a pilot is the study with fewer folds, seeds, images, epochs or arms"
        )
    wanted = conditions_of(planned)
    strange = [
        c.id
        for c in conditions_of(mine)
        if c.arm in mine.arms and not any(_alike(c, other) for other in wanted)
    ]
    if strange:
        raise StudyError(
            f"the pilot {pilot.folder} has conditions that the study lacks: {', '.join(strange)}; "
            "a pilot has conditions of the study alone"
        )


def _alike(first: Condition, second: Condition) -> bool:
    """Whether two conditions are the same but for epochs."""
    ours, theirs = (
        (c.data_set, c.model, c.arm, c.options.model_dump(mode="json")) for c in (first, second)
    )
    return ours == theirs


def _degraded(study: Study) -> str:
    return study.degraded or protocol_of(study.protocol).degraded


def _sizes(place: Path) -> tuple[int, int, int]:
    """Bytes of a cell's files that grow with images, with epochs, and with neither."""
    found: dict[str, Any] = {"images": 0, "epochs": 0, "neither": 0}
    for path in place.rglob("*"):
        if path.is_file():
            kind = "images" if path.suffix == ".npz" else "epochs"
            kind = "neither" if path.name in ("cell.json", "lock") else kind
            found[kind] += path.stat().st_size
    return found["images"], found["epochs"], found["neither"]
