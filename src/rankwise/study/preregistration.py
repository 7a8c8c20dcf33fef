"""A study that follows a plan: the plan as its file has it, and what binds the study to it.

A plan is worth as much as the certainty that it was there before the results. So a folder has its
plan from its first moment or never (`rankwise.study.claim`), the digest is that of the very file,
and a plan holds the design and the fingerprints of the images that it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise._claims import checksum
from rankwise._files import write_json
from rankwise._reading import blamed_on, read_json_object
from rankwise.data import ImageSet
from rankwise.errors import RunError
from rankwise.study.design import Study, StudyError

PLAN = 3
"""Format of a plan's file."""

_Record = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A plan as it was read.

    Attributes
    ----------
    digest : str
        SHA-256 of the file as it is on disk, what ``sha256sum`` says of it.
    written : str
        When.
    study : Study
        What is planned, down to folds, seeds and numbers of images.
    fingerprints : dict
        Of the planned study's images, by data set.
    files : dict
        Digests of the code and weights of its arms and models, and versions of libraries.
    pilot_started : str or None
        When the pilot was begun: it tells the pilot's folder, and copies of it.
    """

    digest: str
    written: str
    study: Study
    fingerprints: Mapping[str, str]
    files: Mapping[str, str]
    pilot_started: str | None


def refuse_place(path: Path) -> None:
    """Refuse a place for a plan where a folder or a file is already.

    Raises
    ------
    StudyError
    """
    if path.is_dir():
        raise StudyError(f"{path} is a folder; --out takes a file's name, such as {path}/plan.json")
    if path.exists():
        raise StudyError(
            f"{path} is there already, and no plan is overwritten; give another --out, or remove it"
        )


def write_plan(plan: _Record, path: Path) -> str:
    """Write a plan; give the SHA-256 of its file.

    Parameters
    ----------
    plan : dict
        As `rankwise.study.plan.plan_study` gives it.
    path : Path

    Raises
    ------
    StudyError
        If no design reached the power asked for, or the place is taken: then nothing is written.
    """
    refuse_place(path)
    if plan["standing"]:
        name, reason = next(iter(plan["standing"].items()))
        raise StudyError(
            f"no design has a verdict on {', '.join(plan['standing'])}, since the pilot has none "
            f"on {name} ({reason}) and the study isn't to train for longer; no plan was written: "
            "give the study more epochs than the pilot had, or leave the arm out with --arms"
        )
    if plan["chosen"] is None:
        best = max(option["power"] for option in plan["options"])
        within = (
            f"; an effect of no more than the region of practical equivalence, "
            f"±{100 * plan['region']:.3g} points, is never told"
            if plan["effect"] <= plan["region"]
            else ""
        )
        raise StudyError(
            f"no design reaches a power of {plan['wanted_power']:.0%} for "
            f"{100 * plan['effect']:g} points (up to {best:.0%}), so no plan was written; a larger "
            f"effect, more images or fewer arms would do{within}"
        )
    write_json(path, plan)
    return checksum(path)


def read_plan(path: Path | str) -> Plan:
    """A plan's file.

    Raises
    ------
    RunError
        If it is no plan, or a damaged one.
    StudyError
        If no design of it reached the power asked for.
    """
    path = Path(path)
    found = read_json_object(path, error=RunError, needs=("format", "study"))
    if found["format"] != PLAN:
        raise RunError(
            f"{path} is no plan that this version reads; 'rankwise study plan' writes one"
        )
    if found.get("chosen") is None:
        raise StudyError(
            f"{path} chose no design, so there is nothing in it to follow; plan a larger effect or "
            "less power"
        )
    with blamed_on(path, RunError):
        return Plan(
            digest=checksum(path),
            written=str(found["written"]),
            study=Study.model_validate(found["study"]),
            fingerprints={str(k): str(v) for k, v in found["fingerprints"].items()},
            files={str(k): str(v) for k, v in found["files"].items()},
            pilot_started=found["pilot"].get("started"),
        )


def as_planned(
    plan: Plan, study: Study, *, folds: bool = True, seeds: bool = True, limits: bool = True
) -> Study:
    """A study with the folds, seeds and numbers of images that were planned, where asked for."""
    changes: _Record = {}
    if folds:
        changes["folds"] = plan.study.folds
    if seeds:
        changes["seeds"] = plan.study.seeds
    if limits:
        changes["data"] = {
            name: data.model_copy(update={"limit": plan.study.data[name].limit})
            if name in plan.study.data
            else data
            for name, data in study.data.items()
        }
    return study.model_copy(update=changes)


def refuse_unplanned(plan: Plan, study: Study) -> None:
    """Refuse a study of another design than the planned one.

    Raises
    ------
    StudyError
        With the choices that differ.
    """
    ours, theirs = study.to_json(), plan.study.to_json()
    different = [key for key in ours if _plain(ours, key) != _plain(theirs, key)]
    if different:
        raise StudyError(
            f"the study isn't the planned one (different: {', '.join(different)}); change the "
            "study, or plan anew"
        )


def refuse_other_images(plan: Plan, data_sets: Mapping[str, ImageSet]) -> None:
    """Refuse images that aren't those that were planned with, whatever their source is called.

    Raises
    ------
    StudyError
        With the data sets that differ.
    """
    others = [
        name
        for name, images in data_sets.items()
        if plan.fingerprints.get(name) != images.fingerprint
    ]
    if others:
        raise StudyError(
            f"the images of {', '.join(map(repr, others))} aren't those that the plan was made "
            "for; give the same images with --data, or plan anew"
        )


def refuse_other_files(plan: Plan, files: Mapping[str, str]) -> None:
    """Refuse code, weights or libraries that aren't those that were planned with.

    Parameters
    ----------
    plan : Plan
    files : dict
        Of the study, as `rankwise.study.claim.weight_files` gives them.

    Raises
    ------
    StudyError
        With the places that differ.
    """
    others = [
        place for place in {**files, **plan.files} if plan.files.get(place) != files.get(place)
    ]
    if others:
        raise StudyError(
            f"the code, weights or library of {', '.join(others)} aren't those that the plan was "
            "made for; give the same, or plan anew"
        )


def refuse_late_plan(out: Path, claimed: _Record, plan: Plan) -> None:
    """Refuse a plan for a folder that was begun without it.

    Parameters
    ----------
    out : Path
        The folder.
    claimed : dict
        Its ``study.json``.
    plan : Plan

    Raises
    ------
    RunError
    """
    known = plan_of(claimed)
    if known is not None and known["sha256"] == plan.digest:
        return
    if plan.pilot_started is not None and plan.pilot_started == claimed.get("started"):
        raise RunError(
            f"{out} is the pilot that the plan was made from, or a copy of it; a planned study "
            "needs a folder of its own: choose another"
        )
    if known is None:
        raise RunError(
            f"{out} was begun without a plan, and none can be made afterwards; choose another "
            "folder, or leave out --plan"
        )
    raise RunError(
        f"{out} was begun with another plan (sha256 {known['sha256']}); choose another folder, or "
        "give that plan"
    )


def plan_of(claimed: _Record) -> _Record | None:
    """``sha256`` and ``written`` of the plan that a folder was begun with; None without one."""
    known = claimed.get("plan")
    # Earlier versions kept the digest alone.
    return {"sha256": known, "written": None} if isinstance(known, str) else known


def _plain(study: _Record, key: str) -> Any:
    """A choice without the places of data: fingerprints say whether the images are the same."""
    value = study.get(key)
    if key == "data" and isinstance(value, dict):
        return {
            name: {k: v for k, v in part.items() if k != "source"} for name, part in value.items()
        }
    return value
